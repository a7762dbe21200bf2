"""What is asked of the runner: parameters, profiles, notebooks, and the key of a result."""

import itertools
import json
import math
import re

import pytest
import toy_book
from hypothesis import example, given
from hypothesis import strategies as st

from workflow import __main__ as runner
from workflow import machine, sweeps
from workflow.errors import BuildError, UsageError
from workflow.parameters import parse_grid, parse_set
from workflow.plan import Project

NOTEBOOK = "notebooks/01_toy.py"
NAMES = "profile, dataset, seeds, epsilon, n_train, pool"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A toy book that this process works on, and that no test changes."""
    folder = toy_book.write(tmp_path_factory.mktemp("toy") / "book")
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield toy_book.use(folder, monkeypatch)


@pytest.fixture
def own_toy(tmp_path, monkeypatch):
    """A toy book for one test."""
    return toy_book.use(toy_book.write(tmp_path / "book"), monkeypatch)


def refused(project, capsys, monkeypatch, *command):
    """Runs a command that must be refused before it does anything; returns its one line."""

    def reached(*_):
        raise AssertionError("Snakemake was started")

    monkeypatch.setattr(runner, "_snakemake", reached)
    before = toy_book.files(project.root)
    with pytest.raises(SystemExit) as caught:
        runner.main(list(command), Project(project.root))
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert toy_book.files(project.root) == before
    return err.removeprefix("error: ").removesuffix("\n")


SEEDS = "it is a list of different whole numbers from 0 to 4294967295, at least one"
EPSILON = "it is a number above 0, at most 0.5 (pixels are in [0, 1])"
N_TRAIN = "it is a whole number from 20 to 60000"
POOL = "it is 1, 2 or 4 (pixels are averaged over squares of that side)"
REFUSED_SET = {
    # not of the form
    "seeds": "SET: 'seeds' is not of the form name=value",
    "=3": "SET: '=3' is not of the form name=value",
    "seeds=": "SET: 'seeds=' is not of the form name=value",
    "seeds= [1]": "SET: 'seeds= [1]' is not of the form name=value",
    "seeds =[1]": "SET: 'seeds =[1]' is not of the form name=value",
    "n-train=30": "SET: 'n-train=30' is not of the form name=value",
    "epsilon=0.1, seeds=[1]": 'epsilon = "0.1," is not allowed',
    "seeds=[1] pool": "SET: 'pool' is not of the form name=value",
    "seeds=[1] seeds=[2]": "SET: 'seeds' is given twice",
    # unknown
    "colour=3": f"01_toy: parameter 'colour' is unknown; allowed: {NAMES}",
    "Epsilon=0.1": f"01_toy: parameter 'Epsilon' is unknown; allowed: {NAMES}",
    "dataset=imagenet": 'dataset = "imagenet" is not allowed; it is one of mnist5k, digits, mnist',
    "dataset=3": "dataset = 3 is not allowed; it is one of mnist5k, digits",
    "profile=laptop": "profile is chosen with PROFILE=, not in SET, in GRID or in a profile",
    "profile=paper": "profile is chosen with PROFILE=, not in SET, in GRID or in a profile",
    # of a wrong type
    "seeds=3": f"01_toy: seeds = 3 is not allowed; {SEEDS}",
    "seeds=true": f"seeds = true is not allowed; {SEEDS}",
    "seeds=[true]": f"seeds = [true] is not allowed; {SEEDS}",
    "seeds=[1.0]": f"seeds = [1.0] is not allowed; {SEEDS}",
    "seeds=[1.5]": f"seeds = [1.5] is not allowed; {SEEDS}",
    'seeds=["1"]': f'seeds = ["1"] is not allowed; {SEEDS}',
    "seeds=[NaN]": f"seeds = [NaN] is not allowed; {SEEDS}",
    "seeds=[1, 2": f'seeds = "[1, 2" is not allowed; {SEEDS}',
    "seeds=[[1]]": f"seeds = [[1]] is not allowed; {SEEDS}",
    "seeds=null": f"seeds = null is not allowed; {SEEDS}",
    "epsilon=true": f"epsilon = true is not allowed; {EPSILON}",
    'epsilon="0.1"': f'epsilon = "0.1" is not allowed; {EPSILON}',
    "epsilon=NaN": f"epsilon = NaN is not allowed; {EPSILON}",
    "epsilon=Infinity": f"epsilon = Infinity is not allowed; {EPSILON}",
    "epsilon=-1e999": f"epsilon = -Infinity is not allowed; {EPSILON}",
    "epsilon=[0.1]": f"epsilon = [0.1] is not allowed; {EPSILON}",
    "epsilon=8/0": f'epsilon = "8/0" is not allowed; {EPSILON}',
    "epsilon=0,1": f'epsilon = "0,1" is not allowed; {EPSILON}',
    "n_train=30.0": f"n_train = 30.0 is not allowed; {N_TRAIN}",
    "n_train=3e1": f"n_train = 30.0 is not allowed; {N_TRAIN}",
    "n_train=many": f'n_train = "many" is not allowed; {N_TRAIN}',
    "pool=true": f"pool = true is not allowed; {POOL}",
    "pool=1.0": f"pool = 1.0 is not allowed; {POOL}",
    # out of range
    "seeds=[]": f"seeds = [] is not allowed; {SEEDS}",
    "seeds=[1,1]": f"seeds = [1, 1] is not allowed; {SEEDS}",
    "seeds=[-1]": f"seeds = [-1] is not allowed; {SEEDS}",
    "seeds=[4294967296]": f"seeds = [4294967296] is not allowed; {SEEDS}",
    "epsilon=0": f"epsilon = 0 is not allowed; {EPSILON}",
    "epsilon=-0.1": f"epsilon = -0.1 is not allowed; {EPSILON}",
    "epsilon=8": f"epsilon = 8 is not allowed; {EPSILON}",
    "n_train=0": f"n_train = 0 is not allowed; {N_TRAIN}",
    f"n_train=1{'0' * 5000}": "n_train = ",
    f"seeds={'[' * 100_000}": "seeds = ",
    "pool=3": f"pool = 3 is not allowed; {POOL}",
}


@pytest.mark.parametrize("text", REFUSED_SET, ids=lambda text: text[:30])
def test_a_mistake_in_set_is_refused_in_one_line(text, toy, capsys, monkeypatch):
    line = refused(toy, capsys, monkeypatch, "run", "toy", "--set", text)
    assert REFUSED_SET[text] in line
    assert len(line) < 300


FORM = "is not of the form name=value,value"
REFUSED_GRID = {
    # not of the form
    "": f"GRID: '' {FORM}",
    " ": f"GRID: '' {FORM}",
    "epsilon": f"GRID: 'epsilon' {FORM}",
    "epsilon=": f"GRID: 'epsilon=' {FORM}",
    "epsilon=,": f"GRID: 'epsilon=,' {FORM}",
    "epsilon=0.1,": f"GRID: 'epsilon=0.1,' {FORM}",
    "epsilon=0.1,,0.2": f"GRID: 'epsilon=0.1,,0.2' {FORM}",
    "epsilon=0.1, 0.2": f"GRID: 'epsilon=0.1, 0.2' {FORM}",
    "epsilon=0.1 0.2": f"GRID: '0.2' {FORM}",
    "n-train=30": f"GRID: 'n-train=30' {FORM}",
    "epsilon=,0.1": f"GRID: 'epsilon=,0.1' {FORM}",
    "seeds=[1, 2": f"GRID: 'seeds=[1, 2' {FORM}",
    # twice
    "epsilon=0.1,0.2,0.10": "GRID: epsilon = 0.1 is given twice",
    "epsilon=8/255,16/510": "GRID: epsilon = 0.03137254901960784 is given twice",
    "seeds=[1],[2],[1]": "GRID: seeds = [1] is given twice",
    "epsilon=0.1 pool=1 epsilon=0.2": "GRID: 'epsilon' is given twice",
    "pool=1,2": "GRID: 'pool' is in SET, too",
    # unknown, or not allowed
    "colour=1,2": f"01_toy: parameter 'colour' is unknown; allowed: {NAMES}",
    "profile=laptop,cifar": "profile is chosen with PROFILE=, not in SET, in GRID or in a profile",
    "epsilon=0.1,0": f"01_toy: epsilon = 0 is not allowed; {EPSILON}",
    "n_train=20,19": f"01_toy: n_train = 19 is not allowed; {N_TRAIN}",
    "seeds=1,2": f"01_toy: seeds = 1 is not allowed; {SEEDS}",
    "seeds=[1],[2": f'01_toy: seeds = "[2" is not allowed; {SEEDS}',
    "seeds=[1],[]": f"01_toy: seeds = [] is not allowed; {SEEDS}",
    "epsilon=0.1,true": f"01_toy: epsilon = true is not allowed; {EPSILON}",
}


@pytest.mark.parametrize("text", REFUSED_GRID)
def test_a_mistake_in_a_grid_is_refused_in_one_line(text, toy, capsys, monkeypatch):
    command = ("sweep", "toy", "--set", "pool=1", "--grid", text)
    assert refused(toy, capsys, monkeypatch, *command) == REFUSED_GRID[text]


REFUSED_COMMANDS = {
    "notebook": (["run", "nothing"], "NB: notebook 'nothing' is unknown; allowed: 01_toy"),
    "no notebook": (["run", ""], "NB: notebook '' is unknown; allowed: 01_toy"),
    "path": (["run", "../01_toy"], "NB: notebook '../01_toy' is unknown; allowed: 01_toy"),
    "profile": (
        ["run", "toy", "--profile", "phone"],
        "PROFILE: 'phone' is unknown; allowed: cifar, cifar8, laptop, paper, smoke",
    ),
    "profile without the notebook": (
        ["run", "toy", "--profile", "paper"],
        "PROFILE: profiles/paper.yml has no entry for 01_toy",
    ),
    "record of a smoke run": (
        ["record", "toy", "--profile", "smoke"],
        "PROFILE: smoke gives no verdict; there is nothing to record",
    ),
}


@pytest.mark.parametrize("what", REFUSED_COMMANDS)
def test_what_does_not_exist_is_refused_in_one_line(what, toy, capsys, monkeypatch):
    command, line = REFUSED_COMMANDS[what]
    assert refused(toy, capsys, monkeypatch, *command) == line


CELL = '# %% tags=["parameters"]\n'
REFUSED_FILES = {
    "no parameters cell": (NOTEBOOK, CELL, "# %%\n", "01_toy: 0 cells are tagged 'parameters'"),
    "two of them": (
        NOTEBOOK,
        CELL,
        f"{CELL}a: int = 1\n{CELL}",
        "01_toy: 2 cells are tagged 'parameters', not one",
    ),
    "not annotated": (
        NOTEBOOK,
        "pool: int = 1",
        "pool = 1",
        "01_toy: parameters cell, line 6: not `name: type = value`",
    ),
    "no value": (
        NOTEBOOK,
        "pool: int = 1",
        "pool: int",
        "01_toy: parameters cell, line 6: the value of pool is not a literal",
    ),
    "computed": (
        NOTEBOOK,
        "pool: int = 1",
        "pool: int = 1 + 1",
        "01_toy: parameters cell, line 6: the value of pool is not a literal",
    ),
    "unhashable": (
        NOTEBOOK,
        "pool: int = 1",
        "pool: dict = {[]: 1}",
        "01_toy: parameters cell, line 6: the value of pool is not a literal",
    ),
    "code in the cell": (
        NOTEBOOK,
        "pool: int = 1",
        "import os",
        "01_toy: parameters cell, line 6: not `name: type = value`",
    ),
    "no Python": (
        NOTEBOOK,
        "pool: int = 1",
        "pool: int = ",
        "01_toy: parameters cell, line 6: invalid syntax",
    ),
    "not in parameters.yml": (
        NOTEBOOK,
        "pool: int",
        "puddle: int",
        "01_toy: parameter 'puddle' is missing in workflow/parameters.yml, and has no "
        "bounds at its cell",
    ),
    "default not allowed": (
        NOTEBOOK,
        "pool: int = 1",
        "pool: int = 3",
        f"01_toy: pool = 3 is not allowed; {POOL}",
    ),
    "bounds of no parameter": (
        NOTEBOOK,
        CELL,
        '# %% tags=["parameters"] bounds={"width": [1, 2]}\n',
        "01_toy: bounds of 'width' are [1, 2]; allowed: [low, high], of a parameter annotated",
    ),
    "bounds of a text": (
        NOTEBOOK,
        CELL,
        '# %% tags=["parameters"] bounds={"dataset": [1, 2]}\n',
        "01_toy: bounds of 'dataset' are [1, 2]; allowed: [low, high], of a parameter annotated",
    ),
    "bounds the wrong way": (
        NOTEBOOK,
        CELL,
        '# %% tags=["parameters"] bounds={"pool": [2, 1]}\n',
        "01_toy: bounds of 'pool' are [2, 1]; allowed: [low, high], of a parameter annotated",
    ),
    "bounds that are no list": (
        NOTEBOOK,
        CELL,
        '# %% tags=["parameters"] bounds=3\n',
        "01_toy: bounds are 3; allowed: a mapping of parameters to [low, high]",
    ),
    "bounds that are not JSON": (
        NOTEBOOK,
        CELL,
        '# %% tags=["parameters"] bounds={"pool": [2, 1}\n',
        "01_toy: 0 cells are tagged 'parameters'",
    ),
    "a default out of the notebook's own bounds": (
        NOTEBOOK,
        CELL,
        '# %% tags=["parameters"] bounds={"pool": [2, 8]}\n',
        "01_toy: pool = 1 is not allowed; it is a whole number from 2 to 8",
    ),
    "no profile": (
        NOTEBOOK,
        'profile: str = "laptop"',
        'n_test: str = "laptop"',
        'n_test = "laptop" is not allowed',
    ),
    "profile: no YAML": ("profiles/laptop.yml", "01_toy:", "01_toy: [", "cannot be read: while"),
    "profile: a tab": ("profiles/laptop.yml", "  01_toy", "\t01_toy", "cannot be read: while"),
    "profile: empty": (
        "profiles/laptop.yml",
        "notebooks:\n  01_toy:\n",
        "",
        "profiles/laptop.yml: is not a mapping with the entry 'notebooks' and",
    ),
    "profile: a list": (
        "profiles/laptop.yml",
        "notebooks:\n  01_toy:\n",
        "- 01_toy\n",
        "profiles/laptop.yml: is not a mapping with the entry 'notebooks' and",
    ),
    "profile: another entry": (
        "profiles/laptop.yml",
        "notebooks:",
        "machine: any\nnotebooks:",
        "profiles/laptop.yml: is not a mapping with the entry 'notebooks' and",
    ),
    "profile: a list of notebooks": (
        "profiles/laptop.yml",
        "  01_toy:",
        "  - 01_toy",
        "profiles/laptop.yml: 'notebooks' is not a mapping of notebooks to parameters",
    ),
    "profile: an unknown notebook": (
        "profiles/laptop.yml",
        "01_toy",
        "02_toy",
        "profiles/laptop.yml: notebook '02_toy' is unknown; allowed: 01_toy",
    ),
    "profile: a word for parameters": (
        "profiles/laptop.yml",
        "01_toy:",
        "01_toy: all",
        "profiles/laptop.yml: the entry of 01_toy is not a mapping of parameters",
    ),
    "profile: an unknown parameter": (
        "profiles/laptop.yml",
        "01_toy:",
        "01_toy: {colour: 3}",
        f"01_toy: parameter 'colour' is unknown; allowed: {NAMES}",
    ),
    "profile: a parameter that is no text": (
        "profiles/laptop.yml",
        "01_toy:",
        "01_toy: {3: 3}",
        f"01_toy: parameter 3 is unknown; allowed: {NAMES}",
    ),
    "profile: extends none": (
        "profiles/laptop.yml",
        "notebooks:",
        "extends: phone\nnotebooks:",
        "profiles/laptop.yml: extends 'phone'; allowed: cifar, cifar8, paper, smoke",
    ),
    "profile: extends itself": (
        "profiles/laptop.yml",
        "notebooks:",
        "extends: smoke\nnotebooks:",
        "profiles/smoke.yml: extends 'laptop'; allowed: cifar, cifar8, paper",
    ),
    "profile: extends a list": (
        "profiles/laptop.yml",
        "notebooks:",
        "extends: [cifar]\nnotebooks:",
        "profiles/laptop.yml: extends ['cifar']; allowed: cifar, cifar8, paper, smoke",
    ),
    "profile: its own name": (
        "profiles/laptop.yml",
        "01_toy:",
        "01_toy: {profile: paper}",
        "profile is chosen with PROFILE=, not in SET, in GRID or in a profile",
    ),
    "profile: text for a number": (
        "profiles/laptop.yml",
        "01_toy:",
        "01_toy: {epsilon: 1e-3}",  # which YAML 1.1 takes for text
        f'01_toy: epsilon = "1e-3" is not allowed; {EPSILON}',
    ),
    "profile: no number": (
        "profiles/laptop.yml",
        "01_toy:",
        "01_toy: {epsilon: .nan}",
        f"01_toy: epsilon = NaN is not allowed; {EPSILON}",
    ),
    "profile: a date": (
        "profiles/laptop.yml",
        "01_toy:",
        "01_toy: {seeds: 2026-01-01}",
        f'01_toy: seeds = "2026-01-01" is not allowed; {SEEDS}',
    ),
    "registry: not in the table of contents": (
        "book/claims.yml",
        "01_toy",
        "02_toy",
        "_toc.yml: notebooks/02_toy is missing; claim T1 is available",
    ),
    "registry: planned": (
        "book/claims.yml",
        "status: available",
        "status: planned",
        "01_toy: no claim of book/claims.yml with status 'available' names it",
    ),
    "registry: malformed": (
        "book/claims.yml",
        "status: available",
        "status: done",
        "status: 'done' is not one of",
    ),
}


@pytest.mark.parametrize("what", REFUSED_FILES)
def test_a_mistake_in_a_file_is_refused_in_one_line(what, own_toy, capsys, monkeypatch):
    name, old, new, reason = REFUSED_FILES[what]
    text = (own_toy.root / name).read_text()
    assert old in text
    (own_toy.root / name).write_text(text.replace(old, new))
    command = ["book"] if what == "registry: not in the table of contents" else ["run", "toy"]
    assert reason in refused(own_toy, capsys, monkeypatch, *command)


def test_a_book_is_refused_for_what_a_run_is_refused_for(own_toy, capsys, monkeypatch):
    (own_toy.root / "profiles" / "laptop.yml").write_text("\t")
    line = refused(own_toy, capsys, monkeypatch, "book")
    assert line.startswith("profiles/laptop.yml: cannot be read: ")
    (own_toy.root / "profiles" / "laptop.yml").unlink()
    line = refused(own_toy, capsys, monkeypatch, "book")
    assert line == "profiles/smoke.yml: extends 'laptop'; allowed: cifar, cifar8, paper"


def test_a_notebook_that_was_deleted_is_refused(own_toy, capsys, monkeypatch):
    (own_toy.root / NOTEBOOK).unlink()
    line = refused(own_toy, capsys, monkeypatch, "book")
    assert line == "01_toy: notebooks/01_toy.py does not exist"


# What is allowed.


def test_parameters_are_defaults_then_profile_then_set(toy):
    defaults = {
        "profile": "laptop",
        "dataset": "digits",
        "seeds": [0, 1, 2],
        "epsilon": 0.1,
        "n_train": 20,
        "pool": 1,
    }
    assert toy.parameters("01_toy", "laptop") == defaults
    assert toy.parameters("01_toy", "smoke") == defaults | {"profile": "smoke", "seeds": [0]}
    cifar = defaults | {"profile": "cifar", "epsilon": 8 / 255}
    assert toy.parameters("01_toy", "cifar") == cifar
    chosen = toy.parameters("01_toy", "cifar", {"epsilon": 0.25, "pool": 4})
    assert chosen == cifar | {"epsilon": 0.25, "pool": 4}


def test_a_profile_shares_parameters_and_margins_with_the_one_it_extends(own_toy):
    root = own_toy.root
    entry = "01_toy: {pool: 2}"
    (root / "profiles/new.yml").write_text(f"extends: cifar8\nnotebooks: {{{entry}}}\n")
    (root / "profiles/cifar8.yml").write_text("extends: cifar\nnotebooks:\n")
    registry = (root / "book/claims.yml").read_text()
    margins = "margin: {laptop: 0.5, cifar: 0.4}"
    (root / "book/claims.yml").write_text(registry.replace("margin: 0.5", margins))
    project = Project(root)
    chosen = project.parameters("01_toy", "new")
    assert (chosen["epsilon"], chosen["pool"], chosen["profile"]) == (8 / 255, 2, "new")
    assert project.profiles_of("01_toy") == ["cifar", "laptop", "new", "smoke"]
    [check] = project.registry["T1"].checks
    held = {profile: check.margin_for(profile) for profile in project.profiles}
    cifar, laptop = dict.fromkeys(["cifar", "cifar8", "new"], 0.4), {"laptop": 0.5, "smoke": 0.5}
    assert held == cifar | laptop | {"paper": None}


def test_a_notebook_has_bounds_of_its_own(own_toy):
    path = own_toy.root / NOTEBOOK
    bounds = '# %% tags=["parameters"] bounds={"n_train": [1, 5], "puddle": [0, 0.5]}\n'
    path.write_text(path.read_text().replace(CELL, f"{bounds}puddle: float = 0.1\n"))
    project = Project(own_toy.root)
    for n_train in (1, 5):
        project.check("01_toy", {"n_train": n_train, "puddle": 0.5, "pool": 1})
    refused = {
        ("n_train", 0): "a whole number from 1 to 5",
        ("n_train", 6): "a whole number from 1 to 5",
        ("n_train", 2.0): "a whole number from 1 to 5",
        ("puddle", 0.6): "a number from 0 to 0.5",
        ("puddle", math.nan): "a number from 0 to 0.5",
    }
    for (name, value), allowed in refused.items():
        with pytest.raises(UsageError, match=f"01_toy: {name} = .*; it is {allowed}$"):
            project.check("01_toy", {name: value})


@pytest.mark.parametrize("name", ["toy", "01_toy"])
def test_the_number_of_a_notebook_may_be_left_out(name, toy):
    assert toy.named(name) == "01_toy"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("  ", {}),
        ("epsilon=8/255", {"epsilon": 8 / 255}),
        ("epsilon=1e-07", {"epsilon": 1e-07}),
        (
            "dataset=digits seeds=[1, 2]\tpool=2\n",
            {"dataset": "digits", "seeds": [1, 2], "pool": 2},
        ),
        ('a="b c=d" e=f', {"a": "b c=d", "e": "f"}),
        ("a=b c d=e", {"a": "b c", "d": "e"}),
        ("a=1=2", {"a": "1=2"}),
        ("a=8/0 b=-1/2 c=1/2/3", {"a": "8/0", "b": "-1/2", "c": "1/2/3"}),
    ],
)
def test_set_is_read(text, values):
    assert parse_set(text) == values


NAME = st.text(min_size=1).filter(str.isidentifier)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner),
)


@given(st.dictionaries(NAME, JSON, max_size=4), st.sampled_from([" ", "  ", "\n", "\t "]))
@example({"epsilon": 1e-07, "seeds": [[-1, 2], [3]], "dataset": " a=b "}, " ")
def test_every_json_value_survives_set(values, space):
    text = space.join(f"{name}={json.dumps(value)}" for name, value in values.items())
    assert repr(parse_set(text)) == repr(values)  # 1 and 1.0 and True are equal, but differ


@given(st.text() | st.text(alphabet=' \n=ab1[],"-./'))
def test_any_set_is_read_or_refused_in_one_line(text):
    try:
        values = parse_set(text)
    except UsageError as error:
        line = str(error)
        assert line.startswith("SET: ")
        assert len(line.splitlines()) == 1
    else:
        assert all(name.isidentifier() and f"{name}=" in text for name in values)


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("epsilon=0.05,0.1", {"epsilon": [0.05, 0.1]}),
        ("epsilon=4/255,8/255 pool=2\n", {"epsilon": [4 / 255, 8 / 255], "pool": [2]}),
        ("seeds=[0, 1],[2]\tpool=1,2", {"seeds": [[0, 1], [2]], "pool": [1, 2]}),
        ('dataset=digits,mnist,"a b,c"', {"dataset": ["digits", "mnist", "a b,c"]}),
        ("a=1=2,x b=-1/2", {"a": ["1=2", "x"], "b": ["-1/2"]}),
    ],
)
def test_a_grid_is_read(text, grid):
    assert parse_grid(text) == grid


def different(values):
    return all(a != b for i, a in enumerate(values) for b in values[:i])


GRID = st.dictionaries(
    NAME, st.lists(JSON, min_size=1, max_size=4).filter(different), min_size=1, max_size=3
)


@given(GRID, st.sampled_from([" ", "  ", "\n", "\t "]))
@example({"epsilon": [1e-07, 1], "seeds": [[-1, 2], [3]], "dataset": [" a=b ,", ""]}, " ")
def test_every_json_value_survives_a_grid(grid, space):
    listed = {name: ",".join(map(json.dumps, values)) for name, values in grid.items()}
    text = space.join(f"{name}={values}" for name, values in listed.items())
    assert repr(parse_grid(text)) == repr(grid)
    name = next(iter(grid))
    for wrong in (f"{text} {text}", f"{text},{json.dumps(grid[list(grid)[-1]][0])}"):
        with pytest.raises(UsageError, match="is given twice"):
            parse_grid(wrong)
    for wrong in (f"{text},", text.replace("=", "=,", 1), f"{text} {name}", f"{text} x="):
        with pytest.raises(UsageError, match="is not of the form"):
            parse_grid(wrong)


@given(st.text() | st.text(alphabet=' \n=ab1[],"-./'))
def test_any_grid_is_read_or_refused_in_one_line(text):
    try:
        grid = parse_grid(text)
    except UsageError as error:
        line = str(error)
        assert re.match("GRID: .* (is given twice|is not of the form name=value,value)$", line)
        assert len(line.splitlines()) == 1
    else:
        assert grid
        assert all(values and different(values) for values in grid.values())
        assert all(name.isidentifier() and f"{name}=" in text for name in grid)


@given(grid=st.data(), wrong=st.sampled_from([("pool", 3), ("epsilon", 0.6), ("n_train", 19)]))
def test_one_value_that_is_not_allowed_refuses_the_grid(grid, wrong, toy):
    allowed = {"pool": [1, 2, 4], "epsilon": [0.1, 0.2, 0.5], "n_train": [20, 21, 60000]}
    chosen = {
        name: grid.draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
        for name, values in allowed.items()
    }
    found = sweeps.points(toy, "01_toy", "laptop", chosen, {"seeds": [3]})
    assert len({point.name for point in found}) == len(found)
    assert [tuple(p.chosen.values()) for p in found] == list(itertools.product(*chosen.values()))
    assert all(
        p.values == toy.parameters("01_toy", "laptop", p.chosen | {"seeds": [3]}) for p in found
    )
    name, value = wrong
    chosen[name].insert(grid.draw(st.integers(0, len(chosen[name]))), value)
    with pytest.raises(UsageError, match=f"{name} = {value} is not allowed"):
        sweeps.points(toy, "01_toy", "laptop", chosen, {})


def whole(value, low, high):
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_allowed(name, value):
    """The rules of the toy's parameters, once more."""
    match name:
        case "dataset":
            return value in ["mnist5k", "digits", "mnist", "cifar10", "svhn"]
        case "seeds":
            return (
                isinstance(value, list)
                and len(value) > 0
                and all(whole(seed, 0, 2**32 - 1) for seed in value)
                and len(set(value)) == len(value)
            )
        case "epsilon":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and 0 < value <= 0.5
        case "n_train":
            return whole(value, 20, 60_000)
        case "pool":
            return whole(value, 1, 4) and value != 3


VALUES = (
    JSON
    | st.sampled_from([math.nan, math.inf, "digits", 10**400])
    | st.integers(0, 100)
    | st.floats(0, 1)
    | st.integers(0, 100).map(float)
    | st.lists(st.integers(0, 2**32) | st.booleans() | st.integers(0, 3).map(float))
)


@given(st.sampled_from(["dataset", "seeds", "epsilon", "n_train", "pool"]), VALUES)
def test_a_value_is_allowed_or_refused_by_name(toy, name, value):
    if is_allowed(name, value):
        toy.check("01_toy", {name: value})
    else:
        with pytest.raises(UsageError) as caught:
            toy.check("01_toy", {name: value})
        assert re.match(rf"01_toy: {name} = .* is not allowed; it is ", str(caught.value))
        assert len(str(caught.value).splitlines()) == 1


# The key.


def key_of(project, **overrides):
    project = Project(project.root)  # which reads the files anew
    return project.key("01_toy", project.parameters("01_toy", "laptop", overrides))


KEY_CHANGES = {
    "the notebook": (NOTEBOOK, "# not used", "# unused"),
    "a default": (NOTEBOOK, "pool: int = 1", "pool: int = 2"),
    "the profile": ("profiles/laptop.yml", "01_toy:", "01_toy: {pool: 2}"),
    "the library": ("ntklib/claims/_results.py", "import os", "import  os"),
    "a schema": ("ntklib/claims/schemas/result.yml", "#", "##"),
    "a template": ("ntklib/claims/templates/claim.html", "<td>", "<td >"),
    "the style of figures": ("ntklib/book.mplstyle", "font.size: 10", "font.size: 11"),
    "the lock": ("notebooks.lock", "==", "== "),
    "a predicate": ("book/claims.yml", "margin: 0.5", "margin: 0.4"),
    "a statement": ("book/claims.yml", "A statement", "The statement"),
}


@pytest.mark.parametrize("what", KEY_CHANGES)
def test_the_key_changes_with(what, own_toy):
    before = key_of(own_toy)
    name, old, new = KEY_CHANGES[what]
    text = (own_toy.root / name).read_text()
    assert old in text
    (own_toy.root / name).write_text(text.replace(old, new))
    assert key_of(own_toy) != before
    (own_toy.root / name).write_text(text)
    assert key_of(own_toy) == before


def test_the_key_changes_with_a_parameter_and_the_backend(own_toy, monkeypatch):
    keys = [key_of(own_toy), key_of(own_toy, pool=2)]
    monkeypatch.setenv("NTKLIB_BACKEND", "gpu")
    keys.append(key_of(own_toy))
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("name", "matters"),
    {
        "JAX_ENABLE_X64": True,
        "JAX_DEFAULT_PRNG_IMPL": True,
        "JAX_DEFAULT_MATMUL_PRECISION": True,
        "JAX_THREEFRY_PARTITIONABLE": True,
        "JAX_NUMPY_DTYPE_PROMOTION": True,
        "JAX_RANDOM_SEED_OFFSET": True,
        "JAX_AN_OPTION_TO_COME": True,
        "XLA_FLAGS": True,
        "NPY_DISABLE_CPU_FEATURES": True,
        "NVIDIA_TF32_OVERRIDE": True,
        "JAX_COMPILATION_CACHE_DIR": False,
        "JAX_ENABLE_COMPILATION_CACHE": False,
        "JAX_LOG_COMPILES": False,
        "JAX_LOGGING_LEVEL": False,
        "JAX_TRACEBACK_FILTERING": False,
        "JAX_DUMP_IR_TO": False,
        "XLA_PYTHON_CLIENT_PREALLOCATE": False,
        "TF_CPP_MIN_LOG_LEVEL": False,
        "HOME": False,
    }.items(),
)
def test_the_key_changes_with_settings_that_change_numbers(name, matters, own_toy, monkeypatch):
    before = key_of(own_toy)
    monkeypatch.setenv(name, "other")
    assert (key_of(own_toy) != before) == matters


LIBRARY = {
    "ntklib/new/__init__.py": "from . import near\n",
    "ntklib/new/near.py": "from ..newest import deep\n",
    "ntklib/new/far.py": "",
    "ntklib/new/table.csv": "",
    "ntklib/new/templates/page.html": "",
    "ntklib/new/.swap": "",
    "ntklib/newest/__init__.py": "",
    "ntklib/newest/deep.py": "def later():\n    import ntklib.late\n",
    "ntklib/newest/table.csv": "",
    "ntklib/late.py": 'import importlib\n\nimportlib.import_module("ntklib.named")\n',
    "ntklib/named.py": "",
    "ntklib/beside.py": "",
    "beside.py": "",
}
DEEP = {
    "ntklib/newest/__init__.py",
    "ntklib/newest/deep.py",
    "ntklib/newest/table.csv",
    "ntklib/late.py",
    "ntklib/named.py",
}
NEAR = DEEP | {
    "ntklib/new/__init__.py",
    "ntklib/new/near.py",
    "ntklib/new/table.csv",
    "ntklib/new/templates/page.html",
}
IMPORTS = {
    "import ntklib.new": NEAR,
    "from ntklib import new": NEAR,
    "import time, ntklib.new.near as near": NEAR,
    "from ntklib.new import far, near": NEAR | {"ntklib/new/far.py"},
    "from ntklib.new import *": NEAR | {"ntklib/new/far.py"},
    "import ntklib.newest.deep as d": DEEP,
    "if False: import beside": {"beside.py"},
    "import numpy, missing": set(),
}


@pytest.mark.parametrize("line", IMPORTS)
def test_the_key_changes_with_what_is_imported_and_with_nothing_else(line, own_toy):
    for name, text in LIBRARY.items():
        (own_toy.root / name).parent.mkdir(parents=True, exist_ok=True)
        (own_toy.root / name).write_text(text)
    source = own_toy.root / NOTEBOOK
    source.write_text(source.read_text().replace("import os\n", f"import os\n{line}\n"))
    before = key_of(own_toy)
    changes = set()
    for name, text in LIBRARY.items():
        (own_toy.root / name).write_text(f"{text}#")
        if key_of(own_toy) != before:
            changes.add(name)
        (own_toy.root / name).write_text(text)
    assert changes == IMPORTS[line]


def test_code_that_is_no_python_is_refused_in_one_line(own_toy, capsys, monkeypatch):
    (own_toy.root / "ntklib/claims/_page.py").write_text("import os\nimport\n")
    line = refused(own_toy, capsys, monkeypatch, "book")
    assert line.startswith("ntklib/claims/_page.py, line 2: ")


def test_records_that_a_page_shows_are_part_of_its_key(own_toy):
    folder = own_toy.root / "records" / "01_toy"
    folder.mkdir(parents=True)

    def keys():
        found = []
        for profile in ("laptop", "cifar", "paper"):
            (folder / f"{profile}.json").write_text("changed")
            found.append(key_of(own_toy))
            (folder / f"{profile}.json").write_text("{}")
        return [key != key_of(own_toy) for key in found]

    assert keys() == [False, False, False]
    source = own_toy.root / NOTEBOOK
    source.write_text(source.read_text() + '\n# %%\npage.record("cifar")\n')
    assert keys() == [False, True, False]  # those that it names


def test_the_key_does_not_change_with_what_does_not_matter(own_toy):
    before = key_of(own_toy)
    (own_toy.root / "book" / "index.md").write_text("# Other words")
    (own_toy.root / "profiles" / "cifar.yml").write_text("notebooks:\n")
    (own_toy.root / "notebooks" / "02_toy.py").write_text("")
    (own_toy.root / "ntklib" / "new.py").write_text("")
    (own_toy.root / "ntklib" / "phases.py").write_text("")
    (own_toy.root / "ntklib" / "claims" / "_page.py").touch()
    claims = (own_toy.root / "book" / "claims.yml").read_text()
    (own_toy.root / "book" / "claims.yml").write_text(f"# A comment.\n{claims}")
    assert key_of(own_toy) == before


def test_the_backend_is_found_out_once_for_all_processes(monkeypatch):
    monkeypatch.delenv("NTKLIB_BACKEND", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert machine.backend() == "cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "none")
    assert machine.backend() == "cpu"
    monkeypatch.delenv("NTKLIB_BACKEND")
    with pytest.raises(UsageError) as caught:
        machine.backend()
    line = "JAX_PLATFORMS: 'none' is no backend that JAX has here; unset it, or set it to cpu"
    assert str(caught.value) == line


def test_a_broken_jax_is_told_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "jax.py").write_text("raise ImportError('no such\\nlibrary')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in ("NTKLIB_BACKEND", "JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BuildError, match=r"^JAX finds no backend: library$"):
        machine.backend()
