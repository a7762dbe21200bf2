"""Compares ntklib with other libraries: `make bench` prints a table of ratios and keeps it.

Each work runs in a process of its own. Results are written to `benchmarks/results/`, one file a
kind of machine, which the book shows.
"""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.work import ALL

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "flax", "numpy", "neural-tangents", "torch", "foolbox")


def environment() -> dict[str, Any]:
    """What the times depend on."""
    import jax

    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return {
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip() or None,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def show(row: dict[str, Any]) -> None:
    """Prints one work: the time of each, how many times ours it is, and what was to be reached."""
    targets = {target["peer"]: target["ratio"] for target in row["targets"]}
    print(f"\n{row['title']}; peak memory {row['peak_bytes'] / 1e9:.2f} GB")
    for name, median in row["medians"].items():
        wanted = f"   (at least {targets[name]:.2g})" if name in targets else ""
        print(f"  {name:<36}{median:>9.3f} s{row['ratios'][name]:>8.2f}x{wanted}")
    if lean := row.get("lean"):
        wanted = f"(at least {lean['ratio']:.2g})"
        print(f"  memory that a call of {lean['peer']} adds {lean['reached']:.2f}x   {wanted}")
    print("  reached" if row["reached"] else "  NOT reached", flush=True)


def main(names: list[str]) -> None:
    """Measures the works named, all if none is, and keeps what they gave."""
    if unknown := set(names) - ALL.keys():
        sys.exit(f"error: no work named {', '.join(sorted(unknown))}; known: {', '.join(ALL)}")
    here = environment()
    path = RESULTS / f"{here['device']}-{here['cores']}.json".lower().replace(" ", "-")
    kept = json.loads(path.read_text(encoding="utf-8"))["works"] if path.exists() else {}
    for name in names or ALL:
        command = [sys.executable, "-m", "benchmarks.measure", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"error: {name} failed")
        row = json.loads(done.stdout.splitlines()[-1])
        show(row)
        kept[name] = {"environment": here, **row}
    ordered = {name: kept[name] for name in ALL if name in kept}
    RESULTS.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"works": ordered}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    print(f"\nwritten: {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main(sys.argv[1:])
