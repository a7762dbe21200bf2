"""Attacks that follow the gradient of the loss in the input."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from ntklib import _checks
from ntklib._checks import Number
from ntklib.attacks._ball import Ball, Clip, Norm, Scalar, choose, length
from ntklib.attacks._losses import (
    Inputs,
    Labels,
    Logits,
    LogitsFn,
    Loss,
    Rows,
    correct,
    loss_per_point,
)
from ntklib.linear import bind


@jax.jit
def forward(logits_fn: Partial, x: Inputs) -> Any:
    """What a classifier returns, compiled."""
    return logits_fn(x)


def classifier(logits_fn: LogitsFn, x: Inputs, y: Labels) -> tuple[Partial, Integer[Array, " n"]]:
    """A classifier and labels for JAX to compute with, once they are known to fit the inputs."""
    bound = bind(logits_fn)
    columns = _checks.logits(jax.eval_shape(forward, bound, x), len(x))
    return bound, jnp.asarray(_checks.labels("y", y, len(x), max(2, columns)))


def input_gradient(logits_fn: LogitsFn, x: Rows, y: Labels, loss: Loss = "ce") -> Inputs:
    """Gradient of the loss of each point with respect to its input."""
    x = jnp.asarray(_checks.points("x", x))
    bound, y = classifier(logits_fn, x, y)
    return _gradient(bound, x, y, loss)


@partial(jax.jit, static_argnames="loss")
def _gradient(logits_fn: Partial, x: Inputs, y: Labels, loss: Loss) -> Inputs:
    return jax.grad(lambda z: jnp.sum(loss_per_point(logits_fn(z), y, loss)))(x)


def fgsm(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray | None = None,
    *,
    epsilon: Number,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Inputs:
    r"""Fast gradient sign method: $\mathrm{clip}(x + \epsilon\,\mathrm{sign}\nabla_x \ell)$.

    Equal to one step of `pgd` from `x`; the key is not used. Source: Goodfellow, Shlens & Szegedy
    (2015).
    """
    return pgd(
        logits_fn, x, y, key, epsilon=epsilon, steps=1, step_size=epsilon, random_start=False,
        loss=loss, clip=clip,
    )  # fmt: skip


def noisy_fgsm(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: Number,
    noise: Number | None = None,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Inputs:
    r"""N-FGSM, for training: the step of `fgsm` from a noisy input, not projected on the ball.

    $\mathrm{clip}(z + \epsilon\,\mathrm{sign}\nabla_x \ell(z))$ with $z = \mathrm{clip}(x + \eta)$
    and $\eta$ uniform in $[-k, k]$, where $k$ is `noise`, $2\epsilon$ if None. The result is
    exactly in the box, and as far as $\epsilon + k$ from `x`, which keeps training by one step from
    overfitting to it. Source: de Jorge et al. (2022). With noise in the ball and the projection, it
    is FGSM-RS (Wong et al. 2020), which is `pgd` with `steps=1` and `step_size=1.25 * epsilon`.
    """
    epsilon = length("epsilon", epsilon)
    noise = 2 * epsilon if noise is None else length("noise", noise)
    [start] = Ball.around(x, noise, clip=clip).on_device().uniform(key, 1)
    found = fgsm(logits_fn, start, y, epsilon=epsilon, loss=loss, clip=clip)
    reach = Ball.around(x, epsilon + noise, clip=clip)
    return reach.exactly(reach.on_device().project(found))


def pgd(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray | None,
    *,
    epsilon: Number,
    steps: Number,
    step_size: Number | None = None,
    norm: Norm = "linf",
    random_start: bool = True,
    restarts: Number = 1,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Inputs:
    r"""Projected gradient descent on the loss, within the ball and the box.

    $x_{k+1} = \Pi\big(x_k + \alpha\, d(\nabla_x \ell(x_k))\big)$, where $d$ is the sign for
    $\ell_\infty$ and the normalised gradient for $\ell_2$, and $\Pi$ projects on
    $\{z : \|z - x\| \le \epsilon\}$ and then on `clip`. A random start is uniform in the ball, then
    projected on `clip`. Source: Madry et al. (2018).

    Where the gradient is not finite, nothing moves: for $\ell_\infty$ an entry whose derivative is
    NaN (an infinite one has a sign), for $\ell_2$ a point with any such entry.

    The last iterates are returned. The box holds exactly, and so does the ball:
    $|result - x| \le \epsilon$ for $\ell_\infty$, computed in the dtype of `x`, and
    $\|result - x\| \le \epsilon$ for $\ell_2$ (see `Ball.project`), computed in float32 or float64.
    This is so for float64 NumPy inputs, too, where JAX computes in float32: the attack is on `x` as
    rounded, and its result is projected in float64, as a NumPy array. (Not within a compiled
    function, where all is in JAX's precision.) Numbers too small to be normal count as zero.

    Another `epsilon`, `steps`, `step_size` or `random_start` does not compile again.

    Args:
        logits_fn: the classifier (see the package's text).
        x: clean inputs, one a row, within `clip`, float32 or float64.
        y: their labels.
        key: for the random starts; None will do without.
        epsilon: radius of the ball, in units of entries of `x`, such as pixels.
        steps: number of steps.
        step_size: length of a step, in the same units; None for `2.5 * epsilon / steps`.
        norm: `"linf"` or `"l2"` (over all entries of an input).
        random_start: whether to start at a uniform point of the ball, else at `x`.
        restarts: number of starts; more than 1 needs random starts. Of their last iterates each
            point keeps one that is misclassified, and if several are, or none, the one with the
            highest loss; if no loss is a number, `x`.
        loss: see `loss_per_point`.
        clip: range of an entry; None for any.
    """
    given = Ball.around(x, epsilon, norm, clip)
    steps = _checks.whole("steps", steps)
    size = 2.5 * given.epsilon / steps if step_size is None else length("step_size", step_size)
    restarts = _checks.whole("restarts", restarts)
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts: {restarts} starts from x are all the same; it is 1 there")
    ball = given.on_device()
    bound, y = classifier(logits_fn, ball.x, y)
    starts = ball.uniform(key, restarts) if random_start else ball.x[None]
    return given.exactly(_pgd(bound, ball, y, starts, steps, size, loss=loss))


Best = tuple[Inputs, Bool[Array, " n"], Float[Array, " n"]]
"""Inputs, whether they are misclassified, and their loss."""


def nothing(ball: Ball) -> Best:
    """What is worse than whatever an attack finds."""
    n = len(ball.x)
    return ball.x, jnp.zeros(n, bool), jnp.full(n, -jnp.inf, ball.x.dtype)


def best_of(best: Best, z: Inputs, logits: Logits, y: Labels, loss: Float[Array, " n"]) -> Best:
    """The better for an attack, each input: misclassified ones first, then by the loss."""
    held, broken, height = best
    wrong, loss = ~correct(logits, y), jnp.where(jnp.isnan(loss), -jnp.inf, loss).astype(z.dtype)
    better = jnp.where(wrong == broken, loss > height, wrong)
    return choose(better, z, held), wrong | broken, jnp.where(better, loss, height)


@partial(jax.jit, static_argnames="loss")
def _pgd(
    logits_fn: Partial,
    ball: Ball,
    y: Labels,
    starts: Float[Array, "restarts n ..."],
    steps: Scalar,
    step_size: Scalar,
    *,
    loss: Loss,
) -> Inputs:
    def step(_: Scalar, z: Inputs) -> Inputs:
        return ball.ascend(z, _gradient(logits_fn, z, y, loss), step_size)

    def attempt(best: Best, start: Inputs) -> tuple[Best, None]:
        last = jax.lax.fori_loop(0, steps, step, start)
        if len(starts) == 1:  # nothing to choose from
            return (last, *best[1:]), None
        logits = logits_fn(last)
        return best_of(best, last, logits, y, loss_per_point(logits, y, loss)), None

    return jax.lax.scan(attempt, nothing(ball), starts)[0][0]
