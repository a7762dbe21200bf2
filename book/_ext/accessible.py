"""Repairs HTML of the bibliography that readers' aids misunderstand."""

from typing import Any

from sphinx.application import Sphinx


def repair(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Make the entries of a list of references items of that list.

    Docutils gives them a role of their own, which has been withdrawn from the standard.
    """
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
