"""A training with all that a checkpoint must carry, for this process and for others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntklib import attacks, models, training
from ntklib.data import Split


def split(n=40, n_classes=2, seed=0):
    key_x, key_y = jax.random.split(jax.random.key(seed))
    x = jax.random.uniform(key_x, (n, 3, 3, 1))
    return Split(x, jax.random.randint(key_y, (n,), 0, n_classes), n_classes)


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(2)(nn.relu(x))


def normalised():
    return models.from_flax(Normalised())


def slope(logits_fn, x, y, key):
    """A small attack, without a projection."""
    noise = 0.01 * jax.random.normal(key)
    return x + 0.1 * jnp.sign(attacks.input_gradient(logits_fn, x, y)) + noise


def flat(variables):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables)])


def fit(path, epochs, **options):
    """Momentum, a schedule, statistics, the adversary's keys, both courses."""
    model, data = normalised(), split(n=16)
    defaults = {
        "optimizer": optax.inject_hyperparams(optax.sgd)(
            optax.linear_schedule(0.1, 0.01, 12), momentum=0.9
        ),
        "batch_size": 8,
        "loss": "ce",
        "adversary": slope,
        "clean_first": True,
    }
    start = model.init(jax.random.key(1), data.x)
    arguments = {"variables": start, "data": data, "key": jax.random.key(0)}
    return training.fit(model, epochs=epochs, checkpoint=path, **arguments | defaults | options)


def bits(history):
    courses = [history.loss, history.accuracy, history.clean_loss, history.clean_accuracy]
    return np.float64(courses).tobytes() + flat(history.variables).tobytes()
