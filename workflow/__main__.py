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


def _snakemake(root: Path, target: str, options: list[str], **settings: Any) -> None:
    command = [sys.executable, "-m", "snakemake", target, "--snakefile", "workflow/Snakefile"]
    command += ["--cores", str(machine.cores()), "--nolock", "--rerun-incomplete", "--keep-going"]
    command += ["--rerun-triggers", "mtime", "params", "--quiet", "progress", "rules", "host"]
    command += ["--workflow-profile", "none"]
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
        _snakemake(project.root, "book", options)
    print(f"The book is at {os.path.relpath(project.root / 'build' / 'html' / 'index.html')}")


def _run(
    project: Project, notebook: str, profile: str, overrides: dict[str, Any], options: list[str]
) -> claims.Result:
    values = project.parameters(notebook, profile, overrides)
    project.key(notebook, values)
    if project.notebooks[notebook].trainings:
        trainings.shared(project, profile, {notebook: overrides})
    executed = EXECUTED.format(notebook=notebook, profile=profile)
    result = RESULT.format(notebook=notebook, profile=profile)
    with _only_run(project.root):
        chosen = {"profile": profile, "overrides": {notebook: overrides}}
        _snakemake(project.root, result, options, alone=True, **chosen)
        _, found = trusted(project, notebook, profile, values)
    for claim in found.claims.values():
        for name, check in claim.checks.items():
            print(f"{name}: {measured(check)} {check.predicate}: {check.outcome}")
    for finding in found.soundness:
        if not finding.ok:
            print(f"unsound attack: {finding.name} is {finding.value:.3g}, above {finding.limit:g}")
    few = len(found.seeds) < claims.MINIMUM_SEEDS
    needed = f"; a verdict needs {claims.MINIMUM_SEEDS}" if few else ""
    seeds = f"seeds {found.seeds}{needed}"
    for claim_id, claim in found.claims.items():
        print(f"{claim_id}: {claim.verdict} (profile {profile}, {seeds})")
    print(f"notebook: {executed}")
    print(f"result: {result}")
    return found


def _record(project: Project, notebook: str, profile: str, *rest: Any) -> None:
    if profile == "smoke":
        raise UsageError("PROFILE: smoke gives no verdict; there is nothing to record")
    record = Path("records") / notebook / f"{profile}.json"
    claims.write_result(project.root / record, _run(project, notebook, profile, *rest))
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
    for name, text in (("run", "run one notebook"), ("record", "run one and keep its result")):
        command = commands.add_parser(name, help=text)
        command.add_argument("notebook")
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
            notebook = project.named(asked.notebook)
            work(project, notebook, asked.profile, parse_set(asked.set), options)


if __name__ == "__main__":
    main()
