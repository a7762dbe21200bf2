"""Training of finite and linearised networks: standard, adversarial, and resumable."""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import cache, partial
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntklib import _checkpoint as checkpoints
from ntklib import _checks
from ntklib._checkpoint import CheckpointError
from ntklib.attacks import Attack, Loss, correct, loss_per_point
from ntklib.data import Split
from ntklib.linear import bind
from ntklib.models import Model, Variables
from ntklib.recipes import SGD, Augmentation, Recipe, Watch

__all__ = [
    "SGD",
    "Augmentation",
    "CheckpointError",
    "DivergedError",
    "History",
    "OverfittingError",
    "Recipe",
    "Watch",
    "fit",
    "recalibrate",
]


class DivergedError(RuntimeError):
    """Training produced a loss that is not finite."""


class OverfittingError(RuntimeError):
    """Adversarial training lost its robustness, see `ntklib.recipes.Watch`."""


@dataclass
class History:
    """What `fit` returns: the last variables, and losses and accuracies, one an epoch.

    These are means over the batches of the epoch, each measured just before its update: of the
    adversarial batches if there is an adversary. Those of the clean steps before them are empty
    unless `clean_first`. `watched` has accuracies under the attack of a `Watch`, of the images that
    it keeps aside. `kept` has the variables after the epochs that `fit` was asked to keep.
    """

    variables: Variables
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    clean_loss: list[float] = field(default_factory=list)
    clean_accuracy: list[float] = field(default_factory=list)
    watched: list[float] = field(default_factory=list)
    kept: dict[int, Variables] = field(default_factory=dict)


def fit(
    model: Model,
    variables: Variables,
    data: Split,
    key: PRNGKeyArray,
    *,
    recipe: Recipe | None = None,
    on_step: Callable[[int, Variables], None] | None = None,
    keep: Collection[int] = (),
    checkpoint: str | Path | None = None,
    store: str | Path | None = None,
    **changes: Any,
) -> History:
    """Trains a network, or its linearisation, by a recipe.

    Only the collection "params" is optimised. A model with `apply_train` is trained in its training
    mode, which updates the other collections, such as the statistics of batch normalisation, and
    may draw at random, as dropout does; the adversary sees it in inference mode.

    Two runs with equal recipes, but for the learning rate of an `SGD`, and models of the same
    functions and shapes compile once.

    Args:
        model: the network, which may be one of `ntklib.linear.linearize`.
        variables: where training starts, as returned by `model.init`.
        data: training images and labels.
        key: shuffles the data anew each epoch, and is the source of all other keys.
        recipe: what is done.
        on_step: called after each update with its number, from 1 and counted over all epochs, and a
            copy of the variables.
        keep: epochs after which the variables are kept in `History.kept`; 0 is the start.
        checkpoint: a file that holds the state after one of the last epochs: it is written after
            an epoch, as long as that takes a small part of the time, and at the end. If it exists,
            training goes on from there, to the same bits as without the interruption; the callback
            is called for what remains, and anew for what was lost. The epochs may grow, if the
            learning rate does not change with them; all else must be as it was.
        store: a folder of checkpoints of many runs, created if need be. Each has the name of its
            run, a hash of its data, program and key, so that a run found there goes on, and is not
            repeated if it is complete.
        **changes: values of the recipe, in place of its own; without a recipe, all of it.

    Raises:
        DivergedError: if a loss is not finite, naming the epoch, the step, the loss and the
            learning rate. It is looked at when an epoch ends.
        OverfittingError: if the recipe's `Watch` sees robustness lost, naming the epoch.
        CheckpointError: if the checkpoint cannot be read or is of another run, naming what differs.
    """
    recipe = Recipe(**changes) if recipe is None else replace(recipe, **changes)
    if recipe.watch is not None:
        data, aside = _held_out(data, recipe.watch.images)
    n, epochs = len(data), int(recipe.epochs)
    batch_size = n if recipe.batch_size is None else int(recipe.batch_size)
    _check(model, variables, data, batch_size)
    if not all(0 <= epoch <= epochs for epoch in keep):
        raise ValueError(f"keep: {sorted(keep)} has epochs out of range; they are 0 to {epochs}")
    if checkpoint is not None and store is not None:
        raise ValueError("checkpoint, store: both are given; give one")
    key_order, key_step = jax.random.split(key)
    adversaries = (None, recipe.adversary) if recipe.clean_first else (recipe.adversary,)
    per_epoch = -(-n // batch_size) * len(adversaries)
    rate = None  # where it does not change, and the optimiser itself has it
    if isinstance(recipe.optimizer, SGD) and recipe.optimizer.schedule != "constant":
        rate = recipe.optimizer.rate(epochs * per_epoch)
    update = partial(
        _update,
        bind(model.apply),
        None if model.apply_train is None else bind(model.apply_train),
        jnp.asarray(data.x),
        jnp.asarray(data.y),
        key_step,
        optimizer_update=recipe.optimizer.update,
        loss=recipe.loss,
        augmentation=recipe.augmentation,
        averaging=recipe.averaging,
        updates_a_batch=len(adversaries),
    )

    average = None if recipe.averaging is None else dict(variables)
    state = dict(variables), recipe.optimizer.init(variables["params"]), average
    # Epochs that are still to come hold the start until then.
    history = History(variables, kept={epoch: dict(variables) for epoch in sorted(keep)})
    if checkpoint is not None or store is not None:
        run = _identity(update, state, adversaries, batch_size, key, keep)
        if rate is not None:
            run["learning rate"] = [recipe.optimizer.schedule, epochs]
        checkpoint = checkpoint or _path(store, run | {"epochs": epochs})
        saved = checkpoints.load(checkpoint, run, _content(state, history))
        state = saved["variables"], saved["optimizer"], saved.get("average")
        history = History(variables, **{k: v.tolist() for k, v in saved["history"].items()})
        history.kept = {int(epoch): kept for epoch, kept in saved["kept"].items()}
        if len(history.loss) > epochs:
            raise ValueError(f"epochs: {epochs} is less than the {len(history.loss)} of checkpoint")
    state = jax.tree.map(jnp.array, state)  # a copy: `update` overwrites its arguments

    pause = 0.0
    for epoch in range(len(history.loss) + 1, epochs + 1):
        batches = _batches(key_order, epoch, n, batch_size)
        last_step = (epoch - 1) * per_epoch
        measured = []
        for step, (batch, attack) in enumerate(product(batches, adversaries), last_step + 1):
            current = None if rate is None else jnp.float32(rate(step - 1))
            state, metrics = update(state, step, batch, current, adversary=attack)
            measured.append(metrics)
            if on_step is not None:
                on_step(step, jax.tree.map(jnp.copy, _shown(state)))
        measured = jax.device_get(measured)  # the only wait for the device in an epoch
        _stop_if_diverged(measured, epoch, last_step)
        _record(history, measured, [len(batch) for batch in batches])
        if recipe.watch is not None:
            logits_fn = bind(model.apply, _shown(state))
            found = recipe.watch.attack(logits_fn, aside.x, aside.y, key_step)
            history.watched.append(float(jnp.mean(correct(logits_fn(found), aside.y))))
            _stop_if_overfitted(history.watched, aside)
        if epoch in keep:
            history.kept[epoch] = jax.tree.map(jnp.copy, _shown(state))
        if checkpoint is not None and (epoch == epochs or time.monotonic() > pause):
            begun = time.monotonic()
            checkpoints.save(checkpoint, run, _content(state, history))
            pause = time.monotonic() + checkpoints.PATIENCE * (time.monotonic() - begun)
    history.variables = _shown(state)
    return history


_State = tuple[Variables, optax.OptState, Variables | None]
"""Variables, the state of the optimiser, and averages of the variables, if they are wanted."""


def _shown(state: _State) -> Variables:
    """The variables that a training gives out."""
    variables, _, average = state
    return variables if average is None else average


def _check(model: Model, variables: Variables, data: Split, batch_size: int) -> None:
    _checks.points("data.x", data.x)
    _checks.labels("data.y", data.y, len(data.x), data.n_classes)
    if not 1 <= batch_size <= len(data):
        raise ValueError(f"batch_size: {batch_size} is out of range; it is from 1 to {len(data)}")
    if "params" not in variables:
        raise ValueError(f"variables: has collections {sorted(variables)}; 'params' is missing")
    logits = jax.eval_shape(model.apply, variables, data.x[:1])
    columns = _checks.logits(logits, 1)
    if columns != data.n_classes and (columns, data.n_classes) != (1, 2):
        raise ValueError(
            f"model: its logits for one image have shape {logits.shape}; for {data.n_classes} "
            f"classes it is (1, {data.n_classes}){', or (1, 1)' if data.n_classes == 2 else ''}"
        )


def _batches(key: PRNGKeyArray, epoch: int, n: int, batch_size: int) -> list[np.ndarray]:
    """The indices of each batch of an epoch."""
    if batch_size == n:
        return [np.arange(n)]
    order = jax.random.permutation(jax.random.fold_in(key, epoch), n)
    return np.split(np.asarray(order), range(batch_size, n, batch_size))


@partial(
    jax.jit,
    static_argnames=(
        "optimizer_update", "loss", "adversary", "augmentation", "averaging", "updates_a_batch"
    ),
    donate_argnames="state",
)  # fmt: skip
def _update(
    apply: Partial,
    apply_train: Partial | None,
    x: Float[Array, "n ..."],
    y: Int[Array, " n"],
    key: PRNGKeyArray,
    state: _State,
    step: Int[Array, ""],
    batch: Int[Array, " b"],
    rate: Float[Array, ""] | None,
    *,
    optimizer_update: Callable[..., Any],
    loss: Loss,
    adversary: Attack | None,
    augmentation: Augmentation | None,
    averaging: float | None,
    updates_a_batch: int,
) -> tuple[_State, dict[str, Any]]:
    (variables, optimizer_state, average), x, y = state, x[batch], y[batch]
    key_step = jax.random.fold_in(key, step)
    if augmentation is not None:  # the same for all updates of a batch
        first = step - (step - 1) % updates_a_batch
        x = augmentation(x, jax.random.fold_in(jax.random.fold_in(key, first), 1))
    if adversary is not None:
        images = adversary(bind(apply, variables), x, y, key_step)
        if images.shape != x.shape:
            raise ValueError(f"adversary: returned shape {images.shape} for images of {x.shape}")
        x = jnp.asarray(images)

    def objective(params: Variables) -> tuple[Array, tuple[Array, Variables]]:
        current = variables | {"params": params}
        if apply_train is None:
            logits, others = apply(current, x), {}
        else:
            logits, others = apply_train(current, x, jax.random.fold_in(key_step, 2))
        accuracy = jnp.mean(correct(logits, y))
        return jnp.mean(loss_per_point(logits, y, loss)), (accuracy, others)

    (value, (accuracy, others)), gradient = jax.value_and_grad(objective, has_aux=True)(
        variables["params"]
    )
    # The direction of steepest ascent in complex parameters; real ones stay as they are.
    gradient = jax.tree.map(jnp.conj, gradient)
    if rate is not None:
        optimizer_state = optax.tree.set(optimizer_state, learning_rate=rate)
    updates, optimizer_state = optimizer_update(gradient, optimizer_state, variables["params"])
    params = optax.apply_updates(variables["params"], updates)
    variables = variables | dict(others) | {"params": params}
    if averaging is not None:
        weight = jnp.minimum(averaging, (1 + step) / (10 + step))
        average = optax.incremental_update(variables, average, 1 - weight)
    rates = optax.tree.get_all_with_path(
        optimizer_state, "learning_rate", lambda _, value: isinstance(value, jax.Array)
    )
    metrics = {"loss": value, "accuracy": accuracy, "learning_rates": [rate for _, rate in rates]}
    return (variables, optimizer_state, average), metrics


def _stop_if_diverged(measured: list[dict[str, Any]], epoch: int, last_step: int) -> None:
    for step, metrics in enumerate(measured, last_step + 1):
        if not np.isfinite(metrics["loss"]):
            rates = ", ".join(f"{rate:.3g}" for rate in metrics["learning_rates"])
            unknown = "not known, because the optimizer was not made by optax.inject_hyperparams"
            raise DivergedError(
                f"epoch {epoch}, step {step}: the loss is {metrics['loss']}; lower the learning "
                f"rate, which is {rates or unknown}"
            )


def _held_out(data: Split, images: int) -> tuple[Split, Split]:
    """The images that are trained on, and the others."""
    n = min(images, len(data) // 10)
    if n == 0:
        raise ValueError(f"watch: a tenth of the {len(data)} images of data is none")
    parts = slice(None, -n), slice(-n, None)
    train, aside = (Split(data.x[part], data.y[part], data.n_classes) for part in parts)
    return train, aside


def _stop_if_overfitted(watched: list[float], aside: Split) -> None:
    best = max(watched)
    if best > 1 / aside.n_classes and watched[-1] < best / 2:
        raise OverfittingError(
            f"epoch {len(watched)}: accuracy under attack of {len(aside)} images that are not "
            f"trained on fell from {best:.3f} to {watched[-1]:.3f}; give the adversary more noise "
            "or more steps, or lower the learning rate"
        )


def recalibrate(
    model: Model, variables: Variables, x: Float[Array, "n ..."], key: PRNGKeyArray
) -> Variables:
    """The variables with statistics of batch normalisation that fit their parameters.

    In training the averages of a batch's mean and variance trail behind the parameters, and at the
    start they are none at all. Here batches of 250 images pass in training mode while the
    parameters stay, and all other collections are those afterwards: with averages that decay by
    0.9, of about the last ten batches. A model without `apply_train` has none, and its variables
    are returned as they are.
    """
    if model.apply_train is None:
        return variables
    apply_train = bind(model.apply_train)
    for start in range(0, len(x), 250):
        batch = jnp.asarray(x[start : start + 250])
        variables = variables | _collections(apply_train, variables, batch, key)
    return variables


@jax.jit
def _collections(
    apply_train: Partial, variables: Variables, x: Array, key: PRNGKeyArray
) -> Variables:
    return apply_train(variables, x, key)[1]


def _record(history: History, measured: list[dict[str, Any]], sizes: list[int]) -> None:
    """Adds the means of an epoch, in which each batch has one or two updates, the clean first."""
    pairs = np.array([(m["loss"], m["accuracy"]) for m in measured], float)
    *clean, last = np.average(pairs.reshape(len(sizes), -1, 2), axis=0, weights=sizes).tolist()
    history.loss.append(last[0])
    history.accuracy.append(last[1])
    for loss, accuracy in clean:
        history.clean_loss.append(loss)
        history.clean_accuracy.append(accuracy)


def _content(state: _State, history: History) -> dict[str, Any]:
    """What a checkpoint holds."""
    names = ("loss", "accuracy", "clean_loss", "clean_accuracy", "watched")
    content = {
        "variables": state[0],
        "optimizer": state[1],
        "history": {name: np.array(getattr(history, name)) for name in names},
        "kept": {str(epoch): variables for epoch, variables in history.kept.items()},
    }
    return content if state[2] is None else content | {"average": state[2]}


def _path(store: str | Path | None, run: dict[str, Any]) -> Path:
    """Where the checkpoint of a run lies in a store."""
    assert store is not None
    folder = Path(store)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:32]}.msgpack"


def _identity(
    update: partial,
    state: _State,
    adversaries: tuple[Attack | None, ...],
    batch_size: int,
    key: PRNGKeyArray,
    keep: Collection[int],
) -> dict[str, Any]:
    """What must be the same for a run to be the same to the last bit, but for its length."""
    apply, _, x, y, _ = update.args
    leaves, structure = jax.tree.flatten((update.args, state))
    shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype) for leaf in leaves)
    static: list[Any] = [update.keywords | {"adversary": attack} for attack in adversaries]
    programs = [_program(structure, shapes, batch_size, **options) for options in static]
    return {
        "batch_size": batch_size,
        "clean_first": len(adversaries) == 2,
        "data": checkpoints.digest((x, y)),
        "keep": sorted(keep),
        "jax": f"{jax.__version__} on {jax.default_backend()}",
        "key": jax.random.key_data(key).tolist(),
        "loss": update.keywords["loss"],
        "model, optimizer or adversary": sha256("".join(programs).encode()).hexdigest(),
        "start of the optimizer": checkpoints.digest(state[1]),
        "variables": checkpoints.digest((state[0], apply.args)),
    }


@cache
def _program(structure: Any, shapes: tuple[Any, ...], batch_size: int, **static: Any) -> str:
    """The text of a program, by which all is known that has no other name.

    It holds every number and function of the model, the optimiser and the adversary; the learning
    rate of an `SGD` is no part of it.
    """
    args, state = jax.tree.unflatten(structure, shapes)
    batch = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return _update.lower(*args, state, 1, batch, None, **static).as_text()
