import os
import socket

import hypothesis
import jax
import pytest

# The tests compile thousands of small programs, which takes longer than they run. The pages of the
# book run with all optimisations. Processes that a test starts must compute the same to the bit.
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"


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
