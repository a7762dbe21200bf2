r"""Functions of a large symmetric matrix, applied to blocks of columns: block Lanczos.

Each group $g$ has a matrix $S_g = R_g\, \Theta\, R_g$ with one kernel $\Theta$ and a diagonal
$R_g \ge 0$, and a block $B_g$ of $b$ columns. An orthonormal basis $V_g$ of the Krylov space of
$S_g$ and $R_g B_g$ is grown by $b$ columns a pass over the kernel, which serves all groups. With
$T = V^\top S V = Z\, \mathrm{diag}(\tau)\, Z^\top$ a function is
$f(S)\, R B \approx V Z f(\tau)\, a$, $a = Z^\top V^\top R B$ (Golub & Meurant 2010, chapter 4).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

_CHECK = 2  # passes between two looks at the error


@dataclass(frozen=True)
class Krylov:
    """What is known of each group after the last pass; m columns in each basis."""

    values: Float64[np.ndarray, "g m"]  # the Ritz values tau, at least 0
    start: Float64[np.ndarray, "g m b"]  # a
    vectors: Float64[np.ndarray, "g n m"]  # the Ritz vectors V Z
    products: Float64[np.ndarray, "g n m"]  # the kernel times R V Z


def phi(z: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    r"""$\varphi_1(-z) = (1 - e^{-z}) / z$ for $z \ge 0$, 1 at zero."""
    return np.divide(-np.expm1(-z), z, out=np.ones_like(z), where=z > 0)


def krylov(
    kernel: Float64[np.ndarray, "n n"],
    roots: Float64[np.ndarray, "g n 1"],
    blocks: Float64[np.ndarray, "g n b"],
    tolerance: float,
) -> Krylov:
    r"""Grows the spaces until the residual of $\varphi_1(-S)\, R B$ is small in every group.

    That of $r' = -S r$ at time 1 is what the last block of $V$ still gets from the one before; it
    is compared with the size of $R B$.
    """
    groups, n, b = blocks.shape
    started = roots * blocks
    size = np.linalg.norm(started, axis=(1, 2))
    basis, products = np.zeros((2, groups, n, 0))
    q = _orthonormal(started, basis, size)
    first = q.mT @ started
    while True:
        basis = np.concatenate([basis, q], axis=2)
        product = kernel @ np.moveaxis(roots * q, 0, 1).reshape(n, -1)
        product = np.moveaxis(product.reshape(n, groups, -1), 1, 0)
        products = np.concatenate([products, product], axis=2)
        m, added = basis.shape[2], q.shape[2]
        rest = roots * product
        scale = np.linalg.norm(rest, axis=(1, 2))
        rest = _without(_without(rest, basis), basis)
        q = _orthonormal(rest, basis, scale)
        if m < n and m % (_CHECK * b):
            continue
        small = basis.mT @ (roots * products)
        values, z = np.linalg.eigh((small + small.mT) / 2)
        values = np.maximum(values, 0)
        start = z[:, : first.shape[1]].mT @ first
        last = z[:, -added:] @ (phi(values)[..., None] * start)
        left = np.linalg.norm((q.mT @ rest) @ last, axis=(1, 2))
        if m == n or (left <= tolerance * size).all():
            return Krylov(values, start, basis @ z, products @ z)


def _without(block: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return block - basis @ (basis.mT @ block)


def _orthonormal(
    block: Float64[np.ndarray, "g n b"],
    basis: Float64[np.ndarray, "g n m"],
    scale: Float64[np.ndarray, " g"],
) -> Float64[np.ndarray, "g n _"]:
    """An orthonormal block that spans another one, orthogonal to a basis, if there is room for it.

    Noise of the size of rounding, at that scale, stands in for columns that are no more than
    rounding themselves; where there is less room than columns, the block is all that is left of it.
    """
    n, b = block.shape[1:]
    if n - basis.shape[2] <= b:
        return np.linalg.qr(basis, mode="complete")[0][:, :, basis.shape[2] :]
    noise = np.random.default_rng(0).standard_normal((n, b))
    size = np.where(scale > 0, np.finfo(float).eps * scale, 1.0)
    q = np.linalg.qr(block + size[:, None, None] * noise)[0]
    return np.linalg.qr(_without(_without(q, basis), basis))[0]
