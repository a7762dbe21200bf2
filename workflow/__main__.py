"""Command line of the runner: `python -m workflow book|run|sweep|record` (make calls it)."""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ntklib import claims
from workflow import machine, sweeps, trainings
from workflow.collect import trusted
from workflow.errors import UsageError, explained
from workflow.parameters import parse_grid, parse_set
from workflow.plan import EXECUTED, RESULT, Project, places
from workflow.stage import measured


@contextmanager
def _only_run(root: Path) -> Iterator[None]:
    """Holds build/ for this process: the system lets go of the lock when the process dies."""
    (root / "build").mkdir(exist_ok=True)
    with open(root / "build" / ".lock", "w") as lock:
        patience = time.monotonic() + 2  # one that was killed ends within a second
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise UsageError("another run is at work in build/; wait for it") from None
                time.sleep(0.1)
        os.set_inheritable(lock.fileno(), True)  # as long as Snakemake runs, too
        yield


def _snakemake(root: Path, targets: list[str], options: list[str], **settings: Any) -> None:
    command = [sys.executable, "-m", "snakemake", *targets, "--snakefile", "workflow/Snakefile"]
    command += ["--cores", str(machine.cores()), "--nolock", "--rerun-incomplete", "--keep-going"]
    command += ["--rerun-triggers", "mtime", "params", "--workflow-profile", "none"]
    if not options:  # who gives some hears what Snakemake does
        command += ["--quiet", "progress", "rules", "host"]
    config = root / "build" / "config.json"  # on the command line 1e-07 would be text
    settings["cache"] = os.environ.get("XDG_CACHE_HOME", "")  # which holds for jobs
    config.write_text(json.dumps(settings), encoding="utf-8")
    command += ["--configfile", str(config)]
    own = {"SNAKEMAKE_PROFILE": "none", "XDG_CACHE_HOME": str(root / "build" / "cache")}
    process = subprocess.Popen(
        [*command, *options], cwd=root, env=machine.child() | own, close_fds=False
    )
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it was interrupted as well, and ends its jobs
        raise
    if status != 0:
        raise SystemExit(1)


def _book(project: Project, options: list[str]) -> None:
    for notebook in project.published():
        project.key(notebook, project.parameters(notebook, "laptop"))
    trainings.shared(project, trainings.pages(project, "laptop", {}))
    with _only_run(project.root):
        _snakemake(project.root, ["book"], options)
    print(f"The book is at {os.path.relpath(project.root / 'build' / 'html' / 'index.html')}")


def _run(
    project: Project,
    notebooks: list[str],
    profile: str,
    overrides: dict[str, Any],
    options: list[str],
) -> dict[str, claims.Result]:
    """Runs notebooks, and tells what each has found."""
    values = {name: project.parameters(name, profile, overrides) for name in notebooks}
    for name in notebooks:
        project.key(name, values[name])
    of_each = dict.fromkeys(notebooks, overrides)
    if any(project.notebooks[name].trainings for name in notebooks):
        trainings.shared(project, trainings.pages(project, profile, of_each))
    targets = [RESULT.format(notebook=name, profile=profile) for name in notebooks]
    chosen = {"profile": profile, "overrides": of_each, "alone": len(notebooks) == 1}
    with _only_run(project.root):
        _snakemake(project.root, targets, options, **chosen)
        found = {name: trusted(project, name, profile, values[name])[1] for name in notebooks}
    for name, result in found.items():
        _tell(result)
        print(f"notebook: {EXECUTED.format(notebook=name, profile=profile)}")
        print(f"result: {RESULT.format(notebook=name, profile=profile)}")
    return found


def _tell(found: claims.Result) -> None:
    """Prints what a result says of each claim."""
    for claim_id, claim in found.claims.items():
        for name, check in claim.checks.items():
            print(f"{name} ({check.kind}): {measured(check)} {check.predicate}: {check.outcome}")
        seeds = f"profile {found.profile}, seeds {found.seeds}"
        print(f"{claim_id}: {claim.verdict} ({seeds}): {claim.reason}")
    for finding in found.soundness:
        if not finding.ok:
            print(f"unsound attack: {finding.name} is {finding.value:.3g}, above {finding.limit:g}")


def _record(project: Project, notebooks: list[str], profile: str, *rest: Any) -> None:
    if profile == "smoke":
        raise UsageError("PROFILE: smoke gives no verdict; there is nothing to record")
    for name, result in _run(project, notebooks, profile, *rest).items():
        record = Path("records") / name / f"{profile}.json"
        claims.write_result(project.root / record, result)
        print(f"record: {record}")


def _sweep(
    project: Project,
    notebook: str,
    profile: str,
    grid: dict[str, list[Any]],
    overrides: dict[str, Any],
    options: list[str],
) -> None:
    """Runs a notebook at each point of a grid, and writes a table and a figure of what was found.

    A point that fails is told; the table and the figure are of the others.
    """
    points = sweeps.points(project, notebook, profile, grid, overrides)
    runs = {point.name: (notebook, point.values) for point in points}
    for run in runs.values():
        project.key(*run)
    if project.notebooks[notebook].trainings:
        trainings.shared(project, runs, least=1)
    results = {name: places(notebook, profile, name)[1] for name in runs}
    titles = {p.name: f"{notebook} ({profile}, {p.label})" for p in points}
    asked = {name: [*run, titles[name]] for name, run in runs.items()}
    failed = False
    with _only_run(project.root):
        try:
            _snakemake(project.root, list(results.values()), options, profile=profile, points=asked)
        except SystemExit:
            failed = True
        found = {
            name: trusted(project, notebook, profile, runs[name][1], name)[1]
            for name, path in results.items()
            if (project.root / path).exists()
        }
        machine.use_folders(project.root / "build")  # Matplotlib keeps files
        made = sweeps.write(project, notebook, profile, points, found)
    for line in sweeps.told(project, notebook, points, found):
        print(line)
    for what, path in made.items():
        print(f"{what}: {path}")
    if failed:
        raise SystemExit(1)


def main(arguments: list[str] | None = None, project: Project | None = None) -> None:
    """Runs one command; a mistake in what was asked ends with one line and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    end = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        prog="python -m workflow", description=__doc__, epilog="Snakemake gets what follows --."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("book", help="execute what changed and render the book")
    kept = "run one, or all that the profile names, and keep the results"
    swept = "run one notebook at each point of a grid, and write a table and a figure"
    for name, text in (("run", "run one notebook"), ("sweep", swept), ("record", kept)):
        command = commands.add_parser(name, help=text)
        command.add_argument("notebook", nargs="?" if name == "record" else None)
        if name == "sweep":
            command.add_argument("--grid", required=True, metavar="'NAME=VALUE,VALUE ...'")
        command.add_argument("--profile", default="laptop")
        command.add_argument("--set", default="", metavar="'NAME=VALUE ...'")
    asked, options = parser.parse_args(given[:end]), given[end + 1 :]
    if folder := os.environ.get("NTKLIB_DATA"):
        os.environ["NTKLIB_DATA"] = os.path.abspath(os.path.expanduser(folder))
    project = project or Project()
    with explained():
        if asked.command == "book":
            _book(project, options)
        else:
            if asked.notebook is None:
                notebooks = project.of_profile(asked.profile)
            else:
                notebooks = [project.named(asked.notebook)]
            overrides = parse_set(asked.set)
            if asked.command == "sweep":
                grid = parse_grid(asked.grid)
                _sweep(project, notebooks[0], asked.profile, grid, overrides, options)
            else:
                work = _run if asked.command == "run" else _record
                work(project, notebooks, asked.profile, overrides, options)


if __name__ == "__main__":
    main()
