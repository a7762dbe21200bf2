"""Training of finite and linearised networks: standard, adversarial, and resumable."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
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
from tqdm import tqdm

from ntklib import checkpoint as checkpoints
from ntklib.attacks import Attack, Loss, correct, loss_per_point
from ntklib.data import Split
from ntklib.linear import bind
from ntklib.models import Model, Variables


class DivergedError(RuntimeError):
    """Training produced a loss that is not finite."""


@dataclass
class History:
    """What `fit` returns: the last variables, and losses and accuracies, one an epoch.

    All are means over the batches of the epoch, each measured just before its update.

    Attributes:
        variables: the variables after the last update.
        loss: the loss minimised; that of the adversarial batches if there is an adversary.
        accuracy: the accuracy on the same batches.
        clean_loss: the loss of the clean steps before the adversarial ones; empty unless
            `clean_first`.
        clean_accuracy: the accuracy on the same batches.
        kept: the variables after the epochs that `fit` was asked to keep, by epoch.
    """

    variables: Variables
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    clean_loss: list[float] = field(default_factory=list)
    clean_accuracy: list[float] = field(default_factory=list)
    kept: dict[int, Variables] = field(default_factory=dict)


def fit(
    model: Model,
    variables: Variables,
    data: Split,
    key: PRNGKeyArray,
    *,
    epochs: int,
    optimizer: optax.GradientTransformation,
    batch_size: int | None = None,
    loss: Loss = "mse",
    adversary: Attack | None = None,
    clean_first: bool = False,
    on_epoch: Callable[[int, Variables], None] | None = None,
    on_step: Callable[[int, Variables], None] | None = None,
    keep: Collection[int] = (),
    checkpoint: str | Path | None = None,
    store: str | Path | None = None,
    progress: bool = False,
) -> History:
    r"""Minimises the mean loss $\frac1b\sum_{i} \ell(f(x_i), y_i)$ of batches of size $b$.

    With `batch_size=None` an epoch is one step on all the data: gradient descent.

    With an adversary, $x_i$ is replaced by the adversary's image, computed at the current
    parameters (Madry et al. 2018). With `clean_first` each batch makes two updates instead: one
    on the clean images, then one on the images that the adversary finds for the updated network
    (the official code of Loo et al. 2022).

    Only the collection "params" is optimised. A model with `apply_train` is trained in its
    training mode, which updates the other collections, such as the statistics of batch
    normalisation; the adversary sees it in inference mode.

    Two runs with the same adversary object, optimizers of the same `update` function and models of
    the same functions and shapes compile once (for optimizers see `momentum_sgd`).

    Args:
        model: the network, which may be one of `ntklib.linear.linearize`.
        variables: where training starts, as returned by `model.init`.
        data: training images and labels.
        key: shuffles the data anew each epoch, and is the source of the adversary's keys.
        epochs: number of passes over the data, at least 1.
        optimizer: an optax optimiser. One made by `optax.inject_hyperparams` lets the error of a
            divergence tell the learning rate.
        batch_size: size of a batch, the last one of an epoch may be smaller; None means all.
        loss: see `ntklib.attacks.loss_per_point`.
        adversary: `adversary(logits_fn, x, y, key)` returns the images to train on; it is compiled
            together with the update. Example: `functools.partial(attacks.pgd, epsilon=0.1,
            steps=7, step_size=0.03)`.
        clean_first: whether an update on the clean batch precedes that on the adversarial one.
        on_epoch: called after each epoch with its number, from 1, and a copy of the variables.
        on_step: called after each update with its number, from 1 and counted over all epochs, and
            a copy of the variables.
        keep: epochs after which the variables are kept in `History.kept`; 0 is the start.
        checkpoint: a file that holds the state after the last whole epoch. If it exists, training
            goes on from there, to the same bits as without the interruption; the callbacks are
            called for what remains, and anew for an epoch that was cut off. `epochs` may grow; all
            else must be as it was.
        store: a folder of checkpoints of many runs, created if need be. Each has the name of its
            run, a hash of its data, program and key, so that a run found there goes on, and is not
            repeated if it is complete.
        progress: whether to show a progress bar, if there is a terminal.

    Returns:
        The last variables and the course of the loss and the accuracy.

    Raises:
        ValueError: if an argument is out of range, `variables` has no "params", the data are not
            finite, or the network's outputs do not fit the number of classes.
        DivergedError: if a loss is not finite, naming the epoch, the step, the loss and the
            learning rate. It is looked at when an epoch ends.
        CheckpointError: if the checkpoint cannot be read or is of another run, naming what differs.
    """
    n = len(data)
    batch_size = n if batch_size is None else batch_size
    _check(model, variables, data, epochs, batch_size)
    if clean_first and adversary is None:
        raise ValueError("clean_first: is True without an adversary; give one, or leave it False")
    if not all(0 <= epoch <= epochs for epoch in keep):
        raise ValueError(f"keep: {sorted(keep)} has epochs out of range; they are 0 to {epochs}")
    if checkpoint is not None and store is not None:
        raise ValueError("checkpoint, store: both are given; give one")
    key_order, key_attack = jax.random.split(key)
    update = partial(
        _update,
        bind(model.apply),
        None if model.apply_train is None else bind(model.apply_train),
        jnp.asarray(data.x),
        jnp.asarray(data.y),
        key_attack,
        optimizer_update=optimizer.update,
        loss=loss,
    )
    adversaries = (None, adversary) if clean_first else (adversary,)

    state = dict(variables), optimizer.init(variables["params"])
    # Epochs that are still to come hold the start until then.
    history = History(variables, kept={epoch: dict(variables) for epoch in sorted(keep)})
    if checkpoint is not None or store is not None:
        run = _identity(update, state, adversaries, batch_size, key, keep)
        checkpoint = checkpoint or _path(store, run | {"epochs": epochs})
        saved = checkpoints.load(checkpoint, run, _content(state, history))
        state = saved["variables"], saved["optimizer"]
        history = History(variables, **{k: v.tolist() for k, v in saved["history"].items()})
        history.kept = {int(epoch): kept for epoch, kept in saved["kept"].items()}
        if len(history.loss) > epochs:
            raise ValueError(f"epochs: {epochs} is less than the {len(history.loss)} of checkpoint")
    state = jax.tree.map(jnp.array, state)  # a copy: `update` overwrites its arguments

    done = len(history.loss)
    with tqdm(total=epochs, initial=done, disable=None if progress else True) as bar:
        for epoch in range(done + 1, epochs + 1):
            batches = _batches(key_order, epoch, n, batch_size)
            last_step = (epoch - 1) * len(batches) * len(adversaries)
            measured = []
            for step, (batch, attack) in enumerate(product(batches, adversaries), last_step + 1):
                state, metrics = update(state, step, batch, adversary=attack)
                measured.append(metrics)
                if on_step is not None:
                    on_step(step, jax.tree.map(jnp.copy, state[0]))
            measured = jax.device_get(measured)  # the only wait for the device in an epoch
            _stop_if_diverged(measured, epoch, last_step)
            _record(history, measured, [len(batch) for batch in batches])
            if epoch in keep:
                history.kept[epoch] = jax.tree.map(jnp.copy, state[0])
            if on_epoch is not None:
                on_epoch(epoch, jax.tree.map(jnp.copy, state[0]))
            if checkpoint is not None:
                checkpoints.save(checkpoint, run, _content(state, history))
            bar.set_postfix(loss=history.loss[-1], accuracy=history.accuracy[-1], refresh=False)
            bar.update()
    history.variables = state[0]
    return history


_SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=1.0, momentum=0.9)


def momentum_sgd(learning_rate: float | int) -> optax.GradientTransformation:
    r"""Gradient descent with momentum, $v \leftarrow 0.9\, v + g$ and
    $\theta \leftarrow \theta - \eta v$.

    The learning rate $\eta$ is part of the state, so that runs with other rates do not compile
    again.

    Args:
        learning_rate: $\eta$, above 0.

    Returns:
        The optimiser, for `fit`.

    Raises:
        ValueError: if the learning rate is not a finite number above 0.
    """
    if not 0 < learning_rate < float("inf"):
        raise ValueError(
            f"learning_rate: {learning_rate} is out of range; it is finite and above 0"
        )

    def init(params: Variables) -> Any:
        return optax.tree_utils.tree_set(
            _SGD.init(params), learning_rate=jnp.float32(learning_rate)
        )

    return _SGD._replace(init=init)


def _check(model: Model, variables: Variables, data: Split, epochs: int, batch_size: int) -> None:
    if epochs < 1:
        raise ValueError(f"epochs: {epochs} is out of range; it is a whole number >= 1")
    if not 1 <= batch_size <= len(data):
        raise ValueError(f"batch_size: {batch_size} is out of range; it is from 1 to {len(data)}")
    if "params" not in variables:
        raise ValueError(f"variables: has collections {sorted(variables)}; 'params' is missing")
    if not jnp.all(jnp.isfinite(data.x)):
        raise ValueError("data: x has values that are infinite or NaN")
    logits = jax.eval_shape(model.apply, variables, data.x[:1])
    if logits.shape != (1, data.n_classes) and (logits.shape, data.n_classes) != ((1, 1), 2):
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
    jax.jit, static_argnames=("optimizer_update", "loss", "adversary"), donate_argnames="state"
)
def _update(
    apply: Partial,
    apply_train: Partial | None,
    x: Float[Array, "n ..."],
    y: Int[Array, " n"],
    key: PRNGKeyArray,
    state: tuple[Variables, optax.OptState],
    step: Int[Array, ""],
    batch: Int[Array, " b"],
    *,
    optimizer_update: Callable[..., Any],
    loss: Loss,
    adversary: Attack | None,
) -> tuple[tuple[Variables, optax.OptState], dict[str, Any]]:
    (variables, optimizer_state), x, y = state, x[batch], y[batch]
    if adversary is not None:
        images = adversary(bind(apply, variables), x, y, jax.random.fold_in(key, step))
        if images.shape != x.shape:
            raise ValueError(f"adversary: returned shape {images.shape} for images of {x.shape}")
        x = images

    def objective(params: Variables) -> tuple[Array, tuple[Array, Variables]]:
        current = variables | {"params": params}
        if apply_train is None:
            logits, statistics = apply(current, x), {}
        else:
            own = jax.random.fold_in(jax.random.fold_in(key, step), 1)
            logits, statistics = apply_train(current, x, own)
        accuracy = jnp.mean(correct(logits, y))
        return jnp.mean(loss_per_point(logits, y, loss)), (accuracy, statistics)

    (value, (accuracy, statistics)), gradient = jax.value_and_grad(objective, has_aux=True)(
        variables["params"]
    )
    updates, optimizer_state = optimizer_update(gradient, optimizer_state, variables["params"])
    params = optax.apply_updates(variables["params"], updates)
    rates = optax.tree_utils.tree_get_all_with_path(
        optimizer_state, "learning_rate", lambda _, value: isinstance(value, jax.Array)
    )
    metrics = {"loss": value, "accuracy": accuracy, "learning_rates": [rate for _, rate in rates]}
    return (variables | dict(statistics) | {"params": params}, optimizer_state), metrics


def _stop_if_diverged(measured: list[dict[str, Any]], epoch: int, last_step: int) -> None:
    for step, metrics in enumerate(measured, last_step + 1):
        if not np.isfinite(metrics["loss"]):
            rates = ", ".join(f"{rate:.3g}" for rate in metrics["learning_rates"])
            unknown = "not known, because the optimizer was not made by optax.inject_hyperparams"
            raise DivergedError(
                f"epoch {epoch}, step {step}: the loss is {metrics['loss']}; lower the learning "
                f"rate, which is {rates or unknown}"
            )


def _record(history: History, measured: list[dict[str, Any]], sizes: list[int]) -> None:
    """Adds the means of an epoch, in which each batch has one or two updates, the clean first."""
    pairs = np.array([(m["loss"], m["accuracy"]) for m in measured], float)
    *clean, last = np.average(pairs.reshape(len(sizes), -1, 2), axis=0, weights=sizes).tolist()
    history.loss.append(last[0])
    history.accuracy.append(last[1])
    for loss, accuracy in clean:
        history.clean_loss.append(loss)
        history.clean_accuracy.append(accuracy)


def _content(state: tuple[Variables, optax.OptState], history: History) -> dict[str, Any]:
    """What a checkpoint holds."""
    names = ("loss", "accuracy", "clean_loss", "clean_accuracy")
    return {
        "variables": state[0],
        "optimizer": state[1],
        "history": {name: np.array(getattr(history, name)) for name in names},
        "kept": {str(epoch): variables for epoch, variables in history.kept.items()},
    }


def _path(store: str | Path | None, run: dict[str, Any]) -> Path:
    """Where the checkpoint of a run lies in a store."""
    assert store is not None
    folder = Path(store)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:32]}.msgpack"


def _identity(
    update: partial,
    state: tuple[Variables, optax.OptState],
    adversaries: tuple[Attack | None, ...],
    batch_size: int,
    key: PRNGKeyArray,
    keep: Collection[int],
) -> dict[str, Any]:
    """What must be the same for a run to be the same to the last bit, but for its length."""
    apply, _, x, y, _ = update.args
    # The text of the programs holds every number and function of the model, the optimiser and the
    # adversary, which have no other name.
    programs = [
        _update.lower(
            *update.args, state, 1, np.arange(batch_size), adversary=attack, **update.keywords
        ).as_text()
        for attack in adversaries
    ]
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
