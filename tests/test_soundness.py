import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import digits, images, labels, linear, smooth, trained, weights
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial

from ntklib import attacks

EPSILON = 0.1


def findings(f, x, y, **options):
    found = attacks.soundness(f, x, y, jax.random.key(0), epsilon=EPSILON, **options)
    assert len({finding.name for finding in found}) == len(found)
    for finding in found:
        assert np.isfinite(finding.value)
    return {finding.name: finding for finding in found}


def plain():
    f = Partial(linear, weights(2))
    return f, images(100), jnp.argmax(f(images(100)), axis=1)


def net(wrap=lambda f: f):
    """A trained net, or what a function makes of it, and test images."""
    return wrap(trained()), digits().test.x, digits().test.y


NAMES = {
    "zero_gradient", "more_steps", "random_start", "unbounded", "probabilities", "stochastic",
    "square", "budget",
}  # fmt: skip


@pytest.mark.parametrize(("model", "loss"), [(plain, "margin"), (net, "ce")])
def test_a_sound_model_is_found_sound(model, loss):
    f, x, y = model()
    transferred = {"noise": attacks.random_sign(f, x, y, jax.random.key(1), epsilon=EPSILON)}
    found = findings(f, x, y, loss=loss, transferred=transferred)
    assert set(found) == NAMES | {"transfer_noise"}
    assert [finding for finding in found.values() if not finding.ok] == []


@pytest.mark.parametrize(
    ("shape", "options", "missing"),
    [
        ((16,), {}, {"square"}),
        ((16,), {"clip": None}, {"square", "unbounded"}),
        ((4, 4, 1), {"clip": None}, {"unbounded"}),
        ((4, 4, 1), {"norm": "l2"}, {"square"}),
        ((2, 2, 4, 1), {"norm": "l2", "clip": None}, {"square", "unbounded"}),
    ],
)
def test_other_inputs_and_balls_have_the_checks_that_there_are_for_them(shape, options, missing):
    f, x, y = plain()
    x = x.reshape(-1, *shape)
    found = findings(f, x, y, **options)
    assert set(found) == NAMES - missing
    assert [finding for finding in found.values() if not finding.ok] == []
    saturated = findings(lambda x: 1e6 * f(x), x, y, **options)
    assert not saturated["zero_gradient"].ok


def test_the_l2_ball_is_the_one_that_is_checked():
    f, x, y = plain()
    far = {"far": attacks.fgsm(f, x, y, epsilon=EPSILON)}  # 0.4 in the l2 norm
    assert not findings(f, x, y, norm="l2", transferred=far)["budget"].ok
    assert findings(f, x, y, transferred=far)["budget"].ok


def test_float64_images_are_within_the_budget():
    f, x, y = plain()
    found = attacks.soundness(
        f, np.asarray(x, np.float64) ** 2, y, jax.random.key(0), epsilon=EPSILON, steps=3
    )
    assert found[-1].name == "budget"
    assert found[-1].value == 0.0


def standardised(x):
    """A classifier that divides each image by its norm: no derivative where that is zero."""
    norms = jnp.linalg.norm(x.reshape(len(x), -1), axis=1, keepdims=True)
    return linear(weights(3), x.reshape(len(x), -1) / (norms + 1e-6)) + jnp.arange(3.0)


def rooted(x):
    """A classifier with an infinite derivative at black pixels."""
    return linear(weights(3), jnp.sqrt(x))


@pytest.mark.parametrize("f", [standardised, rooted])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradients_that_are_not_finite_are_a_finding(f, norm):
    x = images(40).at[:10].set(0.0)
    y = jnp.argmax(f(x), axis=1)
    assert jnp.isfinite(f(x)).all()
    found = findings(f, x, y, norm=norm)
    assert found["zero_gradient"].value == 0.25
    assert not found["zero_gradient"].ok
    assert found["budget"].ok


def test_logits_that_are_not_finite_are_no_randomness():
    x = images(20)
    model = Partial(lambda w, x: linear(w, x) / (x[:, 0, 0] > 0.5), weights(3))
    y = jnp.argmax(linear(weights(3), x), axis=1)
    assert not jnp.isfinite(model(x)).all()
    found = findings(model, x, y)
    assert found["stochastic"].ok
    assert found["budget"].ok


def test_the_square_attack_can_be_left_out():
    f, x, y = plain()
    assert set(findings(f, x, y, queries=0)) == NAMES - {"square"}


# Models that look robust and are not.


def saturated(f):
    return lambda x: 1e4 * f(x)


def quantised(f):
    return lambda x: f(jnp.round(5 * x) / 5)


def probable(f):
    return lambda x: jax.nn.softmax(3 * f(x))


def noisy(f):
    """Each call, compiled or not, adds noise to the image, drawn by the host."""
    rng = np.random.default_rng(0)

    def call(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        draw = jax.pure_callback(lambda: rng.normal(size=x.shape).astype(x.dtype), shape)
        return f(x + 0.3 * draw)

    return call


def resized(f):
    """Each call shifts the image by other pixels; a compiled one is stuck with its first."""
    rng = np.random.default_rng(0)

    def call(x):
        up, left = rng.integers(-2, 3, 2)
        return f(jnp.roll(x, (up, left), axis=(1, 2)))

    return call


def keyed(f):
    keys = iter(list(jax.random.split(jax.random.key(0), 1000)))
    return lambda x: f(x) + jax.random.normal(next(keys), (len(x), 1))


@pytest.mark.parametrize(
    ("wrap", "symptoms"),
    [
        (saturated, {"zero_gradient", "square", "unbounded", "transfer_core"}),
        (quantised, {"zero_gradient", "square", "unbounded", "transfer_core"}),
        (probable, {"probabilities"}),
        (noisy, {"stochastic"}),
        (resized, {"stochastic"}),
        (keyed, {"stochastic"}),
    ],
)
def test_a_masked_model_is_found_out(wrap, symptoms):
    f, x, y = net(wrap)
    stronger = attacks.pgd(
        trained(), x, y, jax.random.key(0), epsilon=EPSILON, steps=10, step_size=0.02
    )
    found = findings(f, x, y, transferred={"core": stronger})
    for name in symptoms:
        assert not found[name].ok
        assert found[name].value > found[name].limit
    for name in {"probabilities", "stochastic", "budget"} - symptoms:
        assert found[name].ok


def test_a_loss_without_a_finite_gradient_is_found_out():
    f, x, y = plain()
    found = attacks.zero_gradient(lambda x: jnp.log(jnp.clip(f(x), 0) * 0), x, y * 0)
    assert found.value == 1.0


def test_a_mistake_needs_no_gradient():
    x, y = images(10), jnp.array([0, 1] * 5)
    constant = Partial(lambda w, x: w * jnp.ones((len(x), 2)), jnp.array([1.0, 0.0]))
    assert attacks.zero_gradient(constant, x, y).value == 0.5


def test_a_model_with_a_hill_in_the_way_of_small_steps_is_found_out():
    def hilly(w, x):
        u = linear(w, x - 0.5)
        # Falls through zero at -0.3, after a rise between -0.05 and -0.15.
        return u + 0.3 + jnp.exp(-(((u + 0.15) / 0.05) ** 2))

    w = jnp.tile(jnp.array([[1.0], [-1.0]]), (8, 1)) / 4  # a step of 0.1 takes 0.4 from u
    x, y = 0.5 + 0.02 * (images(50) - 0.5), jnp.ones(50, int)
    found = findings(Partial(hilly, w), x, y)
    assert not found["more_steps"].ok
    assert not found["square"].ok
    assert found["zero_gradient"].ok


def test_a_model_that_needs_restarts_is_found_out():
    def rugged(w, x):  # a wave on each pixel gives every start another hill to end on
        return linear(w, x - 0.5) + 0.1 * jnp.cos(150.0 * x).sum(axis=(1, 2))

    f, x = Partial(rugged, weights(1)), images(200)
    found = findings(f, x, (f(x)[:, 0] > 0).astype(int))
    assert not found["random_start"].ok
    assert found["zero_gradient"].ok


def test_regression_outputs_are_not_taken_for_probabilities():
    x = images(200)
    near = jax.nn.one_hot(labels(200, 3), 3) + 0.01 * jax.random.normal(jax.random.key(0), (200, 3))
    assert attacks.probabilities(lambda x: near, x).value < 0.05
    assert attacks.probabilities(lambda x: jax.nn.softmax(near), x).value == 1.0
    assert attacks.probabilities(lambda x: jax.nn.softmax(near) + 0.01, x).ok
    assert attacks.probabilities(lambda x: jax.nn.softmax(near) * jnp.array([3, -1, 1]), x).ok


def test_rounding_is_not_randomness():
    draws = iter((1.0, 1.0 + 1e-6, 1.0, 1.01))
    f = Partial(linear, weights(2))
    model, x = lambda x: next(draws) * f(x), images(20)
    assert attacks.stochastic(model, x).ok
    assert attacks.stochastic(model, x).value == pytest.approx(0.01, rel=1e-3)


# The budget.


@given(
    st.integers(0, 100),
    st.floats(0, 0.3),
    st.floats(0, 0.2),
    st.sampled_from(["linf", "l2"]),
)
def test_the_excess_over_the_budget_is_measured(seed, epsilon, excess, norm):
    x = 0.5 + 0 * images(5)
    direction = jax.random.normal(jax.random.key(seed), x.shape)
    order = np.inf if norm == "linf" else 2
    lengths = np.linalg.norm(direction.reshape(5, -1), ord=order, axis=1)[:, None, None, None]
    z = x.at[3].add(((epsilon + excess) * direction / lengths)[3])
    found = attacks.budget(x, z, epsilon=epsilon, norm=norm)
    assert found.value == pytest.approx(excess, abs=2e-6)
    if abs(excess - 1e-6) > 1e-6:
        assert found.ok == (excess < 1e-6)


def test_leaving_the_box_is_found_out_and_attacks_do_not():
    f, x, y = Partial(smooth, weights(3)), images(20), labels(20, 3)
    for z in (x.at[0].set(1.25), x.at[0].set(-0.25)):
        found = attacks.budget(x, z, epsilon=2.0)
        assert not found.ok
        assert found.value == pytest.approx(0.25)
    for norm in ("linf", "l2"):
        z = attacks.pgd(f, x, y, jax.random.key(0), epsilon=0.3, steps=3, step_size=0.3, norm=norm)
        assert attacks.budget(x, z, epsilon=0.3, norm=norm).ok


def test_transferred_images_from_another_ball_are_found_out():
    f, x, y = plain()
    far = {"far": attacks.fgsm(f, x, y, epsilon=2 * EPSILON)}
    found = findings(f, x, y, transferred=far)
    assert found["budget"].value == pytest.approx(EPSILON, rel=1e-4)
    assert not found["budget"].ok


def test_images_that_do_not_fit_are_refused():
    x = images(3)
    with pytest.raises(ValueError, match=r"^adversarial: shape \(2, 4, 4, 1\)"):
        attacks.budget(x, x[:2], epsilon=0.1)
    with pytest.raises(ValueError, match=r"^adversarial: has values that are not finite"):
        attacks.budget(x, x.at[0].set(jnp.nan), epsilon=0.1)


def two_ways_down(x):
    """Right at zero and below, wrong far above: an attack that starts below never gets there."""
    margin = jnp.where(x[:, 0] > 0, 0.5 - x[:, 0], 0.5 + 0.4 * x[:, 0])
    return jnp.stack([margin, 0 * margin], axis=1)


def test_more_starts_leave_less_to_a_second_one(key):
    x, y = np.zeros((200, 1), np.float32), np.zeros(200, int)
    lost = {}
    for restarts in (1, 8):
        findings = attacks.soundness(
            two_ways_down, x, y, key, epsilon=1.0, restarts=restarts, clip=None
        )
        lost[restarts] = next(f.value for f in findings if f.name == "random_start")
    assert lost[1] == pytest.approx(1 / 4, abs=0.1)
    assert lost[8] <= 0.02


def test_one_more_run_finds_what_the_runs_before_have_left(key):
    f, x, y = net()
    weak, strong = (attacks.partial(attacks.fgsm, epsilon=e) for e in (EPSILON / 4, EPSILON))
    points = {"batch_size": 50, "key": key, "logits_fn": f, "x": x, "y": y}
    everything = np.ones(len(y), bool)
    left, all_left = (
        attacks.withstand(**points, among=everything, attack=attack) for attack in (weak, strong)
    )
    same, more, both = (
        attacks.further(**points, left=left, tried=tried)
        for tried in ([weak], [strong], [weak, strong])
    )
    assert (same.value, same.ok) == (0.0, True)
    assert more.value == pytest.approx((left & ~all_left).mean(), abs=1e-6)
    assert more.value > 0.02
    assert not more.ok
    assert both.value == more.value
    with pytest.raises(ValueError, match="tried: there are no attacks"):
        attacks.further(**points, left=left, tried=[])
