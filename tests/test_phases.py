from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from resumable import flat

from ntklib import attacks, data, least_squares, linear, models, ntk, phases, training
from ntklib.recipes import Solve

PGD = attacks.partial(attacks.pgd, epsilon=0.1, steps=2)
FGSM = attacks.partial(attacks.fgsm, epsilon=0.1)
SMOOTHED = attacks.smoothed(PGD, models.get("cnn_mnist", n_classes=10, softplus=5.0))
RECIPE = training.Recipe(epochs=2, optimizer=training.SGD(0.1), batch_size=30, loss="ce")
STUDY = phases.Study("cnn_mnist", phases.Images("digits", 60), [3, 5], RECIPE)
ADVERSARIAL = {"adversary": PGD, "clean_first": True}


@pytest.fixture(scope="module")
def split():
    return data.load("digits", n_train=60, n_test=20).train


def by_hand(split, seed, *, order=0, start=None, epochs=2, **options):
    key = jax.random.key(seed)
    start = STUDY.model.init(key, split.x[:1]) if start is None else start
    return training.fit(
        STUDY.model,
        start,
        split,
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
    for epoch, variables in expected.items():
        np.testing.assert_allclose(flat(run[epoch]), flat(variables), rtol=rtol, atol=rtol / 20)


@pytest.mark.parametrize(
    "changes", [{"epochs": 4}, ADVERSARIAL, {"adversary": PGD}, {"adversary": FGSM}]
)
def test_the_first_phase_is_a_training_of_each_seed(split, changes):
    for seed, run in zip(STUDY.seeds, phases.make(STUDY.learn(**changes)), strict=True):
        kept = by_hand(split, seed, **changes)
        assert sorted(run.epochs) == sorted({0, 1, 2, max(kept)})
        assert_same(run, {epoch: kept[epoch] for epoch in run.epochs})


def test_another_order_and_another_start(split):
    standard = STUDY.learn(epochs=4)
    other = STUDY.learn(order=1)
    later = STUDY.learn(start=standard, after=1, epochs=1, **ADVERSARIAL)
    made = phases.make({"later": later, "standard": standard, "other": other})
    first, second = made["standard"]
    assert_same(made["other"][1], by_hand(split, 5, order=1))
    assert not np.allclose(flat(made["other"][1][1]), flat(second[1]))
    expected = by_hand(split, 3, epochs=1, start=first[1], **ADVERSARIAL)
    assert sorted(made["later"][0].epochs) == [1, 2]
    assert_same(made["later"][0], {e + 1: variables for e, variables in expected.items()})


def test_options_are_those_of_the_network_in_both_phases():
    smooth = replace(STUDY, seeds=[3], options=(("softplus", 10.0),))
    learnt = smooth.learn(adversary=FGSM)
    fixed = smooth.fix(learnt, 1, n_curvature=20, keep=(1,))
    [run], [lazy] = phases.make((learnt, fixed))
    network = models.get("cnn_mnist", n_classes=10, softplus=10.0)
    assert run.model is network is smooth.model
    assert str(network) in lazy.model.name
    assert sorted(lazy.epochs) == [1, 2]
    assert learnt[0].name != replace(smooth, options=()).learn(adversary=FGSM)[0].name


def test_the_second_phase_may_have_fewer_images_and_has_no_augmentation():
    watched = {"augmentation": training.Augmentation(), "watch": training.Watch(FGSM)}
    study = replace(STUDY, recipe=replace(RECIPE, **watched))
    fewer = phases.Images("digits", 40)
    learnt = study.learn()
    fixed = study.fix(learnt, 2, n_curvature=20, images=fewer)
    assert [each.images for each in fixed] == [fewer, fewer]
    assert all(each.tangent.training.images == STUDY.images for each in fixed)
    assert {(each.recipe.augmentation, each.recipe.watch) for each in fixed} == {(None, None)}
    plain = study.fix(learnt, 2, n_curvature=20)
    assert fixed[0].name != plain[0].name
    assert [each.images for each in plain] == [STUDY.images] * 2


@pytest.mark.parametrize(
    ("epochs", "times"), [(4, range(5)), (20, range(21)), (100, range(0, 101, 5))]
)
def test_the_first_phase_is_looked_at_at_most_21_times(epochs, times):
    study = replace(STUDY, recipe=replace(RECIPE, epochs=epochs))
    assert study.times.tolist() == list(times)
    assert study.nearest([0, 0.26, 1]) == [
        0,
        min(times, key=lambda t: abs(t - 0.26 * epochs)),
        epochs,
    ]


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("changes", [{}, ADVERSARIAL, {"adversary": SMOOTHED, "clean_first": True}])
def test_the_second_phase_trains_the_linear_model_at_a_rate_of_its_kernel(split, centered, changes):
    images = split.balanced(20).x
    learnt = STUDY.learn()
    fixed = {
        epoch: STUDY.fix(learnt, epoch, n_curvature=20, centered=centered, epochs=2, **changes)
        for epoch in (0, 2)
    }
    learnt, fixed = phases.make((learnt, fixed))
    for epoch, of_seeds in fixed.items():
        for seed, run, lazy in zip(STUDY.seeds, learnt, of_seeds, strict=True):
            tangent = run[epoch]
            rate = 1 / curvature(STUDY.model, tangent, images)
            expected = training.fit(
                linear.linearize(STUDY.model, tangent, centered=centered),
                tangent,
                split,
                jax.random.key(seed),
                epochs=2,
                optimizer=optax.sgd(rate, momentum=0.9),
                batch_size=30,
                loss="ce",
                **changes,
            ).variables
            assert_same({0: lazy.last}, {0: expected}, rtol=5e-4)
            ours = ntk.gram(lazy.model, lazy.last, images)
            theirs = ntk.gram(STUDY.model, tangent, images)
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(ours.max()))


@pytest.mark.parametrize("centered", [True, False])
def test_the_second_phase_may_be_solved_with_a_ridge_in_units_of_the_curvature(split, centered):
    learnt = STUDY.learn()
    recipe = Solve(iterations=4, ridge=0.1)
    fixed = STUDY.fix(learnt, 2, n_curvature=20, centered=centered, keep=[2], solve=recipe)
    learnt, fixed = phases.make((learnt, fixed))
    for run, lazy in zip(learnt, fixed, strict=True):
        tangent = run[2]
        h = curvature(STUDY.model, tangent, split.balanced(20).x)
        scaled = replace(recipe, ridge=0.1 * h)
        expected = least_squares.solve(
            STUDY.model, tangent, split, recipe=scaled, centered=centered, keep=[2]
        )
        assert sorted(lazy.epochs) == [2, 4]
        assert_same(lazy, {2: expected.kept[2], 4: expected.variables}, rtol=5e-4)
        np.testing.assert_allclose(lazy.history.residual, expected.residual, rtol=1e-3)
        assert "linearize" in lazy.model.name


def test_a_folder_keeps_what_is_solved(tmp_path):
    learnt = STUDY.learn()
    [fixed, other] = STUDY.fix(learnt, 1, n_curvature=20, solve=Solve(iterations=2))
    whole = fixed.run(tmp_path)
    assert (tmp_path / f"{fixed.name}.msgpack").exists()
    assert "/fixed-1-solved-2-iterations-" in fixed.name
    assert len({fixed.name, other.name, replace(fixed, recipe=Solve(iterations=3)).name}) == 3
    again = fixed.run(tmp_path)
    np.testing.assert_array_equal(flat(again.last), flat(whole.last))
    assert again.history.residual == whole.history.residual


def test_only_a_linearisation_is_solved():
    [learnt, _] = STUDY.learn()
    with pytest.raises(ValueError, match=r"^recipe: a Solve is of a linearisation"):
        replace(learnt, recipe=Solve(iterations=2))
    with pytest.raises(ValueError, match=r"^solve: has no epochs, adversary; give one"):
        STUDY.fix([learnt], 1, n_curvature=20, solve=Solve(iterations=2), epochs=2, adversary=PGD)


def both_phases():
    learnt = STUDY.learn(adversary=FGSM)
    return learnt, STUDY.fix(learnt, 1, n_curvature=20, epochs=1)


def test_a_folder_keeps_the_trainings_of_both_phases(tmp_path):
    def run():
        [*_], [after, _] = phases.make(both_phases(), tmp_path)
        files = sorted(tmp_path.rglob("*.msgpack"))
        return flat(after.last), [(f, f.stat().st_mtime_ns) for f in files]

    (first, files), (again, later) = run(), run()
    learnt, fixed = both_phases()
    assert {f for f, _ in files} == {tmp_path / f"{t.name}.msgpack" for t in (*learnt, *fixed)}
    assert files == later
    np.testing.assert_array_equal(first, again)


def test_a_training_alone_makes_what_it_starts_from(tmp_path):
    _learnt, [fixed, _] = both_phases()
    alone = fixed.run(tmp_path).last
    assert len(list(tmp_path.rglob("*.msgpack"))) == 2
    np.testing.assert_array_equal(flat(alone), flat(phases.make(both_phases())[1][0].last))


@pytest.mark.parametrize("content", [b"no checkpoint", None])
def test_a_file_of_another_program_is_made_anew(tmp_path, content):
    """Such as one of a version in which the recipe meant something else."""
    [wanted, _] = STUDY.learn()
    if content is None:
        [other, _] = STUDY.learn(optimizer=training.SGD(0.2))
        other.run(tmp_path)
        content = (tmp_path / f"{other.name}.msgpack").read_bytes()
    path = tmp_path / f"{wanted.name}.msgpack"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    np.testing.assert_array_equal(flat(wanted.run(tmp_path).last), flat(wanted.run().last))


def test_names_are_readable_and_tell_all_trainings_apart():
    learnt = STUDY.learn(epochs=4)
    others = [
        STUDY.learn(epochs=4, order=1),
        STUDY.learn(epochs=4, optimizer=training.SGD(0.2)),
        STUDY.learn(epochs=4, start=learnt, after=1),
        STUDY.learn(epochs=4, **ADVERSARIAL),
        STUDY.learn(epochs=4, adversary=PGD),
        STUDY.learn(epochs=4, adversary=attacks.partial(PGD, epsilon=0.2)),
        STUDY.fix(learnt, 1, n_curvature=20),
        STUDY.fix(learnt, 2, n_curvature=20),
        STUDY.fix(learnt, 2, n_curvature=10),
        STUDY.fix(learnt, 2, n_curvature=10, centered=False),
        replace(STUDY, images=phases.Images("digits", 60, 2)).learn(epochs=4),
    ]
    names = [training.name for of_seeds in (learnt, *others) for training in of_seeds]
    assert len(set(names)) == len(names)
    again = STUDY.learn(epochs=4)
    assert [t.name for t in again] == names[:2]
    assert again == learnt
    folder = names[0].rpartition("/")[0]
    assert names[:2] == [f"{folder}/seed-3", f"{folder}/seed-5"]
    assert names[0].startswith("digits-60/cnn_mnist/standard-4-epochs-")
    assert "0x" not in repr(others[3][0])  # an address would be another one each time


def test_an_image_is_attacked_as_long_as_it_withstands():
    test = data.load("digits", n_train=60, n_test=40).test
    classifiers = [run.logits_fn(4) for run in phases.make(STUDY.learn(epochs=4))]
    strong, attacked = attacks.partial(PGD, epsilon=0.2, step_size=0.125), []

    def watched(logits_fn, x, y, key):
        attacked.append(len(x))
        assert attacks.correct(logits_fn(x), y).all()
        return strong(logits_fn, x, y, key)

    clean, first, both = STUDY.withstood(classifiers, test, FGSM, watched)
    for i, (logits_fn, seed) in enumerate(zip(classifiers, STUDY.seeds, strict=True)):
        of_all = [
            attacks.robust_accuracy(
                logits_fn, test.x, test.y, jax.random.key(seed), attack=a, batch_size=40
            )
            for a in (FGSM, strong)
        ]
        np.testing.assert_array_equal(clean[i], of_all[0].clean)
        np.testing.assert_array_equal(first[i], of_all[0].robust)
        np.testing.assert_array_equal(both[i], first[i] & of_all[1].robust)
    assert 0 < both.sum() < first.sum() < clean.sum() < clean.size
    assert len(attacked) == 2  # whole batches of those left, one for each seed
