import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code, *, path=""):
    """Runs code in a fresh interpreter, which finds modules under `path` first."""
    preamble = f"import sys, warnings; sys.path.insert(0, {str(path)!r}); import jax\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", preamble + code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )


def test_the_library_is_imported_without_what_pages_and_tests_need():
    names = {"neural_tangents", "ntklib._neural_tangents", "IPython", "matplotlib", "tensorflow"}
    result = run(
        "import ntklib.ntk, ntklib.infinite, ntklib.attacks, ntklib.training, ntklib.models\n"
        f"print({names} & set(sys.modules))"
    )
    assert result.stdout == "set()\n", result.stderr


@pytest.mark.parametrize(
    "imports", ["import ntklib.infinite", "from ntklib._neural_tangents import stax"]
)
def test_tensorflow_is_never_imported(tmp_path, imports):
    # Stand-ins, so that an attempt shows even where TensorFlow is not installed.
    for name in ("tensorflow", "tf2jax"):
        (tmp_path / f"{name}.py").touch()
    result = run(f"{imports}\nprint({{'tensorflow', 'tf2jax'}} & set(sys.modules))", path=tmp_path)
    assert result.stdout == "set()\n", result.stderr


def test_jax_is_afterwards_as_before():
    result = run(
        "import jax.core, jax.interpreters.ad as ad\n"
        "def names(): return set(vars(jax.core)), set(vars(ad)), 'jax.util' in sys.modules\n"
        "before = names()\n"
        "import ntklib._neural_tangents\n"
        "assert names() == before\n"
        "assert 'neural_tangents.experimental' not in sys.modules\n"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "missing",
    [
        "del jax._src.core.Var",
        "del jax._src.ad_util.zeros_like_p",
        "sys.modules['jax._src.util'] = None; del jax._src.util",
        "sys.modules['jax.extend.linear_util'] = None",
        "sys.modules['neural_tangents'] = None",
    ],
)
def test_a_jax_without_a_needed_name_is_named_in_one_line(missing):
    result = run(
        "import jax._src.core, jax._src.ad_util, jax._src.util\n"
        # The names that 0.6.5 knows may still be public; then they are gone from there too.
        "vars(jax.core).pop('Var', None)\n"
        f"{missing}\n"
        "import ntklib._neural_tangents"
    )
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: neural-tangents 0.6.5 does not import on JAX ")
    assert "known to work are JAX 0.6.2 to 0.12.0" in last


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_nothing_else_imports_the_package():
    importing = {
        path.relative_to(ROOT).as_posix()
        for folder in ("ntklib", "notebooks", "workflow", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if any(name.split(".")[0] == "neural_tangents" for name in imported(path))
    }
    assert importing == {"ntklib/_neural_tangents.py"}
