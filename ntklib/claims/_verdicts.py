"""Verdicts: what the measured quantities say of a claim."""

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Protocol, runtime_checkable

from markupsafe import Markup

from ntklib.claims._estimates import Estimate
from ntklib.claims._html import render
from ntklib.claims._registry import Claim
from ntklib.claims._results import CheckResult, ClaimResult, Soundness, plain

ICONS = {
    "reproduced": "✔",
    "partly": "◐",
    "not reproduced": "✘",
    "inconclusive": "?",
    "not run": "○",
    "holds": "✔",
    "fails": "✘",
    "undecided": "?",
}
MINIMUM_SEEDS = 3
MIME = "application/vnd.ntklib.result+json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "neural-tangents", "numpy", "scipy")


@runtime_checkable
class Finding(Protocol):
    """A soundness check of an attack, such as `ntklib.attacks.soundness` makes."""

    @property
    def name(self) -> str:
        """Which check it is."""

    @property
    def value(self) -> float:
        """What was measured."""

    @property
    def limit(self) -> float:
        """The largest value that passes."""

    @property
    def ok(self) -> bool:
        """Whether it passed."""

    @property
    def meaning(self) -> str:
        """What the value is."""


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


def badge(verdict: str) -> Markup:
    """A verdict as HTML, text and icon."""
    return render("badge.html", verdict=verdict, icon=ICONS[verdict])


@dataclass(frozen=True)
class Outcome:
    """What a notebook found about a claim. Shown as a table; carries its own data."""

    claim: Claim
    profile: str
    seeds: tuple[int, ...]
    result: ClaimResult
    soundness: tuple[Soundness, ...] = ()
    measurements: dict[str, Any] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The verdict on the claim."""
        return self.result.verdict

    def as_dict(self) -> dict[str, Any]:
        """The part of a result file that the notebook knows (see `schemas/result.yml`)."""
        return {
            "claim": self.claim.id,
            "profile": self.profile,
            "seeds": list(self.seeds),
            **self.result.as_dict(),
            "soundness": [vars(finding) for finding in self.soundness],
            "measurements": plain(self.measurements),
            "provenance": {
                "device": _device(),
                "python": platform.python_version(),
                "packages": _packages(),
                "data_sha256": self.data_sha256,
            },
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        quantities = {check.name: check.quantity for check in self.claim.checks}
        rows = [
            (name, quantities[name], check.predicate, f"{check.estimate:.3f}", check.outcome)
            for name, check in self.result.checks.items()
        ] + [
            ("soundness", f.meaning, f"<= {f.limit:g}", f"{f.value:.3f}", f.outcome)
            for f in self.soundness
        ]
        cells = [(*row, f"{ICONS[outcome]} {outcome}") for *row, outcome in rows]
        summary = f"{len(set(self.seeds))} seeds"
        text = f"{self.claim.id}: {self.verdict} ({summary})"
        return {
            MIME: self.as_dict(),
            "text/html": render(
                "outcome.html",
                badge=badge(self.verdict),
                summary=f"{summary}, profile {self.profile}",
                rows=cells,
            ),
            "text/plain": "\n".join([text, *("  ".join(row) for row in cells)]),
        }


def _device() -> str:
    """The kind of device; JAX is asked only where the notebook uses it."""
    return str(sys.modules["jax"].devices()[0].device_kind) if "jax" in sys.modules else "cpu"


def _packages() -> dict[str, str]:
    """Versions of those packages that are installed."""
    installed = {name for found in metadata.distributions() if (name := found.name)}
    return {name: metadata.version(name) for name in PACKAGES if name in installed}


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
    results = {}
    for check in checks:
        found = quantities[check.name]
        passed = check.passed(found.low, found.high, profile)
        results[check.name] = CheckResult(found, check.describe(profile), passed)
    findings = tuple(Soundness(f.name, f.value, f.limit, f.ok, f.meaning) for f in soundness)
    decided = verdict(
        [result.passed for result in results.values()],
        n_seeds=len(set(seeds)),
        sound=all(finding.ok for finding in findings),
        profile=profile,
    )
    return Outcome(
        claim,
        profile,
        tuple(seeds),
        ClaimResult(results, decided),
        findings,
        dict(measurements or {}),
        dict(data_sha256 or {}),
    )
