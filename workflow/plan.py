"""What is to be run: notebooks, profiles, parameters, and the key that says when it is stale.

What is malformed, unknown or out of range is refused with a `UsageError`.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from ntklib import claims
from workflow import machine
from workflow.errors import UsageError
from workflow.imports import closure
from workflow.notebook import Notebook
from workflow.parameters import allowed, number

# Where an executed notebook and its result go, below the root, and where those of a sweep's point.
EXECUTED = "build/executed/{profile}/{notebook}.ipynb"
RESULT = "build/results/{notebook}/{profile}.json"
SWEEP = "build/sweeps/{notebook}/{profile}"
POINT_EXECUTED = f"{SWEEP}/{{point}}.ipynb"
POINT_RESULT = f"{SWEEP}/{{point}}.json"


def places(notebook: str, profile: str, point: str = "") -> tuple[str, str]:
    """Where an executed notebook and its result go, below the root; `point` is one of a sweep."""
    made = (POINT_EXECUTED, POINT_RESULT) if point else (EXECUTED, RESULT)
    executed, result = (f.format(notebook=notebook, profile=profile, point=point) for f in made)
    return executed, result


@dataclass(frozen=True, eq=False)
class Project:
    """A folder with a registry of claims, notebooks, profiles and the library.

    Each file is read when it is first asked for, and not again.
    """

    root: Path = Path(__file__).parents[1]

    @cached_property
    def registry(self) -> claims.Registry:
        """The registry of claims, `book/claims.yml`."""
        try:
            return claims.load(self.root / "book" / "claims.yml", self.root / "profiles")
        except claims.RegistryError as error:
            raise UsageError(str(error)) from None

    @cached_property
    def notebooks(self) -> dict[str, Notebook]:
        """All notebooks by name, in order."""
        paths = (self.root / "notebooks").glob("[0-9][0-9]_*.py")
        return {path.stem: Notebook(path) for path in sorted(paths)}

    @cached_property
    def profiles(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What each profile sets for each of its notebooks: the files `profiles/*.yml`.

        What the entry of a notebook does not say is as in the profile that the file `extends`.
        """
        stated = {
            path.stem: self._stated(path) for path in sorted((self.root / "profiles").glob("*.yml"))
        }

        def of(profile: str, notebook: str) -> dict[str, Any]:
            chosen: dict[str, Any] = {}
            for each in reversed(self.registry.lineages[profile]):
                chosen |= stated[each].get(notebook, {})
            return chosen

        return {profile: {nb: of(profile, nb) for nb in stated[profile]} for profile in stated}

    def _stated(self, path: Path) -> dict[str, dict[str, Any]]:
        """What the file of a profile says itself."""
        where = f"profiles/{path.name}"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"{where}: cannot be read: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict) or set(content) - {"extends"} != {"notebooks"}:
            raise UsageError(
                f"{where}: is not a mapping with the entry 'notebooks' and, if need be, 'extends'"
            )
        entries = {} if content["notebooks"] is None else content["notebooks"]
        if not isinstance(entries, dict):
            raise UsageError(f"{where}: 'notebooks' is not a mapping of notebooks to parameters")
        for name, entry in entries.items():
            if name not in self.notebooks:
                raise UsageError(
                    f"{where}: notebook {name!r} is unknown; allowed: {', '.join(self.notebooks)}"
                )
            if not isinstance(entry, dict | None):
                raise UsageError(f"{where}: the entry of {name} is not a mapping of parameters")
        return {
            name: {parameter: number(value) for parameter, value in (entry or {}).items()}
            for name, entry in entries.items()
        }

    @cached_property
    def _rules(self) -> dict[str, Any]:
        """What each parameter may be, unless its notebook says otherwise."""
        text = (self.root / "workflow" / "parameters.yml").read_text(encoding="utf-8")
        return yaml.safe_load(text)

    def published(self) -> list[str]:
        """Names of the notebooks of the book: those of the claims that are available.

        Each has a page in `_toc.yml`; otherwise the front page would link to nothing.
        """
        pages = (self.root / "_toc.yml").read_text(encoding="utf-8").split()
        found = [claim for claim in self.registry.claims if claim.status == "available"]
        for claim in found:
            if f"notebooks/{claim.notebook}" not in pages:
                raise UsageError(
                    f"_toc.yml: notebooks/{claim.notebook} is missing; "
                    f"claim {claim.id} is available"
                )
        return list(dict.fromkeys(str(claim.notebook) for claim in found))

    def named(self, name: str) -> str:
        """The name of the notebook that is asked for; its number may be left out."""
        for notebook in self.notebooks:
            if name in (notebook, notebook[3:]):
                return notebook
        raise UsageError(f"NB: notebook {name!r} is unknown; allowed: {', '.join(self.notebooks)}")

    def claims_of(self, notebook: str) -> list[claims.Claim]:
        """The claims of the registry that name the notebook, in its order: one at least."""
        found = list(self.registry.of(notebook))
        if not found:
            raise UsageError(
                f"{notebook}: no claim of book/claims.yml with status 'available' names it"
            )
        return found

    def of_profile(self, profile: str) -> list[str]:
        """The notebooks of the book for which a profile has an entry.

        Raises:
            UsageError: if there is no such profile.
        """
        self._known(profile)
        return [name for name in self.published() if name in self.profiles[profile]]

    def _known(self, profile: str) -> None:
        if profile not in self.profiles:
            raise UsageError(
                f"PROFILE: {profile!r} is unknown; allowed: {', '.join(self.profiles)}"
            )

    def profiles_of(self, notebook: str) -> list[str]:
        """The profiles that have an entry for a notebook."""
        return [profile for profile, entries in self.profiles.items() if notebook in entries]

    def parameters(
        self, notebook: str, profile: str, overrides: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """All parameters of a run: the notebook's defaults, then the profile's, then overrides."""
        if notebook not in self.notebooks:
            raise UsageError(f"{notebook}: notebooks/{notebook}.py does not exist")
        self._known(profile)
        if notebook not in self.profiles[profile]:
            raise UsageError(f"PROFILE: profiles/{profile}.yml has no entry for {notebook}")
        chosen = self.profiles[profile][notebook] | (overrides or {})
        if "profile" in chosen:
            raise UsageError("profile is chosen with PROFILE=, not in SET, in GRID or in a profile")
        values = self.notebooks[notebook].defaults | chosen | {"profile": profile}
        self.check(notebook, values)
        return values

    def check(self, notebook: str, values: dict[str, Any]) -> None:
        """Checks parameters against the notebook and `workflow/parameters.yml`."""
        known = self.notebooks[notebook].defaults
        all_rules = self._rules | self.notebooks[notebook].bounds
        for name, value in values.items():
            if name not in known:
                raise UsageError(
                    f"{notebook}: parameter {name!r} is unknown; allowed: {', '.join(known)}"
                )
            if name not in all_rules:
                raise UsageError(
                    f"{notebook}: parameter {name!r} is missing in workflow/parameters.yml, and "
                    "has no bounds at its cell"
                )
            rules = all_rules[name]
            if not allowed(value, rules):
                shown = json.dumps(value, default=str)  # YAML has dates, which JSON has not
                shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
                raise UsageError(
                    f"{notebook}: {name} = {shown} is not allowed; it is {rules['title']}"
                )

    @cache  # noqa: B019 (a project lives as long as its process)
    def code(self, *names: str) -> str:
        """SHA-256 of the code that a computation runs besides its own.

        This is all of the project that modules such as `ntklib.phases` import, the lock of what
        notebooks need, the backend of JAX, and the settings that change its numbers.
        """
        try:
            files = sorted(closure(self.root, names))
        except SyntaxError as error:
            where = os.path.relpath(str(error.filename), self.root)
            raise UsageError(f"{where}, line {error.lineno}: {error.msg}") from None
        lock = self.root / "notebooks.lock"
        return self.digest(*files, lock, machine.backend(), machine.settings())

    def key(self, notebook: str, values: dict[str, Any]) -> str:
        """SHA-256 of all that a result depends on.

        These are the notebook, its parameters, its claims with the predicates, the records that it
        shows, and the code that it imports (see `code`). Two results with one key are results of
        one program.
        """
        source = self.notebooks[notebook]
        files = sorted((self.root / "records" / notebook).rglob("*.*"))
        other = [path for path in files if path.stem != values["profile"]]
        records = [path for path in other if source.shows_record(path.stem)]
        return self.digest(
            source.path,
            json.dumps(values, sort_keys=True),
            self.claims_of(notebook),
            self.registry.lineages[values["profile"]],
            *records,
            self.code(*source.imports),
        )

    def digest(self, *parts: Any) -> str:
        """SHA-256 of files, with their places in the project, and of values."""
        digest = hashlib.sha256()
        for part in parts:
            if isinstance(part, Path):
                part = f"{part.relative_to(self.root)}\0".encode() + part.read_bytes()
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
            digest.update(b"\0")
        return digest.hexdigest()
