"""The runner on machines as they are: cores, folders, settings and programs of all kinds."""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest
import toy_book

from ntklib import claims
from workflow import __main__ as runner
from workflow import machine

VALUES = json.dumps({"profile": "laptop", "seeds": [0, 1, 2]})
RESULT = "build/results/01_toy/laptop.json"
EXECUTED = "build/executed/laptop/01_toy.ipynb"


@pytest.fixture
def toy(tmp_path):
    return toy_book.write(tmp_path / "book")


def shown(folder, code, *command, **environ):
    """What an expression is in the kernel of the toy's notebook."""
    toy_book.replace(folder / "notebooks/01_toy.py", "\nclaims.__file__\n", f"\n{code}\n")
    done = toy_book.run(
        folder, *(command or ("workflow.execute", "01_toy", "laptop", VALUES)), **environ
    )
    assert done.returncode == 0, done.stderr
    content = nbformat.read(folder / EXECUTED, as_version=4)
    [text] = [o.data["text/plain"] for o in content.cells[-2].outputs]
    return eval(text)


# Cores.


@pytest.mark.parametrize(
    ("allowed", "nproc", "cores"),
    [
        ({0, 1, 5}, None, 3),
        ({3}, None, 1),
        ({0, 1, 5}, "2", 2),
        ({0, 1}, "8", 2),
        ({0, 1}, "0", 1),
        ({0, 1}, "", 2),
        ({0, 1}, "all", 2),
    ],
)
def test_cores_are_those_allowed(allowed, nproc, cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    if nproc is not None:
        monkeypatch.setenv("NPROC", nproc)
    assert machine.cores() == cores


@pytest.mark.parametrize(
    ("given", "level"),
    [("", "2"), ("--xla_backend_optimization_level=1 --xla_cpu_enable_fast_math=false", "1")],
)
def test_what_is_given_to_xla_is_kept(given, level):
    code = "import os, workflow; print(os.environ['XLA_FLAGS'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"XLA_FLAGS": given},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    flags = done.stdout.split()
    assert [f for f in flags if "level" in f] == [f"--xla_backend_optimization_level={level}"]
    assert set(given.split()) <= set(flags)
    assert "--xla_cpu_use_fusion_emitters=false" in flags


THREADS = """\
import jax, numpy, threadpoolctl
from pathlib import Path

jax.numpy.ones((99, 99)).dot(jax.numpy.ones((99, 99))).block_until_ready()
names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
names.count("tf_XLAEigen"), pools, os.environ["NPROC"]"""
CORES = machine.cores()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("command", "threads"), [("book", 1), ("run toy", CORES)])
def test_a_page_has_as_many_threads_as_it_is_given(command, threads, toy):
    found = shown(toy, THREADS, "workflow", *command.split())
    assert found == (threads, {threads}, str(threads))


# A page waits until another one is there, too; when they cannot be, it says so.
MEETING = """\
me = os.path.basename(page.notebook)
open(f"here-{me}", "w").close()
for _ in range(1200 if os.environ["TOY_MEET"] == "yes" else 10):
    there = sum(name.startswith("here-") for name in os.listdir())
    if there == 2:
        break
    time.sleep(0.1)
os.remove(f"here-{me}") if os.environ["TOY_MEET"] == "no" else time.sleep(0.5)
assert there == {"yes": 2, "no": 1}[os.environ["TOY_MEET"]]"""


@pytest.mark.parametrize("allowed", [1, 2])
def test_as_many_pages_are_executed_at_once_as_there_are_cores(allowed, toy):
    if allowed > CORES:
        pytest.skip("only one core is allowed here")
    toy_book.replace(toy / "notebooks/01_toy.py", "\nclaims.__file__\n", f"\n{MEETING}\n")
    toy_book.add(toy, 2)
    environ = {"NPROC": allowed, "TOY_MEET": {1: "no", 2: "yes"}[allowed]}
    done = toy_book.run(toy, "workflow", "book", **environ)
    assert done.returncode == 0, done.stderr


def test_a_page_that_fails_does_not_cost_the_others(toy):
    toy_book.add(toy, 2)
    toy_book.replace(toy / "notebooks/01_toy.py", "quantities = {", "1 / 0\nquantities = {")
    done = toy_book.run(toy, "workflow", "book")
    assert done.returncode == 1
    assert (toy / "build/results/02_toy/laptop.json").exists()
    assert not (toy / "build/html").exists()
    lines = [re.sub(r"\d+ s$", "", line) for line in done.stderr.splitlines()]
    assert sorted(lines) == [
        "01_toy (laptop): started",
        "02_toy (laptop): done in ",
        "02_toy (laptop): started",
        "error: notebooks/01_toy.py: cell 5 (1 / 0): ZeroDivisionError: division by zero",
        "partial notebook: build/failed/01_toy.ipynb",
    ]


# Folders and programs.


def other_kernel(folder):
    """A kernel of another Python, under the name of ours, where Jupyter looks first."""
    spec = {"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}
    path = folder / "kernels/python3/kernel.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(spec))
    return folder


@pytest.mark.parametrize("name", ["JUPYTER_PATH", "JUPYTER_DATA_DIR", "HOME"])
def test_the_kernel_is_this_python(name, toy, tmp_path):
    place = "other/.local/share/jupyter" if name == "HOME" else "other"
    other_kernel(tmp_path / place)
    assert shown(toy, "import sys\nsys.executable", **{name: tmp_path / "other"}) == sys.executable


@pytest.mark.parametrize("runtime", [True, False])
def test_a_long_path_for_temporary_files_does(runtime, toy, tmp_path):
    long = tmp_path / ("t" * 100)
    long.mkdir()
    environ = {"TMPDIR": long, "XDG_RUNTIME_DIR": tmp_path if runtime else ""}
    assert shown(toy, "import tempfile\ntempfile.gettempdir()", **environ) == str(long)


def test_without_any_short_path_it_says_so(tmp_path, monkeypatch):
    long = tmp_path / ("t" * 100)
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(long))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(machine.BuildError, match=r"^TMPDIR: "), machine.folder_for_sockets():
        pass


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *identity, *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def committed(folder):
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "all")
    return git(folder, "rev-parse", "HEAD")


def revision(folder, **environ):
    done = toy_book.run(folder, "workflow.execute", "01_toy", "laptop", VALUES, **environ)
    assert done.returncode == 0, done.stderr
    provenance = claims.read_result(folder / RESULT).provenance
    return provenance.commit, provenance.dirty


def test_the_commit_is_that_of_the_tree(toy):
    (toy / ".gitignore").write_text("/build/\n__pycache__/\n")
    commit = committed(toy)
    assert revision(toy) == (commit, False)
    toy_book.replace(toy / "notebooks/01_toy.py", "# A toy", "# Another toy")
    assert revision(toy) == (commit, True)


def test_another_repository_is_not_ours(toy, tmp_path):
    (tmp_path / ".gitignore").write_text("/book/\n")
    committed(tmp_path)
    assert revision(toy) == (None, False)
    assert revision(toy, GIT_DIR=tmp_path / ".git") == (None, False)


def test_git_is_not_needed(toy, tmp_path):
    committed(toy)
    (tmp_path / "empty").mkdir()
    assert revision(toy, PATH=tmp_path / "empty") == (None, False)


def test_settings_of_snakemake_and_a_home_folder_that_is_not_there_change_nothing(toy, tmp_path):
    for place in (tmp_path / "mine", toy / "profiles/default"):
        place.mkdir()
        (place / "config.yaml").write_text("dry-run: true\nexecutor: nothing\n")
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), "/dev/null/home")
    code, environ = (
        'os.environ["XDG_CACHE_HOME"]',
        nowhere | {"SNAKEMAKE_PROFILE": tmp_path / "mine"},
    )
    assert shown(toy, code, "workflow", "book", **environ) == "/dev/null/home"


def test_no_script_of_the_environment_is_started(tmp_path):
    """Its first line names the folder where the environment was made, which may have moved."""
    toy = toy_book.write(tmp_path / "book")
    venv.create(tmp_path / "venv", symlinks=True)
    [packages] = (tmp_path / "venv/lib").glob("*/site-packages")
    (packages / "all.pth").write_text(str(Path(pytest.__file__).parents[1]))
    environ = os.environ | {"NTKLIB_BACKEND": "cpu"}
    done = subprocess.run(
        [tmp_path / "venv/bin/python", "-m", "workflow", "book"],
        cwd=toy,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    makefile = (toy_book.ROOT / "Makefile").read_text()
    assert set(re.findall(r"\$\(BIN\)/(\S+)", makefile)) == {"python"}


def test_a_folder_of_data_may_be_below_the_home_folder(toy, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(runner, "_snakemake", lambda *_, **__: seen.update(os.environ) or exit(0))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(toy)
    for given, folder in {"~/data": tmp_path / "data", "data": toy / "data"}.items():
        monkeypatch.setenv("NTKLIB_DATA", given)
        with pytest.raises(SystemExit):
            runner.main(["run", "toy"], toy_book.use(toy, monkeypatch))
        assert seen["NTKLIB_DATA"] == str(folder)
