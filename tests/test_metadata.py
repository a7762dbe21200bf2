"""What the book says of itself to machines: CodeMeta and RO-Crate."""

import hashlib
import json
from pathlib import Path

import pytest
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
