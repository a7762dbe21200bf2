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
class CheckResult:
    """What was measured for one check, and whether it holds.

    Attributes:
        estimate: of the quantity.
        predicate: as text, such as `>= 0.25`.
        passed: whether it holds; None for undecided.
    """

    estimate: Estimate
    predicate: str
    passed: bool | None

    def __str__(self) -> str:
        return f"{self.estimate} ({self.predicate}: {self.outcome})"

    @property
    def outcome(self) -> str:
        """One of `holds`, `fails` and `undecided`."""
        return _OUTCOMES[self.passed]


@dataclass(frozen=True)
class ClaimResult:
    """The checks of a claim, by name, and its verdict."""

    checks: dict[str, CheckResult]
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """The checks and the verdict as plain data."""
        checks = [
            {"name": name}
            | check.estimate.as_dict()
            | {"predicate": check.predicate, "passed": check.passed}
            for name, check in self.checks.items()
        ]
        return {"checks": checks, "verdict": self.verdict}

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> "ClaimResult":
        """The result that `as_dict` has written."""
        checks = {
            c["name"]: CheckResult(Estimate.from_dict(c), c["predicate"], c["passed"])
            for c in entry["checks"]
        }
        return cls(checks, entry["verdict"])


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
    seeds: tuple[int, ...]
    parameters: dict[str, Any]
    claims: dict[str, ClaimResult]
    soundness: tuple[Soundness, ...]
    measurements: dict[str, Any]
    provenance: Provenance

    def as_dict(self) -> dict[str, Any]:
        """The content of a result file (see `schemas/result.yml`)."""
        return {
            "schema": 2,
            "notebook": self.notebook,
            "profile": self.profile,
            "seeds": list(self.seeds),
            "parameters": self.parameters,
            "claims": [{"claim": name} | found.as_dict() for name, found in self.claims.items()],
            "soundness": [asdict(finding) for finding in self.soundness],
            "measurements": plain(self.measurements),
            "provenance": asdict(self.provenance),
        }

    @classmethod
    def from_dict(cls, content: Any, where: str = "result") -> "Result":
        """The result that `as_dict` has written.

        Raises:
            RegistryError: one line that names `where` and what is allowed.
        """
        validate(content, "result", where)
        parts = {name: entry for name, entry in content.items() if name != "schema"}
        return cls(
            **parts
            | {
                "seeds": tuple(content["seeds"]),
                "claims": {c["claim"]: ClaimResult.from_dict(c) for c in content["claims"]},
                "soundness": tuple(Soundness(**finding) for finding in content["soundness"]),
                "measurements": _estimated(content["measurements"]),
                "provenance": Provenance(**content["provenance"]),
            }
        )


def plain(measured: Any) -> Any:
    """Measurements as plain data, estimates at any depth included."""
    if isinstance(measured, Estimate):
        return measured.as_dict()
    if isinstance(measured, Mapping):
        return {name: plain(entry) for name, entry in measured.items()}
    return measured


def _estimated(measured: Any) -> Any:
    """What `plain` has been given, as far as estimates go."""
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
