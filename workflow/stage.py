"""Lays out the pages of the book from prose, executed notebooks and results, and renders them."""

import html
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell

from ntklib import claims
from workflow.collect import Result, trusted
from workflow.errors import BuildError, explained
from workflow.plan import RESULT, Project

BENCHMARKS = "benchmarks/results"


def prose(project: Project) -> list[Path]:
    """All files, besides executed notebooks and results, that the pages are made from."""
    root = project.root
    files = [root / "_config.yml", root / "_toc.yml", Path(__file__)]
    for folder in (root / "book", root / "records", root / BENCHMARKS):
        files += [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return sorted(p.relative_to(root) for p in files)


def table(css: str, head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """An HTML table in a box that scrolls by itself. Cells are HTML; the first heads its row."""
    lines = [f'<div class="table-scroll" tabindex="0" role="region" aria-label="{caption}">']
    lines += [f'<table class="{css}"><thead><tr>']
    lines += [f'<th scope="col">{h}</th>' for h in head]
    lines += ["</tr></thead><tbody>"]
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def measured(entry: dict[str, Any]) -> str:
    """A value with its interval, as text."""
    value, (low, high) = entry["value"], entry["interval"]
    if None in (value, low, high):
        return "not a number"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def in_cell(entry: dict[str, Any]) -> str:
    """The same for a cell of a table, where a line may break before the interval, not in it."""
    return measured(entry).replace(", ", ",\N{NO-BREAK SPACE}")


def results(project: Project, notebook: str, live: str) -> dict[str, Result]:
    """Results of a notebook by profile: the live one, and those recorded for other profiles."""
    live_result = project.root / RESULT.format(notebook=notebook, profile=live)
    found = {live: claims.read_result(live_result)}
    for profile in project.profiles:
        path = project.root / "records" / notebook / f"{profile}.json"
        if path.exists() and profile not in found:
            found[profile] = claims.read_result(path)
    return found


def label(profile: str, live: str) -> str:
    """A profile and whether its result is of this build or from the records."""
    return f"{profile} ({'live' if profile == live else 'recorded'})"


def outcome(claim: claims.Claim, result: Result) -> dict[str, Any]:
    """What a result says of one claim: its checks and its verdict."""
    return next(o for o in result["claims"] if o["claim"] == claim.id)


def reported(claim: claims.Claim) -> str:
    """What was reported, and where that is from, as HTML."""
    if claim.reported is None:
        return "no number that can be verified"
    return html.escape(f"{claim.reported['text']} ({claim.reported['provenance']})")


def verdict_line(page_claims: Sequence[claims.Claim], found: dict[str, Result], live: str) -> str:
    """The verdicts of a page, below its title; one line a claim."""
    lines = []
    for claim in page_claims:
        parts = [
            f"{label(p, live)} {claims.badge(outcome(claim, r)['verdict'])}"
            for p, r in found.items()
        ]
        lines.append(f"{claim.id}: " + " &nbsp; ".join(parts))
    return '<p class="page-verdict">' + "<br>".join(lines) + "</p>"


def results_by_profile(
    page_claims: Sequence[claims.Claim], found: dict[str, Result], live: str
) -> str:
    """The checks and the measurements of every profile, side by side."""
    words = {True: "✔ holds", False: "✘ fails", None: "? undecided"}
    printed = {
        name: f"{value:.2f}"
        for claim in page_claims
        for name, value in (claim.reported or {}).get("values", {}).items()
    }
    blank = ["–"] if printed else []
    rows = []
    for claim in page_claims:
        outcomes = [outcome(claim, result) for result in found.values()]
        for check in claim.checks:
            cells = []
            for of_profile in outcomes:
                entry = next((c for c in of_profile["checks"] if c["name"] == check.name), None)
                cells.append(
                    f"{in_cell(entry)}<br>{html.escape(entry['predicate'])}: "
                    f"{words[entry['passed']]}"
                    if entry
                    else "not judged"
                )
            name = check.name.replace("_", "_<wbr>")  # where a line may break
            quantity = f"<small>{html.escape(check.quantity)}</small>"
            rows.append([f"{claim.id}: {name}<br>{quantity}", *cells, *blank])
        badges = [claims.badge(of_profile["verdict"]) for of_profile in outcomes]
        rows.append([f"{claim.id}: verdict", *badges, *blank])
    for name in dict.fromkeys(name for r in found.values() for name in r["measurements"]):
        entries = [r["measurements"].get(name) for r in found.values()]
        if any(isinstance(e, dict) and "interval" in e for e in entries):
            shown = [in_cell(e) if e else "–" for e in entries]
            reported_value = [printed.get(name, "–")] if printed else []
            rows.append([html.escape(name), *shown, *reported_value])
    for name in dict.fromkeys(f["name"] for r in found.values() for f in r["soundness"]):
        cells = []
        for result in found.values():
            entry = next((f for f in result["soundness"] if f["name"] == name), None)
            cells.append(
                f"{entry['value']:.3f} (limit {entry['limit']:g}): {words[entry['ok']]}"
                if entry
                else "–"
            )
        rows.append([f"soundness: {name}", *cells, *blank])
    head = ["Quantity", *(label(p, live) for p in found), *(["reported"] if printed else [])]
    ids = ", ".join(claim.id for claim in page_claims)
    lines = [f"Reported for {claim.id}: {reported(claim)}." for claim in page_claims]
    return "\n\n".join(
        [
            "## Results by profile",
            *lines,
            "Brackets hold 95 % intervals.",
            table("results-by-profile", head, rows, f"Results by profile, {ids}"),
        ]
    )


def not_run(project: Project, notebook: str, found: dict[str, Result]) -> list[str]:
    """A line on the profiles that a notebook is prepared for and has no result of, if any."""
    missing = [p for p in project.profiles_of(notebook) if p not in found and p != "smoke"]
    if not missing:
        return []
    names = " and ".join(f"`{profile}`" for profile in missing)
    plural = "s" if len(missing) > 1 else ""
    return [f"Prepared, but not run for this page: the profile{plural} {names}."]


def provenance(project: Project, notebook: str, found: dict[str, Result], live: str) -> str:
    """How the results of a page were made, and how to make them again."""

    def command(result: Result) -> str:
        set_by_user = project.parameters(notebook, result["profile"])
        changed = {k: v for k, v in result["parameters"].items() if set_by_user.get(k) != v}
        extra = " ".join(f"{k}={json.dumps(v, separators=(',', ':'))}" for k, v in changed.items())
        suffix = f" SET='{extra}'" if extra else ""
        return f"<code>make run NB={notebook} PROFILE={result['profile']}{suffix}</code>"

    rows = []
    for name, show in {
        "commit": lambda r: (
            (r["provenance"]["commit"] or "none")[:12]
            + (" with changes" if r["provenance"]["dirty"] else "")
        ),
        "started": lambda r: r["provenance"]["started"][:19].replace("T", " "),
        "duration": lambda r: f"{r['provenance']['seconds']:.0f} s",
        "device": lambda r: r["provenance"]["device"],
        "Python": lambda r: r["provenance"]["python"],
        "packages": lambda r: ", ".join(f"{k} {v}" for k, v in r["provenance"]["packages"].items()),
        "data": lambda r: "<br>".join(
            f"{k}: <code>{v[:16]}…</code>" for k, v in r["provenance"]["data_sha256"].items()
        ),
        "seeds": lambda r: ", ".join(map(str, r["seeds"])),
        "parameters": lambda r: f"<code>{html.escape(json.dumps(r['parameters']))}</code>",
        "key": lambda r: f"<code>{r['provenance']['key'][:16]}…</code>",
        "make it again": command,
    }.items():
        rows.append([name, *(show(result) for result in found.values())])
    head = ["Item", *(label(p, live) for p in found)]
    return "## How this page was made\n\n" + table(
        "provenance", head, rows, f"Provenance of {notebook}"
    )


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
    """The page of a notebook: as executed, with verdicts, results and provenance.

    Raises:
        BuildError: if the executed notebook or its result is not to be trusted.
    """
    content, _ = trusted(project, notebook, live, project.parameters(notebook, live))
    found, its_claims = results(project, notebook, live), project.claims_of(notebook)
    as_figures(content)
    content.cells.insert(1, new_markdown_cell(verdict_line(its_claims, found, live)))
    content.cells.append(new_markdown_cell(results_by_profile(its_claims, found, live)))
    content.cells += [new_markdown_cell(line) for line in not_run(project, notebook, found)]
    content.cells.append(new_markdown_cell(provenance(project, notebook, found, live)))
    return content


def claims_table(project: Project, live: str) -> str:
    """The table of all claims, the front page of the book; those with results come first."""
    rows = []
    for claim in sorted(project.registry.claims, key=lambda claim: claim.status != "available"):
        name = f"{claim.id}. {html.escape(claim.title)}"
        cite = f"<br><small>{html.escape(claim.paper.authors)} ({claim.paper.year})</small>"
        printed = html.escape((claim.reported or {}).get("text", "–"))
        if claim.status == "planned":
            rows.append([name + cite, claims.badge("not run"), "–", "–", printed])
            continue
        found = results(project, str(claim.notebook), live)
        quantity = next((c.quantity for c in claim.checks if c.name == claim.headline), None)
        shown = []
        for result in found.values():
            checks = outcome(claim, result)["checks"]
            entry = next((c for c in checks if c["name"] == claim.headline), None)
            shown.append(measured(entry) if entry else "–")
        if quantity:
            shown.append(f"<small>{html.escape(quantity)}</small>")
        rows.append(
            [
                f'<a href="../notebooks/{claim.notebook}.html">{name}</a>{cite}',
                "<br>".join(claims.badge(outcome(claim, r)["verdict"]) for r in found.values()),
                "<br>".join(shown),
                "<br>".join(label(p, live) for p in found),
                printed,
            ]
        )
    head = ["Claim", "Verdict", "Measured", "Profile", "Reported"]
    return table("claims-table", head, rows, "All claims and their verdicts")


def benchmarks_tables(files: Iterable[Path]) -> str:
    """What `make bench` measured, one section a machine."""
    sections = []
    for path in sorted(files):
        rows = []
        for work in json.loads(path.read_text(encoding="utf-8"))["works"].values():
            here = work["environment"]
            wanted = {target["peer"]: target["ratio"] for target in work["targets"]}
            ratios = [
                f"{ratio:.2f} {html.escape(name)}"
                + (f" (wanted {wanted[name]:.2g})" if name in wanted else "")
                for name, ratio in work["ratios"].items()
                if name != "ntklib"
            ]
            rows.append(
                [
                    f"{html.escape(work['title'])}<br><small>commit {here['commit']}, "
                    f"{here['date']}</small>",
                    f"{work['medians']['ntklib']:.3g} s, {work['peak_bytes'] / 1e9:.1f} GB",
                    "<br>".join(ratios),
                    "✔ reached" if work["reached"] else "✘ not reached",
                ]
            )
        title = f"{here['device']}, {here['cores']} cores, {here['machine']}"
        packages = ", ".join(f"{name} {version}" for name, version in here["packages"].items())
        head = ["Work", "ntklib", "Times as long: peer", "All"]
        sections.append(
            f"## {title}\n\nPython {here['python']}, {packages}.\n\n"
            + table("benchmarks", head, rows, f"Benchmarks on {title}")
        )
    return "\n\n".join(sections)


def stage(project: Project, live: str) -> None:
    """Writes the sources of the book to `build/source/`."""
    root, source = project.root, project.root / "build" / "source"
    shutil.rmtree(source, ignore_errors=True)
    (source / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, source / name)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__"))
    sections = []
    for notebook in project.published():
        content = page(project, notebook, live)
        nbformat.write(content, source / "notebooks" / f"{notebook}.ipynb")
        titles = "; ".join(f"{claim.id}. {claim.title}" for claim in project.claims_of(notebook))
        made = provenance(project, notebook, results(project, notebook, live), live)
        sections.append(made.replace("How this page was made", titles))
    generated = source / "generated"
    generated.mkdir()
    (generated / "claims_table.md").write_text(claims_table(project, live), encoding="utf-8")
    (generated / "provenance.md").write_text("\n\n".join(sections), encoding="utf-8")
    (generated / "benchmarks.md").write_text(
        benchmarks_tables((root / BENCHMARKS).glob("*.json")), encoding="utf-8"
    )


def render(project: Project) -> None:
    """Renders `build/source/` to `build/html/`, which is replaced only by a complete book.

    Raises:
        BuildError: if jupyter-book fails or warns.
    """
    build = project.root / "build"
    shutil.rmtree(build / "render", ignore_errors=True)
    program = Path(sys.executable).with_name("jupyter-book")
    command: list[str | Path] = [program, "build", build / "source"]
    command += ["--path-output", build / "render", "-n", "-W", "--keep-going", "-q"]
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
    with explained():
        stage(project, sys.argv[1])
        render(project)
