from fractions import Fraction
from math import ceil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import digits, images, labels, linear, smooth, trained, weights
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial

from ntklib import attacks, models
from ntklib.attacks._apgd import checkpoints
from ntklib.attacks._losses import targeted_dlr
from ntklib.linear import bind, linearize

KEY = jax.random.key(0)


def broken(f, z, y):
    return np.asarray(~attacks.correct(f(z), y))


# The algorithm.


def test_the_checkpoints_are_the_published_ones():
    assert checkpoints(100).tolist() == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20).tolist() == [0, 5, 9, 12, 14, 16, 18, 19, 20]


@given(st.integers(1, 5000))
def test_the_checkpoints_are_those_of_the_recursion_for_any_number_of_steps(steps):
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    assert checkpoints(steps).tolist() == [ceil(q * steps) for q in p[:-1]]


def written_out(loss, slope, start, x, epsilon, steps, norm):
    """All iterates of one input and all its step sizes, as in algorithm 1 of the paper."""

    def project(z):
        if norm == "linf":
            return np.clip(z, np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1))
        return np.clip(x + (z - x) * min(1, epsilon / np.linalg.norm(z - x)), 0, 1)

    def move(z, eta):
        g = slope(z)
        return project(z + eta * (np.sign(g) if norm == "linf" else g / np.linalg.norm(g)))

    z, before, best, eta, sizes = start, start, start, 2 * epsilon, []
    value = highest = reached = loss(start)
    rises, last, halved = 0, 0, False
    for k in range(1, steps + 1):
        alpha, old = 1 if k == 1 else 0.75, value
        z, before = project(z + alpha * (move(z, eta) - z) + (1 - alpha) * (z - before)), z
        value = loss(z)
        rises += value > old
        if value > highest:
            highest, best = value, z
        if k in checkpoints(steps).tolist():
            halved = rises < 0.75 * (k - last) or (not halved and highest == reached)
            if halved:
                eta, z, value = eta / 2, best, highest
            rises, reached, last = 0, highest, k
            sizes.append(eta)
    return best, highest, sizes


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_the_algorithm_of_the_paper(x64, norm):
    x, y, epsilon = images(6).astype(float), labels(6, 3), 0.3 if norm == "linf" else 1.0
    f = Partial(smooth, 2 * weights(3).astype(float))
    [starts] = attacks.Ball.around(x, epsilon, norm).uniform(KEY, 1)
    found = attacks.apgd(f, x, y, KEY, epsilon=epsilon, steps=30, norm=norm, loss="mse")
    for i in range(len(x)):
        label = y[i : i + 1]

        def loss(z, label=label):
            return float(attacks.loss_per_point(f(jnp.asarray(z)[None]), label, "mse")[0])

        def slope(z, label=label):
            return np.asarray(attacks.input_gradient(f, z[None], label, "mse")[0])

        best, highest, sizes = written_out(
            loss, slope, np.asarray(starts[i]), np.asarray(x[i]), epsilon, 30, norm
        )
        assert sizes[-1] < 2 * epsilon
        if broken(f, best[None], label):  # else a misclassified iterate goes first
            np.testing.assert_allclose(found[i], best, atol=1e-6)
            assert loss(found[i]) == pytest.approx(highest, rel=1e-6)


def test_the_targeted_loss_equals_its_closed_form():
    f = jnp.array([[2.0, -1.0, 0.5, 1.0, 0.0], [0.0, 3.0, 1.0, 1.0, -7.0], [1.0] * 5])
    found = targeted_dlr(f, jnp.array([0, 1, 2]), jnp.array([2, 4, 0]))
    np.testing.assert_allclose(found, [-1.5 / (2 - 0.25), -10 / (3 - 0.5), 0], rtol=1e-6)
    assert jnp.isfinite(
        jax.grad(lambda f: targeted_dlr(f, jnp.arange(3), jnp.arange(1, 4)).sum())(f)
    ).all()


@given(st.integers(0, 1000), st.floats(-50, 50), st.floats(1e-2, 1e2))
def test_the_targeted_loss_does_not_change_with_shift_and_scale(seed, shift, scale):
    f, y = jax.random.normal(jax.random.key(seed), (6, 5)), labels(6, 5, seed)
    plain, moved = (targeted_dlr(g, y, (y + 1) % 5) for g in (f, scale * f + scale * shift))
    np.testing.assert_allclose(moved, plain, rtol=1e-2, atol=1e-3)


# What it finds.


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_it_finds_the_exact_adversary_of_a_linear_model_with_one_column(loss):
    x, y, w = images(20, shape=(16,)), labels(20, 2), weights(1)
    f, uphill = Partial(linear, w), -attacks.targets(y, 1) * w[:, 0]
    found = attacks.apgd(f, x, y, KEY, epsilon=0.3, steps=20, loss=loss)
    np.testing.assert_allclose(found, jnp.clip(x + 0.3 * jnp.sign(uphill), 0, 1), atol=1e-6)
    found = attacks.apgd(f, x, y, KEY, epsilon=0.3, steps=60, norm="l2", loss=loss, clip=None)
    best = x + 0.3 * uphill / jnp.linalg.norm(w)
    np.testing.assert_allclose(f(found), f(best), rtol=1e-5, atol=1e-5)


def test_towards_all_classes_it_breaks_just_what_can_be_broken_of_a_linear_model():
    x, w, epsilon = images(300, shape=(16,)), weights(6), 0.06
    f = Partial(linear, w)
    y, far = jnp.argmax(f(x), axis=1), f(x).max(axis=1, keepdims=True) - f(x)
    # Without a box the boundary to a class is at the difference of logits over that of weights.
    reach = far - epsilon * jnp.abs(w[:, :, None] - w[:, None]).sum(0)[y]
    reach = np.asarray(reach.at[jnp.arange(300), y].set(jnp.inf))
    clear, can = np.abs(reach).min(axis=1) > 1e-3, (reach < 0).any(axis=1)
    assert 0.3 < can.mean() < 0.7
    options = {"epsilon": epsilon, "steps": 20, "clip": None}
    found = {
        n: broken(f, attacks.apgd_targeted(f, x, y, KEY, n_targets=n, **options), y)
        for n in (1, 5, 9)
    }
    np.testing.assert_array_equal(found[5][clear], can[clear])
    np.testing.assert_array_equal(found[9], found[5])  # there are no more wrong classes
    # One target is the most likely wrong class.
    order = jnp.argsort(far, axis=1)[:, 1]
    first = reach[np.arange(300), order] < 0
    assert (found[1] >= first)[clear].all()
    assert found[1].sum() < found[5].sum()


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.05), ("linf", 0.1), ("l2", 0.5)])
def test_it_is_not_worse_than_pgd_on_a_trained_net(norm, epsilon):
    f, test = trained(), digits().test
    options = {"epsilon": epsilon, "norm": norm}
    pgd = [
        attacks.partial(attacks.pgd, steps=100, loss=loss, **options) for loss in ("ce", "margin")
    ]
    auto = [
        attacks.partial(attacks.apgd, **options),
        attacks.partial(attacks.apgd, loss="dlr", **options),
        attacks.partial(attacks.apgd_targeted, **options),
    ]
    left = [
        [1 - broken(f, how(f, test.x, test.y, KEY), test.y).mean() for how in hows]
        for hows in (pgd, auto)
    ]
    by_ce, by_dlr, by_targets = left[1]
    assert 0.05 < by_targets < 0.95
    assert by_ce <= left[0][0] + 0.003
    assert by_dlr <= left[0][1] + 0.01
    assert by_targets <= min(left[0]) + 0.003


def test_its_losses_are_higher_than_those_of_pgd():
    f, test = trained(), digits().test
    options = {"epsilon": 0.03, "steps": 20}
    ways = (attacks.pgd, attacks.apgd)
    by_pgd, by_apgd = (
        attacks.loss_per_point(f(how(f, test.x, test.y, KEY, **options)), test.y, "ce")
        for how in ways
    )
    assert by_apgd.mean() > by_pgd.mean()
    assert (by_apgd > by_pgd - 1e-3).mean() > 0.95


def test_a_misclassified_iterate_goes_before_a_high_loss():
    def spiral(_, x):  # the squared loss is high where the class is right by far, too
        return 8.0 * x.reshape(len(x), -1)[:, :1] - 3.0

    x, y = jnp.full((300, 1, 1, 1), 0.45), jnp.ones(300, int)
    f = Partial(spiral, 0)
    z = attacks.apgd(f, x, y, KEY, epsilon=0.4, steps=1, restarts=10, loss="mse")
    assert broken(f, z, y).all()
    assert (attacks.loss_per_point(f(z), y, "mse") < 7.0).all()  # the right side reaches 7.2


def rugged(w, x):
    """A wave on each pixel gives every start another hill to end on."""
    return linear(w, x - 0.5) + 0.1 * jnp.cos(150.0 * x).sum(axis=(1, 2))


def test_more_starts_never_hurt():
    f, x = Partial(rugged, weights(1)), images(200)
    y = (f(x)[:, 0] > 0).astype(int)
    options = {"epsilon": 0.1, "steps": 10}
    fewer, more = (attacks.apgd(f, x, y, KEY, restarts=n, **options) for n in (1, 4))
    before, after = (broken(f, z, y) for z in (fewer, more))
    assert (after >= before).all()
    low, high = (attacks.loss_per_point(f(z), y, "ce") for z in (fewer, more))
    assert (high >= low - 1e-5).all()
    assert (high > low + 1e-3).mean() > 0.5


def test_a_loss_of_nan_is_the_lowest():
    def patchy(w, x):  # no number above 1/2, where half of the starts are
        return jnp.where(x[:, :1] > 0.5, jnp.nan, linear(w, x))

    x, y = jnp.full((200, 3), 0.5), jnp.ones(200, int)  # all are misclassified
    f = Partial(patchy, jnp.array([[1.0], [-1.0], [-1.0]]))
    found = attacks.apgd(f, x, y, KEY, epsilon=0.1, steps=1, restarts=12)
    assert jnp.isfinite(found).all()
    assert not jnp.isnan(attacks.loss_per_point(f(found), y, "ce")).any()


# One protocol.


@pytest.mark.parametrize("how", [attacks.apgd, attacks.apgd_targeted])
def test_the_key_decides(how):
    f, x, y = Partial(smooth, weights(5)), images(20), labels(20, 5)
    attack = attacks.partial(how, epsilon=0.1, steps=5)
    found = attack(f, x, y, KEY)
    np.testing.assert_array_equal(found, attack(f, x, y, KEY))
    assert (found != attack(f, x, y, jax.random.key(1))).any()


@pytest.mark.parametrize("how", [attacks.apgd, attacks.apgd_targeted])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_shape_of_an_input_does_not_matter(how, norm):
    f, x, y = Partial(smooth, weights(5)), images(20), labels(20, 5)
    options = {"epsilon": 0.2, "steps": 5, "norm": norm}
    expected = how(f, x, y, KEY, **options)
    for shape in ((16,), (2, 2, 2, 2, 1)):
        found = how(f, x.reshape(20, *shape), y, KEY, **options)
        np.testing.assert_allclose(found.reshape(x.shape), expected, atol=1e-5)


def test_an_attack_on_a_linearised_net_at_its_tangent_point_is_the_one_on_the_net():
    model, x, y = models.get("mlp", n_classes=5, width=32, depth=1), images(8), labels(8, 5)
    start = model.init(KEY, x)
    both = bind(model.apply, start), bind(linearize(model, start, centered=False).apply, start)
    a, b = (attacks.apgd_targeted(f, x, y, KEY, epsilon=0.1, steps=5) for f in both)
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_inputs_of_single_precision_keep_it_where_jax_has_double(x64):
    f, x, y = Partial(smooth, weights(5)), images(4).astype(jnp.float32), labels(4, 5)
    for how in (attacks.apgd, attacks.apgd_targeted):
        assert how(f, x, y, KEY, epsilon=0.1, steps=3).dtype == jnp.float32


@pytest.mark.parametrize("k", [1, 2, 3])
def test_targeted_dlr_needs_four_classes(k):
    f, message = Partial(linear, weights(k)), r"^logits: the classifier returns columns for [23] cl"
    with pytest.raises(ValueError, match=message) as caught:
        attacks.apgd_targeted(f, images(3), labels(3, 2), KEY, epsilon=0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad", [{"epsilon": -1.0}, {"steps": 0}, {"steps": 2.5}, {"n_targets": 0},
            {"clip": (1.0, 0.0)}],
)  # fmt: skip
def test_bad_input_is_refused_with_one_line(bad):
    f, options = Partial(linear, weights(5)), {"epsilon": 0.1} | bad
    with pytest.raises(ValueError, match=rf"^{next(iter(bad))}: ") as caught:
        attacks.apgd_targeted(f, images(3), labels(3, 5), KEY, **options)
    assert "\n" not in str(caught.value)
