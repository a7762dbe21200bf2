"""Attacks that follow the gradient of the loss in the image."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ntklib.attacks import ball
from ntklib.attacks.ball import Clip, Norm, Scalar
from ntklib.attacks.losses import Images, Labels, Logits, LogitsFn, Loss, correct, loss_per_point
from ntklib.linear import bind


@jax.jit
def _forward(logits_fn: Partial, x: Images) -> Any:
    return logits_fn(x)


def check_model(logits_fn: LogitsFn, x: Images, y: Any) -> None:
    """Refuses labels that do not fit the images, and functions that do not return logits.

    Raises:
        TypeError: if `y` is not of an integer type.
        ValueError: if `y` has another shape than (n,) or labels that are no class, or `logits_fn`
            returns another shape than (n, classes).
    """
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"y: dtype {y.dtype} is not allowed; it is an integer type")
    if y.shape != x.shape[:1]:
        raise ValueError(f"y: shape {y.shape} does not fit x of shape {x.shape}; it is (n,)")
    logits = jax.eval_shape(_forward, bind(logits_fn), x)
    if logits.ndim != 2 or len(logits) != len(x):
        raise ValueError(
            f"logits_fn: returns shape {logits.shape} for {len(x)} images; it is (n, classes)"
        )
    classes = max(2, logits.shape[1])
    known = jnp.all(y >= 0) & jnp.all(y < classes)
    if not isinstance(known, jax.core.Tracer) and not known:
        raise ValueError(f"y: has labels outside the classes, which are 0 to {classes - 1}")


def input_gradient(logits_fn: LogitsFn, x: Images, y: Labels, loss: Loss = "ce") -> Images:
    """Gradient of the loss of each point with respect to its image."""
    return _gradient(bind(logits_fn), x, y, loss)[0]


@partial(jax.jit, static_argnames="loss")
def _gradient(logits_fn: Partial, x: Images, y: Labels, loss: Loss) -> tuple[Images, Logits]:
    def total(z: Images) -> tuple[Float[Array, ""], Logits]:
        logits = logits_fn(z)
        return jnp.sum(loss_per_point(logits, y, loss)), logits

    return jax.grad(total, has_aux=True)(x)


def fgsm(
    logits_fn: LogitsFn,
    x: Images,
    y: Labels,
    *,
    epsilon: float | int,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Images:
    r"""Fast gradient sign method: $\mathrm{clip}(x + \epsilon\,\mathrm{sign}\nabla_x \ell)$.

    Source: Goodfellow, Shlens & Szegedy (2015). Equal to one step of `pgd` from `x`.

    Raises:
        TypeError: see `pgd`.
        ValueError: see `pgd`.
    """
    return pgd(
        logits_fn,
        x,
        y,
        jax.random.key(0),  # not used: there is no random start
        epsilon=epsilon,
        steps=1,
        step_size=epsilon,
        random_start=False,
        loss=loss,
        clip=clip,
    )


def pgd(
    logits_fn: LogitsFn,
    x: Images,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: float | int,
    steps: int,
    step_size: float | int,
    norm: Norm = "linf",
    random_start: bool = True,
    restarts: int = 1,
    early_exit: bool = False,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Images:
    r"""Projected gradient descent on the loss, within the ball and the box.

    $x_{k+1} = \Pi\big(x_k + \alpha\, d(\nabla_x \ell(x_k))\big)$, where $d$ is the sign for
    $\ell_\infty$ and the normalised gradient for $\ell_2$, and $\Pi$ projects on
    $\{z : \|z - x\| \le \epsilon\}$ and then on `clip`. A random start is uniform in the ball,
    then projected on `clip`. Source: Madry et al. (2018).

    Another `epsilon`, `steps`, `step_size`, `random_start` or `early_exit` does not compile again.

    Args:
        logits_fn: the classifier (see the package's text).
        x: clean images, within `clip`, float32 or float64.
        y: their labels.
        key: for the random starts.
        epsilon: radius of the ball, in units of pixels.
        steps: number of steps, at least 1.
        step_size: length of a step, in units of pixels.
        norm: `"linf"` or `"l2"` (over all pixels and channels of an image).
        random_start: whether to start at a uniform point of the ball, else at `x`.
        restarts: number of starts, at least 1; more than 1 needs random starts. Of their last
            iterates each point keeps one that is misclassified, and if several are, or none, the
            one with the highest loss.
        early_exit: whether a point stays where it is once it is misclassified, and the loop ends
            when all points of the batch are. Such points may have a lower loss than without.
        loss: see `loss_per_point`.
        clip: range of a pixel.

    Returns:
        The last iterates. The box holds exactly, and so does the ball: $|result - x| \le \epsilon$
        for $\ell_\infty$, computed in the dtype of `x`, and $\|result - x\| \le \epsilon$ for
        $\ell_2$ (see `ntklib.attacks.ball.project`), computed in float32 or float64.

    Raises:
        TypeError: if `x` or `y` has a dtype that is not allowed.
        ValueError: if a shape, a label, `epsilon`, `steps`, `step_size`, `norm`, `restarts`,
            `loss` or `clip` is out of range, or `x` leaves `clip`.
    """
    ball.check(x, epsilon, norm, clip)
    if steps < 1:
        raise ValueError(f"steps: {steps} is out of range; it is a whole number >= 1")
    if not 0 <= step_size < float("inf"):
        raise ValueError(f"step_size: {step_size} is out of range; it is a finite number >= 0")
    if restarts < 1:
        raise ValueError(f"restarts: {restarts} is out of range; it is a whole number >= 1")
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts: {restarts} starts without a random start are all the same")
    check_model(logits_fn, x, y)
    starts = ball.uniform(x, key, restarts, epsilon, norm, clip) if random_start else x[None]
    return _pgd(
        bind(logits_fn), x, y, starts, epsilon, steps, step_size, early_exit,
        norm=norm, loss=loss, clip=clip,
    )  # fmt: skip


# Steps done, images, and which of them still move.
_Climb = tuple[Int[Array, ""], Images, Bool[Array, " n"]]
# Images, whether they are misclassified, and their loss.
_Best = tuple[Images, Bool[Array, " n"], Float[Array, " n"]]


def choose(which: Bool[Array, " n"], these: Images, those: Images) -> Images:
    """These images where it says so, those elsewhere."""
    return jnp.where(which[:, None, None, None], these, those)


@partial(jax.jit, static_argnames=("norm", "loss", "clip"))
def _pgd(
    logits_fn: Partial,
    x: Images,
    y: Labels,
    starts: Float[Array, "restarts n h w c"],
    epsilon: Scalar,
    steps: Scalar,
    step_size: Scalar,
    early_exit: Bool[Array, ""],
    *,
    norm: Norm,
    loss: Loss,
    clip: Clip,
) -> Images:
    step_size = jnp.asarray(step_size, x.dtype)

    def direction(g: Images) -> Images:
        if norm == "linf":
            return jnp.sign(g)
        return g / jnp.where(ball.length(g) > 0, ball.length(g), 1.0)

    def unfinished(state: _Climb) -> Bool[Array, ""]:
        k, _, moving = state
        return (k < steps) & jnp.any(moving)

    def step(state: _Climb) -> _Climb:
        k, z, _ = state
        g, logits = _gradient(logits_fn, z, y, loss)
        moving = correct(logits, y) | ~early_exit
        moved = ball.project(z + step_size * direction(g), x, epsilon, norm, clip)
        return k + 1, choose(moving, moved, z), moving

    def attempt(best: _Best, start: Images) -> tuple[_Best, None]:
        z, broken, height = best
        moving = ~(broken & early_exit)
        beginning = jnp.zeros((), int), choose(moving, start, z), moving
        _, last, _ = jax.lax.while_loop(unfinished, step, beginning)
        if len(starts) == 1:  # nothing to choose from
            return (last, broken, height), None
        logits = logits_fn(last)
        wrong, value = ~correct(logits, y), loss_per_point(logits, y, loss).astype(x.dtype)
        better = jnp.where(wrong == broken, value > height, wrong)
        best = choose(better, last, z), wrong | broken, jnp.where(better, value, height)
        return best, None

    nothing = (x, jnp.zeros(len(x), bool), jnp.full(len(x), -jnp.inf, x.dtype))
    return jax.lax.scan(attempt, nothing, starts)[0][0]
