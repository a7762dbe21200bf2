"""Times one work and its peers in one process: `python -m benchmarks.measure NAME` prints JSON."""

import json
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

from benchmarks.work import ALL, Run, Work

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


def measure(work: Work) -> dict[str, Any]:
    """All times and the memory of one work.

    The first call of each compiles and is not counted. Then all take turns, so that a change of
    the machine's speed meets all of them.
    """
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
    return {
        "title": work.title,
        "medians": medians,
        "times": times,
        "ratios": ratios,
        "targets": [asdict(target) for target in work.targets],
        "peak_bytes": memory,
        "peak_allowed": work.memory,
        "reached": reached and (work.memory is None or memory <= work.memory),
    }


if __name__ == "__main__":
    print(json.dumps(measure(ALL[sys.argv[1]]())))
