"""Convolutions whose backward pass wastes nothing where the stride is above one.

Arrays are channels last: images (n, *space, a), kernels (*window, a, b). Padding is one pair of
numbers an axis of space. As in all networks, "convolution" means correlation.
"""

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Strides = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def _correlate(
    x: Array, kernel: Array, strides: Strides, padding: Padding, precision: Any
) -> Array:
    last = x.ndim - 1
    space = tuple(range(1, last))
    dimensions = lax.ConvDimensionNumbers(
        (0, last, *space), (last, last - 1, *range(last - 1)), (0, last, *space)
    )
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, precision=precision
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve(
    x: Float[Array, "n *space a"],
    kernel: Float[Array, "*window a b"],
    strides: Strides,
    padding: Padding,
    precision: Any = None,
) -> Float[Array, "n *out b"]:
    r"""The convolution $y_i = \sum_k x_{s i + k - l} W_k$, with stride s and lower padding l.

    It can be differentiated in x, not in the kernel.

    Args:
        x: Images.
        kernel: The weights W.
        strides: The stride along each axis of space.
        padding: Zeros added below and above, along each axis of space.
        precision: As in `jax.lax.conv_general_dilated`.

    Returns:
        The sums.
    """
    return _correlate(x, kernel, strides, padding, precision)


def _forward(x: Array, kernel: Array, *options: Any) -> tuple[Array, tuple[Array, Array]]:
    # Of x only the shape is needed; an array without channels carries it through transformations.
    return convolve(x, kernel, *options), (kernel, x[..., :0])


def _backward(
    strides: Strides, padding: Padding, precision: Any, saved: tuple[Array, Array], d: Array
) -> tuple[Array, None]:
    """The gradient in x, by one correlation of stride 1 for each phase of the strides.

    Pixel s i + r of x meets the weights q + s m, where q = (r + l) mod s, in the outputs
    i + (r + l - q) / s - m: a correlation of d with the reversed weights of phase r. XLA's own
    rule puts zeros between the pixels of d instead, and multiplies with them.
    """
    kernel, empty = saved
    space = empty.shape[1:-1]
    counts = [-(-size // s) for size, s in zip(space, strides, strict=True)]
    ones = (1,) * len(strides)
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
            phases.append(_correlate(d, weights, ones, tuple(pads), precision))
    x = jnp.stack(phases).reshape(*strides, len(d), *counts, -1)
    rank = len(strides)
    order = [i for axis in range(rank) for i in (rank + 1 + axis, axis)]
    x = jnp.transpose(x, (rank, *order, 2 * rank + 1))
    x = x.reshape(len(d), *(n * s for n, s in zip(counts, strides, strict=True)), x.shape[-1])
    return x[(slice(None), *map(slice, space))], None


convolve.defvjp(_forward, _backward)


def patches(
    x: Float[Array, "n *space a"], window: tuple[int, ...], strides: Strides, padding: Padding
) -> Float[Array, "n *out ka"]:
    """What each output of a convolution sees: `patches @ kernel.reshape(-1, b)` is `convolve`.

    Args:
        x: Images.
        window: The size of the kernel along each axis of space.
        strides: The stride along each axis of space.
        padding: Zeros added below and above, along each axis of space.

    Returns:
        One patch a position, in the order of the kernel's leading axes.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = []
    for offset in product(*map(range, window)):
        ranges = zip(offset, x.shape[1:-1], window, strides, strict=True)
        cut = (slice(o, size - k + o + 1, s) for o, size, k, s in ranges)
        taps.append(x[(slice(None), *cut)])
    return jnp.concatenate(taps, axis=-1)
