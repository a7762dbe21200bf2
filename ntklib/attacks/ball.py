"""The images that an attacker may choose: a ball around each clean image, cut by the box."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ntklib.attacks.losses import Images

Norm = Literal["linf", "l2"]
Clip = tuple[float | int, float | int]
Scalar = float | int | Shaped[Array, ""]


def check(x: Any, epsilon: float | int, norm: str, clip: Clip) -> None:
    """Refuses images and balls that no attack can start from.

    Raises:
        TypeError: if `x` is not float32 or float64.
        ValueError: if `x` is no batch of images, or leaves `clip`, or another argument is out of
            range.
    """
    if x.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"x: dtype {x.dtype} is not allowed; it is float32 or float64")
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"x: shape {x.shape} is not allowed; it is (n, h, w, c), none of them 0")
    if not 0 <= epsilon < float("inf"):
        raise ValueError(f"epsilon: {epsilon} is out of range; it is a finite number >= 0")
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm: {norm!r} is unknown; allowed: 'linf', 'l2'")
    if not clip[0] < clip[1]:
        raise ValueError(f"clip: {clip} is no interval; its first number is the smaller")
    inside = jnp.all(x >= clip[0]) & jnp.all(x <= clip[1])
    # While another function is being compiled there are no values to look at.
    if not isinstance(inside, jax.core.Tracer) and not inside:
        raise ValueError(f"x: has values outside clip = {clip}, or NaN")


def box(x: Images, epsilon: Scalar, clip: Clip) -> tuple[Images, Images]:
    r"""Lowest and highest images in the $\ell_\infty$ ball.

    `|bound - x| <= epsilon` holds in floating point, too: x + epsilon may round to a number
    further away.
    """
    epsilon = jnp.asarray(epsilon, x.dtype)
    low, high = x - epsilon, x + epsilon
    low = jnp.where(x - low > epsilon, jnp.nextafter(low, x), low)
    high = jnp.where(high - x > epsilon, jnp.nextafter(high, x), high)
    return jnp.maximum(low, clip[0]), jnp.minimum(high, clip[1])


def length(d: Images) -> Float[Array, "n 1 1 1"]:
    """The l2 norm of each image, without the underflow of squares."""
    largest = jnp.max(jnp.abs(d), axis=(1, 2, 3), keepdims=True)
    unit = jnp.where(largest > 0, largest, 1.0)
    return unit * jnp.sqrt(jnp.sum((d / unit) ** 2, axis=(1, 2, 3), keepdims=True))


def project(z: Images, x: Images, epsilon: Scalar, norm: Norm, clip: Clip) -> Images:
    r"""Brings images into the ball around `x`, then into the box, which `x` is in.

    For $\ell_2$ the ball is smaller by a relative $(8 + \sqrt d)\,2^{-23}$ in float32 ($d$ numbers
    an image; $2^{-52}$ in float64), so that the norm of the result is at most `epsilon` however
    its rounding goes.
    """
    if norm == "linf":
        return jnp.clip(z, *box(x, epsilon, clip))
    rounding = jnp.finfo(x.dtype).eps * (8 + x[0].size ** 0.5)
    radius = jnp.asarray(epsilon, x.dtype) * (1 - rounding)
    d = z - x
    d = d * jnp.where(length(d) > radius, radius / length(d), 1.0)
    z = x + d
    z = jnp.where(jnp.abs(z - x) > jnp.abs(d), jnp.nextafter(z, x), z)
    return jnp.clip(z, *clip)


@partial(jax.jit, static_argnames=("number", "norm", "clip"))
def uniform(
    x: Images, key: PRNGKeyArray, number: int, epsilon: Scalar, norm: Norm, clip: Clip
) -> Float[Array, "{number} n h w c"]:
    """Uniform points of the ball around each image, then brought into the box.

    The first points stay the same when more are asked for.
    """
    epsilon = jnp.asarray(epsilon, x.dtype)

    def draw(i: Scalar) -> Images:
        key_d, key_r = jax.random.split(jax.random.fold_in(key, i))
        if norm == "linf":
            d = jax.random.uniform(key_d, x.shape, x.dtype, -epsilon, epsilon)
        else:
            d = jax.random.normal(key_d, x.shape, x.dtype)
            u = jax.random.uniform(key_r, (len(x), 1, 1, 1), x.dtype)
            d = epsilon * u ** (1.0 / x[0].size) * d / length(d)
        return project(x + d, x, epsilon, norm, clip)

    return jax.vmap(draw)(jnp.arange(number))


def random_sign(
    x: Images, key: PRNGKeyArray, *, epsilon: float | int, clip: Clip = (0.0, 1.0)
) -> Images:
    r"""Noise of the size of an attack: $\mathrm{clip}(x + \epsilon s)$, $s$ uniform in $\{\pm1\}$.

    The control of every $\ell_\infty$ attack: what it does is not the adversary's doing.

    Raises:
        TypeError: if `x` is not float32 or float64.
        ValueError: if `epsilon` or `clip` is out of range, or `x` leaves `clip`.
    """
    check(x, epsilon, "linf", clip)
    return _random_sign(x, key, epsilon, clip)


@partial(jax.jit, static_argnames="clip")
def _random_sign(x: Images, key: PRNGKeyArray, epsilon: Scalar, clip: Clip) -> Images:
    low, high = box(x, epsilon, clip)
    return jnp.where(jax.random.bernoulli(key, shape=x.shape), high, low)
