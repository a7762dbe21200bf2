"""Says of each page what it is: its description, for search engines and previews, and its version.

Where the book will be published is known to a workflow run, see `launch`. Without that the pages
have no address, and so no picture for previews.
"""

import os
import re
from importlib.metadata import version
from textwrap import shorten
from typing import Any

import launch
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

LONGEST = 200


def configure(app: Sphinx, config: Config) -> None:
    """Set the address, if it is known, and the version in the footer."""
    if not config.html_baseurl:
        config.html_baseurl = launch.published(os.environ)
    config.html_theme_options["extra_footer"] = f"<p>Version {version('ntklib')}</p>"


def description(doctree: nodes.document) -> str:
    """The first paragraph of a page, or the first item of a list in HTML before that, cut short."""
    for node in doctree.findall(lambda n: isinstance(n, nodes.paragraph | nodes.raw)):
        text = node.astext()
        if isinstance(node, nodes.raw):
            text = re.sub(r"<[^>]+>", " ", text.partition('<span class="deciding"')[0])
        if text.strip():
            return shorten(text, LONGEST, placeholder=" …")
    return ""


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put the description and what previews need into the head of a page."""
    if doctree is None:
        return
    title = re.sub(r"<[^>]+>", "", context.get("title", ""))
    tags = {"description": description(doctree)}
    preview = {"og:title": title, "og:description": tags["description"], "og:type": "article"}
    if base := app.config.html_baseurl:
        preview["og:image"] = f"{base}_static/preview.png"
    head = [("name", *item) for item in tags.items()]
    head += [("property", *item) for item in preview.items()]
    made = [f'<meta {kind}="{name}" content="{_quoted(text)}">' for kind, name, text in head]
    crate = f"{'../' * page.count('/')}ro-crate-metadata.json"
    made.append(f'<link rel="describedby" type="application/ld+json" href="{crate}">')
    context["metatags"] = "\n".join([context.get("metatags", ""), *made])


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("config-inited", configure)
    app.connect("html-page-context", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
