"""Claims as data: the registry, estimates with intervals, verdicts, and result files.

A notebook makes a `Page`, holds what it has measured against its claims with `Page.judge`, and
takes what it says of recorded results from `Page.record`. Nothing here needs JAX.
"""

from ntklib.claims._estimates import Estimate, difference, estimate, estimates, ratio
from ntklib.claims._files import RegistryError
from ntklib.claims._findings import export, finding, headline
from ntklib.claims._page import Page
from ntklib.claims._registry import Check, Claim, Margin, Paper, Registry, Reported, Words, load
from ntklib.claims._results import (
    CheckResult,
    ClaimResult,
    Provenance,
    Result,
    Soundness,
    read_result,
    write_result,
)
from ntklib.claims._verdicts import (
    ICONS,
    MIME,
    MINIMUM_SEEDS,
    Finding,
    Outcome,
    badge,
    decide,
    worst,
)

__all__ = [
    "ICONS",
    "MIME",
    "MINIMUM_SEEDS",
    "Check",
    "CheckResult",
    "Claim",
    "ClaimResult",
    "Estimate",
    "Finding",
    "Margin",
    "Outcome",
    "Page",
    "Paper",
    "Provenance",
    "Registry",
    "RegistryError",
    "Reported",
    "Result",
    "Soundness",
    "Words",
    "badge",
    "decide",
    "difference",
    "estimate",
    "estimates",
    "export",
    "finding",
    "headline",
    "load",
    "ratio",
    "read_result",
    "worst",
    "write_result",
]
