"""Runs the notebooks as Colab does: `python tests/colab/run.py`, in the environment of the book.

A new environment gets the packages that Colab has, at its versions (requirements.txt); the first
cell of a notebook installs ntklib there, without changing any of them; all notebooks run at size
smoke, in a folder that holds nothing else. The environment variable PYTHON names the Python to use.
"""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill

from ntklib import cores
from workflow import portable
from workflow.plan import Project

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "colab"
BIN = WORK / "venv" / "bin"
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
# What this environment says to Python and Jupyter does not hold in the other one.
ENVIRONMENT = {
    n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "JUPYTER", "JAX"))
}


def call(*command: str | Path) -> str:
    """What a command prints; ends the run if it fails."""
    done = subprocess.run(
        command,
        cwd=WORK,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nerror: {' '.join(map(str, command))}: exit {done.returncode}")
    return done.stdout


def installed() -> set[str]:
    return set(call(BIN / "python", *PIP, "freeze", "--all").splitlines())


def execute(notebook: Path) -> None:
    start = time.monotonic()
    call(BIN / "jupyter-execute", "--kernel_name=python3", notebook)
    print(f"{notebook.stem}: {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    names = ("python3.13", "python3.12", "python3.11")
    python = os.environ.get("PYTHON") or next(filter(None, map(shutil.which, names)))
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    call(python, "-m", "venv", BIN.parent)
    requirements = Path(__file__).with_name("requirements.txt")
    call(BIN / "python", *PIP, "install", "--no-deps", "--no-compile", "-r", requirements)
    before = installed()

    call(sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", WORK, ROOT)
    (wheel,) = WORK.glob("*.whl")
    project = Project()
    for name, notebook in project.notebooks.items():
        path = WORK / f"{name}.ipynb"
        nbformat.write(portable.portable(notebook, wheel.as_uri()), path)
        values = project.parameters(name, "smoke")
        papermill.execute_notebook(path, path, values, prepare_only=True, progress_bar=False)
    first, *others = sorted(WORK.glob("*.ipynb"))
    execute(first)  # installs ntklib
    if changed := sorted(before - installed()):
        sys.exit(f"error: to install ntklib changes {', '.join(changed)}")
    with ThreadPoolExecutor(cores.count()) as pool:
        list(pool.map(execute, others))


if __name__ == "__main__":
    main()
