from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ntklib import advntk, attacks, data, infinite, models, wide
from ntklib._neural_tangents import stax
from ntklib.training import CheckpointError

NET = models.get("mlp", n_classes=3, w_std=1.76, b_std=0.18)
ATTACK = attacks.partial(attacks.pgd, epsilon=0.1, steps=3, loss="mse")


def problem(n=30, c=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    kernel = np.exp(-0.3 * ((x[:, None] - x) ** 2).sum(-1))
    return kernel, rng.uniform(0, 3, (n, 1)), rng.normal(size=(n, c))


def splits(n=60, held=20, seed=0):
    draw = data.load("digits", classes=[0, 1, 2], n_train=n + held, n_test=3, seed=seed).train
    return (
        data.Split(draw.x[:n], draw.y[:n], 3),
        data.Split(draw.x[n:], draw.y[n:], 3),
    )


@given(st.integers(0, 1000), st.integers(1, 60), st.floats(1e-3, 300))
def test_the_flow_is_that_of_the_exponential(seed, n, scale):
    kernel, times, targets = problem(n, seed=seed)
    found, _ = advntk.flow(kernel, scale * times, targets, tolerance=1e-12)
    left = scipy.linalg.expm(-kernel * scale * times.T) @ targets
    np.testing.assert_allclose(kernel @ found, targets - left, atol=1e-10)
    expected = wide.coefficients(kernel, scale * times[:, 0], targets)
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(30, 1), (30, 3), (1, 1)])
@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(1e-2, 30))
def test_the_pullback_is_the_derivative(shape, seed, scale):
    kernel, _, targets = problem(seed=seed)
    rng = np.random.default_rng(seed)
    times, direction = scale * rng.uniform(0.1, 1, shape), rng.normal(size=shape)
    cotangents = rng.normal(size=targets.shape)
    gradient = advntk.flow(kernel, times, targets, tolerance=1e-13)[1](cotangents)
    assert gradient.shape == shape

    def along(h):
        found, _ = advntk.flow(kernel, times + h * direction, targets, tolerance=1e-13)
        return (found * cotangents).sum()

    h = 1e-3 * scale  # Richardson's: an error of h^4
    slope = (8 * (along(h / 2) - along(-h / 2)) - (along(h) - along(-h))) / (6 * h)
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-7)


def test_the_derivative_at_zero_times_is_the_product_of_targets_and_cotangents():
    kernel, times, targets = problem()
    cotangents = np.random.default_rng(1).normal(size=targets.shape)
    found, pullback = advntk.flow(kernel, 0 * times, targets)
    assert not found.any()
    np.testing.assert_allclose(pullback(cotangents)[:, 0], (targets * cotangents).sum(1))


def test_inputs_without_time_are_left_out():
    kernel, times, targets = problem()
    times[10:] = 0
    found, pullback = advntk.flow(kernel, times, targets, tolerance=1e-12)
    alone, _ = advntk.flow(kernel[:10, :10], times[:10], targets[:10], tolerance=1e-12)
    np.testing.assert_allclose(found[:10], alone, atol=1e-10)
    assert not found[10:].any()
    assert np.abs(pullback(targets)[10:]).min() > 0  # but their times have a derivative


def test_one_time_for_all_is_training_for_that_time():
    train, _ = splits()
    regressor = infinite.Regressor(NET, train.x, train.one_hot(), time=0.3)
    found, _ = advntk.flow(regressor.gram, np.full((1, 1), 0.3), train.one_hot(), tolerance=1e-12)
    np.testing.assert_allclose(found, regressor.coefficients, atol=1e-9)


def test_times_of_classes_are_flows_of_their_own():
    kernel, _, targets = problem()
    times = np.random.default_rng(2).uniform(0, 3, targets.shape)
    found, _ = advntk.flow(kernel, times, targets, tolerance=1e-12)
    for k in range(3):
        alone, _ = advntk.flow(kernel, times[:, [k]], targets[:, [k]], tolerance=1e-12)
        np.testing.assert_allclose(found[:, [k]], alone, atol=1e-9)


def test_a_class_without_images_does_no_harm():
    kernel, times, targets = problem()
    targets[:, 1] = 0
    found, _ = advntk.flow(kernel, 50 * times, targets, tolerance=1e-12)
    expected = wide.coefficients(kernel, 50 * times[:, 0], targets)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_stiff_kernels_are_no_trouble():
    """The official code's exponential gives up after sixteen squarings."""
    kernel, times, targets = problem(200)
    times = 1e6 * times
    official = jax.scipy.linalg.expm(-jnp.asarray(kernel * times.T, jnp.float32))
    assert np.isnan(official).any()
    found, _ = advntk.flow(kernel, times, targets)
    expected = kernel @ wide.coefficients(kernel, times[:, 0], targets)
    np.testing.assert_allclose(kernel @ found, expected, atol=1e-5)


def loss_of(weights, kernel, cross, targets, y):
    """As the official code has it: the exponential of a matrix, and its derivative by JAX."""
    n = len(kernel)
    left = jax.scipy.linalg.expm(-kernel * jnp.abs(weights).T) @ targets
    outputs = cross @ jnp.linalg.solve(kernel, targets - left)
    return ((outputs - y) ** 2).sum() / (2 * len(y)), n


def test_a_step_is_that_of_the_official_code(x64, key):
    train, held = splits()
    kernel = np.asarray(infinite.kernel(NET, train.x.astype(jnp.float64)))
    nothing = attacks.partial(attacks.random_sign, epsilon=0.0)
    settings = {"attack": nothing, "learning_rate": 0.05, "batch_size": 20, "gram": kernel}
    found = advntk.fit(NET, train, held, key, steps=3, keep=[1, 2], **settings)
    cross = np.asarray(infinite.kernel(NET, held.x.astype(jnp.float64), train.x))
    weights = np.zeros((60, 1))
    for step in (1, 2, 3):
        (loss, _), g = jax.value_and_grad(loss_of, has_aux=True)(
            weights, kernel, cross, train.one_hot(), held.one_hot()
        )
        assert found.loss[step - 1] == pytest.approx(float(loss), rel=1e-5)
        weights = weights - 0.05 * g / (np.linalg.norm(g) + 1e-8)
        stepped = found.kept.get(step, found.weights)
        np.testing.assert_allclose(stepped, weights, atol=1e-5)


def test_weights_learn_to_withstand(key):
    train, held = splits(90, 60)
    found = advntk.fit(
        NET, train, held, key, attack=ATTACK, learning_rate=1.0, steps=12, batch_size=60
    )
    assert found.loss[-1] < 0.6 * found.loss[0]
    assert np.linalg.norm(found.weights) <= 12.0
    function = infinite.predictor(NET, train.x, found.coefficients)
    assert attacks.correct(function(held.x), held.y).mean() > 0.9


def test_one_weight_moves_the_times_as_far_as_many_do(key):
    train, held = splits()
    found = advntk.fit(
        NET,
        train,
        held,
        key,
        attack=ATTACK,
        learning_rate=0.3,
        steps=1,
        batch_size=20,
        share="nothing",
    )
    assert np.linalg.norm(np.full(60, found.weights)) == pytest.approx(0.3)


def test_a_kernel_of_neural_tangents_learns_the_same(key):
    train, held = splits()
    _, _, kernel_fn = stax.serial(
        stax.Flatten(), *[stax.Dense(9, 1.76, 0.18), stax.Relu()] * 2, stax.Dense(3, 1.76, 0.18)
    )
    settings = {"attack": ATTACK, "learning_rate": 0.3, "batch_size": 20, "steps": 3}
    ours, theirs = (advntk.fit(k, train, held, key, **settings) for k in (NET, kernel_fn))
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-4)
    np.testing.assert_allclose(ours.coefficients, theirs.coefficients, atol=2e-3)


def test_an_interrupted_run_goes_on_to_the_same_bits(key, tmp_path):
    train, held = splits()
    fit = partial(
        advntk.fit, NET, train, held, attack=ATTACK, learning_rate=0.3, batch_size=8, keep=[0, 2]
    )
    whole, file = fit(key, steps=5), tmp_path / "weights.msgpack"
    fit(key, steps=2, checkpoint=file)
    resumed = fit(key, steps=5, checkpoint=file)
    np.testing.assert_array_equal(resumed.weights, whole.weights)
    np.testing.assert_array_equal(resumed.kept[2], whole.kept[2])
    assert resumed.loss == whole.loss
    with pytest.raises(CheckpointError, match="other attack"):
        fit(key, checkpoint=file, attack=attacks.partial(ATTACK, epsilon=0.2))


def one_line(error):
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.eye(3), np.ones((2, 1)), np.ones((3, 1))), r"times: shape \(2, 1\)"),
        ((np.eye(3), -np.ones((3, 1)), np.ones((3, 1))), "times are at least 0"),
        ((np.eye(3), np.ones((3, 1)), np.ones(3)), r"kernel, targets: shapes .* \(n, classes\)"),
        ((np.full((3, 3), np.nan), np.ones((3, 1)), np.ones((3, 1))), "are finite"),
    ],
)
def test_a_flow_that_fits_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        advntk.flow(*arguments)
    one_line(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 21}, "batch_size: 21 is out of range; it is from 1 to 20"),
        ({"learning_rate": 0}, "learning_rate: 0 is out of range"),
        ({"keep": [9]}, r"keep: \[9\] has steps out of range"),
        ({"gram": np.eye(5)}, r"kernel, targets: shapes \(5, 5\)"),
        ({"kernel_fn": lambda a, b, get: jnp.zeros((len(a), 3))}, "kernel_fn: returns shape"),
    ],
)
def test_a_run_that_cannot_be_is_refused(key, changes, message):
    train, held = splits()
    given = {"kernel_fn": NET, "attack": ATTACK, "learning_rate": 0.1, "batch_size": 20, "steps": 2}
    given |= changes
    kernel_fn = given.pop("kernel_fn")
    with pytest.raises(ValueError, match=message) as error:
        advntk.fit(kernel_fn, train, held, key, **given)
    one_line(error)


def test_labels_of_other_classes_are_refused(key):
    train, held = splits()
    held = replace(held, y=held.y + 1)
    with pytest.raises(ValueError, match=r"held_out\.y: has labels from 1 to 3"):
        advntk.fit(NET, train, held, key, attack=ATTACK, learning_rate=0.1, batch_size=20)
