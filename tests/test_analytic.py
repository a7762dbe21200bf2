import itertools
from functools import partial
from math import pi, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from ntklib import _analytic, infinite, models
from ntklib._neural_tangents import stax
from ntklib.models.stacks import Stack

IMAGE = (4, 3, 2)
ROOT_2 = sqrt(2)
# "pools" has all kinds of layers that "myrtle" has, and compiles in a third of the time.
TWINS = ("mlp", "cnn", "pools")
EACH_TWIN = pytest.mark.parametrize("name", TWINS)


def twin(name, *, depth=2, w_std=ROOT_2, b_std=0.1, **options):
    if name == "pools":
        stack = Stack(("conv", "pool", "conv"), 48, "pool", "ntk", w_std, b_std)
        return _analytic.Twin(stack)
    name, *pooled = name.split(", ")
    options |= {"readout": "pool"} if pooled else {}
    options |= {"depth": depth, "w_std": w_std, "b_std": b_std}
    return infinite.twin(models.get(name, n_classes=1, **options))


def images(n, seed=0, shape=IMAGE):
    return np.random.default_rng(seed).uniform(size=(n, *shape))


# --- the kernels, written again: one pair of inputs, then one pixel, at a time ---


def moments(a, b, k, same):
    """E[relu(u) relu(v)], and P(u > 0, v > 0), by the angle between u and v."""
    angle = 0.0 if same else np.arccos(k / sqrt(a * b))
    cosine = sqrt(a * b) * (np.sin(angle) + (pi - angle) * np.cos(angle)) / (2 * pi)
    return cosine, (pi - angle) / (2 * pi)


def dense_reference(x, y, depth, w, b):
    same, x, y = np.array_equal(x, y), x.ravel(), y.ravel()
    xx, xy, yy = (w**2 * u @ v / len(x) + b**2 for u, v in ((x, x), (x, y), (y, y)))
    ntk = xy
    for _ in range(depth):
        moment, positive = moments(xx, yy, xy, same)
        xx, xy, yy = (w**2 * m + b**2 for m in (xx / 2, moment, yy / 2))
        ntk = w**2 * positive * ntk + xy
    return ntk, xy


def convolution_reference(x, y, depth, w, b):
    same, (height, width, _) = np.array_equal(x, y), x.shape
    pixels = list(itertools.product(range(height), range(width)))

    def patches(value):
        """The mean over a pixel's 3x3 neighbours, where those outside the image count as 0."""
        return {
            (i, j): sum(value.get((i + p, j + q), 0.0) for p in (-1, 0, 1) for q in (-1, 0, 1)) / 9
            for i, j in pixels
        }

    xx, xy, yy = ({p: u[p] @ v[p] / len(u[p]) for p in pixels} for u, v in ((x, x), (x, y), (y, y)))
    ntk = dict.fromkeys(pixels, 0.0)
    for _ in range(depth):
        xx, xy, yy, ntk = map(patches, (xx, xy, yy, ntk))
        for p in pixels:
            xx[p], xy[p], yy[p] = (w**2 * m[p] + b**2 for m in (xx, xy, yy))
            ntk[p] = w**2 * ntk[p] + xy[p]
            moment, positive = moments(xx[p], yy[p], xy[p], same)
            xx[p], xy[p], yy[p], ntk[p] = xx[p] / 2, moment, yy[p] / 2, positive * ntk[p]
    nngp = w**2 * sum(xy.values()) / len(pixels) + b**2
    return w**2 * sum(ntk.values()) / len(pixels) + nngp, nngp


REFERENCES = {"mlp": dense_reference, "cnn": convolution_reference}


def check_against_reference(name, depth, w_std, b_std, dtype, rtol):
    x1, x2 = images(5), images(3, seed=1) - 0.5
    x2[0] = x1[2]
    reference = np.array(
        [[REFERENCES[name](x, y, depth, w_std, b_std) for y in x2] for x in x1]
    ).transpose(2, 0, 1)
    kernel_fn = twin(name, depth=depth, w_std=w_std, b_std=b_std)
    for kind, expected in zip(("ntk", "nngp"), reference, strict=True):
        value = kernel_fn(x1.astype(dtype), x2.astype(dtype), kind)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, expected, rtol=rtol)


ARCHITECTURES = pytest.mark.parametrize(
    ("name", "depth"), [("mlp", 0), *((n, depth) for n in ("mlp", "cnn") for depth in (1, 2, 3))]
)


@ARCHITECTURES
def test_twin_is_the_closed_form_in_single_precision(name, depth):
    check_against_reference(name, depth, sqrt(2), 0.1, np.float32, 1e-5)


@ARCHITECTURES
@pytest.mark.usefixtures("x64")
def test_twin_is_the_closed_form_in_double_precision(name, depth):
    check_against_reference(name, depth, 1.76, 0.18, np.float64, 1e-10)


@pytest.mark.usefixtures("x64")
def test_one_hidden_layer_is_the_sum_of_two_arc_cosine_kernels():
    # w_std = sqrt 2, no bias: NTK = |x||y| kappa_1(t) / d + x.y kappa_0(t) / d.
    x, y = images(6).reshape(6, -1), images(5, seed=1).reshape(5, -1) - 0.5
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
    t = np.arccos(x @ y.T / norms)
    kappa_0, kappa_1 = (pi - t) / pi, (np.sin(t) + (pi - t) * np.cos(t)) / pi
    value = twin("mlp", depth=1, b_std=0.0)(x, y)
    expected = 2 * norms * (kappa_1 + np.cos(t) * kappa_0) / x.shape[1]
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_ntk_of_orthogonal_inputs_is_two_over_pi():
    # One hidden layer, w_std = sqrt 2, no bias, |x|^2 = d: NTK = NNGP = 2 / pi.
    x = sqrt(2) * np.eye(2, dtype=np.float32)
    kernel_fn = twin("mlp", depth=1, b_std=0.0)
    for kind in ("ntk", "nngp"):
        np.testing.assert_allclose(kernel_fn(x, x, kind)[0, 1], 2 / pi, rtol=1e-6)


def stax_kernel(name, depth, width, parametrization):
    scales = {"W_std": sqrt(2), "b_std": 0.1, "parameterization": parametrization}
    conv = [stax.Conv(width, (3, 3), padding="SAME", **scales), stax.Relu()]
    pool = [stax.AvgPool((2, 2), strides=(2, 2))]
    groups = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}.get(depth)
    layers = {
        "mlp": lambda: [stax.Flatten(), *[stax.Dense(width, **scales), stax.Relu()] * depth],
        "cnn": lambda: [*conv * depth, stax.Flatten()],
        "cnn, pooled": lambda: [*conv * depth, stax.GlobalAvgPool()],
        "myrtle": lambda: [
            *(*conv * groups[0], *pool, *conv * groups[1], *pool, *conv * groups[2]),
            stax.GlobalAvgPool(),
        ],
    }[name]()
    return stax.serial(*layers, stax.Dense(1, **scales))[2]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "depth", "parametrization"),
    [
        *(("mlp", 2, "ntk"), ("mlp", 2, "standard"), ("cnn", 2, "ntk"), ("cnn", 2, "standard")),
        *(("cnn, pooled", 2, "ntk"), ("cnn, pooled", 2, "standard")),
        *(("myrtle", 5, "ntk"), ("myrtle", 10, "ntk")),
    ],
)
def test_twin_agrees_with_neural_tangents(name, depth, parametrization):
    shape = (7, 5, 2)  # pooling leaves an odd row and column out, twice
    x1, x2 = images(3, shape=shape), images(4, seed=1, shape=shape) - 0.5
    size = {"depth": depth, "width": 48, "parametrization": parametrization}
    ours, theirs = twin(name, **size), stax_kernel(name, **size)
    expected = theirs(x1, x2, ("ntk", "nngp"))
    np.testing.assert_allclose(ours(x1, x2), expected.ntk, rtol=1e-10)
    if depth != 10:  # which takes long to compile
        np.testing.assert_allclose(ours(x1, x2, "nngp"), expected.nngp, rtol=1e-10)
        single = ours(x1.astype(np.float32), x2.astype(np.float32))
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, expected.ntk, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arctangent_is_that_of_numpy(dtype):
    x = np.linspace(0, 1, 10_001).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        value = np.asarray(_analytic._arctan(jnp.asarray(x)), np.float64)
    tolerance = {np.float32: 1.2e-7, np.float64: 1e-14}[dtype]
    np.testing.assert_allclose(value, np.arctan(x.astype(np.float64)), rtol=0, atol=tolerance)


# --- invariances ---


@EACH_TWIN
@settings(max_examples=5)
@given(order=st.permutations(range(5)), seed=st.integers(0, 2**32 - 1))
def test_kernel_matrix_is_symmetric_positive_and_follows_the_order(name, order, seed):
    x = images(5, seed).astype(np.float32)
    kernel_fn = twin(name)
    for kind in ("ntk", "nngp"):
        gram = np.asarray(kernel_fn(x, None, kind), np.float64)
        np.testing.assert_allclose(gram, gram.T, rtol=1e-6)
        assert np.linalg.eigvalsh(gram)[0] > 0
        permuted = kernel_fn(x[order], None, kind)
        np.testing.assert_allclose(permuted, gram[np.ix_(order, order)], rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_each_architecture_has_its_symmetry():
    x1, x2 = images(3, shape=(4, 4, 2)), images(2, seed=1, shape=(4, 4, 2))
    scramble = np.random.default_rng(2).permutation(32)

    def scrambled(x):
        return x.reshape(len(x), -1)[:, scramble].reshape(x.shape)

    def turned(x):
        return np.rot90(x, axes=(1, 2))[..., ::-1]

    for name in TWINS:
        kernel_fn = twin(name)
        expected = kernel_fn(x1, x2)
        np.testing.assert_allclose(kernel_fn(turned(x1), turned(x2)), expected, rtol=1e-12)
        kept = np.allclose(kernel_fn(scrambled(x1), scrambled(x2)), expected, rtol=1e-12)
        assert kept == (name == "mlp")
    # Only where pixels are averaged does an image resemble its shifted copy more.
    shifted = np.roll(x1, 1, axis=2)
    cosine = {
        name: np.diag(twin(name)(x1, shifted) / twin(name)(x1)) for name in ("cnn", "cnn, pooled")
    }
    assert np.all(cosine["cnn, pooled"] > cosine["cnn"])


# --- gradients and memory ---


@pytest.mark.usefixtures("x64")
@EACH_TWIN
def test_gradient_in_the_inputs_is_that_of_finite_differences(name):
    x1, x2 = (jnp.asarray(images(n, n)) for n in (3, 2))
    check_grads(twin(name), (x1, x2), order=1, modes=["rev"])  # the NNGP's is a part of it


@pytest.mark.parametrize(("name", "b_std"), [*((name, 0.0) for name in TWINS), ("mlp", 0.1)])
def test_gradient_is_finite_at_equal_opposite_and_zero_inputs(name, b_std):
    x = jnp.asarray(images(3), jnp.float32).at[2].set(0)
    kernel_fn = twin(name, b_std=b_std)
    total = jax.jit(jax.value_and_grad(lambda a, b: jnp.sum(kernel_fn(a, b)), (0, 1)))
    for other in (x, -x, 2 * x, jnp.zeros_like(x), x * (x > 0.5)):
        value, slopes = total(x, other)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(slope).all() for slope in slopes)


@pytest.mark.usefixtures("x64")
def test_gradient_at_an_equal_input_is_the_mean_over_opposite_directions():
    x = jnp.asarray(images(1))
    step = 1e-4 * jnp.asarray(images(1, seed=1) - 0.5)
    kernel_fn = twin("mlp")
    slope = jnp.vdot(jax.grad(lambda a: kernel_fn(a, x)[0, 0])(x), step)
    both = [kernel_fn(x + sign * step, x)[0, 0] - kernel_fn(x, x)[0, 0] for sign in (1, -1)]
    np.testing.assert_allclose(slope, (both[0] - both[1]) / 2, rtol=1e-5)
    # It is a kink: the one-sided slopes are far from their mean.
    assert abs(both[0] - slope) > abs(slope)


def test_kernel_of_an_input_with_itself_is_exact_in_single_precision():
    x = images(1024, shape=(14, 14, 1))
    angle_zero = [dense_reference(one, one, 2, sqrt(2), 0.1)[0] for one in x[:50]]
    diagonal = np.diag(twin("mlp")(x.astype(np.float32)))
    np.testing.assert_allclose(diagonal[:50], angle_zero, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "memory", "loops"),
    # In entries: all rows and 5 columns, without loop in loop; 2 rows and 2 columns, 4 inputs' own
    # covariances, and what remains of 5 rows.
    [("cnn", 5 * 5 * 12, 2), ("pools", 4 * 144, 5)],
)
def test_batches_of_pairs_change_nothing(name, memory, loops, monkeypatch):
    x1, x2 = (jnp.asarray(images(n, n), jnp.float32) for n in (5, 11))
    # Without its compilation cache, which does not know about the limit.
    kernel_fn = partial(_analytic._between.__wrapped__, get="ntk", stack=twin(name).stack)

    def slopes():
        weights = jnp.cos(jnp.arange(55.0)).reshape(5, 11)
        return jax.jit(jax.value_and_grad(lambda a, b: jnp.sum(weights * kernel_fn(a, b)), (0, 1)))

    whole = slopes()(x1, x2)
    monkeypatch.setattr(_analytic, "_CACHE", memory)  # of a CPU
    monkeypatch.setattr(_analytic, "_MEMORY", memory)
    forward = jax.jit(lambda a, b: kernel_fn(a, b)).lower(x1, x2).as_text()
    assert forward.count("stablehlo.while") == loops
    batched = slopes()(x1, x2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), whole, batched
    )


@EACH_TWIN
def test_memory_for_gradients_on_cifar_is_bounded(name):
    kernel_fn = twin(name)
    new, old = (jax.ShapeDtypeStruct((n, 32, 32, 3), jnp.float32) for n in (500, 2000))
    gradient = jax.jit(jax.grad(lambda a, b: jnp.sum(kernel_fn(a, b))))
    used = gradient.lower(new, old).compile().memory_analysis().temp_size_in_bytes
    assert used < 2**30


# --- malformed input ---


@pytest.mark.parametrize("name", ["cnn", "pools"])
def test_malformed_inputs_are_refused(name):
    kernel_fn = twin(name)
    with pytest.raises(
        ValueError, match=r"^x: shape \(2, 9\) is not allowed; a network with convolutions"
    ):
        kernel_fn(jnp.ones((2, 9)))
    with pytest.raises(ValueError, match="get: 'NTK' is unknown; allowed: 'ntk', 'nngp'"):
        kernel_fn(jnp.ones((2, 4, 4, 1)), get="NTK")
    with pytest.raises(
        ValueError, match=r"^x1: its rows have shape \(4, 4, 1\); they are of shape \(4, 5, 1\)"
    ):
        kernel_fn(jnp.ones((2, 4, 4, 1)), jnp.ones((2, 4, 5, 1)))


def test_images_too_small_to_be_pooled_are_refused():
    with pytest.raises(
        ValueError, match=r"\(2, 1, 9, 1\) is not allowed; .* of at least 2 x 2 pixels"
    ):
        twin("pools")(jnp.ones((2, 1, 9, 1)))
