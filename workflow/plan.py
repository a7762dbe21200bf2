"""What is to be run: notebooks, profiles, parameters, and the key that says when it is stale."""

import ast
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import jupytext
import nbformat
import yaml

from ntklib import claims

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
PROFILES = ("smoke", "laptop", "cifar", "cifar8", "paper")
# Where an executed notebook and its result go, below ROOT.
EXECUTED = "build/executed/{profile}/{notebook}.ipynb"
RESULT = "build/results/{notebook}/{profile}.json"


class BuildError(RuntimeError):
    """The build cannot go on. The message says all that is to be said."""

    status = 1


class UsageError(BuildError):
    """What was asked for does not exist or is not allowed. The message is one line."""

    status = 2


@contextmanager
def explained() -> Iterator[None]:
    """Ends the process without a traceback when all is said: a `BuildError`, or Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.status) from None


@cache
def registry() -> claims.Registry:
    """The registry of claims, `book/claims.yml`.

    Raises:
        UsageError: if it does not follow its schema.
    """
    try:
        return claims.load(ROOT / "book" / "claims.yml")
    except claims.RegistryError as error:
        raise UsageError(str(error)) from None


def published() -> list[str]:
    """Names of the notebooks of the book: those of the claims that are available.

    Raises:
        UsageError: if one has no page in `_toc.yml`; the front page would link to nothing.
    """
    pages = (ROOT / "_toc.yml").read_text(encoding="utf-8").split()
    found = [claim for claim in registry().claims if claim.status == "available"]
    for claim in found:
        if f"notebooks/{claim.notebook}" not in pages:
            raise UsageError(
                f"_toc.yml: notebooks/{claim.notebook} is missing; claim {claim.id} is available"
            )
    return list(dict.fromkeys(str(claim.notebook) for claim in found))


def notebooks() -> list[str]:
    """Names of all notebooks, in order, such as `01_ntk_transfer`."""
    return sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.py"))


def read(notebook: str) -> nbformat.NotebookNode:
    """A notebook before execution; its cells have the same ids each time, unlike jupytext's."""
    content = jupytext.read(NOTEBOOKS / f"{notebook}.py")
    for number, cell in enumerate(content.cells):
        cell["id"] = f"cell-{number}"
    return content


def notebook_named(name: str) -> str:
    """The notebook of that name; its number may be left out.

    Raises:
        UsageError: if there is none.
    """
    for notebook in notebooks():
        if name in (notebook, notebook[3:]):
            return notebook
    raise UsageError(f"NB: notebook {name!r} is unknown; allowed: {', '.join(notebooks())}")


def claims_of(notebook: str) -> list[claims.Claim]:
    """The claims of the registry that name the notebook, in its order.

    Raises:
        UsageError: if none does.
    """
    found = [c for c in registry().claims if (c.notebook, c.status) == (notebook, "available")]
    if not found:
        raise UsageError(
            f"{notebook}: no claim of book/claims.yml with status 'available' names it"
        )
    return found


@cache
def defaults(notebook: str) -> dict[str, Any]:
    """Parameters and their defaults, read from the cell tagged `parameters`, which is not run.

    Raises:
        UsageError: if there is no such notebook or cell, or an entry is not of the form
            `name: type = value`.
    """
    if notebook not in notebooks():
        raise UsageError(f"{notebook}: notebooks/{notebook}.py does not exist")
    cells = read(notebook).cells
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise UsageError(f"{notebook}: {len(tagged)} cells are tagged 'parameters', not one")
    try:
        lines = ast.parse(tagged[0]).body
    except SyntaxError as error:
        raise UsageError(f"{notebook}: parameters cell, line {error.lineno}: {error.msg}") from None
    found: dict[str, Any] = {}
    for line in lines:
        where = f"{notebook}: parameters cell, line {line.lineno}"
        if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
            raise UsageError(f"{where}: not `name: type = value`")
        try:
            found[line.target.id] = ast.literal_eval(line.value or "")
        except (ValueError, TypeError, SyntaxError):
            raise UsageError(f"{where}: the value of {line.target.id} is not a literal") from None
    return found


@cache
def _schema() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "workflow" / "parameters.yml").read_text(encoding="utf-8"))


# JSON Schema takes 1.0 for an integer, and NaN for a number in every range.
_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: type(value) is int,
        "number": lambda _, value: (
            type(value) is int or (type(value) is float and math.isfinite(value))
        ),
    }
)
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_TYPES)


def check(notebook: str, values: dict[str, Any]) -> None:
    """Checks parameters against the notebook and `workflow/parameters.yml`.

    Raises:
        UsageError: naming the parameter and what is allowed.
    """
    allowed = defaults(notebook)
    for name, value in values.items():
        if name not in allowed:
            raise UsageError(
                f"{notebook}: parameter {name!r} is unknown; allowed: {', '.join(allowed)}"
            )
        if name not in _schema():
            raise UsageError(
                f"{notebook}: parameter {name!r} is missing in workflow/parameters.yml"
            )
        rules = _schema()[name]
        if not _Validator(rules).is_valid(value):
            shown = json.dumps(value, default=str)  # YAML has dates, which JSON has not
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            raise UsageError(f"{notebook}: {name} = {shown} is not allowed; it is {rules['title']}")


def number(value: Any) -> Any:
    """Turns a fraction such as `"8/255"`, as budgets are usually written, into its number."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9})/([1-9]\d{0,8})", value)):
        return int(match[1]) / int(match[2])
    return value


def parse_set(text: str) -> dict[str, Any]:
    """Reads `name=value name=value`; a value is JSON, a fraction, or else plain text.

    Raises:
        UsageError: if the text is not of that form.
    """
    values: dict[str, Any] = {}
    rest = text.strip()
    while rest:
        match = re.match(r"([^\s=]+)=(\S.*)", rest, re.DOTALL)
        if not match or not match[1].isidentifier():
            raise UsageError(f"SET: {rest!r} is not of the form name=value")
        name, rest = match.groups()
        if name in values:
            raise UsageError(f"SET: {name!r} is given twice")
        try:
            values[name], end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            end = 0
        if end == 0 or rest[end : end + 1].strip():  # not JSON, or more than JSON
            following = re.search(r"\s+[^\s=]+=", rest)
            end = following.start() if following else len(rest)
            values[name] = number(rest[:end])
        rest = rest[end:].strip()
    return values


@cache
def _profile(profile: str) -> dict[str, Any]:
    where = f"profiles/{profile}.yml"
    try:
        content = yaml.safe_load((ROOT / where).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{where}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or list(content) != ["notebooks"]:
        raise UsageError(f"{where}: is not a mapping with the one entry 'notebooks'")
    entries = {} if content["notebooks"] is None else content["notebooks"]
    if not isinstance(entries, dict):
        raise UsageError(f"{where}: 'notebooks' is not a mapping of notebooks to parameters")
    for name, entry in entries.items():
        if name not in notebooks():
            raise UsageError(
                f"{where}: notebook {name!r} is unknown; allowed: {', '.join(notebooks())}"
            )
        if not isinstance(entry, dict | None):
            raise UsageError(f"{where}: the entry of {name} is not a mapping of parameters")
    return entries


def profile_parameters(profile: str, notebook: str) -> dict[str, Any]:
    """What a profile sets for a notebook.

    Raises:
        UsageError: if there is no such profile, it is malformed, or it does not have the notebook.
    """
    if profile not in PROFILES:
        raise UsageError(f"PROFILE: {profile!r} is unknown; allowed: {', '.join(PROFILES)}")
    entries = _profile(profile)
    if notebook not in entries:
        raise UsageError(f"PROFILE: profiles/{profile}.yml has no entry for {notebook}")
    return {name: number(value) for name, value in (entries[notebook] or {}).items()}


def profiles_of(notebook: str) -> list[str]:
    """The profiles that have an entry for a notebook.

    Raises:
        UsageError: if a profile is malformed.
    """
    return [profile for profile in PROFILES if notebook in _profile(profile)]


def parameters(
    notebook: str, profile: str, overrides: dict[str, Any] | None = None
) -> dict[str, Any]:
    """All parameters of a run: the notebook's defaults, then the profile's, then overrides.

    Raises:
        UsageError: if anything is unknown or out of range.
    """
    known = defaults(notebook)
    chosen = profile_parameters(profile, notebook) | (overrides or {})
    if "profile" in chosen:
        raise UsageError("profile is chosen with PROFILE=, not in SET or in a profile")
    values = known | chosen | {"profile": profile}
    check(notebook, values)
    return values


@cache
def backend() -> str:
    """The backend of JAX, such as `cpu`.

    A process of its own finds it out, because who asks keeps a part of a GPU's memory. The
    environment keeps the answer for the processes that this one starts.
    """
    if "NTKLIB_BACKEND" not in os.environ:
        code = "import jax; print(jax.default_backend())"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise BuildError("JAX finds no backend; its message is above")
        os.environ["NTKLIB_BACKEND"] = done.stdout.strip()
    return os.environ["NTKLIB_BACKEND"]


def _sources(notebook: str) -> list[Path]:
    library = [p for p in (ROOT / "ntklib").rglob("*") if p.suffix in (".py", ".yml")]
    return [NOTEBOOKS / f"{notebook}.py", *sorted(library), ROOT / "requirements.lock"]


def key(notebook: str, values: dict[str, Any]) -> str:
    """SHA-256 of all that a result depends on.

    These are the notebook, its parameters, its claims with the predicates, the library, the lock
    and the backend of JAX. Two results with one key are results of one program.
    """
    digest = hashlib.sha256()
    for path in _sources(notebook):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    digest.update(json.dumps(values, sort_keys=True).encode())
    digest.update(repr(claims_of(notebook)).encode())
    digest.update(backend().encode())
    return digest.hexdigest()
