"""Claims as data: the registry, estimates with intervals, verdicts and result files."""

import html
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jax
import jsonschema
import numpy as np
import yaml

from ntklib.attacks import Finding

VERDICTS = ("reproduced", "partly", "not reproduced", "inconclusive", "not run")
ICONS = dict(zip(VERDICTS, "✔◐✘?○", strict=True))
MINIMUM_SEEDS = 3
MIME = "application/vnd.ntklib.result+json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "neural-tangents", "numpy", "scipy")

Margin = float | tuple[float, float]


class RegistryError(ValueError):
    """The registry or a result file does not follow its schema."""


@dataclass(frozen=True)
class Paper:
    """One of the papers: what is needed to cite it. `key` is its key in the bibliography."""

    key: str
    authors: str
    year: int
    title: str
    venue: str
    arxiv: str


@dataclass(frozen=True)
class Check:
    """A predicate on one quantity, fixed before the quantity is measured."""

    name: str
    quantity: str
    predicate: str
    margin: Margin | dict[str, Margin]
    why: str
    lineages: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False, compare=False)

    def margin_for(self, profile: str) -> Margin | None:
        """The margin that holds for a profile; None where the check does not apply.

        A profile that has none of its own is held against that of the one it extends.
        """
        if isinstance(self.margin, dict):
            lineage = self.lineages.get(profile, [profile])
            return next((self.margin[p] for p in lineage if p in self.margin), None)
        return self.margin

    def describe(self, profile: str) -> str:
        """The predicate as text, such as `>= 0.25`."""
        margin = self.margin_for(profile)
        if isinstance(margin, tuple):
            return f"between {margin[0]:g} and {margin[1]:g}"
        return f"{self.predicate} {margin:g}"

    def holds(self, value: float, profile: str) -> bool:
        """Whether the predicate is true of one value."""
        margin = self.margin_for(profile)
        if isinstance(margin, tuple):
            return margin[0] <= value <= margin[1]
        assert margin is not None
        return value >= margin if self.predicate == ">=" else value <= margin

    def passed(self, low: float, high: float, profile: str) -> bool | None:
        """True or False if the predicate holds on the whole interval or nowhere on it, else None.

        An interval with an end that is no number decides nothing.
        """
        if not low <= high:
            return None
        ends = self.holds(low, profile), self.holds(high, profile)
        margin = self.margin_for(profile)
        if isinstance(margin, tuple) and not any(ends):
            return False if high < margin[0] or low > margin[1] else None
        return ends[0] if ends[0] == ends[1] else None


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, with the checks that decide it."""

    id: str
    paper: Paper
    title: str
    statement: str
    where: str
    reported: dict[str, Any] | None
    notebook: str | None
    status: str
    checks: tuple[Check, ...]
    exploratory: bool = False
    headline: str | None = None

    def _repr_html_(self) -> str:
        reported = self.reported or {}
        rows = {
            "Claim": f"<strong>{self.id}. {html.escape(self.title)}</strong>",
            "Paper": f"{html.escape(self.paper.authors)} ({self.paper.year}), "
            f"<em>{html.escape(self.paper.title)}</em>, arXiv {self.paper.arxiv}",
            "Statement": html.escape(self.statement),
            "Where": html.escape(self.where),
            "Reported": html.escape(reported.get("text", "no number that can be verified")),
        }
        cells = "".join(f'<tr><th scope="row">{k}</th><td>{v}</td></tr>' for k, v in rows.items())
        return f'<table class="claim-box"><tbody>{cells}</tbody></table>'


@dataclass(frozen=True)
class Registry:
    """All papers and claims, in the order of the file.

    Attributes:
        papers: the papers by key.
        claims: the claims.
        lineages: for each profile itself, the one it extends, the one that this extends, ...
    """

    papers: dict[str, Paper]
    claims: tuple[Claim, ...]
    lineages: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __getitem__(self, claim_id: str) -> Claim:
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        allowed = ", ".join(claim.id for claim in self.claims)
        raise KeyError(f"claim {claim_id!r} is unknown; allowed: {allowed}")


@cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema `registry` or `result`."""
    return yaml.safe_load((resources.files("ntklib") / "schemas" / f"{name}.yml").read_text())


def _validate(content: Any, schema_name: str, where: str) -> None:
    validator = jsonschema.Draft202012Validator(schema(schema_name))
    error = jsonschema.exceptions.best_match(validator.iter_errors(content))
    if error is None:
        return
    path = error.json_path.removeprefix("$.")
    match list(error.absolute_path):
        case ["claims", int(number), *_] if "id" in content["claims"][number]:
            entry = f"claims[{number}]"
            path = path.replace(entry, f"claim {content['claims'][number]['id']}", 1)
    title = error.schema.get("title") if isinstance(error.schema, dict) else None
    reason = f"{error.instance!r} is not allowed; it is {title}" if title else error.message
    raise RegistryError(f"{where}: {path}: {' '.join(reason.split())}")


def _of_the_book(path: str) -> Path:
    """A file or folder of a checkout; its copy inside the package elsewhere."""
    packaged = Path(str(resources.files("ntklib"))) / Path(path).name
    return packaged if packaged.exists() else Path(__file__).parents[1] / path


def _lineages(folder: Path) -> dict[str, list[str]]:
    """The profiles of a folder, each with those that it extends."""
    extends = {}
    for path in sorted(folder.glob("*.yml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise RegistryError(f"profiles/{path.name}: cannot be read: {reason}") from error
        extends[path.stem] = content.get("extends") if isinstance(content, dict) else None
    lineages = {}
    for profile in extends:
        lineages[profile] = lineage = [profile]
        while (base := extends[lineage[-1]]) is not None:
            others = [name for name in extends if name not in lineage]
            if base not in others:
                raise RegistryError(
                    f"profiles/{lineage[-1]}.yml: extends {base!r}; allowed: {', '.join(others)}"
                )
            lineage.append(base)
    return lineages


def load(path: str | Path | None = None, profiles: str | Path | None = None) -> Registry:
    """Reads and validates the registry of claims.

    Args:
        path: a registry; by default the book's own, `book/claims.yml`.
        profiles: a folder of profiles; by default the book's own, `profiles/`.

    Returns:
        The registry.

    Raises:
        RegistryError: one line that names the file, the entry and what is allowed.
    """
    path = _of_the_book("book/claims.yml") if path is None else Path(path)
    lineages = _lineages(_of_the_book("profiles") if profiles is None else Path(profiles))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RegistryError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    _validate(content, "registry", str(path))
    papers = {key: Paper(key, **entry) for key, entry in content["papers"].items()}
    claims: list[Claim] = []
    for entry in content["claims"]:
        where = f"{path}: claim {entry['id']}"
        if any(claim.id == entry["id"] for claim in claims):
            raise RegistryError(f"{where}: the id is used twice")
        if entry["paper"] not in papers:
            raise RegistryError(
                f"{where}: paper {entry['paper']!r} is unknown; allowed: {', '.join(papers)}"
            )
        if entry["status"] == "available" and not entry["notebook"]:
            raise RegistryError(f"{where}: is available, so it needs a notebook")
        if bool(entry["checks"]) == entry.get("exploratory", False):
            raise RegistryError(f"{where}: has checks, or is exploratory, and not both")
        names = [check["name"] for check in entry["checks"]]
        if len(set(names)) < len(names):
            raise RegistryError(f"{where}: two checks have the same name")
        if entry.get("headline") not in [None, *names]:
            raise RegistryError(f"{where}: headline names no check; allowed: {', '.join(names)}")
        checks = tuple(
            _check(check, f"{where}, check {check['name']}", lineages) for check in entry["checks"]
        )
        headline = entry.get("headline", names[0] if names else None)
        made = {"paper": papers[entry["paper"]], "checks": checks, "headline": headline}
        claims.append(Claim(**entry | made))
    return Registry(papers, tuple(claims), lineages)


def _check(entry: dict[str, Any], where: str, lineages: Mapping[str, Sequence[str]]) -> Check:
    def margin(value: Any) -> Margin:
        pair = isinstance(value, list)
        if pair != (entry["predicate"] == "between") or (pair and not value[0] < value[1]):
            raise RegistryError(
                f"{where}: margin {value} does not fit the predicate {entry['predicate']!r}; "
                "'between' takes [low, high], the others one number"
            )
        return (float(value[0]), float(value[1])) if pair else float(value)

    stated = entry["margin"]
    per_profile = isinstance(stated, dict)
    if per_profile and (unknown := sorted(set(stated) - set(lineages))):
        raise RegistryError(
            f"{where}: margin for profile {unknown[0]!r}, which is unknown; "
            f"allowed: {', '.join(lineages)}"
        )
    margins = {k: margin(v) for k, v in stated.items()} if per_profile else margin(stated)
    return Check(**entry | {"margin": margins, "lineages": lineages})


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

    def as_dict(self) -> dict[str, Any]:
        """The estimate as plain data, numbers that are not finite as null."""
        return {
            "value": _number(self.value),
            "interval": [_number(self.low), _number(self.high)],
            "per_seed": [_number(v) for v in self.per_seed],
        }


def _number(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def estimate(
    *samples: Any,
    statistic: Callable[..., Any] = lambda mean: mean,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
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
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

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
    rng = np.random.default_rng(seed)
    drawn = rng.integers(n_seeds, size=(resamples, n_seeds))
    points = rng.integers(n, size=(resamples, n_seeds, n), dtype=np.int32)
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


def verdict(
    passed: Sequence[bool | None], *, n_seeds: int, sound: bool, profile: str = "laptop"
) -> str:
    """The verdict that the checks' outcomes give.

    `reproduced` if all passed, `not reproduced` if all failed, `partly` if some passed and some
    failed, else `inconclusive`. Fewer than three seeds, an attack that is not sound, no checks,
    or the profile `smoke` give `inconclusive`.
    """
    if n_seeds < MINIMUM_SEEDS or not sound or not passed or profile == "smoke":
        return "inconclusive"
    if all(p is True for p in passed):
        return "reproduced"
    if all(p is False for p in passed):
        return "not reproduced"
    return "partly" if True in passed and False in passed else "inconclusive"


@dataclass(frozen=True)
class Outcome:
    """What a notebook found about a claim. Shown as a table; carries its own data."""

    claim: Claim
    profile: str
    seeds: tuple[int, ...]
    checks: tuple[tuple[Check, Estimate], ...]
    soundness: tuple[Finding, ...] = ()
    measurements: dict[str, Any] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> list[bool | None]:
        """The outcome of each check: True, False, or None for undecided."""
        return [check.passed(e.low, e.high, self.profile) for check, e in self.checks]

    @property
    def verdict(self) -> str:
        """The verdict on the claim."""
        sound = all(finding.ok for finding in self.soundness)
        seeds = len(set(self.seeds))
        return verdict(self.passed, n_seeds=seeds, sound=sound, profile=self.profile)

    def as_dict(self) -> dict[str, Any]:
        """The part of a result file that the notebook knows (see `schemas/result.yml`)."""
        return {
            "claim": self.claim.id,
            "profile": self.profile,
            "seeds": list(self.seeds),
            "checks": [
                {"name": check.name}
                | e.as_dict()
                | {"predicate": check.describe(self.profile), "passed": passed}
                for (check, e), passed in zip(self.checks, self.passed, strict=True)
            ],
            "verdict": self.verdict,
            "soundness": [finding.as_dict() for finding in self.soundness],
            "measurements": {
                name: m.as_dict() if isinstance(m, Estimate) else m
                for name, m in self.measurements.items()
            },
            "provenance": {
                "device": str(jax.devices()[0].device_kind),
                "python": platform.python_version(),
                "packages": {name: metadata.version(name) for name in PACKAGES},
                "data_sha256": self.data_sha256,
            },
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        words = {True: "✔ holds", False: "✘ fails", None: "? undecided"}
        head = ["Check", "Quantity", "Predicate", "Measured [95 % interval]", "Outcome"]
        rows = [
            [check.name, check.quantity, check.describe(self.profile), f"{e:.3f}", words[passed]]
            for (check, e), passed in zip(self.checks, self.passed, strict=True)
        ]
        rows += [
            ["soundness", f.meaning, f"<= {f.limit:g}", f"{f.value:.3f}", words[f.ok]]
            for f in self.soundness
        ]
        cells = [[f'<th scope="col">{h}</th>' for h in head]]
        cells += [  # names of checks are long words, and may break at underscores
            [f"<td>{html.escape(cell)}</td>".replace("_", "_<wbr>") for cell in row] for row in rows
        ]
        table = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
        text = f"{self.claim.id}: {self.verdict} ({len(set(self.seeds))} seeds)"
        return {
            MIME: self.as_dict(),
            "text/html": f"<p>{badge(self.verdict)} {len(set(self.seeds))} seeds, profile "
            f'{self.profile}</p><table class="checks">{table}</table>',
            "text/plain": "\n".join([text, *("  ".join(row) for row in rows)]),
        }


def badge(verdict: str) -> str:
    """A verdict as HTML, text and icon."""
    css = verdict.replace(" ", "-")
    return (
        f'<span class="verdict verdict-{css}">'
        f'<span aria-hidden="true">{ICONS.get(verdict, "○")}</span> {verdict}</span>'
    )


def judge(
    claim: Claim,
    quantities: Mapping[str, Estimate],
    *,
    profile: str,
    seeds: Sequence[int],
    soundness: Sequence[Finding] = (),
    measurements: Mapping[str, Any] | None = None,
    data_sha256: Mapping[str, str] | None = None,
) -> Outcome:
    """Holds measured quantities against the predicates of a claim.

    Args:
        claim: the claim.
        quantities: an estimate for each check that applies to the profile, by its name.
        profile: decides which margins hold.
        seeds: the seeds that were run.
        soundness: findings on the attacks used.
        measurements: further estimates, or plain data for figures, by name.
        data_sha256: hashes of the data files used.

    Returns:
        The outcome, with its verdict.

    Raises:
        ValueError: if `quantities` and the checks do not match.
    """
    checks = [check for check in claim.checks if check.margin_for(profile) is not None]
    names = {check.name for check in checks}
    if names != set(quantities):
        raise ValueError(
            f"quantities: missing {sorted(names - set(quantities))}, and not among the checks of "
            f"claim {claim.id} in profile {profile}: {sorted(set(quantities) - names)}"
        )
    return Outcome(
        claim,
        profile,
        tuple(seeds),
        tuple((check, quantities[check.name]) for check in checks),
        tuple(soundness),
        dict(measurements or {}),
        dict(data_sha256 or {}),
    )


def write_result(path: str | Path, result: dict[str, Any]) -> None:
    """Validates a result and writes it as JSON, atomically: a reader never sees half a file.

    Raises:
        RegistryError: if the result does not follow `schemas/result.yml`; nothing is written.
    """
    path = Path(path)
    _validate(result, "result", str(path))
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_result(path: str | Path) -> dict[str, Any]:
    """Reads and validates a result file.

    Raises:
        RegistryError: if it cannot be read or does not follow `schemas/result.yml`.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RegistryError(f"{path}: cannot be read: {error}") from error
    _validate(result, "result", str(path))
    return result
