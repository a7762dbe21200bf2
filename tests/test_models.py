import itertools
from math import pi, sqrt

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ntklib import models
from ntklib._neural_tangents import stax

IMAGE = (4, 3, 2)


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
    twin = models.get(name, n_classes=1, depth=depth, w_std=w_std, b_std=b_std).kernel_fn
    for kind, expected in zip(("ntk", "nngp"), reference, strict=True):
        value = twin(x1.astype(dtype), x2.astype(dtype), kind)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, expected, rtol=rtol)


ARCHITECTURES = pytest.mark.parametrize(
    ("name", "depth"), [(name, depth) for name in ("mlp", "cnn") for depth in (1, 2, 3)]
)


@ARCHITECTURES
def test_twin_is_the_closed_form_in_single_precision(name, depth):
    check_against_reference(name, depth, sqrt(2), 0.1, np.float32, 1e-5)


@ARCHITECTURES
@pytest.mark.usefixtures("x64")
def test_twin_is_the_closed_form_in_double_precision(name, depth):
    check_against_reference(name, depth, 1.76, 0.18, np.float64, 1e-10)


def test_ntk_of_orthogonal_inputs_is_two_over_pi():
    # One hidden layer, w_std = sqrt 2, no bias, |x|^2 = d: NTK = NNGP = 2 / pi.
    x = sqrt(2) * np.eye(2, dtype=np.float32)
    twin = models.get("mlp", n_classes=1, depth=1, b_std=0.0).kernel_fn
    for kind in ("ntk", "nngp"):
        np.testing.assert_allclose(twin(x, x, kind)[0, 1], 2 / pi, rtol=1e-6)


def stax_kernel(name, depth, width, parametrization):
    scales = {"W_std": sqrt(2), "b_std": 0.1, "parameterization": parametrization}
    conv = name == "cnn"
    layers = [] if conv else [stax.Flatten()]
    for _ in range(depth):
        layers.append(
            stax.Conv(width, (3, 3), padding="SAME", **scales)
            if conv
            else stax.Dense(width, **scales)
        )
        layers.append(stax.Relu())
    layers += [stax.Flatten()] if conv else []
    return stax.serial(*layers, stax.Dense(1, **scales))[2]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_twin_agrees_with_neural_tangents(name, parametrization):
    x1, x2 = images(3), images(4, seed=1) - 0.5
    size = {"depth": 2, "width": 48, "parametrization": parametrization}
    ours = models.get(name, n_classes=1, **size).kernel_fn
    theirs = stax_kernel(name, **size)
    for kind in ("ntk", "nngp"):
        np.testing.assert_allclose(ours(x1, x2, kind), theirs(x1, x2, kind), rtol=1e-10)


# --- the finite networks approach them ---


def empirical_ntk(model, variables, x):
    """One kernel an output, (n, n, outputs), from the full Jacobian."""
    jacobian = jax.jit(jax.jacobian(model.apply))(variables, x)
    flat = [leaf.reshape(len(x), leaf.shape[1], -1) for leaf in jax.tree.leaves(jacobian)]
    return sum(jnp.einsum("icp,jcp->ijc", leaf, leaf) for leaf in flat)


def mean_empirical_ntk(model, x, key, n_inits):
    kernels = jax.jit(
        lambda keys: jax.lax.map(lambda k: empirical_ntk(model, model.init(k, x), x), keys)
    )(jax.random.split(key, n_inits))
    return jnp.mean(kernels, axis=-1)  # over the outputs, one kernel an init


def distance(a, b):
    return jnp.linalg.norm(a - b, axis=(-2, -1)) / jnp.linalg.norm(b)


@pytest.mark.parametrize(
    ("name", "parametrization", "widths"),
    [("mlp", "ntk", (32, 512)), ("mlp", "standard", (32, 512)), ("cnn", "ntk", (6, 96))],
)
def test_empirical_ntk_approaches_the_twin(name, widths, parametrization, key):
    x = jnp.asarray(images(4), jnp.float32)
    single, mean = [], []
    for width in widths:
        model = models.get(name, n_classes=2, width=width, parametrization=parametrization)
        kernels = mean_empirical_ntk(model, x, key, 24)
        single.append(jnp.mean(distance(kernels, model.kernel_fn(x))))
        mean.append(distance(jnp.mean(kernels, 0), model.kernel_fn(x)))
    # Sixteen times the width: deviations shrink about fourfold.
    assert single[1] < single[0] / 2.5
    assert mean[1] < 0.06


@pytest.mark.parametrize(
    ("name", "parametrization"), [("mlp", "ntk"), ("mlp", "standard"), ("cnn", "ntk")]
)
def test_covariance_of_outputs_at_initialisation_is_the_nngp(name, parametrization, key):
    x = jnp.asarray(images(3), jnp.float32)
    model = models.get(
        name, n_classes=50, width=32, b_std=0.5, w_std=1.2, parametrization=parametrization
    )
    outputs = jax.jit(jax.vmap(lambda k: model.apply(model.init(k, x), x)))(
        jax.random.split(key, 400)
    )
    covariance = jnp.einsum("kic,kjc->ij", outputs, outputs) / (400 * 50)
    np.testing.assert_allclose(covariance, model.kernel_fn(x, None, "nngp"), rtol=0.06)


@pytest.mark.parametrize(("name", "layer"), [("mlp", nn.Dense), ("cnn", nn.Conv)])
def test_layers_are_plain_flax_layers(name, layer, key):
    x, seen = jnp.asarray(images(2), jnp.float32), []
    model = models.get(name, n_classes=2, width=5, depth=3)

    def record(call, args, kwargs, context):
        seen.append(type(context.module))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        model.apply(model.init(key, x), x)
    assert [kind for kind in seen if kind in (nn.Dense, nn.Conv)] == 2 * ([layer] * 3 + [nn.Dense])


@pytest.mark.parametrize("b_std", [0.0, 0.1])
def test_bias_is_left_out_where_it_would_have_no_effect(b_std, key):
    x = jnp.asarray(images(2), jnp.float32)
    for parametrization, has_bias in (("ntk", b_std > 0), ("standard", True)):
        model = models.get("mlp", n_classes=2, b_std=b_std, parametrization=parametrization)
        names = str(jax.tree.map(jnp.shape, model.init(key, x)))
        assert ("bias" in names) == has_bias


# --- antisymmetric, from_flax ---


@pytest.mark.parametrize("name", models.NAMES)
def test_antisymmetric_starts_at_zero_with_the_same_kernel(name, key):
    x = jnp.asarray(images(5), jnp.float32)
    base = models.get(name, n_classes=3, width=16, depth=1)
    model = models.antisymmetric(base)
    variables = model.init(key, x)
    assert jnp.all(model.apply(variables, x) == 0)
    np.testing.assert_allclose(
        empirical_ntk(model, variables, x),
        empirical_ntk(base, base.init(key, x), x),
        rtol=1e-5,
    )
    assert model.kernel_fn is base.kernel_fn


def test_antisymmetric_is_the_difference_and_keeps_other_collections(key):
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=True)(x.reshape(len(x), -1))
            return nn.Dense(2)(x)

    x = jnp.asarray(images(5), jnp.float32)
    base = models.from_flax(Normalised())
    model = models.antisymmetric(base)
    variables = model.init(key, x)
    assert variables.keys() == {"params", "batch_stats"}
    shifted = jax.tree.map(lambda leaf: leaf + 0.1, base.init(key, x))
    for kind, tree in shifted.items():
        variables[kind]["second"] = tree
    expected = (base.apply(base.init(key, x), x) - base.apply(shifted, x)) / sqrt(2)
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=1e-6)


def test_from_flax_has_no_twin(key):
    module = nn.Dense(3)
    model = models.from_flax(module)
    x = jnp.ones((2, 4))
    variables = model.init(key, x)
    assert model.kernel_fn is None
    np.testing.assert_array_equal(model.apply(variables, x), module.apply(variables, x))


# --- gradients and memory of the twins ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", models.NAMES)
def test_gradient_in_the_inputs_is_that_of_finite_differences(name):
    x1, x2 = jnp.asarray(images(3)), jnp.asarray(images(2, seed=1))
    twin = models.get(name, n_classes=1).kernel_fn
    for kind in ("ntk", "nngp"):
        check_grads(lambda a, b, kind=kind: twin(a, b, kind), (x1, x2), order=1, modes=["rev"])


@pytest.mark.parametrize("b_std", [0.0, 0.1])
@pytest.mark.parametrize("name", models.NAMES)
def test_gradient_is_finite_at_equal_opposite_and_zero_inputs(name, b_std):
    x = jnp.asarray(images(3), jnp.float32).at[2].set(0)
    twin = models.get(name, n_classes=1, b_std=b_std).kernel_fn
    for other in (x, -x, 2 * x, jnp.zeros_like(x), x * (x > 0.5)):
        value, slopes = jax.value_and_grad(lambda a, b: jnp.sum(twin(a, b)), (0, 1))(x, other)
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(slope).all() for slope in slopes)


@pytest.mark.usefixtures("x64")
def test_gradient_at_an_equal_input_is_the_mean_over_opposite_directions():
    x = jnp.asarray(images(1))
    step = 1e-4 * jnp.asarray(images(1, seed=1) - 0.5)
    twin = models.get("mlp", n_classes=1).kernel_fn
    slope = jnp.vdot(jax.grad(lambda a: twin(a, x)[0, 0])(x), step)
    both = [twin(x + sign * step, x)[0, 0] - twin(x, x)[0, 0] for sign in (1, -1)]
    np.testing.assert_allclose(slope, (both[0] - both[1]) / 2, rtol=1e-5)
    # It is a kink: the one-sided slopes are far from their mean.
    assert abs(both[0] - slope) > abs(slope)


def test_kernel_of_an_input_with_itself_is_exact_in_single_precision():
    x = images(1024, shape=(14, 14, 1))
    twin = models.get("mlp", n_classes=1).kernel_fn
    angle_zero = [dense_reference(one, one, 2, sqrt(2), 0.1)[0] for one in x[:50]]
    diagonal = np.diag(twin(x.astype(np.float32)))
    np.testing.assert_allclose(diagonal[:50], angle_zero, rtol=1e-6)


def test_batches_of_columns_change_nothing(monkeypatch):
    # Shapes that no other test uses, so that the new limit is compiled in.
    x1, x2 = jnp.asarray(images(5), jnp.float32), jnp.asarray(images(11, seed=1), jnp.float32)
    pixels = x1.shape[1] * x1.shape[2]
    size = {"hidden": models._Hidden("conv", 7, 2), "scales": models._Scales("ntk", 1.4, 0.1)}

    def weighted(a, b):
        return jnp.sum(jnp.cos(jnp.arange(55.0)).reshape(5, 11) * models._kernel(a, b, **size))

    whole = jax.value_and_grad(weighted, (0, 1))(x1, x2)
    jax.clear_caches()
    monkeypatch.setattr(models, "_MEMORY", 4 * len(x1) * pixels)
    assert "while" in jax.jit(weighted).lower(x1, x2).as_text()
    batched = jax.value_and_grad(weighted, (0, 1))(x1, x2)
    jax.clear_caches()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), whole, batched
    )


@pytest.mark.parametrize("name", models.NAMES)
def test_memory_for_gradients_on_cifar_is_bounded(name):
    twin = models.get(name, n_classes=1).kernel_fn
    new, old = (jax.ShapeDtypeStruct((n, 32, 32, 3), jnp.float32) for n in (500, 2000))
    gradient = jax.jit(jax.grad(lambda a, b: jnp.sum(twin(a, b))))
    used = gradient.lower(new, old).compile().memory_analysis().temp_size_in_bytes
    assert used < 2**30


# --- malformed input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet"}, "model 'resnet' is unknown; known are cnn, mlp"),
        ({"name": "MLP"}, "model 'MLP' is unknown"),
        ({"n_classes": 0}, "n_classes is 0; it must be at least 1"),
        ({"width": 0}, "width is 0; it must be at least 1"),
        ({"depth": 0}, "depth is 0; it must be at least 1"),
        ({"depth": -2}, "depth is -2; it must be at least 1"),
        ({"parametrization": "mup"}, "parametrization is 'mup'; allowed: 'ntk', 'standard'"),
        ({"w_std": 0.0}, "w_std is 0.0; it must be positive"),
        ({"w_std": float("nan")}, "w_std is nan; it must be positive"),
        ({"b_std": -0.1}, "b_std is -0.1; it must be finite and at least 0"),
        ({"b_std": float("inf")}, "b_std is inf; it must be finite"),
    ],
)
def test_malformed_models_are_refused(change, message):
    arguments = {"name": "mlp", "n_classes": 2} | change
    with pytest.raises(ValueError, match=message) as caught:
        models.get(arguments.pop("name"), **arguments)
    assert "\n" not in str(caught.value)


def test_malformed_inputs_are_refused(key):
    model = models.get("cnn", n_classes=2)
    flat = jnp.ones((2, 9))
    with pytest.raises(ValueError, match=r"shape \(2, 9\); 'cnn' takes \(n, height, width, ch"):
        model.init(key, flat)
    with pytest.raises(ValueError, match=r"shape \(2, 9\); 'cnn' takes \(n, height, width, ch"):
        model.kernel_fn(flat)
    with pytest.raises(ValueError, match="get is 'NTK'; allowed are 'ntk' and 'nngp'"):
        model.kernel_fn(jnp.ones((2, 3, 3, 1)), get="NTK")
