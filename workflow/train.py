"""Makes a training: `python -m workflow.train NAME NOTEBOOK PARAMETERS` (as JSON)."""

import json
import sys
import time
import traceback
from typing import Any

from workflow import machine, trainings
from workflow.errors import BuildError, UsageError, explained
from workflow.plan import Project


def train(project: Project, name: str, notebook: str, values: dict[str, Any]) -> None:
    """Makes a training, or goes on with what an interrupted job of the same program has left.

    A run of the notebook with these parameters names it. A BuildError says that it failed; its
    traceback is kept under `build/failed/`.
    """
    found = {each.name: each for each in trainings.of_run(project, notebook, values)}
    if name not in found:
        raise UsageError(f"training {name!r} is unknown; allowed: {', '.join(found)}")
    store, start = project.root / trainings.STORE, time.monotonic()
    found[name].clear(store)
    try:
        trainings.objects(project, notebook, values)[name].run(store)
    except Exception as error:
        report = project.root / "build" / "failed" / f"{name}.txt"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(traceback.format_exc(), encoding="utf-8")
        raise BuildError(
            f"training {name}: {type(error).__name__}: {error}\n"
            f"traceback: {report.relative_to(project.root)}"
        ) from None
    (project.root / trainings.DONE.format(name=name)).touch()
    print(f"{name}: trained in {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    machine.follow()
    with explained():
        train(Project(), sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
