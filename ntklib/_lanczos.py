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

_CHECK = 4  # passes between two looks at the error


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
    first, q = None, _orthonormal(started, basis)
    while True:
        basis = np.concatenate([basis, q], axis=2)
        product = kernel @ np.moveaxis(roots * q, 0, 1).reshape(n, -1)
        products = np.concatenate([products, np.moveaxis(product.reshape(n, groups, b), 1, 0)], 2)
        if first is None:
            first = q.mT @ started
        m = basis.shape[2]
        full = m + b > n
        if not full:
            rest = roots * products[:, :, -b:]
            rest = _without(_without(rest, basis), basis)
            q = _orthonormal(rest, basis)
        if full or m % (_CHECK * b) == 0:
            small = basis.mT @ (roots * products)
            values, z = np.linalg.eigh((small + small.mT) / 2)
            values = np.maximum(values, 0)
            start = z[:, :b].mT @ first
            if full:
                break
            last = z[:, -b:] @ (phi(values)[..., None] * start)
            if (np.linalg.norm((q.mT @ rest) @ last, axis=(1, 2)) <= tolerance * size).all():
                break
    return Krylov(values, start, basis @ z, products @ z)


def _without(block: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return block - basis @ (basis.mT @ block)


def _orthonormal(
    block: Float64[np.ndarray, "g n b"], basis: Float64[np.ndarray, "g n m"]
) -> Float64[np.ndarray, "g n b"]:
    """An orthonormal block that spans another one, orthogonal to a basis.

    Where columns are zero, the least noise there is stands in for them.
    """
    noise = np.random.default_rng(0).standard_normal(block.shape[1:])
    q = np.linalg.qr(block + 1e-300 * noise)[0]
    return np.linalg.qr(_without(_without(q, basis), basis))[0]
