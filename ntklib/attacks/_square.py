"""An attack that sees logits only, hence one that no masked gradient misleads."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntklib import _checks
from ntklib._checks import Number
from ntklib.attacks._ball import Ball, Clip, Scalar, choose
from ntklib.attacks._gradient import classifier
from ntklib.attacks._losses import Inputs, Labels, LogitsFn, Rows, loss_per_point
from ntklib.attacks._protocol import Attack

# The share of pixels in the square, and after which shares of the queries it halves.
_SHARE = 0.8
_HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: Number,
    queries: Number,
    start: Attack | None = None,
    clip: Clip = (0.0, 1.0),
) -> Inputs:
    r"""Square attack: random search for a larger margin loss, in the $\ell_\infty$ ball and box.

    It starts from vertical stripes, each $x \pm \epsilon$ in each channel. A query sets a random
    square of each image to $x \pm \epsilon$, one sign a channel, and keeps it where the loss
    (`"margin"`) rises. The side of the square is $\sqrt{p h w}$, rounded, where $p$ starts at 0.8
    and halves at 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10000 queries, in proportion
    for another number. Images that are misclassified are left as they are; the loop ends when all
    are. Source: Andriushchenko et al. (2020); 0.8 is from Croce & Hein (2020).

    The search starts at the images of the attack `start` in the same ball instead, if one is given.
    The images (n, h, w, c) stay exactly in the ball and the box (see `pgd`). `queries` are the
    evaluations of each that are allowed, the stripes included. Another number of them, or another
    `epsilon`, does not compile again.
    """
    given = Ball.around(x, epsilon, clip=clip)
    if given.x.ndim != 4:
        raise ValueError(f"x: shape {given.x.shape} is not allowed; for squares it is (n, h, w, c)")
    queries, ball = _checks.whole("queries", queries), given.on_device()
    bound, y = classifier(logits_fn, ball.x, y)
    begin = None if start is None else ball.project(start(bound, ball.x, y, key))
    return given.exactly(_square(bound, ball, y, begin, key, queries))


def side(i: Scalar, queries: Scalar, height: int, width: int) -> Int[Array, ""]:
    """Side of the square at query number i, in pixels."""
    halvings = jnp.sum(i > jnp.asarray(_HALVED_AT) * queries)
    p = _SHARE * 0.5**halvings
    return jnp.clip(jnp.round(jnp.sqrt(p * height * width)), 1, min(height, width)).astype(int)


# Evaluations made, images, and their loss.
_State = tuple[Int[Array, ""], Inputs, Float[Array, " n"]]


@jax.jit
def _square(
    logits_fn: Partial,
    ball: Ball,
    y: Labels,
    begin: Inputs | None,
    key: PRNGKeyArray,
    queries: Scalar,
) -> Inputs:
    n, height, width, channels = ball.x.shape
    low, high = ball.bounds()

    def score(z: Inputs) -> Float[Array, " n"]:
        loss = loss_per_point(logits_fn(z), y, "margin")
        return jnp.where(jnp.isnan(loss), -jnp.inf, loss)

    def unfinished(state: _State) -> Array:
        i, _, best = state
        return (i < queries) & jnp.any(best <= 0)

    def query(state: _State) -> _State:
        i, z, best = state
        u = jax.random.uniform(jax.random.fold_in(key, i), (n, 1, 1, 2 + channels))
        s = side(i, queries, height, width)
        row = jnp.floor(u[..., :1] * (height - s + 1))
        column = jnp.floor(u[..., 1:2] * (width - s + 1))
        rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
        window = (rows >= row) & (rows < row + s) & (columns >= column) & (columns < column + s)
        proposal = jnp.where(window, jnp.where(u[..., 2:] < 0.5, high, low), z)
        value = score(proposal)
        better = (value > best) & (best <= 0)
        return i + 1, choose(better, proposal, z), jnp.where(better, value, best)

    if begin is None:  # stripes
        up = jax.random.bernoulli(jax.random.fold_in(key, 0), shape=(n, 1, width, channels))
        begin = jnp.where(up, high, low)
    beginning: _State = jnp.ones((), int), begin, score(begin)
    return jax.lax.while_loop(unfinished, query, beginning)[1]
