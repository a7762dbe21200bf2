"""Sections of a page that are folded, and those that stay open."""

import re

import pytest
from nbformat import v4

from workflow import asides


def shown(content):
    """The text of a page, with the names of its sections that are folded."""
    text = "\n\n".join(cell.source for cell in content.cells)
    headings = re.findall(r"^## (.*)\n\n<details><summary>Show: (.*)</summary>$", text, re.M)
    assert text.count("<details>") == text.count("</details>")
    assert len({cell["id"] for cell in content.cells}) == len(content.cells)
    return text, dict(headings)


def code(source, tags=(), html=None, figure=False):
    data = {"text/html": html} if html else {}
    cell = v4.new_code_cell(source, outputs=[v4.new_output("display_data", data)])
    cell.metadata.update({"tags": list(tags)} | ({"mystnb": {"figure": {}}} if figure else {}))
    return cell


@pytest.fixture
def page():
    cells = [
        v4.new_markdown_cell("# A title"),
        v4.new_markdown_cell("## The idea\n\nWhy.\n\n## Setup\n\n- one\n- two"),
        code("x = 1", figure=True),
        code("x = 2"),
        v4.new_markdown_cell("What it is.\n\n## What was measured\n\nNow:"),
        code("see()", figure=True),
        v4.new_markdown_cell("## Browse"),
        code("slider()", html='<figure class="explore" id="a">', figure=True),
        code("draw()", ["key-figure"], figure=True),
        code("plot()", figure=True),
        v4.new_markdown_cell("## Verdict\n\nSo it is."),
        code("table()", figure=True),
    ]
    return v4.new_notebook(cells=cells)


def test_what_is_no_argument_is_folded(page):
    asides.fold(page)
    text, folded = shown(page)
    assert folded == {
        "Setup": "1 figure, 2 code cells, 2 points",
        "What was measured": "1 figure, 1 code cell",
    }
    order = ["# A title", "## The idea", "Why.", "## Setup", "<details>", "- one", "x = 1", "x = 2"]
    order += ["What it is.", "</details>", "## What was measured", "Now:", "see()", "## Browse"]
    order += ["slider()", "draw()", "plot()", "## Verdict", "table()"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_the_figure_at_the_top_is_folded_in_its_place(page):
    asides.fold(page)
    place = [cell.source for cell in page.cells].index("draw()")
    assert page.cells[place - 1].source.startswith("<details><summary>Show: the figure at the top")
    assert page.cells[place + 1].source == "</details>"


def test_beside_an_explorable_other_figures_are_folded(page):
    asides.fold(page)
    sources = [cell.source for cell in page.cells]
    before = [sources[sources.index(cell) - 1] for cell in ("plot()", "slider()", "table()")]
    assert before[0] == "<details><summary>Show: 1 figure, 1 code cell</summary>"
    assert before[1:] == ["## Browse", "## Verdict\n\nSo it is."]


def test_parts_of_a_text_are_folded():
    text = asides.sections("Before.\n\n### One\n\n- a\n\n### Two\n\nb\n")
    assert text.startswith("Before.\n\n### One\n\n<details><summary>Show</summary>\n\n- a\n\n</det")
    assert text.count("</details>") == 2
    assert asides.sections("No parts.") == "No parts."
