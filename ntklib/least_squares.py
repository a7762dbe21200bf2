r"""Regression with a fixed tangent kernel, solved by conjugate gradients, without the kernel.

The linearisation of a network at $\theta_t$ is linear in $\delta = \theta - \theta_t$, so that on
the squared loss its training has a solution,
$\delta = J^\top (J J^\top + n \lambda I)^{-1} (t - f)$ with the Jacobian J of all n images and
outputs, the targets t and the outputs f at $\delta = 0$.
Gradient descent is on its way there; conjugate gradients go there, and their residual says how far
they are.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64

from ntklib import _checkpoint as checkpoints
from ntklib import _checks
from ntklib._products import backward, forward, outputs
from ntklib.attacks import correct, targets
from ntklib.data import Split
from ntklib.linear import bind
from ntklib.models import Model, Variables
from ntklib.recipes import Solve

_BLOCK = 25  # images at a time: few stay in the cache of a CPU


@dataclass
class Solution:
    """What `solve` returns: the last variables, and what there was after each iteration.

    `residual` is the gradient's norm over that at the start, which is 0 at the solution; `loss` is
    what is minimised, and `accuracy` that on the training images. `kept` has the variables after
    the iterations that `solve` was asked to keep.
    """

    variables: Variables
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    residual: list[float] = field(default_factory=list)
    kept: dict[int, Variables] = field(default_factory=dict)


def solve(
    network: Model,
    tangent: Variables,
    data: Split,
    *,
    recipe: Solve,
    centered: bool = True,
    keep: Collection[int] = (),
    checkpoint: str | Path | None = None,
) -> Solution:
    r"""Least squares on the linearisation of a network, by conjugate gradients (CGLS).

    What is minimised is

    $$\frac1n \sum_i \frac12 \|f(x_i) + J(x_i)\,\delta - t_i\|^2 + \frac{\lambda}{2}\|\delta\|^2$$

    from $\delta = 0$, with f = 0 if centred (see `ntklib.linear.linearize`). The targets t are
    one-hot less $1/k$ for k classes, and $\pm 1$ for one output. An iteration takes one product
    with J and one with its transpose, in the type of the network, some images at a time; all else
    is in float64. In exact arithmetic each iteration gives the smallest loss of its Krylov space,
    so the loss never rises, and the solution is the one of smallest norm. The residual may rise
    now and then. Source: Hestenes & Stiefel (1952), Björck (1996).

    Args:
        network: the network that is linearised.
        tangent: where: its variables, as returned by `init`. Collections other than "params" stay.
        data: training images and labels.
        recipe: number of iterations, and $\lambda$.
        centered: whether the outputs at the tangent point are left out.
        keep: iterations after which the variables are kept; 0 is the start.
        checkpoint: a file as for `ntklib.training.fit`: if it exists, the iterations go on from
            there, to the same bits as without the interruption, and there may be more of them.

    Returns:
        Variables of the linearisation, {"params": ...}.

    Raises:
        ValueError: if an argument is malformed, or the gradient at the start is not finite.
        CheckpointError: see `ntklib.training.fit`.
    """
    tangent, last = _checks.parameters("tangent", tangent), int(recipe.iterations)
    x, t = jnp.asarray(_checks.points("data.x", data.x)), _targets(network, tangent, data)
    if not all(0 <= iteration <= last for iteration in keep):
        raise ValueError(f"keep: {sorted(keep)} has iterations out of range; they are 0 to {last}")
    origin, unravel = ravel_pytree(tangent["params"])
    if not jnp.issubdtype(origin.dtype, jnp.floating):
        raise TypeError(f"tangent: dtype {origin.dtype} is not allowed; parameters are real here")
    jacobian = bind(network.apply), tangent, x
    damping = len(x) * recipe.ridge

    def transposed(r: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " p"]:
        return np.asarray(_backward(*jacobian, r), np.float64)

    # r = t - f - J delta, and p, the direction; gamma is the squared norm of the gradient.
    r = t if centered else t - np.asarray(_outputs(*jacobian), np.float64)
    p = transposed(r)
    initial = float(p @ p)
    if not np.isfinite(initial):
        raise ValueError("tangent: the gradient of the loss there is not finite")
    state: dict[str, Any] = {"delta": np.zeros_like(p), "r": r, "p": p, "gamma": np.array(initial)}
    state |= {name: np.zeros(0) for name in ("loss", "accuracy", "residual")}
    state["kept"] = {str(iteration): np.zeros_like(p) for iteration in keep}
    if checkpoint is not None:
        run = _identity(jacobian, data, recipe, centered, keep)
        state = checkpoints.load(checkpoint, run, state)
        if len(state["loss"]) > last:
            done = len(state["loss"])
            raise ValueError(f"iterations: {last} is less than the {done} of checkpoint")

    pause = 0.0
    for iteration in range(len(state["loss"]) + 1, last + 1):
        delta, r, p, gamma = (state[name] for name in ("delta", "r", "p", "gamma"))
        q = np.asarray(_forward(*jacobian, p), np.float64)
        curvature = np.vdot(q, q) + damping * (p @ p)
        length = gamma / curvature if curvature > 0 else 0.0  # 0 where it is solved exactly
        delta, r = delta + length * p, r - length * q
        s = transposed(r) - damping * delta
        before, gamma = gamma, s @ s
        p = s + (gamma / before if before > 0 else 0.0) * p
        measured = {
            "loss": (np.vdot(r, r) + damping * (delta @ delta)) / (2 * len(x)),
            "accuracy": np.mean(correct(jnp.asarray(t - r), data.y)),
            "residual": np.sqrt(gamma / initial) if initial > 0 else 0.0,
        }
        state |= {name: np.append(state[name], value) for name, value in measured.items()}
        state |= {"delta": delta, "r": r, "p": p, "gamma": np.array(gamma)}
        if iteration in keep:
            state["kept"][str(iteration)] = delta
        if checkpoint is not None and (iteration == last or time.monotonic() > pause):
            begun = time.monotonic()
            checkpoints.save(checkpoint, run, state)
            pause = time.monotonic() + checkpoints.PATIENCE * (time.monotonic() - begun)

    def variables(delta: Float64[np.ndarray, " p"]) -> Variables:
        moved = (np.asarray(origin, np.float64) + delta).astype(origin.dtype)
        return {"params": unravel(jnp.asarray(moved))}

    return Solution(
        variables(state["delta"]),
        state["loss"].tolist(),
        state["accuracy"].tolist(),
        state["residual"].tolist(),
        {int(iteration): variables(delta) for iteration, delta in state["kept"].items()},
    )


def _targets(network: Model, tangent: Variables, data: Split) -> Float64[np.ndarray, "n k"]:
    logits = jax.eval_shape(network.apply, tangent, data.x[:1])
    columns = _checks.logits(logits, 1)
    if columns != data.n_classes and (columns, data.n_classes) != (1, 2):
        raise ValueError(
            f"network: its logits for one image have shape {logits.shape}; there are "
            f"{data.n_classes} classes"
        )
    y = jnp.asarray(_checks.labels("data.y", data.y, len(data.x), data.n_classes))
    t = np.asarray(targets(y, columns), np.float64)
    return t - t.mean(axis=1, keepdims=True) if columns > 1 else t


@jax.jit
def _forward(
    apply: Partial, tangent: Variables, x: Array, direction: Float[Array | np.ndarray, " p"]
) -> Float[Array, "n k"]:
    params, unravel = ravel_pytree(tangent["params"])
    direction = unravel(jnp.asarray(direction, params.dtype))
    return forward(apply, tangent, x, direction, min(_BLOCK, len(x)))


@jax.jit
def _backward(
    apply: Partial, tangent: Variables, x: Array, cotangents: Float[Array | np.ndarray, "n k"]
) -> Float[Array, " p"]:
    dtype = jax.eval_shape(apply, tangent, x[:1]).dtype
    cotangents = jnp.asarray(cotangents, dtype)
    return ravel_pytree(backward(apply, tangent, x, cotangents, min(_BLOCK, len(x))))[0]


@jax.jit
def _outputs(apply: Partial, tangent: Variables, x: Array) -> Float[Array, "n k"]:
    return outputs(apply, tangent, x, min(_BLOCK, len(x)))


def _identity(
    jacobian: tuple[Partial, Variables, Array],
    data: Split,
    recipe: Solve,
    centered: bool,
    keep: Collection[int],
) -> dict[str, Any]:
    """What must be the same for the iterations to be the same to the last bit, but their number."""
    apply, tangent, x = jacobian
    r = jax.ShapeDtypeStruct((len(x), data.n_classes), jnp.float32)
    program = _backward.lower(apply, tangent, x, r).as_text()
    return {
        "centered": centered,
        "data": checkpoints.digest((data.x, data.y)),
        "jax": f"{jax.__version__} on {jax.default_backend()}",
        "keep": sorted(keep),
        "network": sha256(program.encode()).hexdigest(),
        "ridge": recipe.ridge,
        "tangent": checkpoints.digest((tangent, apply.args)),
    }
