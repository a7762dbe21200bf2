"""Makes a page need nothing but a few small files beside it, even when opened from a disk."""

import re
from pathlib import Path

from sphinx.application import Sphinx

# Search summaries are fetched from the pages found, which browsers forbid for file: addresses.
NO_SUMMARIES = """
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
""".strip()
# An entry of a set of icons: name, size, other names, code point, shape.
_ICON = re.compile(
    r'(?:"([\w-]+)"|([\w$]+)):\[\d+,\d+,\[([^\]]*)\],"\w+",(?:"[^"]*"|\[[^\]]*\])\],?'
)


def prune_icons(script: str, used: set[str]) -> str:
    """Take out of Font Awesome's script the icons that no page uses."""

    def kept(match: re.Match[str]) -> str:
        names = {match[1] or match[2], *re.findall(r'"([\w-]+)"', match[3])}
        return match[0] if names & used else ""

    return _ICON.sub(kept, script)


def prune(app: Sphinx, error: Exception | None) -> None:
    """Remove what no reader loads, or needs: source maps, and the icons that no page has."""
    static = Path(app.outdir) / "_static"
    icons = static / "scripts" / "fontawesome.js"
    if error or not icons.exists():
        return
    for path in static.rglob("*.map"):
        path.unlink()
    pages = [*Path(app.outdir).rglob("*.html"), static / "scripts" / "pydata-sphinx-theme.js"]
    used = {
        name for page in pages for name in re.findall(r"\bfa-([a-z-]+)", page.read_text("utf-8"))
    }
    icons.write_text(prune_icons(icons.read_text("utf-8"), used), encoding="utf-8")
    for script in static.rglob("*.js"):
        text = script.read_text("utf-8")
        if "//# sourceMappingURL=" in text:
            script.write_text(re.sub(r"//# sourceMappingURL=.*", "", text), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", prune)
    app.add_js_file(None, body=NO_SUMMARIES)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
