"""What users write: accepted where it has one meaning, else refused in one line."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from classifiers import images, labels, linear, smooth, weights
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial

from ntklib import attacks

X, Y, KEY, F = images(3), labels(3, 2), jax.random.key(0), Partial(linear, weights(2))
CALLS = {
    "fgsm": lambda f=F, x=X, y=Y, **options: attacks.fgsm(
        f, x, y, **{"epsilon": 0.1} | options
    ),
    "noisy_fgsm": lambda f=F, x=X, y=Y, **options: attacks.noisy_fgsm(
        f, x, y, KEY, **{"epsilon": 0.1} | options
    ),
    "pgd": lambda f=F, x=X, y=Y, **options: attacks.pgd(
        f, x, y, KEY, **{"epsilon": 0.1, "steps": 2} | options
    ),
    "apgd": lambda f=F, x=X, y=Y, **options: attacks.apgd(
        f, x, y, KEY, **{"epsilon": 0.1, "steps": 2} | options
    ),
    "square": lambda f=F, x=X, y=Y, **options: attacks.square(
        f, x, y, KEY, **{"epsilon": 0.1, "queries": 3} | options
    ),
    "random_sign": lambda f=F, x=X, y=Y, **options: attacks.random_sign(
        f, x, y, KEY, **{"epsilon": 0.1} | options
    ),
    "soundness": lambda f=F, x=X, y=Y, **options: attacks.soundness(
        f, x, y, KEY, **{"epsilon": 0.1, "steps": 2, "queries": 3} | options
    ),
    "robust_accuracy": lambda f=F, x=X, y=Y, **options: attacks.robust_accuracy(
        f, x, y, KEY, **{"attack": lambda f, x, y, key: x, "batch_size": 2} | options
    ),
    "withstand": lambda f=F, x=X, y=Y, **options: attacks.withstand(
        f, x, y, KEY,
        **{"attack": lambda f, x, y, key: x, "batch_size": 2, "among": np.ones(3, bool)} | options,
    ),
    "input_gradient": lambda f=F, x=X, y=Y: attacks.input_gradient(f, x, y),
    "zero_gradient": lambda f=F, x=X, y=Y: attacks.zero_gradient(f, x, y),
}  # fmt: skip
BOUNDED = ("fgsm", "noisy_fgsm", "pgd", "apgd", "square", "random_sign", "soundness")


@pytest.fixture
def untyped():
    """Without the types that the tests check at run time, as users have it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


REFUSED = [
    # the radius and the box
    *((name, {"epsilon": epsilon}, "epsilon") for name in BOUNDED for epsilon in (-0.1, np.nan)),
    *((name, {"epsilon": np.full(3, 0.1)}, "epsilon") for name in BOUNDED),
    ("pgd", {"epsilon": np.inf}, "epsilon"),
    ("pgd", {"epsilon": jnp.full((3, 1, 1, 1), 0.1)}, "epsilon"),
    ("fgsm", {"epsilon": "8/255"}, "epsilon"),
    ("fgsm", {"epsilon": None}, "epsilon"),
    ("fgsm", {"epsilon": True}, "epsilon"),
    ("noisy_fgsm", {"noise": -1.0}, "noise"),
    *(
        (name, {"clip": clip}, "clip")
        for name in BOUNDED
        for clip in ((1.0, 0.0), (0.0, 0.0), (0.0, 1.0, 2.0), [0.0], 1.0, "01", {0.0: 1.0})
    ),
    ("pgd", {"clip": (0.0, np.nan)}, "clip"),
    ("pgd", {"clip": np.zeros((3, 2))}, "clip"),
    ("pgd", {"clip": [np.zeros(3), np.ones(3)]}, "clip"),
    # other settings
    *(
        (name, {setting: value}, setting)
        for name, setting in (("pgd", "steps"), ("pgd", "restarts"), ("apgd", "steps"),
                              ("apgd", "restarts"), ("square", "queries"),
                              ("soundness", "steps"), ("robust_accuracy", "batch_size"),
                              ("withstand", "batch_size"))
        for value in (0, 2.5, -1, np.nan, "2", None, np.array([1, 2]))
    ),
    *(("pgd", {"step_size": size}, "step_size") for size in (-1.0, np.inf, np.nan, [0.1], X)),
    ("pgd", {"restarts": 2, "random_start": False}, "restarts"),
    ("pgd", {"norm": "l1"}, "norm"),
    ("pgd", {"norm": 2}, "norm"),
    ("soundness", {"norm": "l1"}, "norm"),
    ("pgd", {"loss": "hinge"}, "loss"),
    ("apgd", {"loss": "hinge"}, "loss"),
    ("apgd", {"norm": "l1"}, "norm"),
    ("soundness", {"queries": -1}, "queries"),
    ("withstand", {"among": [0, 1, 2]}, "among"),
    ("withstand", {"among": np.ones(2, bool)}, "among"),
    ("withstand", {"among": np.ones((3, 1), bool)}, "among"),
    # inputs
    *(
        (name, {"x": x}, "x")
        for name in CALLS
        for x in (X[:0], X.at[0].set(jnp.nan), X[:, 0, 0, 0], (255 * X).astype(jnp.uint8),
                  np.asarray(X) * np.inf)
    ),
    *((name, {"x": X + 1}, "x") for name in BOUNDED),
    *((name, {"x": X.astype(jnp.bfloat16)}, "x") for name in BOUNDED),
    # labels, and what the classifier returns
    *(
        (name, {"y": y}, "y")
        for name in CALLS
        if name != "random_sign"
        for y in (Y[:2], Y[:, None], jax.nn.one_hot(Y, 2), Y + 2, Y - 2, Y.astype(float), Y > 0,
                  [0.0, 1.0, 1.0], [[0], [1], [1]])
    ),
    *(
        (name, {"f": f}, "logits")
        for name in CALLS
        if name != "random_sign"
        for f in (
            lambda x: (F(x), x), lambda x: {"logits": F(x)}, lambda x: [F(x)], lambda x: None,
            lambda x: F(x)[0], lambda x: F(x)[:, 0], lambda x: F(x)[:1], lambda x: F(x)[:, :0],
            lambda x: F(x)[:, :, None], lambda x: F(x).sum(),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "argument"), REFUSED)
@pytest.mark.usefixtures("untyped")
def test_a_mistake_is_refused_in_one_line_that_names_it(name, options, argument):
    with pytest.raises((ValueError, TypeError), match=rf"^{argument}: ") as caught:
        CALLS[name](**options)
    assert "\n" not in str(caught.value)


@given(
    st.sampled_from(sorted(set(CALLS) - {"square"})),
    st.sampled_from([np.asarray, jnp.asarray, lambda x: np.asarray(x, np.float64), "list"]),
    st.sampled_from([np.asarray, jnp.asarray, np.uint8, np.int64, "list"]),
    st.sampled_from([(16,), (4, 4), (4, 4, 1)]),
)
def test_inputs_and_labels_may_be_lists_and_arrays_of_any_kind(name, of_x, of_y, shape):
    plain = np.asarray(X, np.float32).reshape(3, *shape)
    x = plain.tolist() if of_x == "list" else of_x(plain)
    y = np.asarray(Y).tolist() if of_y == "list" else of_y(np.asarray(Y))
    found, expected = CALLS[name](x=x, y=y), CALLS[name](x=jnp.asarray(plain), y=Y)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), data(found), data(expected)
    )


def data(found):
    """The numbers in what is returned."""
    if isinstance(found, attacks.Finding):
        return found.value
    if isinstance(found, attacks.Outcomes):
        return found.clean, found.robust
    return [data(each) for each in found] if isinstance(found, list) else found


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ({"epsilon": 1}, {"epsilon": 1.0}),
        ({"epsilon": np.float32(0.25)}, {"epsilon": 0.25}),
        ({"epsilon": np.array(0.25)}, {"epsilon": 0.25}),
        ({"epsilon": jnp.array([0.25])}, {"epsilon": 0.25}),
        ({"clip": [0, 1]}, {"clip": (0.0, 1.0)}),
        ({"clip": np.array([-1.0, 2.0])}, {"clip": (-1.0, 2.0)}),
        ({"clip": jnp.array([-1, 2])}, {"clip": (-1.0, 2.0)}),
        ({"clip": (np.float64(0), jnp.array(1.0))}, {"clip": (0.0, 1.0)}),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_settings_may_be_numbers_and_pairs_of_any_kind(name, odd, plain):
    found, expected = data(CALLS[name](**odd)), data(CALLS[name](**plain))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "odd", "plain"),
    [
        ("pgd", {"steps": 10.0}, {"steps": 10}),
        ("pgd", {"steps": np.int64(3), "restarts": 2.0}, {"steps": 3, "restarts": 2}),
        (
            "pgd",
            {"steps": jnp.array(3), "step_size": jnp.array([1])},
            {"steps": 3, "step_size": 1.0},
        ),
        ("square", {"queries": 10.0}, {"queries": 10}),
        ("soundness", {"steps": 3.0, "queries": 0.0}, {"steps": 3, "queries": 0}),
        ("robust_accuracy", {"batch_size": 2.0}, {"batch_size": 2}),
        ("withstand", {"among": [True, False, True]}, {"among": np.array([True, False, True])}),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_whole_numbers_may_be_of_any_kind(name, odd, plain):
    found, expected = data(CALLS[name](**odd)), data(CALLS[name](**plain))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_classifiers_may_be_networks_with_their_parameters_inside():
    class Net(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(16, 2, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.dense(x.reshape(len(x), -1))

    dense, flat = nn.Dense(2), X.reshape(3, 16)
    variables = dense.init(KEY, flat)
    kernel = Net()
    for f, x, plain in (
        (dense.bind(variables), flat, lambda x: dense.apply(variables, x)),
        (kernel, X, lambda x: x.reshape(3, 16) @ kernel.dense.kernel[...] + kernel.dense.bias[...]),
    ):
        found = attacks.pgd(f, x, Y, KEY, epsilon=0.1, steps=3)
        expected = attacks.pgd(plain, x, Y, KEY, epsilon=0.1, steps=3)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_arrays_that_a_compiled_function_closes_over_are_inputs_as_well():
    f = Partial(smooth, weights(3))
    for x, y in ((X, Y), (np.asarray(X), np.asarray(Y))):
        found = jax.jit(lambda x=x, y=y: attacks.pgd(f, x, y, KEY, epsilon=0.1, steps=2))()
        np.testing.assert_allclose(
            found, attacks.pgd(f, X, Y, KEY, epsilon=0.1, steps=2), atol=1e-6
        )


def test_labels_of_the_losses_must_fit():
    logits = F(X)
    for function in (attacks.correct, lambda f, y: attacks.loss_per_point(f, y, "ce")):
        for y in (Y + 1, Y[:, None], Y[:2], [0.0, 1.0, 1.0]):
            with pytest.raises((ValueError, TypeError)):
                function(logits, y)
        np.testing.assert_array_equal(function(logits, Y), function(logits, Y.tolist()))
