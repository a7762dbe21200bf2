"""Work shared among the cores that this process may use."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")


class _Inside(threading.local):
    """Whether the current thread is one of those started here."""

    active = False


_INSIDE = _Inside()


def count() -> int:
    """How many threads may compute at once: the cores allowed, or fewer if NPROC says so.

    XLA's thread pool obeys the same variable.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    given = os.environ.get("NPROC", "")
    return max(1, min(allowed, int(given))) if given.isdigit() else allowed


def share(function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]) -> list[Result]:
    """Calls a function with each tuple of arguments: on the cores of a CPU, else one by one.

    XLA computes a convolution on one core of a CPU, so that work of several seeds, or of several
    batches, gains from threads. Within such a thread there is nothing left to share: a call from
    there goes through its arguments one by one.

    Results are in the order of the arguments. If calls fail, the error of the first in that order
    is raised, after all have ended.
    """
    threads = count() if jax.default_backend() == "cpu" else 1
    if threads == 1 or _INSIDE.active:
        return [function(*each) for each in arguments]

    def inside(each: tuple[Any, ...]) -> Result:
        _INSIDE.active = True
        return function(*each)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(inside, arguments))
