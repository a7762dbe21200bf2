"""Folds the sections of a page that a reader of its argument can do without.

Open are the sections named in `OPEN`, and those with a figure that can be explored, whose other
figures are folded. The others show their heading, and what is in them. The figure that carries a
page stands at its top, and is folded in its place.
"""

import re
from collections.abc import Iterator

import nbformat
from nbformat.v4 import new_markdown_cell

Cells = list[nbformat.NotebookNode]

OPEN = ("The idea", "Parameters", "Verdict", "What would change our mind")
_HEADING = re.compile(r"^(?=## )|(?<=\n)(?=## )")


def _divided(cells: Cells) -> Iterator[nbformat.NotebookNode]:
    """The cells, where each heading of a section begins one."""
    for cell in cells:
        parts = _HEADING.split(cell.source) if cell.cell_type == "markdown" else []
        if len(parts) < 2:
            yield cell
            continue
        for i, part in enumerate(text for text in parts if text.strip()):
            yield new_markdown_cell(part, metadata=cell.metadata, id=f"{cell['id']}-{i}")


def _explorable(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell shows a figure that can be explored."""
    shown = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
    return any('class="explore"' in html for html in shown)


def _told(section: Cells) -> str:
    """What is in a section, in a few words."""
    text = "\n".join(cell.source for cell in section if cell.cell_type == "markdown")
    numbers = {
        "figure": sum("figure" in cell.metadata.get("mystnb", {}) for cell in section),
        "code cell": sum(cell.cell_type == "code" for cell in section),
        "point": len(re.findall(r"^- ", text, re.MULTILINE)),
    }
    return ", ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in numbers.items() if n)


def _aside(cells: Cells, told: str, heading: str = "") -> Cells:
    """Cells that show no more than a heading and a few words until they are opened."""
    opened = f"{heading}\n\n<details><summary>Show: {told}</summary>".lstrip()
    name = f"aside-{cells[0]['id']}"
    end = new_markdown_cell("</details>", id=f"{name}-end")
    return [new_markdown_cell(opened, id=name), *cells, end]


def sections(text: str) -> str:
    """A text in Markdown whose parts of the third level are folded."""
    head, *parts = re.split(r"^(?=### )", text, flags=re.MULTILINE)
    for part in parts:
        heading, _, body = part.partition("\n")
        head += f"{heading}\n\n<details><summary>Show</summary>\n\n{body.strip()}\n\n</details>\n\n"
    return head


def fold(content: nbformat.NotebookNode) -> None:
    """Folds sections of a page that has been executed, with its figures as figures."""
    parts: list[Cells] = [[]]
    for cell in _divided(content.cells):
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            parts.append([])
        parts[-1].append(cell)
    content.cells = parts[0]
    for section in parts[1:]:
        heading, _, text = section[0].source.partition("\n")
        argument = heading.removeprefix("## ").strip() in OPEN
        if not argument and not any(map(_explorable, section)):
            section[0].source = text
            content.cells += _aside(section, _told(section), heading)
            continue
        for cell in section:
            figure = "figure" in cell.metadata.get("mystnb", {})
            if "key-figure" in cell.metadata.get("tags", []):
                content.cells += _aside([cell], "the figure at the top of this page")
            elif figure and not argument and not _explorable(cell):
                content.cells += _aside([cell], _told([cell]))
            else:
                content.cells.append(cell)
