"""A page: what its notebook needs of the claims, said once."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ntklib.claims._estimates import Estimate
from ntklib.claims._files import located
from ntklib.claims._registry import Claim, load
from ntklib.claims._results import CheckResult, Result, Soundness, read_result
from ntklib.claims._verdicts import Finding, Outcome, decide


@dataclass
class Page:
    """A page of the book, as its notebook sees it.

    Attributes:
        notebook: its name, such as `01_ntk_transfer`.
        profile: decides which margins hold.
        seeds: the seeds that are run.
        provenance: of the data, see `ntklib.data.Dataset`.
        soundness: findings on the attacks that every claim of the page rests on, unless `judge` is
            given others. To be set before the first verdict.
    """

    notebook: str
    _: KW_ONLY
    profile: str
    seeds: Sequence[int]
    provenance: Mapping[str, Any]
    soundness: Sequence[Finding] = ()

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """The claims of the page, by id.

        Raises:
            ValueError: if the registry has none for the notebook.
        """
        registry = load()
        if not (own := registry.of(self.notebook)):
            known = sorted({c.notebook for c in registry.claims if c.notebook})
            raise ValueError(
                f"notebook: {self.notebook!r} has no claims; allowed: {', '.join(known)}"
            )
        return {claim.id: claim for claim in own}

    @property
    def store(self) -> Path | None:
        """The folder of stored trainings, which the runner names in NTKLIB_STORE."""
        folder = os.environ.get("NTKLIB_STORE")
        return Path(folder) if folder else None

    def record(self, profile: str) -> Result | None:
        """What was recorded of this notebook in a profile; None if there is no record.

        Raises:
            RegistryError: if the record cannot be read or does not follow its schema.
        """
        path = located("records") / self.notebook / f"{profile}.json"
        return read_result(path) if path.exists() else None

    def records(self, describe: Callable[[Result], str], *profiles: str) -> str:
        """What was recorded of this notebook in some profiles, as a list in Markdown.

        Args:
            describe: says what a record says.
            *profiles: the profiles; where there is no record, the list says so.

        Raises:
            RegistryError: see `record`.
        """
        found = {profile: self.record(profile) for profile in profiles}
        return "\n".join(
            f"- `{profile}`: {describe(record) if record else 'there is no record.'}"
            for profile, record in found.items()
        )

    def judge(
        self,
        claim: str,
        quantities: Mapping[str, Estimate],
        *,
        soundness: Sequence[Finding] | None = None,
        measurements: Mapping[str, Any] | None = None,
    ) -> Outcome:
        """Holds measured quantities against the predicates of a claim of the page.

        Args:
            claim: its id.
            quantities: an estimate for each check that applies to the profile, by its name.
            soundness: findings on the attacks that the claim rests on, if not those of the page.
            measurements: further estimates, or plain data for figures, by name.

        Returns:
            The outcome, with its verdict.

        Raises:
            ValueError: if the page has no such claim, or `quantities` and the checks do not match.
        """
        if claim not in self.claims:
            raise ValueError(f"claim: {claim!r} is unknown; allowed: {', '.join(self.claims)}")
        asked = [c for c in self.claims[claim].checks if c.margin_for(self.profile) is not None]
        checks = {check.name: check for check in asked}
        if checks.keys() != quantities.keys():
            raise ValueError(
                f"quantities: {', '.join(quantities) or 'none'}; claim {claim} in profile "
                f"{self.profile} has the checks {', '.join(checks) or 'none'}"
            )
        found = {}
        for name, check in checks.items():
            e = quantities[name]
            passed = check.passed(e.low, e.high, self.profile)
            found[name] = CheckResult(
                **vars(e), kind=check.kind, predicate=check.describe(self.profile), passed=passed
            )
        findings = self.soundness if soundness is None else soundness
        decided = decide(found, findings, n_seeds=len(set(self.seeds)), profile=self.profile)
        return Outcome(
            found,
            *decided,
            self.claims[claim],
            self.profile,
            tuple(self.seeds),
            tuple(Soundness(f.name, f.value, f.limit, f.ok, f.meaning) for f in findings),
            measurements or {},
            self.provenance["sha256"],
        )
