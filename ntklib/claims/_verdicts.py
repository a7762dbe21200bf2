"""Verdicts: what the measured quantities say of a claim."""

import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import chain
from typing import Any, Protocol, runtime_checkable

from markupsafe import Markup

from ntklib.claims._files import render
from ntklib.claims._registry import Claim
from ntklib.claims._results import CheckResult, ClaimResult, Soundness, plain

ICONS = {
    "reproduced": "✔",
    "partly": "◐",
    "not reproduced": "✘",
    "inconclusive": "?",
    "exploratory": "◇",
    "one seed": "1",
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


def worst(of_seeds: Iterable[Sequence[Finding]]) -> list[Finding]:
    """For each soundness check, the finding of the seed that is furthest above its limit."""
    by_name: dict[str, list[Finding]] = {}
    for finding in chain.from_iterable(of_seeds):
        by_name.setdefault(finding.name, []).append(finding)
    return [max(found, key=lambda f: (not f.ok, f.value - f.limit)) for found in by_name.values()]


def decide(
    checks: Mapping[str, CheckResult],
    findings: Sequence[Finding] = (),
    *,
    n_seeds: int,
    profile: str = "laptop",
) -> tuple[str, str]:
    """The verdict on a claim, and what decided it, in words.

    Nothing that is asked of the experiment may be open: an attack that is not sound or a gate that
    is not passed give `inconclusive`. Then evidence decides: `reproduced` if all of it holds, `not
    reproduced` if all fails, `partly` if some holds and some fails, else `inconclusive`. A claim
    without checks is `exploratory`; a single seed has no interval, and gives `one seed`.
    """
    evidence = {name: c.passed for name, c in checks.items() if c.kind == "evidence"}
    held, failed, undecided = (
        _named([name for name, passed in evidence.items() if passed is outcome])
        for outcome in (True, False, None)
    )
    gates = _named([n for n, c in checks.items() if c.kind == "gate" and c.passed is not True])
    unsound = _named([f.name for f in findings if not f.ok])
    if profile == "smoke":
        return "inconclusive", "the profile smoke shows that the notebook runs, and no more"
    if not checks:
        return "exploratory", "the claim has no predicate; what is measured is shown"
    if n_seeds == 1:
        return "one seed", "one seed has no interval"
    if n_seeds < MINIMUM_SEEDS:
        return "inconclusive", f"{n_seeds} seeds, where a verdict needs {MINIMUM_SEEDS}"
    if unsound:
        return "inconclusive", f"the attack is not sound: {unsound}"
    if gates:
        return "inconclusive", f"gate not passed: {gates}"
    if held and failed:
        return "partly", f"evidence holds: {held}; fails: {failed}"
    if undecided or not evidence:
        return "inconclusive", f"undecided: {undecided or 'no evidence is asked for here'}"
    return ("reproduced", f"holds: {held}") if held else ("not reproduced", f"fails: {failed}")


def _named(names: Sequence[str]) -> str:
    return ", ".join(names)


def badge(verdict: str) -> Markup:
    """A verdict as HTML, text and icon."""
    return render("badge.html", verdict=verdict, icon=ICONS[verdict])


@dataclass(frozen=True)
class Outcome(ClaimResult):
    """What a notebook found about a claim. Shown as a table; carries its own data."""

    claim: Claim
    profile: str
    seeds: tuple[int, ...]
    soundness: tuple[Soundness, ...]
    measurements: Mapping[str, Any]
    data_sha256: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The part of a result file that the notebook knows (see `schemas/result.yml`)."""
        return super().as_dict() | {
            "claim": self.claim.id,
            "profile": self.profile,
            "seeds": list(self.seeds),
            "soundness": [asdict(finding) for finding in self.soundness],
            "measurements": plain(self.measurements),
            "provenance": {
                "device": _device(),
                "python": platform.python_version(),
                "packages": _packages(),
                "data_sha256": dict(self.data_sha256),
            },
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        quantities = {check.name: check.quantity for check in self.claim.checks}
        rows = [
            (name, check.kind, quantities[name], check.predicate, f"{check:.3f}", check.outcome)
            for name, check in self.checks.items()
        ]
        sound = [
            (f.name, "gate", f.meaning, f"<= {f.limit:g}", f"{f.value:.3f}", f.outcome)
            for f in self.soundness
        ]
        cells, of_attacks = (
            [(*row, f"{ICONS[outcome]} {outcome}") for *row, outcome in some]
            for some in (rows, sound)
        )
        seeds = f"{len(set(self.seeds))} seeds"
        shown: dict[str, Any] = {
            "badge": badge(self.verdict),
            "seeds": seeds,
            "profile": self.profile,
        }
        shown |= {"reason": self.reason, "claim": self.claim.id, "sound": of_attacks}
        shown["all_sound"] = all(f.ok for f in self.soundness)
        text = f"{self.claim.id}: {self.verdict} ({seeds}): {self.reason}"
        return {
            MIME: self.as_dict(),
            "text/html": render("outcome.html", **shown, rows=cells),
            "text/plain": "\n".join([text, *("  ".join(row) for row in cells + of_attacks)]),
        }


def _device() -> str:
    """The kind of device; JAX is asked only where the notebook uses it."""
    return str(sys.modules["jax"].devices()[0].device_kind) if "jax" in sys.modules else "cpu"


def _packages() -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
