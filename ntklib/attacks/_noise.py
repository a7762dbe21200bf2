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

    The control of every $\ell_\infty$ attack: what it does is not the adversary's doing. The
    classifier and the labels are not looked at; None will do. The result is exactly in the ball and
    the box (see `pgd`).
    """
    given = Ball.around(x, epsilon, clip=clip)
    return given.exactly(_random_sign(given.on_device(), key))


@jax.jit
def _random_sign(ball: Ball, key: PRNGKeyArray) -> Inputs:
    low, high = ball.bounds()
    return jnp.where(jax.random.bernoulli(key, shape=ball.x.shape), high, low)
