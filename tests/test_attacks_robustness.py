from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import images, labels, linear, weights
from jax.tree_util import Partial

from ntklib import attacks

W = weights(1)
F = Partial(linear, W, bias=-W.sum() / 2)
X, Y, KEY = 0.4 + 0.2 * images(30), labels(30, 2), jax.random.key(0)
EPSILON = 0.02  # such that the box plays no part
attack = partial(
    attacks.pgd, epsilon=EPSILON, steps=3, step_size=EPSILON, random_start=False, loss="margin"
)


def test_the_robust_accuracy_of_a_linear_model_is_exact():
    result = attacks.robust_accuracy(F, X, Y, KEY, attack=attack, batch_size=30)
    margin = np.asarray(attacks.targets(Y, 1) * F(X))[:, 0]
    np.testing.assert_array_equal(result.clean, margin > 0)
    np.testing.assert_array_equal(result.robust, margin > EPSILON * np.abs(W).sum())
    assert 0 < result.robust_accuracy < result.clean_accuracy < 1
    assert result.clean_accuracy == np.mean(margin > 0)
    assert result.robust_accuracy == np.mean(margin > EPSILON * np.abs(W).sum())


@pytest.mark.parametrize(("batch_size", "on_the_host"), [(1, False), (8, True), (29, False)])
def test_the_size_of_a_batch_does_not_matter(batch_size, on_the_host):
    whole, parts = (
        attacks.robust_accuracy(
            F,
            np.asarray(X) if on_the_host else X,
            np.asarray(Y) if on_the_host else Y,
            KEY,
            attack=attack,
            batch_size=size,
        )
        for size in (len(X), batch_size)
    )
    np.testing.assert_array_equal(parts.clean, whole.clean)
    np.testing.assert_array_equal(parts.robust, whole.robust)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 30, 100])
def test_all_batches_have_one_size_and_keys_of_their_own(batch_size):
    sizes, keys = set(), []

    def watched(logits_fn, x, y, key):
        sizes.add((len(x), len(y)))
        keys.append(jax.random.key_data(key).tobytes())
        return x

    result = attacks.robust_accuracy(F, X, Y, KEY, attack=watched, batch_size=batch_size)
    assert len(sizes) == 1
    assert max(sizes)[0] <= batch_size
    assert len(set(keys)) == len(keys) == -(-30 // batch_size)
    np.testing.assert_array_equal(result.robust, result.clean)


def test_a_mistake_on_the_clean_image_counts_as_broken():
    mistaken = ~np.asarray(attacks.correct(F(X), Y))
    repaired = partial(attacks.pgd, epsilon=1.0, steps=20, step_size=0.2, loss="margin")
    result = attacks.robust_accuracy(
        F, X, Y, KEY, attack=lambda f, x, y, key: repaired(f, x, 1 - y, key), batch_size=30
    )
    assert mistaken.any()
    np.testing.assert_array_equal(result.robust, ~mistaken)


@pytest.mark.parametrize(
    ("attack", "batch_size", "words"),
    [
        (lambda f, x, y, key: x[:, :3], 8, r"attack: returned shape \(\d, 3, 4, 1\)"),
        (lambda f, x, y, key: x.at[0].set(jnp.nan), 8, "attack: returned values"),
        (attack, 0, "batch_size: 0 is out of range"),
    ],
)
def test_a_bad_attack_is_refused(attack, batch_size, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        attacks.robust_accuracy(F, X, Y, KEY, attack=attack, batch_size=batch_size)


def test_no_points_are_refused():
    with pytest.raises(ValueError, match=r"^x: shape \(0, 4, 4, 1\) is not allowed"):
        attacks.robust_accuracy(F, X[:0], Y[:0], KEY, attack=attack, batch_size=1)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_only_the_points_given_are_attacked_in_batches_of_one_size(batch_size):
    among, sizes, seen = np.arange(30) % 3 > 0, set(), []

    def watched(logits_fn, x, y, key):
        sizes.add(len(x))
        seen.extend(np.asarray(x))
        return attack(logits_fn, x, y, key)

    robust = attacks.withstand(F, X, Y, KEY, among=among, attack=watched, batch_size=batch_size)
    whole = attacks.robust_accuracy(F, X, Y, KEY, attack=attack, batch_size=30)
    np.testing.assert_array_equal(robust, whole.robust & among)
    assert robust.any()
    assert (whole.robust & ~among).any()
    assert sizes == {min(batch_size, 30)}
    given = {x.tobytes() for x in np.asarray(X)[among]}
    assert {x.tobytes() for x in seen} == given


def test_no_points_among_them_are_no_work():
    none = np.zeros(30, bool)
    refused = partial(attacks.pgd, epsilon=-1)
    robust = attacks.withstand(F, X, Y, KEY, among=none, attack=refused, batch_size=8)
    np.testing.assert_array_equal(robust, none)


def test_a_batch_of_no_points_is_refused():
    with pytest.raises(ValueError, match=r"^batch_size: 0 is out of range"):
        attacks.withstand(F, X, Y, KEY, among=np.ones(30, bool), attack=attack, batch_size=0)
