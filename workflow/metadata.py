"""Says what the book is and consists of, for machines: as CodeMeta, and as an RO-Crate.

Both take authors, licence and references from CITATION.cff. What is not known is left out.
"""

import hashlib
import json
import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity, File
from rocrate.rocrate import ROCrate

from ntklib.claims import Result

CODEMETA = "https://w3id.org/codemeta/3.0"
_KINDS = {".ipynb": "application/x-ipynb+json"}  # which Python does not know


def _license(citation: Mapping[str, Any]) -> str:
    return f"https://spdx.org/licenses/{citation['license']}"


def _papers(citation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The papers, in words of schema.org."""
    for paper in citation["references"]:
        arxiv = paper["identifiers"][0]["value"].removeprefix("arXiv:")
        yield {
            "@id": f"https://arxiv.org/abs/{arxiv}",
            "@type": "ScholarlyArticle",
            "name": paper["title"],
            "author": [f"{a['given-names']} {a['family-names']}" for a in paper["authors"]],
            "datePublished": str(paper["year"]),
        }


def codemeta(citation: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file codemeta.json.

    It says what cffconvert makes of it, with which the tests compare, and of the papers besides;
    cffconvert needs an older jsonschema than Jupyter.

    Args:
        citation: the content of CITATION.cff.
    """
    return {
        "@context": CODEMETA,
        "@type": "SoftwareSourceCode",
        "name": citation["title"],
        "description": citation["abstract"],
        "version": citation["version"],
        "license": _license(citation),
        "keywords": citation["keywords"],
        "programmingLanguage": "Python",
        "author": [{"@type": "Organization", "name": a["name"]} for a in citation["authors"]],
        "citation": list(_papers(citation)),
    }


def _entity(made: ROCrate, identifier: str, **about: Any) -> ContextEntity:
    """Adds something that is no file to a crate."""
    return made.add(ContextEntity(made, identifier, {"@type": about.pop("kind"), **about}))


def _file(made: ROCrate, folder: Path, path: Path, text: str, **about: Any) -> File:
    """Adds a file to a crate, with its size and its hash."""
    content = path.read_bytes()
    about |= {"name": path.name, "description": text, "contentSize": str(len(content))}
    about["sha256"] = hashlib.sha256(content).hexdigest()
    if kind := _KINDS.get(path.suffix) or mimetypes.guess_type(path)[0]:
        about["encodingFormat"] = kind
    return made.add(File(made, dest_path=path.relative_to(folder).as_posix(), properties=about))


def crate(folder: Path, citation: Mapping[str, Any], results: Iterable[Result]) -> ROCrate:
    """The rendered book as an RO-Crate: its pages, notebooks and data, and how these were made.

    Args:
        folder: the rendered book.
        citation: the content of CITATION.cff.
        results: those of this build, one a notebook.

    Returns:
        The crate; `crate.metadata.write(folder)` puts its description beside the book.
    """
    made = ROCrate()
    made.name, made.description = citation["title"], citation["abstract"]
    made.root_dataset["version"] = citation["version"]
    made.root_dataset["keywords"] = citation["keywords"]
    spdx = {"kind": "CreativeWork", "name": citation["license"], "description": "Licence"}
    made.license = _entity(made, _license(citation), **spdx)
    for i, author in enumerate(citation["authors"]):
        who = _entity(made, f"#author-{i}", kind="Organization", name=author["name"])
        for role in ("author", "publisher"):
            made.root_dataset.append_to(role, who, compact=True)
    for paper in _papers(citation):
        cited = _entity(made, paper.pop("@id"), kind=paper.pop("@type"), **paper)
        made.root_dataset.append_to("citation", cited, compact=True)
    _file(made, folder, folder / "claims.json", "All results")
    _file(made, folder, folder / "codemeta.json", "The software, as CodeMeta")
    for page in sorted(folder.glob("book/*.html")):
        _file(made, folder, page, f"Page {page.stem}")
    for result in results:
        made.root_dataset.append_to("mentions", _run(made, folder, result), compact=True)
    return made


def _run(made: ROCrate, folder: Path, result: Result) -> ContextEntity:
    """Adds a notebook, what it has made, and the run in which it did."""
    name, how = result.notebook, result.provenance
    python = {"name": "Python", "version": how.python, "url": "https://www.python.org"}
    language = _entity(made, f"#python-{how.python}", kind="ComputerLanguage", **python)
    source = folder / "_sources" / "notebooks" / f"{name}.ipynb"
    kinds: dict[str, Any] = {"@type": ["File", "SoftwareSourceCode"]}
    kinds["programmingLanguage"] = {"@id": language.id}
    notebook = _file(made, folder, source, f"Notebook {name}", **kinds)
    outputs = [_file(made, folder, folder / "notebooks" / f"{name}.html", f"Page {name}")]
    for figure in sorted((folder / "data" / name).glob("*.csv")):
        outputs.append(_file(made, folder, figure, f"Numbers of the figure {figure.stem}"))
    end = datetime.fromisoformat(how.started) + timedelta(seconds=how.seconds)
    return _entity(
        made,
        f"#run-{name}",
        kind="CreateAction",
        name=f"Run of {name}, profile {result.profile}",
        description=json.dumps(result.parameters),
        startTime=how.started,
        endTime=end.isoformat(),
        instrument=notebook,
        result=outputs,
    )
