import os
import socket

import hypothesis
import jax
import pytest

# The tests compile thousands of small programs, which takes longer than they run. The pages of the
# book are compiled as `workflow` says. Processes that a test starts must compute the same to the
# bit.
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# Without its fusion emitters and in one piece, XLA compiles them in half of the time.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"


# Files that start the runner or a browser, that train for long, or that compile much. `make check`
# leaves them out.
SLOW = {
    "test_advntk", "test_analytic", "test_cluster", "test_convolution", "test_environment",
    "test_features", "test_infinite", "test_layerwise", "test_least_squares", "test_machine",
    "test_models", "test_ntk",
    "test_packaging", "test_phases", "test_recipes", "test_soundness", "test_sparse_coding",
    "test_sweeps", "test_training", "test_trainings", "test_workflow",
}  # fmt: skip


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out by make check")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SLOW or item.path.parent.name == "browser":
            item.add_marker(pytest.mark.slow)


def pytest_runtest_logreport(report):
    """Names a failure at once: a run that is cut short has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid}: {report.when} failed", flush=True)


@pytest.fixture(autouse=True, scope="module")
def programs_are_forgotten():
    """A process that has compiled some ten thousand programs has no room for another: Linux lets it
    map 65,530 pieces of memory, and LLVM then crashes.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def x64():
    """Double precision in JAX for one test."""
    # Older versions of JAX have it in jax.experimental only.
    with (jax if hasattr(jax, "enable_x64") else jax.experimental).enable_x64(True):
        yield


@pytest.fixture
def free_port():
    """A port on loopback that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# The first example of a test compiles; how long that takes says nothing about the code.
hypothesis.settings.register_profile("book", deadline=None)
hypothesis.settings.load_profile("book")
