"""Continuous integration: the workflows, and the script .ci/run that they call."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / ".github/workflows").iterdir()}
RIGHTS = {"pages": {"pages", "id-token"}, "notebooks": {"contents"}}  # what a job may write
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def problems(text: str) -> list[str]:
    """What makes a workflow unsafe or able to hang."""
    content = yaml.load(text, yaml.BaseLoader)  # for the safe loader the key `on` is True
    found = []
    if content.get("permissions") != {"contents": "read"}:
        found.append("permissions: a job gets more than it asks for")
    if triggers := {"pull_request_target", "workflow_run"} & set(content["on"]):
        found.append(f"on: {triggers} runs a stranger's change with the rights of the project")
    if "secrets" in text:
        found.append("secrets: none are needed")
    for use in re.findall(r"uses: (.*)", text):
        own = use.partition(" # ")[0]
        if not PINNED.fullmatch(use) and not (own.startswith("./") and (ROOT / own).is_file()):
            found.append(f"uses: {use} is not pinned by SHA, with its version")
    for name, job in content["jobs"].items():
        if "uses" not in job and "timeout-minutes" not in job:
            found.append(f"{name}: has no time limit")
        if more := set(job.get("permissions", {})) - RIGHTS.get(name, set()):
            found.append(f"{name}: may write {more}")
        for step in job.get("steps", []):
            keeps = step.get("with", {}).get("persist-credentials") != "false"
            if "actions/checkout@" in step.get("uses", "") and keeps:
                found.append(f"{name}: keeps credentials in a file")
            if "${{" in step.get("run", ""):
                found.append(f"{name}: an expression is pasted into a script")
    return found


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_safe(name: str) -> None:
    assert problems(WORKFLOWS[name]) == []


@pytest.mark.parametrize(
    ("name", "pattern", "edit"),
    [
        ("ci.yml", r"@[0-9a-f]{40} # v", "@v"),
        ("ci.yml", r"([0-9a-f]{40}) # v.*", r"\1"),
        ("ci.yml", r"@[0-9a-f]{40}", "@de0fac2"),
        ("ci.yml", r"contents: read", "contents: write"),
        ("ci.yml", r"^permissions:\n.*\n", ""),
        ("ci.yml", r"pull_request:", "pull_request_target:"),
        ("ci.yml", r"persist-credentials: false", "fetch-depth: 0"),
        ("ci.yml", r"^    timeout-minutes: .*\n", ""),
        ("ci.yml", r"run: \.ci/run", "run: .ci/run ${{ github.head_ref }}"),
        ("ci.yml", r"run: \.ci/run", "run: .ci/run ${{ secrets.KEY }}"),
        ("publish.yml", r"uses: \./.*", "uses: ./.github/workflows/missing.yml"),
        ("publish.yml", r"contents: write.*", "packages: write"),
        ("publish.yml", r"persist-credentials: false", "fetch-depth: 0"),
    ],
)
def test_an_unsafe_edit_is_noticed(name: str, pattern: str, edit: str) -> None:
    edited, count = re.subn(pattern, edit, WORKFLOWS[name], count=1, flags=re.MULTILINE)
    assert count == 1
    assert problems(edited) != []


def test_one_revision_of_an_action_has_one_version() -> None:
    uses = {u for text in WORKFLOWS.values() for u in re.findall(r"uses: (.*@.*)", text)}
    assert len(uses) == len({use.partition("@")[0] for use in uses})


def test_every_change_runs_the_script() -> None:
    ci = yaml.load(WORKFLOWS["ci.yml"], yaml.BaseLoader)
    assert {"push", "pull_request", "workflow_call"} <= set(ci["on"])
    assert {"run": ".ci/run"} in ci["jobs"]["run"]["steps"]
    assert ci["on"]["push"]["branches-ignore"] == ["main", "notebooks"]
    publish = yaml.load(WORKFLOWS["publish.yml"], yaml.BaseLoader)
    assert publish["on"]["push"]["branches"] == ["main"]
    assert publish["jobs"]["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert {publish["jobs"][name]["needs"] for name in ("pages", "notebooks")} == {"ci"}


def test_an_auditor_finds_nothing() -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    command = [zizmor, "--offline", "--no-progress", ROOT / ".github"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_branch_of_notebooks_changes_only_with_its_content(tmp_path: Path) -> None:
    jobs = yaml.load(WORKFLOWS["publish.yml"], yaml.BaseLoader)["jobs"]
    script = jobs["notebooks"]["steps"][-1]["run"]
    checkout, content, gh = tmp_path / "work", tmp_path / "run/notebooks", tmp_path / "bin/gh"
    for folder in (checkout, content, gh.parent):
        folder.mkdir(parents=True)
    gh.write_text("#!/bin/sh\n")  # it would tell git how to log in
    gh.chmod(0o755)
    environ = os.environ | {"PATH": f"{gh.parent}{os.pathsep}{os.environ['PATH']}"}
    environ |= {"RUNNER_TEMP": str(content.parent), "GITHUB_SHA": "0123abc"}

    def git(*arguments: str, where: Path = checkout) -> str:
        done = subprocess.run(["git", *arguments], cwd=where, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def published(text: str) -> str:
        (content / "postBuild").write_text(text)
        subprocess.run(["bash", "-e", "-c", script], cwd=checkout, env=environ, check=True)
        return git("rev-parse", "notebooks", where=tmp_path / "remote")

    git("init", "--bare", str(tmp_path / "remote"))
    git("init")
    git("remote", "add", "origin", str(tmp_path / "remote"))
    first = published("one")
    time.sleep(1.1)  # a commit of another second is another commit
    assert published("one") == first
    assert published("two") != first
    assert git("show", "notebooks:postBuild", where=tmp_path / "remote") == "two"


Run = Callable[..., subprocess.CompletedProcess[str]]

MAKE = """\
#!/usr/bin/env bash
echo "make $1 ${CI:-}"
[ "$1" != "$FAIL" ] || exit 2
if [ "$1" = book ]; then
  mkdir -p build/executed/laptop build/html
  for page in build/executed/laptop/01_x.ipynb build/html/index.html; do
    [ -e "$page" ] && [ "$FAIL" != again ] || echo > "$page"
  done
fi
"""
OTHER = """\
#!/usr/bin/env bash
echo "$(basename "$0") $1"
[ "$(basename "$0") $1" != "$FAIL" ]
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Calls .ci/run in a folder where every program that it starts only says its name."""
    clone, programs = tmp_path / "clone", tmp_path / "bin"
    (clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", clone / ".ci/run")
    for path in (programs / "apt-get", clone / ".venv/bin/ruff", clone / ".venv/bin/mypy"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(OTHER)
        path.chmod(0o755)
    (programs / "make").write_text(MAKE)
    (programs / "make").chmod(0o755)
    (programs / "id").write_text("#!/bin/sh\necho ${ID:-1000}")
    (programs / "id").chmod(0o755)
    (programs / "sleep").symlink_to("/bin/true")

    def call(fail: str, **environ: str) -> subprocess.CompletedProcess[str]:
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        outside = {name: value for name, value in os.environ.items() if name != "CI"}
        return subprocess.run(
            [clone / ".ci/run"],
            cwd=tmp_path,
            env=outside | {"PATH": path, "FAIL": fail} | environ,
            capture_output=True,
            text=True,
        )

    return call


def called(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.strip() for line in done.stdout.splitlines() if not line.startswith("==")]


STEPS = ["make env", "make peers", "ruff check", "ruff format", "mypy", "make book", "make book"]


def test_the_script_runs_every_check_and_ends_with_the_tests(run: Run) -> None:
    done = run(fail="nothing")
    assert (done.returncode, done.stderr) == (0, "")
    assert called(done) == [*STEPS, "make test true"]


@pytest.mark.parametrize(
    ("fail", "status", "last"),
    [
        ("env", 2, 0),
        ("ruff check", 1, 2),
        ("ruff format", 1, 3),
        ("mypy ", 1, 4),
        ("book", 2, 5),
        ("again", 1, 6),
    ],
)
def test_the_script_stops_where_a_check_fails(run: Run, fail: str, status: int, last: int) -> None:
    done = run(fail=fail)
    assert done.returncode == status
    assert called(done) == STEPS[: last + 1]
    if fail == "again":
        assert done.stderr.startswith("error: the second make book wrote these again:\n")
        assert "01_x.ipynb" in done.stderr


def test_the_script_passes_on_that_tests_fail(run: Run) -> None:
    assert run(fail="test").returncode == 2


def test_root_gets_a_browser(run: Run) -> None:
    done = run(fail="nothing", ID="0")
    assert called(done)[0] == "apt-get update"
    assert called(done)[1:] == [*STEPS, "make test true"]


def test_peers_that_fail_to_install_are_tried_twice(run: Run) -> None:
    done = run(fail="peers")
    assert (done.returncode, called(done)) == (2, ["make env", "make peers", "make peers"])


def test_a_failed_installation_is_tried_twice(run: Run) -> None:
    done = run(fail="apt-get install", ID="0")
    assert (done.returncode, called(done)) == (1, ["apt-get update"] * 2)
