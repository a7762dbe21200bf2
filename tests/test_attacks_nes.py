import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import images, labels, linear, smooth, weights
from jax.tree_util import Partial

from ntklib import attacks


def crafted(f, x, y, key=0, **settings):
    settings = {"epsilon": 0.1, "steps": 5, "samples": 200} | settings
    return attacks.nes(f, x, y, jax.random.key(key), **settings)


def unbreakable(w, x):
    """A linear model so far on the right side that no attack ends early."""
    return linear(w, x, bias=100.0)


def test_on_a_linear_model_it_does_nearly_what_the_gradient_does():
    w, x, y = weights(1), images(20), jnp.ones(20, int)
    f = Partial(unbreakable, w)
    exact = attacks.fgsm(f, x, y, epsilon=0.1, loss="margin")
    fall = [float(jnp.mean(f(x) - f(z))) for z in (crafted(f, x, y, loss="margin"), exact)]
    assert 0.9 * fall[1] < fall[0] <= fall[1] + 1e-4


def test_with_more_samples_it_nears_pgd():
    f, x, y = Partial(smooth, weights(3)), images(200), labels(200, 3)
    x, y = x[attacks.correct(f(x), y)], y[attacks.correct(f(x), y)]
    few, many = (crafted(f, x, y, samples=m, steps=10) for m in (1, 200))
    pgd = attacks.pgd(f, x, y, jax.random.key(1), epsilon=0.1, steps=10)
    left = [float(attacks.correct(f(z), y).mean()) for z in (few, many, pgd)]
    assert left[0] > left[1]
    assert abs(left[1] - left[2]) < 0.05


def test_it_sees_a_jump_that_the_gradient_does_not():
    def steps(x):
        far = jnp.floor(20 * x.mean((1, 2, 3)))[:, None]
        return jnp.concatenate([far, 8.5 - far + 0 * far], axis=1)

    x, y = jnp.full((4, 4, 4, 1), 0.48), jnp.zeros(4, int)  # 9 steps up, and the error is below 5
    blind = attacks.pgd(steps, x, y, jax.random.key(0), epsilon=0.25, steps=10)
    seeing = crafted(steps, x, y, epsilon=0.25, steps=10)
    assert attacks.correct(steps(blind), y).all()
    assert not attacks.correct(steps(seeing), y).any()


def test_it_stays_in_the_ball_leaves_mistakes_alone_and_its_key_decides():
    f, x, y = Partial(smooth, weights(3)), images(50), labels(50, 3)
    found = crafted(f, x, y)
    assert attacks.budget(x, found, epsilon=0.1).ok
    wrong = ~attacks.correct(f(x), y)
    np.testing.assert_array_equal(found[wrong], x[wrong])
    np.testing.assert_array_equal(found, crafted(f, x, y))
    assert (found != crafted(f, x, y, key=1, samples=2)).any()
    attack = attacks.partial(attacks.nes, epsilon=0.1, steps=5, samples=200)
    np.testing.assert_array_equal(attack(f, x, y, jax.random.key(0)), found)


@pytest.mark.parametrize("bad", [{"samples": 0}, {"steps": 0}, {"sigma": 0.0}, {"epsilon": -1.0}])
def test_what_is_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        crafted(Partial(smooth, weights(3)), images(4), labels(4, 3), **bad)
