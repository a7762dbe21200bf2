"""Small classifiers for the tests of the attacks, as Partials, so that each compiles once."""

import functools

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from ntklib import attacks, data

SHAPE = (4, 4, 1)


def images(n, seed=0, shape=SHAPE):
    return jax.random.uniform(jax.random.key(seed), (n, *shape))


def labels(n, k, seed=1):
    return jax.random.randint(jax.random.key(seed), (n,), 0, k)


def weights(k, seed=2, size=16):
    return jax.random.normal(jax.random.key(seed), (size, k))


def linear(w, x, bias=0.0):
    return jnp.matmul(x.reshape(len(x), -1), w.astype(x.dtype), precision="highest") + bias


def smooth(w, x):
    return jnp.tanh(linear(w, x)) + 0.3 * linear(w, x) ** 2


def mlp(parameters, x):
    x = x.reshape(len(x), -1)
    for w, b in parameters[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = parameters[-1]
    return x @ w + b


@functools.cache
def digits():
    return data.load("digits")


@functools.cache
def trained():
    """A network of two hidden layers, trained on the digits by gradient descent."""
    train = digits().train
    sizes = [train.x[0].size, 64, 64, len(digits().classes)]
    keys = jax.random.split(jax.random.key(0), 3)
    start = [
        (jax.random.normal(key, (a, b)) * jnp.sqrt(2 / a), jnp.zeros(b))
        for key, a, b in zip(keys, sizes, sizes[1:], strict=False)
    ]
    optimizer = optax.adam(3e-3)

    def step(state, _):
        parameters, memory = state
        gradient = jax.grad(
            lambda p: attacks.loss_per_point(mlp(p, train.x), train.y, "ce").mean()
        )(parameters)
        updates, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(parameters, updates), memory), None

    (parameters, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=150)
    return Partial(mlp, parameters)
