"""What the book says of itself to machines: CodeMeta and RO-Crate."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rocrate
import yaml
from rocrate.rocrate import ROCrate

from ntklib import claims
from workflow import metadata

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
RESULT = claims.read_result(ROOT / "records/01_ntk_transfer/fresh.json")
FILES = {
    "claims.json": "{}",
    "codemeta.json": "{}",
    "book/index.html": "<p>",
    f"notebooks/{RESULT.notebook}.html": "<p>",
    f"_sources/notebooks/{RESULT.notebook}.ipynb": "{}",
    f"data/{RESULT.notebook}/fig-a.csv": "x,y\n1,2\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A rendered book of one page, with its description as an RO-Crate."""
    html = tmp_path_factory.mktemp("html")
    for name, text in FILES.items():
        (html / name).parent.mkdir(parents=True, exist_ok=True)
        (html / name).write_text(text)
    metadata.crate(html, CITATION, [RESULT]).metadata.write(html)
    return html


@pytest.fixture(scope="module")
def entities(folder):
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    assert len({entity["@id"] for entity in graph}) == len(graph)
    return {entity["@id"]: entity for entity in graph}


def faults(entities, folder):
    """Where a crate breaks what its specification says that it must be."""
    found = []
    about, root = entities["ro-crate-metadata.json"], entities["./"]
    if about["about"] != {"@id": "./"} or "w3id.org/ro/crate" not in about["conformsTo"]["@id"]:
        found.append("the description does not describe the root")
    missing = {"name", "description", "datePublished", "license", "hasPart"} - set(root)
    found += [f"the root has no {name}" for name in sorted(missing)]
    parts = {part["@id"] for part in root["hasPart"]}
    files = {name for name, entity in entities.items() if "File" in entity["@type"]}
    found += [f"{name} is no part" for name in sorted(files - parts)]
    for name in sorted(files):
        content = (folder / name).read_bytes() if (folder / name).is_file() else b""
        if entities[name]["sha256"] != hashlib.sha256(content).hexdigest():
            found.append(f"{name} is another file")
    for name, entity in entities.items():
        for value in entity.values():
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict) and (set(part) != {"@id"} or part["@id"] not in entities):
                    known = "conformsTo" in entity and part == entity["conformsTo"]
                    found += [] if known else [f"{name} names {part}, which is not there"]
    return found


def test_the_crate_is_as_specified(entities, folder):
    assert faults(entities, folder) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e["./"].pop("license"),
        lambda e: e["./"]["hasPart"].pop(),
        lambda e: e["claims.json"].update(sha256="0"),
        lambda e: e.pop("#author-0"),
    ],
)
def test_a_spoilt_crate_is_noticed(spoil, entities, folder):
    copy = json.loads(json.dumps(entities))
    spoil(copy)
    assert faults(copy, folder) != []


@pytest.fixture(scope="module")
def checkers():
    """The programs of the environment of checkers; `make peers` installs it, as CI does."""
    programs = Path(sys.prefix) / "checkers" / "bin"
    if not programs.is_dir() and "CI" not in os.environ:
        pytest.skip("the checkers are not installed: make peers")
    return programs


def broken(checkers, folder):
    """The rules of RO-Crate that its validator finds broken."""
    context = Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld"
    command = [checkers / "python", Path(__file__).parent / "check_crate.py", folder, context]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# The author is a group without a home page, an entry in the register of organisations, and a desk.
UNKNOWN = "The organization SHOULD have a URL", "ROR identifier", "contactPoint"


def test_the_validator_finds_nothing_that_could_be_mended(checkers, folder):
    found = broken(checkers, folder)
    assert [line for line in found if not any(words in line for words in UNKNOWN)] == []
    assert all(line.startswith("RECOMMENDED ") for line in found)


def test_the_validator_notices_a_spoilt_crate(checkers, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "ro-crate-metadata.json"
    text = path.read_text()
    assert '"datePublished"' in text
    path.write_text(text.replace('"datePublished"', '"dateCreated"'))
    assert any(line.startswith("REQUIRED ") for line in broken(checkers, tmp_path))


def test_another_program_reads_the_crate(folder):
    read = ROCrate(folder)
    assert read.name == CITATION["title"]
    assert {entity.id for entity in read.data_entities} == set(FILES)
    run = read.root_dataset["mentions"]
    assert run["startTime"] == RESULT.provenance.started
    assert run["instrument"].id == f"_sources/notebooks/{RESULT.notebook}.ipynb"
    assert {made.id for made in run["result"]} == {
        f"notebooks/{RESULT.notebook}.html",
        f"data/{RESULT.notebook}/fig-a.csv",
    }


def test_codemeta_says_what_the_citation_says():
    told = metadata.codemeta(CITATION)
    assert (told["@context"], told["@type"]) == (metadata.CODEMETA, "SoftwareSourceCode")
    assert [told[name] for name in ("name", "version")] == [CITATION["title"], CITATION["version"]]
    assert told["license"] == "https://spdx.org/licenses/MIT"
    assert [paper["@id"].rpartition("/")[2] for paper in told["citation"]] == [
        paper["identifiers"][0]["value"].removeprefix("arXiv:") for paper in CITATION["references"]
    ]


def test_codemeta_says_what_another_program_makes_of_the_citation(checkers):
    command = [checkers / "cffconvert", "-i", ROOT / "CITATION.cff"]
    assert subprocess.run([*command, "--validate"], capture_output=True).returncode == 0
    made = subprocess.run([*command, "-f", "codemeta"], capture_output=True, text=True)
    expected, told = json.loads(made.stdout), metadata.codemeta(CITATION)
    people = [[author["name"] for author in each.pop("author")] for each in (expected, told)]
    assert people[0] == people[1]
    del expected["@context"]  # of version 2.0
    assert {name: told[name] for name in expected} == expected
