"""Executes one notebook: `python -m workflow.execute NOTEBOOK PROFILE PARAMETERS` (as JSON)."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from traitlets.config import Config

from ntklib import claims
from workflow import trainings
from workflow.collect import collect, seal
from workflow.errors import BuildError, explained
from workflow.plan import EXECUTED, RESULT, Project

# What a result depends on; prose does not make it dirty.
INPUTS = ("ntklib", "notebooks", "profiles", "book/claims.yml", "requirements.lock")


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _source(project: Project, notebook: str, values: dict[str, Any]) -> nbformat.NotebookNode:
    """The notebook before execution, with the provenance that is known by then."""
    content = project.notebooks[notebook].read()
    content.metadata["ntklib"] = {
        "notebook": notebook,
        "key": project.key(notebook, values),
        "commit": _git(project.root, "rev-parse", "HEAD"),
        "dirty": bool(_git(project.root, "status", "--porcelain", "--", *INPUTS)),
    }
    return content


def _failure(error: Exception, partial: Path) -> str:
    """Says which cell failed, and why."""
    cells = [
        cell
        for cell in nbformat.read(partial, as_version=4).cells
        if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    started = [i for i, cell in enumerate(cells) if cell.metadata["papermill"]["start_time"]]
    number, source = started[-1] + 1, cells[started[-1]].source
    name = getattr(error, "ename", type(error).__name__)
    last_line = str(getattr(error, "evalue", error)).strip().splitlines()[-1:]
    first_line = source.strip().splitlines()[0]
    return f"cell {number} ({first_line}): {': '.join([name, *last_line])}"


def execute(
    project: Project, notebook: str, profile: str, values: dict[str, Any], *, alone: bool = True
) -> None:
    """Executes a notebook; it and its result appear only when every cell has succeeded.

    Args:
        project: where it is.
        notebook: its name, such as `01_ntk_transfer`.
        profile: with the name, says where both go.
        values: its parameters, checked (see `Project.parameters`).
        alone: whether a progress bar may be drawn; else there is a line when it starts, and one
            when it ends.

    Raises:
        BuildError: if a cell fails, or the notebook judges no claim. The partial notebook is
            kept under `build/failed/`.
    """
    partial = project.root / "build" / "failed" / f"{notebook}.ipynb"
    partial.parent.mkdir(parents=True, exist_ok=True)

    def refuse(reason: str) -> NoReturn:
        where = f"partial notebook: {partial.relative_to(project.root)}"
        raise BuildError(f"notebooks/{notebook}.py: {reason}\n{where}") from None

    title, start = f"{notebook} ({profile})", time.monotonic()
    bar = {
        "desc": title,
        "bar_format": "{desc}: cell {n_fmt} of {total_fmt}, {elapsed}",
        "file": sys.stderr,
    }
    if not alone:
        print(f"{title}: started", file=sys.stderr)
    store = project.root / trainings.STORE
    for each in trainings.of_pages(project, {notebook: values}).get(notebook, []):
        each.clear(store)
    os.environ |= {
        "NTKLIB_STORE": str(store),
        # Pages that do the same on arrays of one shape compile it once, and so do reruns.
        "JAX_COMPILATION_CACHE_DIR": str(project.root / "build" / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.ipynb")
        nbformat.write(_source(project, notebook, values), source)
        # Sockets in that folder rather than ports that everybody on the machine can reach.
        kernel = {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}
        try:
            papermill.execute_notebook(
                source,
                partial,
                parameters=values,
                cwd=project.root,
                progress_bar=bar if alone else False,
                kernel_name="python3",
                config=Config(KernelManager=kernel),
                extra_arguments=["--log-level=50"],  # else it tells of being shut down
            )
        except (papermill.PapermillExecutionError, DeadKernelError) as error:
            refuse(_failure(error, partial))
    content = nbformat.read(partial, as_version=4)
    for path in ("input_path", "output_path"):
        del content.metadata["papermill"][path]  # folders of this machine, of no use elsewhere
    content.metadata["ntklib"]["seal"] = seal(content)
    nbformat.write(content, partial)
    result = project.root / RESULT.format(notebook=notebook, profile=profile)
    try:
        claims.write_result(result, collect(project, content))
    except ValueError as error:
        refuse(str(error))
    output = project.root / EXECUTED.format(notebook=notebook, profile=profile)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(output)
    if not alone:
        print(f"{title}: done in {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    with explained():
        alone = sys.argv[4:] != ["False"]
        execute(Project(), sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), alone=alone)
