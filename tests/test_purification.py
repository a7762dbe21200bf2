from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from ntklib import data, models, purification, training

MODEL = models.get("conv4", n_classes=10, width=0.125)
LAYERS = ["Conv_0", "Conv_1", "Conv_2", "Conv_3", "Dense_0"]


@pytest.fixture(scope="module")
def split():
    return data.load("digits", n_train=60, n_test=20).train


@pytest.fixture(scope="module")
def start(split):
    return jax.jit(MODEL.init)(jax.random.key(1), split.x[:1])


def moved(variables, size=0.1, seed=2):
    flat, unravel = ravel_pytree(variables["params"])
    step = size * jax.random.normal(jax.random.key(seed), flat.shape)
    return {"params": unravel(flat + step)}


def of_filters(change, variables):
    """The network with each weight matrix changed, seen as (fan-in, filters)."""
    params = {
        layer: p
        | {
            "kernel": change(p["kernel"].reshape(-1, p["kernel"].shape[-1])).reshape(
                p["kernel"].shape
            )
        }
        for layer, p in variables["params"].items()
    }
    return {"params": params}


def assert_same(a, b, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), a, b)


# --- weight matrices ---


def test_a_filter_is_what_one_neuron_sees(start):
    found = purification.matrices(start)
    assert list(found) == LAYERS
    assert [m.shape for m in found.values()] == [(9, 4), (36, 8), (72, 8), (72, 16), (16, 10)]
    kernel = np.asarray(start["params"]["Conv_1"]["kernel"])
    np.testing.assert_array_equal(found["Conv_1"][:, 3], kernel[..., 3].ravel())
    nested = models.get("mlp", n_classes=2, width=3).init(jax.random.key(0), jnp.ones((1, 4)))
    assert list(purification.matrices(nested)) == [
        "hidden_0/Dense_0",
        "hidden_1/Dense_0",
        "readout/Dense_0",
    ]


# --- angles ---


def test_a_multiple_of_a_filter_is_at_cosine_one_and_has_moved_by_its_factor(start):
    scaled = of_filters(lambda m: -2.5 * m, start)
    for found in purification.cosines(start, scaled).values():
        np.testing.assert_allclose(found, 1, rtol=1e-6)
    for found in purification.movement(start, scaled).values():
        np.testing.assert_allclose(found, 3.5, rtol=1e-6)


@pytest.mark.parametrize("degrees", [0, 30, 60, 90])
def test_filters_that_are_turned_by_an_angle_have_its_cosine(degrees, start):
    def turned(matrix):
        other = np.random.default_rng(0).normal(size=matrix.shape)
        other -= matrix * (other * matrix).sum(0) / (matrix**2).sum(0)
        other *= np.linalg.norm(matrix, axis=0) / np.linalg.norm(other, axis=0)
        return np.cos(np.radians(degrees)) * matrix + np.sin(np.radians(degrees)) * other

    end = of_filters(turned, start)
    chord = 2 * np.sin(np.radians(degrees / 2))
    for found in purification.cosines(start, end).values():
        np.testing.assert_allclose(found, np.cos(np.radians(degrees)), atol=1e-6)
    for found in purification.movement(start, end).values():
        np.testing.assert_allclose(found, chord, atol=1e-6)


def test_random_filters_of_large_fan_in_are_nearly_orthogonal():
    init = models.get("mlp", n_classes=2, width=500, depth=1).init
    one, other = (init(jax.random.key(i), jnp.ones((1, 2000))) for i in (0, 1))
    found = purification.cosines(one, other)["hidden_0/Dense_0"]
    assert found.mean() == pytest.approx(np.sqrt(2 / (np.pi * 2000)), rel=0.1)


# --- changes cut down to a rank ---


def test_the_change_is_cut_down_to_the_nearest_of_a_rank(start):
    end = moved(start)
    before, after = purification.matrices(start), purification.matrices(end)
    for rank in (0, 1, 3):
        cut = purification.truncate(start, end, rank)
        assert_same(cut["params"]["Conv_1"]["bias"], end["params"]["Conv_1"]["bias"])
        for layer, matrix in purification.matrices(cut).items():
            values = np.linalg.svd(after[layer] - before[layer], compute_uv=False)
            change = np.linalg.svd(matrix - before[layer], compute_uv=False)
            np.testing.assert_allclose(change[:rank], values[:rank], rtol=1e-4)
            np.testing.assert_allclose(change[rank:], 0, atol=1e-5)
            rest = np.linalg.norm(matrix - after[layer])
            assert rest == pytest.approx(np.linalg.norm(values[rank:]), rel=1e-4, abs=1e-5)
    assert_same(purification.truncate(start, end, 99), end, atol=1e-6)


# --- updates of low rank ---


def test_training_starts_at_the_network_and_leaves_it_by_a_matrix_of_the_rank(split, start):
    model = purification.low_rank(MODEL, start, 3)
    update = model.init(jax.random.key(5), split.x[:1])
    logits = MODEL.apply(start, split.x)
    np.testing.assert_array_equal(model.apply(update, split.x), logits)
    assert_same(purification.add(start, update), start, rtol=0)
    for left in update["params"]["left"].values():
        np.testing.assert_allclose(left.T @ left, np.eye(3), atol=1e-5)
    update["params"]["left"]["Conv_2"] = update["params"]["left"]["Conv_2"].at[:, 1:].set(0)
    recipe = training.Recipe(epochs=3, optimizer=training.SGD(0.5), batch_size=20, loss="ce")
    last = training.fit(model, update, split, jax.random.key(0), recipe=recipe).variables
    assert np.abs(model.apply(last, split.x) - logits).max() > 1e-3
    network = purification.add(start, last)
    np.testing.assert_allclose(
        model.apply(last, split.x), MODEL.apply(network, split.x), rtol=1e-5, atol=1e-6
    )
    before = purification.matrices(start)
    for layer, matrix in purification.matrices(network).items():
        values = np.linalg.svd(matrix - before[layer], compute_uv=False)
        rank = 1 if layer == "Conv_2" else 3
        assert (values[rank:] < 1e-4 * values[0]).all()
        assert values[rank - 1] > 1e-3 * values[0]
        assert_same(network["params"][layer]["bias"], start["params"][layer]["bias"], rtol=0)


def test_the_gradient_is_that_of_the_weight_matrix(split, start):
    """Where V = 0 the gradient in V is that in W, G, seen by U, and that in U is zero."""
    model, layer = purification.low_rank(MODEL, start, 2), "Conv_1"

    def loss(apply, variables):
        return jnp.mean(jnp.square(apply(variables, split.x)))

    update = model.init(jax.random.key(5), split.x[:1])
    of_network = jax.jit(jax.grad(lambda v: loss(MODEL.apply, v)))(start)
    matrix = of_network["params"][layer]["kernel"].reshape(-1, 8)
    found = jax.jit(jax.grad(lambda v: loss(model.apply, v)))(update)["params"]
    left = update["params"]["left"][layer]
    np.testing.assert_allclose(found["right"][layer], left.T @ matrix, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found["left"][layer], 0)


@pytest.mark.parametrize("rank", [1, 4])
def test_any_change_of_a_rank_is_within_reach(rank, start):
    """Factors of the singular value decomposition give it back."""
    goal = purification.truncate(start, moved(start), rank)
    before, left, right = purification.matrices(start), {}, {}
    for layer, matrix in purification.matrices(goal).items():
        u, s, v = np.linalg.svd(matrix - before[layer], full_matrices=False)
        left[layer], right[layer] = jnp.float32(u[:, :rank] * s[:rank]), jnp.float32(v[:rank])
    found = purification.add(start, {"params": {"left": left, "right": right}})
    for layer, matrix in purification.matrices(found).items():
        np.testing.assert_allclose(matrix, purification.matrices(goal)[layer], atol=1e-6)


# --- some of the layers ---


def test_only_some_layers_are_trained(split, start):
    model = purification.only(MODEL, start, "Dense_0")
    np.testing.assert_array_equal(
        model.apply(model.init(jax.random.key(0), split.x), split.x), MODEL.apply(start, split.x)
    )
    last = training.fit(
        model, model.init(jax.random.key(0), split.x), split, jax.random.key(0),
        epochs=2, optimizer=training.SGD(0.1), batch_size=20,
    ).variables  # fmt: skip
    assert list(last["params"]) == ["Dense_0"]
    network = {"params": start["params"] | last["params"]}
    assert (
        np.abs(last["params"]["Dense_0"]["kernel"] - start["params"]["Dense_0"]["kernel"]).max()
        > 0.01
    )
    np.testing.assert_allclose(
        model.apply(last, split.x), MODEL.apply(network, split.x), rtol=1e-5, atol=1e-6
    )


# --- malformed input ---

OTHER = models.get("conv4", n_classes=10, width=0.25)
FAULTS = {
    "second: has the layers": lambda v: purification.cosines(
        v, jax.jit(OTHER.init)(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    ),
    "Conv_0: filter 2 is zero": lambda v: purification.movement(
        of_filters(lambda m: m.at[:, 2].set(0), v), v
    ),
    "rank: -1 is out of range": lambda v: purification.truncate(v, v, -1),
    "rank: 0 is out of range": lambda v: purification.low_rank(MODEL, v, 0),
    "layers: 'Conv_9' is unknown": lambda v: purification.only(MODEL, v, "Conv_9"),
    "variables: has none": lambda v: purification.matrices(3),
}


@pytest.mark.parametrize("line", FAULTS)
def test_what_is_malformed_is_refused_in_one_line(line, start):
    with pytest.raises(ValueError, match=f"^{line}") as caught:
        FAULTS[line](start)
    assert "\n" not in str(caught.value)
