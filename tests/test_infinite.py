import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from ntklib import infinite, models

TWINS = ("mlp", "cnn")
MLP = models.get("mlp", n_classes=1)
TWINLESS = models.from_flax(nn.Dense(1))


def points(n, seed=0, shape=(3, 3, 1), dtype=np.float32):
    return np.random.default_rng(seed).uniform(size=(n, *shape)).astype(dtype)


def targets(n, outputs=2, seed=7):
    return np.random.default_rng(seed).normal(size=(n, outputs))


# --- kernel ---


def test_kernel_is_that_of_the_twin():
    x1, x2 = points(6), points(4, seed=1)
    for kind in ("ntk", "nngp"):
        expected = infinite.twin(MLP)(x1, x2, kind)
        np.testing.assert_allclose(infinite.kernel(MLP, x1, x2, get=kind), expected, rtol=1e-6)
        twin = infinite.kernel(infinite.twin(MLP), x1, x2, get=kind)
        np.testing.assert_array_equal(twin, infinite.kernel(MLP, x1, x2, get=kind))


@settings(max_examples=25)
@given(n1=st.integers(1, 9), n2=st.integers(1, 9), block=st.integers(1, 12))
def test_blocks_change_nothing(n1, n2, block):
    x1, x2 = points(n1, dtype=np.float64), points(n2, seed=1, dtype=np.float64)

    def inner(a, b, get):  # NumPy, so that no shape is compiled
        return np.exp(np.tensordot(a, b, ((1, 2, 3), (1, 2, 3))))

    for other in (x2, None):
        value = infinite.kernel(inner, x1, other, block=block)
        second = x1 if other is None else other
        np.testing.assert_allclose(value, inner(x1, second, "ntk"), rtol=1e-5)


def test_kernel_matrix_is_exactly_symmetric_whatever_the_function_rounds():
    def skewed(a, b, get):
        return a[:, 0, 0] + 1.001 * b[:, 0, 0].T

    for block in (2, 3, 10):
        gram = infinite.kernel(skewed, points(10), block=block)
        np.testing.assert_array_equal(gram, gram.T)


def test_progress_counts_the_blocks(capsys):
    infinite.kernel(MLP, points(10), block=4)
    assert capsys.readouterr().err == ""
    infinite.kernel(MLP, points(10), block=4, progress=True)
    assert "6/6" in capsys.readouterr().err


def test_blocks_below_the_diagonal_are_mirrored_not_computed():
    calls = []

    def counting(a, b, get):
        calls.append((len(a), len(b)))
        return infinite.twin(MLP)(a, b, get)

    gram = infinite.kernel(counting, points(10), block=4)
    assert calls == [(4, 4)] * 6  # 3 blocks a side: 3 on the diagonal and 3 above
    np.testing.assert_array_equal(gram, gram.T)
    calls.clear()
    infinite.kernel(counting, points(10), points(10), block=4)
    assert calls == [(4, 4)] * 9


@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("name", TWINS)
def test_kernel_matrix_is_symmetric_and_positive(name, get):
    x = points(20, shape=(4, 4, 1))
    gram = infinite.kernel(models.get(name, n_classes=1), x, get=get, block=8)
    np.testing.assert_array_equal(gram, gram.T)
    assert np.linalg.eigvalsh(np.asarray(gram, np.float64))[0] > 0


# --- Regressor ---


def test_the_limit_interpolates():
    x, y = points(30), targets(30)
    regressor = infinite.Regressor(MLP, x, y)
    assert regressor.time is None
    np.testing.assert_allclose(regressor(x), y, atol=2e-3)


@pytest.mark.usefixtures("x64")
def test_the_limit_is_kernel_regression():
    x, y, new = points(12, dtype=np.float64), targets(12), points(5, seed=1, dtype=np.float64)
    gram, cross = infinite.twin(MLP)(x), infinite.twin(MLP)(new, x)
    for ridge in (0.0, 0.3):
        expected = cross @ np.linalg.solve(gram + ridge * np.eye(12), y)
        regressor = infinite.Regressor(MLP, x, y, ridge=ridge)
        np.testing.assert_allclose(regressor(new), expected, rtol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize("time", [0.05, 2.0, 30.0])
def test_finite_time_is_gradient_descent_in_small_steps(time, ridge):
    x, y, new = points(10, dtype=np.float64), targets(10), points(4, seed=1, dtype=np.float64)
    gram, cross = (np.asarray(infinite.twin(MLP)(a, x)) for a in (x, new))
    # Descent on the coefficients alpha of f = kernel(., X) alpha, in the geometry of the network:
    # d alpha / dt = -(f(X) - y) - ridge alpha.
    steps, alpha = 20_000, np.zeros_like(y)
    for _ in range(steps):
        alpha -= time / steps * (gram @ alpha - y + ridge * alpha)
    regressor = infinite.Regressor(MLP, x, y, ridge=ridge, time=time)
    np.testing.assert_allclose(regressor(new), cross @ alpha, rtol=3e-3, atol=1e-4)
    np.testing.assert_allclose(regressor(x), gram @ alpha, rtol=3e-3, atol=1e-4)


def test_finite_time_is_that_of_a_wide_network(key):
    x, y = jnp.asarray(points(10)), jnp.asarray(targets(10, outputs=1), jnp.float32)
    new = jnp.asarray(points(20, seed=1))
    model = models.antisymmetric(models.get("mlp", n_classes=1, width=4096, depth=1))
    steps, rate = 200, 0.05  # of the loss averaged over points: t = steps * rate / n

    def loss(variables):
        return jnp.mean((model.apply(variables, x) - y) ** 2) / 2

    def step(variables, _):
        slopes = jax.grad(loss)(variables)
        return jax.tree.map(lambda leaf, slope: leaf - rate * slope, variables, slopes), None

    trained, _ = jax.jit(lambda start: jax.lax.scan(step, start, length=steps))(model.init(key, x))
    regressor = infinite.Regressor(model, x, y, time=steps * rate / len(x))
    # Far from the start, and far from the limit.
    assert 0.1 < jnp.linalg.norm(regressor(x)) / jnp.linalg.norm(y) < 0.9
    gap = jnp.linalg.norm(model.apply(trained, new) - regressor(new))
    assert gap < 0.05 * jnp.linalg.norm(regressor(new))


def test_time_runs_from_zero_to_the_limit():
    x, y, new = points(15), targets(15), points(6, seed=1)
    limit = infinite.Regressor(MLP, x, y)
    assert np.all(limit.at(0)(new) == 0)
    np.testing.assert_allclose(limit.at(1e9)(new), limit(new), rtol=1e-4)
    np.testing.assert_array_equal(limit.at(np.inf)(new), limit(new))
    residuals = [np.linalg.norm(limit.at(t)(x) - y) for t in (0, 0.1, 0.3, 1, 3, None)]
    assert residuals == sorted(residuals, reverse=True)
    assert len(set(residuals)) == 6


def test_at_equals_a_fresh_fit_and_shares_the_factorisation():
    x, y, new = points(15), targets(15), points(6, seed=1)
    first = infinite.Regressor(MLP, x, y, time=3.0, ridge=0.1)
    other = first.at(0.7)
    fresh = infinite.Regressor(MLP, x, y, time=0.7, ridge=0.1)
    np.testing.assert_array_equal(other.coefficients, fresh.coefficients)
    np.testing.assert_array_equal(other(new), fresh(new))
    assert other.eigenvectors is first.eigenvectors
    assert (first.time, other.time) == (3.0, 0.7)
    np.testing.assert_array_equal(other.at(3.0)(new), first(new))


@settings(max_examples=10)
@given(ridge=st.just(0.0) | st.floats(1e-3, 10), seed=st.integers(0, 2**32 - 1))
def test_cholesky_is_the_limit_of_the_eigendecomposition(ridge, seed):
    x, y, new = points(12, seed), targets(12, seed=seed), points(4, seed + 1)
    spectral = infinite.Regressor(MLP, x, y, ridge=ridge)
    direct = infinite.Regressor(MLP, x, y, ridge=ridge, solver="cholesky")
    np.testing.assert_allclose(direct.coefficients, spectral.coefficients, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(direct(new), spectral(new), rtol=1e-3, atol=1e-4)


def test_cholesky_finds_the_spectrum_when_it_is_needed(monkeypatch):
    calls = []

    def eigh(*args, inner=scipy.linalg.eigh):
        calls.append(args)
        return inner(*args)

    monkeypatch.setattr(scipy.linalg, "eigh", eigh)
    x, y, new = points(12), targets(12), points(4, seed=1)
    direct = infinite.Regressor(MLP, x, y, solver="cholesky")
    assert len(calls) == 0
    early, late = direct.at(0.5), direct.at(2.0)
    assert len(calls) == 1
    spectral = infinite.Regressor(MLP, x, y, time=0.5)
    np.testing.assert_array_equal(early(new), spectral(new))
    np.testing.assert_array_equal(late.eigenvalues, spectral.eigenvalues)
    np.testing.assert_array_equal(early.at(None).coefficients, direct.coefficients)


def test_eigenvalues_descend_in_double_precision_and_belong_to_the_kernel():
    x = points(15)
    regressor = infinite.Regressor(MLP, x, targets(15), ridge=2.0)
    values, vectors = regressor.eigenvalues, regressor.eigenvectors
    assert values.dtype == vectors.dtype == np.float64
    assert np.all(np.diff(values) <= 0)
    gram = np.asarray(infinite.kernel(MLP, x), np.float64)
    np.testing.assert_allclose(vectors * values @ vectors.T, gram, atol=1e-10)


@settings(max_examples=10)
@given(order=st.permutations(range(8)), time=st.none() | st.floats(0.01, 100))
def test_the_order_of_the_training_points_does_not_matter(order, time):
    x, y, new = points(8), targets(8), points(3, seed=1)
    one = infinite.Regressor(MLP, x, y, time=time)
    other = infinite.Regressor(MLP, x[list(order)], y[list(order)], time=time)
    np.testing.assert_allclose(one(new), other(new), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TWINS)
def test_gradient_in_the_inputs_is_that_of_finite_differences(name):
    x, y = points(8, dtype=np.float64), targets(8)
    regressor = infinite.Regressor(models.get(name, n_classes=1), x, y, time=5.0)
    new = jnp.asarray(points(2, seed=1, dtype=np.float64))
    check_grads(jax.jit(regressor.__call__), (new,), order=1, modes=["rev"])


def test_gradient_is_finite_at_training_points_and_zeros():
    x, y = points(8), targets(8)
    x[3] = 0
    regressor = infinite.Regressor(MLP, x, y)
    for new in (x, np.zeros_like(x)):
        value, slope = jax.value_and_grad(lambda new: jnp.sum(regressor(new)))(jnp.asarray(new))
        assert jnp.isfinite(value)
        assert jnp.isfinite(slope).all()
        assert jnp.any(slope != 0)


def test_one_compilation_serves_all_times():
    compiled = []

    @jax.jit
    def total(logits_fn, new):
        compiled.append(new.shape)
        return jnp.sum(logits_fn(new), axis=1)

    regressor, new = infinite.Regressor(MLP, points(8), targets(8)), points(3, seed=1)
    for time in (0.5, 5.0, None):
        later = regressor.at(time)
        value = total(later.logits_fn, new)
        np.testing.assert_allclose(value, later(new).sum(axis=1), rtol=1e-4, atol=1e-5)
    assert compiled == [new.shape]


def test_a_singular_kernel_can_be_trained_on_for_a_finite_time():
    x, y = points(6), targets(6)
    x[1] = x[0]
    for solver in ("eigh", "cholesky"):
        with pytest.raises(ValueError, match="kernel matrix is singular: its smallest eigenvalue"):
            infinite.Regressor(MLP, x, y, solver=solver)
    finite = infinite.Regressor(MLP, x, y, time=50.0)
    with pytest.raises(ValueError, match="remove repeated inputs or set ridge"):
        finite.at(None)
    # Equal inputs are pulled to the mean of their targets.
    np.testing.assert_allclose(finite.at(1e4)(x)[0], (y[0] + y[1]) / 2, rtol=1e-2)
    ridge = infinite.Regressor(MLP, x, y, ridge=1e-2)
    assert np.isfinite(ridge(x)).all()


@pytest.mark.parametrize("solver", ["eigh", "cholesky"])
def test_eigenvalues_below_rounding_are_refused_in_the_limit(solver):
    x, y = np.diag([1, 1e-4]).astype(np.float32), np.ones((2, 1))

    def linear(a, b, get="ntk"):
        return a @ b.T

    with pytest.raises(
        ValueError, match="singular: its smallest eigenvalue with the ridge is 1e-08"
    ):
        infinite.Regressor(linear, x, y, solver=solver)
    infinite.Regressor(linear, x, y, solver=solver, ridge=1e-5)


# --- malformed input ---


def nans(n):
    x = points(n)
    x[1, 0, 0, 0] = np.nan
    return x


def refused(message, error, function, *args, **kwargs):
    with pytest.raises(error, match=message) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((TWINLESS, points(3)), {}, "the model has no infinite twin"),
        ((MLP, points(3), points(3, shape=(3, 4, 1))), {}, r"shape \(3, 3, 1\), rows of x2 \(3, 4"),
        ((MLP, nans(3)), {}, "x1 has values that are not finite"),
        ((MLP, points(3), nans(3)), {}, "x2 has values that are not finite"),
        ((MLP, points(3) * np.inf), {}, "x1 has values that are not finite"),
        ((MLP, points(0)), {}, r"x1 has shape \(0, 3, 3, 1\); expected \(points, features...\)"),
        ((MLP, points(3), points(0)), {}, "x2 has shape"),
        ((MLP, points(3)[:, 0, 0, 0]), {}, r"x1 has shape \(3,\); expected"),
        ((MLP, points(3)), {"get": "NTK"}, "get: 'NTK' is unknown; allowed: 'ntk', 'nngp'"),
        ((MLP, points(3)), {"block": 0}, "block is 0; it must be at least 1"),
        ((lambda a, b, get: jnp.ones(3), points(3)), {}, r"returned shape \(3,\) for 3 and 3"),
    ],
)
def test_malformed_kernels_are_refused(arguments, options, message):
    refused(message, ValueError, infinite.kernel, *arguments, **options)


def test_integer_inputs_are_refused():
    x = np.ones((3, 2), np.int32)
    refused("x1 has dtype int32; expected a floating", TypeError, infinite.kernel, MLP, x)
    refused("x has dtype int32", TypeError, infinite.Regressor, MLP, x, targets(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_fn": TWINLESS}, "the model has no infinite twin"),
        ({"x": nans(5)}, "x has values that are not finite"),
        ({"x": points(4)}, r"y has shape \(5, 2\); expected \(4, outputs\), as x"),
        ({"y": targets(5)[:, 0]}, r"y has shape \(5,\); expected \(5, outputs\), as x"),
        ({"y": targets(5) * np.nan}, "y has values that are not finite"),
        ({"ridge": -0.1}, "ridge is -0.1; it must be finite and at least 0"),
        ({"ridge": float("nan")}, "ridge is nan"),
        ({"time": -1.0}, "time is -1.0; it must be at least 0, or None for the limit"),
        ({"time": float("nan")}, "time is nan"),
        ({"solver": "lu"}, "solver is 'lu'; allowed: 'eigh', 'cholesky'"),
        ({"kernel_fn": lambda a, b, get: -infinite.twin(MLP)(a, b)}, "singular: its smallest"),
        (
            {"kernel_fn": lambda a, b, get: -infinite.twin(MLP)(a, b), "solver": "cholesky"},
            "singular: its smallest",
        ),
        (
            {"kernel_fn": lambda a, b, get: -infinite.twin(MLP)(a, b), "time": 1.0},
            "not positive: its smallest eigenvalue with the ridge is -",
        ),
    ],
)
def test_malformed_regressions_are_refused(change, message):
    arguments = {"kernel_fn": MLP, "x": points(5), "y": targets(5)} | change
    refused(message, ValueError, infinite.Regressor, **arguments)


def test_inputs_and_times_that_do_not_fit_a_regressor_are_refused():
    regressor = infinite.Regressor(MLP, points(5), targets(5))
    refused(
        r"rows of x have shape \(9,\), in training \(3, 3, 1\)",
        ValueError,
        regressor,
        points(5).reshape(5, 9),
    )
    refused("time is -2.0", ValueError, regressor.at, -2.0)
