"""Kills a run at random moments, and runs it again.

On one page of the book, in its smallest size: `python tests/interruptions.py ntk_transfer`.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import toy_book

SOURCES = ("workflow", "ntklib", "notebooks", "profiles", "book", "records", "notebooks.lock")


def compare(plain: Path, *command: str, moments: int, seed: int, **environ: str) -> None:
    """Fails unless a run that is killed gives, in the end, what one gives that is not.

    Every other time all of its processes are killed, else the one that was started. When it comes
    to its end before, everything is removed, and it begins anew.

    Args:
        plain: a book that was never built. A copy of it, beside it, is the one that is killed.
        *command: as in `toy_book.start`.
        moments: how often it is killed.
        seed: of the moments.
        **environ: environment variables.
    """

    def check(status: int | None, err: str) -> None:
        assert status == 0, err
        assert toy_book.results(disturbed) == toy_book.results(plain)
        assert toy_book.trained(disturbed) == toy_book.trained(plain)

    disturbed = shutil.copytree(plain, plain.with_name("disturbed"))
    chosen, start = random.Random(seed), time.monotonic()
    done = toy_book.run(plain, *command, **environ)
    assert done.returncode == 0, done.stderr
    longest = time.monotonic() - start
    while moments:
        process = toy_book.start(disturbed, *command, **environ)
        try:
            _, err = process.communicate(timeout=chosen.uniform(0, longest))
            check(process.returncode, err)
            shutil.rmtree(disturbed / "build")
            shutil.rmtree(disturbed / ".snakemake")
        except subprocess.TimeoutExpired:
            moments -= 1
            if moments % 2:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)  # what it has started ends soon after it
    done = toy_book.run(disturbed, *command, **environ)
    check(done.returncode, done.stderr)


def main() -> None:
    """Copies the project and compares the runs of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "plain")
        folder.mkdir()
        for name in (*SOURCES, "_toc.yml", "_config.yml"):
            path = toy_book.ROOT / name
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, folder / name)
        command = ("workflow", "run", options.notebook, "--profile", "smoke")
        compare(folder, *command, moments=options.moments, seed=options.seed)


if __name__ == "__main__":
    main()
