"""Makes links of what the text of a notebook names: claims, other pages, citations, terms.

A notebook is read outside the book, too, so its source has none of the book's own marks.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat

from ntklib import claims

# What is left as it is: blocks and spans of code, formulas, links, headings, HTML.
_KEPT = re.compile(
    r"^```.*?^```|^:::.*?^:::|``.*?``|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\[[^\]]*\]\([^)]*\)|^#.*?$|<[^>]*>",
    re.DOTALL | re.MULTILINE,
)


def _words(text: str) -> str:
    """A pattern for a text whose words may stand on two lines."""
    return r"\s+".join(map(re.escape, text.split()))


class Links:
    """What can be linked to, and the links."""

    def __init__(self, book: Path, registry: claims.Registry, titles: Mapping[str, str]) -> None:
        """Read from the folder `book` the bibliography and the glossary, where there is one.

        Args:
            book: folder with `references.bib` and `glossary.md`.
            registry: the claims.
            titles: headings of the pages, by notebook.
        """
        self._titles = titles
        self._pages = {c.id: c.notebook for c in registry.claims if c.notebook in titles}
        entries = (book / "references.bib").read_text(encoding="utf-8")
        authors = re.findall(r"^@\w+{(\w+),\s*author\s*=\s*{+([^,}]+), .* and ", entries, re.M)
        self._cited = {f"{name} et al. {key[-4:]}": key for key, name in authors}
        glossary = book / "glossary.md"
        text = glossary.read_text(encoding="utf-8") if glossary.exists() else ""
        block = text.partition(":sorted:")[2]
        self._terms = re.findall(r"^(?!`)(\S.*?)$", block, re.MULTILINE)

    def add(self, content: nbformat.NotebookNode, notebook: str) -> None:
        """Links what the cells of text of a notebook name, each term where it is met first."""
        met: set[str] = set()
        for cell in content.cells:
            if cell.cell_type == "markdown" and not cell.metadata.get("generated"):
                cell.source = self.linked(cell.source, notebook, met)

    def linked(self, text: str, notebook: str, met: set[str]) -> str:
        """A text with links; `met` has the terms that were linked before, and gets new ones."""
        for name, title in self._titles.items():
            link = f"[*{title}*]({name}.ipynb)"
            text = re.sub(rf"\*{_words(title)}\*", link, text) if name != notebook else text
        for cited, key in self._cited.items():
            text = _outside(text, _words(cited), _always(f"{{cite:alp}}`{key}`"))
        text = self.claims(text)
        for term in self._terms:
            for name in {term, re.sub(r" \(\w+\)$", "", term)} - met:
                new = _outside(text, rf"\b{_words(name)}s?\b", _term(term), 1)
                met |= {term, name} if new != text else set()
                text = new
        return text

    def claims(self, text: str, folder: str = "") -> str:
        """A text in which the names of claims are links to their pages, which are in a folder."""
        for claim, page in self._pages.items():
            link = f'<a href="{folder}{page}.html#{claim}">{claim}</a>'
            text = _outside(text, rf"\b{claim}\b", _always(link))
        return text


def _always(text: str) -> Callable[[re.Match[str]], str]:
    return lambda _: text


def _term(term: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{{term}}`{match[0]} <{term}>`"


def _outside(
    text: str, pattern: str, replace: Callable[[re.Match[str]], str], count: int = 0
) -> str:
    """Replaces a pattern where the text is neither code nor formula, link, heading or HTML."""
    parts, end, left = [], 0, count
    for kept in [*_KEPT.finditer(text), None]:
        free = text[end : kept.start() if kept else len(text)]
        if not count or left:
            free, n = re.subn(pattern, replace, free, count=left)
            left = max(left - n, 0)
        parts += [free, kept[0] if kept else ""]
        end = kept.end() if kept else end
    return "".join(parts)
