"""The runner on a cluster, of two slots on this machine."""

import os
import re
import shutil
import sys

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
    done = toy_book.run(here, "workflow", "record")
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


# A cluster of pods on this machine, as far as the book's script asks for one.
KUBECTL = """\
#!{python}
import subprocess, sys
from pathlib import Path

import yaml

if sys.argv[1] == "get":
    status = Path(f"exit-{{sys.argv[3]}}")
    done = status.read_text() if status.exists() else ""
    print({{"": "Running", "0": "Succeeded"}}.get(done.strip(), "Failed"))
else:
    pod = yaml.safe_load(sys.stdin)
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "mine"
    [job] = pod["spec"]["containers"]
    script = f"sh {{job['command'][1]}} > log 2>&1; echo $? > exit-{{pod['metadata']['name']}}"
    subprocess.Popen(["sh", "-c", script], cwd=job["workingDir"], stdout=2, start_new_session=True)
"""


def test_the_script_for_pods_does_what_the_book_says(tmp_path):
    toy = toy_book.write(tmp_path / "book")
    text = (toy_book.ROOT / "book/how_to_read.md").read_text()
    [script] = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", text, re.DOTALL)
    [options] = re.findall(r" -- (--executor cluster-generic .*\n.*)", text)
    for path, content in {
        toy / "pods.sh": script,
        tmp_path / "kubectl": KUBECTL.format(python=sys.executable),
    }.items():
        path.write_text(content)
        path.chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "CLAIM": "mine",
        "IMAGE": "it",
    }
    options = [*options.replace("\\", "").split(), "--seconds-between-status-checks", "1"]
    command = ["run", "toy", "--profile", "smoke", "--", *options]
    done = toy_book.run(toy, "workflow", *command, **environ)
    assert done.returncode == 0, done.stderr
    assert len(list(toy.glob("exit-job-*"))) == 1
    assert len(toy_book.results(toy)) == 1
    toy_book.replace(toy / "notebooks/01_toy.py", "quantities = {", "1 / 0\nquantities = {")
    done = toy_book.run(toy, "workflow", *command, **environ)
    assert done.returncode == 1
