"""Executes one notebook: `python -m workflow.execute NOTEBOOK PROFILE PARAMETERS [TITLE [POINT]]`.

Parameters are JSON; see `execute` for the rest.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from traitlets import default
from traitlets.config import Config

from ntklib import claims
from workflow import machine, trainings
from workflow.collect import collect, seal
from workflow.errors import BuildError, explained
from workflow.plan import Project, places

# What a result depends on; prose does not make it dirty.
INPUTS = ("ntklib", "notebooks", "profiles", "book/claims.yml", "notebooks.lock")


class _Kernel(AsyncKernelManager):
    """The kernel of this very Python, whatever else Jupyter finds under its name."""

    @default("kernel_spec_manager")
    def _native(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]  # an attribute there
        """As its base, with what the process prints in a file beside that of the connection.

        What cells print reaches the notebook. What is left is why a kernel could not start, which
        is told, and its complaints on its way out, when every cell has succeeded, that it was
        interrupted or that a socket is gone.
        """
        with open(_printed(Path(self.connection_file)), "w", encoding="utf-8") as file:
            await super().start_kernel(stderr=file, **options)


def _printed(connection_file: Path) -> Path:
    return connection_file.with_suffix(".err")


def _revision(root: Path) -> tuple[str | None, bool]:
    """The commit that is checked out, and whether anything differs that a result depends on.

    None where there is no git, and where the folder is no repository or is part of another one.
    """

    def git(*arguments: str) -> list[str]:
        environ = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True)
        return done.stdout.splitlines() if done.returncode == 0 else []

    try:
        top, commit = git("rev-parse", "--show-toplevel", "HEAD")
        if not os.path.samefile(top, root):
            return None, False
        return commit, bool(git("status", "--porcelain", "--", *INPUTS))
    except (OSError, ValueError):  # ValueError: not two lines
        return None, False


def _source(project: Project, notebook: str, values: dict[str, Any]) -> nbformat.NotebookNode:
    """The notebook before execution, with the provenance that is known by then."""
    content = project.notebooks[notebook].read()
    commit, dirty = _revision(project.root)
    content.metadata["ntklib"] = {
        "notebook": notebook,
        "key": project.key(notebook, values),
        "commit": commit,
        "dirty": dirty,
    }
    return content


def _failure(error: Exception, partial: Path, printed: str) -> str:
    """Says which cell failed, and why; or that there was no kernel, with its last line."""
    cells = [
        cell
        for cell in nbformat.read(partial, as_version=4).cells
        if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    started = [i for i, cell in enumerate(cells) if cell.metadata["papermill"]["start_time"]]
    if not started:
        return ": ".join(["the kernel did not start", *printed.strip().splitlines()[-1:]])
    number, source = started[-1] + 1, cells[started[-1]].source
    name = getattr(error, "ename", type(error).__name__)
    last_line = str(getattr(error, "evalue", error)).strip().splitlines()[-1:]
    first_line = source.strip().splitlines()[0]
    return f"cell {number} ({first_line}): {': '.join([name, *last_line])}"


def execute(
    project: Project,
    notebook: str,
    profile: str,
    values: dict[str, Any],
    title: str = "",
    point: str = "",
) -> None:
    """Executes a notebook; it and its result appear only when every cell has succeeded.

    With a title there is a line when it starts, and one when it ends. Without, it is alone and may
    draw a progress bar. For a point of a sweep, which has a name, both appear among the others of
    the sweep. A BuildError says that a cell failed, or that the notebook judges no claim; the
    partial notebook is kept under `build/failed/`.
    """
    executed, result = (project.root / path for path in places(notebook, profile, point))
    partial = project.root / "build" / "failed" / executed.name
    partial.parent.mkdir(parents=True, exist_ok=True)

    def refuse(reason: str) -> NoReturn:
        what = title if point else f"notebooks/{notebook}.py"
        where = f"partial notebook: {partial.relative_to(project.root)}"
        raise BuildError(f"{what}: {reason}\n{where}") from None

    start = time.monotonic()
    bar = {
        "desc": f"{notebook} ({profile})",
        # A line that changes; in a log, a line a cell.
        "bar_format": "{desc}: cell {n_fmt} of {total_fmt}, {elapsed}"
        + "\n" * (not sys.stderr.isatty()),
        "file": sys.stderr,
    }
    if title:
        print(f"{title}: started", file=sys.stderr)
    machine.use_folders(project.root / "build")
    for each in trainings.of_run(project, notebook, values):
        each.clear(project.root / trainings.STORE)
    with machine.folder_for_sockets() as folder:
        source = folder / "source.ipynb"
        nbformat.write(_source(project, notebook, values), source)
        # Sockets in that folder rather than ports that everybody on the machine can reach.
        connection = folder / "kernel.json"
        kernel = {"transport": "ipc", "connection_file": str(connection)}
        try:
            papermill.execute_notebook(
                source,
                partial,
                parameters=values,
                cwd=project.root,
                progress_bar=False if title else bar,
                kernel_name=NATIVE_KERNEL_NAME,
                kernel_manager_class=_Kernel,
                config=Config(KernelManager=kernel),
            )
        except (papermill.PapermillExecutionError, RuntimeError) as error:  # or without a kernel
            refuse(_failure(error, partial, _printed(connection).read_text()))
    content = nbformat.read(partial, as_version=4)
    for path in ("input_path", "output_path"):
        del content.metadata["papermill"][path]  # folders of this machine, of no use elsewhere
    content.metadata["ntklib"]["seal"] = seal(content)
    nbformat.write(content, partial)
    try:
        claims.write_result(result, collect(project, content))
    except ValueError as error:
        refuse(str(error))
    executed.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(executed)
    if title:
        print(f"{title}: done in {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    machine.follow()
    with explained():
        execute(Project(), sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), *sys.argv[4:])
