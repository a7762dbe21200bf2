"""Command line of the runner: `python -m workflow book|run|record` (make calls it)."""

import argparse
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ntklib import claims
from workflow import plan
from workflow.collect import trusted
from workflow.stage import measured


@contextmanager
def _only_run() -> Iterator[None]:
    """Holds build/ for this process: the system lets go of the lock when the process dies."""
    (plan.ROOT / "build").mkdir(exist_ok=True)
    with open(plan.ROOT / "build" / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise plan.UsageError("another run is at work in build/; wait for it") from None
        os.set_inheritable(lock.fileno(), True)  # as long as Snakemake runs, too
        yield


def _snakemake(target: str, overrides: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "snakemake", target, "--snakefile", "workflow/Snakefile"]
    command += ["--cores", "all", "--nolock", "--rerun-incomplete", "--keep-going"]
    command += ["--rerun-triggers", "mtime", "params", "input"]
    command += ["--quiet", "progress", "rules", "host"]
    config = plan.ROOT / "build" / "config.json"  # on the command line 1e-07 would be text
    config.write_text(json.dumps({"overrides": overrides}), encoding="utf-8")
    command += ["--configfile", str(config)]
    process = subprocess.Popen(command, cwd=plan.ROOT, close_fds=False)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it was interrupted as well, and ends its jobs
        raise
    if status != 0:
        raise SystemExit(1)


def _book() -> None:
    for notebook in plan.published():
        plan.key(notebook, plan.parameters(notebook, "laptop"))
    with _only_run():
        _snakemake("book", {})
    print(f"The book is at {os.path.relpath(plan.ROOT / 'build' / 'html' / 'index.html')}")


def _run(notebook: str, profile: str, overrides: dict[str, Any]) -> claims.Result:
    values = plan.parameters(notebook, profile, overrides)
    plan.claims_of(notebook)
    executed = plan.EXECUTED.format(notebook=notebook, profile=profile)
    result = plan.RESULT.format(notebook=notebook, profile=profile)
    with _only_run():
        _snakemake(result, {notebook: overrides})
        _, found = trusted(notebook, profile, values)
    for claim in found.claims.values():
        for name, check in claim.checks.items():
            print(f"{name}: {measured(check.estimate)} {check.predicate}: {check.outcome}")
    for finding in found.soundness:
        if not finding.ok:
            print(f"unsound attack: {finding.name} is {finding.value:.3g}, above {finding.limit:g}")
    few = len(found.seeds) < claims.MINIMUM_SEEDS
    needed = f"; a verdict needs {claims.MINIMUM_SEEDS}" if few else ""
    seeds = f"seeds {list(found.seeds)}{needed}"
    for claim_id, claim in found.claims.items():
        print(f"{claim_id}: {claim.verdict} (profile {profile}, {seeds})")
    print(f"notebook: {executed}")
    print(f"result: {result}")
    return found


def _record(notebook: str, profile: str, overrides: dict[str, Any]) -> None:
    if profile == "smoke":
        raise plan.UsageError("PROFILE: smoke gives no verdict; there is nothing to record")
    record = Path("records") / notebook / f"{profile}.json"
    claims.write_result(plan.ROOT / record, _run(notebook, profile, overrides))
    print(f"record: {record}")


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; a mistake in what was asked ends with one line and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m workflow", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("book", help="execute what changed and render the book")
    for name, text in (("run", "run one notebook"), ("record", "run one and keep its result")):
        command = commands.add_parser(name, help=text)
        command.add_argument("notebook")
        command.add_argument("--profile", default="laptop")
        command.add_argument("--set", default="", metavar="'NAME=VALUE ...'")
    options = parser.parse_args(arguments)
    if folder := os.environ.get("NTKLIB_DATA"):
        os.environ["NTKLIB_DATA"] = os.path.abspath(folder)
    with plan.explained():
        if options.command == "book":
            _book()
        else:
            work = _run if options.command == "run" else _record
            notebook = plan.notebook_named(options.notebook)
            work(notebook, options.profile, plan.parse_set(options.set))


if __name__ == "__main__":
    main()
