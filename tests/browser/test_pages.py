"""What holds for every page of the book, in both colour schemes."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def test_loads_without_an_error_or_a_network(page: Page, problems: list[str]) -> None:
    assert problems == []


def test_images_load_and_have_a_text(page: Page) -> None:
    images = page.eval_on_selector_all(
        "img", "all => all.map(i => [i.outerHTML, i.alt, i.className, i.naturalWidth])"
    )
    for image, alt, css, width in images:
        assert width > 0, image
        # The logo stands beside the book's title, so that its text is empty on purpose.
        assert alt.strip() or "logo__image" in css, image


def test_formulas_are_typeset(page: Page) -> None:
    bare = page.eval_on_selector_all(
        ".math", "all => all.filter(m => !m.querySelector('mjx-container')).map(m => m.innerText)"
    )
    assert bare == []
    # MathJax sets what it cannot read as an error, and an unknown macro in red.
    assert page.locator("[data-mjx-error], mjx-container [fill=red]").count() == 0
    text = page.evaluate(
        """() => {
            const main = document.querySelector("main").cloneNode(true);
            main.querySelectorAll("pre, code, mjx-container").forEach(e => e.remove());
            return main.textContent;
        }"""
    )
    assert re.findall(r"\\\(|\\\[|\$[^\s$][^$]*\$", text) == []


@pytest.mark.parametrize("width", [380, 768])
def test_never_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [380, 1280])
def test_is_accessible(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    # The theme lets boxes that scroll at this width take the focus, on loading.
    page.reload()
    page.evaluate("window.MathJax?.startup?.promise")
    violations = [
        f"{violation['id']}: {node['html'][:300]} {node['failureSummary']}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]
    assert violations == []
