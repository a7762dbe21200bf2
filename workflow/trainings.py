"""The trainings that notebooks name in their cells tagged `trainings`.

These are run, in order, with nothing but the parameters as globals. They leave `trainings`:
trainings in lists, tuples and dicts of any depth. Each has a `name`, `parents` (those that must be
there before), `run(store)`, which makes `store/NAME.msgpack` or goes on with what is there, and a
`repr` that says all that it is. What several pages name, or a point of a sweep, is made by jobs of
the build; what one page names it trains itself.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workflow.errors import BuildError, UsageError, explained
from workflow.imports import imported
from workflow.plan import Project

# Where what is trained goes, below the root. NAME.key says which program works on NAME.msgpack,
# NAME.done that it has ended: Snakemake removes the output of a job that was interrupted, and that
# must not be what the next one goes on with.
STORE = "build/trained"
DONE = f"{STORE}/{{name}}.done"
Run = tuple[str, dict[str, Any]]
"""A notebook, and all parameters that it is run with."""
Runs = dict[str, Run]
"""Some runs by name: those of pages, which have the names of their notebooks, or of points."""


@dataclass(frozen=True)
class Training:
    """What the build knows of a training."""

    name: str  # its path in the store, without the suffix
    key: str  # SHA-256 of all that it depends on: what it is, and the code that it runs
    parents: tuple[str, ...]  # names of those that must be there before

    def clear(self, store: Path) -> None:
        """Removes what the store has of it if that was made by another program."""
        kept = store / f"{self.name}.key"
        if not (kept.exists() and kept.read_text(encoding="utf-8") == self.key):
            for pattern in (f"{kept.stem}.*", f".{kept.stem}.*"):
                for path in kept.parent.glob(pattern):
                    path.unlink()
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(self.key, encoding="utf-8")


def _flat(trainings: Any) -> Iterator[Any]:
    if isinstance(trainings, Mapping):
        trainings = list(trainings.values())
    if isinstance(trainings, list | tuple):
        for each in trainings:
            yield from _flat(each)
    else:
        yield trainings


def objects(project: Project, notebook: str, values: dict[str, Any]) -> dict[str, Any]:
    """The trainings that a notebook names, and those that they need, which come first.

    A UsageError says that two that differ have one name, a BuildError that a cell failed.
    """
    found: dict[str, Any] = {}

    def add(training: Any) -> None:
        for parent in training.parents:
            add(parent)
        if repr(found.setdefault(training.name, training)) != repr(training):
            raise UsageError(f"{notebook}: two trainings have the name {training.name!r}")

    scope = dict(values)
    try:
        with redirect_stdout(sys.stderr):
            exec(project.notebooks[notebook].trainings or "trainings = []", scope)
        for training in _flat(scope["trainings"]):
            add(training)
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BuildError(f"notebooks/{notebook}.py: trainings: {reason}") from None
    return found


def of_runs(project: Project, runs: Runs) -> dict[str, list[Training]]:
    """The trainings that each of some runs names, and those that they need.

    Another process runs the cells, as they import JAX. Files keep what it has found.
    """
    cells = {name: project.notebooks[notebook].trainings for name, (notebook, _) in runs.items()}
    files = {
        name: project.root / f"build/trainings/{_key(project, code, runs[name][1])}.json"
        for name, code in cells.items()
        if code
    }
    if missing := {name: runs[name] for name, file in files.items() if not file.exists()}:
        done = subprocess.run(
            [sys.executable, "-m", "workflow.trainings"],
            cwd=project.root,
            input=json.dumps(missing),
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise BuildError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
        for name, found in json.loads(done.stdout).items():
            files[name].parent.mkdir(parents=True, exist_ok=True)
            partial = files[name].with_suffix(".partial")
            partial.write_text(json.dumps(found), encoding="utf-8")
            partial.replace(files[name])
    return {
        name: [
            Training(each["name"], each["key"], tuple(each["parents"]))
            for each in json.loads(files[name].read_text(encoding="utf-8"))
        ]
        for name in files
    }


def of_run(project: Project, notebook: str, values: dict[str, Any]) -> list[Training]:
    """The trainings that one run names, and those that they need."""
    return of_runs(project, {notebook: (notebook, values)}).get(notebook, [])


def _key(project: Project, code: str, values: dict[str, Any]) -> str:
    """SHA-256 of all that the trainings of a notebook depend on."""
    return project.digest(code, json.dumps(values, sort_keys=True), project.code(*imported(code)))


def pages(project: Project, profile: str, overrides: dict[str, dict[str, Any]]) -> Runs:
    """The runs of the pages of a profile, with other values for some parameters of some pages."""
    return {
        name: (name, project.parameters(name, profile, overrides.get(name)))
        for name in project.published()
        if name in project.profiles[profile]
    }


def shared(project: Project, runs: Runs, least: int = 2) -> dict[str, tuple[Training, str]]:
    """The trainings that at least so many runs name, each with the name of the first such run.

    A UsageError says that two runs give one name to trainings that differ.
    """
    namers: dict[str, list[tuple[Training, str]]] = {}
    for run, trainings in of_runs(project, runs).items():
        for training in trainings:
            namers.setdefault(training.name, []).append((training, run))
    for name, entries in namers.items():
        if len({training.key for training, _ in entries}) > 1:
            named = " and ".join(run for _, run in entries)
            raise UsageError(f"{named}: trainings that differ have the name {name!r}")
    return {name: entries[0] for name, entries in namers.items() if len(entries) >= least}


def described(project: Project, runs: Runs) -> dict[str, list[dict[str, Any]]]:
    """What `of_pages` reads, from the notebooks themselves."""

    def key(training: Any) -> str:
        return project.digest(repr(training), project.code(type(training).__module__))

    return {
        run: [
            asdict(Training(name, key(each), tuple(parent.name for parent in each.parents)))
            for name, each in objects(project, notebook, values).items()
        ]
        for run, (notebook, values) in runs.items()
    }


if __name__ == "__main__":
    with explained():
        print(json.dumps(described(Project(), json.load(sys.stdin))))
