r"""Adv-NTK: adversarial training of networks of infinite width, by times of their own for inputs.

By the closed form of `ntklib.wide` adversarial training decides how long a wide network is trained
on each input, $t_i$, and nothing else. Adv-NTK (Fu & Wang 2024) does not ask the attack for these
times but learns them on held-out images under attack: with $D = \mathrm{diag}(|\varpi|)$ the
predictor is

$$f_\varpi(x) = \Theta(x, X)\, \Theta^{-1} \left(I - e^{-\Theta D}\right) Y
= \Theta(x, X)\, P, \qquad P = \int_0^1 D\, e^{-s \Theta D}\, Y\, ds .$$

The weights $\varpi$ start at zero. No inverse is taken, and no matrix is factorised: the
exponential acts on the columns of $Y$ by `_lanczos`, some thirty passes over the kernel. All is in
float64, but for the attack and the kernel between images.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Array, Float, Float64, PRNGKeyArray
from tqdm import tqdm

from ntklib import _checkpoint as checkpoints
from ntklib import _checks, infinite
from ntklib._lanczos import Krylov, krylov, phi
from ntklib.attacks import Attack
from ntklib.data import Split
from ntklib.models import Model

Share = Literal["inputs", "inputs and classes", "nothing"]
Weights = Float64[np.ndarray, "..."]
# Shapes that do not fit each other are refused in one line.
Gram = Float[Array | np.ndarray, "rows columns"]
Columns = Float[Array | np.ndarray, "..."]


class DivergedError(RuntimeError):
    """The weights have become such that the predictor is not finite."""


def flow(
    kernel: Gram,
    times: Columns,
    targets: Columns,
    *,
    tolerance: float = 1e-6,
) -> tuple[Float64[np.ndarray, "n c"], Callable[[Columns], Weights]]:
    r"""The coefficients P of a kernel predictor trained on each input for its time; and a pullback.

    What `ntklib.wide.coefficients` has by an eigendecomposition, in passes over the kernel. The
    pullback takes $G = \partial \ell / \partial P$ of any $\ell$ to $\partial \ell / \partial t$,

    $$\frac{\partial \ell}{\partial t_i} = \int_0^1 \sum_c \mu_{ic}(s)\, r_{ic}(s)\, ds, \quad
    r(s) = e^{-s \Theta D}\, Y, \quad \mu(s) = e^{-(1 - s) \Theta D}\, G .$$

    Args:
        kernel: $\Theta(X, X)$, positive semi-definite.
        times: $t_i$, at least 0: one a training input, (n, 1), or one for each of its classes too,
            (n, c), or one in all, (1, 1).
        targets: $Y$.
        tolerance: of the residual of the flow, relative.

    Returns:
        P; and the pullback, which returns an array of the shape of `times`.

    Raises:
        ValueError: if shapes do not fit, or a value is not finite, or a time is negative.
    """
    kernel, times, targets = (np.asarray(a, np.float64) for a in (kernel, times, targets))
    n, c = _fits(kernel, times, targets)
    shared = times.shape[1] == 1  # by the classes, which then make one block

    def grouped(columns: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "g n b"]:
        return columns[None] if shared else columns.T[:, :, None]

    roots = grouped(np.sqrt(np.broadcast_to(times, (n, times.shape[1]))))
    forward = krylov(kernel, roots, grouped(targets), tolerance)
    weighted = phi(forward.values)[..., None] * forward.start
    coefficients = np.moveaxis(roots * (forward.vectors @ weighted), 0, 1)
    coefficients = coefficients[:, 0] if shared else coefficients[..., 0]

    def pullback(cotangents: Columns) -> Weights:
        given = np.asarray(cotangents, np.float64)
        if given.shape != (n, c):
            raise ValueError(f"cotangents: shape {given.shape} is not allowed; it is {(n, c)}")
        blocks = grouped(targets), grouped(given)
        gradient = _inner(forward, krylov(kernel, roots, blocks[1], tolerance), *blocks)
        gradient = gradient.T  # (n, 1), or (n, c)
        return gradient.sum(0, keepdims=True) if len(times) == 1 < n else gradient

    return coefficients, pullback


def _fits(kernel: np.ndarray, times: np.ndarray, targets: np.ndarray) -> tuple[int, int]:
    n = len(kernel)
    if kernel.shape != (n, n) or targets.ndim != 2 or len(targets) != n or targets.size == 0:
        raise ValueError(
            f"kernel, targets: shapes {kernel.shape} and {targets.shape} do not fit; they are "
            "(n, n) and (n, classes)"
        )
    allowed = (n, 1), (n, targets.shape[1]), (1, 1)
    if times.shape not in allowed:
        raise ValueError(
            f"times: shape {times.shape} is not allowed; it is {', '.join(map(str, allowed))}"
        )
    if not all(np.isfinite(a).all() for a in (kernel, times, targets)) or (times < 0).any():
        raise ValueError("kernel, times, targets: are finite, and times are at least 0")
    return targets.shape


def _inner(
    forward: Krylov,
    backward: Krylov,
    targets: Float64[np.ndarray, "g n b"],
    cotangents: Float64[np.ndarray, "g n b"],
) -> Float64[np.ndarray, "g n"]:
    r"""$\int_0^1 \sum_c r_{ic}(s)\, \mu_{ic}(s)\, ds$ for each input i of each group.

    With the products U of the kernel and the Ritz vectors, r is
    $Y - U\, s\, \varphi_1(-s \tau)\, a$, and mu the same at $1 - s$. So what depends on s are
    functions of the Ritz values alone.
    """
    largest = max(forward.values.max(), backward.values.max(), 1.0)
    s, weights = _graded(int(np.ceil(np.log2(largest))) + 1)
    ahead = s * phi(s * forward.values[..., None])  # (g, m, q)
    behind = (1 - s) * phi((1 - s) * backward.values[..., None])

    def pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The sum over the columns of a block: (g, m, m')."""
        return first @ second.mT

    both = pairs(forward.start, backward.start) * ((ahead * weights) @ behind.mT)
    total = (targets * cotangents).sum(2)
    total -= ((forward.products @ ((ahead @ weights)[..., None] * forward.start)) * cotangents).sum(
        2
    )
    total -= ((backward.products @ ((behind @ weights)[..., None] * backward.start)) * targets).sum(
        2
    )
    return total + ((forward.products @ both) * backward.products).sum(2)


def _graded(levels: int) -> tuple[Float64[np.ndarray, " q"], Float64[np.ndarray, " q"]]:
    """Gauss-Legendre nodes and weights on [0, 1], in panels that halve towards both ends."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.concatenate([[0.0], 0.5 ** np.arange(levels, 0, -1)])
    ends = np.concatenate([half, 1 - half[-2::-1]])
    widths = np.diff(ends)[:, None]
    return (ends[:-1, None] + widths * (nodes + 1) / 2).ravel(), (widths * weights / 2).ravel()


@dataclass
class History:
    """What `fit` returns.

    `loss` has that of each step, the mean over its batch under attack before the update. `kept` has
    the weights after the steps that `fit` was asked to keep.
    """

    weights: Weights  # varpi, of the shape of `times` in `flow`
    coefficients: Float64[np.ndarray, "n c"]  # P, for `ntklib.infinite.predictor`
    loss: list[float] = field(default_factory=list)
    kept: dict[int, Weights] = field(default_factory=dict)


def fit(
    kernel_fn: Model | infinite.KernelFn,
    data: Split,
    held_out: Split,
    key: PRNGKeyArray,
    *,
    attack: Attack,
    learning_rate: _checks.Number,
    steps: _checks.Number = 50,
    batch_size: _checks.Number = 128,
    share: Share = "inputs",
    gram: Gram | None = None,
    keep: Collection[int] = (),
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> History:
    r"""Learns the weights of Adv-NTK on held-out images under attack.

    In each step a batch of held-out images is attacked through the predictor of the current
    weights, then $\varpi \leftarrow \varpi - \eta\, g / (\|g\| + 10^{-8})$ with the gradient g of
    $\frac{1}{2b} \sum_i \|f_\varpi(x'_i) - y_i\|^2$, the attacked images $x'_i$ held fixed. So a
    step has the length $\eta$. The sign of a weight at zero counts as positive, as in the official
    code; without it nothing would ever move. One weight for all is the time of each of n inputs, so
    that its steps are $\eta / \sqrt n$: $D$ moves as far.

    Args:
        kernel_fn: see `ntklib.infinite.twin`.
        data: what the predictor is trained on, X and Y, labels as one-hot rows.
        held_out: images of the same classes that the weights are learnt on.
        key: shuffles the batches, and is for what is random in the attack.
        attack: see `ntklib.attacks`.
        learning_rate: $\eta$.
        steps: number of steps.
        batch_size: of held-out images; what is left of them in a pass is left out.
        share: what has a weight of its own: `"inputs"`; `"inputs and classes"`; `"nothing"`, where
            one weight serves all, which is early stopping.
        gram: `ntklib.infinite.kernel(kernel_fn, data.x)`, if it is at hand.
        keep: steps after which the weights are kept; 0 is the start.
        checkpoint: a file that holds the state after the last step; if it exists, the run goes on
            from there, to the same bits.
        progress: whether a bar is shown in a terminal.

    Raises:
        ValueError: if an argument is malformed, or the kernel does not fit the data.
        DivergedError: if the predictor is not finite, naming the step.
        CheckpointError: see `ntklib.training.fit`.
    """
    steps, size = _checks.whole("steps", steps), _checks.whole("batch_size", batch_size)
    rate = _checks.number("learning_rate", learning_rate, above=0)
    _checks.one_of("share", share, get_args(Share))
    _same_task(data, held_out, size)
    if not all(0 <= step <= steps for step in keep):
        raise ValueError(f"keep: {sorted(keep)} has steps out of range; they are 0 to {steps}")
    gram = np.asarray(infinite.kernel(kernel_fn, data.x) if gram is None else gram, np.float64)
    targets = np.asarray(data.one_hot(), np.float64)
    n, c = targets.shape
    shape = {"inputs": (n, 1), "inputs and classes": (n, c), "nothing": (1, 1)}[share]
    _fits(gram, np.zeros(shape), targets)
    length = rate / np.sqrt(n) if share == "nothing" else rate

    run = {
        "attack": repr(attack),
        "batch_size": size,
        "data": checkpoints.digest((gram, data.x, data.y, held_out.x, held_out.y)),
        "keep": sorted(keep),
        "key": jax.random.key_data(key).tolist(),
        "learning_rate": rate,
        "share": share,
    }
    # Steps that are still to come hold the start until then.
    start = {"weights": np.zeros(shape), "loss": np.zeros(0)}
    state: Any = start | {"kept": {str(step): np.zeros(shape) for step in sorted(keep)}}
    if checkpoint is not None:
        state = checkpoints.load(checkpoint, run, state)
    weights, losses = state["weights"], state["loss"].tolist()
    kept = {int(step): w for step, w in state["kept"].items()}

    for step in tqdm(
        range(len(losses) + 1, steps + 1),
        initial=len(losses), total=steps, desc="Adv-NTK", disable=None if progress else True,
    ):  # fmt: skip
        coefficients, pullback = flow(gram, np.abs(weights), targets)
        batch, key_attack = _batch(key, step, len(held_out), size)
        x, y = held_out.x[batch], held_out.y[batch]
        attacked = attack(infinite.predictor(kernel_fn, data.x, coefficients), x, y, key_attack)
        cross = np.asarray(infinite.kernel(kernel_fn, attacked, data.x), np.float64)
        errors = cross @ coefficients - np.eye(c)[np.asarray(y)]
        losses.append(float((errors**2).sum() / (2 * size)))
        gradient = pullback(cross.T @ errors / size) * np.where(weights < 0, -1, 1)
        weights = weights - length * gradient / (np.linalg.norm(gradient) + 1e-8)
        if not (np.isfinite(losses[-1]) and np.isfinite(weights).all()):
            raise DivergedError(
                f"step {step}: the loss is {losses[-1]}; lower the learning rate, which is {rate:g}"
            )
        if step in keep:
            kept[step] = weights
        if checkpoint is not None:
            saved = {str(k): w for k, w in kept.items()}
            state = {"weights": weights, "loss": np.array(losses), "kept": saved}
            checkpoints.save(checkpoint, run, state)
    return History(weights, flow(gram, np.abs(weights), targets)[0], losses, kept)


def _same_task(data: Split, held_out: Split, batch_size: int) -> None:
    for name, split in (("data", data), ("held_out", held_out)):
        _checks.points(f"{name}.x", split.x)
        _checks.labels(f"{name}.y", split.y, len(split.x), data.n_classes)
    _checks.same_rows("held_out.x", held_out.x, "data.x", data.x)
    if batch_size > len(held_out):
        raise ValueError(
            f"batch_size: {batch_size} is out of range; it is from 1 to {len(held_out)}, "
            "the number of held-out images"
        )


def _batch(key: PRNGKeyArray, step: int, n: int, size: int) -> tuple[np.ndarray, PRNGKeyArray]:
    """The indices of the batch of a step, counted from 1, and a key for its attack."""
    key_order, key_attack = jax.random.split(key)
    a_pass, position = divmod(step - 1, n // size)
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key_order, a_pass), n))
    return order[position * size : (position + 1) * size], jax.random.fold_in(key_attack, step)
