"""Links of a page to its repository: run in Colab or on Binder, show the source.

A workflow run names its repository in ``GITHUB_SERVER_URL`` and ``GITHUB_REPOSITORY``. The branch
``notebooks`` holds the generated notebooks, the branch ``main`` their sources. Elsewhere the build
knows no address, and the pages get no such links.
"""

import os
from collections.abc import Mapping
from typing import Any

from sphinx.application import Sphinx

GITHUB = "https://github.com"


def links(page: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Make the addresses that belong to one page.

    Args:
        page: Name of the page, without a suffix: ``notebooks/01_ntk_transfer``, ``book/index``.
        environ: Environment variables.

    Returns:
        Addresses by name: ``repository``, ``source`` and ``issue``, for a notebook also ``colab``
        and ``binder``. Empty where the repository is unknown or not on github.com, the only host
        that Colab opens.
    """
    repository = environ.get("GITHUB_REPOSITORY", "")
    if not repository or environ.get("GITHUB_SERVER_URL", GITHUB) != GITHUB:
        return {}
    home = f"{GITHUB}/{repository}"
    issue = f"{home}/issues/new?title={page}"
    if not page.startswith("notebooks/"):
        return {"repository": home, "source": f"{home}/blob/main/{page}.md", "issue": issue}
    path = f"{repository}/blob/notebooks/{page}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{repository}/notebooks"
    return {
        "repository": home,
        "source": f"{home}/blob/main/{page}.py",
        "issue": issue,
        "colab": f"https://colab.research.google.com/github/{path}",
        "binder": f"{binder}?urlpath=lab/tree/{page}.ipynb",
    }


def published(environ: Mapping[str, str]) -> str:
    """Make the address of the published book, on GitHub's pages; empty where it is unknown."""
    owner, _, name = environ.get("GITHUB_REPOSITORY", "").partition("/")
    known = name and environ.get("GITHUB_SERVER_URL", GITHUB) == GITHUB
    return f"https://{owner.lower()}.github.io/{name}/" if known else ""


def button(url: str, text: str, icon: str) -> dict[str, str]:
    """Describe a link as the theme's templates expect it."""
    return {"type": "link", "url": url, "text": text, "tooltip": text, "icon": icon}


def add_buttons(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Put the links of a page into its header."""
    url = links(page, os.environ)
    if doctree is None or not url:
        return
    groups = []
    if "colab" in url:
        run = [
            button(url["colab"], "Colab", "_static/images/logo_colab.png"),
            button(url["binder"], "Binder", "_static/images/logo_binder.svg"),
        ]
        groups.append(("Run this notebook", "fas fa-rocket", run))
    source = [
        button(url["repository"], "Repository", "fab fa-github"),
        button(url["source"], "Source of this page", "fas fa-code"),
        button(url["issue"], "Question or mistake?", "fas fa-lightbulb"),
    ]
    groups.append(("Source", "fab fa-github", source))
    context["header_buttons"][:0] = [
        {"type": "group", "tooltip": name, "icon": icon, "buttons": buttons}
        for name, icon, buttons in groups
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    # The theme creates the list of buttons at priority 500 and fills it at 501.
    app.connect("html-page-context", add_buttons, priority=502)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
