"""What holds for every page of the book, in both colour schemes."""

import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

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
    heights = page.eval_on_selector_all(
        ".math", "all => all.map(m => m.querySelector('math')?.getBoundingClientRect().height ?? 0)"
    )
    hidden = page.locator("details:not([open]) .math").count()
    assert sum(height < 5 for height in heights) <= hidden
    text = page.evaluate(
        """() => {
            const main = document.querySelector("main").cloneNode(true);
            main.querySelectorAll("pre, code").forEach(e => e.remove());
            return main.textContent;
        }"""
    )
    assert re.findall(r"\\\(|\\\[|\\[a-z]{2,}|\$[^\s$][^$]*\$", text) == []


@pytest.mark.parametrize("width", [380, 768])
def test_never_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [380, 1280])
def test_is_accessible(page: Page, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    # The theme lets boxes that scroll at this width take the focus, on loading.
    page.reload()
    # Contrast takes most of the time, and has the same colours on a phone. What is there only, such
    # as its bar, is on every page.
    again = width < 1280 and name != "book/index.html"
    options = {"resultTypes": ["violations"], "rules": {"color-contrast": {"enabled": not again}}}
    violations = [
        f"{violation['id']}: {node['html'][:300]} {node['failureSummary']}"
        for violation in Axe().run(page, options=options).response["violations"]
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]
    assert violations == []


HEAVIEST = 1_200_000  # bytes
MOST_FILES = 20


def test_is_light(page: Page, loaded: set[str]) -> None:
    assert page.url.partition("#")[0] in loaded
    files = {Path(url2pathname(urlsplit(url).path)) for url in loaded if url.startswith("file:")}
    sizes = sorted(((file.stat().st_size, file.name) for file in files), reverse=True)
    assert sum(size for size, _ in sizes) <= HEAVIEST, sizes[:6]
    assert len(files) <= MOST_FILES, sizes


def test_no_code_is_cut(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    cut = page.eval_on_selector_all(
        ".cell_input pre, .cite pre",
        "all => all.filter(p => p.scrollWidth > p.clientWidth + 1).map(p => p.innerText)",
    )
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")
    assert cut == []


def test_the_answer_stands_first(page: Page, name: str) -> None:
    if not name.startswith("notebooks/"):
        pytest.skip("prose")
    page.set_viewport_size({"width": 1280, "height": 800})
    bottoms = page.eval_on_selector_all(
        ".in-short, .bd-article img",
        "all => all.slice(0, 2).map(e => e.getBoundingClientRect().bottom)",
    )
    assert max(bottoms) + page.evaluate("scrollY") <= FIRST


FIRST = 1500  # pixels, where answer and first figure end
LONGEST = 9000


def test_is_not_long(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.evaluate("document.scrollingElement.scrollHeight") <= LONGEST


def test_a_link_opens_what_is_folded(page: Page) -> None:
    link = page.locator("p.caption a[href^='#fig-']")
    if not link.count():
        pytest.skip("no figure at the top")
    figure = page.locator(link.get_attribute("href") or "")
    assert not figure.is_visible()
    link.click()
    assert figure.is_visible()
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = false)")


def test_says_what_it_is(page: Page, name: str) -> None:
    if name == "search.html":
        pytest.skip("no page of the book")
    described = page.locator('meta[name="description"]').get_attribute("content")
    assert described
    assert len(described) <= 200
    assert page.locator('meta[property="og:title"]').get_attribute("content")
    footer = page.locator("footer.bd-footer-content").inner_text()
    assert re.search(r"Version \d", footer)
    assert re.search(r"\d{4}-\d\d-\d\d", footer)
