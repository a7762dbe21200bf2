"""Opens the pages of the built book in Chromium, from the disk.

``BOOK_HTML`` names another folder than ``build/html``. Without Chromium or a built book the tests
are skipped, but in continuous integration, where ``CI`` is set, they fail.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
HTML = Path(os.environ.get("BOOK_HTML", ROOT / "build/html")).resolve()
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
# Without the redirect at the top, the page for what is missing, and the theme's templates.
PAGES = sorted(
    str(page.relative_to(HTML))
    for page in HTML.rglob("*.html")
    if page not in (HTML / "index.html", HTML / "404.html") and HTML / "_static" not in page.parents
)
SILENT = [  # so that Chromium asks a network for nothing of its own
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built book."""
    if not PAGES:
        stop = pytest.fail if "CI" in os.environ else pytest.skip
        stop(f"no book in {HTML}: run make book")
    return HTML


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    if CHROMIUM is None:
        stop = pytest.fail if "CI" in os.environ else pytest.skip
        stop("no Chromium: run apt-get install chromium")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=SILENT) as chromium,
    ):
        yield chromium


@pytest.fixture(scope="module", params=PAGES or ["none"])
def name(html: Path, request: pytest.FixtureRequest) -> str:
    """The path of a page inside the book."""
    return str(request.param)


@pytest.fixture(scope="module", params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    """The reader's colour scheme."""
    return str(request.param)


@pytest.fixture(scope="module")
def problems(name: str, scheme: str) -> list[str]:
    """What went wrong while the page was open; filled by `page`."""
    return []


@pytest.fixture(scope="module")
def loaded(name: str, scheme: str) -> set[str]:
    """The files that the page has asked for; filled by `page`."""
    return set()


@pytest.fixture(scope="module")
def page(
    browser: Browser, html: Path, name: str, scheme: str, problems: list[str], loaded: set[str]
) -> Iterator[Page]:
    """A page in one colour scheme. All tests of the page share it."""
    with browser.new_page(color_scheme=scheme) as tab:
        tab.on("pageerror", lambda error: problems.append(f"error: {error}"))
        tab.on(
            "console",
            lambda message: message.type in {"error", "warning"} and problems.append(message.text),
        )
        tab.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:"))
                or problems.append(f"network: {request.url}")
            ),
        )
        tab.on("request", lambda request: loaded.add(request.url.partition("?")[0]))
        tab.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        tab.goto((html / name).as_uri())
        yield tab
