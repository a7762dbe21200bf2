"""Verdicts: what the measured quantities say of a claim."""

import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Protocol, runtime_checkable

from markupsafe import Markup

from ntklib.claims._files import render
from ntklib.claims._registry import Claim
from ntklib.claims._results import ClaimResult, Soundness, plain

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
            (name, quantities[name], check.predicate, f"{check:.3f}", check.outcome)
            for name, check in self.checks.items()
        ] + [
            ("soundness", f.meaning, f"<= {f.limit:g}", f"{f.value:.3f}", f.outcome)
            for f in self.soundness
        ]
        cells = [(*row, f"{ICONS[outcome]} {outcome}") for *row, outcome in rows]
        seeds = f"{len(set(self.seeds))} seeds"
        shown = {"badge": badge(self.verdict), "seeds": seeds, "profile": self.profile}
        text = f"{self.claim.id}: {self.verdict} ({seeds})"
        return {
            MIME: self.as_dict(),
            "text/html": render("outcome.html", **shown, rows=cells),
            "text/plain": "\n".join([text, *("  ".join(row) for row in cells)]),
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
