import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from classifiers import SHAPE, digits, images, labels, linear, smooth, trained, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from ntklib import attacks, infinite, models
from ntklib.linear import linearize

LOSSES = ["ce", "mse", "margin", "dlr"]


def broken(f, z, y):
    return np.asarray(~attacks.correct(f(z), y))


# Losses.


def test_losses_equal_their_closed_forms():
    f = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
    y = jnp.array([0, 2])
    softmax = scipy.special.log_softmax(f, axis=1)
    losses = {name: attacks.loss_per_point(jnp.asarray(f), y, name) for name in LOSSES}
    np.testing.assert_allclose(losses["ce"], -softmax[[0, 1], [0, 2]], rtol=1e-6)
    np.testing.assert_allclose(losses["mse"], [0.5 * (1 + 1 + 0.25), 0.5 * (0 + 9 + 0)], rtol=1e-6)
    np.testing.assert_allclose(losses["margin"], [0.5 - 2.0, 3.0 - 1.0], rtol=1e-6)
    np.testing.assert_allclose(losses["dlr"], [-1.5 / 3.0, 2.0 / 3.0], rtol=1e-6)


@given(st.floats(-20, 20, allow_subnormal=False), st.integers(0, 1))
def test_one_column_is_the_same_as_two_columns_with_its_difference(f, y):
    one, two = jnp.array([[f]]), jnp.array([[0.0, f]])
    for loss in ("ce", "margin"):
        a, b = (attacks.loss_per_point(g, jnp.array([y]), loss) for g in (one, two))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_certain_cross_entropy_is_small_and_not_lost():
    f, y = jnp.array([[60.0, 0.0, -5.0], [1e6, 0.0, 0.0]]), jnp.array([0, 0])
    # Compiled, where rounding makes up a gradient of log_softmax.
    slope = jax.jit(jax.grad(lambda f: attacks.loss_per_point(f, y, "ce").sum()))(f)
    expected = np.exp([-60.0, -65.0])
    np.testing.assert_allclose(slope[0], [-expected.sum(), *expected], rtol=1e-5)
    np.testing.assert_array_equal(slope[1], 0)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1000), st.sampled_from([3, 6]), st.floats(-50, 50), st.floats(1e-3, 1e3))
def test_dlr_does_not_change_with_the_shift_and_the_scale_of_the_logits(x64, seed, k, shift, scale):
    f, y = jax.random.normal(jax.random.key(seed), (6, k), jnp.float64), labels(6, k, seed)
    plain, moved = (attacks.loss_per_point(g, y, "dlr") for g in (f, scale * f + shift))
    np.testing.assert_allclose(moved, plain, rtol=1e-6, atol=1e-9)
    assert ((plain > 0) == broken(lambda z: z, f, y)).all()


def test_dlr_of_tied_logits_and_its_gradient_are_finite():
    f, y = jnp.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), jnp.array([3, 1])
    value, slope = jax.value_and_grad(lambda f: attacks.loss_per_point(f, y, "dlr").sum())(f)
    assert value == 1.0
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize("k", [1, 2])
def test_dlr_needs_three_classes(k):
    f = Partial(linear, weights(k))
    with pytest.raises(ValueError, match=r"^loss: 'dlr' needs 3 classes or more; there are"):
        attacks.fgsm(f, images(3), labels(3, 2), epsilon=0.1, loss="dlr")


def test_logits_of_nan_are_never_correct():
    nan = float("nan")
    three = jnp.array([[nan, nan, nan], [nan, 0.0, 1.0], [3.0, 1.0, nan], [3.0, 1.0, 2.0]])
    assert attacks.correct(three, jnp.zeros(4, int)).tolist() == [False, False, False, True]
    assert attacks.correct(jnp.full((2, 1), nan), jnp.array([0, 1])).tolist() == [False, False]


def test_a_logit_of_zero_is_not_correct():
    assert attacks.correct(jnp.zeros((2, 1)), jnp.array([0, 1])).tolist() == [False, False]
    assert attacks.correct(jnp.array([[-1.0], [1.0]]), jnp.array([0, 1])).tolist() == [True, True]


@pytest.mark.parametrize(
    ("k", "loss"), [(1, "ce"), (1, "mse"), (1, "margin"), *((4, loss) for loss in LOSSES)]
)
def test_input_gradients_equal_finite_differences(x64, k, loss):
    f = Partial(smooth, weights(k).astype(jnp.float64))
    x, y = images(5).astype(jnp.float64), labels(5, max(k, 2))
    slope = attacks.input_gradient(f, x, y, loss)
    direction = jax.random.normal(jax.random.key(5), x.shape, jnp.float64)
    h = 1e-6
    up, down = (attacks.loss_per_point(f(x + s * h * direction), y, loss) for s in (1, -1))
    along = jnp.sum(slope * direction, axis=(1, 2, 3))
    np.testing.assert_allclose(along, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


# Projected gradient descent.


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
@pytest.mark.parametrize("steps", [1, 10])
def test_the_adversary_of_a_linear_model_is_exact(norm, dual, steps):
    f = Partial(linear, weights(1))
    x, y = 0.5 + 0.01 * images(8), labels(8, 2)  # far from the box
    z = attacks.pgd(
        f, x, y, jax.random.key(0), epsilon=0.1, steps=steps, step_size=0.1, norm=norm,
        random_start=False, loss="margin",
    )  # fmt: skip
    lost = (attacks.targets(y, 1) * (f(x) - f(z)))[:, 0]
    np.testing.assert_allclose(lost, 0.1 * np.linalg.norm(weights(1), ord=dual), rtol=1e-4)


def test_the_linf_adversary_of_a_linear_model_is_exact_in_the_box_from_any_start():
    x, y, w = images(20), labels(20, 3), weights(3)[:, :2]
    y = y % 2
    z = attacks.pgd(
        Partial(linear, w), x, y, jax.random.key(0), epsilon=0.3, steps=20, step_size=0.1,
    )  # fmt: skip
    uphill = (w[:, 1] - w[:, 0]).reshape(SHAPE) * (1 - 2 * y[:, None, None, None])
    np.testing.assert_allclose(z, jnp.clip(x + 0.3 * jnp.sign(uphill), 0, 1), atol=1e-6)


def test_fgsm_is_one_step_of_pgd_and_the_formula():
    f, x, y = Partial(smooth, weights(3)), images(8), labels(8, 3)
    z = attacks.fgsm(f, x, y, epsilon=0.2)
    one_step = attacks.pgd(
        f, x, y, jax.random.key(0), epsilon=0.2, steps=1, step_size=0.2, random_start=False
    )
    slope = jax.grad(lambda x: attacks.loss_per_point(f(x), y, "ce").sum())(x)
    np.testing.assert_array_equal(z, one_step)
    np.testing.assert_allclose(z, jnp.clip(x + 0.2 * jnp.sign(slope), 0, 1), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-33, 1e-25, 1e25, 3e37])
def test_a_gradient_of_any_size_is_a_direction_all_the_same(scale):
    # The sum of the squares, and at last the norm itself, are out of range.
    x, y = jnp.full((8, 64), 0.5), labels(8, 2)
    w = weights(1, size=64)
    found = [
        attacks.pgd(
            Partial(linear, s * w), x, y, jax.random.key(0), epsilon=0.1, steps=1, step_size=0.1,
            norm="l2", random_start=False, loss="margin",
        )
        for s in (1.0, scale)
    ]  # fmt: skip
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    assert np.linalg.norm(found[0] - x, axis=1) == pytest.approx(0.1, rel=1e-4)


def test_more_steps_find_no_smaller_loss():
    f, x, y, key = Partial(smooth, weights(3)), images(64), labels(64, 3), jax.random.key(0)
    found = [
        attacks.loss_per_point(
            f(attacks.pgd(f, x, y, key, epsilon=0.2, steps=s, step_size=0.5 / s)), y, "ce"
        ).mean()
        for s in (1, 5, 40)
    ]
    assert found[0] < found[1] < found[2] * 1.01


def rugged(w, x):
    """A wave on each pixel gives every start another hill to end on."""
    return linear(w, x - 0.5) + 0.1 * jnp.cos(150.0 * x).sum(axis=(1, 2))


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_restarts_never_hurt(loss):
    f, x = Partial(rugged, weights(1)), images(200)
    y = (f(x)[:, 0] > 0).astype(int)
    options = {"epsilon": 0.1, "steps": 10, "step_size": 0.02, "loss": loss}
    fewer, more = (attacks.pgd(f, x, y, jax.random.key(0), restarts=r, **options) for r in (1, 4))
    before, after = broken(f, fewer, y), broken(f, more, y)
    assert (after >= before).all()
    assert after.sum() > before.sum()
    low, high = (attacks.loss_per_point(f(z), y, loss) for z in (fewer, more))
    assert (high >= low - 1e-5).all()
    assert (high > low)[~after].any()


def test_restarts_prefer_a_misclassified_point_to_a_high_loss():
    def spiral(_, x):  # the squared loss is high where the class is right by far, too
        return 8.0 * x.reshape(len(x), -1)[:, :1] - 3.0

    x, y = jnp.full((300, 1, 1, 1), 0.45), jnp.ones(300, int)
    f = Partial(spiral, 0)
    attack = {"epsilon": 0.4, "steps": 1, "step_size": 0.0, "loss": "mse"}
    z = attacks.pgd(f, x, y, jax.random.key(0), restarts=30, **attack)
    assert broken(f, z, y).all()  # three eighths of the ball are misclassified
    assert (attacks.loss_per_point(f(z), y, "mse") < 4.0).any()  # the right side reaches 6.5


def test_a_loss_of_nan_is_the_lowest_of_the_restarts():
    def patchy(w, x):  # no number above 1/2, where half of the starts end
        return jnp.where(x[:, :1] > 0.5, jnp.nan, linear(w, x))

    x, y = jnp.full((200, 3), 0.5), jnp.ones(200, int)  # all are misclassified
    f = Partial(patchy, jnp.array([[1.0], [-1.0], [-1.0]]))
    found = attacks.pgd(f, x, y, jax.random.key(0), epsilon=0.1, steps=1, step_size=0, restarts=12)
    single = attacks.pgd(f, x, y, jax.random.key(0), epsilon=0.1, steps=1, step_size=0)
    assert jnp.isnan(f(single)).mean() > 0.4
    assert jnp.isfinite(found).all()
    assert not jnp.isnan(attacks.loss_per_point(f(found), y, "ce")).any()


def test_another_radius_or_other_parameters_do_not_compile_again():
    x, y, key = images(4), labels(4, 2), jax.random.key(0)
    traced = []

    def apply(w, x):
        traced.append(1)
        return linear(w, x)

    counts = []
    for i in range(3):
        f = Partial(apply, weights(4, seed=i))
        attacks.fgsm(f, x, y, epsilon=0.1 + 0.1 * i)
        attacks.input_gradient(f, x, y)
        attacks.pgd(f, x, y, key, epsilon=0.1 * i, steps=1 + i, step_size=0.1 + i)
        attacks.pgd(f, x, y, key, epsilon=0.1 * i, steps=1 + i, norm="l2", clip=None)
        attacks.noisy_fgsm(f, x, y, key, epsilon=0.1 * i, noise=0.1 + i)
        attacks.apgd(f, x, y, key, epsilon=0.1 * i, steps=1 + i)
        attacks.apgd_targeted(f, x, y, key, epsilon=0.1 * i, steps=1 + i)
        attacks.square(f, x, y, key, epsilon=0.1 * i, queries=10 + i)
        counts.append(len(traced))
    assert counts[0] > 0
    assert counts == counts[:1] * 3


def test_an_attack_can_be_part_of_a_compiled_function():
    f, x, y, key = Partial(smooth, weights(3)), images(8), labels(8, 3), jax.random.key(0)

    def attack(w, x, y, key):
        return attacks.pgd(
            Partial(smooth, w), x, y, key, epsilon=0.1, steps=3, step_size=0.05, restarts=2
        )

    np.testing.assert_allclose(
        jax.jit(attack)(weights(3), x, y, key), attack(weights(3), x, y, key), atol=1e-6
    )
    assert f(x).shape == (8, 3)


def test_an_attack_on_a_linearised_net_at_its_tangent_point_is_the_one_on_the_net():
    model, x, y = models.get("mlp", n_classes=3, width=32, depth=1), images(8), labels(8, 3)
    start = model.init(jax.random.key(0), x)
    expansion = linearize(model, start, centered=False)
    a, b = (
        attacks.pgd(
            Partial(m.apply, start), x, y, jax.random.key(0), epsilon=0.1, steps=3, step_size=0.05
        )
        for m in (model, expansion)
    )
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(a - x).max() > 0.09


def test_an_attack_on_a_kernel_regression_lowers_its_accuracy_far_below_noise():
    model, train, test = models.get("mlp", n_classes=1), digits().train, digits().test
    sides = (np.asarray(train.y[:200]) > 4).astype(int)
    f = infinite.Regressor(model, train.x[:200], attacks.targets(jnp.asarray(sides), 1)).logits_fn
    x, y, key = test.x[:100], (test.y[:100] > 4).astype(int), jax.random.key(0)
    z = attacks.pgd(f, x, y, key, epsilon=0.1, steps=5, step_size=0.05)
    noise = attacks.random_sign(f, x, y, key, epsilon=0.1)
    assert broken(f, z, y).mean() > broken(f, noise, y).mean() + 0.3


@pytest.mark.parametrize("shape", [(16,), (4, 4, 1), (2, 2, 2, 2, 1)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_shape_of_an_input_does_not_matter(shape, norm):
    f, y, key = Partial(smooth, weights(3)), labels(20, 3), jax.random.key(0)
    x = images(20)
    options = {"epsilon": 0.2, "steps": 5, "norm": norm, "restarts": 2}
    expected = attacks.pgd(f, x, y, key, **options)
    found = attacks.pgd(f, x.reshape(20, *shape), y, key, **options)
    np.testing.assert_allclose(found.reshape(x.shape), expected, atol=1e-6)


def test_without_a_box_the_adversary_of_a_linear_model_is_exact():
    x, y, w = 4.0 * (images(8, shape=(16,)) - 0.5), labels(8, 2), weights(1)
    f = Partial(linear, w)
    found = attacks.fgsm(f, x, y, epsilon=3.0, clip=None)
    uphill = -jnp.sign(w[:, 0]) * attacks.targets(y, 1)
    np.testing.assert_allclose(found, x + 3 * uphill, rtol=1e-5)


def test_a_step_is_two_and_a_half_radii_over_their_number_unless_it_is_given():
    f, x, y, key = Partial(smooth, weights(3)), images(8), labels(8, 3), jax.random.key(0)
    found = attacks.pgd(f, x, y, key, epsilon=0.1, steps=5)
    expected = attacks.pgd(f, x, y, key, epsilon=0.1, steps=5, step_size=2.5 * 0.1 / 5)
    np.testing.assert_array_equal(found, expected)


# One step from noise.


def test_one_step_from_no_noise_is_fgsm():
    f, x, y, key = Partial(smooth, weights(3)), images(8), labels(8, 3), jax.random.key(0)
    found = attacks.noisy_fgsm(f, x, y, key, epsilon=0.2, noise=0)
    np.testing.assert_array_equal(found, attacks.fgsm(f, x, y, epsilon=0.2))


def test_one_step_from_noise_is_a_step_of_the_radius_from_uniform_noise_of_twice_as_much():
    w, x, y = weights(1), jnp.full((500, 16), 0.5), labels(500, 2)
    found = attacks.noisy_fgsm(Partial(linear, w), x, y, jax.random.key(0), epsilon=0.1)
    step = 0.1 * jnp.sign(w[:, 0]) * -attacks.targets(y, 1)
    noise = np.sort(np.asarray(found - x - step).ravel()) / 0.2
    assert np.abs(noise - np.linspace(-1, 1, noise.size)).max() < 0.03
    assert 0.29 < np.abs(found - x).max() <= 0.3  # no projection


def test_one_step_from_noise_takes_the_gradient_at_the_noise_within_the_box():
    seen = []

    def watched(w, x):
        jax.debug.callback(lambda z: seen.append(np.asarray(z)), x)
        return smooth(w, x)

    w, x, y = weights(3), images(8), labels(8, 3)
    found = attacks.noisy_fgsm(Partial(watched, w), x, y, jax.random.key(0), epsilon=0.3)
    jax.effects_barrier()
    start = seen[-1]
    assert 0 <= start.min() <= start.max() <= 1
    assert 0.5 < np.abs(start - x).max() <= 0.6
    expected = attacks.fgsm(Partial(smooth, w), jnp.asarray(start), y, epsilon=0.3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.15])
def test_foolbox_finds_the_same_accuracy(epsilon, random_start):
    f, test = trained(), digits().test
    options = {"steps": 40, "random_start": random_start}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses old names
        foolbox = pytest.importorskip("foolbox")
        model = foolbox.JAXModel(f, bounds=(0, 1))
        theirs = foolbox.attacks.LinfPGD(rel_stepsize=0.1, **options)
    found = np.empty((2, 1 + 4 * random_start))
    for i in range(found.shape[1]):
        z = attacks.pgd(
            f, test.x, test.y, jax.random.key(i), epsilon=epsilon, step_size=0.1 * epsilon,
            **options,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, other, _ = theirs(model, test.x, test.y, epsilons=epsilon)
        found[:, i] = [1 - broken(f, images, test.y).mean() for images in (z, other)]
    ours, foreign = found.mean(axis=1)  # over random starts
    assert 0.01 < ours < 0.9
    assert abs(ours - foreign) <= 0.005
