"""What a result says of a claim in words, and all claims as data for other programs."""

from collections.abc import Mapping
from string import Formatter
from typing import Any

from ntklib.claims._files import validate
from ntklib.claims._registry import Claim, Registry
from ntklib.claims._results import CheckResult, ClaimResult, Result


class _Short(Formatter):
    """Numbers with two digits after the point, unless a text says otherwise."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return format(value, format_spec or ".2f").replace("-", "\N{MINUS SIGN}")


def headline(claim: Claim, result: Result) -> CheckResult | None:
    """The check that stands for a claim; None where the result has not judged it."""
    found = result.claims.get(claim.id)
    return found.checks.get(claim.headline or "") if found else None


def finding(claim: Claim, result: Result) -> str:
    """What a result says of a claim, in words that its outcome chooses.

    The headline has a sentence for each outcome, and a check that fails besides may have one; a
    claim without such words has its title and the verdict. If that is none, the reason follows.
    """
    found, check = result.claims.get(claim.id), headline(claim, result)
    if found is None:
        return "Not judged in this run."
    if claim.exploratory:
        return "Measured, and not judged: the claim has no predicate."
    if claim.finding is None:
        return f"{claim.title}: {found.verdict}. {_why(found)}".strip()
    said = []
    if check and check.passed is not None:
        said.append(claim.finding.holds if check.passed else claim.finding.fails)
        other = {n: c for n, c in found.checks.items() if n != claim.headline}
        said += [t for n, t in claim.finding.but.items() if n in other and other[n].passed is False]
    values = {name: c.value for name, c in found.checks.items()}
    known = [t for t in said if all(n in values for _, n, _, _ in Formatter().parse(t) if n)]
    text = " ".join(_Short().vformat(t, (), values) for t in known)
    return f"{text} {_why(found)}".strip()


def _why(found: ClaimResult) -> str:
    """Why there is no verdict; nothing where there is one."""
    if found.verdict in ("reproduced", "partly", "not reproduced"):
        return ""
    return f"No verdict: {found.reason.replace('_', ' ')}."


def export(registry: Registry, found: Mapping[str, Mapping[str, Result]], live: str) -> Any:
    """All claims and what was found of them, as data that follow `schemas/book.yml`.

    Args:
        registry: the claims.
        found: results by notebook and profile.
        live: the profile whose results are of this build; the others are records.

    Raises:
        RegistryError: if the data do not follow the schema.
    """

    def of_result(claim: Claim, result: Result) -> dict[str, Any]:
        record = f"records/{result.notebook}/{result.profile}.json"
        made = result.provenance
        return result.claims[claim.id].as_dict() | {
            "profile": result.profile,
            "seeds": result.seeds,
            "finding": finding(claim, result),
            "headline": claim.headline,
            "record": None if result.profile == live else record,
            "key": made.key,
            "commit": made.commit,
            "started": made.started,
            "seconds": made.seconds,
        }

    def of_claim(claim: Claim) -> dict[str, Any]:
        results = found.get(claim.notebook or "", {}).values()
        return {
            "id": claim.id,
            "paper": claim.paper.key,
            "title": claim.title,
            "statement": claim.statement,
            "status": claim.status,
            "page": f"notebooks/{claim.notebook}.html#{claim.id}" if results else None,
            "unit": claim.finding.unit if claim.finding else None,
            "reported": claim.reported and vars(claim.reported),
            "results": [of_result(claim, r) for r in results if claim.id in r.claims],
        }

    papers = {
        key: {name: value for name, value in vars(paper).items() if name != "key"}
        for key, paper in registry.papers.items()
    }
    content = {"schema": 1, "papers": papers, "claims": [of_claim(c) for c in registry.claims]}
    validate(content, "book", "claims.json")
    return content
