"""The inputs that an attacker may choose: a ball around each clean one, cut by the box."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from ntklib import _checks
from ntklib._checks import Number
from ntklib.attacks._losses import Inputs, Rows

Norm = Literal["linf", "l2"]
Clip = Sequence[float] | Float[Array | np.ndarray, "2"] | None
Scalar = float | Shaped[Array, ""]
Each = Float[Array | np.ndarray, "n ..."]
"""One number an input, along axes of length one."""

_LARGEST = 2.0**100  # of an entry, a radius and a step: norms of their sums do not overflow


@partial(
    jax.tree_util.register_dataclass, data_fields=("x", "epsilon"), meta_fields=("norm", "clip")
)
@dataclass(frozen=True)
class Ball:
    """Balls of one radius around inputs, cut by the box that these are in."""

    x: Inputs  # the centres, one a row
    epsilon: Scalar  # the radius
    norm: Norm  # over all entries of an input
    clip: tuple[float, float]  # lowest and highest value of an entry; huge if there is no box

    @classmethod
    def around(
        cls, x: Rows, epsilon: Number, norm: Norm = "linf", clip: Clip = (0.0, 1.0)
    ) -> "Ball":
        """The balls around clean inputs, wherever these are (see `on_device`), after all checks."""
        x = _checks.points("x", x, dtypes=(np.dtype("float32"), np.dtype("float64")))
        epsilon = length("epsilon", epsilon)
        _checks.one_of("norm", norm, ("linf", "l2"))
        clip = _interval(clip)
        inside = (x >= clip[0]).all() & (x <= clip[1]).all()
        # While another function is being compiled there may be no values to look at.
        if not isinstance(inside, jax.core.Tracer) and not inside:
            raise ValueError(f"x: has values outside clip; they are {clip[0]:g} to {clip[1]:g}")
        return cls(x, epsilon, norm, clip)

    def on_device(self) -> "Ball":
        """The balls where JAX computes, in its precision, to which the centres are rounded."""
        return replace(self, x=jnp.asarray(self.x))

    def exactly(self, z: Inputs) -> Inputs:
        """Inputs from the balls `on_device`, in those around the centres as they were given.

        These differ where the centres are a NumPy array of a precision that JAX does not have.
        """
        if z.dtype == self.x.dtype or isinstance(z, jax.core.Tracer):
            return z
        return self.project(np.asarray(z, self.x.dtype))

    def bounds(self) -> tuple[Inputs, Inputs]:
        r"""Lowest and highest inputs in the $\ell_\infty$ ball and the box.

        `|bound - x| <= epsilon` holds in floating point, too: x + epsilon may round to a number
        further away.
        """
        x, xp = self.x, namespace(self.x)
        epsilon = xp.asarray(self.epsilon, x.dtype)
        low, high = x - epsilon, x + epsilon
        low = xp.where(x - low > epsilon, xp.nextafter(low, x), low)
        high = xp.where(high - x > epsilon, xp.nextafter(high, x), high)
        return xp.maximum(low, self.clip[0]), xp.minimum(high, self.clip[1])

    def project(self, z: Inputs) -> Inputs:
        r"""Brings inputs into the ball, then into the box.

        For $\ell_2$ the ball is smaller by a relative $(8 + \sqrt d)\,2^{-23}$ in float32 ($d$
        numbers an input; $2^{-52}$ in float64), so that the norm of the result is at most `epsilon`
        however its rounding goes.
        """
        x, xp = self.x, namespace(self.x)
        if self.norm == "linf":
            return xp.clip(z, *self.bounds())
        rounding = xp.finfo(x.dtype).eps * (8 + x[0].size ** 0.5)
        radius = xp.asarray(self.epsilon, x.dtype) * (1 - rounding)
        d = z - x
        norms = _norms(d)
        d = d * xp.where(norms > radius, radius / _nonzero(norms), 1.0)
        z = x + d
        z = xp.where(abs(z - x) > abs(d), xp.nextafter(z, x), z)
        return xp.clip(z, *self.clip)

    def direction(self, gradient: Inputs) -> Inputs:
        """Where the loss rises fastest, with norm 1.

        An entry of NaN is no movement of that entry, and for l2 a gradient that is not finite is no
        movement of that input.
        """
        if self.norm == "linf":
            return jnp.nan_to_num(jnp.sign(gradient))
        size = _largest(gradient)
        gradient = jnp.where(size < jnp.inf, gradient, 0.0)  # not so for NaN, either
        # Powers of two, which do not round, keep the norm in range.
        scale = jnp.where(size > 2.0**64, 2.0**-64, jnp.where(size < 2.0**-64, 2.0**64, 1.0))
        return scale * gradient / _nonzero(_norms(scale * gradient))

    def ascend(self, z: Inputs, gradient: Float[Array, "..."], step: Scalar | Each) -> Any:
        """The end of a step of this length uphill, in the ball and the box."""
        return self.project(z + jnp.asarray(step, self.x.dtype) * self.direction(gradient))

    @partial(jax.jit, static_argnames="number")
    def uniform(self, key: PRNGKeyArray, number: int) -> Float[Array, "{number} n *shape"]:
        """Uniform points of the ball around each input, then brought into the box.

        The first points stay the same when more are asked for.
        """
        x, epsilon = self.x, jnp.asarray(self.epsilon, self.x.dtype)

        def draw(i: Scalar) -> Any:
            key_d, key_r = jax.random.split(jax.random.fold_in(key, i))
            if self.norm == "linf":
                d = jax.random.uniform(key_d, x.shape, x.dtype, -epsilon, epsilon)
            else:
                d = jax.random.normal(key_d, x.shape, x.dtype)
                u = column(jax.random.uniform(key_r, (len(x),), x.dtype), x)
                d = epsilon * u ** (1.0 / x[0].size) * d / _nonzero(_norms(d))
            return self.project(x + d)

        return jax.vmap(draw)(jnp.arange(number))


def namespace(*arrays: Inputs) -> ModuleType:
    """NumPy, which keeps its precision, if one of the arrays is NumPy's, else JAX's."""
    return np if any(isinstance(array, np.ndarray) for array in arrays) else jnp


def column(values: Shaped[Array, " n"], x: Inputs) -> Shaped[Array, "n ..."]:
    """One value an input, along axes of length one, to be broadcast over its entries."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def choose(which: Bool[Array, " n"], these: Inputs, those: Inputs) -> Inputs:
    """These inputs where it says so, those elsewhere."""
    return namespace(these, those).where(column(which, these), these, those)


def length(name: str, value: Number) -> float:
    """A radius or the length of a step; one beyond all that can be of use is made smaller."""
    return min(_checks.number(name, value, least=0), _LARGEST)


def _interval(clip: Clip) -> tuple[float, float]:
    """The ends of the box, from a pair of numbers in any sequence, or None."""
    if clip is None:
        return -_LARGEST, _LARGEST
    ends = clip.tolist() if isinstance(clip, np.ndarray | jax.Array) else clip
    if isinstance(ends, tuple | list) and len(ends) == 2:
        low, high = (_checks.number("clip", end) for end in ends)
        if low < high:
            return max(low, -_LARGEST), min(high, _LARGEST)
    raise ValueError(f"clip: {ends} is not allowed; it is two numbers, the smaller first, or None")


def _axes(x: Inputs) -> tuple[int, ...]:
    """Those of one input."""
    return tuple(range(1, x.ndim))


def _largest(d: Inputs) -> Each:
    return namespace(d).abs(d).max(_axes(d), keepdims=True)


def _norms(d: Inputs) -> Each:
    """The l2 norm of each input, without the underflow of squares."""
    unit = _nonzero(_largest(d))
    return unit * namespace(d).sqrt(((d / unit) ** 2).sum(_axes(d), keepdims=True))


def _nonzero(norms: Each) -> Each:
    """Norms to divide by."""
    return namespace(norms).where(norms > 0, norms, 1.0)
