import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from ntklib import attacks

SHAPE = (4, 4, 1)


def images(n, seed=0):
    return jax.random.uniform(jax.random.key(seed), (n, *SHAPE))


def labels(n, k, seed=1):
    return jax.random.randint(jax.random.key(seed), (n,), 0, k)


def linear(k, seed=2, scale=1.0):
    w = scale * jax.random.normal(jax.random.key(seed), (16, k))
    return lambda x: x.reshape(len(x), -1) @ w, w


def smooth(k):
    f, _ = linear(k)
    return lambda x: jnp.tanh(f(x)) + 0.3 * f(x) ** 2


def test_losses_equal_their_closed_forms():
    f = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
    y = jnp.array([0, 2])
    softmax = scipy.special.log_softmax(f, axis=1)
    losses = {
        name: attacks.loss_per_point(jnp.asarray(f), y, name) for name in ("ce", "mse", "margin")
    }
    np.testing.assert_allclose(losses["ce"], -softmax[[0, 1], [0, 2]], rtol=1e-6)
    np.testing.assert_allclose(losses["mse"], [0.5 * (1 + 1 + 0.25), 0.5 * (0 + 9 + 0)], rtol=1e-6)
    np.testing.assert_allclose(losses["margin"], [0.5 - 2.0, 3.0 - 1.0], rtol=1e-6)


@given(st.floats(-20, 20, allow_subnormal=False), st.integers(0, 1))
def test_one_column_is_the_same_as_two_columns_with_its_difference(f, y):
    one, two = jnp.array([[f]]), jnp.array([[0.0, f]])
    for loss in ("ce", "margin"):
        a, b = (attacks.loss_per_point(g, jnp.array([y]), loss) for g in (one, two))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_logit_of_zero_is_not_correct():
    assert attacks.correct(jnp.zeros((2, 1)), jnp.array([0, 1])).tolist() == [False, False]
    assert attacks.correct(jnp.array([[-1.0], [1.0]]), jnp.array([0, 1])).tolist() == [True, True]


@pytest.mark.parametrize("loss", ["ce", "mse", "margin"])
@pytest.mark.parametrize("k", [1, 3])
def test_input_gradients_equal_finite_differences(k, loss):
    with jax.enable_x64(True):
        f, x, y = smooth(k), images(5).astype(jnp.float64), labels(5, max(k, 2))
        gradient = attacks.input_gradient(f, x, y, loss)
        direction = jax.random.normal(jax.random.key(5), x.shape, jnp.float64)
        h = 1e-6
        up, down = (attacks.loss_per_point(f(x + s * h * direction), y, loss) for s in (1, -1))
        along = jnp.sum(gradient * direction, axis=(1, 2, 3))
        np.testing.assert_allclose(along, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


@settings(max_examples=30)
@given(
    st.integers(0, 1000),
    st.floats(0, 0.5, width=32, allow_subnormal=False),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from(["ce", "mse", "margin"]),
)
def test_an_attack_stays_in_the_ball_and_the_box_exactly(seed, epsilon, steps, start, loss):
    x, y, f = images(6, seed), labels(6, 3, seed), smooth(3)
    z = attacks.pgd(
        f, x, y, jax.random.key(seed), epsilon=epsilon, steps=steps,
        step_size=epsilon, random_start=start, loss=loss,
    )  # fmt: skip
    noise = attacks.random_sign(x, jax.random.key(seed), epsilon=epsilon)
    for adversarial in (z, noise):
        moved = np.abs(np.asarray(adversarial, np.float32) - np.asarray(x, np.float32))
        assert moved.max() <= np.float32(epsilon)
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1


def test_an_l2_attack_stays_in_the_ball_and_the_box():
    x, y, f = images(20), labels(20, 3), smooth(3)
    for start in (True, False):
        z = attacks.pgd(
            f, x, y, jax.random.key(0), epsilon=0.3, steps=5, step_size=0.2, norm="l2",
            random_start=start,
        )  # fmt: skip
        lengths = np.linalg.norm(np.asarray(z - x, np.float64).reshape(20, -1), axis=1)
        assert lengths.max() <= 0.3 * (1 + 1e-6)
        assert lengths.max() > 0.29
        assert 0 <= z.min() <= z.max() <= 1


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("steps", [1, 10])
def test_the_adversary_of_a_linear_model_is_exact(norm, dual, steps):
    f, w = linear(1)
    x, y = 0.5 + 0.01 * images(8), labels(8, 2)  # far from the box
    z = attacks.pgd(
        f, x, y, jax.random.key(0), epsilon=0.1, steps=steps, step_size=0.1, norm=norm,
        random_start=False, loss="margin",
    )  # fmt: skip
    lost = (attacks._signs(y) * (f(x) - f(z)))[:, 0]
    np.testing.assert_allclose(lost, 0.1 * np.linalg.norm(w, ord=dual), rtol=1e-4)


def test_fgsm_is_one_step_of_pgd_and_the_formula():
    f, x, y = smooth(3), images(8), labels(8, 3)
    z = attacks.fgsm(f, x, y, epsilon=0.2)
    gradient = jax.grad(lambda x: attacks.loss_per_point(f(x), y, "ce").sum())(x)
    np.testing.assert_allclose(z, jnp.clip(x + 0.2 * jnp.sign(gradient), 0, 1), atol=1e-6)


def test_more_steps_find_no_smaller_loss():
    f, x, y, key = smooth(3), images(64), labels(64, 3), jax.random.key(0)
    found = [
        attacks.loss_per_point(
            f(attacks.pgd(f, x, y, key, epsilon=0.2, steps=s, step_size=0.5 / s)), y, "ce"
        ).mean()
        for s in (1, 5, 40)
    ]
    assert found[0] < found[1] < found[2] * 1.01


def test_random_signs_move_each_pixel_by_epsilon():
    x = 0.5 + 0.1 * images(50)
    z = attacks.random_sign(x, jax.random.key(0), epsilon=0.1)
    np.testing.assert_allclose(jnp.abs(z - x), 0.1, rtol=1e-5)
    assert abs(float(jnp.mean(jnp.sign(z - x)))) < 0.1


def test_an_attack_on_new_parameters_does_not_compile_again():
    x, y = images(4), labels(4, 2)
    compiled = []

    def apply(w, x):
        compiled.append(1)
        return x.reshape(len(x), -1) @ w

    for seed in range(3):
        w = jax.random.normal(jax.random.key(seed), (16, 2))
        attacks.fgsm(Partial(apply, w), x, y, epsilon=0.1)
        if seed == 0:
            first = len(compiled)
    assert len(compiled) == first


def findings(f, y, transferred=None):
    x = images(len(y))
    found = attacks.soundness(f, x, y, jax.random.key(0), epsilon=0.1, transferred=transferred)
    return {finding.name: finding for finding in found}


def test_a_plain_model_is_found_sound():
    f, _ = linear(2)
    y = jnp.argmax(f(images(100)), axis=1)
    assert all(finding.ok for finding in findings(f, y).values())


def test_saturated_and_quantised_models_are_found_out():
    f, _ = linear(1)
    y = (f(images(100))[:, 0] > 0).astype(jnp.int32)
    x = images(100)
    stronger = attacks.fgsm(f, x, y, epsilon=0.1, loss="margin")
    masked = {
        "saturated": lambda x: jnp.clip(1e4 * f(x), -100.0, 100.0),
        "quantised": lambda x: jnp.round(4 * f(x)) + 1e-3,
    }
    for model in masked.values():
        found = findings(model, y, {"its linear core": stronger})
        for name in ("zero_gradient", "transfer_its linear core", "unbounded"):
            assert not found[name].ok
            assert found[name].value > found[name].limit


def test_a_model_that_needs_restarts_is_found_out():
    f, _ = linear(1)

    def rugged(x):  # a wave on each pixel gives every start another hill to end on
        return f(x - 0.5) + 0.1 * jnp.cos(150.0 * x).sum(axis=(1, 2))

    y = (rugged(images(200))[:, 0] > 0).astype(jnp.int32)
    assert not findings(rugged, y)["random_start"].ok


x, y, key = images(3), labels(3, 2), jax.random.key(0)
f, _ = linear(2)
good = {"epsilon": 0.1, "steps": 2, "step_size": 0.1}


@pytest.mark.parametrize(
    ("positional", "options", "names"),
    [
        ((f, x, y, key), {"epsilon": -0.1}, "epsilon"),
        ((f, x, y, key), {"epsilon": float("nan")}, "epsilon"),
        ((f, x, y, key), {"steps": 0}, "steps"),
        ((f, x, y, key), {"step_size": -1.0}, "step_size"),
        ((f, x + 1, y, key), {}, "x"),
        ((f, x.at[0].set(jnp.nan), y, key), {}, "x"),
        ((f, x, y, key), {"clip": (1.0, 0.0)}, "clip"),
    ],
)
def test_bad_input_is_refused_with_one_line(positional, options, names):
    with pytest.raises(ValueError, match=rf"^{names}: ") as caught:
        attacks.pgd(*positional, **good | options)
    assert "\n" not in str(caught.value)
