"""Convolutions that suit a CPU.

XLA's own take several times longer there than PyTorch's: windows of 3x3 because they multiply
directly, strides above one and images of a few channels because of overhead, and the gradient in
the kernel everywhere. Here 3x3 windows of stride 1 are computed by Winograd's algorithm, and what
does not fit in a cache in blocks of a few images. Derivatives of all orders and modes are possible.

Arrays are channels last: images (n, *space, a), kernels (*window, a, b). Padding is one pair of
numbers an axis of space. As in all networks, "convolution" means correlation.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from math import prod
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
_MANY = 24
"""Channels from which on Winograd's transforms of images cost less than the products they save."""
_PIXELS = 2048
"""Outputs that one block of images has, so that what is computed of it stays in a cache."""


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
    if _suits_winograd(kernel.shape, strides):
        return _winograd(x, kernel, padding, precision)
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
    """The gradient in the kernel, as a sum of matrix products over blocks of images.

    XLA's own rule is a convolution whose images are the channels, which it computes without its
    fast routines where it stands in a loop.
    """
    shape, precision = kernel.aval.shape, options["precision"]
    if _suits_winograd(shape, options["strides"]):
        return _winograd_kernel_cotangent(d, x, options["padding"], precision)

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        x, d = block
        seen = patches(x, shape[:-2], options["strides"], options["padding"])
        rows, columns = seen.reshape(-1, seen.shape[-1]), d.reshape(-1, d.shape[-1])
        return total + jnp.matmul(rows.T, columns, precision=precision).reshape(shape), None

    return _scan(add, jnp.zeros(shape, kernel.aval.dtype), x, d)


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


# --- blocks of images ---


def _in_blocks(function: Callable[[Array], Array], x: Array, pixels: int) -> Array:
    """A function of images, with so many of their outputs' pixels, block by block."""
    blocks = _blocks(x, pixels)
    if len(blocks) == 1:
        return function(x)
    y = lax.map(function, blocks)
    return y.reshape(-1, *y.shape[2:])[: len(x)]


def _scan(
    add: Callable[[Any, tuple[Array, Array]], tuple[Any, None]], total: Any, x: Array, d: Array
) -> Any:
    """A sum over images x and the cotangents d of their outputs, block by block."""
    pixels = prod(d.shape[1:-1])
    blocks = _blocks(x, pixels), _blocks(d, pixels)
    if len(blocks[0]) == 1:
        return add(total, (x, d))[0]
    return lax.scan(add, total, blocks)[0]


def _blocks(x: Array, pixels: int) -> Array:
    """Images (n, ...) as blocks (k, m, ...) of equal size, with images of zeros at the end."""
    k = max(1, -(-len(x) // max(1, _PIXELS // max(1, pixels))))
    m = -(-len(x) // k)
    x = jnp.pad(x, ((0, k * m - len(x)), *((0, 0),) * (x.ndim - 1)))
    return x.reshape(k, m, *x.shape[1:])


# --- Winograd's algorithm F(2x2, 3x3) (Lavin & Gray 2016) ---
#
# Along one axis, two outputs of a window of three weights w come from four pixels x with four
# products, A^T (G w * B^T x), where the direct way needs six; along two axes it is sixteen products
# for thirty-six, each a matrix product over the channels. The four of an axis are stacked in front.


def _suits_winograd(kernel: tuple[int, ...], strides: Strides) -> bool:
    return kernel[:-2] == (3, 3) and strides == (1, 1) and min(kernel[-2:]) >= _MANY


def _winograd(x: Array, kernel: Array, padding: Padding, precision: Any) -> Array:
    height, width = (size + sum(pad) - 2 for size, pad in zip(x.shape[1:3], padding, strict=True))
    weights = _weights(jnp.swapaxes(_weights(kernel), 0, 1))

    def convolved(x: Array) -> Array:
        pixels = _pixels(x, padding)
        products = jnp.matmul(_rows(pixels), weights, precision=precision)
        outputs = _outputs(_outputs(products.reshape(*pixels.shape[:-1], -1), 4), 2)
        n, tall, _, wide, _, channels = outputs.shape
        return outputs.reshape(n, 2 * tall, 2 * wide, channels)

    return _in_blocks(convolved, x, height * width)[:, :height, :width]


def _winograd_kernel_cotangent(d: Array, x: Array, padding: Padding, precision: Any) -> Array:
    """The gradient in the kernel: the same products, with the cotangents of the outputs."""
    d = jnp.pad(d, ((0, 0), *((0, size % 2) for size in d.shape[1:3]), (0, 0)))

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        x, d = block
        rows = jnp.swapaxes(_rows(_pixels(x, padding)), -1, -2)
        columns = _rows(_output_cotangents(_output_cotangents(d, 1), 3))
        return total + jnp.matmul(rows, columns, precision=precision), None

    total = _scan(add, jnp.zeros((4, 4, x.shape[-1], d.shape[-1]), x.dtype), x, d)
    return _weight_cotangents(jnp.swapaxes(_weight_cotangents(total), 0, 1))


def _rows(x: Array) -> Array:
    return x.reshape(4, 4, -1, x.shape[-1])


def _pixels(x: Array, padding: Padding) -> Array:
    """The transformed pixels (4, 4, n, *tiles, a) of tiles of 4x4, two pixels from each other."""
    pads = [
        (low, high + (size + low + high) % 2)
        for size, (low, high) in zip(x.shape[1:3], padding, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
    for axis in (1, 3):
        length = x.shape[axis] - 3
        a, b, c, d = (lax.slice_in_dim(x, i, i + length, 2, axis) for i in range(4))
        x = jnp.stack([a - c, b + c, c - b, b - d])
    return x


def _weights(w: Array) -> Array:
    mean = (w[0] + w[2]) / 2
    return jnp.stack([w[0], mean + w[1] / 2, mean - w[1] / 2, w[2]])


def _weight_cotangents(d: Array) -> Array:
    mean = (d[1] + d[2]) / 2
    return jnp.stack([d[0] + mean, (d[1] - d[2]) / 2, mean + d[3]])


def _outputs(y: Array, axis: int) -> Array:
    return jnp.stack([y[0] + y[1] + y[2], y[1] - y[2] - y[3]], axis)


def _output_cotangents(d: Array, axis: int) -> Array:
    a, b = (lax.slice_in_dim(d, i, None, 2, axis) for i in range(2))
    return jnp.stack([a, a + b, a - b, -b])
