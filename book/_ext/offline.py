"""Makes a page need nothing but a few small files beside it, even when opened from a disk.

The theme's own files are two megabytes in thirty pieces, most of it icons that no page has.
"""

import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

from sphinx.application import Sphinx

# Search summaries are fetched from the pages found, which browsers forbid for file: addresses.
NO_SUMMARIES = """
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
""".strip()
# An entry of a set of icons: name, size, other names, code point, shape.
_ICON = re.compile(
    r'(?:"([\w-]+)"|([\w$]+)):\[\d+,\d+,\[([^\]]*)\],"\w+",(?:"[^"]*"|\[[^\]]*\])\],?'
)
# The same icons as letters of a font. The script has put a picture in the place of each.
_LETTER = re.compile(r"(?:\.fa-[\w-]+:{1,2}before,?)+\{content:[^}]*\}")
_FONT = re.compile(r"@font-face\{[^}]*fontawesome[^}]*\}")
_STYLES = re.compile(r'(?:<link [^>]*?href="([^"]+\.css[^"]*)"[^>]*?>\s*){2,}')
_SCRIPTS = re.compile(r'(?:<script src="([^"]+\.js[^"]*)"></script>\s*){2,}')
# Only the page of the search itself finds anything with these.
_SEARCH = re.compile(
    r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\s*'
)


def prune_icons(script: str, used: set[str]) -> str:
    """Take out of Font Awesome's script the icons that no page uses."""

    def kept(match: re.Match[str]) -> str:
        names = {match[1] or match[2], *re.findall(r'"([\w-]+)"', match[3])}
        return match[0] if names & used else ""

    return _ICON.sub(kept, script)


def read(path: Path) -> str:
    """A file of styles or a script, with what it imports, without what no reader loads."""
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r'^@import "(.*?)";$', text, re.MULTILINE):
        text = text.replace(f'@import "{name}";', read(path.parent / name))
    return re.sub(r"(//|/\*)# sourceMappingURL=\S*( \*/)?", "", text)


def bundle(page: Path, static: Path) -> None:
    """Let a page load its styles as one file, and its scripts in as few as their order allows."""
    text = page.read_text(encoding="utf-8")
    if page.name != "search.html":
        text = _SEARCH.sub("", text)

    def one(match: re.Match[str]) -> str:
        names = re.findall(r'(?:href|src)="([^"]+)"', match[0])
        files = [page.parent / urlsplit(name).path for name in names]
        kind = files[0].suffix
        made = {".css": "\n", ".js": ";\n"}[kind].join(map(read, files))
        made = _FONT.sub("", _LETTER.sub("", made)) if kind == ".css" else made
        name = f"bundle-{hashlib.sha256(made.encode()).hexdigest()[:12]}{kind}"
        (static / name).write_text(made, encoding="utf-8")
        where = f"{'../' * len(page.relative_to(static.parent).parts[1:])}{static.name}/{name}"
        if kind == ".css":
            return f'<link rel="stylesheet" href="{where}">\n'
        return f'<script src="{where}"></script>\n'

    page.write_text(_SCRIPTS.sub(one, _STYLES.sub(one, text)), encoding="utf-8")


def lighten(app: Sphinx, error: Exception | None) -> None:
    """Remove what no reader needs of the theme's files, and put the rest together."""
    static = Path(app.outdir) / "_static"
    icons = static / "scripts" / "fontawesome.js"
    if error or not icons.exists():
        return
    for path in [*static.rglob("*.map"), *static.rglob("fa-*.woff2")]:
        path.unlink()
    pages = [p for p in Path(app.outdir).rglob("*.html") if static not in p.parents]
    scripts = [static / "scripts" / "pydata-sphinx-theme.js", *static.glob("*.js")]
    used = {
        name
        for path in [*pages, *scripts]
        for name in re.findall(r"\bfa-([a-z-]+)", path.read_text("utf-8"))
    }
    icons.write_text(prune_icons(icons.read_text("utf-8"), used), encoding="utf-8")
    for path in pages:
        bundle(path, static)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", lighten, priority=900)  # the theme writes some at 500
    app.add_js_file(None, body=NO_SUMMARIES)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
