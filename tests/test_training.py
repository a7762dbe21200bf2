import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntklib import infinite, models, training
from ntklib.data import Split


def split(n=40, n_classes=2, seed=0):
    key_x, key_y = jax.random.split(jax.random.key(seed))
    x = jax.random.uniform(key_x, (n, 3, 3, 1))
    return Split(x, jax.random.randint(key_y, (n,), 0, n_classes), n_classes)


class Linear(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(x.reshape(len(x), -1))


def fit(data, key=0, **options):
    model = models.from_flax(Linear(1 if data.n_classes == 2 else data.n_classes))
    variables = model.init(jax.random.key(7), data.x[:1])
    defaults = {"epochs": 3, "optimizer": optax.sgd(0.1)}
    return variables, training.fit(
        model, variables, data, jax.random.key(key), **defaults | options
    )


def flat(variables):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables)])


def test_full_batches_are_gradient_descent_on_the_mean_loss():
    data = split()
    start, history = fit(data, epochs=5)
    design = np.hstack([np.ones((40, 1)), np.asarray(data.x).reshape(40, -1)]).astype(np.float64)
    weights = flat(start).astype(np.float64)  # bias, then kernel
    targets = np.asarray(data.signs())[:, 0]
    losses = []
    for _ in range(5):
        residual = design @ weights - targets
        losses.append(0.5 * np.mean(residual**2))
        weights -= 0.1 * design.T @ residual / 40
    np.testing.assert_allclose(flat(history.variables), weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-5)


def test_every_epoch_sees_every_point_once_in_an_order_of_the_key():
    data = split(n=10)
    seen = []
    model = models.Model(
        init=lambda key, x: {"w": jnp.zeros(())},
        apply=lambda v, x: (
            jax.debug.callback(seen.append, x[:, 0, 0, 0], ordered=True) or v["w"] * x[:, 0, 0]
        ),
    )
    variables = model.init(jax.random.key(0), data.x)
    training.fit(
        model, variables, data, jax.random.key(0), epochs=2, batch_size=4, optimizer=optax.sgd(0.0)
    )
    jax.effects_barrier()
    batches = [np.asarray(b) for b in seen]
    assert [len(b) for b in batches] == [4, 4, 2, 4, 4, 2]
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    everything = np.sort(np.asarray(data.x)[:, 0, 0, 0])
    np.testing.assert_array_equal(np.sort(first), everything)
    np.testing.assert_array_equal(np.sort(second), everything)
    assert not np.array_equal(first, second)


def test_the_key_decides_the_run():
    a, b, c = (fit(split(), key=k, batch_size=8)[1] for k in (0, 0, 1))
    assert np.array_equal(flat(a.variables), flat(b.variables))
    assert not np.array_equal(flat(a.variables), flat(c.variables))


def test_the_start_is_left_as_it_was_and_epochs_are_reported():
    called = []
    start, _ = fit(split(), epochs=4, on_epoch=lambda epoch, v: called.append((epoch, flat(v))))
    assert [epoch for epoch, _ in called] == [1, 2, 3, 4]
    assert len({v.tobytes() for _, v in called}) == 4
    assert np.isfinite(flat(start)).all()  # its buffers were not given away


def test_classes_are_learnt_with_cross_entropy():
    x = jnp.eye(9).reshape(9, 3, 3, 1)
    _, history = fit(
        Split(x, jnp.arange(9) % 3, 3), epochs=200, loss="ce", optimizer=optax.sgd(1.0)
    )
    assert history.accuracy[-1] == 1.0
    assert history.loss[-1] < 0.2 < history.loss[0]


def test_divergence_stops_with_the_epoch():
    with pytest.raises(training.DivergedError, match=r"^epoch \d+: the loss is (inf|nan)"):
        fit(split(), epochs=500, optimizer=optax.sgd(1e3))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 41}, "batch_size"),
    ],
)
def test_bad_arguments_are_named(options, name):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        fit(split(), **options)


def test_wide_networks_follow_the_kernels_training_dynamics():
    """f_t of the infinite network is the limit of gradient descent, at the same time."""
    data, new = split(n=20), split(n=30, seed=1)
    base = models.get("mlp", n_classes=1, width=64, depth=1)
    regression = infinite.Regressor(base.kernel_fn, data.x, data.signs())
    learning_rate = float(0.5 * 20 / regression.eigenvalues[0])
    expected = regression.at(40 * learning_rate / 20)(new.x)
    errors = []
    for width in (64, 4096):
        model = models.antisymmetric(models.get("mlp", n_classes=1, width=width, depth=1))
        runs = []
        for seed in range(4):
            start = model.init(jax.random.key(seed), data.x)
            history = training.fit(
                model,
                start,
                data,
                jax.random.key(0),
                epochs=40,
                optimizer=optax.sgd(learning_rate),
            )
            runs.append(model.apply(history.variables, new.x) - expected)
        errors.append(float(np.sqrt(np.mean(np.square(runs)))))
    assert errors[1] < 0.05
    assert errors[1] < 0.35 * errors[0]  # the rate is one over the root of the width: 1/8
