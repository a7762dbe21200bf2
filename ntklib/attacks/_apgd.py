"""Attacks by gradients that find the length of their steps themselves."""

from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, Integer, PRNGKeyArray

from ntklib import _checks
from ntklib._checks import Number
from ntklib.attacks._ball import Ball, Clip, Norm, Scalar, choose, column
from ntklib.attacks._gradient import Best, best_of, classifier, forward, nothing
from ntklib.attacks._losses import (
    Inputs,
    Labels,
    LogitsFn,
    Loss,
    Rows,
    loss_per_point,
    targeted_dlr,
)

# The shares of the steps, in percent, after which their length is looked at: 0, 22, and then each
# as much later as the one before less 3, but 6 at least. At the start there is nothing to halve.
_CHECKPOINTS = (0, 22, 41, 57, 70, 80, 87, 93, 99)
_NEW = 0.75  # share of the new step in a move; the rest is the move before
_RISING = 0.75  # share of the steps that have to raise the loss


def apgd(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: Number,
    steps: Number = 100,
    norm: Norm = "linf",
    restarts: Number = 1,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Inputs:
    r"""Auto-PGD: projected gradient ascent with momentum that finds its own step sizes.

    From $x_0$, uniform in the ball and then projected on `clip`, with $d$ and $\Pi$ as in `pgd`,

    $$z_k = \Pi\big(x_k + \eta\, d(\nabla_x \ell(x_k))\big), \qquad
    x_{k+1} = \Pi\big(x_k + \alpha (z_k - x_k) + (1 - \alpha)(x_k - x_{k-1})\big),$$

    where $\alpha$ is 1 in the first step and 0.75 later. The step $\eta$ of each input is
    $2 \epsilon$ at first. At the checkpoints $w_j = \lceil p_j \cdot steps \rceil$, with $p_0 = 0$,
    $p_1 = 0.22$ and $p_{j+1} = p_j + \max(p_j - p_{j-1} - 0.03,\, 0.06)$, it is halved, and the
    input goes back to where its loss was highest, if since $w_{j-1}$

    - fewer than 0.75 of the steps have raised the loss, or
    - the highest loss has not changed, and $\eta$ had not been halved at $w_{j-1}$.

    Source: Croce & Hein (2020), algorithm 1.

    Of all iterates of all starts, each point keeps the misclassified one of highest loss, or the
    one of highest loss if none is misclassified; if no loss is a number, `x`. It is exactly in the
    ball and the box, and stays where the gradient is not finite, as in `pgd`. Another `epsilon` or
    `steps` does not compile again.

    Args:
        logits_fn: the classifier (see the package's text).
        x: clean inputs, one a row, within `clip`, float32 or float64.
        y: their labels.
        key: for the random starts.
        epsilon: radius of the ball, in units of entries of `x`, such as pixels.
        steps: number of steps from each start; each takes one gradient.
        norm: `"linf"` or `"l2"` (over all entries of an input).
        restarts: number of starts.
        loss: see `loss_per_point`.
        clip: range of an entry; None for any.
    """
    given = Ball.around(x, epsilon, norm, clip)
    steps, restarts = _checks.whole("steps", steps), _checks.whole("restarts", restarts)
    ball = given.on_device()
    bound, y = classifier(logits_fn, ball.x, y)
    starts = ball.uniform(key, restarts)
    return given.exactly(_apgd(bound, ball, y, starts, None, steps, loss=loss))


def apgd_targeted(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: Number,
    steps: Number = 100,
    n_targets: Number = 9,
    norm: Norm = "linf",
    clip: Clip = (0.0, 1.0),
) -> Inputs:
    r"""Auto-PGD on the targeted DLR loss, towards one wrong class after another.

    The loss is $(f_t - f_y) / (f_{\pi_1} - \frac12 (f_{\pi_3} + f_{\pi_4}))$, where $f_{\pi_1}$ is
    the largest logit, $f_{\pi_3}$ and $f_{\pi_4}$ are the third and the fourth. The targets $t$ of
    an input are the `n_targets` wrong classes of highest logit at `x`, or all of them if there are
    fewer; each has a random start of its own. All else is as in `apgd`, where the arguments are
    explained. Source: Croce & Hein (2020).

    Raises:
        TypeError: see `apgd`.
        ValueError: see `apgd`; or if there are fewer than four columns of logits.
    """
    given = Ball.around(x, epsilon, norm, clip)
    steps, n_targets = _checks.whole("steps", steps), _checks.whole("n_targets", n_targets)
    ball = given.on_device()
    bound, y = classifier(logits_fn, ball.x, y)
    logits = forward(bound, ball.x)
    if (columns := logits.shape[1]) < 4:
        raise ValueError(
            f"logits: the classifier returns columns for {max(2, columns)} classes; a targeted "
            "DLR needs 4 or more"
        )
    wrong = logits.at[jnp.arange(len(y)), y].set(-jnp.inf)
    toward = jax.lax.top_k(wrong, min(n_targets, columns - 1))[1].T
    starts = ball.uniform(key, len(toward))
    return given.exactly(_apgd(bound, ball, y, starts, toward, steps, loss="dlr"))


def checkpoints(steps: Scalar) -> Int[Array, "9"]:
    """The numbers of steps after which the length of a step is looked at."""
    return -(-jnp.asarray(_CHECKPOINTS) * steps // 100)


class _Point(NamedTuple):
    """Inputs, their loss, and its gradient."""

    z: Inputs
    loss: Float[Array, " n"]
    gradient: Float[Array, "n ..."]


class _State(NamedTuple):
    z: Inputs
    before: _Point  # where the last step began
    highest: _Point  # of this start
    best: Best  # of all starts
    size: Float[Array, " n"]  # of a step
    rises: Integer[Array, " n"]  # steps since the last checkpoint that have raised the loss
    halved: Bool[Array, " n"]  # whether `size` was, at the last checkpoint
    reached: Float[Array, " n"]  # the highest loss at the last checkpoint


_Tree = TypeVar("_Tree")


def _where(which: Bool[Array, " n"], these: _Tree, those: _Tree) -> _Tree:
    return jax.tree.map(partial(choose, which), these, those)


@partial(jax.jit, static_argnames="loss")
def _apgd(
    logits_fn: Partial,
    ball: Ball,
    y: Labels,
    starts: Float[Array, "runs n ..."],
    toward: Integer[Array, "runs n"] | None,
    steps: Scalar,
    *,
    loss: Loss,
) -> Inputs:
    marks = checkpoints(steps)

    def look(z: Inputs, goal: Integer[Array, " n"] | None, best: Best) -> tuple[_Point, Best]:
        """The loss and its gradient, and whether it is the best so far."""

        def total(z: Inputs) -> tuple[Array, tuple[Array, Array]]:
            logits = logits_fn(z)
            each = (
                loss_per_point(logits, y, loss) if goal is None else targeted_dlr(logits, y, goal)
            )
            return each.sum(), (logits, each)

        gradient, (logits, value) = jax.grad(total, has_aux=True)(z)
        value = jnp.where(jnp.isnan(value), -jnp.inf, value).astype(z.dtype)
        return _Point(z, value, gradient), best_of(best, z, logits, y, value)

    def attempt(best: Best, run: tuple[Inputs, Integer[Array, " n"] | None]) -> tuple[Best, None]:
        start, goal = run

        def step(k: Scalar, s: _State) -> _State:
            now, best = look(s.z, goal, s.best)
            highest = _where(now.loss > s.highest.loss, now, s.highest)
            rises = s.rises + (now.loss > s.before.loss)
            since = k - jnp.max(marks, where=marks < k, initial=0)
            check = jnp.any(k == marks)
            stuck = (highest.loss == s.reached) & ~s.halved
            halve = check & ((rises < _RISING * since) | stuck)
            here, size = _where(halve, highest, now), jnp.where(halve, s.size / 2, s.size)
            uphill = ball.ascend(here.z, here.gradient, column(size, here.z)) - here.z
            new = jnp.where(k == 0, 1.0, _NEW).astype(uphill.dtype)
            return _State(
                ball.project(here.z + new * uphill + (1 - new) * (here.z - s.before.z)),
                here,
                highest,
                best,
                size,
                jnp.where(check, 0, rises),
                jnp.where(check, halve, s.halved),
                jnp.where(check, highest.loss, s.reached),
            )

        n, infinity = len(start), jnp.full(len(start), jnp.inf, start.dtype)
        worst = _Point(start, -infinity, jnp.zeros_like(start))
        size = jnp.full(n, 2 * ball.epsilon, start.dtype)
        first = _State(
            start, worst, worst, best, size, jnp.zeros(n, int), jnp.zeros(n, bool), infinity
        )
        return jax.lax.fori_loop(0, steps + 1, step, first).best, None

    return jax.lax.scan(attempt, nothing(ball), (starts, toward))[0][0]
