"""Products of the parameter gradients of two blocks of inputs, on one device or several."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array, Float

from ntklib._layerwise import Gradient, Product, gradients
from ntklib.models import Variables

# Sizes at which a CPU works in its caches: bytes of intermediate results, columns and rows of the
# pieces of a matrix product.
CACHE = 2**24
COLUMNS = 4096
ROWS = 128


def stays_factored(g: Product, outputs: int, full: bool) -> bool:
    """Whether two inputs' products h^T d take fewer multiplications than the matrices they make.

    If `full`, products of all pairs of outputs are wanted, else only of equal ones.
    """
    (p, a), b = g.h.shape, g.d.shape[-1]
    pairs = outputs**2 if full else outputs
    return p**2 * (a + pairs * b) <= pairs * a * b


class Machine:
    """The default device, or several, each with its share of the inputs of a block.

    The gradients of the second block travel around the ring of devices, so that none is computed
    twice.
    """

    def __init__(self, devices: Sequence[jax.Device] | None) -> None:
        self.mesh = None if devices is None else Mesh(np.asarray(devices), ("rows",))
        self.count = 1 if self.mesh is None else self.mesh.size

    def features(
        self,
        apply: Partial,
        variables: Variables,
        x: Float[np.ndarray, "n ..."],
        outputs: Float[np.ndarray, "c k"],
        at_once: int,
        full: bool,
    ) -> list[Gradient]:
        """`ntklib._layerwise.gradients` at a block of inputs, which are along the first axis.

        So many inputs as `at_once` are in one backward pass.
        """
        if self.mesh is None:
            return _features(apply, variables, jnp.asarray(x), jnp.asarray(outputs), at_once, full)
        everywhere = partial(_place, NamedSharding(self.mesh, PartitionSpec()))
        spread = _place(NamedSharding(self.mesh, PartitionSpec("rows")), x)
        variables, copied = jax.tree.map(everywhere, (variables, outputs))
        return _features_ring(apply, variables, spread, copied, at_once, full, self.mesh)

    def contract(
        self, first: list[Gradient], second: list[Gradient] | None, full: bool
    ) -> Float[np.ndarray, "n c m d"]:
        """The kernel between two blocks, summed over outputs (c = d = 1) unless `full`.

        None for the second stands for the first again. Of several processes, each gets the whole.
        """
        if self.mesh is None:
            return np.asarray(_contract(first, second, full))
        tile = _contract_ring(first, first if second is None else second, full, self.mesh)
        return np.asarray(multihost_utils.process_allgather(tile, tiled=True))


def _place(sharding: NamedSharding, array: Any) -> Array:
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


@partial(jax.jit, static_argnames=("at_once", "full"))
def _features(
    apply: Partial,
    variables: Variables,
    x: Float[Array, "n ..."],
    outputs: Float[Array, "c k"],
    at_once: int,
    full: bool,
) -> list[Gradient]:
    def single(x: Array) -> list[Gradient]:
        return [
            g if not isinstance(g, Product) or stays_factored(g, len(outputs), full) else g.matrix()
            for g in gradients(apply, variables, x, outputs)
        ]

    return jax.lax.map(single, x, batch_size=at_once)


@partial(jax.jit, static_argnames="full")
def _contract(
    first: list[Gradient], second: list[Gradient] | None, full: bool
) -> Float[Array, "n c m d"]:
    total = jnp.zeros(())
    for f, s in zip(first, first if second is None else second, strict=True):
        # Both are of one kind, as they belong to one layer.
        multiply: Any = _factored if isinstance(f, Product) else _matrices
        total += multiply(f, s, full)
    return total


def _matrices(
    f: Float[Array, "n c ab"], s: Float[Array, "m c ab"], full: bool
) -> Float[Array, "n d m d"]:
    """The products of all rows of f and s, which are gradients of single outputs if `full`.

    A CPU's matrix product is at its best when the shared axis is cut in pieces that fit in its
    cache.
    """
    n, c = f.shape[0], f.shape[1] if full else 1
    m = len(s)
    rows, columns = f.reshape(n * c, -1), s.reshape(m * c, -1)
    whole, rest = divmod(rows.shape[1], COLUMNS)

    def piece(start: Array | int, size: int) -> Array:
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size, axis=1)
        return _symmetric(cut(rows)) if s is f else cut(rows) @ cut(columns).T

    total = piece(whole * COLUMNS, rest)
    if whole:
        total = jax.lax.fori_loop(
            0, whole, lambda i, total: total + piece(i * COLUMNS, COLUMNS), total
        )
    return total.reshape(n, c, m, c)


def _symmetric(a: Float[Array, "n d"]) -> Float[Array, "n n"]:
    """The product a a^T, where what is below the diagonal is mirrored, not computed."""
    if len(a) < 2 * ROWS:
        return a @ a.T
    top, bottom = jnp.split(a, [len(a) // 2])
    corner = top @ bottom.T
    return jnp.block([[_symmetric(top), corner], [corner.T, _symmetric(bottom)]])


def _factored(f: Product, s: Product, full: bool) -> Float[Array, "n d m d"]:
    """The products of h^T d and h'^T d', sum_pq (h_p . h'_q) (d_p . d'_q), without these."""
    pairs = "cpb,mdqb->cpmdq" if full else "cpb,mcqb->pmq"
    summed = "pmq,cpmdq->cmd" if full else "pmq,pmq->m"

    def row(f: Product) -> Array:
        h = jnp.einsum("pa,mqa->pmq", f.h, s.h)
        return jnp.einsum(summed, h, jnp.einsum(pairs, f.d, s.d))

    m, p = s.h.shape[:2]
    entries = 2 * m * p**2 * (f.d.shape[1] ** 2 if full else 1)
    rows = jax.lax.map(row, f, batch_size=max(1, CACHE // (entries * f.h.dtype.itemsize)))
    return rows if full else rows[:, None, :, None]


@partial(jax.jit, static_argnames=("at_once", "full", "mesh"))
def _features_ring(
    apply: Partial,
    variables: Variables,
    x: Float[Array, "n ..."],
    outputs: Float[Array, "c k"],
    at_once: int,
    full: bool,
    mesh: Mesh,
) -> list[Gradient]:
    local = partial(_features, apply, at_once=at_once, full=full)
    rows, everywhere = PartitionSpec("rows"), PartitionSpec()
    specs = (everywhere, rows, everywhere)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)(
        variables, x, outputs
    )


@partial(jax.jit, static_argnames=("full", "mesh"))
def _contract_ring(
    first: list[Gradient], second: list[Gradient], full: bool, mesh: Mesh
) -> Float[Array, "n c m d"]:
    around = [(i, (i + 1) % mesh.size) for i in range(mesh.size)]

    def local(first: list[Gradient], second: list[Gradient]) -> Array:
        tiles = []
        for _ in around:
            tiles.append(_contract(first, second, full))
            second = jax.lax.ppermute(second, "rows", around)
        # Tile i is made with what started i places back on the ring.
        back = (jax.lax.axis_index("rows") - jnp.arange(mesh.size)) % mesh.size
        return jnp.concatenate(list(jnp.stack(tiles)[back]), axis=2)

    rows = PartitionSpec("rows")
    return jax.shard_map(local, mesh=mesh, in_specs=(rows, rows), out_specs=rows, check_vma=False)(
        first, second
    )
