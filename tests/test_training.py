import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import resumable
from hypothesis import example, given, settings
from hypothesis import strategies as st
from resumable import bits, flat, normalised, slope, split

from ntklib import _checkpoint, attacks, infinite, linear, models, training
from ntklib.data import Split, load
from ntklib.training import CheckpointError


class Linear(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(x.reshape(len(x), -1))


def fit(data, key=0, **options):
    model = models.from_flax(Linear(1 if data.n_classes == 2 else data.n_classes))
    variables = model.init(jax.random.key(7), data.x[:1])
    defaults = {"epochs": 3, "optimizer": optax.sgd(0.1)}
    return variables, training.fit(
        model, variables, data, jax.random.key(key), **defaults | options
    )


PGD = partial(attacks.pgd, epsilon=0.1, steps=3, step_size=0.05)


def test_full_batches_are_gradient_descent_on_the_mean_loss():
    data = split()
    start, history = fit(data, epochs=5)
    design = np.hstack([np.ones((40, 1)), np.asarray(data.x).reshape(40, -1)]).astype(np.float64)
    weights = flat(start).astype(np.float64)  # bias, then kernel
    targets = np.asarray(data.signs())[:, 0]
    losses = []
    for _ in range(5):
        residual = design @ weights - targets
        losses.append(0.5 * np.mean(residual**2))
        weights -= 0.1 * design.T @ residual / 40
    np.testing.assert_allclose(flat(history.variables), weights, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-5)


def test_every_epoch_sees_every_point_once_in_an_order_of_the_key():
    data = split(n=10)
    seen = []
    model = models.Model(
        init=lambda key, x: {"params": {"w": jnp.zeros(())}},
        apply=lambda v, x: (
            jax.debug.callback(seen.append, x[:, 0, 0, 0], ordered=True)
            or v["params"]["w"] * x[:, 0, 0]
        ),
    )
    variables = model.init(jax.random.key(0), data.x)
    training.fit(
        model, variables, data, jax.random.key(0), epochs=2, batch_size=4, optimizer=optax.sgd(0.0)
    )
    jax.effects_barrier()
    batches = [np.asarray(b) for b in seen]
    assert [len(b) for b in batches] == [4, 4, 2, 4, 4, 2]
    first, second = np.concatenate(batches[:3]), np.concatenate(batches[3:])
    everything = np.sort(np.asarray(data.x)[:, 0, 0, 0])
    np.testing.assert_array_equal(np.sort(first), everything)
    np.testing.assert_array_equal(np.sort(second), everything)
    assert not np.array_equal(first, second)


def test_the_key_decides_the_run():
    a, b, c = (fit(split(), key=k, batch_size=8)[1] for k in (0, 0, 1))
    assert np.array_equal(flat(a.variables), flat(b.variables))
    assert not np.array_equal(flat(a.variables), flat(c.variables))


def test_the_start_is_left_as_it_was_and_steps_are_reported():
    called = []
    start, _ = fit(split(), epochs=4, on_step=lambda step, v: called.append((step, flat(v))))
    assert [step for step, _ in called] == [1, 2, 3, 4]
    assert len({v.tobytes() for _, v in called}) == 4
    assert np.isfinite(flat(start)).all()  # its buffers were not given away


def test_classes_are_learnt_with_cross_entropy():
    x = jnp.eye(9).reshape(9, 3, 3, 1)
    _, history = fit(
        Split(x, jnp.arange(9) % 3, 3), epochs=200, loss="ce", optimizer=optax.sgd(1.0)
    )
    assert history.accuracy[-1] == 1.0
    assert history.loss[-1] < 0.2 < history.loss[0]


@pytest.mark.parametrize("rate", [None, 1e3])
def test_divergence_stops_with_the_step_the_loss_and_the_learning_rate(rate):
    optimizer = optax.sgd(1e3) if rate is None else optax.inject_hyperparams(optax.sgd)(rate)
    losses = []  # of each step, as by the optimiser that keeps on
    model, data = models.from_flax(Linear(1)), split()
    variables = model.init(jax.random.key(7), data.x[:1])
    with pytest.raises(training.DivergedError) as error:
        training.fit(
            model,
            variables,
            data,
            jax.random.key(0),
            epochs=500,
            optimizer=optimizer,
            batch_size=16,
            on_step=lambda step, v: losses.append(
                float(jnp.mean((model.apply(v, data.x) - data.signs()) ** 2))
            ),
        )
    first = next(i for i, loss in enumerate(losses) if not np.isfinite(loss)) + 1
    found = re.match(r"epoch (\d+), step (\d+): the loss is (inf|nan); lower the", str(error.value))
    epoch, step = int(found[1]), int(found[2])
    assert epoch == -(-step // 3)
    assert len(losses) == 3 * epoch  # it is noticed when the epoch ends
    assert abs(step - first) <= 3  # a batch's loss, measured before the update
    named = "learning rate, which is 1e+03" if rate else "not known, because the optimizer was not"
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: 0 is out of range"),
        ({"batch_size": 0}, "batch_size: 0 is out of range"),
        ({"batch_size": 41}, "batch_size: 41 is out of range; it is from 1 to 40"),
        ({"clean_first": True}, "clean_first: is True without an adversary"),
        ({"keep": [4]}, r"keep: \[4\] has epochs out of range; they are 0 to 3"),
        ({"checkpoint": "a", "store": "b"}, "checkpoint, store: both are given; give one"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fit(split(), **options)


def test_wide_networks_follow_the_kernels_training_dynamics():
    """f_t of the infinite network is the limit of gradient descent, at the same time."""
    data, new = split(n=20), split(n=30, seed=1)
    base = models.get("mlp", n_classes=1, width=64, depth=1)
    regression = infinite.Regressor(base, data.x, data.signs())
    learning_rate = float(0.5 * 20 / regression.eigenvalues[0])
    expected = regression.at(40 * learning_rate / 20)(new.x)
    errors, optimizer = [], optax.sgd(learning_rate)
    for width in (64, 4096):
        model = models.antisymmetric(models.get("mlp", n_classes=1, width=width, depth=1))
        runs = []
        for seed in range(4):
            start = model.init(jax.random.key(seed), data.x)
            history = training.fit(
                model, start, data, jax.random.key(0), epochs=40, optimizer=optimizer
            )
            runs.append(model.apply(history.variables, new.x) - expected)
        errors.append(float(np.sqrt(np.mean(np.square(runs)))))
    assert errors[1] < 0.05
    assert errors[1] < 0.35 * errors[0]  # the rate is one over the root of the width: 1/8


@settings(max_examples=8)
@example(n=5, batch_size=3, epochs=2)
@given(n=st.integers(1, 6), batch_size=st.integers(1, 7), epochs=st.integers(1, 3))
def test_every_batch_is_one_step_of_the_optimiser(recorder, n, batch_size, epochs):
    """Against momentum written out in NumPy, on the batches that the run went through."""
    model, optimizer, record, seen = recorder
    if batch_size > n:
        with pytest.raises(ValueError, match=f"^batch_size: {batch_size} .* from 1 to {n}"):
            training.fit(
                model, {"params": {}}, split(n), jax.random.key(0), epochs=epochs,
                optimizer=optimizer, batch_size=batch_size,
            )  # fmt: skip
        return
    seen.clear()
    start = model.init(jax.random.key(7), split(n).x[:1])
    history = training.fit(
        model, start, split(n), jax.random.key(n), epochs=epochs, optimizer=optimizer,
        batch_size=batch_size, adversary=record,
    )  # fmt: skip
    jax.effects_barrier()
    weights, velocity, losses, accuracies = flat(start).astype(float), 0.0, [], []
    for x, y in seen:
        design = np.hstack([np.ones((len(x), 1)), x.reshape(len(x), -1)]).astype(float)
        output, target = design @ weights, 2.0 * y - 1
        losses += list((output - target) ** 2 / 2)
        accuracies += list(output * target > 0)
        velocity = 0.9 * velocity + design.T @ (output - target) / len(x)
        weights = weights - 0.05 * velocity
    sizes = [batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0)
    assert [len(x) for x, _ in seen] == sizes * epochs
    np.testing.assert_allclose(flat(history.variables), weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        history.loss, np.reshape(losses, (epochs, n)).mean(1), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        history.accuracy, np.reshape(accuracies, (epochs, n)).mean(1), rtol=1e-6
    )


@pytest.fixture(scope="module")
def recorder():
    """Objects that are the same in all examples, so that each batch size compiles once."""
    seen = []

    def record(logits_fn, x, y, key):
        jax.debug.callback(lambda x, y: seen.append((x, y)), x, y, ordered=True)
        return x

    return models.from_flax(Linear(1)), optax.sgd(0.05, momentum=0.9), record, seen


@pytest.mark.parametrize("clean_first", [False, True])
@pytest.mark.parametrize("make", [normalised, lambda: models.from_flax(Linear(2))])
def test_adversarial_training_is_the_loop_written_out(make, clean_first):
    """Attack in inference mode at the current parameters, update in training mode."""
    model, data = make(), split(n=12)
    start = model.init(jax.random.key(1), data.x)
    seen = []

    def attack(logits_fn, x, y, key):
        jax.debug.callback(seen.append, jax.random.key_data(key), ordered=True)
        return slope(logits_fn, x, y, key)

    steps = []
    optimizer = optax.sgd(0.1, momentum=0.9)
    history = training.fit(
        model,
        start,
        data,
        jax.random.key(0),
        epochs=3,
        optimizer=optimizer,
        loss="ce",
        adversary=attack,
        clean_first=clean_first,
        on_step=lambda step, v: steps.append((step, v)),
    )
    jax.effects_barrier()
    keys = [jax.random.wrap_key_data(k) for k in seen]
    assert len({key.tobytes() for key in seen}) == len(keys) == 3

    def objective(params, rest, x):
        if model.apply_train is None:
            logits, rest = model.apply({"params": params}, x), {}
        else:
            logits, rest = model.apply_train({"params": params} | rest, x, jax.random.key(0))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.y)
        return losses.mean(), (rest, (logits.argmax(1) == data.y).mean())

    variables, state = start, optimizer.init(start["params"])
    expected, course = [], []
    for key in keys:
        for adversarial in (False, True) if clean_first else (True,):
            x = data.x
            if adversarial:
                x = slope(lambda z, v=variables: model.apply(v, z), data.x, data.y, key)
            params, rest = (
                variables["params"],
                {k: variables[k] for k in variables if k != "params"},
            )
            (loss, (rest, accuracy)), gradient = jax.value_and_grad(objective, has_aux=True)(
                params, rest, x
            )
            updates, state = optimizer.update(gradient, state, params)
            variables = {"params": optax.apply_updates(params, updates)} | dict(rest)
            expected.append(variables)
            course.append((float(loss), float(accuracy)))
    assert [step for step, _ in steps] == list(range(1, len(expected) + 1))
    for (_, ours), theirs in zip(steps, expected, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), ours, dict(theirs))
    courses = [history.clean_loss, history.loss, history.clean_accuracy, history.accuracy]
    if clean_first:
        pairs = np.reshape(course, (3, 2, 2))
        written_out = [pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 1, 1]]
    else:
        written_out = [[], np.array(course)[:, 0], [], np.array(course)[:, 1]]
    for ours, theirs in zip(courses, written_out, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_statistics_move_in_training_and_not_in_a_linearised_model():
    model, data = normalised(), split(n=12)
    start = model.init(jax.random.key(1), data.x)
    train = partial(training.fit, data=data, key=jax.random.key(0), epochs=2)
    end = train(model, start, optimizer=optax.sgd(0.0)).variables
    np.testing.assert_array_equal(flat(start["params"]), flat(end["params"]))
    assert not np.allclose(flat(start["batch_stats"]), flat(end["batch_stats"]))
    model_lin = linear.linearize(model, end, centered=True)
    lazy = train(model_lin, end, optimizer=optax.sgd(0.1), adversary=PGD).variables
    np.testing.assert_array_equal(flat(end["batch_stats"]), flat(lazy["batch_stats"]))
    assert not np.allclose(flat(end["params"]), flat(lazy["params"]))


def test_adversarial_training_makes_digits_robust():
    digits = load("digits", n_train=600, n_test=200)
    model = models.get("mlp", n_classes=10, width=64, depth=1)
    start = model.init(jax.random.key(0), digits.train.x[:1])
    attack = partial(attacks.pgd, epsilon=0.15, steps=5, step_size=0.06)
    optimizer = optax.adam(3e-2)

    def accuracies(model, variables, adversary):
        end = training.fit(
            model,
            variables,
            digits.train,
            jax.random.key(1),
            epochs=6,
            optimizer=optimizer,
            batch_size=50,
            loss="ce",
            adversary=adversary,
        ).variables
        f, test = linear.bind(model.apply, end), digits.test
        z = attack(f, test.x, test.y, jax.random.key(2))
        robust = attacks.correct(f(z), test.y).mean()
        return end, float(attacks.correct(f(test.x), test.y).mean()), float(robust)

    _, clean, broken = accuracies(model, start, None)
    end, clean_robust, robust = accuracies(model, start, attack)
    lazy = linear.linearize(model, end, centered=True)
    _, clean_lazy, robust_lazy = accuracies(lazy, end, attack)
    assert min(clean, clean_robust, clean_lazy) > 0.8
    assert robust > broken + 0.15
    assert robust_lazy > broken + 0.15


def test_what_the_callback_gets_stays_as_it_was():
    at_steps = {}
    _, history = fit(split(), batch_size=20, on_step=at_steps.__setitem__, keep=[1, 2, 3])
    assert list(at_steps) == [1, 2, 3, 4, 5, 6]
    assert len({flat(v).tobytes() for v in at_steps.values()}) == 6
    for epoch, variables in history.kept.items():
        np.testing.assert_array_equal(flat(variables), flat(at_steps[2 * epoch]))
    np.testing.assert_array_equal(flat(history.variables), flat(at_steps[6]))


def test_runs_of_the_same_functions_compile_once():
    traces, data, optimizer = [], split(n_classes=3), optax.sgd(0.1)
    module = Linear(3)

    def apply(variables, x):
        traces.append(x.shape)
        return module.apply(variables, x)

    model = models.Model(module.init, apply)
    ends = []
    for seed in range(3):
        tangent = module.init(jax.random.key(seed), data.x)
        model_lin = linear.linearize(model, tangent, centered=True)
        options = {"epochs": 1, "optimizer": optimizer, "batch_size": 20, "adversary": PGD}
        ends.append(training.fit(model_lin, tangent, data, jax.random.key(0), **options).variables)
        if seed == 0:
            first = [shape for shape in traces if shape != (1, 3, 3, 1)]
    assert first
    assert [shape for shape in traces if shape != (1, 3, 3, 1)] == first  # (1, ...): the check
    assert len({flat(end).tobytes() for end in ends}) == 3


def test_sgd_is_that_of_optax_and_compiles_once_for_all_rates():
    data, model = split(), models.from_flax(Linear(1))
    start, sizes = model.init(jax.random.key(7), data.x[:1]), []
    for rate in (0.1, 0.02):
        ours, theirs = (
            training.fit(model, start, data, jax.random.key(0), epochs=3, optimizer=optimizer)
            for optimizer in (training.SGD(rate), optax.sgd(rate, momentum=0.9))
        )
        sizes.append(training._update._cache_size())
        np.testing.assert_allclose(flat(ours.variables), flat(theirs.variables), rtol=1e-6)
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-6)
    assert sizes[1] == sizes[0] + 1  # for optax's second rate


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_a_learning_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=f"^learning_rate: {rate:g} is out of range; it is finite"):
        training.SGD(rate)


# --- checkpoints ---


CHILD = """
import os, signal, sys
import resumable

path, moment = sys.argv[1:]
if moment == "writing":
    os.replace = lambda *_: print("now", flush=True) or signal.pause()

def on_step(step, variables):
    if moment == str(step):
        print("now", flush=True)
        signal.pause()

resumable.fit(path, 3, on_step=on_step)
"""


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    """Killed in the first epoch (of 4 steps), the second, and while it writes the next."""

    def child(moment):
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path / "run", moment],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )

    left = []
    for moment in ("2", "7", "writing"):
        process = child(moment)
        assert process.stdout.readline() == "now\n"
        process.kill()
        process.communicate()
        assert process.returncode == -9
        left.append([file.suffix for file in sorted(tmp_path.iterdir())])
    assert left == [[], [""], [".partial", ""]]  # the file is called `run`
    steps = []
    resumed = resumable.fit(tmp_path / "run", 3, on_step=lambda step, v: steps.append(step))
    assert steps == list(range(5, 13))
    assert bits(resumed) == bits(resumable.fit(None, 3))


def test_epochs_may_grow(tmp_path):
    short = resumable.fit(tmp_path / "run", 2)
    called = []
    again = resumable.fit(tmp_path / "run", 2, on_step=lambda step, v: called.append(step))
    assert bits(again) == bits(short)
    assert called == []
    grown = resumable.fit(tmp_path / "run", 3, on_step=lambda step, v: called.append(step))
    assert called == list(range(9, 13))
    assert bits(grown) == bits(resumable.fit(None, 3))
    with pytest.raises(ValueError, match=r"^epochs: 1 is less than the 3"):
        resumable.fit(tmp_path / "run", 1)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"batch_size": 4}, r"batch_size \(8 there, 4 here\)"),
        ({"loss": "mse"}, r"loss \('ce' there, 'mse' here\), model, optimizer or adversary"),
        ({"clean_first": False}, r"clean_first \(True there, False here\), model, opt"),
        ({"key": jax.random.key(1)}, r"key \(\[0, 0\] there, \[0, 1\] here\)"),
        ({"data": split(n=16, seed=1)}, "data"),
        ({"variables": normalised().init(jax.random.key(2), split().x)}, "variables"),
        ({"optimizer": optax.sgd(0.2)}, "model, optimizer or adversary"),
        ({"optimizer": training.SGD(0.1)}, "model, optimizer or adversary"),
        ({"adversary": PGD}, "model, optimizer or adversary"),
        ({"keep": [1]}, r"keep \(\[\] there, \[1\] here\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(ten_steps, options, name):
    with pytest.raises(
        CheckpointError, match=f"^{ten_steps}: is of another run, with other {name}"
    ):
        resumable.fit(ten_steps, 2, **options)


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "run"
    resumable.fit(path, 1)
    return path


def test_a_checkpoint_of_another_learning_rate_is_refused(tmp_path):
    options = {"adversary": None, "clean_first": False}
    resumable.fit(tmp_path / "run", 1, optimizer=training.SGD(0.1), **options)
    with pytest.raises(CheckpointError, match="is of another run, with other start of the opt"):
        resumable.fit(tmp_path / "run", 1, optimizer=training.SGD(0.2), **options)


def test_a_store_has_one_file_a_run_and_repeats_none(tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "PATIENCE", 0)  # a checkpoint after each epoch
    options = {"store": tmp_path / "of" / "runs", "keep": [2, 0]}

    def stop(step, variables):
        if step == 10:  # in the third epoch, of 4 steps each
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resumable.fit(None, 3, on_step=stop, **options)
    steps = []
    first = resumable.fit(None, 3, on_step=lambda step, v: steps.append(step), **options)
    again = resumable.fit(None, 3, on_step=lambda step, v: steps.append(step), **options)
    assert steps == list(range(9, 13))
    plain = resumable.fit(None, 3, keep=[0, 2])
    start = resumable.normalised().init(jax.random.key(1), split(n=16).x)
    for history in (first, again, plain):
        assert bits(history) == bits(plain)
        assert list(history.kept) == [0, 2]
        np.testing.assert_array_equal(flat(history.kept[0]), flat(start))
        after_two = resumable.fit(None, 2).variables
        np.testing.assert_array_equal(flat(history.kept[2]), flat(after_two))
    resumable.fit(None, 3, **options | {"keep": []})
    resumable.fit(None, 1, **options | {"keep": []})
    resumable.fit(None, 1, **options | {"keep": []}, key=jax.random.key(1))
    assert len(list((tmp_path / "of" / "runs").iterdir())) == 4


def test_a_diverged_epoch_is_not_kept(tmp_path):
    with pytest.raises(training.DivergedError):
        fit(split(), epochs=500, optimizer=optax.sgd(1e3), checkpoint=tmp_path / "run")
    with pytest.raises(training.DivergedError) as error:  # from the last finite epoch
        fit(split(), epochs=500, optimizer=optax.sgd(1e3), checkpoint=tmp_path / "run")
    assert (tmp_path / "run").exists()
    assert "the loss is" in str(error.value)


# --- bad input ---


def test_bad_models_data_and_adversaries_are_named():
    good = split()
    variables = models.from_flax(Linear(1)).init(jax.random.key(0), good.x)
    three = models.from_flax(Linear(3)).init(jax.random.key(0), good.x)
    holed = Split(good.x.at[3, 1, 1, 0].set(jnp.nan), good.y, 2)
    cases = [
        (1, variables["params"], good, {}, r"variables: has collections \['Dense_0'\]; 'params'"),
        (1, variables, holed, {}, "data.x: has values that are not finite"),
        (3, three, good, {}, r"model: its logits for one image have shape \(1, 3\); for 2 classes"),
        (1, variables, split(n_classes=4), {}, r"model: .* for 4 classes it is \(1, 4\)$"),
        (
            1,
            variables,
            good,
            {"adversary": lambda f, x, y, key: x[:1]},
            "adversary: returned shape",
        ),
    ]
    for outputs, start, data, options, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            training.fit(
                models.from_flax(Linear(outputs)),
                start,
                data,
                jax.random.key(0),
                epochs=1,
                optimizer=optax.sgd(0.1),
                **options,
            )
