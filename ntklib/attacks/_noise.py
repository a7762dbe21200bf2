"""Noise of the size of an attack."""

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ntklib._checks import Number
from ntklib.attacks._ball import Ball, Clip
from ntklib.attacks._losses import Inputs, Labels, LogitsFn, Rows


def random_sign(
    logits_fn: LogitsFn | None,
    x: Rows,
    y: Labels | None,
    key: PRNGKeyArray,
    *,
    epsilon: Number,
    clip: Clip = (0.0, 1.0),
) -> Inputs:
    r"""Noise of the size of an attack: $\mathrm{clip}(x + \epsilon s)$, $s$ uniform in $\{\pm1\}$.

    The control of every $\ell_\infty$ attack: what it does is not the adversary's doing.

    Args:
        logits_fn: not looked at; None will do.
        x: see `pgd`.
        y: not looked at; None will do.
        key: for the signs.
        epsilon: radius of the ball, in units of entries of `x`.
        clip: see `pgd`.

    Returns:
        The noisy inputs, exactly in the ball and the box (see `pgd`).

    Raises:
        TypeError: if `x` is not float32 or float64, or `epsilon` is no number.
        ValueError: if `x` is no batch of inputs, leaves `clip` or is not finite, or `epsilon` or
            `clip` is out of range.
    """
    given = Ball.around(x, epsilon, clip=clip)
    return given.exactly(_random_sign(given.on_device(), key))


@jax.jit
def _random_sign(ball: Ball, key: PRNGKeyArray) -> Inputs:
    low, high = ball.bounds()
    return jnp.where(jax.random.bernoulli(key, shape=ball.x.shape), high, low)
