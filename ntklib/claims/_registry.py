"""The registry of claims: what each says, what was reported, and the checks that decide it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any

from ntklib.claims._files import RegistryError, located, read_yaml, render, validate

Margin = float | tuple[float, float]
Lineages = Mapping[str, Sequence[str]]
"""For each profile itself, the one it extends, the one that this extends, ..."""


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
class Reported:
    """What a paper, or its official code, reports.

    Attributes:
        value: the number; None where it is a series.
        text: the same in words.
        provenance: where it could be read.
        values: numbers to print beside ours, by the name of a measurement of the notebook.
    """

    value: float | None
    text: str
    provenance: str
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A predicate on one quantity, fixed before the quantity is measured.

    A `gate` says whether the experiment could show the claim at all, `evidence` decides it; `role`
    says why the check is of its kind.
    """

    name: str
    kind: str
    role: str
    quantity: str
    predicate: str
    margin: Margin | dict[str, Margin]
    why: str
    lineages: Lineages = field(default_factory=dict, repr=False, compare=False)

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
class Words:
    """What a result says of a claim, in words; `{name}` stands for the value of a check.

    Attributes:
        unit: what the headline's number is counted in, as it follows the number.
        holds: said where the headline holds.
        fails: said where it fails.
        but: said where another check fails, by its name.
    """

    unit: str
    holds: str
    fails: str
    but: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, with the checks that decide it. Shown as a box."""

    id: str
    paper: Paper
    title: str
    statement: str
    where: str
    reported: Reported | None
    notebook: str | None
    status: str
    checks: tuple[Check, ...]
    exploratory: bool = False
    headline: str | None = None
    finding: Words | None = field(default=None, repr=False)  # no result depends on it

    def _repr_html_(self) -> str:
        return render("claim.html", claim=self)


@dataclass(frozen=True)
class Registry:
    """All papers and claims, in the order of the file.

    Attributes:
        papers: the papers, by key.
        claims: the claims.
        lineages: of the profiles.
        questions: the ids of the claims that answer each question.
        front: the ids of the claims whose findings stand on the front page.
        figure: the notebook whose key figure stands there.
    """

    papers: dict[str, Paper]
    claims: tuple[Claim, ...]
    lineages: Lineages = field(default_factory=dict)
    questions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    front: Sequence[str] = ()
    figure: str | None = None

    def __getitem__(self, claim_id: str) -> Claim:
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        allowed = ", ".join(claim.id for claim in self.claims)
        raise KeyError(f"claim {claim_id!r} is unknown; allowed: {allowed}")

    def of(self, notebook: str) -> tuple[Claim, ...]:
        """The claims that a notebook judges, in the order of the file."""
        wanted = (notebook, "available")
        return tuple(c for c in self.claims if (c.notebook, c.status) == wanted)


def _lineages(folder: Path) -> dict[str, list[str]]:
    """The profiles of a folder, each with those that it extends."""
    extends = {}
    for path in sorted(folder.glob("*.yml")):
        content = read_yaml(path, f"profiles/{path.name}")
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
    path = located("book/claims.yml") if path is None else Path(path)
    lineages = _lineages(located("profiles") if profiles is None else Path(profiles))
    content = read_yaml(path, str(path))
    validate(content, "registry", str(path))
    papers = {key: Paper(key, **entry) for key, entry in content["papers"].items()}
    claims: dict[str, Claim] = {}
    for entry in content["claims"]:
        where = f"{path}: claim {entry['id']}"
        if entry["id"] in claims:
            raise RegistryError(f"{where}: the id is used twice")
        claims[entry["id"]] = _claim(entry, where, papers, lineages)
    questions = content.get("questions") or {"All claims": list(claims)}
    asked = [claim for ids in questions.values() for claim in ids]
    if sorted(asked) != sorted(claims):
        odd = sorted({*asked, *claims} - ({*asked} & {*claims}))
        reason = f"{odd[0]} does not" if odd else "one stands there twice"
        raise RegistryError(f"{path}: questions: each claim stands under one of them; {reason}")
    if unknown := sorted({*content.get("front", [])} - set(claims)):
        raise RegistryError(
            f"{path}: front: {unknown[0]!r} is unknown; allowed: {', '.join(claims)}"
        )
    return Registry(
        papers,
        tuple(claims.values()),
        lineages,
        questions,
        content.get("front", ()),
        content.get("figure"),
    )


def _claim(
    entry: dict[str, Any], where: str, papers: dict[str, Paper], lineages: Lineages
) -> Claim:
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
    if names and all(check["kind"] == "gate" for check in entry["checks"]):
        raise RegistryError(f"{where}: all checks are gates, so nothing can decide it")
    if entry.get("headline") not in [None, *names]:
        raise RegistryError(f"{where}: headline names no check; allowed: {', '.join(names)}")
    made = {
        "paper": papers[entry["paper"]],
        "reported": entry["reported"] and Reported(**entry["reported"]),
        "checks": tuple(
            _check(c, f"{where}, check {c['name']}", lineages) for c in entry["checks"]
        ),
        "headline": entry.get("headline", _first_evidence(entry["checks"])),
    }
    if "finding" in entry:
        made["finding"] = words = Words(**entry["finding"])
        texts = [words.holds, words.fails, *words.but.values()]
        named = {name for text in texts for _, name, _, _ in Formatter().parse(text) if name}
        if unknown := sorted(named.union(words.but) - set(names)):
            raise RegistryError(
                f"{where}: finding names {unknown[0]!r}, which is no check; "
                f"allowed: {', '.join(names)}"
            )
    return Claim(**entry | made)


def _first_evidence(checks: list[dict[str, Any]]) -> str | None:
    return next((check["name"] for check in checks if check["kind"] == "evidence"), None)


def _check(entry: dict[str, Any], where: str, lineages: Lineages) -> Check:
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
