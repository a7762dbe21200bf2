import inspect
from math import sqrt

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial

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
    normalised = name in ("resnet8", "resnet18")
    assert (model.apply_train is not None) == normalised == ("batch_stats" in variables)


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
    if option not in {"n_classes", *_named._OPTIONS[name]}:
        with pytest.raises(ValueError, match="is no option of") as caught:
            models.get(name, **{"n_classes": 2, option: 1})
        assert str(caught.value).startswith(f"{option}: ")
        assert "its options are width" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet"}, "name: 'resnet' is unknown; allowed: 'mlp', 'cnn', 'myrtle', 'cnn_m"),
        ({"name": "MLP"}, "name: 'MLP' is unknown"),
        ({"n_classes": 0}, "n_classes: 0 is out of range; it is a whole number >= 1"),
        ({"n_classes": 0, "name": "conv3"}, "n_classes: 0 is out of range"),
        ({"n_classes": 2.5}, "n_classes: 2.5 is not whole"),
        ({"n_classes": True}, "n_classes: True is not allowed; it is a whole number"),
        ({"n_classes": "10"}, "n_classes: '10' is not allowed; it is a whole number"),
        ({"width": 0}, "width: 0 is out of range; it is a whole number >= 1"),
        ({"width": 0.5}, "width: 0.5 is not whole"),
        ({"depth": -1}, "depth: -1 is out of range"),
        ({"depth": -2, "name": "cnn"}, "depth: -2 is out of range"),
        ({"depth": 3, "name": "myrtle"}, "depth: 3 is unknown; allowed: 5, 7, 10"),
        ({"parametrization": "mup"}, "parametrization: 'mup' is unknown; allowed: 'ntk', 'standar"),
        (
            {"readout": "max", "name": "cnn"},
            "readout: 'max' is unknown; allowed: 'flatten', 'pool'",
        ),
        ({"readout": "pool"}, "readout: is no option of 'mlp'; its options are width, depth"),
        ({"w_std": 0.0}, "w_std: 0 is out of range; it is finite and above 0"),
        ({"w_std": float("nan")}, "w_std: nan is out of range"),
        ({"b_std": -0.1}, "b_std: -0.1 is out of range; it is finite and at least 0"),
        ({"b_std": float("inf")}, "b_std: inf is out of range"),
        ({"width": 0, "name": "resnet18"}, "width: 0 is out of range; it is finite and above 0"),
        ({"width": float("nan"), "name": "conv3"}, "width: nan is out of range"),
        ({"width": -1.0, "name": "cnn_mnist"}, "width: -1 is out of range"),
        ({"zero_head": 1, "name": "resnet18"}, "zero_head: 1 is unknown; allowed: False, True"),
        ({"softplus": 0, "name": "conv3"}, "softplus: 0 is out of range; it is finite and above 0"),
        ({"softplus": -1.0, "name": "conv3"}, "softplus: -1 is out of range"),
        ({"softplus": float("nan"), "name": "conv3"}, "softplus: nan is out of range"),
        ({"softplus": "no", "name": "conv3"}, "softplus: 'no' is not allowed; it is a number"),
    ],
)
def test_malformed_models_are_refused(change, message):
    arguments = {"name": "mlp", "n_classes": 2} | change
    with pytest.raises((ValueError, TypeError), match=f"^{message}") as caught:
        inspect.unwrap(models.get)(arguments.pop("name"), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        ("cnn_mnist", {}, "cnn_mnist(n_classes=10)"),
        ("cnn_mnist", {"softplus": 20}, "cnn_mnist(n_classes=10, softplus=20.0)"),
        ("cnn_mnist", {"softplus": float("inf"), "width": 1}, "cnn_mnist(n_classes=10)"),
        ("mlp", {"b_std": 0, "width": 64.0}, "mlp(n_classes=10, width=64, b_std=0.0)"),
        ("myrtle", {"depth": 7.0}, "myrtle(n_classes=10, depth=7)"),
        ("resnet18", {"zero_head": False}, "resnet18(n_classes=10, zero_head=False)"),
    ],
)
def test_a_network_by_name_is_one_value(name, options, shown):
    model = models.get(name, n_classes=10, **options)
    backwards = dict(reversed({"n_classes": 10.0, **options}.items()))
    assert model is inspect.unwrap(models.get)(name, **backwards)
    assert model.name == repr(model) == shown
    assert models.antisymmetric(model) is models.antisymmetric(model)
    assert repr(models.antisymmetric(model)) == f"antisymmetric({shown})"
    others = [models.get(name, n_classes=9, **options), models.antisymmetric(model)]
    assert all(model != other and hash(model) != hash(other) for other in others)


def test_a_network_by_name_compiles_once():
    traced = []

    @jax.jit
    def compiled(logits_fn, x):
        traced.append(x.shape)
        return logits_fn(x)

    x = jnp.ones((2, 8, 8, 1))
    for seed in (0, 1):
        model = models.get("cnn_mnist", n_classes=3, softplus=5.0)
        compiled(Partial(model.apply, model.init(jax.random.key(seed), x)), x)
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Frozen(), "Frozen"),
        (nn.Sequential([nn.Dense(2), jnp.tanh]), "Sequential"),
        (models.Model(print, print), "Model"),
        (models.Model(print, print, name="mine"), "mine"),
    ],
)
def test_names_have_no_addresses(value, expected):
    model = value if isinstance(value, models.Model) else models.from_flax(value)
    assert repr(model) == expected


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
    logits, state = model.apply_train(variables, x, key)
    expected, updated = module.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(logits, expected)
    jax.tree.map(np.testing.assert_array_equal, state, updated)
    assert jnp.linalg.norm(logits - model.apply(variables, x)) > 0.1
    assert models.from_flax(Frozen()).apply_train is None


class Dropped(nn.Module):
    """Dropout told by `deterministic`, normalisation, and noise of another name."""

    @nn.compact
    def __call__(self, x, deterministic=True):
        x = nn.BatchNorm(use_running_average=deterministic)(x.reshape(len(x), -1))
        x = nn.Dropout(0.5, deterministic=deterministic)(x)
        if not deterministic:
            x = x + jax.random.normal(self.make_rng("noise"), x.shape)
        return nn.Dense(2)(x)


class DroppedIfTrained(nn.Module):
    """Dropout told by `train`, before all else."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1)))


def test_keys_of_training_serve_every_stream(key):
    x, model = jnp.asarray(images(5)), models.from_flax(Dropped())
    variables = model.init(key, x)
    np.testing.assert_array_equal(model.apply(variables, x), Dropped().apply(variables, x))
    train = jax.jit(model.apply_train)
    (logits, state), (again, _), (other, _) = (
        train(variables, x, jax.random.key(seed)) for seed in (1, 1, 2)
    )
    assert state.keys() == {"batch_stats"}
    np.testing.assert_array_equal(logits, again)
    assert jnp.linalg.norm(logits - other) > 0.1


def test_dropout_in_training_is_dropout(key):
    """Of its mean over keys, f is the value; of their spread, that of Bernoulli weights."""
    x, model = jnp.asarray(images(1)), models.from_flax(DroppedIfTrained())
    variables = model.init(key, x)
    draws = jax.vmap(lambda k: model.apply_train(variables, x, k)[0][0])(
        jax.random.split(key, 20_000)
    )
    terms = x.reshape(-1, 1) * variables["params"]["Dense_0"]["kernel"]
    expected = terms.sum(0) + variables["params"]["Dense_0"]["bias"]
    np.testing.assert_allclose(model.apply(variables, x)[0], expected, rtol=1e-5)
    spread = jnp.sqrt((terms**2).sum(0))
    assert (jnp.abs(draws.mean(0) - expected) < 4 * spread / sqrt(20_000)).all()
    np.testing.assert_allclose(draws.std(0), spread, rtol=0.03)


def test_antisymmetric_drops_the_same_of_both_copies(key):
    x, base = jnp.asarray(images(5)), models.from_flax(DroppedIfTrained())
    model = models.antisymmetric(base)
    variables = model.init(key, x)
    assert jnp.all(model.apply_train(variables, x, key)[0] == 0)
    variables["params"]["second"] = jax.tree.map(jnp.zeros_like, variables["params"]["second"])
    logits, state = model.apply_train(variables, x, key)
    expected, _ = base.apply_train(base.init(key, x), x, key)
    assert state == {}
    np.testing.assert_allclose(logits, expected / sqrt(2), rtol=1e-6)


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        (lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)), "flax.nnx.nn.linear.Linear"),
        (lambda: nn.Dense, "flax.linen.linear.Dense"),
        (lambda: lambda x: x, "builtins.function"),
    ],
)
def test_what_is_no_linen_module_is_refused(module, shown):
    with pytest.raises(TypeError, match=rf"^module: {shown} is not allowed; .* flax\.linen$"):
        inspect.unwrap(models.from_flax)(module())


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


@pytest.mark.parametrize("name", ["cnn_mnist", "cnn_small", "resnet8", "resnet18"])
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
