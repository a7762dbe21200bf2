"""pyproject.toml, the locks, environment.yml, postBuild and the Makefile fit each other."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
NOTEBOOKS_LOCK = (ROOT / "notebooks.lock").read_text(encoding="utf-8")
ENVIRONMENT = (ROOT / "environment.yml").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
SUPPORTED = SpecifierSet(PROJECT["requires-python"])
PYTHONS = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in SUPPORTED]
UNUSED = {"tensorflow", "tf2jax"}  # what neural-tangents asks for besides


def entries(lock: str) -> list[tuple[Requirement, list[str]]]:
    """Every entry of a lock with its hashes."""
    lines = lock.replace("\\\n", " ").splitlines()
    split = [line.split("--hash=") for line in lines if line and not line.lstrip().startswith("#")]
    return [(Requirement(name), [h.strip() for h in hashes]) for name, *hashes in split]


def locked(python: str | None = None, lock: str = LOCK) -> dict[str, str]:
    """Version of each package that a lock installs on Linux, or in this very environment."""
    where = None
    if python:
        where = {"python_version": python, "python_full_version": f"{python}.20"}
        where |= {"sys_platform": "linux", "platform_python_implementation": "CPython"}
        where |= {"implementation_name": "cpython"}
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement, _ in entries(lock)
        if requirement.marker is None or requirement.marker.evaluate(where)
    }


def faults(lock: str) -> list[str]:
    """What makes pip install from a lock something that the lock does not fix."""
    if addresses := re.findall(r"^--.*|^.*://.*", lock, re.MULTILINE):
        return addresses
    found = []
    for requirement, hashes in entries(lock):
        if not re.fullmatch(r"==[^*,]+", str(requirement.specifier)):
            found.append(f"{requirement}: not one version")
        if not hashes or not all(re.fullmatch("sha256:[0-9a-f]{64}", h) for h in hashes):
            found.append(f"{requirement}: no hash, or one that is not SHA-256")
        if requirement.name in UNUSED:
            found.append(f"{requirement}: is not used")
    return found


@pytest.mark.parametrize("lock", [LOCK, NOTEBOOKS_LOCK], ids=["all", "notebooks"])
def test_the_lock_fixes_everything(lock: str) -> None:
    assert faults(lock) == []


@pytest.mark.parametrize(
    ("pattern", "edit"),
    [
        (r"^scipy==", "scipy>="),
        (r"(^optax==\S+)(?: \\\n +--hash=\S+)+", r"\1"),
        (r"--hash=sha256:", "--hash=md5:"),
        (r"\A", "--index-url https://example.org/simple\n"),
        (r"^scipy==", "tensorflow=="),
    ],
)
def test_an_edited_lock_is_noticed(pattern: str, edit: str) -> None:
    edited, count = re.subn(pattern, edit, LOCK, count=1, flags=re.MULTILINE)
    assert count == 1
    assert faults(edited) != []


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_satisfies_every_dependency(python: str) -> None:
    extras = PROJECT["optional-dependencies"].values()
    for text in sum(extras, PROJECT["dependencies"]):
        requirement = Requirement(text)
        version = locked(python)[requirement.name]
        assert requirement.specifier.contains(version, prereleases=True), (text, version)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_notebooks_have_what_they_need_and_no_more(python: str) -> None:
    everything, here = locked(python), locked(python, NOTEBOOKS_LOCK)
    assert here.items() <= everything.items()
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + extras["notebooks"] + extras["build"]:
        assert Requirement(text).name in here
    more = {Requirement(text).name for name in ("docs", "tests") for text in extras[name]}
    assert not more & set(here)


def test_conda_gives_python_and_what_installs_the_rest() -> None:
    dependencies = yaml.safe_load(ENVIRONMENT)["dependencies"]
    assert set(dependencies) == {f"python={PYTHONS[0]}", "pip", "make"}


def test_every_place_names_the_same_pythons() -> None:
    lower = PYTHONS[0]
    limits = [int(version.removeprefix("3.")) for version in (lower, PYTHONS[-1])]
    assert f"(3, {limits[0]}) <= v < (3, {limits[1] + 1})" in MAKEFILE  # make env refuses others
    assert f"--python-version {lower}" in MAKEFILE  # the lock starts there
    assert PYPROJECT["tool"]["mypy"]["python_version"] == lower
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    inputs = [step.get("with", {}) for step in ci["run"]["steps"]]
    run = [given["python-version"] for given in inputs if "python-version" in given]
    assert run + ci["tests"]["strategy"]["matrix"]["python"] == PYTHONS


def test_make_and_postbuild_install_from_the_lock_alike() -> None:
    commands = [
        re.findall(r"pip install .*", text)
        for text in (MAKEFILE, (ROOT / "postBuild").read_text(encoding="utf-8"))
    ]
    plain = [[line.replace("--disable-pip-version-check ", "") for line in c] for c in commands]
    peers = ["torch==2.13.0 pyautoattack==0.2.0", "roc-validator==0.13.0 cffconvert==2.0.0"]
    assert plain[0][-2:] == [f"pip install --quiet {packages}" for packages in peers]
    del plain[0][-2:]
    assert "--no-deps --require-hashes -r requirements.lock" in plain[0][0]
    assert [line.replace("requirements.lock", "notebooks.lock") for line in plain[0]] == plain[1]
    assert os.access(ROOT / "postBuild", os.X_OK)


def test_this_environment_is_the_locked_one() -> None:
    installed = {name: metadata.version(name) for name in locked()}
    assert installed == locked()


def test_the_lock_lacks_nothing_that_its_packages_need() -> None:
    command = [sys.executable, "-m", "pip", "check"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    missing = {f"neural-tangents 0.6.5 requires {name}, which is not installed." for name in UNUSED}
    assert set(lines) == missing
