"""Writes the branch `notebooks`, which Colab and Binder open: `python -m workflow.portable FOLDER`.

The notebooks of the main branch are scripts, which neither opens. The branch has them as .ipynb,
not executed, and beside them what Binder builds its environment from. The branch changes only when
one of these does: the same content gives the same bytes.
"""

import argparse
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from workflow.errors import UsageError, explained
from workflow.notebook import Notebook
from workflow.plan import Project

# What environment.yml, postBuild and the installation of ntklib need.
ENVIRONMENT = (
    "environment.yml",
    "postBuild",
    "notebooks.lock",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "ntklib",
    "book/claims.yml",
    "profiles",
    "records",
)

INSTALL = """\
# Installs the library where it is missing, as on Colab. Binder and a checkout have it.
import importlib.util

if importlib.util.find_spec("ntklib") is None:
    %pip install -q "ntklib @ {address}\""""


def install_address(environ: Mapping[str, str], revision: str) -> str:
    """The address pip installs a revision of ntklib from, by what GitHub tells a workflow."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY")
    if missing := [name for name in names if not environ.get(name)]:
        raise UsageError(f"set {', '.join(missing)}: Colab installs ntklib from there")
    server, repository = (environ[name] for name in names)
    return f"git+{server}/{repository}@{revision}"


def last_change(root: Path) -> str:
    """The commit that last changed what the branch is made from."""
    made_from = [*ENVIRONMENT, "notebooks", "workflow/portable.py"]
    command = ["git", "log", "--max-count=1", "--format=%H", "--", *made_from]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if not done.stdout:
        raise UsageError(f"{root} has no history in git: Colab installs ntklib from a commit")
    return done.stdout.strip()


def with_install(content: nbformat.NotebookNode, address: str) -> nbformat.NotebookNode:
    """A notebook with a first cell that installs ntklib from the address."""
    content.cells.insert(0, new_code_cell(INSTALL.format(address=address), id="install"))
    return content


def portable(notebook: Notebook, address: str) -> nbformat.NotebookNode:
    """The notebook as .ipynb, not executed, with a first cell that installs ntklib."""
    return with_install(notebook.read(), address)


def write(project: Project, folder: Path, address: str) -> None:
    """Writes all files of the branch to a new folder: what an old one has would be published."""
    if folder.exists():
        raise UsageError(f"{folder} exists; name a folder that does not")
    for name in ENVIRONMENT:
        source, target = project.root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (folder / "notebooks").mkdir()
    for name, notebook in project.notebooks.items():
        nbformat.write(portable(notebook, address), folder / "notebooks" / f"{name}.ipynb")


def main() -> None:
    """Writes the folder, or says in one line why it cannot and ends with exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m workflow.portable", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files go; it is created")
    folder = parser.parse_args().folder
    with explained():
        project = Project()
        write(project, folder, install_address(os.environ, last_change(project.root)))


if __name__ == "__main__":
    main()
