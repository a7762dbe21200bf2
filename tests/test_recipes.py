"""Recipes are values, and each of their parts does what it says."""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resumable import flat, normalised, split

from ntklib import attacks, linear, models, training
from ntklib.data import Split
from ntklib.recipes import Protocol, protocol
from ntklib.training import SGD, Augmentation, Recipe


def start(model, data):
    return model.init(jax.random.key(1), data.x[:1])


def fit(model, data, **options):
    options = {"epochs": 3, "optimizer": SGD(0.1), "batch_size": 8, "loss": "ce"} | options
    return training.fit(model, start(model, data), data, jax.random.key(0), **options)


def test_equal_recipes_are_equal_print_alike_and_compile_once():
    def make():
        adversary = attacks.partial(attacks.pgd, epsilon=0.1, steps=2)
        augmentation = Augmentation(frame=1)
        return Recipe(epochs=1, optimizer=SGD(0.1), adversary=adversary, augmentation=augmentation)

    assert make() == make()
    assert hash(make()) == hash(make())
    assert repr(make()) == repr(make())
    model, data = normalised(), split(n=12)
    sizes = []
    for recipe in (make(), make(), replace(make(), optimizer=SGD(0.2))):
        training.fit(model, start(model, data), data, jax.random.key(0), recipe=recipe)
        sizes.append(training._update._cache_size())
    assert sizes[0] == sizes[1] == sizes[2]


def test_a_recipe_and_its_values_are_one_thing():
    model, data = normalised(), split(n=16)
    recipe = Recipe(epochs=5, optimizer=SGD(0.1), batch_size=8, loss="ce")
    whole = training.fit(
        model, start(model, data), data, jax.random.key(0), recipe=recipe, epochs=3
    )
    np.testing.assert_array_equal(flat(whole.variables), flat(fit(model, data).variables))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1] * 20),
        ("step", [1] * 10 + [0.1] * 5 + [0.01] * 5),
        ("cyclic", [*np.arange(8) / 8, *1 - np.arange(12) / 12]),
    ],
)
def test_schedules(schedule, expected):
    rate = SGD(0.3, schedule=schedule).rate(20)
    np.testing.assert_allclose([rate(k) for k in range(20)], 0.3 * np.array(expected), rtol=1e-5)


@pytest.mark.parametrize("schedule", ["step", "cyclic"])
def test_a_schedule_is_that_of_optax_over_all_updates(schedule):
    """With weight decay, and two updates a batch."""
    model, data = normalised(), split(n=16)

    def attack(logits_fn, x, y, key):
        return x + 0.01 * jnp.sign(attacks.input_gradient(logits_fn, x, y))

    sgd = SGD(0.2, momentum=0.5, weight_decay=0.01, schedule=schedule)
    theirs = optax.chain(
        optax.add_decayed_weights(0.01), optax.sgd(sgd.rate(3 * 2 * 2), momentum=0.5)
    )
    ours, expected = (
        fit(model, data, optimizer=optimizer, adversary=attack, clean_first=True)
        for optimizer in (sgd, theirs)
    )
    np.testing.assert_allclose(flat(ours.variables), flat(expected.variables), rtol=2e-5, atol=1e-6)


def test_a_schedule_goes_on_from_a_checkpoint_and_not_with_other_epochs(tmp_path):
    model, data = normalised(), split(n=16)
    options = {"optimizer": SGD(0.2, schedule="cyclic"), "averaging": 0.9}

    def stop(step, variables):
        if step == 5:  # in the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, data, checkpoint=tmp_path / "run", on_step=stop, **options)
    resumed = fit(model, data, checkpoint=tmp_path / "run", **options)
    np.testing.assert_array_equal(
        flat(resumed.variables), flat(fit(model, data, **options).variables)
    )
    with pytest.raises(training.CheckpointError, match="other learning rate"):
        fit(model, data, checkpoint=tmp_path / "run", epochs=4, **options)


@given(
    n=st.integers(1, 4), side=st.integers(1, 5), frame=st.integers(0, 3), seed=st.integers(0, 99)
)
def test_augmented_images_are_flipped_windows_of_the_framed_image(n, side, frame, seed):
    x = jax.random.uniform(jax.random.key(seed), (n, side, side + 1, 2), minval=0.1)
    out = np.asarray(Augmentation(frame=frame)(x, jax.random.key(seed + 100)))
    assert out.shape == x.shape
    for image, found in zip(np.asarray(x), out, strict=True):
        framed = np.pad(image, ((frame, frame), (frame, frame), (0, 0)))
        windows = [
            view[i : i + side, j : j + side + 1]
            for view in (framed, framed[:, ::-1])
            for i in range(2 * frame + 1)
            for j in range(2 * frame + 1)
        ]
        assert any(np.array_equal(found, window) for window in windows)


def test_flips_and_places_are_uniform():
    x = jnp.zeros((9000, 3, 3, 1)).at[:, 1, 0].set(1.0)
    out = np.asarray(Augmentation(frame=1)(x, jax.random.key(0))).sum(axis=(0, 3)) / 9000
    # From the left or right column of the middle row, moved by -1, 0 or 1 either way.
    np.testing.assert_allclose(out, np.tile([1 / 18, 1 / 9, 1 / 18], (3, 1)), atol=0.012)
    unflipped = np.asarray(Augmentation(flips=False, frame=0)(x, jax.random.key(0)))
    np.testing.assert_array_equal(unflipped, x)


def test_both_updates_of_a_batch_see_one_augmented_batch_and_each_batch_another():
    seen = []
    clean = models.Model(
        init=lambda key, x: {"params": {"w": jnp.zeros(())}},
        apply=lambda v, x: v["params"]["w"] * x.reshape(len(x), -1)[:, :1],
        apply_train=lambda v, x, key: (
            jax.debug.callback(lambda z: seen.append(np.asarray(z)), x, ordered=True)
            or (v["params"]["w"] * x.reshape(len(x), -1)[:, :1], {})
        ),
    )
    fit(
        clean,
        split(n=16),
        loss="mse",
        adversary=lambda f, x, y, key: x,
        clean_first=True,
        augmentation=Augmentation(frame=1),
    )
    jax.effects_barrier()
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    assert len(pairs) == 6
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert len({a.tobytes() for a, _ in pairs}) == 6


def test_averaged_weights_and_statistics():
    model, data, steps = normalised(), split(n=16), []
    plain = fit(model, data, on_step=lambda step, v: steps.append(flat(v)))
    average = flat(start(model, data)).astype(float)
    for k, variables in enumerate(steps, 1):
        weight = min(0.5, (1 + k) / (10 + k))
        average = weight * average + (1 - weight) * variables
    averaged = fit(model, data, averaging=0.5, keep=[3])
    np.testing.assert_allclose(flat(averaged.variables), average, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(flat(averaged.kept[3]), flat(averaged.variables))
    np.testing.assert_allclose(averaged.loss, plain.loss)  # the training is the same


class Dropped(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(self.rate, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(2)(x)


def test_dropout_trains_with_other_units_each_time():
    """With all units dropped only the bias learns; with half of them, the run has its key's."""
    data = split(n=16)
    end = fit(models.from_flax(Dropped(1.0)), data).variables["params"]["Dense_0"]
    begin = start(models.from_flax(Dropped(1.0)), data)["params"]["Dense_0"]
    np.testing.assert_array_equal(end["kernel"], begin["kernel"])
    assert not np.allclose(end["bias"], begin["bias"])
    half = models.from_flax(Dropped(0.5))
    a, b, none = (fit(model, data) for model in (half, half, models.from_flax(Dropped(0.0))))
    np.testing.assert_array_equal(flat(a.variables), flat(b.variables))
    assert not np.allclose(flat(a.variables), flat(none.variables))
    assert len({round(loss, 6) for loss in a.loss}) == 3


def test_complex_parameters_descend():
    class Complex(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.param("w", lambda key, shape: 0.3j * jnp.ones(shape, jnp.complex64), (9, 3))
            return jnp.abs(x.reshape(len(x), -1) @ w)

    data, model = split(n_classes=3), models.from_flax(Complex())
    history = training.fit(
        model, start(model, data), data, jax.random.key(0), epochs=20, optimizer=SGD(0.1), loss="ce"
    )
    assert history.loss[-1] < history.loss[0] - 0.01


def test_a_key_in_the_state_of_the_optimiser_is_saved_and_comes_back(tmp_path):
    model, data = normalised(), split(n=16)
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1))

    def stop(step, variables):
        if step == 5:
            raise KeyboardInterrupt

    for how in ({"checkpoint": tmp_path / "run"}, {"store": tmp_path / "runs"}):
        with pytest.raises(KeyboardInterrupt):
            fit(model, data, optimizer=noisy, on_step=stop, **how)
        resumed = fit(model, data, optimizer=noisy, **how)
        plain = fit(model, data, optimizer=noisy)
        np.testing.assert_array_equal(flat(resumed.variables), flat(plain.variables))


def loose(**arrays):
    """A split whose arrays nobody has looked at."""
    made = object.__new__(Split)
    for name, value in arrays.items():
        object.__setattr__(made, name, value)
    return made


GOOD = split(n=12, n_classes=3)


@pytest.mark.parametrize(
    ("y", "problem"),
    [
        (GOOD.y + 1, r"has labels from 1 to 3; they are 0 to 2"),
        (GOOD.y - 1, r"has labels from -1 to 1; they are 0 to 2"),
        (GOOD.y[:, None], r"shape \(12, 1\) is not allowed; labels of 12 points are \(12,\)"),
        (GOOD.y[:5], r"shape \(5,\) is not allowed"),
        (GOOD.one_hot(), r"shape \(12, 3\) is not allowed"),
        (GOOD.y.astype(float), r"dtype float32 is not allowed; labels are of an integer type"),
    ],
)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_labels_that_do_not_fit_are_refused_before_training(y, problem, batch_size):
    with pytest.raises(ValueError, match=rf"^data\.y: {problem}"):
        fit(normalised(), loose(x=GOOD.x, y=y, n_classes=3), batch_size=batch_size)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"epochs": 2.5}, "epochs: 2.5 is not whole"),
        ({"epochs": True}, "epochs: True is not allowed"),
        ({"batch_size": 0}, "batch_size: 0 is out of range"),
        ({"averaging": 1.0}, "averaging: 1.0 is out of range"),
    ],
)
def test_values_out_of_range_are_named(options, problem):
    with pytest.raises((TypeError, ValueError), match=f"^{problem}"):
        fit(normalised(), split(), **options)


def test_what_has_one_meaning_is_accepted():
    model, data = normalised(), split(n=16)
    same = fit(model, data, epochs=np.int64(3), batch_size=jnp.array(8))
    np.testing.assert_array_equal(flat(same.variables), flat(fit(model, data).variables))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: SGD(-1.0), "learning_rate: -1 is out of range"),
        (lambda: SGD(0.1, momentum=1.0), "momentum: 1.0 is out of range"),
        (lambda: SGD(0.1, weight_decay=-1.0), "weight_decay: -1 is out of range"),
        (lambda: Augmentation(frame=-1), "frame: -1 is out of range"),
    ],
)
def test_parts_out_of_range_are_named(make, problem):
    with pytest.raises(ValueError, match=f"^{problem}"):
        make()


def test_models_that_do_not_return_one_array_are_named():
    for apply, problem in (
        (lambda v, x: (x.reshape(len(x), -1)[:, :2], 0), "returns a tuple"),
        (lambda v, x: {"logits": x.reshape(len(x), -1)[:, :2]}, "returns a dict"),
    ):
        model = models.Model(lambda key, x: {"params": {}}, apply)
        with pytest.raises(TypeError, match=f"^logits: the classifier {problem}"):
            fit(model, split())


def test_an_augmented_linearisation_trains():
    data = Split(jax.random.uniform(jax.random.key(2), (16, 4, 4, 1)), jnp.arange(16) % 2, 2)
    model = normalised()
    lazy = linear.linearize(model, start(model, data), centered=True)
    losses = fit(lazy, data, augmentation=Augmentation(frame=1), epochs=10).loss
    assert losses[-1] < losses[0]


def separable(n):
    """Images whose label is whether they are bright."""
    y = np.arange(n, dtype=np.int32) % 2
    x = 0.4 * jax.random.uniform(jax.random.key(0), (n, 3, 3, 1)) + 0.6 * y[:, None, None, None]
    return Split(x, jnp.asarray(y), 2)


def test_a_training_that_loses_its_robustness_stops():
    """Against an attack that does nothing for two epochs and then turns images into negatives."""
    model, data, calls = normalised(), separable(80), []

    def attack(logits_fn, x, y, key):
        calls.append(len(x))
        return x if len(calls) < 3 else 1 - x

    message = r"epoch 3: accuracy under attack of 8 images .* fell from [01]\.\d+ to 0\.000"
    with pytest.raises(training.OverfittingError, match=message):
        fit(model, data, epochs=9, watch=training.Watch(attack, images=8))
    assert calls == [8, 8, 8]


def test_watched_images_are_not_trained_on_and_watching_changes_nothing():
    model, data = normalised(), separable(80)
    watch = training.Watch(attacks.partial(attacks.fgsm, epsilon=0.01), images=8)
    found = fit(model, data, epochs=4, watch=watch)
    rest = fit(model, Split(data.x[:-8], data.y[:-8], 2), epochs=4)
    np.testing.assert_array_equal(flat(found.variables), flat(rest.variables))
    assert len(found.watched) == 4
    assert rest.watched == []
    f = linear.bind(model.apply, found.variables)
    under = watch.attack(f, data.x[-8:], data.y[-8:], None)
    assert found.watched[-1] == float(jnp.mean(attacks.correct(f(under), data.y[-8:])))


def test_at_most_a_tenth_is_watched_and_there_has_to_be_one():
    kept = []

    def attack(logits_fn, x, y, key):
        kept.append(len(x))
        return x

    fit(normalised(), separable(80), watch=training.Watch(attack))
    assert set(kept) == {8}
    with pytest.raises(ValueError, match="watch: a tenth of the 9 images of data is none"):
        fit(normalised(), separable(9), watch=training.Watch(attack))


def test_watched_accuracies_survive_an_interruption(tmp_path):
    watch = training.Watch(attacks.partial(attacks.fgsm, epsilon=0.01), images=8)
    options = {"watch": watch, "checkpoint": tmp_path / "run"}
    fit(normalised(), separable(80), epochs=2, **options)
    resumed = fit(normalised(), separable(80), epochs=4, **options)
    assert resumed.watched == fit(normalised(), separable(80), epochs=4, watch=watch).watched


def test_recalibrated_statistics_are_those_of_the_images():
    """Batches that are all alike: the averages go to their mean and variance as 1 - 0.9^k."""
    model = normalised()
    x = jnp.tile(jax.random.uniform(jax.random.key(0), (250, 3, 3, 1)), (60, 1, 1, 1))
    before = model.init(jax.random.key(1), x[:1])
    after = training.recalibrate(model, before, x, jax.random.key(2))
    np.testing.assert_array_equal(flat(after["params"]), flat(before["params"]))
    layer = before["params"]["Dense_0"]
    hidden = x[:250].reshape(250, -1) @ layer["kernel"] + layer["bias"]
    left = 0.9**60
    [found] = after["batch_stats"].values()
    np.testing.assert_allclose(found["mean"], (1 - left) * hidden.mean(0), rtol=1e-4)
    np.testing.assert_allclose(found["var"], (1 - left) * hidden.var(0) + left, rtol=1e-4)


def test_a_model_without_statistics_is_left_as_it_is():
    model = models.get("mlp", n_classes=2)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 3, 3, 1)))
    x = jnp.zeros((4, 3, 3, 1))
    assert training.recalibrate(model, variables, x, jax.random.key(2)) is variables


SIZES = {"epsilon": 0.1, "epochs": 5, "batch_size": 8, "learning_rate": 0.2, "attack_steps": 3}


def test_the_official_protocol_is_that_of_its_source():
    pgd = attacks.partial(attacks.pgd, epsilon=0.1, steps=3)
    plain = Recipe(epochs=5, optimizer=SGD(0.2), batch_size=8, loss="ce")
    found = protocol("official", **SIZES)
    assert found == Protocol(plain, replace(plain, adversary=pgd, clean_first=True), 2)


def test_the_fast_protocol_differs_between_its_kinds_in_the_attack_only():
    found = protocol("fast", **SIZES)
    standard, adversarial = found.standard, found.adversarial
    one_step = attacks.partial(attacks.noisy_fgsm, epsilon=0.1)
    assert standard.optimizer == SGD(0.2, weight_decay=5e-4, schedule="cyclic")
    assert standard.augmentation == Augmentation()
    assert adversarial.watch.attack == attacks.partial(attacks.pgd, epsilon=0.1, steps=10)
    assert adversarial == replace(standard, adversary=one_step, watch=adversarial.watch)
    assert found.updates == 1


def test_an_unknown_protocol_is_refused():
    with pytest.raises(
        ValueError, match="protocol: 'slow' is unknown; allowed: 'official', 'fast'"
    ):
        protocol("slow", **SIZES)
