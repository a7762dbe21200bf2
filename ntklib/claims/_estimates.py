"""Estimates over seeds and test points, with bootstrap intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A quantity with its 95 % interval and its value for each seed."""

    value: float
    low: float
    high: float
    per_seed: tuple[float, ...]

    def __format__(self, spec: str) -> str:
        spec = spec or ".2f"
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
    return round(float(value), 6) if math.isfinite(value) else None


def estimate(*samples: Any, statistic: Callable[..., Any] = lambda mean: mean) -> Estimate:
    r"""Median over seeds of a statistic of means over test points, with a bootstrap interval.

    For seeds $s$ and test points $i$ the samples are $a_{si}, b_{si}, \dots$; the value of a seed
    is $q_s = g(\bar a_s, \bar b_s, \dots)$ and the estimate is the median of the $q_s$. The
    interval holds the middle 95 % of the estimates over resamples, in each of which the seeds are
    drawn with replacement and then, within each seed, the test points, the same for all samples
    (a nested percentile bootstrap, Efron & Tibshirani 1993).

    Args:
        samples: arrays of shape `(seeds, points)`, paired along both axes; `(seeds,)` for
            quantities without test points.
        statistic: $g$, applied elementwise to arrays of means; by default the first mean.

    Returns:
        The estimate.

    Raises:
        ValueError: if the shapes differ, or there is nothing to resample.
    """
    arrays = [np.asarray(a, dtype=np.float64) for a in samples]
    arrays = [a[:, None] if a.ndim == 1 else a for a in arrays]
    shapes = {a.shape for a in arrays}
    if len(shapes) != 1 or len(arrays[0].shape) != 2 or 0 in arrays[0].shape:
        raise ValueError(f"samples: shapes {sorted(shapes)}; give arrays of one shape (seeds, n)")
    n_seeds, n = arrays[0].shape
    rng = np.random.default_rng(0)
    drawn = rng.integers(n_seeds, size=(RESAMPLES, n_seeds))
    points = rng.integers(n, size=(RESAMPLES, n_seeds, n), dtype=np.int32)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_seed = np.asarray(statistic(*(a.mean(axis=1) for a in arrays)))
        resampled = statistic(*(a[drawn[:, :, None], points].mean(axis=2) for a in arrays))
        low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
    return Estimate(float(np.median(per_seed)), float(low), float(high), tuple(per_seed.tolist()))


def difference(a: Any, b: Any) -> Estimate:
    """What the first quantity exceeds the second by, seeds and test points paired.

    Args:
        a: array of shape `(seeds, points)`, or `(seeds,)`.
        b: array of the same shape.

    Returns:
        The estimate of the mean of `a` minus that of `b`, see `estimate`.

    Raises:
        ValueError: see `estimate`.
    """
    return estimate(a, b, statistic=np.subtract)


def estimates(samples: Any) -> list[Estimate]:
    """An estimate for each of several times, features or the like: a curve with intervals.

    Args:
        samples: array of shape `(seeds, times, points)`, or `(seeds, times)`.

    Returns:
        One estimate a time, see `estimate`.

    Raises:
        ValueError: see `estimate`; or if the array has no second axis.
    """
    samples = np.asarray(samples)
    if samples.ndim < 2:
        raise ValueError(f"samples: shape {samples.shape}; give (seeds, times) or more axes")
    return [estimate(column) for column in samples.swapaxes(0, 1)]
