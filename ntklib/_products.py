"""Products of the Jacobian with vectors, some inputs at a time, so that memory is bounded."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ntklib.models import Variables


def forward(
    apply: Partial, variables: Variables, x: Array, direction: Any, block: int
) -> Float[Array, "n k"]:
    r"""$J(X)\,u$ for a direction u in the parameters: how the outputs change along it."""

    def of_block(x: Array) -> Array:
        network = _in_parameters(apply, variables, x)
        return jax.jvp(network, (variables["params"],), (direction,))[1]

    products = jax.lax.map(of_block, _blocks(x, block))
    return products.reshape(-1, products.shape[-1])[: len(x)]


def backward(
    apply: Partial, variables: Variables, x: Array, cotangents: Float[Array, "n k"], block: int
) -> Any:
    r"""$J(X)^\top v$, in the structure of the parameters.

    Of a complex parameter a + ib it is df/da + i df/db, where JAX's gradient has a minus.
    """

    def add(total: Any, points: tuple[Array, Array]) -> tuple[Any, None]:
        _, pullback = jax.vjp(_in_parameters(apply, variables, points[0]), variables["params"])
        return jax.tree.map(jnp.add, total, pullback(points[1])[0]), None

    zero = jax.tree.map(jnp.zeros_like, variables["params"])
    blocks = _blocks(x, block), _blocks(cotangents, block, mode="constant")
    return jax.tree.map(jnp.conj, jax.lax.scan(add, zero, blocks)[0])


def outputs(apply: Partial, variables: Variables, x: Array, block: int) -> Float[Array, "n k"]:
    """f(X)."""
    values = jax.lax.map(lambda x: apply(variables, x), _blocks(x, block))
    return values.reshape(-1, values.shape[-1])[: len(x)]


def _in_parameters(apply: Partial, variables: Variables, x: Array) -> Any:
    return lambda params: apply({**variables, "params": params}, x)


def _blocks(
    a: Float[Array, "n ..."], size: int, *, mode: str = "edge"
) -> Float[Array, "blocks size ..."]:
    """Cut along the first axis, with the last row repeated, or with zeros, at the end."""
    a = jnp.pad(a, ((0, -len(a) % size), *((0, 0),) * (a.ndim - 1)), mode=mode)
    return a.reshape(-1, size, *a.shape[1:])
