"""Sweeps of the toy's notebook: what is run, what is written, what is not run again."""

import csv
import os
import re
import shutil
import signal
import time
from xml.etree import ElementTree

import pytest
import toy_book

from ntklib import claims
from workflow import sweeps

NOTEBOOK = "notebooks/01_toy.py"
FOLDER = "build/sweeps/01_toy/laptop"
GRID = ("sweep", "toy", "--grid", "epsilon=0.05,8/255 seeds=[0,1,2],[3]")


def sweep(folder, *command, **environ):
    return toy_book.run(folder, "workflow", *(command or GRID), TOY_LOG=folder / "log", **environ)


def executions(folder):
    """How often the notebook was executed with each epsilon."""
    values = [float(line) for line in (folder / "log").read_text().split()]
    return {value: values.count(value) for value in values}


def table(folder, place=FOLDER):
    with open(folder / place / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def first_sweep(tmp_path_factory):
    """A toy book with a sweep, and what was said."""
    folder = toy_book.write(tmp_path_factory.mktemp("first") / "book")
    return folder, sweep(folder)


@pytest.fixture
def swept(first_sweep, tmp_path):
    """A copy of it."""
    return shutil.copytree(first_sweep[0], tmp_path / "book")


def test_a_sweep_runs_each_point_and_tells_what_it_found(first_sweep):
    folder, done = first_sweep
    assert done.returncode == 0, done.stderr
    few = 8 / 255
    assert executions(folder) == {0.05: 2, few: 2}
    assert done.stdout.splitlines() == [
        "epsilon=0.05 seeds=[0,1,2]: T1: reproduced (gap 0.550 [0.550, 0.550])",
        "epsilon=0.05 seeds=[3]: T1: one seed (gap 0.550 (no interval))",
        f"epsilon={few} seeds=[0,1,2]: T1: reproduced (gap 0.531 [0.531, 0.531])",
        f"epsilon={few} seeds=[3]: T1: one seed (gap 0.531 (no interval))",
        f"table: {FOLDER}/sweep.csv",
        f"figure: {FOLDER}/sweep.svg",
    ]
    lines = [re.sub(r"\d+ s$", "", line) for line in done.stderr.splitlines()]
    points = [f"epsilon={e} seeds={s}" for e in (0.05, few) for s in ("[0,1,2]", "[3]")]
    said = [f"01_toy (laptop, {p}): {what}" for p in points for what in ("done in ", "started")]
    assert sorted(lines) == sorted(said)
    assert not (folder / "build/results").exists()  # the book knows nothing of it


def test_the_table_has_a_row_for_each_point_claim_and_check(first_sweep):
    folder, _ = first_sweep
    rows = table(folder)
    assert [row.pop("epsilon") for row in rows] == ["0.05"] * 2 + [str(8 / 255)] * 2
    assert [row.pop("seeds") for row in rows] == ["[0,1,2]", "[3]"] * 2
    for row, value in zip(rows, [0.55, 0.55, 0.53137254902, 0.53137254902], strict=True):
        found = claims.read_result(folder / FOLDER / row.pop("result"))
        [check] = found.claims["T1"].checks.values()
        assert check.value == float(row.pop("value")) == value
        limits = [f"{value}"] * 2 if len(found.seeds) == 3 else ["", ""]
        assert [row.pop("low"), row.pop("high")] == limits
        three = len(found.seeds) == 3
        assert row == {
            "claim": "T1",
            "check": "gap",
            "kind": "evidence",
            "predicate": ">= 0.5",
            "outcome": "holds" if three else "undecided",
            "verdict": "reproduced" if three else "one seed",
        }


def test_the_figure_draws_each_line_of_points(first_sweep):
    text = (first_sweep[0] / FOLDER / "sweep.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    written = re.findall("<!-- (.*) -->", text)  # Matplotlib draws letters as paths
    for words in ("T1", "epsilon", "gap (&gt;= 0.5)", "seeds=[0,1,2]", "seeds=[3]"):
        assert words.replace("&gt;", ">") in written or words in written


def test_what_is_done_is_not_run_again(swept):
    before = toy_book.files(swept / FOLDER)
    done = sweep(swept)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(executions(swept).values()) == 4
    assert toy_book.files(swept / FOLDER) == before
    # Another grid, in another order, with another way to set the seeds: one point is new.
    done = sweep(swept, "sweep", "toy", "--grid", "epsilon=0.1,0.05", "--set=seeds=[3]")
    assert done.returncode == 0, done.stderr
    assert executions(swept) == {0.05: 2, 8 / 255: 2, 0.1: 1}
    assert [row["epsilon"] for row in table(swept)] == ["0.1", "0.05"]
    # Another program.
    toy_book.replace(swept / NOTEBOOK, "0.5 + epsilon", "0.6 + epsilon")
    done = sweep(swept, "sweep", "toy", "--grid", "epsilon=0.1,0.05", "--set=seeds=[3]")
    assert done.returncode == 0, done.stderr
    assert executions(swept) == {0.05: 3, 8 / 255: 2, 0.1: 2}
    assert [row["value"] for row in table(swept)] == ["0.7", "0.65"]


def test_an_interrupted_sweep_resumes(tmp_path):
    toy = toy_book.write(tmp_path / "book")
    toy_book.replace(toy / NOTEBOOK, "time.sleep(", "time.sleep(epsilon > 0.1 and ")
    log = toy / "log"
    grid = ("sweep", "toy", "--grid", "epsilon=0.05,0.2")
    environ = {"TOY_LOG": log, "TOY_SLEEP": 600, "NPROC": 1}
    process = toy_book.start(toy, "workflow", *grid, **environ)
    deadline = time.monotonic() + 120
    while not log.exists() or 0.2 not in executions(toy):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert (process.returncode, out) == (130, "")
    results = [claims.read_result(path) for path in (toy / FOLDER).glob("*.json")]
    ended = {result.parameters["epsilon"] for result in results}
    assert ended == set(executions(toy)) - {0.2}
    begun = executions(toy)
    done = sweep(toy, *grid)
    assert done.returncode == 0, done.stderr
    again = {value: n - begun.get(value, 0) for value, n in executions(toy).items()}
    assert again == {value: int(value not in ended) for value in again}
    assert [row["verdict"] for row in table(toy)] == ["reproduced"] * 2


def test_a_point_that_fails_loses_none_of_the_others(tmp_path):
    toy = toy_book.write(tmp_path / "book")
    toy_book.replace(toy / NOTEBOOK, "quantities = {", "1 / (epsilon - 0.2)\nquantities = {")
    done = sweep(toy, "sweep", "toy", "--grid", "epsilon=0.1,0.2,0.3")
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line == (
        "error: 01_toy (laptop, epsilon=0.2): cell 5 (1 / (epsilon - 0.2)): "
        "ZeroDivisionError: float division by zero"
    )
    [partial] = re.findall("^partial notebook: (.*)$", done.stderr, re.MULTILINE)
    assert (toy / partial).exists()
    assert done.stdout.splitlines()[1] == "epsilon=0.2: T1: not run"
    assert [row["verdict"] for row in table(toy)] == ["reproduced", "not run", "reproduced"]
    assert [row["value"] for row in table(toy)] == ["0.6", "", "0.8"]


def test_without_a_number_there_is_a_table_and_no_figure(swept, monkeypatch):
    project = toy_book.use(swept, monkeypatch)
    [point] = sweeps.points(project, "01_toy", "laptop", {"epsilon": [0.2]}, {})
    made = sweeps.write(project, "01_toy", "laptop", [point], {})
    assert made == {"table": f"{FOLDER}/sweep.csv"}
    [row] = table(swept)
    assert (row["epsilon"], row["claim"], row["verdict"]) == ("0.2", "T1", "not run")
    assert not (swept / FOLDER / "sweep.svg").exists()


def test_points_share_trainings(tmp_path):
    toy = toy_book.write_trainings(tmp_path / "book")
    steps = toy / "steps"

    def taken():
        names = [line.split()[0] for line in steps.read_text().splitlines()]
        return {name: names.count(name) for name in names}

    grid = ("sweep", "toy", "--profile", "smoke", "--grid")
    done = sweep(toy, *grid, "epsilon=0.1", TOY_STEPS=steps)
    assert done.returncode == 0, done.stderr
    first = {"toy-20/seed-0": 20, "toy-20-more/seed-0": 20}
    assert taken() == first
    # What is new trains what is new, and what is done is not run again for what it shares with it.
    done = sweep(toy, *grid, "epsilon=0.1,0.2 n_train=20,30", TOY_STEPS=steps)
    assert done.returncode == 0, done.stderr
    assert taken() == first | {"toy-30/seed-0": 30, "toy-30-more/seed-0": 30}
    assert executions(toy) == {0.1: 2, 0.2: 2}
