"""When each check of a claim was set, and what became of it, as git tells."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REGISTRY = "book/claims.yml"
TOLD = ("kind", "predicate", "margin", "quantity")
"""What of a check is followed. Before checks had kinds, all were evidence."""


@dataclass(frozen=True)
class Change:
    """One commit that set a check, or changed it.

    Attributes:
        date: of the commit, such as `2026-11-19`.
        commit: its hash.
        subject: the first line of its message.
        was: what was changed, as it was before; empty where the check was set.
        now: the same as it is from then on.
    """

    date: str
    commit: str
    subject: str
    was: dict[str, Any]
    now: dict[str, Any]


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout


def _claims(root: Path, commit: str) -> dict[str, Any]:
    """The claims of the registry in a commit, by id."""
    content = yaml.safe_load(_git(root, "show", f"{commit}:./{REGISTRY}"))
    return {claim["id"]: claim for claim in content["claims"]}


def _registries(root: Path) -> Iterator[tuple[str, str, str, dict[str, Any], dict[str, Any]]]:
    """Date, hash and subject of each commit that changed the registry, its claims before and after.

    Each is compared with the commit that it follows: of branches that were merged, neither is
    before the other.
    """
    form = "--format=%as%x09%h%x09%p%x09%s"
    log = _git(root, "log", "--reverse", "--no-merges", form, "--", REGISTRY)
    for line in log.splitlines():
        date, commit, parent, subject = line.split("\t", 3)
        there = parent and _git(root, "ls-tree", parent, f"./{REGISTRY}")
        yield date, commit, subject, _claims(root, parent) if there else {}, _claims(root, commit)


def _check(claims: dict[str, Any], claim_id: str, name: str) -> dict[str, Any]:
    """What is followed of a check; empty if it is not there.

    A claim that was split has a letter now; its first part goes on with the checks of the whole.
    """
    claim = claims.get(claim_id, claims.get(claim_id.removesuffix("a"), {"checks": []}))
    found: dict[str, Any] = next((c for c in claim["checks"] if c["name"] == name), {})
    return {key: found.get(key, "evidence") for key in TOLD} if found else {}


def history(root: Path) -> dict[tuple[str, str], list[Change]] | None:
    """What became of each check that the newest commit has, by claim and name.

    Returns:
        The changes, the commit that set the check first; None where git does not know them, as
        outside a repository and in a shallow clone.
    """
    try:
        if _git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
            return None
        states = list(_registries(root))
    except (OSError, subprocess.CalledProcessError):
        return None
    newest = _claims(root, "HEAD") if states else {}
    checks = [(name, check["name"]) for name, c in newest.items() for check in c["checks"]]
    return {check: list(_changes(states, *check)) for check in checks}


def _changes(states: list[Any], claim_id: str, name: str) -> Iterator[Change]:
    for date, commit, subject, old, new in states:
        before, now = (_check(claims, claim_id, name) for claims in (old, new))
        other = [key for key in now if before.get(key) != now[key]]
        if other:
            was = {key: before[key] for key in other if key in before}
            yield Change(date, commit, subject, was, {key: now[key] for key in other})


def reasons(changelog: str) -> str:
    """The sections of a changelog that tell of predicates, checks and verdicts."""
    sections = re.split(r"^(?=#+ )", changelog, flags=re.MULTILINE)
    told = [s for s in sections if re.match(r"### .*(predicate|check|verdict|size)", s, re.I)]
    return "".join(told).strip()
