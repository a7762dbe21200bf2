"""Times one work and its peers in one process: `python -m benchmarks.measure NAME` prints JSON.

With the name of one of its runs after that, it prints the memory that a call of this one takes.
"""

import ctypes
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
import psutil

from benchmarks.work import ALL, Run, Target, Work

REPEATS = 5
SIZE = 2048


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The largest resident memory of this process, sampled every 5 ms, in a list of one."""
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def seconds(run: Run) -> float:
    """Time of one call, until its result is there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def floor(work: Work) -> dict[str, Run]:
    """The matrix product by which this machine's rate is measured."""
    if work.flops is None:
        return {}
    a = jax.random.normal(jax.random.key(0), (SIZE, SIZE))
    product = jax.jit(lambda a: a @ a)
    return {"floor": lambda: product(a)}


def agreement(work: Work) -> None:
    """Stops if a peer computes something else.

    Raises:
        SystemExit: naming the peer and the difference.
    """
    if work.tolerance is None:
        return
    ours = np.asarray(work.runs["ntklib"]())
    for name, run in work.runs.items():
        difference = np.abs(np.asarray(run()) - ours).max() / np.abs(ours).max()
        if not difference <= work.tolerance:
            sys.exit(f"error: {name} differs from ntklib by {difference:.1e} ({work.title})")


def added(run: Run) -> int:
    """Bytes that a call adds to this process at its peak, once all is compiled."""
    seconds(run)
    ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed, and the call would reuse it
    before = psutil.Process().memory_info().rss
    with peak_memory() as peak:
        seconds(run)
    return peak[0] - before


def leanness(name: str, lean: Target) -> float:
    """How many times as much memory as ours a peer's call adds, each in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.measure", name]
    peer, ours = (int(subprocess.check_output([*command, run])) for run in (lean.peer, "ntklib"))
    return peer / ours


def measure(chosen: str) -> dict[str, Any]:
    """All times and the memory of one work.

    The first call of each compiles and is not counted. Then all take turns, so that a change of
    the machine's speed meets all of them.
    """
    work = ALL[chosen]()
    with peak_memory() as peak:
        seconds(work.runs["ntklib"])
    memory = peak[0]
    agreement(work)
    runs = work.runs | floor(work)
    for run in runs.values():
        seconds(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            times[name].append(seconds(run))
    medians = {name: float(np.median(t)) for name, t in times.items()}
    if work.flops is not None:
        medians["floor"] *= work.flops / (2 * SIZE**3)
    ratios = {name: median / medians["ntklib"] for name, median in medians.items()}
    reached = all(ratios[target.peer] >= target.ratio for target in work.targets)
    lean = None
    if work.lean is not None:
        lean = asdict(work.lean) | {"reached": leanness(chosen, work.lean)}
        reached = reached and lean["reached"] >= work.lean.ratio
    return {
        "title": work.title,
        "medians": medians,
        "times": times,
        "ratios": ratios,
        "targets": [asdict(target) for target in work.targets],
        "peak_bytes": memory,
        "peak_allowed": work.memory,
        "lean": lean,
        "reached": reached and (work.memory is None or memory <= work.memory),
    }


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(added(ALL[sys.argv[1]]().runs[sys.argv[2]]))
    else:
        print(json.dumps(measure(sys.argv[1])))
