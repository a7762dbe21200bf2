"""Trainings as files of the build, on the toy book: what is shared, made again, gone on with."""

import os
import re
import shutil
import signal
import time

import interruptions
import pytest
import toy_book

from ntklib import claims
from workflow import trainings

RECORD = ("workflow", "record")  # all pages, none of which is rendered
MOMENTS = int(os.environ.get("NTKLIB_MOMENTS", "5"))
PAGES = ("01_toy", "02_toy", "03_toy")
FIRST, SECOND, OWN = (
    [f"{folder}/seed-{seed}" for seed in range(3)]
    for folder in ("toy-20", "toy-20-more", "toy-21-more")
)
ALL = dict.fromkeys(FIRST + SECOND, 20) | dict.fromkeys(OWN, 21)


@pytest.fixture(scope="module")
def first_book(tmp_path_factory):
    """Such a book, built, and what was said."""
    folder = toy_book.write_trainings(tmp_path_factory.mktemp("first") / "book")
    done = toy_book.run(folder, "workflow", "book", TOY_STEPS=folder / "steps")
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.fixture
def built(first_book, tmp_path):
    """A copy of it."""
    return shutil.copytree(first_book[0], tmp_path / "book")


@pytest.fixture
def toy(tmp_path):
    return toy_book.write_trainings(tmp_path / "book")


def steps(folder):
    """How many steps each training has taken."""
    names = [line.split()[0] for line in (folder / "steps").read_text().splitlines()]
    return {name: names.count(name) for name in names}


def started(folder):
    paths = [folder / f"build/results/{page}/laptop.json" for page in PAGES]
    return [claims.read_result(path).provenance.started for path in paths]


def test_a_training_that_pages_share_is_made_once_by_a_job_of_its_own(first_book):
    folder, said = first_book
    assert steps(folder) == ALL
    made = re.findall(r"^(\S+): trained in \d+ s$", said, re.MULTILINE)
    assert sorted(made) == sorted(FIRST + SECOND)
    for page in PAGES:
        lines = [line for line in said.splitlines() if line.startswith(page)]
        assert [line.split(" in ")[0] for line in lines] == [
            f"{page} (laptop): started",
            f"{page} (laptop): done",
        ]
    shown = [result["measurements"]["trained"] for result in toy_book.results(folder)]
    assert shown[0] == shown[1]
    assert shown[0][:3] == shown[2][:3]
    assert shown[0][3:] != shown[2][3:]


CHANGES = {
    # what is changed, which trainings are made again, which pages are executed again
    "nothing": (lambda f: None, [], []),
    "the times of files": (lambda f: [p.touch() for p in f.rglob("*.msgpack")], [], []),
    "the code of trainings": (
        lambda f: toy_book.replace(f / "ntklib/toys.py", "that take", "which take"),
        [*FIRST, *SECOND, *OWN],
        [0, 1, 2],
    ),
    "a page": (lambda f: toy_book.replace(f / "notebooks/01_toy.py", "# A toy", "# Toy"), [], [0]),
    "the store is gone": (lambda f: shutil.rmtree(f / "build/trained"), [], []),
    "the store is gone, and a page changed": (
        lambda f: (
            shutil.rmtree(f / "build/trained"),
            toy_book.replace(f / "notebooks/03_toy.py", "# A toy", "# Toy"),
        ),
        [*FIRST, *SECOND, *OWN],
        [0, 1, 2],  # Snakemake executes those, too, that need a training which it has made
    ),
    "a page is trained otherwise": (
        lambda f: toy_book.replace(
            f / "notebooks/02_toy.py", "Steps(n_train, each", "Steps(9, each"
        ),
        [f"toy-9-more/seed-{seed}" for seed in range(3)],
        [1],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_made_again(what, built):
    change, again, executed = CHANGES[what]
    change(built)
    (built / "steps").unlink()
    (built / "steps").touch()
    before = started(built)
    done = toy_book.run(built, *RECORD, TOY_STEPS=built / "steps")
    assert done.returncode == 0, done.stderr
    assert sorted(steps(built)) == sorted(again)
    after = started(built)
    assert [i for i in range(3) if before[i] != after[i]] == executed


def test_a_build_that_has_nothing_to_do_runs_no_cell(built):
    (built / "ntklib/toys.py").touch()
    paths = list((built / "build/trainings").iterdir())
    assert paths
    kept = toy_book.files(built / "build/trainings")
    environ = {"PYTHONPROFILEIMPORTTIME": "1"}
    done = toy_book.run(built, "workflow", "book", **environ)
    assert done.returncode == 0, done.stderr
    assert toy_book.files(built / "build/trainings") == kept
    assert not re.search(r"\| +(jax|ntklib\.toys)$", done.stderr, re.MULTILINE)


def test_parameters_of_one_run_are_trained_inside_its_page(built):
    (built / "steps").unlink()
    command = ("workflow", "run", "toy", "--set", "n_train=30")
    done = toy_book.run(built, *command, TOY_STEPS=built / "steps")
    assert done.returncode == 0, done.stderr
    assert steps(built) == {
        f"toy-30{more}/seed-{seed}": 30 for more in ("", "-more") for seed in range(3)
    }
    assert "trained in" not in done.stderr


def test_what_another_program_has_begun_is_not_gone_on_with(toy):
    process = toy_book.start(toy, *RECORD, TOY_STEPS=toy / "steps", TOY_STEP=0.1)
    deadline = time.monotonic() + 120
    while not (toy / "steps").exists() or len((toy / "steps").read_text().splitlines()) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    begun = steps(toy)
    toy_book.replace(toy / "ntklib/toys.py", "that take", "which take")
    done = toy_book.run(toy, *RECORD, TOY_STEPS=toy / "steps")
    assert done.returncode == 0, done.stderr
    assert steps(toy) == {name: n + begun.get(name, 0) for name, n in ALL.items()}


REFUSED = {
    "a cell that fails": (
        "Steps(n_train, seed)",
        "{}[seed]",
        "notebooks/01_toy.py: trainings: KeyError: 0",
    ),
    "none": ("trainings = ", "others = ", "notebooks/01_toy.py: trainings: KeyError: 'trainings'"),
    "no trainings": (
        "trainings = {",
        'trainings = {3: "x", ',
        "notebooks/01_toy.py: trainings: AttributeError: 'str' object has no attribute 'parents'",
    ),
    "a name twice": (
        "Steps(n_train, each.seed, (each,))",
        "Steps(n_train, each.seed, (first[0],))",
        "01_toy and 02_toy: trainings that differ have the name 'toy-20-more/seed-1'",
    ),
    "a name twice in a page": (
        "second[:1]",
        "[*second, Steps(n_train, 1, (first[0],))]",
        "01_toy: two trainings have the name 'toy-20-more/seed-1'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_trainings_that_cannot_be_are_refused_in_one_line(what, toy):
    old, new, line = REFUSED[what]
    toy_book.replace(toy / "notebooks/01_toy.py", old, new)
    before = toy_book.files(toy)
    for command in (["book"], ["run", "toy"]):
        done = toy_book.run(toy, "workflow", *command)
        assert done.returncode in (1, 2)
        assert (done.stdout, done.stderr) == ("", f"error: {line}\n")
    assert {k: v for k, v in toy_book.files(toy).items() if k[:15] != "build/trainings"} == before


def test_a_training_that_fails_costs_only_the_pages_that_need_it(toy):
    toy_book.add(toy, 4)
    toy_book.replace(toy / "notebooks/04_toy.py", "Steps(n_train, seed)", "Steps(5, seed)")
    toy_book.replace(
        toy / "ntklib/toys.py", "for _ in range", "assert self.number == 5\n        for _ in range"
    )
    toy_book.replace(toy / "notebooks/04_toy.py", "Steps(n_train, each.seed, (each,))", "each")
    done = toy_book.run(toy, *RECORD)
    assert done.returncode == 1
    assert "04_toy (laptop): done" in done.stderr
    assert "01_toy (laptop): started" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if f"training {FIRST[0]}" in line]
    assert line == f"error: training {FIRST[0]}: AssertionError: "
    assert f"traceback: build/failed/{FIRST[0]}.txt" in done.stderr
    assert "assert self.number == 5" in (toy / f"build/failed/{FIRST[0]}.txt").read_text()


def test_trainings_come_in_any_nesting_and_after_their_parents(toy, monkeypatch):
    project = toy_book.use(toy, monkeypatch)
    values = project.parameters("01_toy", "laptop")
    listed = trainings.of_run(project, "01_toy", values)
    assert [each.name for each in listed] == FIRST + SECOND
    assert [each.parents for each in listed] == [()] * 3 + [(name,) for name in FIRST]

    def shared(profile="laptop", overrides=None, least=2):
        return trainings.shared(project, trainings.pages(project, profile, overrides or {}), least)

    assert sorted(shared()) == sorted(FIRST + SECOND)
    assert {page for _, page in shared().values()} == {"01_toy"}
    assert list(shared("smoke")) == [FIRST[0], SECOND[0]]
    assert sorted(shared(overrides={"01_toy": {"n_train": 30}})) == FIRST
    assert sorted(shared(least=1)) == sorted(FIRST + SECOND + OWN)
    assert sorted(shared(least=3)) == FIRST


def test_whenever_a_run_is_killed_the_next_one_finds_what_it_would_have_found(tmp_path):
    toy = toy_book.write_trainings(tmp_path / "plain")
    environ = {"TOY_STEP": "0.02"}
    interruptions.compare(toy, "workflow", "run", "toy", moments=MOMENTS, seed=0, **environ)
