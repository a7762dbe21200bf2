from collections import OrderedDict
from functools import partial
from itertools import product
from types import MappingProxyType

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from ntklib import attacks, linear, models


class Convolutional(nn.Module):
    """Small and smooth, with batch normalisation in inference mode."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), param_dtype=x.dtype)(x)
        x = nn.BatchNorm(use_running_average=True, param_dtype=x.dtype)(x)
        return nn.Dense(3, param_dtype=x.dtype)(jnp.tanh(x).reshape(len(x), -1))


class Affine(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.reshape(len(x), -1))


def images(n=5, seed=0, side=4):
    return jax.random.uniform(jax.random.key(seed), (n, side, side, 1))


def start(model, x, seed=1):
    variables = model.init(jax.random.key(seed), x)
    if "batch_stats" in variables:  # such that forgetting them shows
        shifted = jax.tree.map(lambda s: 2 * s + 0.5, variables["batch_stats"])
        variables = variables | {"batch_stats": shifted}
    return variables


def moved(variables, size=0.3, seed=2):
    flat, unravel = ravel_pytree(variables["params"])
    step = size * jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype)
    return {"params": unravel(flat + step)}


def tangent_kernel(model, variables, x):
    """All entries of the kernel by a Jacobian: (n k, n k)."""
    flat, unravel = ravel_pytree(variables["params"])
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    @jax.jit
    def kernel(flat):
        jacobian = jax.jacobian(lambda p: model.apply(rest | {"params": unravel(p)}, x).ravel())
        return jacobian(flat) @ jacobian(flat).T

    return kernel(flat)


ARCHITECTURES = {
    "batch normalisation": models.from_flax(Convolutional()),
    "relu": models.get("cnn", n_classes=3, width=4, depth=2),
    "antisymmetric": models.antisymmetric(models.get("mlp", n_classes=3, width=6, depth=1)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_expansion_is_the_value_and_its_directional_derivative(name):
    model, x = ARCHITECTURES[name], images()
    tangent = jax.tree.map(lambda a: a.astype(float), start(model, x))
    there = moved(tangent)
    flat, unravel = ravel_pytree(tangent["params"])
    direction = ravel_pytree(there["params"])[0] - flat

    @jax.jit
    def f(t):
        return model.apply(tangent | {"params": unravel(flat + t * direction)}, x)

    h = 1e-6
    change = (f(h) - f(-h)) / (2 * h)
    for centered, expected in ((True, change), (False, f(0.0) + change)):
        model_lin = linear.linearize(model, tangent, centered=centered)
        apply = jax.jit(model_lin.apply)
        np.testing.assert_allclose(apply(there, x), expected, rtol=1e-7, atol=1e-8)


def test_a_model_linear_in_its_parameters_is_its_own_expansion():
    model, x = models.from_flax(Affine()), images()
    tangent = start(model, x)
    there = moved(tangent, size=10.0)
    model_lin = linear.linearize(model, tangent, centered=False)
    np.testing.assert_allclose(
        model_lin.apply(there, x), model.apply(there, x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_at_the_tangent_point_it_is_the_model_or_zero(name):
    model, x = ARCHITECTURES[name], images()
    tangent = start(model, x)
    plain, centered = (linear.linearize(model, tangent, centered=c) for c in (False, True))
    assert jnp.abs(model.apply(tangent, x)).max() > 0 or name == "antisymmetric"
    np.testing.assert_array_equal(plain.apply(tangent, x), model.apply(tangent, x))
    np.testing.assert_array_equal(centered.apply(tangent, x), jnp.zeros((5, 3)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_tangent_kernel_does_not_move_with_the_parameters(name, dtype, tolerance):
    model, x = ARCHITECTURES[name], images().astype(dtype)
    tangent = jax.tree.map(lambda a: a.astype(dtype), start(model, x))
    expected = tangent_kernel(model, tangent, x)
    there = moved(tangent)
    for centered in (True, False):
        kernel = tangent_kernel(linear.linearize(model, tangent, centered=centered), there, x)
        assert kernel.dtype == dtype
        assert np.linalg.norm(kernel - expected) < tolerance * np.linalg.norm(expected)
    elsewhere = tangent_kernel(model, tangent | there, x)
    assert np.linalg.norm(elsewhere - expected) > 1e-2 * np.linalg.norm(expected)


@pytest.mark.usefixtures("x64")
def test_the_input_gradient_is_that_of_finite_differences():
    model, x = ARCHITECTURES["batch normalisation"], images().astype(float)
    tangent = start(model, x)
    model_lin = linear.linearize(model, tangent, centered=True)
    f = linear.bind(model_lin.apply, moved(tangent))
    y = jnp.array([0, 1, 2, 0, 1])
    gradient = attacks.input_gradient(f, x, y)
    direction = jax.random.normal(jax.random.key(3), x.shape, x.dtype)

    @jax.jit
    def loss(t):
        return attacks.loss_per_point(f(x + t * direction), y, "ce")

    h = 1e-5
    expected = (loss(h) - loss(-h)) / (2 * h)
    np.testing.assert_allclose(
        jnp.sum(gradient * direction, axis=(1, 2, 3)), expected, rtol=1e-7, atol=1e-9
    )


@pytest.mark.usefixtures("x64")
def test_gradient_descent_follows_the_dynamics_of_the_kernel():
    r"""$f_k(x) = f_0(x) + \Theta(x, X) \Theta^{-1} (I - (I - \eta\Theta/n)^k) (Y - f_0(X))$."""
    model, x, new = ARCHITECTURES["relu"], images().astype(float), images(seed=4).astype(float)
    tangent = jax.tree.map(lambda a: a.astype(float), start(model, x))
    targets = jax.random.normal(jax.random.key(5), (5, 3), float).ravel()
    both = jnp.concatenate([x, new])
    kernel = np.asarray(tangent_kernel(model, tangent, both))
    inside, across = kernel[:15, :15], kernel[15:, :15]
    rate, steps = 5 / np.linalg.eigvalsh(inside)[-1], 30
    for centered in (True, False):
        model_lin = linear.linearize(model, tangent, centered=centered)

        @jax.jit
        def step(params, model_lin=model_lin):
            def loss(p):
                residual = model_lin.apply({"params": p}, x).ravel() - targets
                return jnp.sum(residual**2) / (2 * 5)

            return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

        variables = model_lin.init(jax.random.key(0), x)
        initial = np.asarray(model_lin.apply(variables, both)).ravel()
        params = variables["params"]
        for _ in range(steps):
            params = step(params)
        decay = np.linalg.matrix_power(np.eye(15) - rate * inside / 5, steps)
        learnt = np.linalg.solve(inside, (np.eye(15) - decay) @ (targets - initial[:15]))
        predicted = np.asarray(model_lin.apply({"params": params}, new)).ravel()
        np.testing.assert_allclose(predicted, initial[15:] + across @ learnt, rtol=1e-9, atol=1e-9)


def test_init_gives_a_copy_of_the_tangent_point_for_any_key():
    model, x = ARCHITECTURES["batch normalisation"], images()
    tangent = start(model, x)
    model_lin = linear.linearize(model, tangent, centered=True)
    first, second = (model_lin.init(jax.random.key(seed), x) for seed in (0, 1))
    for variables in (first, second):
        assert jax.tree.all(jax.tree.map(jnp.array_equal, variables["params"], tangent["params"]))
    jax.tree.map(lambda a: a.delete(), first)  # as a training does that overwrites its arguments
    jax.tree.map(lambda a: a.delete(), tangent)
    assert jnp.isfinite(model_lin.apply(second, x)).all()


def test_only_the_parameters_are_variables():
    model, x = ARCHITECTURES["batch normalisation"], images()
    tangent = start(model, x)
    model_lin = linear.linearize(model, tangent, centered=False)
    other = tangent | {"batch_stats": jax.tree.map(lambda s: s + 9, tangent["batch_stats"])}
    there = moved(tangent)
    assert not np.allclose(model.apply(tangent, x), model.apply(other, x))
    np.testing.assert_array_equal(
        model_lin.apply(other | there, x), model_lin.apply(tangent | there, x)
    )
    assert model_lin.apply_train is None
    assert model_lin.stack is None


def traced_model():
    """A model, and the list of what it was traced for."""
    traces = []
    module = Affine()

    def apply(variables, x):
        traces.append(x.shape)
        return module.apply(variables, x) ** 2

    return models.Model(module.init, apply), traces


def test_another_tangent_point_or_other_variables_do_not_compile_again():
    model, traces = traced_model()
    x, y = images(), jnp.arange(5) % 2
    attack = partial(attacks.pgd, epsilon=0.1, steps=3, step_size=0.05)
    results, counts = [], []
    for seed in range(3):
        tangent = start(model, x, seed)
        model_lin = linear.linearize(model, tangent, centered=True)
        for size in (0.1, 0.2):
            f = linear.bind(model_lin.apply, moved(tangent, size))
            results.append(attack(f, x, y, jax.random.key(0)))
            counts.append(len(traces))
    assert len(set(counts)) == 1
    assert counts[0] > 0
    assert len({np.asarray(z).tobytes() for z in results}) > 1


def test_bind_joins_arguments_in_their_order():
    inner = Partial(lambda *a, **k: (a, k), 1, flag=True)
    assert linear.bind(inner, 2)(3) == ((1, 2, 3), {"flag": True})
    assert jax.tree.leaves(linear.bind(inner, 2)) == [1, 2, True]
    assert linear.bind(divmod, 7)(2) == (3, 1)


def test_a_linearised_model_can_be_linearised_again():
    model, x = ARCHITECTURES["relu"], images()
    tangent = start(model, x)
    once = linear.linearize(model, tangent, centered=False)
    twice = linear.linearize(once, moved(tangent), centered=False)
    there = moved(tangent, seed=6)
    np.testing.assert_allclose(once.apply(there, x), twice.apply(there, x), rtol=1e-4, atol=1e-5)


def test_any_mappings_hold_the_variables():
    model, x = ARCHITECTURES["batch normalisation"], images()
    tangent = start(model, x)
    expected = linear.linearize(model, tangent, centered=False).apply(moved(tangent), x)

    def wrapped(wrap):
        def outside_in(tree):
            return (
                wrap({k: outside_in(v) for k, v in tree.items()})
                if isinstance(tree, dict)
                else tree
            )

        return outside_in

    kinds = [wrapped(kind) for kind in (dict, OrderedDict, MappingProxyType, flax.core.freeze)]
    for one, other in product(kinds, kinds):
        model_lin = linear.linearize(model, one(tangent), centered=False)
        np.testing.assert_array_equal(model_lin.apply(other(moved(tangent)), x), expected)
        gradient = jax.grad(lambda v, f=model_lin: f.apply(v, x).sum())(dict(moved(tangent)))
        assert jax.tree.all(jax.tree.map(lambda g: jnp.isfinite(g).all(), gradient))


@pytest.mark.usefixtures("x64")
def test_wider_variables_than_the_tangent_point():
    model, x = ARCHITECTURES["relu"], images()
    tangent = jax.tree.map(lambda a: a.astype(np.float32), start(model, x))
    wide = jax.tree.map(lambda a: a.astype(float), moved(tangent))
    model_lin = linear.linearize(model, tangent, centered=False)
    np.testing.assert_allclose(model_lin.apply(wide, x), model_lin.apply(moved(tangent), x))


@pytest.mark.usefixtures("x64")
def test_complex_parameters_move_in_both_of_their_parts():
    class Modulus(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.param("w", nn.initializers.normal(1.0, complex), (16, 2))
            return jnp.abs(x.reshape(len(x), -1) @ w) ** 2

    model, x = models.from_flax(Modulus()), images().astype(float)
    tangent = start(model, x)
    w, step = tangent["params"]["w"], 0.3 * jnp.exp(1j * jnp.arange(32.0)).reshape(16, 2)
    model_lin = linear.linearize(model, tangent, centered=True)
    flat = x.reshape(5, -1)
    np.testing.assert_allclose(
        model_lin.apply({"params": {"w": w + step}}, x),
        2 * jnp.real(jnp.conj(flat @ w) * (flat @ step)),
        rtol=1e-10,
    )


def test_bad_variables_are_named():
    model, x = ARCHITECTURES["relu"], images()
    tangent = start(model, x)
    with pytest.raises(ValueError, match=r"^variables: has collections \['weights'\]; the coll"):
        linear.linearize(model, {"weights": tangent["params"]}, centered=True)
    with pytest.raises(TypeError, match=r"^variables: params\['a'\] has dtype int32; param"):
        linear.linearize(model, {"params": {"a": np.ones(2, np.int32)}}, centered=True)
    model_lin = linear.linearize(model, tangent, centered=True)
    larger = start(model, images(side=5))
    where = r"params\['readout'\]\['Dense_0'\]\['kernel'\]"
    less = {"params": {k: v for k, v in tangent["params"].items() if k != "readout"}}
    more = {"params": tangent["params"] | {"more": jnp.ones(2)}}
    for bad, match in (
        (larger, rf"{where} has shape \(100, 3\); at the tangent point it has \(64, 3\)"),
        (less, r"params\['readout'\]\['Dense_0'\]\['bias'\] has shape None; at the"),
        (more, r"params\['more'\] has shape \(2,\); at the tangent point it has None"),
        ({"weights": tangent["params"]}, r"has collections \['weights'\]"),
    ):
        with pytest.raises(ValueError, match=f"^variables: {match}") as refused:
            model_lin.apply(bad, x)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("centered", [True, False])
def test_a_model_without_logits_is_refused(centered):
    model = models.Model(print, lambda variables, x: (x * variables["params"]["a"], x))
    model_lin = linear.linearize(model, {"params": {"a": jnp.ones(())}}, centered=centered)
    with pytest.raises(TypeError, match=r"^logits: the classifier returns a tuple; it is one"):
        model_lin.apply({"params": {"a": jnp.ones(())}}, images())


def test_its_name_says_what_was_linearised():
    model, x = models.get("cnn", n_classes=3, width=4, depth=1), images()
    model_lin = linear.linearize(model, start(model, x), centered=True)
    assert repr(model_lin) == "linearize(cnn(n_classes=3, width=4, depth=1), centered=True)"


@pytest.mark.parametrize("centered", [True, False])
def test_another_network_is_expanded_around_the_same_point(centered):
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    network, smooth = (models.get("cnn_mnist", n_classes=3, **o) for o in ({}, {"softplus": 5.0}))
    tangent, variables = (network.init(jax.random.key(seed), x) for seed in (1, 2))
    logits_fn, expected = (
        linear.bind(linear.linearize(model, tangent, centered=centered).apply, variables)
        for model in (network, smooth)
    )
    found = linear.with_network(logits_fn, smooth)
    np.testing.assert_allclose(found(x), expected(x), rtol=1e-6)
    assert not np.allclose(found(x), logits_fn(x), rtol=1e-3)


def test_another_network_takes_the_parameters():
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    network, smooth = (models.get("cnn_mnist", n_classes=3, **o) for o in ({}, {"softplus": 5.0}))
    variables = network.init(jax.random.key(1), x)
    found = linear.with_network(linear.bind(network.apply, variables), smooth)
    np.testing.assert_allclose(found(x), smooth.apply(variables, x), rtol=1e-6)
