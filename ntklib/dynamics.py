r"""How a kernel moves during training, and how its spectrum spreads.

Kernels are symmetric and finite (N, N) arrays over the same N inputs ((NC, NC) with all outputs),
or several of them (..., N, N); the kernels of T epochs, in order, are (T, N, N). All results are
computed in float64.

The size of a kernel says little, so distances compare directions:
$S(A, B) = 1 - \langle A, B\rangle_F / (\|A\|_F \|B\|_F)$ (Fort et al. 2020). Kernels of inputs that
are all positive, such as pixels, are nearly constant, and raw distances tiny. Functions that take
`centred` then compare $HKH$ with $H = I - \frac1N \mathbf 1 \mathbf 1^\top$ (Cortes et al. 2012). A
kernel of zero, or a constant one if centred, has no direction, and is refused.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, Num
from scipy.special import entr

from ntklib import _checks

Kernels = Num[Array | np.ndarray, "..."] | Sequence[Num[Array | np.ndarray, "..."]]
Each = np.float64 | Float64[np.ndarray, "..."]
"""One number a kernel: a number for (N, N), else an array."""
Numbers = Sequence[float] | Num[Array | np.ndarray, "..."]

# Relative to the largest entry or eigenvalue: above what float32 rounds, below what means a thing.
_ROUNDING = 1e-4


class Polar(NamedTuple):
    """A sequence of kernels, seen from the first one."""

    radius: Float64[np.ndarray, " t"]  # distance from the first, in units of the last one's
    angle: Float64[np.ndarray, " t"]  # angle to the first, in radians


class Specialisation(NamedTuple):
    """How much each class's kernel is its own."""

    matrix: Float64[np.ndarray, "... c c"]
    mean: Each


def centre(kernels: Kernels) -> Float64[np.ndarray, "... n n"]:
    """The kernels $HKH$ of centred features, whose rows and columns have mean zero."""
    kernels = _checked("kernels", kernels)
    rows = kernels - kernels.mean(-1, keepdims=True)
    return rows - rows.mean(-2, keepdims=True)


def similarity(a: Kernels, b: Kernels, *, centred: bool = False) -> Each:
    r"""Cosine between kernels, $\langle A, B\rangle_F / (\|A\|_F \|B\|_F)$, whose shapes broadcast.

    Centred, it is the centred kernel alignment of Cortes et al. (2012).
    """
    a, b = _directed("a", a, centred), _directed("b", b, centred)
    _check_fit(a, b)
    products = np.einsum("...ij,...ij->...", a, b)
    norms = np.linalg.norm(a, axis=(-2, -1)) * np.linalg.norm(b, axis=(-2, -1))
    return np.clip(products / norms, -1, 1)


def distance(a: Kernels, b: Kernels, *, centred: bool = False) -> Each:
    """Kernel distance, one minus the `similarity`; at most 1 for positive semi-definite kernels."""
    return 1 - similarity(a, b, centred=centred)


def distances(
    a: Kernels, b: Kernels | None = None, *, centred: bool = False
) -> Float64[np.ndarray, "s t"]:
    """Kernel distance of all pairs of a[s] and b[t] (a again if b is None), by one product."""
    first = _directed("a", a, centred, ndim=3)
    second = first if b is None else _directed("b", b, centred, ndim=3)
    _check_fit(first, second)
    rows, columns = first.reshape(len(first), -1), second.reshape(len(second), -1)
    norms = np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(columns, axis=1))
    return 1 - np.clip(rows @ columns.T / norms, -1, 1)


def velocity(
    kernels: Kernels, times: Numbers, *, centred: bool = False
) -> Float64[np.ndarray, " steps"]:
    r"""Speed of a kernel, $S(K_t, K_{t+\Delta}) / \Delta$ between times that ascend.

    The distance grows with the square of a small angle, so with kernels taken more often the
    velocity of a smooth path goes down: compare velocities at equal $\Delta$.
    """
    kernels = _checked("kernels", kernels, ndim=3)
    elapsed = np.diff(_times(times, len(kernels)))
    return distance(kernels[:-1], kernels[1:], centred=centred) / elapsed


def path_length(kernels: Kernels, *, centred: bool = False) -> float:
    r"""Length of the way that a kernel goes, $\sum_t S(K_t, K_{t+1})$; 0 for a single kernel.

    As $S$ is no metric, steps of another length give another path length: compare paths with equal
    times.
    """
    kernels = _checked("kernels", kernels, ndim=3)
    return float(distance(kernels[:-1], kernels[1:], centred=centred).sum())


def settling_time(remaining: Numbers, times: Numbers, yardstick: float) -> float:
    """The first of the given times, ascending, from which on a curve stays below a yardstick.

    It is infinity if the last value is not below. For the remaining distance to the final kernel,
    `distances(kernels, kernels[-1:])[:, 0]`. That is zero at the end, so the last time as an answer
    means: not before the end. No value between the times is interpolated.
    """
    remaining = np.asarray(remaining, np.float64)
    if remaining.ndim != 1 or len(remaining) == 0:
        raise ValueError(f"remaining: shape {remaining.shape} is not allowed; it is (times,)")
    times, yardstick = _times(times, len(remaining)), _checks.number("yardstick", yardstick)
    if not np.isfinite(remaining).all():
        raise ValueError("remaining: has values that are not finite")
    below = np.append(np.flatnonzero(remaining >= yardstick) + 1, 0).max()
    return float(np.append(times, np.inf)[below])


def truncate(
    kernels: Kernels, k: int
) -> tuple[Float64[np.ndarray, "... n n"], Float64[np.ndarray, "... n n"]]:
    """Splits each kernel into its top k eigenpairs, k from 1 to N - 1, and the rest.

    Each kernel is cut by its own eigenvectors, so from one epoch to the next the two parts may swap
    directions: they are no fixed subspaces.
    """
    kernels = _symmetric("kernels", kernels)
    k = _checks.whole("k", k, most=kernels.shape[-1] - 1)
    values, vectors = np.linalg.eigh(kernels)
    top = (vectors[..., -k:] * values[..., None, -k:]) @ vectors[..., -k:].mT
    return top, kernels - top


def polar(kernels: Kernels, *, centred: bool = False) -> Polar:
    r"""Polar coordinates of a kernel's path (T, N, N), around its start.

    $r_t = \|K_t - K_0\|_F / \|K_T - K_0\|_F$ and
    $\varphi_t = \arccos(\langle K_t, K_0\rangle_F / (\|K_t\|_F \|K_0\|_F))$ (Tsilivis & Kempe
    2022). Both are 0 at the start (the angle up to about 1e-8). For the top eigenpairs, or the
    rest, pass what `truncate` returns.
    """
    kernels = _directed("kernels", kernels, centred, ndim=3)
    moved = np.linalg.norm(kernels - kernels[0], axis=(1, 2))
    if moved[-1] == 0:
        raise ValueError("kernels: the last one equals the first; their distance is the unit")
    return Polar(moved / moved[-1], np.arccos(similarity(kernels, kernels[0])))


def spectrum(kernels: Kernels) -> Float64[np.ndarray, "... n"]:
    """Eigenvalues of each kernel, descending."""
    return np.linalg.eigvalsh(_symmetric("kernels", kernels))[..., ::-1]


def trace_rank(eigenvalues: Numbers) -> Each:
    r"""Effective rank as the trace over the largest eigenvalue, $\sum_i \lambda_i / \lambda_1$.

    From 1 (rank one) to N (all eigenvalues equal), for the descending eigenvalues (..., N) of
    `spectrum`, which may be negative by the rounding of float32. Source: Vershynin (2012).
    """
    return _shares(eigenvalues).sum(-1)


def entropy_rank(eigenvalues: Numbers) -> Each:
    r"""Effective rank $\exp(-\sum_i p_i \log p_i)$ with $p_i = \lambda_i / \sum_j \lambda_j$.

    From 1 (rank one) to N (all eigenvalues equal), and never below `trace_rank`, whose eigenvalues
    it takes. Source: Roy & Vetterli (2007).
    """
    shares = _shares(eigenvalues)
    return np.exp(entr(shares / shares.sum(-1, keepdims=True)).sum(-1))


def concentration(eigenvalues: Numbers) -> Float64[np.ndarray, "... n"]:
    r"""Concentration on the top k eigenspaces, $\sum_{i\le k} \lambda_i^2 / \sum_i \lambda_i^2$.

    The share of the kernel's squared Frobenius norm, not of its trace (Tsilivis & Kempe 2022), for
    the eigenvalues of `trace_rank`. That of k is `[..., k - 1]`.
    """
    energy = np.cumsum(_shares(eigenvalues) ** 2, axis=-1)
    return energy / energy[..., -1:]


def specialisation(kernels: Kernels, labels: Int[Array | np.ndarray, "..."]) -> Specialisation:
    r"""How much better the kernel of each class fits its own class than the other kernels do.

    With $u_k$ the centred indicator of class k and $A(K, u) = u^\top K u / (\|K\|_F \|u\|^2)$,

    $$\mathrm{KSM}[c, k] = A(K^{(c)}, u_k) \Big/ \frac1C \sum_{c'} A(K^{(c')}, u_k) .$$

    Each column has mean 1 (Shan & Bordelon 2021). The kernels are those of the outputs, (C, N, N),
    or at several epochs (..., C, N, N); every one of the C classes has inputs, and a kernel that
    fits its indicator.
    """
    kernels = _directed("kernels", kernels, centred=False)
    if kernels.ndim < 3 or kernels.shape[-3] < 2:
        raise ValueError(
            f"kernels: shape {kernels.shape} is not allowed; it is (..., classes, n, n), with 2 "
            "classes or more"
        )
    classes, n = kernels.shape[-3:-1]
    labels = np.asarray(_checks.labels("labels", labels, n, classes))
    if len(present := np.unique(labels)) < classes:
        raise ValueError(f"labels: has {present} only; each of 0 to {classes - 1} is there")
    indicators = np.eye(classes)[:, labels]
    indicators -= indicators.mean(1, keepdims=True)
    fits = ((indicators @ kernels) * indicators).sum(-1) / (indicators**2).sum(1)
    alignment = fits / np.linalg.norm(kernels, axis=(-2, -1))[..., None]
    mean = alignment.mean(-2, keepdims=True)
    if not (mean > np.finfo(np.float64).eps).all():
        raise ValueError(
            "kernels: fits to the indicator of a class are zero or negative; their mean is positive"
        )
    matrix = alignment / mean
    return Specialisation(matrix, np.trace(matrix, axis1=-2, axis2=-1) / classes)


def _checked(
    name: str, kernels: Kernels, *, ndim: int | None = None
) -> Float64[np.ndarray, "... n n"]:
    kernels = np.asarray(kernels)
    if not jnp.issubdtype(kernels.dtype, jnp.floating):
        raise TypeError(
            f"{name}: dtype {kernels.dtype} is not allowed; it is a floating-point type"
        )
    square = kernels.ndim >= 2 and kernels.shape[-1] == kernels.shape[-2] > 0
    if not square or (ndim and (kernels.ndim != ndim or len(kernels) == 0)):
        wanted = "(epochs, n, n)" if ndim == 3 else "(..., n, n)"
        raise ValueError(
            f"{name}: shape {kernels.shape} is not allowed; it is {wanted}, none empty"
        )
    if not np.isfinite(kernels).all():
        raise ValueError(f"{name}: has values that are not finite")
    return np.asarray(kernels, np.float64)


def _symmetric(name: str, kernels: Kernels) -> Float64[np.ndarray, "... n n"]:
    kernels = _checked(name, kernels)
    # LAPACK reads one triangle only, and would not notice.
    if (np.abs(kernels - kernels.mT) > _ROUNDING * np.abs(kernels).max(initial=0)).any():
        raise ValueError(f"{name}: is not symmetric; kernels are")
    return kernels


def _directed(
    name: str, kernels: Kernels, centred: bool, *, ndim: int | None = None
) -> Float64[np.ndarray, "... n n"]:
    """Kernels, centred if asked for, none of which is zero up to the rounding of float64."""
    raw = _checked(name, kernels, ndim=ndim)
    result = centre(raw) if centred else raw
    before, after = (np.linalg.norm(m, axis=(-2, -1)) for m in (raw, result))
    if not (after > 1e-13 * before).all():
        kind = "zero when centred, such as a constant" if centred else "zero"
        raise ValueError(f"{name}: a kernel is {kind}; it has no direction")
    return result


def _check_fit(a: Float64[np.ndarray, "..."], b: Float64[np.ndarray, "..."]) -> None:
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"b: kernels have {b.shape[-1]} rows; they have {a.shape[-1]}, as in a")


def _times(times: Numbers, n: int) -> Float64[np.ndarray, " t"]:
    times = np.asarray(times, np.float64)
    if times.shape != (n,):
        raise ValueError(f"times: shape {times.shape} is not allowed; it is ({n},), one an entry")
    if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise ValueError(f"times: {times} do not ascend; they are finite and do")
    return times


def _shares(eigenvalues: Numbers) -> Float64[np.ndarray, "... n"]:
    """Eigenvalues in units of the largest one; what rounding has made negative is zero."""
    values = np.asarray(eigenvalues, np.float64)
    if values.ndim < 1 or 0 in values.shape:
        raise ValueError(f"eigenvalues: shape {values.shape} is not allowed; it is (..., n)")
    descend = np.isfinite(values).all() and (np.diff(values) <= 0).all()
    if not (descend and (values[..., 0] > 0).all()):
        raise ValueError("eigenvalues: do not descend from one that is positive and finite")
    shares = values / values[..., :1]
    if (shares < -_ROUNDING).any():
        raise ValueError(
            f"eigenvalues: the smallest is {shares.min():.2g} of the largest; a kernel has none "
            "below zero"
        )
    return np.maximum(shares, 0)
