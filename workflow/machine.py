"""What a machine and its user bring to a run: backend, cores, settings, folders, processes."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow.errors import BuildError, UsageError

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
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode != 0:
            for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
                if asked := os.environ.get(name):
                    raise UsageError(
                        f"{name}: {asked!r} is no backend that JAX has here; "
                        "unset it, or set it to cpu"
                    )
            raise BuildError(f"JAX finds no backend: {done.stderr.strip().splitlines()[-1]}")
        sys.stderr.write(done.stderr)
        os.environ["NTKLIB_BACKEND"] = done.stdout.strip()
    return os.environ["NTKLIB_BACKEND"]


def use_folders(build: Path) -> None:
    """Lets this process, and those that it starts, keep all their files below a folder.

    The home folder may not be writable, and what is set there is of no concern to a page. What is
    compiled serves all pages that do the same on arrays of one shape, and reruns.
    """
    damaged = "ignore:Error reading persistent compilation cache:UserWarning"  # it is compiled anew
    given = [text for text in os.environ.get("PYTHONWARNINGS", "").split(",") if text]
    os.environ |= {
        "NTKLIB_STORE": str(build / "trained"),
        "JAX_COMPILATION_CACHE_DIR": str(build / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONWARNINGS": ",".join(dict.fromkeys([*given, damaged])),
        "MPLCONFIGDIR": str(build / "cache" / "matplotlib"),
        "IPYTHONDIR": str(build / "cache" / "ipython"),
        "JUPYTER_CONFIG_DIR": str(build / "cache" / "jupyter"),
        "JUPYTER_DATA_DIR": str(build / "cache" / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(build / "cache" / "jupyter"),
    }


@contextmanager
def folder_for_sockets() -> Iterator[Path]:
    """A folder for this user alone, with a short path: that of a socket has some 100 characters."""
    places = [tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp"]
    for place in places:
        if len(place) <= 70 and os.access(place, os.W_OK):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                yield Path(folder)
                return
    raise BuildError("TMPDIR: no folder with a path of at most 70 characters is writable")


def child() -> dict[str, str]:
    """The environment for a process that is to end when this one does, see `follow`."""
    return os.environ | {"NTKLIB_PARENT": str(os.getpid())}


def follow() -> None:
    """Lets this process end when that one is killed which has started it with `child`.

    Otherwise it would go on, beside the one that does its work again.
    """
    parent = os.getppid()
    if os.environ.get("NTKLIB_PARENT") != str(parent):
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
