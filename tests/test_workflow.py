"""The runner, run as a reader runs it, on a small book in a folder of its own."""

import copy
import dataclasses
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import toy_book
from nbformat import v4

from ntklib import claims
from workflow import collect, stage
from workflow.errors import BuildError

NOTEBOOK = "notebooks/01_toy.py"
EXECUTED = "build/executed/laptop/01_toy.ipynb"
RESULT = "build/results/01_toy/laptop.json"
FAILED = "build/failed/01_toy.ipynb"


@pytest.fixture(scope="module")
def first_book(tmp_path_factory):
    """A toy book, built by calling Snakemake directly."""
    folder = toy_book.write(tmp_path_factory.mktemp("first") / "book")
    done = toy_book.run(folder, "snakemake", "--cores", "all", TOY_LOG=folder / "log")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def built(first_book, tmp_path):
    """A copy of it."""
    return shutil.copytree(first_book, tmp_path / "book")


@pytest.fixture
def toy(tmp_path):
    """A toy book that was never built."""
    return toy_book.write(tmp_path / "book")


def executions(folder):
    """The values of epsilon that the notebook was executed with, in order."""
    log = folder / "log"
    return [float(line) for line in log.read_text().split()] if log.exists() else []


def progress(err):
    return [line for line in err.splitlines() if line.startswith("01_toy (laptop): ")]


def other_lines(err):
    """What is written to standard error besides progress."""
    return [line for line in err.splitlines() if line and line not in progress(err)]


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kernels(folder):
    """The kernels that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"ipykernel" in command and (process / "cwd").resolve() == folder:
                found.append(int(process.name))
        except OSError:  # it has just ended
            continue
    return found


def wait_for_the_end_of_kernels(folder):
    deadline = time.monotonic() + 60
    while kernels(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)


# What a build makes, and when it makes it again.


def test_a_second_build_executes_nothing(built):
    book = toy_book.files(built / "build" / "html")
    done = toy_book.run(built, "workflow", "book", TOY_LOG=built / "log")
    assert done.stdout == "The book is at build/html/index.html\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert executions(built) == [0.1]
    assert toy_book.files(built / "build" / "html") == book


def test_what_is_compiled_serves_other_runs(toy):
    toy_book.replace(
        toy / NOTEBOOK, "claims.__file__", "import jax\n\njax.jit(lambda x: 2 * x)(1.0)"
    )
    compiled = []
    for epsilon in (0.1, 0.2):
        done = toy_book.run(toy, "workflow", "run", "toy", f"--set=epsilon={epsilon}")
        assert done.returncode == 0, done.stderr
        compiled.append({path.name for path in (toy / "build" / "compiled").glob("*-cache")})
    assert any(name.startswith("jit__lambda") for name in compiled[0])
    assert compiled[1] == compiled[0]


def test_the_book_shows_the_verdict_and_its_provenance(first_book):
    html = first_book / "build" / "html"
    assert "verdict-reproduced" in (html / "book" / "index.html").read_text()
    page = (html / "notebooks" / "01_toy.html").read_text()
    assert "0.600 [0.600,\N{NO-BREAK SPACE}0.600]" in page
    assert claims.read_result(first_book / RESULT).provenance.key[:16] in page


def test_the_modules_beside_the_notebooks_are_those_that_run(first_book):
    content = nbformat.read(first_book / EXECUTED, as_version=4)
    [shown] = [o.data["text/plain"] for o in content.cells[-2].outputs]
    assert shown == repr(str(first_book / "ntklib" / "claims" / "__init__.py"))
    content.cells[-2].outputs = []
    assert str(first_book) not in nbformat.writes(content)  # nor does anything else name the folder


def change_what_does_not_matter(folder):
    for name in ("book", "notebooks", "ntklib", "profiles", "workflow", "notebooks.lock"):
        for path in [folder / name, *(folder / name).rglob("*")]:
            path.touch()
    toy_book.replace(folder / "profiles" / "laptop.yml", "01_toy:", "01_toy: # as it is")
    toy_book.replace(folder / "profiles" / "cifar.yml", "8/255", "0.2")


def add_record(folder):
    (folder / "records" / "01_toy").mkdir(parents=True)
    shutil.copy(folder / RESULT, folder / "records" / "01_toy" / "cifar.json")


CHANGES = {
    "nothing": (change_what_does_not_matter, set()),
    "a word of prose": (
        lambda f: toy_book.replace(f / "book/index.md", "Toys", "All toys"),
        {"render"},
    ),
    "a new file of prose": (lambda f: (f / "book/more.md").write_text("# More"), {"render"}),
    "a record": (add_record, {"render"}),
    "the book is deleted": (lambda f: shutil.rmtree(f / "build/html"), {"render"}),
    # What changes the key is tested in test_plan.py.
    "the key": (
        lambda f: toy_book.replace(f / "ntklib/claims/schemas/result.yml", "JSON Schema", "Schema"),
        {"execute", "render"},
    ),
}


def planned(folder):
    """The rules that a build would run."""
    done = toy_book.run(folder, "snakemake", "--cores", "all", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return {line[1].strip(":") for line in lines if line[:1] == ["rule"]} - {"book"}


def test_a_docstring_executes_the_pages_again_that_import_its_module(toy):
    (toy / "ntklib/shared.py").write_text('"""One."""\n')
    toy_book.replace(toy / NOTEBOOK, "import os\n", "import os\n\nimport ntklib.shared\n")
    toy_book.add(toy, 2)
    toy_book.replace(toy_book.add(toy, 3), "import ntklib.shared\n", "")
    build = toy_book.run(toy, "workflow", "book")
    assert build.returncode == 0, build.stderr
    results = [toy / f"build/results/0{i}_toy/laptop.json" for i in (1, 2, 3)]
    before = [claims.read_result(path).provenance.started for path in results]
    (toy / "ntklib/shared.py").write_text('"""Two."""\n')
    build = toy_book.run(toy, "workflow", "book")
    assert build.returncode == 0, build.stderr
    after = [claims.read_result(path).provenance.started for path in results]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True, True, False]


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_made_again(what, built):
    change, rules = CHANGES[what]
    change(built)
    assert planned(built) == rules


def test_other_parameters_of_a_run_do_not_reach_the_book(built):
    log = built / "log"
    chosen = "epsilon=1e-07 seeds=[4] pool=2"
    done = toy_book.run(built, "workflow", "run", "toy", "--set", chosen, TOY_LOG=log)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "gap (evidence): 0.500 (no interval) >= 0.5: undecided",
        "T1: one seed (profile laptop, seeds [4]): one seed has no interval",
        "unsound attack: masking is 1, above 0",
        f"notebook: {EXECUTED}",
        f"result: {RESULT}",
    ]
    assert progress(done.stderr)[-1].startswith("01_toy (laptop): cell 5 of 5, 00:")
    assert not other_lines(done.stderr)
    assert claims.read_result(built / RESULT).parameters["epsilon"] == 1e-07
    done = toy_book.run(built, "workflow", "book", TOY_LOG=log)
    assert done.returncode == 0, done.stderr
    assert executions(built) == [0.1, 1e-07, 0.1]
    assert claims.read_result(built / RESULT).parameters["epsilon"] == 0.1
    assert re.fullmatch(
        r"01_toy \(laptop\): started\n01_toy \(laptop\): done in \d+ s\n", done.stderr
    )


def test_nobody_hears_what_a_kernel_says_when_all_is_done(toy):
    late = "class Late:\n    write = os.write\n    def __del__(self): self.write(2, b'late')"
    toy_book.replace(toy / NOTEBOOK, JUDGE, f"{late}\n\nlate = Late()\n{JUDGE}")
    done = toy_book.run(toy, "workflow", "run", "toy")
    assert done.returncode == 0, done.stderr
    assert not other_lines(done.stderr)


# What must not be trusted.


def kill(process, folder):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for_the_end_of_kernels(folder)


def test_nothing_is_trusted_of_a_run_that_was_killed_in_a_cell(built):
    log = built / "log"
    log.unlink()
    book = toy_book.files(built / "build" / "html")
    toy_book.replace(built / NOTEBOOK, "# A toy", "# Another toy")
    process = toy_book.start(built, "workflow", "book", TOY_LOG=log, TOY_SLEEP=600)
    wait_for(log, process)
    second = toy_book.run(built, "workflow", "run", "toy")
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr == "error: another run is at work in build/; wait for it\n"
    kill(process, built)
    assert not (built / EXECUTED).exists()
    assert toy_book.files(built / "build" / "html") == book
    done = toy_book.run(built, "workflow", "run", "toy", TOY_LOG=log)
    assert done.returncode == 0, done.stderr
    assert executions(built) == [0.1, 0.1]
    assert "# Another toy" in (built / EXECUTED).read_text()


def test_nothing_is_trusted_of_a_run_that_was_killed_while_it_rendered(built):
    book = toy_book.files(built / "build" / "html")
    book.pop(".buildinfo")
    toy_book.replace(built / "book" / "index.md", "Toys", "Other toys")
    stalled, log = built / "stalled", built / "log"
    process = toy_book.start(built, "workflow", "book", TOY_LOG=log, TOY_STALL=stalled)
    wait_for(stalled, process)
    kill(process, built)
    assert toy_book.files(built / "build" / "html") == book
    done = toy_book.run(built, "workflow", "book", TOY_LOG=log)
    assert done.returncode == 0, done.stderr
    assert executions(built) == [0.1]  # of the first build
    assert "Other toys" in (built / "build" / "html" / "book" / "index.html").read_text()


def test_an_interrupted_run_ends_at_once(toy):
    process = toy_book.start(toy, "workflow", "run", "toy", TOY_LOG=toy / "log", TOY_SLEEP=120)
    wait_for(toy / "log", process)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    wait_for_the_end_of_kernels(toy)
    assert not (toy / EXECUTED).exists()


def edit_notebook(change):
    def edit(folder):
        content = nbformat.read(folder / EXECUTED, as_version=4)
        change(content)
        nbformat.write(content, folder / EXECUTED)

    return edit


def edit_result(change):
    def edit(folder):
        result = json.loads((folder / RESULT).read_text())
        change(result)
        (folder / RESULT).write_text(json.dumps(result))

    return edit


TAMPERED = {
    "the notebook's key": (
        edit_notebook(lambda c: c.metadata.ntklib.update(key="0" * 64)),
        "its key does not fit the tree",
    ),
    "the notebook's outputs": (
        edit_notebook(lambda c: c.cells[-1].outputs[0].data.update({"text/plain": "reproduced"})),
        "it was changed after its execution",
    ),
    "the notebook's code": (
        edit_notebook(lambda c: c.cells[-1].update(source="page.judge()")),
        "it was changed after its execution",
    ),
    "the notebook's parameters": (
        edit_notebook(lambda c: c.metadata.papermill.parameters.update(epsilon=0.2)),
        f"{RESULT} is not its result",
    ),
    "the notebook executed elsewhere": (
        edit_notebook(lambda c: c.metadata.pop("ntklib")),
        "'ntklib'",
    ),
    "half a notebook": (
        lambda f: (f / EXECUTED).write_text((f / EXECUTED).read_text()[:500]),
        "Notebook does not appear to be JSON",
    ),
    "the result's key": (
        edit_result(lambda r: r["provenance"].update(key="0" * 64)),
        f"{RESULT} is not its result",
    ),
    "the result's verdict": (
        edit_result(lambda r: r["claims"][0].update(verdict="partly")),
        f"{RESULT} is not its result",
    ),
    "a field of the result": (edit_result(lambda r: r.pop("seeds")), "'seeds' is a required"),
    "half a result": (
        lambda f: (f / RESULT).write_text((f / RESULT).read_text()[:200]),
        "cannot be read",
    ),
    "the program": (
        lambda f: toy_book.replace(f / NOTEBOOK, "0.5 + epsilon", "0.4 + epsilon"),
        "its key does not fit the tree",
    ),
    "no notebook": (lambda f: (f / EXECUTED).unlink(), "No such file"),
    "no result": (lambda f: (f / RESULT).unlink(), "No such file"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_by_hand_is_not_trusted(what, built, monkeypatch):
    project = toy_book.use(built, monkeypatch)
    parameters = project.parameters("01_toy", "laptop")
    collect.trusted(project, "01_toy", "laptop", parameters)
    change, reason = TAMPERED[what]
    change(built)
    with pytest.raises(BuildError) as caught:
        collect.trusted(toy_book.use(built, monkeypatch), "01_toy", "laptop", parameters)
    assert str(caught.value).startswith(f"{EXECUTED} is not trusted: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_trusted_is_not_published(built):
    TAMPERED["the notebook's key"][0](built)
    page = (built / "build" / "html" / "notebooks" / "01_toy.html").read_bytes()
    done = toy_book.run(built, "workflow", "book")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {EXECUTED} is not trusted: its key does not fit the tree. "
        "Delete it, so that it is made again\n"
    )
    assert (built / "build" / "html" / "notebooks" / "01_toy.html").read_bytes() == page
    (built / EXECUTED).unlink()
    assert planned(built) == {"execute", "render"}


def test_a_run_reports_nothing_that_another_program_found(built):
    shutil.rmtree(built / ".snakemake")  # which remembers how files were made
    toy_book.replace(built / NOTEBOOK, "0.5 + epsilon", "0.4 + epsilon")
    done = toy_book.run(built, "workflow", "run", "toy")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not trusted: its key does not fit the tree" in done.stderr


# What a notebook that fails leaves.

JUDGE = "page.judge("
FAILURES = {
    "raises": (
        'raise ValueError("one\\ntwo")',
        'cell 6 (raise ValueError("one\\ntwo")): ValueError: two',
    ),
    "raises without a word": ("\nraise KeyError\n1", "cell 6 (raise KeyError): KeyError"),
    "dies": ("os._exit(1)", "cell 6 (os._exit(1)): DeadKernelError: Kernel died"),
    "stops before its end": (
        "import sys\nsys.exit(0)",
        "judge shows outcomes of the claims [], not of ['T1']",
    ),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_notebook_that_fails_is_told_in_two_lines(how, toy):
    cell, reason = FAILURES[how]
    toy_book.replace(toy / NOTEBOOK, JUDGE, f"1\n\n# %%\n{cell}\n\n# %%\n{JUDGE}")
    values = '{"profile": "laptop", "seeds": [0, 1, 2]}'
    done = toy_book.run(toy, "workflow.execute", "01_toy", "laptop", values)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        f"error: {NOTEBOOK}: {reason}",
        f"partial notebook: {FAILED}",
    ]
    assert (toy / FAILED).exists()
    assert not (toy / EXECUTED).exists()
    assert not (toy / RESULT).exists()


def test_a_kernel_that_does_not_start_is_told_in_two_lines(toy, tmp_path):
    (tmp_path / "ipykernel_launcher.py").write_text("raise ImportError('half an installation')")
    values = '{"profile": "laptop", "seeds": [0, 1, 2]}'
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{toy}"}
    done = toy_book.run(toy, "workflow.execute", "01_toy", "laptop", values, **path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        f"error: {NOTEBOOK}: the kernel did not start: ImportError: half an installation",
        f"partial notebook: {FAILED}",
    ]


OUTCOMES = {
    "none": (lambda c: c.cells.pop(), r"outcomes of the claims \[\], not of \['T1'\]"),
    "two": (
        lambda c: c.cells.append(c.cells[-1]),
        r"outcomes of the claims \['T1', 'T1'\], not of \['T1'\]",
    ),
    "another claim": (
        lambda c: c.cells[-1].outputs[0].data[claims.MIME].update(claim="T2"),
        r"outcomes of the claims \['T2'\], not of \['T1'\]",
    ),
    "another profile": (
        lambda c: c.cells[-1].outputs[0].data[claims.MIME].update(profile="paper"),
        "judged with profile paper, not laptop",
    ),
    "other seeds": (
        lambda c: c.cells[-1].outputs[0].data[claims.MIME].update(seeds=[0]),
        r"judged with seeds \[0\], not \[0, 1, 2\]",
    ),
}


@pytest.mark.parametrize("what", OUTCOMES)
def test_the_outcome_is_the_one_that_was_asked_for(what, first_book, monkeypatch):
    project = toy_book.use(first_book, monkeypatch)
    content = nbformat.read(first_book / EXECUTED, as_version=4)
    assert collect.collect(project, content) == claims.read_result(first_book / RESULT)
    change, reason = OUTCOMES[what]
    change(content)
    with pytest.raises(ValueError, match=reason):
        collect.collect(project, content)


def test_a_notebook_may_judge_several_claims(first_book, monkeypatch):
    project = toy_book.use(first_book, monkeypatch)
    registry = project.registry
    second = dataclasses.replace(registry["T1"], id="T2")
    both = dataclasses.replace(registry, claims=(registry["T1"], second))
    project.__dict__["registry"] = both
    content = nbformat.read(first_book / EXECUTED, as_version=4)
    content.cells.append(copy.deepcopy(content.cells[-1]))
    outcome = content.cells[-1].outputs[0].data[claims.MIME]
    outcome.update(claim="T2", verdict="partly", measurements={"more": [1]})
    found = collect.collect(project, content)
    assert [(name, claim.verdict) for name, claim in found.claims.items()] == [
        ("T1", "reproduced"),
        ("T2", "partly"),
    ]
    assert len(found.soundness) == 1  # both have the same
    assert found.measurements == {"more": [1]}
    assert project.published() == ["01_toy"]
    shown = of_results(project, {"laptop": found})
    assert shown.index("T1: verdict") < shown.index("T2: gap") < shown.index("T2: verdict")
    outcome.update(measurements={"more": [1]}, soundness=[])
    content.cells[-2].outputs[0].data[claims.MIME].update(measurements={"more": [2]})
    with pytest.raises(ValueError, match="two outcomes have a measurement of one name"):
        collect.collect(project, content)


def of_results(project, found):
    """What a page of the toy book says of results."""
    return stage.made("results.md", **stage.facts(project, "01_toy", found))


def test_a_record_may_be_older_than_a_claim(first_book, monkeypatch):
    project = toy_book.use(first_book, monkeypatch)
    found = claims.read_result(first_book / RESULT)
    of_both = {"laptop": found, "cifar": dataclasses.replace(found, claims={})}
    for part in ("in_short.md", "results.md"):
        shown = stage.made(part, **stage.facts(project, "01_toy", of_both))
        assert "reproduced" in shown
        assert "not run" in shown
    table = stage.claims_table(project, {"01_toy": of_both})
    assert 'data-verdict="reproduced"' in table
    assert 'data-verdict="not run"' in table


def test_a_page_begins_with_what_was_found(first_book, monkeypatch):
    project = toy_book.use(first_book, monkeypatch)
    cells = stage.page(project, "01_toy", "laptop", first_book / "data").cells
    assert cells[0].source == "# A toy"
    assert cells[1].source.startswith("## In short")
    assert 'href="#T1"' in cells[1].source
    assert "0.60 [0.60, 0.60]" in cells[1].source
    assert "make run NB=01_toy PROFILE=laptop" in cells[2].source
    tags = [cell.metadata.tags for cell in cells if cell.cell_type == "code"]
    assert [t for t in tags if not {"hide-input", "hide-cell"} & set(t)] == [["parameters"]]


@pytest.mark.parametrize("tagged", [True, False])
def test_the_key_figure_stands_first_and_each_figure_has_its_numbers(tagged, tmp_path):
    told = {
        "name": "fig-a",
        "alt": "one",
        "caption": "two",
        "width": "700px",
        "csv": "panel,x\n1,2\n",
    }
    data = {"image/png": "iVBO", "text/html": "<figure>"}
    shown = v4.new_output("display_data", data, metadata={"ntklib.figure": told})
    tags = {"tags": ["key-figure"]} if tagged else {}
    content = v4.new_notebook(cells=[v4.new_code_cell("x", outputs=[shown], metadata=tags)])
    stage.as_figures(content, tmp_path / "01_a")
    assert (tmp_path / "01_a" / "fig-a.csv").read_text() == told["csv"]
    assert content.cells[0].metadata.mystnb.figure["name"] == "fig-a"
    assert "../data/01_a/fig-a.csv" in content.cells[0].metadata.mystnb.figure["caption"]
    first = stage.key_figure(content)
    assert (first is not None) is tagged
    if first:
        assert "remove-input" in first.metadata.tags
        assert "figure" not in first.metadata.mystnb  # the name is that of the other


def test_each_claim_says_how_to_cite_it_and_its_paper(first_book, monkeypatch):
    project = toy_book.use(toy_book.ROOT, monkeypatch)
    for claim in project.registry.claims:
        shown = html.unescape(stage.made("claim.html", **stage.citations(project, claim)))
        own, paper = re.findall(r"@\w+{([^,]+),", shown)
        assert (own, paper) == (f"ntkcompanion-{claim.id}", claim.paper.key)
        assert f"title  = {{{claim.id}. {claim.title}}}," in shown
        assert shown.count("{") == shown.count("}")


def test_all_results_are_data_too(first_book):
    data = json.loads((first_book / "build" / "html" / "claims.json").read_text())
    [claim] = data["claims"]
    assert claim["page"] == "notebooks/01_toy.html#T1"
    [found] = claim["results"]
    assert (found["verdict"], found["record"]) == ("reproduced", None)
    assert found["checks"][0]["value"] == 0.6
    assert found["key"] == claims.read_result(first_book / RESULT).provenance.key


def test_numbers_that_were_reported_stand_beside_ours(first_book, monkeypatch):
    project = toy_book.use(first_book, monkeypatch)
    measured = {name: claims.estimate([0.5]) for name in ("accuracy", "another")}
    found = dataclasses.replace(claims.read_result(first_book / RESULT), measurements=measured)
    assert "reported</th>" not in of_results(project, {"laptop": found})
    printed = claims.Reported(0.5, "a half", "a demo", {"accuracy": 0.25})
    claim = dataclasses.replace(project.registry["T1"], reported=printed)
    project.__dict__["registry"] = dataclasses.replace(project.registry, claims=(claim,))
    shown = of_results(project, {"laptop": found}).partition("## How this page was made")[0]
    assert "Reported for T1: a half (a demo)." in shown
    assert '<th scope="col">reported</th>' in shown
    rows = {row.split("</th>")[0]: row for row in shown.split('<th scope="row">')[1:]}
    assert rows["accuracy"].count("<td>") == 2
    assert "<td>0.25</td>" in rows["accuracy"]
    assert all("<td>–</td>" in row for name, row in rows.items() if name != "accuracy")


def test_no_text_of_a_result_is_taken_for_html(first_book, monkeypatch):
    project = toy_book.use(first_book, monkeypatch)
    text = "\"><b>'&"
    finding = claims.Soundness(text, 0.0, 0.0, True, text)
    found = claims.read_result(first_book / RESULT)
    made = dataclasses.replace(found.provenance, device=text, packages={text: text})
    found = dataclasses.replace(
        found, soundness=[finding], measurements={text: claims.estimate([1.0])}, provenance=made
    )
    claim = dataclasses.replace(project.registry["T1"], id=text, title=text)
    project.__dict__["registry"] = dataclasses.replace(project.registry, claims=(claim,))
    found = dataclasses.replace(found, claims={text: found.claims["T1"]})
    for part in ("results.md", "in_short.md"):
        shown = stage.made(part, **stage.facts(project, "01_toy", {"laptop": found}))
        assert text in html.unescape(shown)
        assert "<b>" not in shown


def test_a_page_names_the_profiles_that_it_has_no_result_of(first_book, monkeypatch):
    project = toy_book.use(first_book, monkeypatch)
    found = claims.read_result(first_book / RESULT)
    missing = "Prepared, but not run for this page: the profile"
    assert f"\n{missing} `cifar`.\n" in of_results(project, {"laptop": found})
    assert missing not in of_results(project, {"laptop": found, "cifar": found})
    assert (
        f"{missing} `cifar`."
        in stage.page(project, "01_toy", "laptop", first_book / "data").cells[-1].source
    )
    project.profiles["paper"]["01_toy"] = {}
    assert f"{missing}s `cifar` and `paper`." in of_results(project, {"laptop": found})


def test_the_book_says_on_how_many_checks_fresh_seeds_agree(first_book, monkeypatch):
    project = toy_book.use(first_book, monkeypatch)
    assert "no record of the profile `fresh`" in stage.agreement(project, "laptop")
    found = claims.read_result(first_book / RESULT)
    (first_book / "profiles" / "fresh.yml").write_text("extends: laptop\nnotebooks:\n  01_toy:\n")
    project = toy_book.use(first_book, monkeypatch)
    record = first_book / "records" / "01_toy" / "fresh.json"
    claims.write_result(record, dataclasses.replace(found, profile="fresh"))
    assert "Of 1 checks, 1 have the same outcome." in stage.agreement(project, "laptop")
    checks = {"gap": dataclasses.replace(found.claims["T1"].checks["gap"], passed=None)}
    other = dataclasses.replace(found.claims["T1"], checks=checks)
    claims.write_result(record, dataclasses.replace(found, profile="fresh", claims={"T1": other}))
    shown = stage.agreement(project, "laptop")
    assert "Of 1 checks, 0 have the same outcome." in shown
    assert "| T1: gap | 0.600" in shown
    assert ": undecided |" in shown


def test_the_page_on_intervals_has_each_cell_of_the_simulation(tmp_path):
    row = {"kind": "mean", "seeds": 3, "points": 100, "shared": True}
    rows = [row | {"spread": 0.0, "covered": 0.94}, row | {"spread": 0.1, "covered": 0.961}]
    (tmp_path / "coverage.json").write_text(json.dumps({"trials": 9, "rows": rows}))
    shown = stage.coverage(tmp_path / "coverage.json")
    assert "| mean | 3 | 100, the same for all seeds | 94.0 to 96.1 % |" in shown
    assert "9 trials a cell" in shown


def test_the_page_of_benchmarks_has_each_ratio_beside_its_peer(tmp_path):
    [path] = (toy_book.ROOT / "benchmarks" / "results").glob("cpu-2.json")
    content = json.loads(path.read_text())
    shown = html.unescape(stage.benchmarks_tables([path]))
    for work in content["works"].values():
        assert work["title"] in shown
        for name, ratio in work["ratios"].items():
            assert name == "ntklib" or f"{ratio:.2f} {name}" in shown
    assert shown.count("✔ reached") == sum(w["reached"] for w in content["works"].values())
    assert "not reached" not in shown
    next(iter(content["works"].values()))["reached"] = False
    (tmp_path / "slow.json").write_text(json.dumps(content))
    assert "✘ not reached" in stage.benchmarks_tables([tmp_path / "slow.json"])


def test_a_notebook_that_fails_never_reaches_the_book(built):
    book = toy_book.files(built / "build" / "html")
    book.pop(".buildinfo")
    toy_book.replace(built / NOTEBOOK, "quantities = {", "1 / 0  # as it must\nquantities = {")
    done = toy_book.run(built, "workflow", "book")
    assert done.returncode == 1
    assert done.stdout == ""
    assert progress(done.stderr) == ["01_toy (laptop): started"]
    assert other_lines(done.stderr) == [
        f"error: {NOTEBOOK}: cell 5 (1 / 0  # as it must): ZeroDivisionError: division by zero",
        f"partial notebook: {FAILED}",
    ]
    assert (built / FAILED).exists()
    assert not (built / EXECUTED).exists()
    after = toy_book.files(built / "build" / "html")
    after.pop(".buildinfo", None)
    assert after == book


def test_a_book_that_does_not_render_leaves_the_one_before(built):
    book = toy_book.files(built / "build" / "html")
    book.pop(".buildinfo")
    toy_book.replace(built / "book" / "index.md", "# Toys", "# Toys\n\n[](nowhere.md)\n")
    done = toy_book.run(built, "workflow", "book")
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == "error: jupyter-book failed; the book at build/html is the one before"
    assert toy_book.files(built / "build" / "html") == book


# The other ways to run a notebook.


def test_a_record_is_the_result_of_a_run(built):
    done = toy_book.run(built, "workflow", "record", "toy", TOY_LOG=built / "log")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "record: records/01_toy/laptop.json"
    record = built / "records" / "01_toy" / "laptop.json"
    assert record.read_bytes() == (built / RESULT).read_bytes()
    assert executions(built) == [0.1]


@pytest.mark.parametrize("page", ["README.md", "book/how_to_read.md"])
def test_papermill_runs_a_notebook_as_readers_are_told(page, toy):
    text = (toy_book.ROOT / page).read_text()
    [command] = re.findall(r"^jupytext .*\n.*papermill .*$", text, re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | {"TOY_LOG": "log", "PATH": path}
    command = command.replace("01_ntk_transfer", "01_toy")
    subprocess.run(["sh", "-c", command], cwd=toy, env=environ, check=True, capture_output=True)
    assert executions(toy) == [0.2]
    [shown] = nbformat.read(toy / "out.ipynb", as_version=4).cells[-1].outputs
    assert shown.data[claims.MIME]["seeds"] == [7, 8, 9]
