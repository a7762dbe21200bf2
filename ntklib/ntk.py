r"""The empirical neural tangent kernel of a finite network.

For a network $f_\theta$ with k outputs, $\Theta(x, x')_{cc'} = \langle \nabla_\theta f_c(x),
\nabla_\theta f_{c'}(x') \rangle$, over all arrays of the collection "params" (Jacot et al. 2018).
Of complex ones, the real and the imaginary parts are the parameters.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Num

from ntklib._checks import logits, one_of, parameters, points, same_rows, whole
from ntklib._contraction import CACHE, COLUMNS, Machine, stays_factored
from ntklib._layerwise import Gradient, Product, gradients
from ntklib._products import backward, forward
from ntklib.models import Model, Variables

Output = Literal["trace", "full"] | int


def gram(
    model: Model,
    variables: Variables,
    x1: Num[Array | np.ndarray, "n1 ..."],
    x2: Num[Array | np.ndarray, "n2 ..."] | None = None,
    *,
    output: Output = "trace",
    block: int | None = None,
    memory: int = 2**30,
    devices: Sequence[jax.Device] | None = None,
) -> Float[Array, "rows columns"]:
    r"""The empirical tangent kernel between two sets of inputs.

    Gradients with respect to Dense, Conv and BatchNorm layers come from one backward pass for all
    layers (see `ntklib._layerwise`), those with respect to other parameters from per-example
    Jacobians; which is used makes no difference beyond rounding.

    Works on values, not under `jit`. Inputs are taken block by block and outputs a few at a time,
    so that the memory stays bounded. The result has the widest of the types of the logits and the
    gradients.

    Args:
        model: a flax network whose `apply` treats the inputs independently.
        variables: its variables.
        x1: inputs, one a row, of a floating-point type.
        x2: inputs of the same shape; None for x1 itself, when blocks below the diagonal are
            mirrored, not computed, and the result is exactly symmetric.
        output: "trace" for the mean over outputs $\frac1k \sum_c \Theta_{cc}$, of shape (n1, n2);
            the index of one output c for $\Theta_{cc}$; "full" for all pairs of outputs, of shape
            (n1 k, n2 k), where row i k + c belongs to output c at input i.
        block: inputs at once on each device; None for as many as the memory allows. Smaller blocks
            take longer, as gradients at the second inputs are computed anew for each block of the
            first.
        memory: bytes for gradients and intermediate results on each device, in addition to inputs,
            variables and the result. A ValueError says so if they do not suffice for one input.
        devices: over which the inputs of a block are spread; None for the default device. If they
            belong to several processes, each calls with the same arguments and gets the whole
            result.
    """
    variables, symmetric = parameters("variables", variables), x2 is None
    x1, x2 = map(np.asarray, _of_one_type(x1, x2))
    block = None if block is None else whole("block", block)
    memory = whole("memory", memory)
    units, full = _units(model, variables, x1, output), str(output) == "full"
    apply, machine = Partial(model.apply), Machine(devices)
    layers = jax.eval_shape(gradients, apply, variables, x1[0], units[:1])
    dtype = jnp.result_type(units.dtype, *jax.tree.leaves(layers))
    n = max(len(x1), len(x2))
    sizes = _sizes(layers, n, len(units), dtype, symmetric, full, machine.count, block, memory)

    def features(x: np.ndarray, i: int, g: int) -> list[Gradient]:
        # Past the end the last input is repeated, and outputs are zero: all blocks have one
        # shape, which is compiled once.
        points = x[np.minimum(np.arange(i, i + sizes.block), len(x) - 1)]
        outputs = np.zeros((sizes.outputs, units.shape[1]), units.dtype)
        outputs[: len(units) - g] = units[g : g + sizes.outputs]
        return machine.features(apply, variables, points, outputs, sizes.at_once, full)

    rows = len(units) if full else 1  # of the kernel matrix, an input
    result = np.zeros((len(x1), rows, len(x2), rows), dtype)
    groups = range(0, len(units), sizes.outputs)
    with jax.default_matmul_precision("highest"):
        for i, g in product(range(0, len(x1), sizes.block), groups):
            first = features(x1, i, g)
            for j, h in product(range(0, len(x2), sizes.block), groups if full else [g]):
                if symmetric and (j, h) < (i, g):
                    continue
                same = symmetric and (j, h) == (i, g)
                tile = machine.contract(first, None if same else features(x2, j, h), full)
                _add(result, (i, g if full else 0), (j, h if full else 0), tile)
                if symmetric and not same:
                    mirrored = tile.transpose(2, 3, 0, 1)
                    _add(result, (j, h if full else 0), (i, g if full else 0), mirrored)
    matrix = result.reshape(len(x1) * rows, -1) / (len(units) if output == "trace" else 1)
    return jnp.asarray((matrix + matrix.T) / 2 if symmetric else matrix)


def vector_product(
    model: Model,
    variables: Variables,
    x1: Num[Array | np.ndarray, "n1 ..."],
    v: Num[Array | np.ndarray, "n2 *k"],
    x2: Num[Array | np.ndarray, "n2 ..."] | None = None,
    *,
    output: Output = "trace",
    block: int = 256,
) -> Float[Array, "n1 *k"]:
    r"""The product $\Theta(X_1, X_2) v$, without any entry of the kernel.

    It is $J(X_1) (J(X_2)^\top v)$: a backward and a forward pass on all inputs, one of each an
    output for the trace, with `block` inputs at a time. It can be compiled and differentiated.

    The vector is (n2,), and the product (n1,); for `output="full"` they are (n2, k) and (n1, k),
    one column an output. Both are in the type of the logits. All else is as in `gram`.
    """
    variables = parameters("variables", variables)
    x1, x2 = _of_one_type(x1, x2)
    units, full = _units(model, variables, x1, output), str(output) == "full"
    v = jnp.asarray(v)
    expected = (len(x2), len(units)) if full else (len(x2),)
    if v.shape != expected:
        raise ValueError(f"v: shape {v.shape} is not allowed; it is {expected}, as x2 has rows")
    if jnp.iscomplexobj(v):
        raise TypeError(f"v: dtype {v.dtype} is not allowed; it is a real type")
    size = min(whole("block", block), max(len(x1), len(x2)))
    v = v.astype(units.dtype)
    return _vector_product(Partial(model.apply), variables, x1, v, x2, units, full, size)


@partial(jax.jit, static_argnames=("full", "block"))
def _vector_product(
    apply: Partial,
    variables: Variables,
    x1: Array,
    v: Array,
    x2: Array,
    units: Array,
    full: bool,
    block: int,
) -> Array:
    def combined(cotangents: Float[Array, "n2 k"]) -> Float[Array, "n1 k"]:
        direction = backward(apply, variables, x2, cotangents, block)
        return forward(apply, variables, x1, direction, block)

    if full:
        return combined(v)
    products = jax.lax.map(lambda unit: combined(v[:, None] * unit) @ unit, units)
    return jnp.mean(products, axis=0)


def _add(
    result: np.ndarray, row: tuple[int, int], column: tuple[int, int], tile: np.ndarray
) -> None:
    """Adds a block at its place; what it has past the end is cut off."""
    (i, g), (j, h) = row, column
    part = result[i : i + len(tile), g : g + tile.shape[1], j:, h:][:, :, : tile.shape[2]]
    part = part[..., : tile.shape[3]]
    part += tile[tuple(map(slice, part.shape))]


class _Sizes(NamedTuple):
    """How many there are at once, to fit in the memory."""

    block: int  # inputs in a block, on all devices
    outputs: int  # in one backward pass
    at_once: int  # inputs in one


def _sizes(
    layers: list[Product | jax.ShapeDtypeStruct],
    n_inputs: int,
    n_units: int,
    dtype: np.dtype,
    symmetric: bool,
    full: bool,
    devices: int,
    block: int | None,
    memory: int,
) -> _Sizes:
    """The largest sizes that fit in the memory: first many inputs, then many outputs."""
    itemsize, n_inputs = dtype.itemsize, -(-n_inputs // devices)
    scratch = CACHE if jax.default_backend() == "cpu" else memory // 4

    def backward(outputs: int) -> int:
        """Bytes of a backward pass on one input."""
        return itemsize * sum(
            g.h.size + 3 * outputs * g.d.size if isinstance(g, Product) else outputs * g.size
            for g in layers
        )

    def kept(outputs: int) -> int:
        """Numbers that stay of an input."""
        total = 0
        for g in layers:
            if not isinstance(g, Product):
                total += outputs * g.size
            elif stays_factored(g, outputs, full):
                total += g.h.size + outputs * g.d.size
            else:
                total += outputs * g.h.shape[1] * g.d.shape[2]
        return total

    def padded(inputs: int, outputs: int) -> tuple[int, int]:
        """The block as a multiple of the inputs of one backward pass."""
        passes = -(-inputs // max(1, scratch // backward(outputs)))
        at_once = -(-inputs // passes)
        return at_once * passes, at_once

    def needed(inputs: int, outputs: int) -> int:
        rows, at_once = padded(inputs, outputs)
        single = symmetric and inputs >= n_inputs and (not full or outputs == n_units)
        tile = rows**2 * devices * (outputs**2 if full else 1)
        blocks = (1 if single else 2) * rows * (kept(outputs) + COLUMNS)
        return itemsize * (blocks + 3 * tile) + at_once * backward(outputs) + 2 * scratch

    groups = sorted({-(-n_units // n) for n in range(1, n_units + 1)}, reverse=True)
    inputs = n_inputs if block is None else min(block, n_inputs)
    outputs = next((outputs for outputs in groups if needed(inputs, outputs) <= memory), 1)
    while block is None and inputs > 1 and needed(inputs, outputs) > memory:
        inputs = -(-inputs // 2)
    if needed(inputs, outputs) > memory:
        what = "one input" if block is None else f"a block of {block}"
        least = needed(inputs, outputs)
        raise ValueError(
            f"memory: {memory:,} bytes do not suffice; {what} needs {least:,} at least"
        )
    rows, at_once = padded(inputs, outputs)
    return _Sizes(rows * devices, outputs, at_once)


def _of_one_type(x1: Any, x2: Any) -> tuple[Any, Any]:
    x1 = points("x1", x1)
    x2 = x1 if x2 is None else points("x2", x2)
    same_rows("x2", x2, "x1", x1)
    dtype = jnp.result_type(x1, x2)
    return x1.astype(dtype, copy=False), x2.astype(dtype, copy=False)


def _units(
    model: Model, variables: Variables, x: Array | np.ndarray, output: Any
) -> Float[np.ndarray, "c k"]:
    """The outputs that are asked for, as rows of the unit matrix."""
    shape = jax.eval_shape(model.apply, variables, x[:1])
    k = logits(shape, 1)
    if not jnp.issubdtype(shape.dtype, jnp.floating):
        raise TypeError(f"logits: dtype {shape.dtype} is not allowed; it is a floating-point type")
    units = np.eye(k, dtype=shape.dtype)
    if isinstance(output, str):
        one_of("output", output, ("trace", "full"))
        return units
    c = whole("output", output, least=0, most=k - 1)
    return units[c : c + 1]
