import inspect

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
from ntklib._neural_tangents import batch, stax

TWINS = ("mlp", "cnn")
MLP = models.get("mlp", n_classes=1)
MLP2 = models.get("mlp", n_classes=1, depth=2)
TWINLESS = models.from_flax(nn.Dense(1))


def unchecked(*args, **kwargs):
    """The class as users have it, without the type checks of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infinite.Regressor, "__init__", inspect.unwrap(infinite.Regressor.__init__))
        return infinite.Regressor(*args, **kwargs)


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
def test_the_limit_is_that_of_the_eigendecomposition(ridge, seed):
    x, y = points(12, seed), targets(12, seed=seed)
    regressor = infinite.Regressor(MLP, x, y, ridge=ridge)
    v, rates = regressor.eigenvectors, regressor.eigenvalues + ridge
    expected = v @ ((v.T @ y) / rates[:, None])
    np.testing.assert_allclose(regressor.coefficients, expected, rtol=1e-6, atol=1e-8)


def test_the_spectrum_is_found_when_it_is_needed_and_shared(monkeypatch):
    calls = []

    def eigh(*args, inner=scipy.linalg.eigh):
        calls.append(args)
        return inner(*args)

    monkeypatch.setattr(scipy.linalg, "eigh", eigh)
    x, y, new = points(12), targets(12), points(4, seed=1)
    limit = infinite.Regressor(MLP, x, y)
    limit.at(None)(new)
    assert len(calls) == 0
    early, late = limit.at(0.5), limit.at(2.0)
    assert len(calls) == 1
    np.testing.assert_array_equal(early(new), infinite.Regressor(MLP, x, y, time=0.5)(new))
    assert late.eigenvalues.base is limit.eigenvalues.base
    assert len(calls) == 2  # that of the fresh one
    np.testing.assert_array_equal(early.at(None).coefficients, limit.coefficients)


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


def test_a_predictor_is_made_of_coefficients():
    x, y, new = points(8), targets(8), points(3, seed=1)
    regressor = infinite.Regressor(MLP, x, y, time=2.0)
    made = infinite.predictor(MLP, x, regressor.coefficients)
    np.testing.assert_array_equal(made(new), regressor(new))
    assert jax.tree.structure(made) == jax.tree.structure(regressor.logits_fn)
    for wrong in (regressor.coefficients[:7], regressor.coefficients[:, 0]):
        with pytest.raises(ValueError, match=r"^coefficients: shape .*; it is \(8, outputs\)$"):
            inspect.unwrap(infinite.predictor)(MLP, x, wrong)


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
    finite = infinite.Regressor(MLP, x, y, time=50.0)
    for time in (None, np.inf):
        with pytest.raises(ValueError, match=r"^gram: is singular, its smallest eigenvalue"):
            infinite.Regressor(MLP, x, y, time=time)
        with pytest.raises(ValueError, match=r"remove repeated inputs or set ridge$"):
            finite.at(time)
    # Equal inputs are pulled to the mean of their targets.
    np.testing.assert_allclose(finite.at(1e4)(x)[0], (y[0] + y[1]) / 2, rtol=1e-2)
    ridge = infinite.Regressor(MLP, x, y, ridge=1e-2)
    assert np.isfinite(ridge(x)).all()


def test_eigenvalues_below_rounding_are_refused_in_the_limit():
    x, y = np.diag([1, 1e-4]).astype(np.float32), np.ones((2, 1))

    def linear(a, b, get="ntk"):
        return a @ b.T

    with pytest.raises(ValueError, match=r"singular, its smallest eigenvalue .* is 1e-08"):
        infinite.Regressor(linear, x, y)
    infinite.Regressor(linear, x, y, ridge=1e-5)


@pytest.mark.parametrize("n", [30, 200])
def test_the_estimate_that_cholesky_gives_refuses_nothing_that_has_a_limit(n):
    # All eigenvalues but one are 1, and that one is above what counts as rounding. But of A^-1
    # LAPACK estimates the largest sum of a column, which is about sqrt(n) / 2 times as large.
    v = np.eye(n)[0] + 1 / np.sqrt(n)
    v /= np.linalg.norm(v)
    gram = np.eye(n) + (3 * np.sqrt(n) * np.finfo(np.float32).eps - 1) * np.outer(v, v)
    x, y = np.arange(n, dtype=np.float32)[:, None], targets(n)

    def tabulated(a, b, get):
        a, b = (np.asarray(z)[:, 0].astype(int) for z in (a, b))
        return gram[np.ix_(a, b)].astype(np.float32)

    regressor = infinite.Regressor(tabulated, x, y)
    noise = 2 * np.sqrt(n) * np.finfo(np.float32).eps * np.abs(regressor.gram).max()
    assert noise < regressor.eigenvalues[-1] < 3 * noise
    np.testing.assert_allclose(regressor.gram @ regressor.coefficients, y, atol=1e-6)


# --- other kernel functions, and inputs with one meaning ---


def stax_mlp(depth, w_std=2**0.5, b_std=0.1):
    layers = [stax.Dense(1, w_std, b_std), stax.Relu()] * depth
    return stax.serial(stax.Flatten(), *layers, stax.Dense(1, w_std, b_std))[2]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("time", [None, 0.7])
def test_kernel_functions_of_stax_serve_as_ours(time):
    x, y, new = points(10, dtype=float), targets(10), jnp.asarray(points(4, 1, dtype=float))
    ours = infinite.Regressor(models.get("mlp", n_classes=1, depth=2), x, y, time=time)
    kernel_fn = stax_mlp(2)
    for function in (
        kernel_fn,
        batch(kernel_fn, batch_size=2),
        jax.jit(kernel_fn, static_argnames="get"),
        lambda a, b, get: np.asarray(kernel_fn(a, b, get)),
    ):
        theirs = infinite.Regressor(function, x, y, time=time)
        np.testing.assert_allclose(
            theirs.gram, ours.gram, rtol=1e-7
        )  # stax meets an input by itself
        np.testing.assert_allclose(theirs(new), ours(new), rtol=1e-5, atol=1e-7)
        nngp = infinite.kernel(function, x, new, get="nngp", block=2)
        np.testing.assert_allclose(nngp, infinite.kernel(MLP2, x, new, get="nngp"), rtol=1e-9)
    theirs = infinite.Regressor(kernel_fn, x, y, time=time)
    slope, expected = (jax.jit(jax.grad(lambda z, r=r: r(z).sum()))(new) for r in (theirs, ours))
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-9)


def test_predictions_have_the_dtype_of_the_inputs_whatever_the_function_returns(x64):
    def double(a, b, get):
        return jnp.asarray(infinite.twin(MLP)(a, b, get), jnp.float64)

    x, new = points(6), points(3, seed=1)
    assert infinite.kernel(double, x).dtype == np.float32
    assert infinite.Regressor(double, x, targets(6))(new).dtype == np.float32
    assert infinite.Regressor(double, x, targets(6))(new.astype(float)).dtype == np.float64


def test_gram_is_the_kernel_matrix_without_the_ridge():
    x = points(6)
    regressor = infinite.Regressor(MLP, x, targets(6), ridge=3.0)
    assert regressor.gram.dtype == np.float64
    np.testing.assert_array_equal(regressor.gram, infinite.kernel(MLP, x))
    assert regressor.at(1.0).gram is regressor.gram


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
    x, new = jnp.asarray(points(8), dtype), jnp.asarray(points(3, seed=1), dtype)
    y = targets(8)
    half = infinite.Regressor(MLP, x, y)
    single = infinite.Regressor(MLP, x.astype(np.float32), y)
    np.testing.assert_array_equal(half(new), single(new.astype(np.float32)))
    np.testing.assert_array_equal(half.logits_fn(new), half(new))
    assert infinite.kernel(MLP, x).dtype == np.float32


def test_what_has_one_meaning_is_accepted():
    x, y, new = points(6), targets(6, outputs=1), points(3, seed=1)
    plain = infinite.Regressor(MLP, x, y, ridge=1.0, time=2.0)
    for change in (
        {"x": x.tolist()},
        {"x": x.astype(float)},
        {"y": y.tolist()},
        {"y": y[:, 0]},
        {"y": y[:, 0].tolist()},
        {"y": jnp.asarray(y[:, 0])},
        {"ridge": 1, "time": 2},
        {"ridge": np.float32(1), "time": jnp.array([2])},
    ):
        arguments = {"x": x, "y": y, "ridge": 1.0, "time": 2.0} | change
        other = unchecked(MLP, **arguments)
        np.testing.assert_allclose(other(new), plain(new), rtol=1e-5)
    np.testing.assert_array_equal(plain(new.tolist()), plain(new))
    assert unchecked(MLP, x, y, time=jnp.array(np.inf)).time is None
    signs = np.sign(y).astype(int)
    np.testing.assert_array_equal(
        infinite.Regressor(MLP, x, signs)(new), infinite.Regressor(MLP, x, np.sign(y))(new)
    )


# --- malformed input ---


def nans(n):
    x = points(n)
    x[1, 0, 0, 0] = np.nan
    return x


def negative(a, b, get):
    return -infinite.twin(MLP)(a, b)


def refused(message, error, function, *args, **kwargs):
    with pytest.raises(error, match=message) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((TWINLESS, points(3)), {}, "kernel_fn: the model has no infinite twin; it is a model"),
        ((MLP, points(3), points(3, shape=(3, 4, 1))), {}, r"x2: its rows have shape \(3, 4, 1\)"),
        ((MLP, nans(3)), {}, "x1: has values that are not finite"),
        ((MLP, points(3), nans(3)), {}, "x2: has values that are not finite"),
        ((MLP, points(3) * np.inf), {}, "x1: has values that are not finite"),
        ((MLP, points(0)), {}, r"x1: shape \(0, 3, 3, 1\) is not allowed"),
        ((MLP, points(3), points(0)), {}, "x2: shape"),
        ((MLP, points(3)[:, 0, 0, 0]), {}, r"x1: shape \(3,\) is not allowed"),
        ((MLP, points(3)), {"get": "NTK"}, "get: 'NTK' is unknown; allowed: 'ntk', 'nngp'"),
        ((MLP, points(3)), {"block": 0}, "block: 0 is out of range"),
        ((lambda a, b, get: jnp.ones(3), points(3)), {}, r"kernel_fn: returns shape \(3,\) for 3"),
        (
            (stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))[2], points(3)),
            {},
            r"kernel_fn: returns shape \(3, 3, .* for 3 and 3 inputs; it is \(3, 3\)",
        ),
    ],
)
def test_malformed_kernels_are_refused(arguments, options, message):
    refused(message, ValueError, infinite.kernel, *arguments, **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kernel_fn": TWINLESS}, ValueError, "kernel_fn: the model has no infinite twin"),
        ({"kernel_fn": (1, 2, infinite.twin(MLP))}, TypeError, "kernel_fn: a tuple is not allowed"),
        ({"kernel_fn": lambda *_: np.full((5, 5), np.nan)}, ValueError, "kernel_fn: returns val"),
        ({"kernel_fn": negative}, ValueError, "gram: is singular, its smallest"),
        ({"kernel_fn": negative, "time": 1.0}, ValueError, "gram: is not positive, .* is -"),
        ({"x": nans(5)}, ValueError, "x: has values that are not finite"),
        ({"x": np.ones((5, 2), int)}, TypeError, "x: dtype int32 is not allowed"),
        ({"x": np.ones((5, 2), complex)}, TypeError, "x: dtype complex64 is not allowed"),
        ({"x": points(4)}, ValueError, r"y: shape \(5, 2\) is not .* of 4 points are \(4, outputs"),
        ({"y": targets(5)[None]}, ValueError, r"y: shape \(1, 5, 2\) is not allowed"),
        ({"y": targets(5)[:, :0]}, ValueError, r"y: shape \(5, 0\) is not allowed"),
        ({"y": 1.0}, ValueError, r"y: shape \(\) is not allowed"),
        ({"y": np.arange(5)}, TypeError, "y: dtype int64 is that of labels"),
        ({"y": targets(5) + 0j}, TypeError, "y: dtype complex128 is not allowed"),
        ({"y": ["a"] * 5}, TypeError, "y: dtype <U1 is not allowed"),
        ({"y": targets(5) * np.nan}, ValueError, "y: has values that are not finite"),
        ({"ridge": -0.1}, ValueError, "ridge: -0.1 is out of range"),
        ({"ridge": float("nan")}, ValueError, "ridge: nan is out of range; it is finite and at"),
        ({"ridge": np.ones(5)}, TypeError, r"ridge: an array of shape \(5,\) is not allowed"),
        ({"time": -1.0}, ValueError, "time: -1 is out of range; it is finite and at least 0"),
        ({"time": -np.inf}, ValueError, "time: -inf is out of range"),
        ({"time": float("nan")}, ValueError, "time: nan is out of range"),
        ({"time": np.arange(3)}, TypeError, r"time: an array of shape \(3,\) is not allowed"),
        ({"time": "late"}, TypeError, "time: 'late' is not allowed"),
    ],
)
def test_malformed_regressions_are_refused(change, error, message):
    arguments = {"kernel_fn": MLP, "x": points(5), "y": targets(5)} | change
    refused(message, error, unchecked, **arguments)


@settings(max_examples=60)
@given(
    ridge=st.floats() | st.integers(-3, 3), time=st.none() | st.floats() | st.integers(-3, 10**6)
)
def test_any_ridge_and_time_give_a_function_or_one_line(ridge, time):
    def cubic(a, b, get):
        return (1 + a @ b.T) ** 3

    x, y = points(5, shape=(4,)), targets(5)
    if 0 <= ridge < np.inf and (time is None or time >= 0):
        regressor = infinite.Regressor(cubic, x, y, ridge=ridge, time=time)
        assert np.isfinite(regressor(x)).all()
    else:
        message = r"\A(ridge|time): \S+ is out of range; it is finite and at least 0\Z"
        refused(message, ValueError, infinite.Regressor, cubic, x, y, ridge=ridge, time=time)


def test_inputs_and_times_that_do_not_fit_a_regressor_are_refused():
    regressor = infinite.Regressor(MLP, points(5), targets(5))
    flat, message = points(5).reshape(5, 9), r"x: its rows have shape \(9,\); they are of shape"
    refused(message, ValueError, regressor, flat)
    refused(message, ValueError, jax.jit(regressor.logits_fn), flat)
    refused("x: dtype uint8", TypeError, regressor, np.ones((2, 3, 3, 1), np.uint8))
    refused("time: -2 is out of range", ValueError, regressor.at, -2.0)
