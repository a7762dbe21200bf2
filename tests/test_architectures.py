from itertools import pairwise
from math import prod, sqrt

import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest

from ntklib import infinite, models

MNIST, CIFAR = (2, 14, 14, 1), (2, 32, 32, 3)

# Image size; layers as the sources list them (c: convolution, s: of stride 2, d: dense, m: max-,
# a: average-pooling, g: mean over pixels; the readout is not named); their kernels.
CHAINS = {
    "cnn_mega": (
        CIFAR,
        "ccmcccca",
        [(3, 3, a, b) for a, b in ((3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128))]
        + [(8 * 8 * 128, 10)],
    ),
    "cnn_small": (
        (2, 28, 28, 1),
        "cacad",
        [(3, 3, 1, 32), (3, 3, 32, 64), (7 * 7 * 64, 256), (256, 10)],
    ),
    "cnn_mnist": (MNIST, "cacad", [(3, 3, 1, 16), (3, 3, 16, 32), (3 * 3 * 32, 64), (64, 10)]),
    "conv3": (CIFAR, "cssg", [(3, 3, 3, 32), (3, 3, 32, 64), (3, 3, 64, 64), (64, 10)]),
    "conv4": (
        CIFAR,
        "csss",
        [(3, 3, a, b) for a, b in ((3, 32), (32, 64), (64, 64), (64, 128))] + [(4 * 4 * 128, 10)],
    ),
    "alexnet": (
        CIFAR,
        "cmcmcccmdd",
        [(3, 3, a, b) for a, b in ((3, 64), (64, 192), (192, 384), (384, 256), (256, 256))]
        + [(4 * 4 * 256, 1024), (1024, 1024), (1024, 10)],
    ),
}


def random_images(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def shapes(name, shape, **options):
    model = models.get(name, n_classes=10, **options)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


def size(tree):
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def in_order(params):
    """(kernel, bias) of each layer, from the first on: convolutions come before dense layers."""
    names = sorted(params, key=lambda name: (name.startswith("Dense"), name))
    return [(params[name]["kernel"], params[name]["bias"]) for name in names]


def forward(layers, params, x):
    """The network in XLA's operations."""
    weights = iter(in_order(params))
    for kind in layers + "r":
        if kind in "cs":
            kernel, bias = next(weights)
            stride = (2, 2) if kind == "s" else (1, 1)
            x = jax.lax.conv_general_dilated(
                x, kernel, stride, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jnp.maximum(x + bias, 0)
        elif kind in "ma":
            n, h, w, c = x.shape
            x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
            x = x.max((2, 4)) if kind == "m" else x.mean((2, 4))
        elif kind == "g":
            x = x.mean((1, 2))
        else:
            kernel, bias = next(weights)
            x = x.reshape(len(x), -1) @ kernel + bias
            x = jnp.maximum(x, 0) if kind == "d" else x
    return x


@pytest.mark.parametrize("name", CHAINS)
def test_chains_have_the_layers_of_their_source(name, key):
    shape, layers, kernels = CHAINS[name]
    assert [kernel.shape for kernel, _ in in_order(shapes(name, shape)["params"])] == kernels
    x = random_images((2, 12, 9, 2))
    model = models.get(name, n_classes=3, width=0.25)
    variables = jax.jit(model.init)(key, x)
    assert variables.keys() == {"params"}
    assert model.apply_train is None
    for kernel, bias in in_order(variables["params"]):
        # LeCun's variance, 1 / fan-in, within 4 standard errors; no bias.
        spread = jnp.var(kernel) * prod(kernel.shape[:-1]) - 1
        assert abs(spread) < 4 * sqrt(2 / kernel.size)
        assert jnp.all(bias == 0)
    moved = jax.tree.map(lambda leaf: leaf + 0.01, variables)
    logits, expected = jax.jit(lambda v, x: (model.apply(v, x), forward(layers, v["params"], x)))(
        moved, x
    )
    assert jnp.std(expected) > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_cnn_mnist_has_24_thousand_parameters():
    assert size(shapes("cnn_mnist", MNIST)) == 23_946


# --- ResNet-18 ---


def resnet_parameters(channels, n_classes):
    """Convolutions without bias, scale and offset a channel, a dense layer with bias."""
    total = 9 * 3 * channels[0] + 2 * channels[0]
    before = channels[0]
    for group, c in enumerate(channels):
        total += 9 * before * c + 3 * 9 * c * c + 4 * 2 * c
        total += before * c + 2 * c if group else 0
        before = c
    return total + before * n_classes + n_classes


@pytest.mark.parametrize(
    ("width", "channels"),
    [(1, (64, 128, 256, 512)), (0.5, (32, 64, 128, 256)), (0.1, (6, 13, 26, 51))],
)
def test_resnet18_has_the_parameters_of_its_source(width, channels):
    variables = shapes("resnet18", CIFAR, width=width)
    assert size(variables["params"]) == resnet_parameters(channels, 10)
    if width == 1:
        assert round(size(variables["params"]) / 1e6, 2) == 11.17
    # A mean and a variance a channel: one norm for the stem, 4 in each group, 3 for projections.
    statistics = channels[0] + 4 * sum(channels) + sum(channels[1:])
    assert size(variables["batch_stats"]) == 2 * statistics


def test_resnet18_calls_its_layers_in_order():
    """Of plain flax layers, with strides 1, 2, 2, 2 and the projections where these begin."""
    seen = []

    def record(call, args, kwargs, context):
        layer, y = context.module, call(*args, **kwargs)
        if isinstance(layer, nn.Conv) and context.method_name == "__call__":
            seen.append((layer.kernel_size[0], layer.strides or 1, args[0].shape[1], y.shape[1:]))
            assert not layer.use_bias
        elif isinstance(layer, nn.BatchNorm) and context.method_name == "__call__":
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
            seen.append("norm")
        return y

    model, variables = models.get("resnet18", n_classes=10), shapes("resnet18", CIFAR)
    with nn.intercept_methods(record):
        jax.eval_shape(model.apply, variables, jnp.zeros(CIFAR))
    expected = [(3, 1, 32, (32, 32, 64)), "norm"]
    pixels = 32
    for group, channels in enumerate((64, 128, 256, 512)):
        before, pixels = pixels, 32 // 2**group
        stride, out = (2 if group else 1), (pixels, pixels, channels)
        if group:
            expected += [(1, 2, before, out), "norm"]
        expected += [(3, stride, before, out), "norm"] + 3 * [(3, 1, pixels, out), "norm"]
    assert seen == expected


def test_resnet8_has_the_layers_that_are_told():
    """A stem of 4x4, three blocks, two projections; 49 million multiply-adds."""
    channels = (64, 128, 256)
    convolutions = 16 * 3 * 64 + 2 * 9 * 64 * 64
    convolutions += sum(9 * a * b + 9 * b * b + a * b for a, b in pairwise(channels))
    norms = 2 * (3 * 64 + 3 * 128 + 3 * 256)
    variables = shapes("resnet8", CIFAR)
    assert size(variables["params"]) == convolutions + norms + 256 * 10 + 10
    multiplied = []

    def count(call, args, kwargs, context):
        layer, y = context.module, call(*args, **kwargs)
        if isinstance(layer, nn.Conv) and context.method_name == "__call__":
            a, (_, height, width, b) = args[0].shape[-1], y.shape
            multiplied.append(prod(layer.kernel_size) * a * b * height * width)
        return y

    with nn.intercept_methods(count):
        jax.eval_shape(models.get("resnet8", n_classes=10).apply, variables, jnp.zeros(CIFAR))
    assert round(sum(multiplied) / 1e6) == 49


def test_statistics_of_resnet18_move_in_training_mode_only(key):
    x, model = random_images((6, 8, 8, 3)), models.get("resnet18", n_classes=5, width=0.1)
    variables = jax.jit(model.init)(key, x)
    apply, apply_train = jax.jit(model.apply), jax.jit(model.apply_train)
    assert jnp.all(apply(variables, x) == 0)  # the zero head
    head = {"kernel": random_images((51, 5)) - 0.5, "bias": jnp.zeros(5)}
    variables["params"] = variables["params"] | {"Dense_0": head}
    # Inference: an image's logits do not depend on its batch. Training: they do.
    others = x.at[2:].set(2 * random_images((4, 8, 8, 3), seed=1))
    one, two = (apply(variables, batch)[:2] for batch in (x, others))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    logits, state = apply_train(variables, x, key)
    assert jnp.linalg.norm(logits[:2] - apply_train(variables, others, key)[0][:2]) > 1e-2
    # The averages move a tenth of the way to the batch's statistics, and arrive there in time.
    assert state.keys() == {"batch_stats"}
    first = jax.tree.leaves(state["batch_stats"])
    for _ in range(150):
        state = apply_train(variables | state, x, key)[1]
    start, end = (jax.tree.leaves(v["batch_stats"]) for v in (variables, state))
    for a, b, c in zip(start, first, end, strict=True):
        np.testing.assert_allclose(b - a, 0.1 * (c - a), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(apply(variables | state, x), logits, rtol=1e-2, atol=1e-3)


def test_head_of_resnet18_starts_at_zero_unless_told(key):
    for zero_head in (True, False):
        model = models.get("resnet18", n_classes=5, width=0.02, zero_head=zero_head)
        # Only what the readout needs is computed.
        kernel = jax.jit(lambda x, model=model: model.init(key, x)["params"]["Dense_0"]["kernel"])(
            jnp.ones((1, 8, 8, 3))
        )
        assert bool(jnp.all(kernel == 0)) == zero_head


def test_antisymmetric_keeps_statistics_apart(key):
    x, base = random_images((6, 8, 8, 1)), models.from_flax(nets.Normalised())
    model = models.antisymmetric(base)
    variables = jax.jit(model.init)(key, x)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"]["second"])
    variables["params"] = variables["params"] | {"second": moved}
    logits, state = jax.jit(model.apply_train)(variables, x, key)
    train = jax.jit(base.apply_train)
    parts = {
        copy: train({kind: trees[copy] for kind, trees in variables.items()}, x, key)
        for copy in ("first", "second")
    }
    expected = (parts["first"][0] - parts["second"][0]) / sqrt(2)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    for copy, (_, statistics) in parts.items():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            state["batch_stats"][copy],
            statistics["batch_stats"],
        )


# --- networks with an infinite twin ---


@pytest.mark.parametrize(
    ("name", "options", "kinds"),
    [
        ("mlp", {"depth": 3}, [nn.Dense] * 4),
        ("cnn", {"depth": 3, "readout": "pool"}, [nn.Conv] * 3 + [nn.Dense]),
        ("myrtle", {"depth": 7}, [nn.Conv] * 6 + [nn.Dense]),
        ("myrtle", {"depth": 10}, [nn.Conv] * 9 + [nn.Dense]),
    ],
)
def test_stacks_are_made_of_plain_flax_layers(name, options, kinds, key):
    x, seen = jnp.zeros((2, 4, 4, 2)), []

    def record(call, args, kwargs, context):
        seen.append(type(context.module))
        return call(*args, **kwargs)

    model = models.get(name, n_classes=2, width=5, **options)
    with nn.intercept_methods(record):
        jax.eval_shape(model.init, key, x)
    assert [kind for kind in seen if kind in (nn.Dense, nn.Conv)] == kinds


@pytest.mark.parametrize("b_std", [0.0, 0.1])
def test_bias_is_left_out_where_it_would_have_no_effect(b_std):
    for parametrization, has_bias in (("ntk", b_std > 0), ("standard", True)):
        variables = shapes("mlp", MNIST, b_std=b_std, parametrization=parametrization)
        assert ("bias" in str(variables)) == has_bias


def empirical_ntk(model, variables, x):
    """One kernel an output, (n, n, outputs), from the full Jacobian."""
    jacobian = jax.jacobian(model.apply)(variables, x)
    flat = [leaf.reshape(len(x), leaf.shape[1], -1) for leaf in jax.tree.leaves(jacobian)]
    return sum(jnp.einsum("icp,jcp->ijc", leaf, leaf) for leaf in flat)


def mean_empirical_ntk(model, x, key, n_inits):
    kernels = jax.jit(
        lambda keys: jax.lax.map(lambda k: empirical_ntk(model, model.init(k, x), x), keys)
    )(jax.random.split(key, n_inits))
    return jnp.mean(kernels, axis=-1)  # over the outputs, one kernel an init


def distance(a, b):
    return jnp.linalg.norm(a - b, axis=(-2, -1)) / jnp.linalg.norm(b)


def test_distance_to_the_twin_shrinks_as_the_root_of_the_width(key):
    x, widths = random_images((4, 4, 3, 2)), (32, 128, 512)
    mean = []
    for width in widths:
        model = models.get("mlp", n_classes=2, width=width)
        kernels = mean_empirical_ntk(model, x, key, 48)
        mean.append(jnp.mean(distance(kernels, infinite.twin(model)(x))))
    slope, _ = np.polyfit(np.log(widths), np.log(mean), 1)
    assert -0.6 < slope < -0.4


@pytest.mark.parametrize(
    ("name", "options", "widths"),
    [
        ("mlp", {"parametrization": "standard"}, (32, 512)),
        ("cnn", {}, (6, 96)),
        ("myrtle", {}, (6, 96)),
    ],
)
def test_empirical_ntk_approaches_the_twin(name, options, widths, key):
    x = random_images((4, 4, 4, 1) if name == "myrtle" else (4, 4, 3, 2))
    single, mean = [], []
    for width in widths:
        model = models.get(name, n_classes=2, width=width, **options)
        kernels = mean_empirical_ntk(model, x, key, 24)
        single.append(jnp.mean(distance(kernels, infinite.twin(model)(x))))
        mean.append(distance(jnp.mean(kernels, 0), infinite.twin(model)(x)))
    # Sixteen times the width: deviations shrink about fourfold.
    assert single[1] < single[0] / 2.5
    assert mean[1] < 0.06


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {}),
        ("mlp", {"parametrization": "standard"}),
        ("cnn", {}),
        ("cnn", {"readout": "pool"}),
        ("myrtle", {}),
    ],
)
def test_covariance_of_outputs_at_initialisation_is_the_nngp(name, options, key):
    x = random_images((3, 4, 4, 2))
    model = models.get(name, n_classes=50, width=32, b_std=0.5, w_std=1.2, **options)
    outputs = jax.jit(
        lambda keys: jax.lax.map(lambda k: model.apply(model.init(k, x), x), keys, batch_size=50)
    )(jax.random.split(key, 400))
    covariance = jnp.einsum("kic,kjc->ij", outputs, outputs) / (400 * 50)
    np.testing.assert_allclose(covariance, infinite.twin(model)(x, None, "nngp"), rtol=0.06)


# --- malformed input ---


@pytest.mark.parametrize("name", [name for name in models.NAMES if name != "mlp"])
def test_inputs_that_are_not_images_are_refused(name, key):
    model = models.get(name, n_classes=2)
    with pytest.raises(
        ValueError, match=r"^x: shape \(2, 9\) is not allowed; a network with convolutions takes"
    ):
        jax.eval_shape(model.init, key, jnp.ones((2, 9)))


@pytest.mark.parametrize("name", ["cnn_mega", "cnn_small", "cnn_mnist", "alexnet", "myrtle"])
def test_images_too_small_to_be_pooled_are_refused(name, key):
    model, least = models.get(name, n_classes=2), 8 if name == "alexnet" else 4
    jax.eval_shape(model.init, key, jnp.ones((2, least, least, 1)))
    with pytest.raises(ValueError, match=f"of at least {least} x {least} pixels"):
        jax.eval_shape(model.init, key, jnp.ones((2, least, least - 1, 1)))
