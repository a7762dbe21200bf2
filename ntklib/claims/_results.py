"""Results: what a run of a notebook has found, as a file keeps it."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ntklib.claims._estimates import Estimate
from ntklib.claims._files import RegistryError, validate

_OUTCOMES = {True: "holds", False: "fails", None: "undecided"}


@dataclass(frozen=True)
class CheckResult(Estimate):
    """What was measured for a check, of which kind it is, its predicate, and whether it holds."""

    kind: str
    predicate: str
    passed: bool | None

    def __str__(self) -> str:
        return f"{self:.2f} ({self.predicate}: {self.outcome})"

    @property
    def outcome(self) -> str:
        """One of `holds`, `fails` and `undecided`."""
        return _OUTCOMES[self.passed]

    def as_dict(self) -> dict[str, Any]:
        """The result as plain data."""
        told = {"kind": self.kind, "predicate": self.predicate, "passed": self.passed}
        return super().as_dict() | told


@dataclass(frozen=True)
class ClaimResult:
    """The verdict on a claim, what decided it in words, and its checks by name."""

    checks: dict[str, CheckResult]
    verdict: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The result as plain data."""
        checks = [{"name": name} | check.as_dict() for name, check in self.checks.items()]
        return {"checks": checks, "verdict": self.verdict, "reason": self.reason}


@dataclass(frozen=True)
class Soundness:
    """One soundness check of an attack: `value` was compared with `limit`."""

    name: str
    value: float
    limit: float
    ok: bool
    meaning: str

    @property
    def outcome(self) -> str:
        """One of `holds` and `fails`."""
        return _OUTCOMES[self.ok]


@dataclass(frozen=True)
class Provenance:
    """How a result was made: by which program, when, where, with which packages and data."""

    commit: str | None
    dirty: bool
    started: str
    seconds: float
    key: str
    device: str
    python: str
    packages: dict[str, str]
    data_sha256: dict[str, str]


@dataclass(frozen=True)
class Result:
    """What a run of a notebook has found.

    Attributes:
        notebook: its name.
        profile: the profile it was run with.
        seeds: the seeds.
        parameters: all parameters.
        claims: what it says of each claim, by id.
        soundness: findings on the attacks used.
        measurements: estimates, and plain data for figures, by name.
        provenance: how it was made.
    """

    notebook: str
    profile: str
    seeds: list[int]
    parameters: dict[str, Any]
    claims: dict[str, ClaimResult]
    soundness: list[Soundness]
    measurements: dict[str, Any]
    provenance: Provenance

    def as_dict(self) -> dict[str, Any]:
        """The content of a result file (see `schemas/result.yml`)."""
        return vars(self) | {
            "schema": 3,
            "claims": [{"claim": name} | found.as_dict() for name, found in self.claims.items()],
            "soundness": [asdict(finding) for finding in self.soundness],
            "measurements": plain(self.measurements),
            "provenance": asdict(self.provenance),
        }

    @classmethod
    def from_dict(cls, content: Any, where: str = "result") -> "Result":
        """The result of a file with this content.

        Raises:
            RegistryError: one line that names `where` and what is allowed.
        """
        validate(content, "result", where)

        def check(entry: dict[str, Any]) -> CheckResult:
            numbers = vars(Estimate.from_dict(entry))
            told = {name: entry[name] for name in ("kind", "predicate", "passed")}
            return CheckResult(**numbers, **told)

        made = {
            "claims": {
                entry["claim"]: ClaimResult(
                    {c["name"]: check(c) for c in entry["checks"]},
                    entry["verdict"],
                    entry["reason"],
                )
                for entry in content["claims"]
            },
            "soundness": [Soundness(**finding) for finding in content["soundness"]],
            "measurements": _estimated(content["measurements"]),
            "provenance": Provenance(**content["provenance"]),
        }
        return cls(**{name: entry for name, entry in content.items() if name != "schema"} | made)


def plain(measured: Any) -> Any:
    """Measurements as plain data, estimates at any depth included."""
    if isinstance(measured, Estimate):
        return measured.as_dict()
    if isinstance(measured, Mapping):
        return {name: plain(entry) for name, entry in measured.items()}
    return measured


def _estimated(measured: Any) -> Any:
    """What `plain` was given, as far as estimates go."""
    if not isinstance(measured, dict):
        return measured
    if measured.keys() == {"value", "interval", "per_seed"}:
        return Estimate.from_dict(measured)
    return {name: _estimated(entry) for name, entry in measured.items()}


def write_result(path: str | Path, result: Result) -> None:
    """Validates a result and writes it as JSON, atomically: a reader never sees half a file.

    Raises:
        RegistryError: if the result does not follow `schemas/result.yml`; nothing is written.
    """
    path = Path(path)
    content = result.as_dict()
    validate(content, "result", str(path))
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_result(path: str | Path) -> Result:
    """Reads and validates a result file.

    Raises:
        RegistryError: if it cannot be read or does not follow `schemas/result.yml`.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RegistryError(f"{path}: cannot be read: {error}") from error
    return Result.from_dict(content, str(path))
