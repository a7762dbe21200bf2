"""Convolutions with a backward pass that suits a CPU.

XLA's own costs several times more there where strides are above one, and hundreds of times more for
the gradient in the kernel within a loop. And images of a few channels, as photographs are, take it
several times longer than their multiplications do. Derivatives of all orders and modes are
possible.

Arrays are channels last: images (n, *space, a), kernels (*window, a, b). Padding is one pair of
numbers an axis of space. As in all networks, "convolution" means correlation.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Strides = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]
_FEW = 3
"""Channels of an image up to which XLA's convolution is not worth its overhead."""


def convolve(
    x: Float[Array, "n *space a"],
    kernel: Float[Array, "*window a b"],
    strides: Strides,
    padding: Padding,
    precision: Any = None,
) -> Float[Array, "n *out b"]:
    r"""The convolution $y_i = \sum_k x_{s i + k - l} W_k$, with stride s and lower padding l.

    The precision is that of `jax.lax.conv_general_dilated`.
    """
    return _convolve.bind(x, kernel, strides=strides, padding=padding, precision=precision)


def conv_general_dilated(
    x: Float[Array, "n *space a"],
    kernel: Float[Array, "*window a b"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    precision: Any = None,
    **options: Any,
) -> Float[Array, "n *out b"]:
    """For the option of this name of `flax.linen.Conv`: on a CPU, `convolve`.

    The options are those of `jax.lax.conv_general_dilated`. Those not named here have the values
    that `flax.linen.Conv` gives them for plain convolutions.
    """
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, strides, padding, precision=precision, **options)
    if isinstance(padding, str):
        window = kernel.shape[:-2]
        padding = lax.padtype_to_pads(x.shape[1:-1], window, strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    return convolve(x, kernel, tuple(strides), pads, precision)


def _correlate(
    x: Array, kernel: Array, *, strides: Strides, padding: Padding, precision: Any
) -> Array:
    if x.shape[-1] <= _FEW:
        return _sum_of_taps(x, kernel, strides, padding)
    last = x.ndim - 1
    space = tuple(range(1, last))
    dimensions = lax.ConvDimensionNumbers(
        (0, last, *space), (last, last - 1, *range(last - 1)), (0, last, *space)
    )
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, precision=precision
    )


def _sum_of_taps(x: Array, kernel: Array, strides: Strides, padding: Padding) -> Array:
    """One product of a channel and a weight after another, which XLA makes one loop over pixels."""
    shifted = _taps(x, kernel.shape[:-2], strides, padding)
    weights = kernel.reshape(-1, *kernel.shape[-2:])
    terms = (
        tap[..., a, None] * weight[a]
        for tap, weight in zip(shifted, weights, strict=True)
        for a in range(x.shape[-1])
    )
    return sum(terms, start=jnp.zeros((), x.dtype))


def _abstract(x: Any, kernel: Any, **options: Any) -> jax.core.ShapedArray:
    out = jax.eval_shape(partial(_correlate, **options), x, kernel)
    return jax.core.ShapedArray(out.shape, out.dtype)


def _image_cotangent(d: Array, x: Any, kernel: Array, **options: Any) -> Array:
    """The gradient in x, by one convolution of stride 1 for each phase of the strides.

    Pixel s i + r of x meets the weights q + s m, where q = (r + l) mod s, in the outputs
    i + (r + l - q) / s - m: a convolution of d with the reversed weights of phase r. XLA's own
    rule puts zeros between the pixels of d instead, and multiplies with them. For images of a few
    channels it is a matrix product and the transpose of `patches`.
    """
    strides, padding = options["strides"], options["padding"]
    if x.aval.shape[-1] <= _FEW:
        rows = kernel.reshape(-1, kernel.shape[-1]).T
        seen = partial(patches, window=kernel.shape[:-2], strides=strides, padding=padding)
        columns = jnp.matmul(d, rows, precision=options["precision"])
        return jax.linear_transpose(seen, x.aval)(columns)[0]
    space = x.aval.shape[1:-1]
    counts = [-(-size // s) for size, s in zip(space, strides, strict=True)]
    phases = []
    for phase in product(*map(range, strides)):
        weights, pads = jnp.swapaxes(kernel, -1, -2), []
        for axis, (r, s, (low, _)) in enumerate(zip(phase, strides, padding, strict=True)):
            first, shift = (r + low) % s, (r + low) // s
            weights = jnp.flip(weights[(slice(None),) * axis + (slice(first, None, s),)], axis)
            before = weights.shape[axis] - 1 - shift
            pads.append((before, counts[axis] + shift - d.shape[axis + 1]))
        if 0 in weights.shape:
            phases.append(jnp.zeros((len(d), *counts, weights.shape[-1]), d.dtype))
        else:
            ones = (1,) * len(strides)
            phases.append(convolve(d, weights, ones, tuple(pads), options["precision"]))
    out = jnp.stack(phases).reshape(*strides, len(d), *counts, -1)
    rank = len(strides)
    order = [i for axis in range(rank) for i in (rank + 1 + axis, axis)]
    out = jnp.transpose(out, (rank, *order, 2 * rank + 1))
    out = out.reshape(len(d), *(n * s for n, s in zip(counts, strides, strict=True)), -1)
    return out[(slice(None), *map(slice, space))]


def _kernel_cotangent(d: Array, x: Array, kernel: Any, **options: Any) -> Array:
    """The gradient in the kernel, as one matrix product.

    XLA's own rule is a convolution whose images are the channels, which it computes without its
    fast routines where it stands in a loop.
    """
    shape = kernel.aval.shape
    seen = patches(x, shape[:-2], options["strides"], options["padding"])
    rows, columns = seen.reshape(-1, seen.shape[-1]), d.reshape(-1, d.shape[-1])
    return jnp.matmul(rows.T, columns, precision=options["precision"]).reshape(shape)


def _batched(
    arguments: tuple[Array, Array], axes: tuple[int | None, int | None], **options: Any
) -> tuple[Array, int]:
    x, kernel = arguments
    along_x, along_kernel = axes
    if along_x is None or along_kernel is not None:  # several kernels: no rule of our own
        return jax.vmap(lambda x, k: _correlate(x, k, **options), axes)(x, kernel), 0
    x = jnp.moveaxis(x, along_x, 0)
    y = _convolve.bind(x.reshape(-1, *x.shape[2:]), kernel, **options)
    return y.reshape(*x.shape[:2], *y.shape[1:]), 0


_convolve = Primitive("convolve")
_convolve.def_impl(jax.jit(_correlate, static_argnames=("strides", "padding", "precision")))
_convolve.def_abstract_eval(_abstract)
mlir.register_lowering(_convolve, mlir.lower_fun(_correlate, multiple_results=False))
ad.defbilinear(_convolve, _image_cotangent, _kernel_cotangent)
batching.primitive_batchers[_convolve] = _batched


def patches(
    x: Float[Array, "n *space a"], window: tuple[int, ...], strides: Strides, padding: Padding
) -> Float[Array, "n *out ka"]:
    """What each output of a convolution sees: `patches @ kernel.reshape(-1, b)` is `convolve`."""
    return jnp.concatenate(_taps(x, window, strides, padding), axis=-1)


def _taps(x: Array, window: tuple[int, ...], strides: Strides, padding: Padding) -> list[Array]:
    """What each weight of a window meets, at each position."""
    edges = ((0, 0), *padding, (0, 0))  # below zero where a gradient cuts
    x = lax.pad(x, jnp.zeros((), x.dtype), [(*edge, 0) for edge in edges])
    taps = []
    for offset in product(*map(range, window)):
        ranges = zip(offset, x.shape[1:-1], window, strides, strict=True)
        cut = (slice(o, size - k + o + 1, s) for o, size, k, s in ranges)
        taps.append(x[(slice(None), *cut)])
    return taps
