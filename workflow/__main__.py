"""Command line of the runner: `python -m workflow book|run|record` (make calls it)."""

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
from workflow import machine, trainings
from workflow.collect import trusted
from workflow.errors import UsageError, explained
from workflow.parameters import parse_set
from workflow.plan import EXECUTED, RESULT, Project
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
    trainings.shared(project, "laptop", {})
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
        trainings.shared(project, profile, of_each)
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
    for name, text in (("run", "run one notebook"), ("record", kept)):
        command = commands.add_parser(name, help=text)
        command.add_argument("notebook", nargs=None if name == "run" else "?")
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
            work = _run if asked.command == "run" else _record
            if asked.notebook is None:
                notebooks = project.of_profile(asked.profile)
            else:
                notebooks = [project.named(asked.notebook)]
            work(project, notebooks, asked.profile, parse_set(asked.set), options)


if __name__ == "__main__":
    main()
