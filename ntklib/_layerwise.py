r"""Parameter gradients at single inputs, layer by layer, in the form that is cheapest to multiply.

A layer y = h W + 1 b, with one row of h a position (for a convolution the patches of the image),
has the gradient $h^\top \delta$ with respect to (W, b), where $\delta$ is the cotangent of y and h
has a column of ones for b. One backward pass gives $\delta$ for all layers at once, as the gradient
with respect to a zero added to each y; products of two inputs' gradients can then be taken without
forming them (Novak, Sohl-Dickstein & Schoenholz 2022). Which layers a network has is seen by
intercepting flax's calls.

Parameters of all other kinds, and those of layers called inside of a transformation of JAX or flax,
get gradients by reverse-mode differentiation. A complex parameter counts as two real ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta, tracers
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ntklib.models import Variables
from ntklib.models._convolution import conv_general_dilated, convolve, patches

Leaves = tuple[int, ...]  # positions among the leaves of the parameters


class Product(NamedTuple):
    """Gradients of the outputs of a network with respect to one layer, h^T d."""

    h: Float[Array, "*n p a"]  # inputs of the layer, one row a position
    d: Float[Array, "*n c p b"]  # cotangents of its outputs, for c outputs of the network

    def matrix(self) -> Float[Array, "*n c ab"]:
        """The gradients themselves, one row an output."""
        g = jnp.einsum("...pa,...cpb->...cba", self.h, self.d)
        return g.reshape(*g.shape[:-2], -1)


Gradient = Product | Float[Array, "..."]  # the latter (..., outputs, parameters)


def gradients(
    apply: Partial, variables: Variables, x: Float[Array, "..."], outputs: Float[Array, "c k"]
) -> list[Gradient]:
    """Gradients of outputs at one input, without batch axis, with respect to all parameters.

    Outputs are combinations of the k logits, one a row. Dense and Conv layers give a product; scale
    and offset of a BatchNorm in inference mode give a matrix, one row an output. So do all other
    parameters, by reverse-mode differentiation. A layer counts as one of the former if its arrays
    are used by calls of such layers only (which may share them), outside of transformations, and if
    its options leave the formula valid.

    The sets of parameters are disjoint, and together are all that have an influence; if none has,
    the result is zeros.
    """
    params, treedef = jax.tree.flatten(variables["params"])

    def network(params: list[Array], handle: Callable[["_Call"], Array]) -> Array:
        current = {**variables, "params": jax.tree.unflatten(treedef, params)}
        with nn.intercept_methods(_interceptor(params, handle)):
            return apply(current, x[None])[0]

    calls, rest = _calls(network, params)

    def tapped(zeros: list[Array], others: list[Array]) -> tuple[Array, list[Array]]:
        left, inputs = iter(zeros), []

        def handle(call: _Call) -> Array:
            if set(call.leaves) & set(rest):
                return call.output()
            inputs.append(call.h)
            return call.output() + next(left)

        merged = list(params)
        for i, array in zip(rest, others, strict=True):
            merged[i] = array
        return network(merged, handle), inputs

    zeros = [jnp.zeros(shape.shape, shape.dtype) for _, shape in calls]
    _, pullback, inputs = jax.vjp(tapped, zeros, [params[i] for i in rest], has_aux=True)
    cotangents, others = jax.vmap(pullback)(outputs)
    result: list[Gradient] = []
    for leaves in dict.fromkeys(leaves for leaves, _ in calls):
        same = [i for i, (other, _) in enumerate(calls) if other == leaves]
        # Gradients of several calls add up: one product over the positions of all.
        h = jnp.concatenate([inputs[i] for i in same], axis=-2)
        d = [cotangents[i].reshape(len(outputs), -1, cotangents[i].shape[-1]) for i in same]
        result.append(_gradient(h, jnp.concatenate(d, axis=1)))
    real = [p for g in others for p in ((g.real, g.imag) if jnp.iscomplexobj(g) else (g,))]
    if real:
        result.append(jnp.concatenate([g.reshape(len(outputs), -1) for g in real], axis=1))
    return result or [jnp.zeros((len(outputs), 1), outputs.dtype)]


def _gradient(h: Array, d: Array) -> Gradient:
    if h.ndim == 2:
        return Product(h, d)
    return jnp.einsum("spa,cpa->csa", h, d).reshape(len(d), -1)


def _calls(
    network: Callable[..., Array], params: list[Array]
) -> tuple[list[tuple[Leaves, jax.ShapeDtypeStruct]], list[int]]:
    """Calls of known layers, with the shapes of their outputs, and the parameters outside them."""
    calls = []

    def without_layers(params: list[Array]) -> Array:
        def handle(call: _Call) -> Array:
            shape = jax.eval_shape(call.output)
            calls.append((call.leaves, shape))
            return jnp.zeros(shape.shape, shape.dtype)

        return network(params, handle)

    jaxpr = jax.make_jaxpr(without_layers)(params).jaxpr
    read = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    read |= {id(v) for v in jaxpr.outvars}
    rest = {i for i, v in enumerate(jaxpr.invars) if id(v) in read}
    layers = {leaves for leaves, _ in calls}
    for first, second in product(layers, layers):
        if first != second and set(first) & set(second):
            rest |= {*first, *second}
    while more := {i for leaves in layers if set(leaves) & rest for i in leaves} - rest:
        rest |= more
    return [(leaves, shape) for leaves, shape in calls if not set(leaves) & rest], sorted(rest)


# --- the layers that are known ---


@dataclass(frozen=True)
class _Call:
    """One call of a layer on one input."""

    leaves: Leaves  # its parameters
    # Its inputs, (positions, a). For a BatchNorm, what each of its parameters is multiplied by,
    # (parameters, positions, channels).
    h: Array
    output: Callable[[], Array]  # computes its output


def _interceptor(params: list[Array], handle: Callable[[_Call], Array]) -> Callable[..., Any]:
    """For `flax.linen.intercept_methods`: hands calls of known layers to `handle`."""
    # Arrays are told by identity, as a module can be applied to several sets of parameters. Inside
    # of a transformation the formulas do not apply: there the trace is another one, even where the
    # arrays are the same.
    position = {id(array): i for i, array in enumerate(params)}
    outside = tracers.current_trace()

    def interceptor(
        next_fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
    ) -> Any:
        module = context.module
        known = _KNOWN.get(type(module))
        if known is None or context.method_name != "__call__" or len(args) != 1:
            return next_fun(*args, **kwargs)
        if tracers.current_trace() != outside:
            return next_fun(*args, **kwargs)
        arrays = meta.unbox(dict(module.variables.get("params", {})))
        names = [name for name in ("kernel", "scale", "bias") if name in arrays]
        same_type = {a.dtype for a in arrays.values()} == {args[0].dtype}
        real = jnp.issubdtype(args[0].dtype, jnp.floating)
        if not same_type or not real or not all(id(a) in position for a in arrays.values()):
            return next_fun(*args, **kwargs)
        parts = known(module, arrays, args[0], kwargs, partial(next_fun, *args, **kwargs))
        if parts is None:
            return next_fun(*args, **kwargs)
        return handle(_Call(tuple(position[id(arrays[name])] for name in names), *parts))

    return interceptor


Parts = tuple[Array, Callable[[], Array]]


def _dense(
    module: nn.Dense, arrays: dict[str, Array], x: Array, kwargs: Any, output: Callable[[], Array]
) -> Parts | None:
    if kwargs or not _only(module, {"features", "use_bias"}):
        return None
    return _with_ones(x.reshape(-1, x.shape[-1]), arrays), output


def _conv(
    module: nn.Conv, arrays: dict[str, Array], x: Array, kwargs: Any, output: Callable[[], Array]
) -> Parts | None:
    *window, _, _ = arrays["kernel"].shape
    own = {"features", "kernel_size", "strides", "padding", "use_bias", "conv_general_dilated"}
    if module.conv_general_dilated not in (None, conv_general_dilated):
        return None
    if kwargs or not _only(module, own) or x.ndim != len(window) + 2:
        return None
    steps = module.strides
    strides = (steps or 1,) * len(window) if isinstance(steps, int | None) else tuple(steps)
    pads = module.padding
    if isinstance(pads, str):
        if pads not in ("SAME", "VALID"):
            return None
        padding = jax.lax.padtype_to_pads(x.shape[1:-1], window, strides, pads)
    else:
        pads = (pads,) * len(window) if isinstance(pads, int) else pads
        padding = [(p, p) if isinstance(p, int) else p for p in pads]
    geometry = strides, tuple((int(low), int(high)) for low, high in padding)
    h = patches(x, tuple(window), *geometry)

    def convolved() -> Array:
        y = convolve(x, arrays["kernel"], *geometry, module.precision)
        return y + arrays["bias"] if "bias" in arrays else y

    return _with_ones(h.reshape(-1, h.shape[-1]), arrays), convolved


def _batch_norm(
    module: nn.BatchNorm,
    arrays: dict[str, Array],
    x: Array,
    kwargs: Any,
    output: Callable[[], Array],
) -> Parts | None:
    own = {"use_running_average", "momentum", "epsilon", "use_bias", "use_scale"}
    inference = kwargs.get("use_running_average", module.use_running_average)
    if not inference or kwargs.keys() - {"use_running_average"} or not _only(module, own):
        return None
    stats = module.variables["batch_stats"]
    normal = (x - stats["mean"]) / jnp.sqrt(stats["var"] + module.epsilon)
    normal = normal.reshape(-1, x.shape[-1])
    factors = {"scale": normal, "bias": jnp.ones_like(normal)}
    return jnp.stack([factors[name] for name in ("scale", "bias") if name in arrays]), output


def _only(module: nn.Module, names: set[str]) -> bool:
    """Whether all other options have their default values, among them those yet to be invented."""
    harmless = {"kernel_init", "bias_init", "scale_init", "param_dtype", "precision"}
    harmless |= {"name", "parent"}
    return all(
        field.name in names | harmless or getattr(module, field.name) == field.default
        for field in fields(module)
    )


def _with_ones(h: Array, arrays: dict[str, Array]) -> Array:
    return jnp.pad(h, ((0, 0), (0, 1)), constant_values=1) if "bias" in arrays else h


_KNOWN: dict[type, Callable[..., Parts | None]] = {
    nn.Dense: _dense,
    nn.Conv: _conv,
    nn.BatchNorm: _batch_norm,
}
