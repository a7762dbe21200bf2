"""How often intervals hold the truth: `python -m benchmarks.coverage` simulates, and keeps a table.

Each trial draws values of seeds, of test points, and of both together, makes from them what a page
would measure, and asks whether the interval of `ntklib.claims` holds the true value. The truth is
known by construction (means, differences), or is what very many seeds and points would give
(ratios, correlations).
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import stats

from ntklib import claims
from ntklib.claims import Estimate

RESULT = Path(__file__).with_suffix(".json")
SEEDS, POINTS, SPREADS = (3, 6, 10), (0, 100, 1000), (0.0, 0.03, 0.1)
N_FEATURES = 50


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        kind: one of `KINDS`.
        seeds: number of seeds.
        points: number of test points; 0 for a quantity without any.
        shared: whether all seeds are tested on the same points.
        spread: standard deviation between seeds of the probability to be right.
    """

    kind: str
    seeds: int
    points: int
    shared: bool
    spread: float


def outcomes(
    rng: np.random.Generator, setting: Setting, difficulty: Float[np.ndarray, "s n"], mean: float
) -> Float[np.ndarray, "s n"]:
    """Which points each seed gets right, 0 or 1; without points, a number for each seed."""
    skill = mean + setting.spread * rng.normal(size=(setting.seeds, 1))
    if not setting.points:
        return skill + 0.02 * rng.normal(size=skill.shape)
    # Half of what decides is the point's, half is drawn for each seed.
    own = rng.normal(size=difficulty.shape)
    return (stats.norm.cdf((difficulty + own) / np.sqrt(2)) < skill).astype(float)


def difficulties(rng: np.random.Generator, setting: Setting) -> Float[np.ndarray, "s n"]:
    """How difficult each point is for each seed."""
    shape = (1 if setting.shared else setting.seeds, max(setting.points, 1))
    return np.broadcast_to(rng.normal(size=shape), (setting.seeds, max(setting.points, 1)))


def _mean(rng: np.random.Generator, setting: Setting) -> tuple[Estimate, float]:
    return claims.estimate(outcomes(rng, setting, difficulties(rng, setting), 0.6)), 0.6


def _pair(rng: np.random.Generator, setting: Setting) -> list[Float[np.ndarray, "s n"]]:
    points = difficulties(rng, setting)
    return [outcomes(rng, setting, points, mean) for mean in (0.7, 0.5)]


def _difference(rng: np.random.Generator, setting: Setting) -> tuple[Estimate, float]:
    a, b = _pair(rng, setting)
    return claims.difference(a, b), 0.2


def _ratio(rng: np.random.Generator, setting: Setting) -> tuple[Estimate, float]:
    """The truth is the geometric mean over seeds, to second order in their spread."""
    a, b = _pair(rng, setting)
    spread = np.hypot(setting.spread, 0.0 if setting.points else 0.02)
    logs = [np.log(m) - (spread / m) ** 2 / 2 for m in (0.7, 0.5)]
    return claims.ratio(a, b), float(np.exp(logs[0] - logs[1]))


def _correlation(rng: np.random.Generator, setting: Setting) -> tuple[Estimate, float]:
    """Of two qualities of some features, as `correlation` estimates it, about its own mean."""
    trend = np.linspace(-1, 1, N_FEATURES)
    noise = rng.normal(size=(setting.seeds, N_FEATURES)) * (0.7 + setting.spread)
    values = (trend + noise)[..., None] * np.ones(max(setting.points, 1))
    if setting.points:
        shape = (1 if setting.shared else setting.seeds, N_FEATURES, setting.points)
        values = values + 2 * rng.normal(size=shape) + rng.normal(size=values.shape)
    return correlation(values), np.nan


def correlation(values: Float[np.ndarray, "s features n"]) -> Estimate:
    """Spearman's correlation between the index of a feature and the mean of its values."""

    def spearman(*means: Float[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
        ranks = stats.zscore(stats.rankdata(np.array(means), axis=0), axis=0)
        return stats.zscore(np.arange(len(means))) @ ranks / len(means)

    return claims.estimate(*values.swapaxes(0, 1), statistic=spearman, scale="fisher")


KINDS: dict[str, Callable[..., tuple[Estimate, float]]] = {
    "mean": _mean,
    "difference": _difference,
    "ratio": _ratio,
    "correlation": _correlation,
}


def settings() -> Iterator[Setting]:
    """All that are simulated."""
    for kind, seeds, points, spread in itertools.product(KINDS, SEEDS, POINTS, SPREADS):
        for shared in (False, True) if points else (False,):
            if points or spread:
                yield Setting(kind, seeds, points, shared, spread)


def coverage(setting: Setting, *, trials: int, seed: int) -> float:
    """Share of trials in which the interval holds the truth.

    A correlation's truth is the mean of all trials' estimates on Fisher's scale.
    """
    rng = np.random.default_rng(seed)
    found, truths = zip(*(KINDS[setting.kind](rng, setting) for _ in range(trials)), strict=True)
    truth = np.array(truths)
    if np.isnan(truth).all():
        truth = np.tanh(np.mean(np.arctanh([e.value for e in found])))
    low, high = np.array([[e.low, e.high] for e in found]).T
    return float(np.mean((low <= truth) & (truth <= high)))


def main(trials: int = 2000, seed: int = 0) -> None:
    """Simulates all settings and keeps the table, which the book shows."""
    rows = []
    for setting in settings():
        covered = coverage(setting, trials=trials, seed=seed)
        rows.append(asdict(setting) | {"covered": round(covered, 4)})
        print(setting, f"{covered:.3f}", flush=True)
    RESULT.write_text(json.dumps({"trials": trials, "seed": seed, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
