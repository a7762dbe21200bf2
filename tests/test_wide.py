import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ntklib import attacks, infinite, models, wide


def problem(n=8, c=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    kernel = np.exp(-0.3 * ((x[:, None] - x) ** 2).sum(-1))
    return kernel, rng.normal(size=(n, c)), rng.uniform(0.1, 3, n)


seeds = st.integers(0, 1000)


@given(seeds, st.integers(1, 6), st.floats(0.01, 30))
def test_coefficients_are_those_of_the_exponential(seed, n, scale):
    kernel, targets, times = problem(n, 2, seed)
    found = wide.coefficients(kernel, scale * times, targets)
    left = scipy.linalg.expm(-kernel * scale * times) @ targets
    np.testing.assert_allclose(kernel @ found, targets - left, atol=1e-10)


@given(seeds)
def test_coefficients_are_the_integral_of_training(seed):
    kernel, targets, times = problem(seed=seed)
    grid = [0.25, 0.5, 1.0]
    found = wide.integrate(kernel, targets, lambda _: times, grid)
    for t, coefficients in zip(grid, found, strict=True):
        expected = wide.coefficients(kernel, t * times, targets)
        np.testing.assert_allclose(coefficients, expected, rtol=1e-9, atol=1e-9)


def test_rates_that_change_in_time_have_no_such_form():
    kernel, targets, times = problem()

    def speed(t):
        return times * (1 + 0.9 * np.sin(2 * np.pi * t + np.arange(8)))

    [found] = wide.integrate(kernel, targets, speed, [1.3])
    total = [scipy.integrate.quad(lambda t, i=i: speed(t)[i], 0, 1.3)[0] for i in range(8)]
    formula = wide.coefficients(kernel, total, targets)
    assert np.linalg.norm(kernel @ (found - formula)) > 1e-3 * np.linalg.norm(kernel @ found)
    together = times * 2.0  # one factor for all inputs commutes with itself
    [found] = wide.integrate(kernel, targets, lambda t: together * (1 + np.sin(t)), [1.3])
    formula = wide.coefficients(kernel, together * (1.3 + 1 - np.cos(1.3)), targets)
    np.testing.assert_allclose(found, formula, rtol=1e-9, atol=1e-9)


def test_with_equal_times_it_is_training_without_attacks(key):
    x = jax.random.normal(key, (6, 5))
    y = jnp.asarray([1.0, -1, 1, 1, -1, -1])[:, None]
    regressor = infinite.Regressor(models.get("mlp", n_classes=1), x, y, time=0.7)
    found = wide.coefficients(regressor.gram, np.full(6, 0.7), y)
    np.testing.assert_allclose(found, regressor.coefficients, rtol=1e-9)


def test_in_the_end_no_trace_of_the_attack_is_left():
    kernel, targets, times = problem(5)
    found = wide.coefficients(kernel, 1e9 * times, targets)
    np.testing.assert_allclose(found, np.linalg.solve(kernel, targets), rtol=1e-5)


def test_inputs_of_no_time_are_not_learnt():
    kernel, targets, times = problem(6)
    times[[1, 4]] = 0
    found = wide.coefficients(kernel, times, targets)
    rest = [0, 2, 3, 5]
    assert (found[[1, 4]] == 0).all()
    expected = wide.coefficients(kernel[np.ix_(rest, rest)], times[rest], targets[rest])
    np.testing.assert_allclose(found[rest], expected, rtol=1e-9)


def linear_fn(w):
    return lambda x: x @ w


def test_the_ark_of_a_linear_function_is_its_gram(key):
    w = jax.random.normal(key, (5, 3))
    found = wide.ark(linear_fn(w), jax.random.normal(key, (4, 5)))
    np.testing.assert_allclose(found, np.broadcast_to(w.T @ w, (4, 3, 3)), rtol=1e-5)


def test_the_ark_takes_images_and_finite_differences_agree(key):
    model = models.get("cnn_mnist", n_classes=2)
    x = jax.random.uniform(key, (2, 14, 14, 1))
    f = jax.jit(lambda z: model.apply(model.init(key, x), z))
    found = wide.ark(f, x)
    direction = jax.random.normal(key, x.shape)
    _, slope = jax.jvp(f, (x,), (direction,))
    assert found.shape == (2, 2, 2)
    jacobian = jax.vmap(jax.jacrev(lambda z: f(z[None])[0]))(x)
    np.testing.assert_allclose(jnp.einsum("nchwk,nhwk->nc", jacobian, direction), slope, rtol=1e-3)
    expected = jnp.einsum("nahwk,nbhwk->nab", jacobian, jacobian)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_attack_multiplies_the_residual_as_the_theory_says(key):
    """For a linear function both kernels are constant, so the theory is exact."""
    w = jax.random.normal(key, (5, 1)) / 2
    x, y = jax.random.normal(key, (7, 5)), jnp.array([0, 1, 1, 0, 1, 0, 0])
    f, rate, time = linear_fn(w), 0.3, 2.0
    attacked = wide.attack_flow(f, x, y, rate=rate, time=time, steps=4000)
    targets = 2.0 * y[:, None] - 1
    factor = (f(attacked) - targets) / (f(x) - targets)
    expected = wide.speeds(np.full(7, float((w.T @ w).squeeze())), rate, time)
    np.testing.assert_allclose(factor[:, 0], expected, rtol=2e-3)


def test_the_attack_is_one_of_the_protocol_and_none_at_rate_zero(key):
    attack = attacks.partial(wide.attack_flow, rate=0.0, time=1.0)
    assert isinstance(attack, attacks.Attack)
    x = jax.random.normal(key, (3, 2, 2, 1))
    same = attack(lambda z: z.reshape(len(z), -1)[:, :1], x, jnp.array([0, 1, 1]), key)
    np.testing.assert_array_equal(same, x)


WRONG = {
    "kernel, targets: shapes": lambda k, y, t: (k[:3], t, y),
    "kernel, targets: have values": lambda k, y, t: (np.nan * k, t, y),
    "times: shape": lambda k, y, t: (k, t[:2], y),
    "times: shape .*, or a value below 0": lambda k, y, t: (k, -t, y),
    "kernel: is not positive": lambda k, y, t: (-k, t, y),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_malformed_is_refused_in_one_line(line):
    kernel, targets, times = problem()
    with pytest.raises(ValueError, match=f"^{line}") as caught:
        wide.coefficients(*WRONG[line](kernel, targets, times))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("times", [[], [1.0, 0.5], [-1.0, 1.0]])
def test_times_that_do_not_ascend_are_refused(times):
    kernel, targets, speed = problem()
    with pytest.raises(ValueError, match=r"^times: "):
        wide.integrate(kernel, targets, lambda _: speed, times)
