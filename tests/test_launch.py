"""The addresses that a page offers: its repository, its source, Colab and Binder."""

from pathlib import Path

import launch
import pytest
import yaml

ROOT = Path(__file__).parents[1]

RUN = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/book"}


def toc_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]


def test_a_notebook_runs_from_the_generated_branch_and_shows_its_source() -> None:
    assert launch.links("notebooks/01_ntk_transfer", RUN) == {
        "repository": "https://github.com/me/book",
        "source": "https://github.com/me/book/blob/main/notebooks/01_ntk_transfer.py",
        "issue": "https://github.com/me/book/issues/new?title=notebooks/01_ntk_transfer",
        "colab": "https://colab.research.google.com/github/me/book/blob/notebooks/"
        "notebooks/01_ntk_transfer.ipynb",
        "binder": "https://mybinder.org/v2/gh/me/book/notebooks"
        "?urlpath=lab/tree/notebooks/01_ntk_transfer.ipynb",
    }


def test_prose_shows_its_source_only() -> None:
    assert launch.links("book/index", RUN) == {
        "repository": "https://github.com/me/book",
        "source": "https://github.com/me/book/blob/main/book/index.md",
        "issue": "https://github.com/me/book/issues/new?title=book/index",
    }


@pytest.mark.parametrize(
    "environ",
    [{}, {"GITHUB_REPOSITORY": ""}, RUN | {"GITHUB_SERVER_URL": "https://git.example.org"}],
)
def test_without_an_address_there_are_no_links(environ: dict[str, str]) -> None:
    assert launch.links("notebooks/01_ntk_transfer", environ) == {}


def test_the_address_of_the_published_book_is_that_of_its_repository() -> None:
    assert launch.published(RUN) == "https://me.github.io/book/"
    assert launch.published({}) == launch.published(RUN | {"GITHUB_SERVER_URL": "https://x"}) == ""


@pytest.mark.parametrize("page", toc_pages())
def test_the_source_of_every_page_exists(page: str) -> None:
    source = launch.links(page, RUN)["source"].removeprefix("https://github.com/me/book/blob/main/")
    assert (ROOT / source).is_file()


@pytest.mark.parametrize(
    ("page", "groups"),
    [
        ("notebooks/01_ntk_transfer", ["Run this notebook", "Source", "Download this page"]),
        ("book/index", ["Source", "Download this page"]),
    ],
)
def test_buttons_stand_before_those_of_the_theme(
    page: str, groups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in RUN.items():
        monkeypatch.setenv(name, value)
    context = {"header_buttons": [{"tooltip": "Download this page"}]}
    launch.add_buttons(None, page, "page.html", context, doctree=object())
    assert [group["tooltip"] for group in context["header_buttons"]] == groups


def test_pages_without_a_source_get_no_buttons(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in RUN.items():
        monkeypatch.setenv(name, value)
    context: dict[str, list[object]] = {"header_buttons": []}
    launch.add_buttons(None, "search", "search.html", context, doctree=None)
    assert context["header_buttons"] == []
