"""Sets formulas as MathML while the book is built: a page needs neither a script nor a font for it.

MathJax, which Sphinx would use, is two megabytes a page.
"""

import re
from html import escape
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# Single letters are italic in MathML; TeX has capital Greek ones upright.
_GREEK = re.compile(r"<mi>(&#x003(?:9[1-9A-F]|A[0-9]);)</mi>")


def mathml(tex: str, *, display: bool) -> str:
    """A formula of TeX as MathML, in a line of its own if `display`.

    Raises:
        ValueError: if a part of the formula is unknown.
    """
    try:
        made = convert(tex, display="block" if display else "inline")
        ElementTree.fromstring(made)
    except Exception as error:
        raise ValueError(
            f"formula {tex!r} cannot be set: {error or type(error).__name__}"
        ) from None
    if left := re.search(r"\\\w+", made):
        raise ValueError(f"formula {tex!r} has {left[0]}, which is unknown")
    made = _GREEK.sub(r'<mi mathvariant="normal">\1</mi>', made)
    return made.replace("<math ", f'<math alttext="{escape(tex)}" ', 1)


def _set(translator: HTML5Translator, node: nodes.Element, tag: str) -> None:
    """Writes a formula, or warns, which ends the build of the book."""
    try:
        made = mathml(node.astext(), display=tag == "div")
    except ValueError as error:
        logger.warning(str(error), location=node)
        made = escape(node.astext())
    focus = {"tabindex": "0"} if tag == "div" else {}  # it may scroll
    start = translator.starttag(node, tag, "", CLASS="math", **focus)
    translator.body.append(f"{start}{made}</{tag}>")
    raise nodes.SkipNode


def _inline(translator: HTML5Translator, node: nodes.Element) -> None:
    _set(translator, node, "span")


def _block(translator: HTML5Translator, node: nodes.Element) -> None:
    _set(translator, node, "div")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
