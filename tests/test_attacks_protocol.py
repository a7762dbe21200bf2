import copy
import functools
import inspect
import itertools
import pickle
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import images, labels, linear, smooth, weights
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial

from ntklib import attacks, models
from ntklib.linear import bind, linearize

PGD = attacks.partial(attacks.pgd, epsilon=0.1, steps=5, step_size=0.05)
SQUARE = attacks.partial(attacks.square, epsilon=0.1, queries=20)
RELU = models.get("cnn_mnist", n_classes=3)
SMOOTH = models.get("cnn_mnist", n_classes=3, softplus=20.0)


class Net(nn.Module):
    """A network for inputs of any shape."""

    activation: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(self.activation(nn.Dense(8)(x.reshape(len(x), -1))))


# --- one protocol ---


@pytest.mark.parametrize("shape", [(4, 4, 1), (16,)])
def test_all_attacks_are_called_alike_and_can_be_measured_and_combined(shape):
    x, y, key = images(12, shape=shape), labels(12, 4), jax.random.key(0)
    model, smooth_one = (models.from_flax(Net(act)) for act in (nn.relu, nn.softplus))
    f = bind(model.apply, model.init(key, x))
    each = [
        attacks.partial(attacks.fgsm, epsilon=0.1),
        attacks.partial(attacks.noisy_fgsm, epsilon=0.1),
        attacks.partial(attacks.random_sign, epsilon=0.1),
        PGD,
        attacks.partial(PGD, norm="l2", restarts=2),
        attacks.partial(attacks.apgd, epsilon=0.1, steps=5, restarts=2),
        attacks.partial(attacks.apgd_targeted, epsilon=0.1, steps=5, norm="l2"),
        attacks.smoothed(PGD, smooth_one),
        *([SQUARE] if len(shape) == 3 else []),
    ]
    for attack in (*each, attacks.ensemble(*each)):
        assert isinstance(attack, attacks.Attack)
        crafted = attack(f, x, y, key)
        assert crafted.shape == x.shape
        found = attacks.robust_accuracy(f, x, y, key, attack=attack, batch_size=12)
        mine = attack(f, x, y, jax.random.fold_in(key, 0))
        right = attacks.correct(f(x), y) & attacks.correct(f(mine), y)
        np.testing.assert_array_equal(found.robust, right)


def test_square_refuses_inputs_that_are_no_images():
    with pytest.raises(ValueError, match=r"^x: shape \(3, 16\) is not allowed; for squares it is"):
        SQUARE(Partial(linear, weights(2)), images(3, shape=(16,)), labels(3, 2), jax.random.key(0))


def test_the_key_of_fgsm_may_be_left_out_and_changes_nothing():
    f, x, y = Partial(smooth, weights(3)), images(8), labels(8, 3)
    without = attacks.fgsm(f, x, y, epsilon=0.1)
    for seed in range(2):
        found = attacks.fgsm(f, x, y, jax.random.key(seed), epsilon=0.1)
        np.testing.assert_array_equal(found, without)


def test_noise_does_not_look_at_the_classifier_and_the_labels():
    x, key = images(8), jax.random.key(0)
    noise = attacks.random_sign(None, x, None, key, epsilon=0.1)
    f = Partial(smooth, weights(3))
    np.testing.assert_array_equal(noise, attacks.random_sign(f, x, labels(8, 3), key, epsilon=0.1))


# --- attacks as values ---


def test_attacks_print_what_they_do():
    assert repr(PGD) == "pgd(epsilon=0.1, steps=5, step_size=0.05)"
    assert repr(attacks.partial(PGD, norm="l2", epsilon=1.0)) == (
        "pgd(epsilon=1, steps=5, step_size=0.05, norm='l2')"
    )
    both = attacks.ensemble(PGD, functools.partial(attacks.square, queries=20, epsilon=0.1))
    assert repr(both) == (
        "ensemble(attacks=(pgd(epsilon=0.1, steps=5, step_size=0.05), "
        "square(epsilon=0.1, queries=20)))"
    )
    assert repr(attacks.smoothed(attacks.fgsm, models.get("conv3", n_classes=2))) == (
        "smoothed(attack=fgsm, network=conv3(n_classes=2))"
    )


SETTINGS = {
    "epsilon": st.sampled_from([0.1, 1, 1.0, np.float32(0.1), np.float64(0.1), jnp.array([1.0])]),
    "steps": st.sampled_from([5, 5.0, np.int32(5), 7]),
    "clip": st.sampled_from([(0, 1), [0.0, 1.0], np.array([0.0, 1.0]), (0, 2), None]),
    "norm": st.sampled_from(["linf", "l2"]),
}


@given(*(st.fixed_dictionaries({}, optional=SETTINGS) for _ in range(2)), st.randoms())
def test_equal_attacks_hash_and_print_alike_and_others_do_not(first, second, random):
    def plain(settings):
        return {
            name: np.asarray(value).tolist() if name != "epsilon" else float(np.ravel(value)[0])
            for name, value in settings.items()
        }

    order = list(second.items())
    random.shuffle(order)
    a, b = attacks.partial(attacks.pgd, **first), attacks.partial(attacks.pgd, **dict(order))
    for make in (attacks.partial, attacks.ensemble, lambda each: attacks.smoothed(each, SMOOTH)):
        same = plain(first) == plain(second)
        assert (make(a) == make(b)) == same
        assert (repr(make(a)) == repr(make(b))) == same
        assert not same or hash(make(a)) == hash(make(b))
    for again in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert again == a
        assert type(again) is attacks.partial


def test_other_attacks_are_other_values():
    values = [
        attacks.pgd,
        functools.partial(attacks.pgd, epsilon=0.1, steps=5, step_size=0.05),
        PGD,
        attacks.partial(attacks.square, epsilon=0.1),
        attacks.partial(attacks.fgsm, epsilon=0.1),
        attacks.ensemble(PGD),
        attacks.ensemble(PGD, SQUARE),
        attacks.ensemble(SQUARE, PGD),
        attacks.smoothed(PGD, SMOOTH),
        attacks.smoothed(PGD, RELU),
    ]
    for a, b in itertools.combinations(values, 2):
        assert a != b
    assert "0x" not in "".join(map(repr, values[2:8]))


def test_a_setting_that_the_attack_does_not_have_is_refused_at_once():
    with pytest.raises(TypeError, match="unexpected keyword argument 'radius'"):
        attacks.partial(attacks.pgd, radius=0.1)


def test_equal_attacks_compile_once():
    traced = []

    @functools.partial(jax.jit, static_argnames="attack")
    def crafted(w, x, y, attack):
        traced.append(1)
        return attack(Partial(linear, w), x, y, jax.random.key(0))

    def make(epsilon):
        pgd = attacks.partial(attacks.pgd, steps=2, epsilon=epsilon)
        return attacks.ensemble(pgd, attacks.partial(attacks.square, epsilon=0.1, queries=3))

    for epsilon in (0.1, 0.1, np.float64(0.1)):
        crafted(weights(2), images(4), labels(4, 2), make(epsilon))
    assert len(traced) == 1
    crafted(weights(2), images(4), labels(4, 2), make(0.2))
    assert len(traced) == 2


def test_settings_are_those_of_a_partial_function():
    assert isinstance(PGD, functools.partial)
    assert attacks.partial(PGD, epsilon=0.3).keywords == PGD.keywords | {"epsilon": 0.3}
    assert attacks.partial(PGD, epsilon=0.3).func is attacks.pgd
    assert list(inspect.signature(PGD).parameters)[:4] == ["logits_fn", "x", "y", "key"]


# --- several attacks, and stand-ins ---


def test_an_ensemble_takes_for_each_image_the_first_attack_that_works():
    x, y = jnp.full((4, 1, 1, 1), 0.5), jnp.ones(4, jnp.int32)  # logit x - 0.4: all are correct
    keys = []

    def on(which, to):
        def attack(logits_fn, x, y, key):
            keys.append(key)
            return x.at[jnp.array(which)].set(to)

        return attack

    def logits_fn(x):
        return x.reshape(-1, 1) - 0.4

    attack = attacks.ensemble(on([0, 1], 0.1), on([1, 2], 0.2), on([3], 0.45))
    found = attack(logits_fn, x, y, jax.random.key(0))
    np.testing.assert_allclose(found.ravel(), [0.1, 0.1, 0.2, 0.45])
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == 3


def test_an_ensemble_needs_an_attack():
    with pytest.raises(ValueError, match=r"^attacks: there are none; give one or more"):
        attacks.ensemble()


def test_an_ensemble_leaves_no_more_than_its_best_member():
    x = jax.random.uniform(jax.random.key(0), (30, 2, 2, 1))
    y = jnp.arange(30) % 3
    weights = jax.random.normal(jax.random.key(1), (4, 3))
    members = [
        attacks.partial(attacks.pgd, epsilon=0.1, steps=3, step_size=0.05, loss="margin"),
        attacks.partial(attacks.square, epsilon=0.1, queries=20),
    ]

    def logits_fn(x):
        return x.reshape(len(x), -1) @ weights

    def withstood(attack):
        return attacks.robust_accuracy(
            logits_fn, x, y, jax.random.key(2), attack=attack, batch_size=30
        ).robust

    key = jax.random.fold_in(jax.random.key(2), 0)  # of the first batch
    right = [
        attacks.correct(logits_fn(member(logits_fn, x, y, k)), y)
        for member, k in zip(members, (key, jax.random.fold_in(key, 1)), strict=True)
    ]
    clean = attacks.correct(logits_fn(x), y)
    np.testing.assert_array_equal(
        withstood(attacks.ensemble(*members)), clean & right[0] & right[1]
    )


def test_through_a_smooth_network_an_attack_finds_the_jump_that_gradients_do_not_see():
    """Of relu(x - 1/2 + w) + b, linearised at w = b = 0 and taken at w = 1, b = -1/2, there is
    left a step of the height one, at 1/2.
    """

    def model(activation):
        def apply(variables, x):
            w, b = variables["params"]
            return activation(x.reshape(len(x), 1) - 0.5 + w) + b

        return models.Model(lambda *_: None, apply)

    tangent, variables = {"params": jnp.zeros(2)}, {"params": jnp.array([1.0, -0.5])}
    f = bind(linearize(model(jax.nn.relu), tangent, centered=True).apply, variables)
    x, y = jnp.array([[0.3], [0.45]]), jnp.zeros(2, jnp.int32)
    np.testing.assert_allclose(f(x), [[-0.5], [-0.5]])
    np.testing.assert_allclose(f(x + 0.3), [[0.5], [0.5]])
    attack = attacks.partial(PGD, random_start=False)
    seeing = attacks.smoothed(attack, model(lambda z: jax.nn.softplus(50 * z) / 50))
    for how, found in ((attack, [0, 0]), (seeing, [0, 1])):
        wrong = ~attacks.correct(f(how(f, x, y, jax.random.key(0))), y)
        np.testing.assert_array_equal(wrong, found)


def test_a_stand_in_needs_a_classifier_that_is_a_network_with_variables():
    with pytest.raises(TypeError, match=r"^logits_fn: a function is not allowed; for another netw"):
        attacks.smoothed(PGD, SMOOTH)(lambda x: x, images(3), labels(3, 2), jax.random.key(0))
