"""What holds for the book as a whole."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(browser: Browser, html: Path) -> Iterator[Page]:
    """The address a reader opens."""
    with browser.new_page() as tab:
        tab.goto((html / "index.html").as_uri())
        tab.wait_for_url("**/book/index.html")
        yield tab


def test_search_finds_and_opens_a_page(start: Page) -> None:
    start.keyboard.press("Control+k")
    start.keyboard.type("tangent")
    start.keyboard.press("Enter")
    hits = start.locator("#search-results li a")
    hits.first.wait_for(timeout=10_000)
    title = hits.first.inner_text()
    hits.first.click()
    assert title in start.title()


def test_first_tab_stop_skips_to_the_text(start: Page) -> None:
    start.keyboard.press("Tab")
    assert start.evaluate("document.activeElement.innerText") == "Skip to main content"
    start.keyboard.press("Enter")
    assert start.url.endswith("#main-content")


def test_every_claim_has_a_row_and_a_verdict(start: Page) -> None:
    registry = yaml.safe_load((ROOT / "book/claims.yml").read_text(encoding="utf-8"))
    rows = start.locator("table.claims-table tbody tr")
    assert rows.count() == len(registry["claims"])
    # Those with results come first.
    claims = sorted(registry["claims"], key=lambda claim: claim["status"] != "available")
    for claim, row in zip(claims, rows.all(), strict=True):
        assert claim["title"] in row.inner_text()
        verdicts = [v.inner_text() for v in row.locator(".verdict").all()]
        assert verdicts
        assert all(any(letter.isalpha() for letter in verdict) for verdict in verdicts)


@cache
def parsed(file: Path) -> BeautifulSoup:
    return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")


def test_links_lead_somewhere(html: Path, name: str) -> None:
    dead = []
    for element in parsed(html / name).select("[href], [src]"):
        target = element.get("href") or element.get("src") or ""
        url = urlsplit(target)
        if url.scheme or url.netloc:
            continue
        file = (html / name).parent / unquote(url.path) if url.path else html / name
        anchor = unquote(url.fragment)
        if not file.is_file() or (anchor and not parsed(file).find(id=anchor)):
            dead.append(target)
    assert dead == []


def test_notebooks_can_be_downloaded(html: Path, name: str) -> None:
    offered = [a["href"] for a in parsed(html / name).select(".dropdown-download-buttons a")]
    suffix = ".ipynb" if name.startswith("notebooks/") else ".md"
    if name != "search.html":
        assert [Path(link).suffix for link in offered] == [suffix]
