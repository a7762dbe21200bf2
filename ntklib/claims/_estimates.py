"""Estimates over seeds and test points, with intervals that cover.

A quantity has a value for each seed, made of means over test points. Its estimate is the mean of
these values over the seeds, on a scale on which they are about normal: as they are, as logarithms
(ratios), or as Fisher's z (correlations). The interval is Student's t for that mean. How often such
intervals hold the truth is simulated in `benchmarks`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

GROUPS = 50
Scale = Literal["linear", "log", "fisher"]
_SCALES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "linear": (np.asarray, np.asarray),
    "log": (np.log, np.exp),
    "fisher": (np.arctanh, np.tanh),
}
_RANGES = {"linear": (-np.inf, np.inf), "log": (0.0, np.inf), "fisher": (-1.0, 1.0)}


@dataclass(frozen=True)
class Estimate:
    """A quantity with its 95 % interval and its value for each seed."""

    value: float
    low: float
    high: float
    per_seed: tuple[float, ...]

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
        if not math.isfinite(self.low + self.high):  # of one seed, say
            return f"{self.value:{spec}} (no interval)"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def beside(self, other: "Estimate | float") -> str:
        """How the interval lies beside another one, or a number, in words.

        Returns:
            `above` or `below` if they have no point in common, else `not told apart from`.
        """
        low, high = (other.low, other.high) if isinstance(other, Estimate) else (other, other)
        if self.low > high:
            return "above"
        return "below" if self.high < low else "not told apart from"

    def as_dict(self) -> dict[str, Any]:
        """The estimate as plain data, numbers that are not finite as null."""
        return {
            "value": _number(self.value),
            "interval": [_number(self.low), _number(self.high)],
            "per_seed": [_number(v) for v in self.per_seed],
        }

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> "Estimate":
        """The estimate that `as_dict` has written, null as nan."""
        numbers = [entry["value"], *entry["interval"], *entry["per_seed"]]
        value, low, high, *per_seed = (math.nan if n is None else float(n) for n in numbers)
        return cls(value, low, high, tuple(per_seed))


def _number(value: float) -> float | None:
    """To twelve digits; a number of digits after the point would make small ones zero."""
    return float(f"{value:.12g}") if math.isfinite(value) else None


def estimate(
    *samples: Any,
    statistic: Callable[..., Any] = lambda mean: mean,
    scale: Scale = "linear",
) -> Estimate:
    r"""Mean over seeds of a statistic of means over test points, with Student's interval.

    For S seeds $s$ and N test points $i$ the samples are $a_{si}, b_{si}, \dots$; the value of a
    seed is $q_s = g(\bar a_s, \bar b_s, \dots)$, and the estimate $h^{-1}(\frac1S \sum_s h(q_s))$
    with the scale $h$. Seeds may be tested on the same points; what the choice of these does is
    then the same for all, and is no part of the spread of the seeds. So the points are put into G
    groups, what group i adds is its jackknife pseudo-value,
    $c_{si} = G\, h(q_s) - (G - 1)\, h(q_s \text{ without group } i)$, and the $c_{si}$ are split
    into seeds, groups and rest. With the variances of their means,
    $A = \mathrm{var}_s\, h(q_s) / S$, $B = \mathrm{var}_i(\bar c_i) / G$ and
    $C = \mathrm{var}(\mathrm{rest}) / (SG)$, the interval reaches, on the scale, to both
    sides by the root of

    $$t_{S-1}^2\, A + t_{G-1}^2 \max(B - C, 0)$$

    with 97.5 % quantiles of Student's t (Howe 1974). The second term is about zero if
    each seed has points of its own.

    Args:
        samples: arrays of shape `(seeds, points)`, paired along both axes; `(seeds,)` for
            quantities without test points.
        statistic: $g$, applied elementwise to arrays of means; by default the first mean.
        scale: $h$: `linear`, `log` for ratios, `fisher` for correlations.

    Returns:
        The estimate. One seed, or a value at the end of the scale (a ratio of zero), has an
        interval of all numbers of the scale; a value that is no number has none.

    Raises:
        ValueError: if the shapes differ, or there is nothing to average.
    """
    arrays = [np.asarray(a, dtype=np.float64) for a in samples]
    arrays = [a[:, None] if a.ndim == 1 else a for a in arrays]
    shapes = {a.shape for a in arrays}
    if len(shapes) != 1 or len(arrays[0].shape) != 2 or 0 in arrays[0].shape:
        raise ValueError(f"samples: shapes {sorted(shapes)}; give arrays of one shape (seeds, n)")
    forward, back = _SCALES[scale]

    def of_means(*means: Any) -> Float[np.ndarray, " s"]:
        return np.asarray(forward(statistic(*means)), dtype=np.float64)

    with np.errstate(divide="ignore", invalid="ignore"):
        means = [a.mean(axis=1) for a in arrays]
        per_seed = tuple(np.asarray(statistic(*means), dtype=np.float64).tolist())
        scaled = of_means(*means)
        value = float(back(scaled.mean()))
        half = np.inf
        if len(scaled) > 1 and np.isfinite(scaled).all():
            half = _half_width(scaled, _pseudo_values(of_means, arrays, scaled))
        if not np.isfinite(half):
            low, high = (np.nan, np.nan) if np.isnan(value) else _RANGES[scale]
            return Estimate(value, low, high, per_seed)
    # Clipped, as a mean of equal numbers may differ from them in the last bit.
    low, high = float(back(scaled.mean() - half)), float(back(scaled.mean() + half))
    return Estimate(value, min(low, value), max(high, value), per_seed)


def _pseudo_values(
    of_means: Callable[..., Any], arrays: list[np.ndarray], scaled: Float[np.ndarray, " s"]
) -> Float[np.ndarray, "s groups"]:
    """What each group of points adds to each seed's value, by leaving the group out."""
    n_seeds, n = arrays[0].shape
    n_groups = min(n, GROUPS)
    if n_groups == 1:
        return scaled[:, None]
    groups = np.eye(n_groups)[np.arange(n) % n_groups]
    left = n - groups.sum(0)
    without = [(a.sum(1, keepdims=True) - a @ groups) / left for a in arrays]
    values = of_means(*(mean.ravel() for mean in without)).reshape(n_seeds, n_groups)
    return n_groups * scaled[:, None] - (n_groups - 1) * values


def _half_width(of_seeds: Float[np.ndarray, " s"], parts: Float[np.ndarray, "s groups"]) -> float:
    """Half of the interval of a mean over seeds, see `estimate`."""
    n_seeds, n = parts.shape
    squared = stdtrit(n_seeds - 1, 0.975) ** 2 * of_seeds.var(ddof=1) / n_seeds
    if n > 1:
        rest = parts - parts.mean(0) - parts.mean(1, keepdims=True) + parts.mean()
        of_rest = (rest**2).sum() / ((n_seeds - 1) * (n - 1)) / (n_seeds * n)
        excess = parts.mean(0).var(ddof=1) / n - of_rest
        squared += stdtrit(n - 1, 0.975) ** 2 * max(excess, 0.0)
    return float(np.sqrt(squared))


def difference(a: Any, b: Any) -> Estimate:
    """What the first quantity exceeds the second by, seeds and test points paired.

    Args:
        a: array of shape `(seeds, points)`, or `(seeds,)`.
        b: array of the same shape.

    Raises:
        ValueError: see `estimate`.
    """
    return estimate(a, b, statistic=np.subtract)


def ratio(a: Any, b: Any) -> Estimate:
    """The first quantity divided by the second: the geometric mean of the seeds' ratios.

    Args:
        a: array of shape `(seeds, points)`, or `(seeds,)`.
        b: array of the same shape.

    Raises:
        ValueError: see `estimate`.
    """
    return estimate(a, b, statistic=np.divide, scale="log")


def estimates(samples: Any) -> list[Estimate]:
    """An estimate for each of several times, features or the like: a curve with intervals.

    Args:
        samples: array of shape `(seeds, times, points)`, or `(seeds, times)`.

    Raises:
        ValueError: see `estimate`; or if the array has no second axis.
    """
    samples = np.asarray(samples)
    if samples.ndim < 2:
        raise ValueError(f"samples: shape {samples.shape}; give (seeds, times) or more axes")
    return [estimate(column) for column in samples.swapaxes(0, 1)]
