"""Lays out the pages of the book from prose, executed notebooks and results, and renders them."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import jinja2
import nbformat
from nbformat.v4 import new_markdown_cell

from ntklib import claims
from workflow import machine
from workflow.collect import trusted
from workflow.errors import BuildError, explained
from workflow.history import history, reasons
from workflow.plan import RESULT, Project

TEMPLATES = Path(__file__).parent / "templates"

Found = dict[str, claims.Result]


def prose(project: Project) -> list[Path]:
    """All files, besides executed notebooks and results, that the pages are made from."""
    names = ["_config.yml", "_toc.yml", "CHANGELOG.md", "benchmarks/coverage.json"]
    names += ["workflow/history.py", "workflow/stage.py"]
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


def _labels(found: Found) -> list[str]:
    """Profiles, and whether their result is of this build or from the records."""
    return [f"{p} ({'recorded' if i else 'live'})" for i, p in enumerate(found)]


def _verdict(result: claims.Result, claim: claims.Claim) -> str:
    """The verdict of a result; a record may be older than the claim."""
    return result.claims[claim.id].verdict if claim.id in result.claims else "not run"


def _check(result: claims.Result, claim: claims.Claim, name: str) -> claims.CheckResult | None:
    """What a result says of a check; None if it was not judged there."""
    return result.claims[claim.id].checks.get(name) if claim.id in result.claims else None


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_TEMPLATES.globals.update(badge=claims.badge, icons=claims.ICONS)
_TEMPLATES.filters.update(measured=measured, in_cell=_in_cell, labels=_labels, json=json.dumps)
_TEMPLATES.filters.update(verdict=_verdict, check=_check)


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


def as_figures(content: nbformat.NotebookNode) -> None:
    """Turns pictures shown with `ntklib.plots.show` into figures with alt text and caption.

    MyST-NB takes both from the cell's metadata only; the notebook knows them when it runs.
    """
    for cell in content.cells:
        for output in cell.get("outputs", []):
            figure = output.get("metadata", {}).get("ntklib.figure")
            if figure:
                output.data.pop("text/html")
                cell.metadata["mystnb"] = {
                    "image": {"alt": figure["alt"]},
                    "figure": {"caption": figure["caption"], "name": figure["name"]},
                }


def page(project: Project, notebook: str, live: str) -> nbformat.NotebookNode:
    """The page of a notebook: as executed, with verdicts, results and provenance."""
    content, _ = trusted(project, notebook, live, project.parameters(notebook, live))
    known = facts(project, notebook, results(project, notebook, live))
    as_figures(content)
    content.cells.insert(1, new_markdown_cell(made("verdicts.html", **known)))
    content.cells.append(new_markdown_cell(made("results.md", **known)))
    return content


def claims_table(project: Project, live: str) -> str:
    """The table of all claims, the front page of the book; those with results come first."""
    rows = [
        (c, results(project, str(c.notebook), live) if c.status == "available" else {})
        for c in sorted(project.registry.claims, key=lambda claim: claim.status != "available")
    ]
    return made("claims.html", claims=rows)


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


def stage(project: Project, live: str) -> None:
    """Writes the sources of the book to `build/source/`."""
    root, source = project.root, project.root / "build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    (source / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, source / name)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__"))
    provenance = []
    for notebook in project.published():
        content = page(project, notebook, live)
        nbformat.write(content, source / "notebooks" / f"{notebook}.ipynb")
        known = facts(project, notebook, results(project, notebook, live))
        titles = "; ".join(f"{claim.id}. {claim.title}" for claim in known["claims"])
        provenance.append(made("provenance.md", **known, title=titles))
    generated = {
        "claims_table": claims_table(project, live),
        "agreement": agreement(project, live),
        "provenance": "\n".join(provenance),
        "coverage": coverage(root / "benchmarks" / "coverage.json"),
        "history": made("history.md", claims=project.registry.claims, history=history(root)),
        "reasons": reasons((root / "CHANGELOG.md").read_text(encoding="utf-8")),
        "benchmarks": benchmarks_tables((root / "benchmarks" / "results").glob("*.json")),
    }
    (source / "generated").mkdir()
    for name, text in generated.items():
        (source / "generated" / f"{name}.md").write_text(text, encoding="utf-8")


def render(project: Project) -> None:
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
    if (build / "html").exists():
        (build / "html").replace(build / "render" / "before")
    (build / "render" / "_build" / "html").replace(build / "html")
    shutil.rmtree(build / "render")


if __name__ == "__main__":
    project = Project()
    machine.follow()
    with explained():
        stage(project, sys.argv[1])
        render(project)
