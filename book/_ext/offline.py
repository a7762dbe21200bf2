"""Makes a page need nothing but the files beside it, even when opened from a disk."""

from importlib.resources import files

from sphinx.application import Sphinx
from sphinx.config import Config

# One file holds MathJax, every TeX extension and the glyphs as SVG paths. The other builds load
# fonts, which some browsers refuse for file: addresses.
MATHJAX = files("sphinx-mathjax-offline").joinpath("static/mathjax/tex-svg-full.js")

# Search summaries are fetched from the pages found, which browsers forbid for file: addresses.
NO_SUMMARIES = """
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
""".strip()


def add_mathjax(app: Sphinx, config: Config) -> None:
    """Copy MathJax beside the pages, as ``_static/tex-svg-full.js``."""
    config.html_static_path.append(str(MATHJAX))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("config-inited", add_mathjax)
    app.add_js_file(None, body=NO_SUMMARIES)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
