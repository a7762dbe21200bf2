"""A small book with the real runner: one notebook that runs in a second, two pages of prose."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ntklib import claims
from workflow.plan import Project

ROOT = Path(__file__).parents[1]
NOTEBOOK = """\
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A toy

# %% tags=["parameters"]
profile: str = "laptop"  # which margins hold
dataset: str = "digits"  # not read
seeds: list = [0, 1, 2]  # the more, the better
epsilon: float = 0.1  # how far the quantity is above one half
n_train: int = 20  # not used
pool: int = 1  # above 1, the attack is unsound

# %%
import os
import time

from ntklib import claims

page = claims.Page("01_toy", profile=profile, seeds=seeds, provenance={"sha256": {}})
if "TOY_LOG" in os.environ:
    with open(os.environ["TOY_LOG"], "a") as log:
        print(epsilon, file=log)
time.sleep(float(os.environ.get("TOY_SLEEP", 0)))
claims.__file__

# %%
quantities = {"gap": claims.estimate([0.5 + epsilon for _ in seeds])}
findings = [claims.Soundness("masking", pool - 1.0, 0.0, pool == 1, "a toy")]
page.judge("T1", quantities, soundness=findings)
"""
# Trainings whose result shows whether each step was made once, in its place.
TOYS = '''\
"""Trainings that take steps, and go on with what an interrupted one has left."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Steps:
    number: int
    seed: int
    parents: tuple["Steps", ...] = ()

    @property
    def name(self) -> str:
        return f"toy-{self.number}{'-more' * len(self.parents)}/seed-{self.seed}"

    def run(self, store: Path) -> float:
        start = sum([parent.run(store) for parent in self.parents], 0.1 + self.seed / 10) % 1
        path = store / f"{self.name}.msgpack"
        path.parent.mkdir(parents=True, exist_ok=True)
        taken, state = json.loads(path.read_text()) if path.exists() else (0, start)
        for _ in range(taken, self.number):
            taken, state = taken + 1, 3.9 * state * (1 - state)
            time.sleep(float(os.environ.get("TOY_STEP", 0)))
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(json.dumps([taken, state]))
            partial.replace(path)
            if "TOY_STEPS" in os.environ:
                with open(os.environ["TOY_STEPS"], "a") as log:
                    print(f"{self.name} {taken}", file=log)
        return state
'''
TRAININGS = """\
# %% tags=["trainings"]
from ntklib.toys import Steps

first = [Steps(n_train, seed) for seed in seeds]

# %% tags=["trainings"]
second = [Steps(n_train, each.seed, (each,)) for each in first]
trainings = {"first": first, "second": {1: second[:1], 2: tuple(second[1:])}}

# %%
"""
REGISTRY = """\
papers:
  toy2020: {authors: A, year: 2020, title: T, venue: V, arxiv: "2001.00001"}
claims:
  - id: T1
    paper: toy2020
    title: A toy claim
    statement: A statement.
    where: abstract
    reported: null
    notebook: 01_toy
    status: available
    checks:
      - name: gap
        kind: evidence
        role: "none"
        quantity: a gap
        predicate: ">="
        margin: 0.5
        why: "none"
"""
TOC = """\
format: jb-book
root: book/index
chapters:
  - file: book/provenance
  - file: notebooks/01_toy
"""
# Stops the rendering half-way when it is told to.
STALL = """\
import os
import time
from pathlib import Path


def stall(app):
    if "TOY_STALL" in os.environ:
        Path(os.environ["TOY_STALL"]).touch()
        time.sleep(600)


def setup(app):
    app.connect("builder-inited", stall)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
"""


def write(folder: Path) -> Path:
    """Writes the sources of the book into a folder, which is created."""
    for name in ("workflow", "ntklib", "book/_ext", "book/_static"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("notebooks.lock", "CITATION.cff", "book/references.bib"):
        shutil.copy(ROOT / name, folder / name)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["sphinx"]["local_extensions"]["stall"] = "book/_ext"
    config["sphinx"]["config"]["extensions"].append("stall")
    files = {
        "_config.yml": yaml.safe_dump(config),
        "_toc.yml": TOC,
        "book/_ext/stall.py": STALL,
        "book/claims.yml": REGISTRY,
        "CHANGELOG.md": "# Changelog\n",
        "benchmarks/coverage.json": '{"trials": 0, "rows": []}',
        "book/index.md": "# Toys\n\n```{include} ../generated/claims_table.md\n```\n",
        "book/provenance.md": "# Provenance\n\n```{include} ../generated/provenance.md\n```\n",
        "notebooks/01_toy.py": NOTEBOOK,
        "profiles/smoke.yml": "extends: laptop\nnotebooks:\n  01_toy: {seeds: [0]}\n",
        "profiles/laptop.yml": "notebooks:\n  01_toy:\n",
        "profiles/cifar.yml": "notebooks:\n  01_toy: {epsilon: 8/255}\n",
        "profiles/cifar8.yml": "extends: cifar\nnotebooks:\n",
        "profiles/paper.yml": "notebooks:\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def add(folder: Path, number: int) -> Path:
    """Adds a copy of the first notebook, for a claim of its own; returns its source."""
    name = f"{number:02}_toy"
    for place in ("profiles/laptop.yml", "profiles/smoke.yml", "_toc.yml", "book/claims.yml"):
        text = (folder / place).read_text()
        first = text[text.rindex("\n", 0, text.index("01_toy")) + 1 :].partition("\n")[0] + "\n"
        if place == "book/claims.yml":
            first = REGISTRY[REGISTRY.index("  - id: T1") :]
        new = first.replace("T1", f"T{number}").replace("01_toy", name)
        (folder / place).write_text(text + new)
    source = folder / f"notebooks/{name}.py"
    text = (folder / "notebooks/01_toy.py").read_text()
    source.write_text(text.replace('"T1"', f'"T{number}"').replace('"01_toy"', f'"{name}"'))
    return source


def train(folder: Path, notebook: Path) -> None:
    """Lets a notebook make trainings, twice as many as it has seeds, and show what they give."""
    (folder / "ntklib/toys.py").write_text(TOYS)
    text = notebook.read_text().replace("# %%\nimport os\n", f"{TRAININGS}import os\n")
    shown = 'measurements={"trained": [each.run(page.store) for each in first + second]}'
    text = text.replace("soundness=findings)", f"soundness=findings, {shown})")
    notebook.write_text(text)


def write_trainings(folder: Path, seeds: str = "[0, 1, 2]") -> Path:
    """A book of three pages: two make the same trainings, the third other ones in the end."""
    write(folder)
    first = folder / "notebooks/01_toy.py"
    replace(first, "[0, 1, 2]", seeds)
    train(folder, first)
    add(folder, 2)
    replace(add(folder, 3), "Steps(n_train, each", "Steps(n_train + 1, each")
    return folder


def replace(path: Path, old: str, new: str) -> None:
    """Replaces a text in a file that has it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def results(folder: Path) -> list[dict[str, Any]]:
    """What all results say, but when they were made, and how long it took."""
    paths = sorted(folder.glob("build/results/*/*.json"))
    found = [claims.read_result(path).as_dict() for path in paths]
    for result in found:
        result["provenance"] = {"key": result["provenance"]["key"]}
    return found


def trained(folder: Path) -> dict[str, bytes]:
    """The trainings that are stored."""
    stored = files(folder / "build" / "trained")
    return {name: content for name, content in stored.items() if name.endswith(".msgpack")}


def start(folder: Path, *command: str | Path, **environ: str | Path) -> subprocess.Popen[str]:
    """Starts a module of the runner, or a program of the environment, in the book's folder."""
    program: list[str | Path] = [sys.executable, "-m"]
    if not str(command[0]).startswith("workflow"):
        program = [Path(sys.executable).with_name(str(command[0]))]
        command = command[1:]
    return subprocess.Popen(
        [*program, *command],
        cwd=folder,
        env=os.environ | {"NTKLIB_BACKEND": "cpu"} | {k: str(v) for k, v in environ.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *command: str | Path, **environ: Any) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    process = start(folder, *command, **environ)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Lets the runner of this process work on the book in a folder, as it is now."""
    monkeypatch.setenv("NTKLIB_BACKEND", "cpu")
    return Project(folder)


def files(folder: Path) -> dict[str, bytes]:
    """The contents of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
