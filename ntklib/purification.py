r"""What further training keeps of the weights of a network, and how small an update it needs.

A weight matrix is a parameter named "kernel". It is seen with a filter, the weights of one neuron,
in each column: that of a convolution (*window, a, b) is (window a, b). Layers have the names of the
network's parameters, "Conv_0" or "hidden_0/Dense_0", and the order of these. Filters are compared
by their index, so that one network has to have come from the other, or both from a third.

Sources: Allen-Zhu & Li (2021) for the angle; that adversarial training can be done by updates of
low rank is said in their comment on the fourth version (arXiv:2005.10190).
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64, PRNGKeyArray

from ntklib import _checks
from ntklib.linear import bind
from ntklib.models import Model, Variables

Filters = dict[str, Float64[np.ndarray, " filters"]]
"""One number a filter, for each layer."""


def matrices(variables: Variables) -> dict[str, Float64[np.ndarray, "fan_in filters"]]:
    """The weight matrices of a network, by layer."""
    params = _checks.parameters("variables", variables)["params"]
    leaves = jax.tree.leaves_with_path(params)
    found = {_layer(path): np.asarray(leaf, np.float64) for path, leaf in leaves if _layer(path)}
    return {layer: kernel.reshape(-1, kernel.shape[-1]) for layer, kernel in found.items()}


def cosines(first: Variables, second: Variables) -> Filters:
    r"""$\theta = |\langle w, w' \rangle| / (\|w\| \|w'\|)$ of each filter of two networks.

    Raises:
        ValueError: if the layers differ, or a filter is zero and has no direction.
    """
    return {
        layer: np.clip(np.abs((a * b).sum(0)) / (_norms(layer, a) * _norms(layer, b)), 0, 1)
        for layer, a, b in _pairs(first, second)
    }


def movement(start: Variables, end: Variables) -> Filters:
    r"""How far each filter has moved, relative to where it started: $\|w - w_0\| / \|w_0\|$.

    Raises:
        ValueError: if the layers differ, or a filter starts at zero.
    """
    return {
        layer: np.linalg.norm(b - a, axis=0) / _norms(layer, a)
        for layer, a, b in _pairs(start, end)
    }


def truncate(start: Variables, end: Variables, rank: int) -> Variables:
    """A trained network with the change of each weight matrix cut down to a rank.

    That is the nearest matrix of this rank, by the singular value decomposition. All else, biases
    among it, is as at the end, so that a rank of zero tells what that alone does, and the full rank
    is the end.
    """
    rank = _checks.whole("rank", rank, least=0)
    changed = {}
    for layer, a, b in _pairs(start, end):
        left, values, right = np.linalg.svd(b - a, full_matrices=False)
        changed[layer] = a + (left[:, :rank] * values[:rank]) @ right[:rank]
    return end | {"params": _replaced(end["params"], changed.get)}


def low_rank(model: Model, variables: Variables, rank: int) -> Model:
    r"""A network that can change by a matrix of low rank in each weight matrix, and not else.

    Each weight matrix is $W + UV$, with W as in `variables`, and trained U (fan-in, r) and
    V (r, filters); r is the rank, or the smaller side of W if that is less. `init` draws U with
    orthonormal columns, and V is zero, so that training starts at the network. A column of U that
    is set to zero stays zero: what is left has a lower rank. `add` makes a network of the update.
    """
    rank = _checks.whole("rank", rank)
    base = jax.tree.map(jnp.array, _checks.parameters("variables", variables))
    shapes = {layer: matrix.shape for layer, matrix in matrices(base).items()}

    def init(key: PRNGKeyArray, _: Array) -> Variables:
        left, right = {}, {}
        for i, (layer, (fan_in, filters)) in enumerate(shapes.items()):
            r = min(rank, fan_in, filters)
            normal = jax.random.normal(jax.random.fold_in(key, i), (fan_in, r))
            left[layer], right[layer] = jnp.linalg.qr(normal)[0], jnp.zeros((r, filters))
        return {"params": {"left": left, "right": right}}

    apply = Partial(_with_update, bind(model.apply), base)
    return Model(init, apply, name=f"low_rank({model}, {rank})")


def add(variables: Variables, update: Variables) -> Variables:
    """The network at `variables` with an update added, the variables of a `low_rank` model."""
    left, right = update["params"]["left"], update["params"]["right"]
    base, sums = variables["params"], {}
    for path, leaf in jax.tree.leaves_with_path(base):
        if layer := _layer(path):
            sums[layer] = leaf.reshape(-1, leaf.shape[-1]) + left[layer] @ right[layer]
    return variables | {"params": _replaced(base, sums.get)}


def only(model: Model, variables: Variables, *layers: str) -> Model:
    """A network of which some layers are trained, and all else is fixed as in `variables`.

    The layers are names among the parameters. `init` gives them as they are in `variables`.
    """
    base = jax.tree.map(jnp.array, _checks.parameters("variables", variables))
    for layer in layers:
        _checks.one_of("layers", layer, base["params"])

    def init(_: PRNGKeyArray, __: Array) -> Variables:
        return jax.tree.map(jnp.array, {"params": {k: base["params"][k] for k in layers}})

    return Model(init, Partial(_with_layers, bind(model.apply), base), name=f"only({model})")


def _with_update(
    apply: Partial, base: Variables, update: Variables, x: Float[Array, "n ..."]
) -> Float[Array, "n k"]:
    return apply(add(base, update), x)


def _with_layers(
    apply: Partial, base: Variables, trained: Variables, x: Float[Array, "n ..."]
) -> Float[Array, "n k"]:
    return apply(base | {"params": base["params"] | trained["params"]}, x)


def _layer(path: Any) -> str:
    """The layer of a parameter that is a weight matrix; an empty name for any other."""
    keys = [str(entry.key) for entry in path]
    return "/".join(keys[:-1]) if keys[-1] == "kernel" else ""


def _replaced(params: Variables, matrix: Callable[[str], Any]) -> Variables:
    """The parameters with other weight matrices, in the types and shapes that these had."""

    def kernel(path: Any, leaf: Array) -> Array:
        layer = _layer(path)
        return jnp.asarray(matrix(layer), leaf.dtype).reshape(leaf.shape) if layer else leaf

    return jax.tree_util.tree_map_with_path(kernel, params)


def _pairs(first: Variables, second: Variables) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The weight matrices of each layer of two networks of one shape."""
    a, b = matrices(first), matrices(second)
    shapes = [{layer: matrix.shape for layer, matrix in of.items()} for of in (a, b)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"second: has the layers {shapes[1]}; they are those of first, {shapes[0]}"
        )
    for layer in a:
        yield layer, a[layer], b[layer]


def _norms(layer: str, matrix: Float64[np.ndarray, "fan_in filters"]) -> np.ndarray:
    norms = np.linalg.norm(matrix, axis=0)
    if not norms.all():
        raise ValueError(
            f"{layer}: filter {int(norms.argmin())} is zero; one with a direction is needed"
        )
    return norms
