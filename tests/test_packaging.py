"""What pip installs as ntklib, and the notebooks as Colab and Binder get them."""

import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ntklib import claims
from workflow import portable
from workflow.errors import UsageError
from workflow.notebook import Notebook
from workflow.plan import Project

ROOT = Path(__file__).parents[1]
ADDRESS = "git+https://github.com/me/book@0123abc"
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def branch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the branch `notebooks`."""
    folder = tmp_path_factory.mktemp("portable") / "branch"
    portable.write(Project(), folder, ADDRESS)
    return folder


@pytest.fixture(scope="module", params=["checkout", "branch"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ntklib's wheel, built from the sources, or from the branch that Binder installs."""
    source = ROOT if request.param == "checkout" else request.getfixturevalue("branch")
    folder = tmp_path_factory.mktemp("wheel")
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_library_and_the_data_of_the_book_only(wheel: Path) -> None:
    kinds = (".py", ".yml", ".html", ".mplstyle", ".typed")
    sources = [p for p in (ROOT / "ntklib").rglob("*") if p.suffix in kinds]
    expected = {str(p.relative_to(ROOT)) for p in sources} | {"ntklib/claims.yml"}
    assert {"ntklib/__init__.py", "ntklib/claims/schemas/registry.yml"} < expected
    records = {f"ntklib/{p.relative_to(ROOT)}" for p in (ROOT / "records").rglob("*.json")}
    assert "ntklib/records/01_ntk_transfer/cifar.json" in records
    expected |= records
    expected |= {f"ntklib/profiles/{p.name}" for p in (ROOT / "profiles").iterdir()}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert archive.read("ntklib/claims.yml") == (ROOT / "book/claims.yml").read_bytes()
    assert names == expected


def test_the_installed_library_finds_its_claims_and_records(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", target, wheel], check=True)
    show = """
import ntklib
from ntklib import claims

page = claims.Page("01_ntk_transfer", profile="laptop", seeds=[0], provenance={})
print(ntklib.__file__, page.record("cifar").profile, *(c.id for c in claims.load().claims))
"""
    done = subprocess.run(
        [sys.executable, "-c", show],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    file, profile, *found = done.stdout.split()
    assert Path(file) == target / "ntklib" / "__init__.py"
    assert profile == "cifar"
    assert found == [claim.id for claim in claims.load().claims]


IMPORT_ALL = """
import importlib, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Missing())
import ntklib
for module in pkgutil.walk_packages(ntklib.__path__, "ntklib."):
    if module.name not in ("ntklib._neural_tangents", "ntklib.explore", "ntklib.plots"):
        importlib.import_module(module.name)
ntklib.data.load("mnist5k", n_train=10, n_test=10)
"""


def test_the_library_works_without_the_packages_of_the_book() -> None:
    missing = ["neural_tangents", "IPython", "ipykernel", "matplotlib", "mlxtend", "tensorflow"]
    command = [sys.executable, "-c", IMPORT_ALL, *missing]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_to_install_the_library_brings_no_package_of_the_book() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    left, brought = [Requirement(text) for text in project["dependencies"]], set()
    while left:
        requirement = left.pop()
        environment = {"extra": ""}
        name = canonicalize_name(requirement.name)
        if name in brought or (requirement.marker and not requirement.marker.evaluate(environment)):
            continue
        brought.add(name)
        left += map(Requirement, metadata.requires(name) or ())
    assert {"jax", "flax", "mlxtend", "optax", "orbax-checkpoint"} < brought
    assert not brought & {"neural-tangents", "tensorflow", "tf2jax", "ipython", "ipykernel"}


def test_the_branch_is_the_same_every_time(branch: Path, tmp_path: Path) -> None:
    portable.write(Project(), tmp_path / "again", ADDRESS)
    first, again = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (branch, tmp_path / "again")
    )
    assert first == again
    assert {Path("postBuild"), Path("environment.yml"), Path("notebooks.lock")} < set(first)
    assert os.access(branch / "postBuild", os.X_OK)


@pytest.mark.parametrize("notebook", Project().notebooks)
def test_a_notebook_is_valid_and_not_executed(branch: Path, notebook: str) -> None:
    content = nbformat.read(branch / "notebooks" / f"{notebook}.ipynb", as_version=4)
    nbformat.validate(content)
    assert ADDRESS in content.cells[0].source
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    (parameters,) = [c for c in content.cells if "parameters" in c.metadata.get("tags", [])]
    assert "profile: str" in parameters.source
    assert content.metadata.kernelspec.name == "python3"


def test_nothing_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    source = tmp_path / "01_writes.py"
    source.write_text(f"# %%\nopen({str(trace)!r}, 'w')\n")
    assert str(trace) in portable.portable(Notebook(source), ADDRESS).cells[1].source
    assert not trace.exists()


@pytest.mark.parametrize(("installed", "calls"), [(True, []), (False, [ADDRESS])])
def test_the_first_cell_installs_a_missing_library(
    branch: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, calls: list[str]
) -> None:
    notebook = next((branch / "notebooks").glob("*.ipynb"))
    source = nbformat.read(notebook, as_version=4).cells[0].source
    found: list[str] = []
    magics = SimpleNamespace(run_line_magic=lambda name, line: found.append(f"{name} {line}"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    exec(TransformerManager().transform_cell(source), {"get_ipython": lambda: magics})
    assert found == [f'pip install -q "ntklib @ {address}"' for address in calls]


@pytest.mark.parametrize("name", ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY"])
def test_without_an_address_nothing_is_written(name: str, tmp_path: Path) -> None:
    run = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/book"}
    assert portable.install_address(run, "0123abc") == ADDRESS
    done = subprocess.run(
        [sys.executable, "-m", "workflow.portable", tmp_path / "out"],
        cwd=ROOT,
        env=os.environ | run | {name: ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: set {name}: Colab installs ntklib from there\n"
    assert not (tmp_path / "out").exists()


def test_the_address_changes_only_with_what_the_branch_is_made_from(tmp_path: Path) -> None:
    def commit(name: str) -> str:
        (tmp_path / name).write_text(name)
        git = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", name]):
            subprocess.run([*git, *command], cwd=tmp_path, check=True)
        return portable.last_change(tmp_path)

    with pytest.raises(UsageError, match="has no history in git"):
        portable.last_change(tmp_path)
    first = commit("notebooks.lock")
    assert commit("CHANGELOG.md") == first
    assert commit("LICENSE") != first


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists; name a folder that does not"):
        portable.write(Project(), tmp_path, ADDRESS)
    assert list(tmp_path.iterdir()) == []
