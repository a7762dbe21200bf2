"""The figures with a slider, with and without their script, on a page of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from ntklib import explore

STATIC = Path(__file__).parents[2] / "book" / "_static"
HTML = """\
<!doctype html><html lang="en" data-theme="{scheme}"><meta charset="utf-8"><title>A figure</title>
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="{static}/custom.css">
<link rel="stylesheet" href="{static}/explore.css">
<script defer src="{static}/explore.js"></script>
<style>body {{ background: var(--pst-color-background); color: var(--pst-color-text-base) }}</style>
<main><h1>A figure</h1>{figure}</main></html>
"""
Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a page with a figure of three frames."""
    tabs = []

    def show(scheme: str = "light", width: int = 800, script: bool = True) -> Page:
        made: dict[str, str] = {}
        monkeypatch.setattr(explore, "display", lambda data, raw: made.update(data))
        explore.slider(
            {"a network of a long name, width 1024": [1, 2, 3], "b": [0.5, -0.5, 0]},
            ["0", "0.1", "0.2"],
            name="explore-a",
            label="radius",
            quantity="margin",
            alt="Two lines.",
            caption="Margins.",
            images={"image": np.linspace(0, 1, 3)[:, None, None, None] * np.ones((3, 4, 4, 1))},
            start=1,
        )
        page = tmp_path / "page.html"
        page.write_text(
            HTML.format(scheme=scheme, static=STATIC.as_uri(), figure=made["text/html"])
        )
        tab = browser.new_page(viewport={"width": width, "height": 800}, java_script_enabled=script)
        tab.goto(page.as_uri())
        tabs.append(tab)
        return tab

    yield show
    for tab in tabs:
        tab.close()


def test_the_keyboard_chooses_the_frame(opened: Open) -> None:
    tab = opened()
    cells, source = tab.locator(".explore-now td"), "document.images[0].src"
    assert cells.all_inner_texts() == ["2.00", "-0.50"]
    before = tab.evaluate(source), tab.locator(".explore-cursor").get_attribute("d")
    tab.get_by_label("radius").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("output").inner_text() == "0.2"
    assert cells.all_inner_texts() == ["3.00", "0.00"]
    assert tab.locator(".explore-now th").nth(1).inner_text() == "radius = 0.2"
    assert tab.get_by_label("radius").get_attribute("aria-valuetext") == "radius 0.2"
    after = tab.evaluate(source), tab.locator(".explore-cursor").get_attribute("d")
    assert all(a != b for a, b in zip(before, after, strict=True))
    tab.keyboard.press("Home")
    assert cells.all_inner_texts() == ["1.00", "0.50"]
    tab.locator("summary").click()
    assert tab.locator(".explore-current").inner_text().split() == ["0", "1.00", "0.50"]


def test_without_its_script_the_figure_has_a_frame_and_the_table(opened: Open) -> None:
    tab = opened(script=False)
    assert tab.locator("input").count() == 0
    assert tab.locator(".explore-now td").all_inner_texts() == ["2.00", "-0.50"]
    tab.locator("summary").click()
    assert len(tab.locator(".explore-all td").all_inner_texts()) == 6
    assert all(box is not None for box in (tab.locator(c).bounding_box() for c in ("svg", "img")))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_figure_is_accessible_and_fits(scheme: str, width: int, opened: Open) -> None:
    tab = opened(scheme, width)
    tab.locator("summary").click()
    found = Axe().run(tab).response["violations"]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_script_is_small() -> None:
    assert (STATIC / "explore.js").stat().st_size <= 15_000
