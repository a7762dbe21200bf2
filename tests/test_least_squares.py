import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import resumable
from resumable import flat

from ntklib import least_squares, linear, models, ntk, training
from ntklib.data import Split
from ntklib.recipes import Solve


@pytest.fixture
def net(x64):
    """A small network in double precision, and 30 images in 3 classes."""
    model = models.get("mlp", n_classes=3, width=16, depth=1)
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.uniform(keys[0], (30, 4, 4, 1))
    split = Split(images.astype(jnp.float32), jax.random.randint(keys[1], (30,), 0, 3, "int32"), 3)
    variables = jax.tree.map(lambda a: a.astype(float), model.init(keys[2], split.x))
    return model, variables, split


def in_kernel_space(net, ridge, centered):
    """The solution from the whole kernel, and targets less outputs at the tangent point."""
    model, variables, split = net
    n, x = len(split), split.x
    kernel = np.asarray(ntk.gram(model, variables, x, output="full"))
    b = np.eye(3)[np.asarray(split.y)] - 1 / 3
    b = b if centered else b - np.asarray(model.apply(variables, x))
    alpha = np.linalg.solve(kernel + n * ridge * np.eye(3 * n), b.ravel())
    test = jax.random.uniform(jax.random.key(9), (7, 4, 4, 1), jnp.float32)
    predicted = ntk.gram(model, variables, test, x, output="full") @ alpha
    outside = np.zeros((7, 3)) if centered else np.asarray(model.apply(variables, test))
    loss = (np.sum((kernel @ alpha - b.ravel()) ** 2) / n + ridge * alpha @ kernel @ alpha) / 2
    return test, outside + np.asarray(predicted).reshape(7, 3), loss


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_equals_regression_with_the_whole_kernel(net, ridge, centered):
    model, variables, split = net
    found = least_squares.solve(
        model, variables, split, recipe=Solve(iterations=300, ridge=ridge), centered=centered
    )
    test, expected, loss = in_kernel_space(net, ridge, centered)
    lazy = linear.linearize(model, variables, centered=centered)
    np.testing.assert_allclose(lazy.apply(found.variables, test), expected, atol=1e-8)
    assert found.loss[-1] == pytest.approx(loss, rel=1e-8)
    assert found.residual[-1] < 1e-8


def test_without_a_ridge_it_is_the_smallest_change_that_fits(net):
    """The images are fewer than the parameters, so they are fitted; of all fits it is the one that
    gradient descent from there has for a limit.
    """
    model, variables, split = net
    few = Split(split.x[:4], split.y[:4], 3)
    found = least_squares.solve(model, variables, few, recipe=Solve(iterations=100))
    test, expected, _ = in_kernel_space((model, variables, few), 1e-13, True)
    lazy = linear.linearize(model, variables, centered=True)
    np.testing.assert_allclose(lazy.apply(found.variables, test), expected, atol=1e-6)
    assert found.accuracy[-1] == 1
    assert found.loss[-1] < 1e-16


@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_the_loss_never_rises_and_is_that_of_the_linear_model(net, ridge):
    model, variables, split = net
    recipe = Solve(iterations=25, ridge=ridge)
    found = least_squares.solve(model, variables, split, recipe=recipe, keep=[0, 3, 25])
    assert (np.diff([np.inf, *found.loss]) <= 1e-12 * found.loss[0]).all()
    lazy, t = (
        linear.linearize(model, variables, centered=True),
        split.one_hot().astype(float) - 1 / 3,
    )

    def loss(params):
        misfit = jnp.sum((lazy.apply({"params": params}, split.x) - t) ** 2)
        change = jax.tree.map(jnp.subtract, params, variables["params"])
        return misfit / 60 + ridge / 2 * sum(jnp.sum(d**2) for d in jax.tree.leaves(change))

    size = {k: np.linalg.norm(flat(jax.grad(loss)(found.kept[k]["params"]))) for k in (0, 3, 25)}
    for k in (3, 25):
        assert found.loss[k - 1] == pytest.approx(float(loss(found.kept[k]["params"])), rel=1e-10)
        assert found.residual[k - 1] == pytest.approx(size[k] / size[0], rel=1e-6)
        right = jnp.argmax(lazy.apply(found.kept[k], split.x), axis=1) == split.y
        assert found.accuracy[k - 1] == pytest.approx(float(right.mean()))
    np.testing.assert_array_equal(flat(found.kept[0]["params"]), flat(variables["params"]))
    np.testing.assert_array_equal(flat(found.kept[25]), flat(found.variables))


def test_each_iterate_is_the_best_of_its_krylov_space(net):
    model, variables, split = net
    found = least_squares.solve(model, variables, split, recipe=Solve(iterations=4))
    kernel = np.asarray(ntk.gram(model, variables, split.x, output="full"))
    t = (np.eye(3)[np.asarray(split.y)] - 1 / 3).ravel()
    basis = np.stack([np.linalg.matrix_power(kernel, k) @ t for k in (1, 2, 3, 4)], axis=1)
    basis /= np.linalg.norm(basis, axis=0)
    for k in (1, 2, 3, 4):
        fit = basis[:, :k] @ np.linalg.lstsq(basis[:, :k], t)[0]
        assert found.loss[k - 1] == pytest.approx(np.sum((t - fit) ** 2) / 60, rel=1e-6)


def small():
    """In single precision, with statistics of batches, and a last block that is not whole."""
    model, split = resumable.normalised(), resumable.split(n=130)
    return model, model.init(jax.random.key(0), split.x), split


def test_blocks_make_no_difference(monkeypatch):
    model, variables, split = small()
    found = []
    for size in (130, 50, 7):
        monkeypatch.setattr(least_squares, "_BLOCK", size)
        least_squares._forward.clear_cache()
        least_squares._backward.clear_cache()
        recipe = Solve(iterations=3, ridge=0.1)
        solution = least_squares.solve(model, variables, split, recipe=recipe, centered=False)
        found.append(flat(solution.variables))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)


def bits(solution):
    courses = [solution.loss, solution.accuracy, solution.residual]
    kept = [flat(variables) for variables in (solution.variables, *solution.kept.values())]
    return np.float64(courses).tobytes() + np.concatenate(kept).tobytes()


def test_it_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path, monkeypatch):
    model, variables, split = small()
    recipe, keep, path = Solve(iterations=5, ridge=1e-3), [2, 4], tmp_path / "run"
    whole = least_squares.solve(model, variables, split, recipe=recipe, keep=keep)
    save, saved = least_squares.checkpoints.save, []

    def stop(*arguments):
        save(*arguments)
        saved.append(arguments)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(least_squares.checkpoints, "PATIENCE", 0)
    monkeypatch.setattr(least_squares.checkpoints, "save", stop)
    options = {"keep": keep, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        least_squares.solve(model, variables, split, recipe=recipe, **options)
    resumed = least_squares.solve(model, variables, split, recipe=recipe, **options)
    assert len(saved) == 5  # the first three are not made again
    assert bits(resumed) == bits(whole)
    again = least_squares.solve(model, variables, split, recipe=recipe, **options)
    assert len(saved) == 5
    assert bits(again) == bits(whole)
    longer = replace(recipe, iterations=6)
    more = least_squares.solve(model, variables, split, recipe=longer, **options)
    assert more.residual[:5] == whole.residual
    with pytest.raises(ValueError, match=r"^iterations: 5 is less than the 6 of checkpoint$"):
        least_squares.solve(model, variables, split, recipe=recipe, **options)


CHILD = """
import signal, sys
import test_least_squares as here

checkpoints = here.least_squares.checkpoints
checkpoints.PATIENCE = 0
save = checkpoints.save

def stop(path, run, state):
    save(path, run, state)
    if len(state["loss"]) == 2:
        print("now", flush=True)
        signal.pause()

checkpoints.save = stop
here.least_squares.solve(*here.small(), recipe=here.Solve(iterations=4), checkpoint=sys.argv[1])
"""


def test_a_killed_one_goes_on_to_the_same_bits(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path / "run"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert process.stdout.readline() == "now\n"
    process.kill()
    process.communicate()
    assert process.returncode == -9
    recipe = Solve(iterations=4)
    resumed = least_squares.solve(*small(), recipe=recipe, checkpoint=tmp_path / "run")
    assert bits(resumed) == bits(least_squares.solve(*small(), recipe=recipe))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"recipe": Solve(iterations=2, ridge=0.5)}, r"other ridge \(0.0 there, 0.5 here\)"),
        ({"centered": False}, "other centered"),
        ({"keep": [1]}, "other keep"),
        ({"split": "reversed"}, "other data"),
        ({"seed": 1}, "other tangent"),
    ],
)
def test_a_checkpoint_of_another_problem_is_refused(tmp_path, changes, named):
    model, variables, split = small()
    options = {"recipe": Solve(iterations=2), "checkpoint": tmp_path / "run"}
    least_squares.solve(model, variables, split, **options)
    if "split" in changes:
        x, y = jnp.flip(split.x, 0), jnp.flip(split.y)
        split = Split(x, y, 2)
    if "seed" in changes:
        variables = model.init(jax.random.key(1), split.x)
    changes = {name: value for name, value in changes.items() if name not in ("split", "seed")}
    with pytest.raises(training.CheckpointError, match=named):
        least_squares.solve(model, variables, split, **options | changes)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"keep": [4]}, r"keep: \[4\] has iterations out of range; they are 0 to 3"),
        ({"tangent": {}}, "tangent: has collections"),
        ({"tangent": "nan"}, "tangent: the gradient of the loss there is not finite"),
        ({"network": 4}, r"network: its logits for one image have shape \(1, 4\); there are 2"),
    ],
)
def test_bad_input_is_refused_with_one_line(options, problem):
    model, variables, split = small()
    if "network" in options:
        model = models.get("mlp", n_classes=4, width=2)
        variables = model.init(jax.random.key(0), split.x)
    if "tangent" in options:
        variables = {} if not options["tangent"] else jax.tree.map(lambda a: a * np.nan, variables)
    keep = options.get("keep", [])
    with pytest.raises(ValueError, match=f"^{problem}") as caught:
        least_squares.solve(model, variables, split, recipe=Solve(iterations=3), keep=keep)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"iterations": 0}, "iterations: 0 is out of range"),
        ({"iterations": 2.5}, "iterations: 2.5 is not whole"),
        ({"iterations": 2, "ridge": -1.0}, "ridge: -1 is out of range"),
    ],
)
def test_values_out_of_range_are_named(options, problem):
    with pytest.raises(ValueError, match=f"^{problem}"):
        Solve(**options)


def test_two_classes_and_one_output():
    model = models.get("mlp", n_classes=1, width=8, depth=1)
    x = jax.random.uniform(jax.random.key(0), (20, 4, 4, 1))
    split = Split(x, (x.mean((1, 2, 3)) > 0.5).astype(jnp.int32), 2)
    variables = model.init(jax.random.key(1), x)
    found = least_squares.solve(model, variables, split, recipe=Solve(iterations=200))
    lazy = linear.linearize(model, variables, centered=True)
    np.testing.assert_allclose(lazy.apply(found.variables, x), split.signs(), atol=0.02)
    assert found.accuracy[-1] == 1
