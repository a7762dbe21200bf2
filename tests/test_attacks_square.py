import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import digits, images, labels, linear, smooth, trained, weights
from jax.tree_util import Partial

from ntklib import attacks
from ntklib.attacks._square import side


def unbreakable(w, x):
    """A linear model so far on the right side that no attack ends early."""
    return linear(w, x, bias=100.0)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_finds_the_exact_adversary_of_a_linear_model(channels):
    shape = (4, 4, channels)
    w = weights(1, size=16 * channels)
    x, y, f = images(8, shape=shape), jnp.ones(8, int), Partial(unbreakable, w)
    found = [
        attacks.square(f, x, y, jax.random.key(0), epsilon=0.2, queries=q) for q in (1, 30, 4000)
    ]
    best = f(jnp.clip(x - 0.2 * jnp.sign(w).reshape(shape), 0, 1))
    left = [float(jnp.mean(f(z) - best)) for z in found]
    assert left[0] > left[1] > left[2] >= -1e-4
    # The last squares are single pixels in which the channels share a query, not a sign.
    assert left[2] < 0.02 * left[0]


def test_queries_raise_the_margin_of_each_point_and_pixels_are_at_the_bounds():
    f, x, y = Partial(smooth, weights(3)), images(50), labels(50, 3)
    stripes, better = (
        attacks.square(f, x, y, jax.random.key(0), epsilon=0.1, queries=q) for q in (1, 50)
    )
    before, after = (attacks.loss_per_point(f(z), y, "margin") for z in (stripes, better))
    assert (after >= before - 1e-5).all()
    assert ((after > before + 1e-3) | (before > 0)).mean() > 0.9
    np.testing.assert_array_equal(better[before > 0], stripes[before > 0])
    assert (np.ptp(np.asarray(stripes > x, int), axis=1) == 0).all()  # vertical
    for z in (stripes, better):
        at_bounds = [np.isclose(z, jnp.clip(x + e, 0, 1), atol=1e-6) for e in (-0.1, 0.1)]
        assert np.logical_or(*at_bounds).all()


def test_it_goes_on_from_where_another_attack_has_ended():
    f, x, y = Partial(smooth, weights(3)), images(50), labels(50, 3)
    fgsm = attacks.partial(attacks.fgsm, epsilon=0.1)
    first = fgsm(f, x, y, jax.random.key(0))
    one, more = (
        attacks.square(f, x, y, jax.random.key(0), epsilon=0.1, queries=q, start=fgsm)
        for q in (1, 50)
    )
    np.testing.assert_array_equal(one, first)
    before, after = (attacks.loss_per_point(f(z), y, "margin") for z in (first, more))
    assert (after >= before - 1e-5).all()
    assert attacks.budget(x, more, epsilon=0.1).ok


def test_the_schedule_is_the_published_one_in_proportion_to_the_queries():
    for queries in (10000, 1000):
        i = np.array([5, 30, 100, 400, 700, 1500, 3000, 5000, 7000, 9000]) * queries / 10000
        p = 0.8 / np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
        sides = [int(side(k, queries, 32, 32)) for k in i]
        np.testing.assert_array_equal(sides, np.maximum(np.round(32 * np.sqrt(p)), 1))
    assert side(0, 10, 4, 9) == 4  # 5 pixels would not fit


def test_it_ends_when_all_are_misclassified():
    calls = []

    def counted(w, x):
        jax.debug.callback(lambda: calls.append(1))
        return linear(w, x)

    x, key = images(4), jax.random.key(0)
    f = Partial(counted, weights(2))
    y = jnp.argmin(f(x), axis=1)
    calls.clear()
    attacks.square(f, x, y, key, epsilon=0.001, queries=100)
    jax.effects_barrier()
    assert len(calls) == 1
    attacks.square(Partial(counted, 0 * weights(2)), x, 0 * y, key, epsilon=0.001, queries=100)
    jax.effects_barrier()
    assert len(calls) == 1 + 100  # a tie is decided for class 0


def test_it_comes_near_the_white_box_attack_on_a_trained_net():
    f, test = trained(), digits().test
    z = attacks.square(f, test.x, test.y, jax.random.key(0), epsilon=0.1, queries=500)
    white_box = attacks.pgd(
        f, test.x, test.y, jax.random.key(0), epsilon=0.1, steps=40, step_size=0.01
    )
    left, least = (jnp.mean(attacks.correct(f(v), test.y)) for v in (z, white_box))
    assert least - 0.01 <= left <= least + 0.05


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"queries": 0}, "queries"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"clip": (0.9, 1.0)}, "x"),
    ],
)
def test_bad_input_is_refused_with_one_line(options, names):
    f, options = Partial(linear, weights(2)), {"epsilon": 0.1, "queries": 5} | options
    with pytest.raises(ValueError, match=rf"^{names}: ") as caught:
        attacks.square(f, images(3), labels(3, 2), jax.random.key(0), **options)
    assert "\n" not in str(caught.value)
