"""The runner on a cluster, of two slots on this machine."""

import shutil

import toy_book

# Starts a job and says its number, as sbatch does.
SUBMIT = """\
#!/bin/sh
nohup sh "$1" > "$(basename "$1").log" 2>&1 < /dev/null &
echo $!
"""
OPTIONS = "--executor cluster-generic --jobs 2 --seconds-between-status-checks 1"


def submitting(folder):
    (folder / "submit.sh").write_text(SUBMIT)
    (folder / "submit.sh").chmod(0o755)
    return [*OPTIONS.split(), "--cluster-generic-submit-cmd", "./submit.sh"]


def test_a_cluster_finds_what_one_machine_finds_to_the_last_bit(tmp_path):
    here = toy_book.write_trainings(tmp_path / "here", seeds="[7]")
    there = shutil.copytree(here, tmp_path / "there")
    done = toy_book.run(here, "workflow", "book")
    assert done.returncode == 0, done.stderr
    steps = there / "steps"
    done = toy_book.run(there, "workflow", "book", "--", *submitting(there), TOY_STEPS=steps)
    assert done.returncode == 0, done.stderr
    assert toy_book.results(there) == toy_book.results(here)
    assert len(toy_book.results(there)) == 3
    assert toy_book.trained(there) == toy_book.trained(here)
    assert len(steps.read_text().splitlines()) == 20 + 20 + 21
    assert (there / "build/html/index.html").exists()
    done = toy_book.run(there, "workflow", "book", TOY_STEPS=steps)
    assert (done.returncode, done.stderr) == (0, "")  # nothing to do


def test_a_job_that_fails_on_a_cluster_is_told(tmp_path):
    toy = toy_book.write(tmp_path / "book")
    toy_book.replace(toy / "notebooks/01_toy.py", "quantities = {", "1 / 0\nquantities = {")
    command = ["run", "toy", "--profile", "smoke", "--", *submitting(toy)]
    done = toy_book.run(toy, "workflow", *command)
    assert done.returncode == 1
    assert "Error in rule execute" in done.stderr
    assert "external_jobid" in done.stderr
    [log] = toy.glob("*.sh.log")
    assert "cell 5 (1 / 0): ZeroDivisionError" in log.read_text()
