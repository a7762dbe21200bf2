"""Lays out the pages of the book from prose, executed notebooks and results, and renders them."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import jinja2
import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell

from ntklib import claims
from workflow import asides, machine, metadata
from workflow.collect import trusted
from workflow.errors import BuildError, explained
from workflow.history import history, reasons
from workflow.links import Links
from workflow.plan import EXECUTED, RESULT, Project
from workflow.portable import install_address, with_install

TEMPLATES = Path(__file__).parent / "templates"

Found = dict[str, claims.Result]


def prose(project: Project) -> list[Path]:
    """All files, besides executed notebooks and results, that the pages are made from."""
    names = ["_config.yml", "_toc.yml", "CHANGELOG.md", "CITATION.cff", "benchmarks/coverage.json"]
    names += [f"workflow/{name}.py" for name in ("asides", "history", "links", "metadata", "stage")]
    files = [project.root / name for name in names]
    for folder in ("book", "records", "benchmarks/results", "workflow/templates"):
        files += [p for p in (project.root / folder).rglob("*") if p.is_file()]
    return sorted(p.relative_to(project.root) for p in files if "__pycache__" not in p.parts)


def measured(estimate: claims.Estimate) -> str:
    """A value with its interval, as text."""
    return f"{estimate:.3f}" if math.isfinite(estimate.value) else "not a number"


def _in_cell(estimate: claims.Estimate) -> str:
    """The same for a cell of a table, where a line may break before the interval, not in it."""
    return measured(estimate).replace(", ", ",\N{NO-BREAK SPACE}")


def _number(check: claims.Estimate) -> str:
    """A value with its interval, as short as it can be told."""
    small = 0 < abs(check.value) < 0.005
    return (f"{check:.1e}" if small else f"{check:.2f}").replace("-", "\N{MINUS SIGN}")


def _asked(check: claims.CheckResult) -> str:
    """What was asked of a value, as it is written by hand."""
    signs = {">=": "≥", "<=": "≤", "-": "\N{MINUS SIGN}"}
    return re.sub(">=|<=|-", lambda match: signs[match[0]], check.predicate)


def _labels(found: Found) -> list[str]:
    """Profiles, and whether their result is of this build or from the records."""
    return [f"{p} ({'recorded' if i else 'live'})" for i, p in enumerate(found)]


def _verdict(result: claims.Result, claim: claims.Claim) -> str:
    """The verdict of a result; a record may be older than the claim."""
    return result.claims[claim.id].verdict if claim.id in result.claims else "not run"


def _check(result: claims.Result, claim: claims.Claim, name: str) -> claims.CheckResult | None:
    """What a result says of a check; None if it was not judged there."""
    return result.claims[claim.id].checks.get(name) if claim.id in result.claims else None


def _comparable(claim: claims.Claim, found: Found) -> claims.Estimate | None:
    """What was measured in a paper's own setting of the number that it reports; None if nothing."""
    if claim.reported is None or claim.reported.value is None or "paper" not in found:
        return None
    names = [n for n, v in claim.reported.values.items() if v == claim.reported.value]
    return next((e for n, e in found["paper"].measurements.items() if n in names), None)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_TEMPLATES.globals.update(badge=claims.badge, icons=claims.ICONS)
_TEMPLATES.filters.update(measured=measured, in_cell=_in_cell, labels=_labels, json=json.dumps)
_TEMPLATES.filters.update(
    verdict=_verdict, check=_check, number=_number, asked=_asked, comparable=_comparable
)
_TEMPLATES.globals.update(finding=claims.finding, headline=claims.headline)


def made(template: str, **values: Any) -> str:
    """What a template makes of the values, all of them escaped."""
    return _TEMPLATES.get_template(template).render(values)


def results(project: Project, notebook: str, live: str) -> Found:
    """Results of a notebook by profile: the live one first, then those of the records."""
    live_result = project.root / RESULT.format(notebook=notebook, profile=live)
    found = {live: claims.read_result(live_result)}
    for profile in project.profiles:
        path = project.root / "records" / notebook / f"{profile}.json"
        if path.exists() and profile not in found:
            found[profile] = claims.read_result(path)
    return found


def facts(project: Project, notebook: str, found: Found) -> dict[str, Any]:
    """What the parts of a page that tell of results are made from."""
    its_claims = project.claims_of(notebook)
    measured = [(n, e) for r in found.values() for n, e in r.measurements.items()]

    def command(result: claims.Result) -> str:
        usual = project.parameters(notebook, result.profile)
        changed = {k: v for k, v in result.parameters.items() if usual.get(k) != v}
        extra = " ".join(f"{k}={json.dumps(v, separators=(',', ':'))}" for k, v in changed.items())
        suffix = f" SET='{extra}'" if extra else ""
        return f"make run NB={notebook} PROFILE={result.profile}{suffix}"

    return {
        "notebook": notebook,
        "claims": its_claims,
        "found": found,
        "printed": {k: v for c in its_claims if c.reported for k, v in c.reported.values.items()},
        "measurements": dict.fromkeys(n for n, e in measured if isinstance(e, claims.Estimate)),
        "findings": dict.fromkeys(f.name for r in found.values() for f in r.soundness),
        "missing": [p for p in project.profiles_of(notebook) if p not in found and p != "smoke"],
        "commands": {profile: command(result) for profile, result in found.items()},
    }


def _figures(cell: nbformat.NotebookNode) -> list[tuple[nbformat.NotebookNode, dict[str, str]]]:
    """The outputs of a cell that `ntklib.plots.show` has made, with what they say of themselves."""
    found = [(o, o.get("metadata", {}).get("ntklib.figure")) for o in cell.get("outputs", [])]
    return [(output, about) for output, about in found if about]


def as_figures(content: nbformat.NotebookNode, data: Path) -> None:
    """Turns pictures shown with `ntklib.plots.show` into figures with alt text and caption.

    MyST-NB takes both from the cell's metadata only; the notebook knows them when it runs. The
    numbers go to a folder, as CSV.
    """
    for cell in content.cells:
        for output, figure in _figures(cell):
            output.data.pop("text/html", None)
            caption = figure["caption"]
            if figure.get("csv", "").count("\n") > 1:
                data.mkdir(parents=True, exist_ok=True)
                (data / f"{figure['name']}.csv").write_text(figure["csv"], encoding="utf-8")
                where = f"../data/{data.name}/{figure['name']}.csv"
                caption += f' <a href="{where}" download>Numbers (CSV)</a>'
            cell.metadata["mystnb"] = {
                "image": {"alt": figure["alt"], "width": figure["width"]},
                "figure": {"caption": caption, "name": figure["name"]},
            }


def key_figure(content: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The figure that carries a page, of the cell tagged `key-figure`, as a cell without code."""
    for cell in content.cells:
        for output, figure in (
            _figures(cell) if "key-figure" in cell.metadata.get("tags", []) else []
        ):
            shown = {"alt": figure["alt"], "width": figure["width"]}
            image = {"mystnb": {"image": shown}, "tags": ["remove-input"]}
            source = "# Shown again further below."  # a cell without any would be left out
            return new_code_cell(source, outputs=[output], metadata=image, id="key-figure")
    return None


def as_boxes(content: nbformat.NotebookNode, project: Project, known: dict[str, Any]) -> None:
    """Puts in the place of each claim's table the page's own box, with how to cite it."""
    for cell in content.cells:
        for output in cell.get("outputs", []):
            for claim in known["claims"]:
                shown = output.get("data", {}).get("text/html", "")
                if f'class="claim-box" id="{claim.id}"' in shown:
                    output.data["text/html"] = made("claim.html", **citations(project, claim))


def citation(project: Project) -> dict[str, Any]:
    """What CITATION.cff says of the book."""
    return yaml.safe_load((project.root / "CITATION.cff").read_text(encoding="utf-8"))


def citations(project: Project, claim: claims.Claim) -> dict[str, Any]:
    """BibTeX of a claim and of its paper, and what it is made from."""
    entries = (project.root / "book" / "references.bib").read_text(encoding="utf-8")
    entry = re.search(rf"^@\w+{{{claim.paper.key},.*?^}}", entries, re.DOTALL | re.MULTILINE)
    return {"claim": claim, "book": citation(project), "paper": entry[0] if entry else ""}


def folded(content: nbformat.NotebookNode) -> None:
    """Folds code, but for the parameters, which are there to be changed; what follows without an
    output between is one piece. What shows itself as plain text only is folded, too.
    """
    kept: list[nbformat.NotebookNode] = []
    for cell in content.cells:
        tags = set(cell.metadata.get("tags", []))
        if "injected-parameters" in tags:  # papermill's; they stand at the end of the page
            continue
        if cell.cell_type == "code" and "parameters" not in tags:
            shown = [o.get("data", {"text/html": ""}) for o in cell.outputs]
            plain = shown and all(set(data) == {"text/plain"} for data in shown)
            box = any('class="claim-box"' in data.get("text/html", "") for data in shown)
            hide = "hide-cell" if plain else "remove-input" if box else "hide-input"
            cell.metadata["tags"] = [*sorted(tags - {"hide-input"}), hide]
            if kept and "hide-input" in kept[-1].metadata.get("tags", []) and not kept[-1].outputs:
                cell.source = f"{kept.pop().source}\n\n\n{cell.source}"
        kept.append(cell)
    content.cells = kept


def page(project: Project, notebook: str, live: str, data: Path) -> nbformat.NotebookNode:
    """The page of a notebook: as executed, with what was found first, results and provenance."""
    content, _ = trusted(project, notebook, live, project.parameters(notebook, live))
    known = facts(project, notebook, results(project, notebook, live))
    as_figures(content, data / notebook)
    as_boxes(content, project, known)
    figure = key_figure(content)
    folded(content)
    asides.fold(content)
    about = _figures(figure)[0][1] if figure else None
    content.cells[1:1] = [
        _generated(made("in_short.md", **known), "in-short"),
        *([figure] if figure else []),
        _generated(made("rerun.md", **known, about=about), "rerun"),
    ]
    content.cells.append(_generated(made("results.md", **known), "results"))
    return content


def _generated(text: str, name: str) -> nbformat.NotebookNode:
    """A cell of text that the notebook does not have."""
    return new_markdown_cell(text, metadata={"generated": True}, id=name)


def all_results(project: Project, live: str) -> dict[str, Found]:
    """The results of all pages of the book."""
    return {notebook: results(project, notebook, live) for notebook in project.published()}


def claims_table(project: Project, found: dict[str, Found]) -> str:
    """The table of all claims by question; those with results come first."""
    registry = project.registry
    questions = {
        question: sorted(
            [(registry[i], found.get(registry[i].notebook or "", {})) for i in ids],
            key=lambda row: not row[1],
        )
        for question, ids in registry.questions.items()
    }
    profiles = dict.fromkeys(profile for of_page in found.values() for profile in of_page)
    verdicts = [*dict.fromkeys(claims.ICONS)][:-3]  # the others are outcomes of checks
    lists = {"papers": registry.papers, "profiles": profiles, "verdicts": verdicts}
    return made("claims.html", questions=questions, **lists)


def front(
    project: Project, found: dict[str, Found], live: str, pages: dict[str, nbformat.NotebookNode]
) -> str:
    """What was found, in a few words: findings, the figure that carries the book, the tally."""
    registry = project.registry
    here = {c.id: found[c.notebook][live] for c in registry.claims if c.notebook in found}
    verdicts = [_verdict(here[c.id], c) for c in registry.claims if c.id in here]
    tally = {verdict: verdicts.count(verdict) for verdict in claims.ICONS if verdict in verdicts}
    shown = [(registry[claim], here[claim]) for claim in registry.front if claim in here]
    figure, about = None, None
    if registry.figure in pages and (cell := key_figure(pages[registry.figure])):
        [(figure, about)] = _figures(cell)
    return made(
        "front.md",
        shown=shown,
        tally=tally,
        planned=len(registry.claims) - len(here),
        figure=figure,
        about=about,
        notebook=registry.figure,
    )


def agreement(project: Project, live: str) -> str:
    """On how many checks the live results and those on fresh seeds agree, and which differ."""
    compared = []
    for notebook in project.published():
        found = results(project, notebook, live)
        for claim, fresh in (found["fresh"].claims if "fresh" in found else {}).items():
            here = found[live].claims[claim].checks
            compared += [
                (claim, n, here[n], check) for n, check in fresh.checks.items() if n in here
            ]
    other = [row for row in compared if row[2].passed is not row[3].passed]
    return made("agreement.md", compared=compared, other=other)


def coverage(path: Path) -> str:
    """How often intervals hold the truth, from what `benchmarks.coverage` has kept."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    rows: dict[tuple[Any, ...], list[float]] = {}
    for row in kept["rows"]:
        cell = tuple(row[name] for name in ("kind", "seeds", "points", "shared"))
        rows.setdefault(cell, []).append(row["covered"])
    spreads = {row["spread"] for row in kept["rows"]}
    return made("coverage.md", rows=rows, trials=kept["trials"], spreads=spreads)


def benchmarks_tables(files: Iterable[Path]) -> str:
    """What `make bench` measured, one section a machine."""
    works = [json.loads(path.read_text(encoding="utf-8"))["works"] for path in sorted(files)]
    return made("benchmarks.md", machines=[list(of_machine.values()) for of_machine in works])


def contents(toc: dict[str, Any], titles: dict[str, str]) -> dict[str, Any]:
    """The table of contents, with a title for each page that has one besides its heading."""
    for part in toc.get("parts", [toc]):
        for chapter in part["chapters"]:
            if chapter["file"] in titles:
                chapter["title"] = titles[chapter["file"]]
    return toc


def stage(project: Project, live: str) -> None:
    """Writes the sources of the book to `build/source/`."""
    root, source = project.root, project.root / "build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    extra = source / "extra"  # copied as it is
    for folder in (source / "notebooks", source / "generated", extra, source / "offered"):
        folder.mkdir(parents=True)
    shutil.copy2(root / "_config.yml", source / "_config.yml")
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__"))
    found = all_results(project, live)
    pages = {nb: page(project, nb, live, extra / "data") for nb in found}
    titles = {nb: content.cells[0].source.removeprefix("# ") for nb, content in pages.items()}
    links = Links(source / "book", project.registry, titles)
    for path in (source / "book").glob("*.md"):
        path.write_text(links.claims(path.read_text("utf-8"), "../notebooks/"), encoding="utf-8")
    sections, sidebar = [], {}
    for notebook, content in pages.items():
        executed = EXECUTED.format(profile=live, notebook=notebook)
        offered = nbformat.read(root / executed, as_version=4)
        if revision := os.environ.get("GITHUB_SHA"):
            offered = with_install(offered, install_address(os.environ, revision))
        nbformat.write(offered, source / "offered" / f"{notebook}.ipynb")
        links.add(content, notebook)
        nbformat.write(content, source / "notebooks" / f"{notebook}.ipynb")
        known = facts(project, notebook, found[notebook])
        heading = "; ".join(f"{claim.id}. {claim.title}" for claim in known["claims"])
        table = (
            f"<details><summary>Show</summary>\n\n{made('provenance.md', **known)}\n\n</details>"
        )
        sections.append(f"## {heading}\n\n{table}")
        ids = ", ".join(claim.id for claim in known["claims"])
        sidebar[f"notebooks/{notebook}"] = f"{ids}. {titles[notebook]}"
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    (source / "_toc.yml").write_text(
        yaml.safe_dump(contents(toc, sidebar), sort_keys=False), encoding="utf-8"
    )
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    generated = {
        "front": front(project, found, live, pages),
        "claims_table": claims_table(project, found),
        "agreement": agreement(project, live),
        "provenance": "\n".join(sections),
        "coverage": coverage(root / "benchmarks" / "coverage.json"),
        "history": made("history.md", claims=project.registry.claims, history=history(root)),
        "reasons": asides.sections(reasons(changelog)),
        "changelog": asides.sections(changelog.partition("\n")[2]),
        "benchmarks": benchmarks_tables((root / "benchmarks" / "results").glob("*.json")),
    }
    for name, text in generated.items():
        (source / "generated" / f"{name}.md").write_text(text, encoding="utf-8")
    data = claims.export(project.registry, found, live)
    (extra / "claims.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    software = metadata.codemeta(citation(project))
    (extra / "codemeta.json").write_text(json.dumps(software, indent=1, ensure_ascii=False) + "\n")
    repository = os.environ.get("GITHUB_REPOSITORY", "").partition("/")[2]  # if it is published
    (extra / "404.html").write_text(
        made("404.html", home=f"/{repository}/" if repository else ""), encoding="utf-8"
    )


def render(project: Project, live: str) -> None:
    """Renders `build/source/` to `build/html/`, which is replaced only by a complete book."""
    build = project.root / "build"
    shutil.rmtree(build / "render", ignore_errors=True)
    # Not the script jupyter-book, which knows where the environment was when it was made.
    code = "from workflow.machine import follow; follow()\n"
    code += "from jupyter_book.cli.main import main; main()"
    command: list[str | Path] = [sys.executable, "-c", code, "build", build / "source"]
    command += ["--path-output", build / "render", "-n", "-W", "--keep-going", "-q"]
    os.environ.update(machine.child())
    done = subprocess.run(command, cwd=project.root, stdout=PIPE, stderr=STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise BuildError("jupyter-book failed; the book at build/html is the one before")
    html = build / "render" / "_build" / "html"
    offered = html / "_sources" / "notebooks"  # to download: without what only the page has
    shutil.copytree(build / "source" / "offered", offered, dirs_exist_ok=True)
    runs = [found[live] for found in all_results(project, live).values()]
    metadata.crate(html, citation(project), runs).metadata.write(html)
    if (build / "html").exists():
        (build / "html").replace(build / "render" / "before")
    html.replace(build / "html")
    shutil.rmtree(build / "render")


if __name__ == "__main__":
    project = Project()
    machine.follow()
    with explained():
        stage(project, sys.argv[1])
        render(project, sys.argv[1])
