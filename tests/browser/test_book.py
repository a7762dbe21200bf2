"""What holds for the book as a whole."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, expect

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
    start.locator("#search-results").get_by_text(title, exact=True).first.click()
    expect(start).to_have_title(re.compile(re.escape(title)))


def test_first_tab_stop_skips_to_the_text(start: Page) -> None:
    start.keyboard.press("Tab")
    assert start.evaluate("document.activeElement.innerText") == "Skip to main content"
    start.keyboard.press("Enter")
    assert start.url.endswith("#main-content")


REGISTRY = yaml.safe_load((ROOT / "book/claims.yml").read_text(encoding="utf-8"))


def test_every_claim_has_a_row_under_its_question(start: Page) -> None:
    rows = start.locator("table.claims-table tbody tr").all()
    texts = [row.inner_text() for row in rows]
    titles = {claim["id"]: f"{claim['id']}. {claim['title']}" for claim in REGISTRY["claims"]}
    assert len(rows) == len(titles) + len(REGISTRY["questions"])
    for question, ids in REGISTRY["questions"].items():
        place = texts.index(question)
        below = " ".join(texts[place + 1 : place + 1 + len(ids)])
        assert all(titles[claim] in below for claim in ids)
    for claim in REGISTRY["claims"]:
        [text] = [text for text in texts if text.startswith(titles[claim["id"]])]
        assert (claim["status"] == "planned") == ("this build" not in text)


def test_the_front_page_says_what_was_found(start: Page) -> None:
    found = start.locator(".in-short li").all_inner_texts()
    assert [any(f" {claim}: " in text for text in found) for claim in REGISTRY["front"]] == [
        True
    ] * len(REGISTRY["front"])
    assert start.locator(".front-figure img").evaluate("image => image.naturalWidth") > 100
    tally = sum(map(int, re.findall(r"\d+", start.locator(".tally").inner_text())))
    assert tally == len(REGISTRY["claims"])


def shown(page: Page) -> list[str]:
    """The ids of the claims that the table shows, from the top."""
    heads = page.locator(".claims-table tbody tr:not(.question):visible > th").all_inner_texts()
    return [text.partition(".")[0] for text in heads]


def test_the_table_is_filtered_and_sorted_by_keyboard(start: Page) -> None:
    ids = [claim["id"] for claim in REGISTRY["claims"]]
    assert sorted(shown(start)) == sorted(ids)
    start.locator(".claims-filter [name=paper]").focus()
    start.keyboard.press("ArrowDown")
    paper = next(iter(REGISTRY["papers"]))
    of_paper = [claim["id"] for claim in REGISTRY["claims"] if claim["paper"] == paper]
    assert sorted(shown(start)) == sorted(of_paper)
    assert start.locator(".claims-filter output").inner_text().startswith(f"{len(of_paper)} of")
    start.locator(".claims-filter [name=profile]").select_option("cifar")
    assert 0 < len(shown(start)) <= len(of_paper)
    words = start.locator(".claims-table td:nth-child(3) .of-profile:visible").all()
    assert {part.get_attribute("data-profile") for part in words} == {"cifar"}
    start.locator(".claims-filter [name=paper]").select_option("")
    start.locator(".claims-filter [name=order]").select_option("paper")
    order = [next(c["paper"] for c in REGISTRY["claims"] if c["id"] == i) for i in shown(start)]
    assert order == sorted(order)
    assert start.locator(".claims-table .question:visible").count() == 0
    start.locator(".claims-filter [name=verdict]").select_option("not run")
    planned = {claim["id"] for claim in REGISTRY["claims"] if claim["status"] == "planned"}
    assert not planned.intersection(shown(start))  # nothing of this profile is known of them


def test_without_a_script_the_table_has_all_claims(browser: Browser, html: Path) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        tab = context.new_page()
        tab.goto((html / "book/index.html").as_uri())
        assert len(shown(tab)) == len(REGISTRY["claims"])
        assert not tab.locator(".claims-filter").is_visible()


@pytest.mark.parametrize("claim", [c for c in REGISTRY["claims"] if c["notebook"]], ids=str)
def test_a_claim_has_an_anchor(claim: dict[str, str], html: Path) -> None:
    page = parsed(html / "notebooks" / f"{claim['notebook']}.html")
    box = page.find(id=claim["id"])
    assert claim["title"] in box.get_text()
    assert box.select(f'a.headerlink[href="#{claim["id"]}"]')
    assert box.select('a[href^="https://arxiv.org/abs/"]')
    assert f"@misc{{ntkcompanion-{claim['id']}," in page.get_text()
    links = page.select(".bd-sidebar-primary .current a")
    assert any(claim["id"] in link.get_text() for link in links)
    front = parsed(html / "book" / "index.html")
    assert front.select(f'.claims-table a[href$="{claim["notebook"]}.html#{claim["id"]}"]')


def test_what_is_missing_has_a_page_that_leads_back(browser: Browser, html: Path) -> None:
    with browser.new_page() as tab:
        tab.goto((html / "404.html").as_uri())
        tab.get_by_role("link").click()
        tab.wait_for_url("**/book/index.html")


def test_all_results_are_there_as_data(html: Path) -> None:
    data = json.loads((html / "claims.json").read_text(encoding="utf-8"))
    assert [claim["id"] for claim in data["claims"]] == [c["id"] for c in REGISTRY["claims"]]
    for claim in data["claims"]:
        assert bool(claim["results"]) == (claim["status"] == "available")
    for figure in (html / "data").rglob("*.csv"):
        rows = list(csv.reader(figure.read_text(encoding="utf-8").splitlines()))
        assert {len(row) for row in rows} == {6}, figure
        assert len(rows) > 1, figure


def test_the_book_says_what_it_consists_of(html: Path) -> None:
    crate = json.loads((html / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
    files = {entity["@id"]: entity for entity in crate if "File" in entity["@type"]}
    data = {str(path.relative_to(html)) for path in (html / "data").rglob("*.csv")}
    notebooks = {f"notebooks/{c['notebook']}.html" for c in REGISTRY["claims"] if c["notebook"]}
    assert data | notebooks | {"claims.json", "codemeta.json"} <= set(files)
    for name, entity in files.items():
        content = (html / name).read_bytes()
        assert entity["sha256"] == hashlib.sha256(content).hexdigest(), name


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
    if suffix == ".ipynb":
        text = ((html / name).parent / offered[0]).read_text(encoding="utf-8")
        assert "## In short" not in text  # what only the page has
