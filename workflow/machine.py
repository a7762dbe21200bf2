"""What a machine and its user bring to a run: the backend of JAX, and settings."""

import os
import re
import subprocess
import sys

from workflow.errors import BuildError

# Environment variables that change numbers, whatever they are called: all but those of caches,
# messages, memory and places.
_NUMBERS = r"JAX_|XLA_|NPY_|CUBLAS_|CUDNN_|TF_XLA_|TF_CUDNN_|NVIDIA_TF32|MKL_CBWR|OPENBLAS_CORETYPE"
_HARMLESS = (
    "CACHE|LOG|DUMP|TRACEBACK|TRACER|PLATFORM|VISIBLE|TIMEOUT|ADDRESS|MEM_|PREALLOCATE|ALLOCATOR"
)


def settings() -> dict[str, str]:
    """The environment variables that change numbers which JAX and numpy compute."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if re.match(_NUMBERS, name) and not re.search(_HARMLESS, name)
    }


def cores() -> int:
    """How many cores this process may use: those allowed to it, or fewer if NPROC says so."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    given = os.environ.get("NPROC", "")
    return max(1, min(allowed, int(given))) if given.isdigit() else allowed


def backend() -> str:
    """The backend of JAX, such as `cpu`.

    A process of its own finds it out, because who asks keeps a part of a GPU's memory. The
    environment keeps the answer for this process and those that it starts.
    """
    if "NTKLIB_BACKEND" not in os.environ:
        code = "import jax; print(jax.default_backend())"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise BuildError("JAX finds no backend; its message is above")
        os.environ["NTKLIB_BACKEND"] = done.stdout.strip()
    return os.environ["NTKLIB_BACKEND"]
