from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from resumable import flat

from ntklib import attacks, data, linear, models, ntk, phases, training

PGD = partial(attacks.pgd, epsilon=0.1, steps=2, step_size=0.125)
SMOOTH = models.get("cnn_mnist", n_classes=10, softplus=5.0)
FGSM = partial(attacks.pgd, epsilon=0.1, steps=1, step_size=0.1, random_start=False)


@pytest.fixture(scope="module")
def study():
    split = data.load("digits", n_train=60, n_test=20).train
    model = models.get("cnn_mnist", n_classes=10)
    return phases.Study(
        model,
        split,
        [3, 5],
        epsilon=0.1,
        attack_steps=2,
        epochs=2,
        learning_rate=0.1,
        batch_size=30,
        smooth=SMOOTH,
    )


@pytest.fixture(scope="module")
def starts(study):
    """Where the networks of the seeds start, and the learning rates on their kernels there."""
    variables = [study.model.init(jax.random.key(s), study.train.x[:1]) for s in study.seeds]
    images = study.train.balanced(20).x
    return variables, [1 / curvature(study.model, v, images) for v in variables]


def by_hand(study, seed, epochs, *, order=0, start=None, **options):
    key = jax.random.key(seed)
    start = study.model.init(key, study.train.x[:1]) if start is None else start
    return training.fit(
        study.model,
        start,
        study.train,
        jax.random.fold_in(key, order) if order else key,
        epochs=epochs,
        optimizer=optax.sgd(0.1, momentum=0.9),
        batch_size=30,
        loss="ce",
        keep=range(epochs + 1),
        **options,
    ).kept


def curvature(model, tangent, images):
    """Largest eigenvalue of the Hessian of the loss at f = 0, by power iteration."""
    start, unravel = ravel_pytree(tangent["params"])
    centred = linear.linearize(model, tangent, centered=True)
    y = jnp.arange(len(images)) % 10  # whatever the labels, the Hessian there is the same

    def loss(flat_params):
        logits = centred.apply({"params": unravel(flat_params)}, images)
        return jnp.mean(attacks.loss_per_point(logits, y, "ce"))

    @jax.jit
    def product(v):
        return jax.jvp(jax.grad(loss), (start,), (v,))[1]

    v = jax.random.normal(jax.random.key(0), start.shape)
    for _ in range(60):
        w = product(v / jnp.linalg.norm(v))
        v = w
    return float(jnp.linalg.norm(w))


def assert_same(run, expected, rtol=2e-5):
    assert sorted(run) == sorted(expected)
    for epoch, variables in run.items():
        np.testing.assert_allclose(
            flat(variables), flat(expected[epoch]), rtol=rtol, atol=rtol / 20
        )


@pytest.mark.parametrize(
    ("kind", "epochs", "options"),
    [
        ("standard", 4, {}),
        ("adversarial", 2, {"adversary": PGD, "clean_first": True}),
        ("plain adversarial", 2, {"adversary": PGD}),
        ("plain FGSM", 2, {"adversary": FGSM}),
    ],
)
def test_the_first_phase_is_a_training_of_each_seed(study, kind, epochs, options):
    found = study.learn("plain FGSM", kind)
    assert list(found) == list(dict.fromkeys(["plain FGSM", kind]))
    for seed, run in zip(study.seeds, found[kind], strict=True):
        assert_same(run, by_hand(study, seed, epochs, **options))


def test_another_order_and_another_start(study):
    first, second = study.learn("standard")["standard"]
    _, other = study.learn("standard", order=1)["standard"]
    assert_same(other, by_hand(study, 5, 4, order=1))
    assert not np.allclose(flat(other[1]), flat(second[1]))
    later = study.learn("adversarial", starts=[first[1], second[1]], after=1)["adversarial"]
    expected = by_hand(study, 3, 1, start=first[1], adversary=PGD, clean_first=True)
    assert_same(later[0], {epoch + 1: variables for epoch, variables in expected.items()})


@pytest.mark.parametrize(
    ("epochs", "times"), [(4, range(5)), (20, range(21)), (100, range(0, 101, 5))]
)
def test_the_first_phase_is_looked_at_at_most_21_times(study, epochs, times):
    of_length = phases.Study(study.model, study.train, [0], 0.1, 2, epochs, 0.1, 30)
    assert of_length.times.tolist() == list(times)


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("standard", {}),
        ("adversarial", {"adversary": PGD, "clean_first": True}),
        ("smoothed adversarial", {"adversary": phases.smoothed(PGD, SMOOTH), "clean_first": True}),
    ],
)
def test_the_second_phase_trains_the_linear_model_at_a_rate_of_its_kernel(
    study, starts, centered, kind, options
):
    keys = [jax.random.key(seed) for seed in study.seeds]
    images = study.train.balanced(20).x
    tangents, rates = ({"start": of_seeds, "swapped": of_seeds[::-1]} for of_seeds in starts)
    passes = {"start": 2, "swapped": 1}
    found = study.fix(tangents, images, kind=kind, epochs=passes, centered=centered)
    assert list(found) == ["start", "swapped"]
    for name, of_seeds in tangents.items():
        for tangent, rate, key, (model, variables) in zip(
            of_seeds, rates[name], keys, found[name], strict=True
        ):
            expected = training.fit(
                linear.linearize(study.model, tangent, centered=centered),
                tangent,
                study.train,
                key,
                epochs=passes[name],
                optimizer=optax.sgd(rate, momentum=0.9),
                batch_size=30,
                loss="ce",
                **options,
            ).variables
            assert_same({0: variables}, {0: expected}, rtol=5e-4)
            ours, theirs = (ntk.gram(m, tangent, images) for m in (model, study.model))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(ours.max()))


def test_a_store_keeps_the_runs_of_both_phases(study, tmp_path):
    stored = phases.Study(study.model, study.train, [3], 0.1, 2, 2, 0.1, 30, tmp_path / "runs")

    def both():
        [run] = stored.learn("plain FGSM")["plain FGSM"]
        [after] = stored.fix({0: [run[2]]}, study.train.x[:10], kind="standard", epochs=1)[0]
        files = sorted((tmp_path / "runs").iterdir())
        return flat(run[2]), flat(after.variables), [(f, f.stat().st_mtime_ns) for f in files]

    first, again = both(), both()
    assert len(first[2]) == 2
    for x, y in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_classifier_is_its_model_at_its_variables(study):
    variables = study.model.init(jax.random.key(0), study.train.x[:1])
    classifier = phases.Classifier(study.model, variables)
    logits = study.model.apply(variables, study.train.x)
    np.testing.assert_allclose(classifier.logits_fn(study.train.x), logits)


def test_an_image_is_attacked_as_long_as_it_withstands(study):
    test = data.load("digits", n_train=60, n_test=40).test
    runs = study.learn("standard")["standard"]
    classifiers = [phases.Classifier(study.model, run[4]) for run in runs]
    strong, attacked = partial(PGD, epsilon=0.2), []

    def watched(logits_fn, x, y, key):
        attacked.append(len(x))
        assert attacks.correct(logits_fn(x), y).all()
        return strong(logits_fn, x, y, key)

    clean, first, both = study.withstood(classifiers, test, FGSM, watched)
    for i, (classifier, seed) in enumerate(zip(classifiers, study.seeds, strict=True)):
        of_all = [
            attacks.robust_accuracy(
                classifier.logits_fn, test.x, test.y, jax.random.key(seed), attack=a, batch_size=40
            )
            for a in (FGSM, strong)
        ]
        np.testing.assert_array_equal(clean[i], of_all[0].clean)
        np.testing.assert_array_equal(first[i], of_all[0].robust)
        np.testing.assert_array_equal(both[i], first[i] & of_all[1].robust)
    assert 0 < both.sum() < first.sum() < clean.sum() < clean.size
    assert len(attacked) == 2  # whole batches of those left, one for each seed


def test_unknown_kinds_are_refused(study):
    with pytest.raises(ValueError, match=r"^kind: 'robust' is unknown; it is one of standard, adv"):
        study.learn("robust")


def test_the_attack_has_steps_of_two_and_a_half_radii_over_their_number(study):
    attack = study.attack(5)
    assert attack.keywords == {"epsilon": 0.1, "steps": 5, "step_size": pytest.approx(0.05)}
    moved = attack(
        partial(study.model.apply, study.model.init(jax.random.key(0), study.train.x[:1])),
        study.train.x,
        study.train.y,
        jax.random.key(0),
    )
    np.testing.assert_allclose(jnp.abs(moved - study.train.x).max(), 0.1, rtol=1e-6)


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
    step = linear.linearize(model(jax.nn.relu), tangent, centered=True)
    classifier = phases.Classifier(step, variables)
    x, y = jnp.array([0.3, 0.45]).reshape(2, 1, 1, 1), jnp.zeros(2, jnp.int32)
    np.testing.assert_allclose(classifier.logits_fn(x), [[-0.5], [-0.5]])
    np.testing.assert_allclose(classifier.logits_fn(x + 0.3), [[0.5], [0.5]])
    attack = partial(attacks.pgd, epsilon=0.1, steps=5, step_size=0.05, random_start=False)
    seeing = phases.smoothed(attack, model(lambda z: jax.nn.softplus(50 * z) / 50))
    for how, found in ((attack, [0, 0]), (seeing, [0, 1])):
        crafted = how(classifier.logits_fn, x, y, jax.random.key(0))
        wrong = ~attacks.correct(classifier.logits_fn(crafted), y)
        np.testing.assert_array_equal(wrong, found)
