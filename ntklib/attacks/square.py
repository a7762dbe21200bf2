"""An attack that sees logits only, hence one that no masked gradient misleads."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ntklib.attacks import ball
from ntklib.attacks.ball import Clip, Scalar
from ntklib.attacks.gradient import check_model
from ntklib.attacks.losses import Images, Labels, LogitsFn, loss_per_point
from ntklib.linear import bind

# The share of pixels in the square halves after these shares of the queries.
_HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def square(
    logits_fn: LogitsFn,
    x: Images,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: float | int,
    queries: int,
    p_init: float | int = 0.8,
    clip: Clip = (0.0, 1.0),
) -> Images:
    r"""Square attack: random search for a larger margin loss, in the $\ell_\infty$ ball and box.

    It starts from vertical stripes, each $x \pm \epsilon$ in each channel. A query sets a random
    square of each image to $x \pm \epsilon$, one sign a channel, and keeps it where the loss
    (`"margin"`) rises. The side of the square is $\sqrt{p h w}$, rounded, where $p$ starts at
    `p_init` and halves at 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10000 queries, in
    proportion for another number. Images that are misclassified are left as they are; the loop
    ends when all are. Source: Andriushchenko et al. (2020); the default of `p_init` is the one of
    Croce & Hein (2020).

    Another `epsilon`, `queries` or `p_init` does not compile again.

    Args:
        logits_fn: the classifier (see the package's text).
        x: clean images, within `clip`, float32 or float64.
        y: their labels.
        key: for the search.
        epsilon: radius of the ball, in units of pixels.
        queries: evaluations of each image allowed, at least 1, the stripes included.
        p_init: share of the pixels that the first square covers, above 0, at most 1.
        clip: range of a pixel.

    Returns:
        The best images found, exactly in the ball, computed in the dtype of `x`, and the box.

    Raises:
        TypeError: if `x` or `y` has a dtype that is not allowed.
        ValueError: if a shape, a label, `epsilon`, `queries`, `p_init` or `clip` is out of range,
            or `x` leaves `clip`.
    """
    ball.check(x, epsilon, "linf", clip)
    if queries < 1:
        raise ValueError(f"queries: {queries} is out of range; it is a whole number >= 1")
    if not 0 < p_init <= 1:
        raise ValueError(f"p_init: {p_init} is out of range; it is above 0 and at most 1")
    check_model(logits_fn, x, y)
    return _square(bind(logits_fn), x, y, key, epsilon, queries, p_init, clip=clip)


def side(i: Scalar, queries: Scalar, p_init: Scalar, height: int, width: int) -> Int[Array, ""]:
    """Side of the square at query number i, in pixels."""
    halvings = jnp.sum(i > jnp.asarray(_HALVED_AT) * queries)
    p = p_init * 0.5**halvings
    return jnp.clip(jnp.round(jnp.sqrt(p * height * width)), 1, min(height, width)).astype(int)


# Evaluations made, images, and their loss.
_State = tuple[Int[Array, ""], Images, Float[Array, " n"]]


@partial(jax.jit, static_argnames="clip")
def _square(
    logits_fn: Partial,
    x: Images,
    y: Labels,
    key: PRNGKeyArray,
    epsilon: Scalar,
    queries: Scalar,
    p_init: Scalar,
    *,
    clip: Clip,
) -> Images:
    n, height, width, channels = x.shape
    low, high = ball.box(x, epsilon, clip)

    def score(z: Images) -> Float[Array, " n"]:
        return loss_per_point(logits_fn(z), y, "margin")

    def unfinished(state: _State) -> Array:
        i, _, best = state
        return (i < queries) & jnp.any(best <= 0)

    def query(state: _State) -> _State:
        i, z, best = state
        u = jax.random.uniform(jax.random.fold_in(key, i), (n, 1, 1, 2 + channels))
        s = side(i, queries, p_init, height, width)
        row = jnp.floor(u[..., :1] * (height - s + 1))
        column = jnp.floor(u[..., 1:2] * (width - s + 1))
        rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
        window = (rows >= row) & (rows < row + s) & (columns >= column) & (columns < column + s)
        proposal = jnp.where(window, jnp.where(u[..., 2:] < 0.5, high, low), z)
        value = score(proposal)
        better = (value > best) & (best <= 0)
        z = jnp.where(better[:, None, None, None], proposal, z)
        return i + 1, z, jnp.where(better, value, best)

    up = jax.random.bernoulli(jax.random.fold_in(key, 0), shape=(n, 1, width, channels))
    stripes = jnp.where(up, high, low)
    beginning = jnp.ones((), int), stripes, score(stripes)
    return jax.lax.while_loop(unfinished, query, beginning)[1]
