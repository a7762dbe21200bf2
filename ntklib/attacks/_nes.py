"""Attack by gradients that are estimated from logits."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PRNGKeyArray

from ntklib import _checks
from ntklib._checks import Number
from ntklib.attacks._ball import Ball, Clip, Scalar, choose, column, length
from ntklib.attacks._gradient import classifier
from ntklib.attacks._losses import Inputs, Labels, LogitsFn, Loss, Rows, correct, loss_per_point


def nes(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: Number,
    steps: Number,
    samples: Number,
    sigma: Number | None = None,
    step_size: Number | None = None,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Inputs:
    r"""Steps along a gradient that is estimated from logits, in the $\ell_\infty$ ball and box.

    $x_{k+1} = \Pi\big(x_k + \alpha\,\mathrm{sign}\,g(x_k)\big)$ with $x_0 = x$, $\Pi$ as in `pgd`,
    and, for m Gaussian directions $u_j \sim N(0, I)$, each taken forwards and backwards,

    $$g(x) = \frac{1}{2 \sigma m} \sum_{j \le m}
    \big(\ell(x + \sigma u_j) - \ell(x - \sigma u_j)\big)\, u_j ,$$

    whose mean is the gradient of the loss after smoothing by noise of size $\sigma$. So a jump of
    the classifier counts, which its own gradient does not see. A step takes 2m evaluations. Inputs
    that are misclassified are left as they are. Source: Ilyas et al. (2018), natural evolution
    strategies. The directions are the same for all inputs of a call.

    Another `epsilon`, `steps`, `samples`, `sigma` or `step_size` does not compile again.

    Args:
        logits_fn: the classifier (see the package's text).
        x: clean inputs, one a row, within `clip`, float32 or float64.
        y: their labels.
        key: for the directions.
        epsilon: radius of the ball, in units of entries of `x`.
        steps: number of steps, at least 1.
        samples: number m of directions of a step, at least 1.
        sigma: size of the noise, in the same units, above 0; None for half of `epsilon`.
        step_size: length of a step, in the same units; None for `2.5 * epsilon / steps`.
        loss: see `loss_per_point`.
        clip: range of an entry; None for any. Noise may leave it.

    Returns:
        The last iterates, exactly in the ball and the box (see `pgd`).

    Raises:
        TypeError: see `pgd`.
        ValueError: see `pgd`; or if `samples` or `sigma` is out of range.
    """
    given = Ball.around(x, epsilon, clip=clip)
    steps, samples = _checks.whole("steps", steps), _checks.whole("samples", samples)
    size = 2.5 * given.epsilon / steps if step_size is None else length("step_size", step_size)
    noise = given.epsilon / 2 if sigma is None else _checks.number("sigma", sigma, above=0)
    ball = given.on_device()
    bound, y = classifier(logits_fn, ball.x, y)
    return given.exactly(_nes(bound, ball, y, key, steps, samples, noise, size, loss=loss))


@partial(jax.jit, static_argnames="loss")
def _nes(
    logits_fn: Partial,
    ball: Ball,
    y: Labels,
    key: PRNGKeyArray,
    steps: Scalar,
    samples: Scalar,
    sigma: Scalar,
    step_size: Scalar,
    *,
    loss: Loss,
) -> Inputs:
    def estimated(z: Array, key: PRNGKeyArray) -> Array:
        """The gradient, up to a factor."""

        def add(j: Scalar, total: Array) -> Array:
            u = jax.random.normal(jax.random.fold_in(key, j), z.shape[1:], z.dtype)
            up, down = (
                loss_per_point(logits_fn(z + sign * sigma * u), y, loss) for sign in (1.0, -1.0)
            )
            return total + column(up - down, z).astype(z.dtype) * u

        return jax.lax.fori_loop(0, samples, add, jnp.zeros_like(z))

    def step(i: Scalar, z: Array) -> Inputs:
        moved = ball.ascend(z, estimated(z, jax.random.fold_in(key, i)), step_size)
        return choose(correct(logits_fn(z), y), moved, z)

    return jax.lax.fori_loop(0, steps, step, ball.x)
