"""What pip installs as ntklib, and the notebooks as Colab and Binder get them."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ntklib import claims
from workflow import plan, portable

ROOT = Path(__file__).parents[1]
ADDRESS = "git+https://github.com/me/book@0123abc"
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def branch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the branch `notebooks`."""
    folder = tmp_path_factory.mktemp("portable") / "branch"
    portable.write(folder, ADDRESS)
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


def test_the_wheel_holds_the_library_its_schemas_and_the_claims_only(wheel: Path) -> None:
    sources = [p for p in (ROOT / "ntklib").rglob("*") if p.suffix in (".py", ".yml", ".typed")]
    expected = {str(p.relative_to(ROOT)) for p in sources} | {"ntklib/claims.yml"}
    assert {"ntklib/__init__.py", "ntklib/schemas/registry.yml"} < expected
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert archive.read("ntklib/claims.yml") == (ROOT / "book/claims.yml").read_bytes()
    assert names == expected


def test_the_installed_library_finds_its_claims(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", target, wheel], check=True)
    show = "print(ntklib.__file__, *(c.id for c in ntklib.claims.load().claims))"
    done = subprocess.run(
        [sys.executable, "-c", f"import ntklib.claims; {show}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    file, *found = done.stdout.split()
    assert Path(file) == target / "ntklib" / "__init__.py"
    assert found == [claim.id for claim in claims.load().claims]


def test_the_branch_is_the_same_every_time(branch: Path, tmp_path: Path) -> None:
    portable.write(tmp_path / "again", ADDRESS)
    first, again = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (branch, tmp_path / "again")
    )
    assert first == again
    assert {Path("postBuild"), Path("environment.yml"), Path("requirements.lock")} < set(first)
    assert os.access(branch / "postBuild", os.X_OK)


@pytest.mark.parametrize("notebook", plan.notebooks())
def test_a_notebook_is_valid_and_not_executed(branch: Path, notebook: str) -> None:
    content = nbformat.read(branch / "notebooks" / f"{notebook}.ipynb", as_version=4)
    nbformat.validate(content)
    assert ADDRESS in content.cells[0].source
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    (parameters,) = [c for c in content.cells if "parameters" in c.metadata.get("tags", [])]
    assert "profile: str" in parameters.source
    assert content.metadata.kernelspec.name == "python3"


def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_writes.py").write_text(f"# %%\nopen({str(trace)!r}, 'w')\n")
    monkeypatch.setattr(plan, "NOTEBOOKS", tmp_path / "notebooks")
    assert str(trace) in portable.portable("01_writes", ADDRESS).cells[1].source
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


@pytest.mark.parametrize("name", ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA"])
def test_without_an_address_nothing_is_written(name: str, tmp_path: Path) -> None:
    run = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/book"}
    run |= {"GITHUB_SHA": "0123abc"}
    assert portable.install_address(run) == ADDRESS
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


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(plan.UsageError, match="exists; name a folder that does not"):
        portable.write(tmp_path, ADDRESS)
    assert list(tmp_path.iterdir()) == []
