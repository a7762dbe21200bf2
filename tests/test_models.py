import inspect
from math import sqrt

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntklib import models
from ntklib._neural_tangents import empirical_ntk_fn
from ntklib.models import _named

TWINS = ("mlp", "cnn", "myrtle")


def images(n, seed=0, shape=(4, 4, 2)):
    return np.random.default_rng(seed).uniform(size=(n, *shape)).astype(np.float32)


class Normalised(nn.Module):
    """Takes no `train` if told so, as it then always is in inference mode."""

    frozen: bool

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=self.frozen or not train)(x.reshape(len(x), -1))
        return nn.Dense(2)(x)


class Frozen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Normalised(frozen=True)(x, train=False)


# --- get ---


@pytest.mark.parametrize("name", models.NAMES)
def test_each_network_maps_images_to_logits(name, key):
    model = models.get(name, n_classes=3)
    x = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(model.init, key, x)
    assert jax.eval_shape(model.apply, variables, x).shape == (2, 3)
    assert (model.stack is not None) == (name in TWINS)
    assert (model.apply_train is not None) == (name == "resnet18") == ("batch_stats" in variables)


@pytest.mark.parametrize("name", [name for name in models.NAMES if name not in TWINS])
def test_width_multiplies_the_channels(name):
    def widths(width):
        model = models.get(name, n_classes=3, width=width)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        return [leaf.shape[-1] for leaf in jax.tree.leaves(shapes) if leaf.shape[-1] != 3]

    assert widths(0.5) == [w / 2 for w in widths(1)]
    assert widths(2) == [w * 2 for w in widths(1)]
    assert set(widths(1e-6)) == {1}


@given(name=st.sampled_from(models.NAMES), option=st.text(st.characters(codec="ascii")))
def test_only_the_options_of_a_network_are_taken(name, option):
    known = inspect.signature(_named._NETWORKS[name]).parameters
    if option not in known:
        with pytest.raises(ValueError, match="has no option") as caught:
            models.get(name, **{"n_classes": 2, option: 1})
        assert repr(option) in str(caught.value)
        assert "its options are width" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet"}, "model 'resnet' is unknown; known are mlp, cnn, myrtle, cnn_mega"),
        ({"name": "MLP"}, "model 'MLP' is unknown"),
        ({"n_classes": 0}, "n_classes is 0; it must be at least 1"),
        ({"n_classes": 0, "name": "conv3"}, "n_classes is 0; it must be at least 1"),
        ({"width": 0}, "width is 0; it must be at least 1"),
        ({"depth": 0}, "depth is 0; it must be at least 1"),
        ({"depth": -2, "name": "cnn"}, "depth is -2; it must be at least 1"),
        ({"depth": 3, "name": "myrtle"}, "depth is 3; allowed for 'myrtle' are 5, 7 and 10"),
        ({"parametrization": "mup"}, "parametrization is 'mup'; allowed: 'ntk', 'standard'"),
        ({"readout": "max", "name": "cnn"}, "readout is 'max'; allowed: 'flatten', 'pool'"),
        ({"readout": "pool"}, "model 'mlp' has no option 'readout'; its options are width, depth"),
        ({"w_std": 0.0}, "w_std is 0.0; it must be positive"),
        ({"w_std": float("nan")}, "w_std is nan; it must be positive"),
        ({"b_std": -0.1}, "b_std is -0.1; it must be finite and at least 0"),
        ({"b_std": float("inf")}, "b_std is inf; it must be finite"),
        ({"width": 0, "name": "resnet18"}, "width is 0; it must be positive and finite"),
        ({"width": float("nan"), "name": "conv3"}, "width is nan; it must be positive and finite"),
        ({"width": -1.0, "name": "cnn_mnist"}, "width is -1.0; it must be positive and finite"),
    ],
)
def test_malformed_models_are_refused(change, message):
    arguments = {"name": "mlp", "n_classes": 2} | change
    with pytest.raises(ValueError, match=message) as caught:
        models.get(arguments.pop("name"), **arguments)
    assert "\n" not in str(caught.value)


# --- from_flax ---


def test_from_flax_has_no_twin(key):
    module, x = nn.Dense(3), jnp.ones((2, 4))
    model = models.from_flax(module)
    variables = model.init(key, x)
    assert model.stack is model.apply_train is None
    np.testing.assert_array_equal(model.apply(variables, x), module.apply(variables, x))


def test_from_flax_tells_training_from_inference_by_the_keyword(key):
    x, module = jnp.asarray(images(5)), Normalised(frozen=False)
    model = models.from_flax(module)
    variables = model.init(key, x)
    np.testing.assert_array_equal(
        model.apply(variables, x), module.apply(variables, x, train=False)
    )
    logits, state = model.apply_train(variables, x)
    expected, updated = module.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(logits, expected)
    jax.tree.map(np.testing.assert_array_equal, state, updated)
    assert jnp.linalg.norm(logits - model.apply(variables, x)) > 0.1
    assert models.from_flax(Frozen()).apply_train is None


# --- antisymmetric ---


@pytest.mark.parametrize("name", [*TWINS, "cnn_mnist"])
def test_antisymmetric_starts_at_zero(name, key):
    x = jnp.asarray(images(3))
    base = models.get(name, n_classes=3, width=16 if name in TWINS else 1)
    model = models.antisymmetric(base)
    assert jnp.all(model.apply(model.init(key, x), x) == 0)
    assert model.stack is base.stack
    assert model.apply_train is None


@pytest.mark.parametrize("name", [*TWINS, "cnn_mnist"])
def test_antisymmetric_keeps_the_kernel(name, key):
    x = jnp.asarray(images(3))
    base = models.get(name, n_classes=2, width=4 if name in TWINS else 0.2)
    model = models.antisymmetric(base)
    kernels = [
        jax.jit(empirical_ntk_fn(lambda v, x, m=m: m.apply(v, x), trace_axes=()))(
            x, None, m.init(key, x)
        )
        for m in (base, model)
    ]
    np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-6)


def test_antisymmetric_is_the_difference_and_keeps_other_collections(key):
    x = jnp.asarray(images(5))
    base = models.from_flax(Frozen())
    model = models.antisymmetric(base)
    variables = model.init(key, x)
    assert variables.keys() == {"params", "batch_stats"}
    shifted = jax.tree.map(lambda leaf: leaf + 0.1, base.init(key, x))
    for kind, tree in shifted.items():
        variables[kind]["second"] = tree
    expected = (base.apply(base.init(key, x), x) - base.apply(shifted, x)) / sqrt(2)
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["cnn_mnist", "cnn_small", "resnet18"])
def test_smooth_networks_have_the_parameters_and_the_limit_of_the_relu(name):
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    sharp, smooth, coarse = (
        models.get(name, n_classes=4, softplus=beta) for beta in (float("inf"), 1e4, 1.0)
    )
    variables = models.get(name, n_classes=4).init(jax.random.key(1), x)
    if name == "resnet18":  # its readout starts at zero
        variables["params"]["Dense_0"]["kernel"] += 0.1
    logits = sharp.apply(variables, x)
    np.testing.assert_array_equal(logits, models.get(name, n_classes=4).apply(variables, x))
    np.testing.assert_allclose(smooth.apply(variables, x), logits, atol=2e-2)
    assert float(jnp.abs(coarse.apply(variables, x) - logits).max()) > 0.1


@pytest.mark.parametrize("beta", [0, -1.0, float("nan")])
def test_softplus_is_positive(beta):
    with pytest.raises(ValueError, match=f"^softplus is {beta}; it must be positive"):
        models.get("cnn_mnist", n_classes=4, softplus=beta)
