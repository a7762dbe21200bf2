"""A notebook as it is written: what is known of it before anything runs."""

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext
import nbformat

from workflow.errors import UsageError
from workflow.imports import imported

# What a parameter with bounds may be annotated with, as JSON Schema and in words.
_KINDS = {"int": ("integer", "a whole number"), "float": ("number", "a number")}


@dataclass(frozen=True)
class Notebook:
    """A notebook of the book, with its source `notebooks/NAME.py`."""

    path: Path

    @property
    def name(self) -> str:
        """Its name, such as `01_ntk_transfer`."""
        return self.path.stem

    def read(self) -> nbformat.NotebookNode:
        """Its cells, not executed. They have the same ids each time, unlike jupytext's."""
        content = jupytext.read(self.path)
        for number, cell in enumerate(content.cells):
            cell["id"] = f"cell-{number}"
        return content

    @cached_property
    def _text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def imports(self) -> tuple[str, ...]:
        """What its cells import, see `workflow.imports.imported`."""
        try:
            return tuple(sorted(imported(self._text)))
        except SyntaxError as error:
            raise UsageError(f"{self.name}: line {error.lineno}: {error.msg}") from None

    def shows_record(self, profile: str) -> bool:
        """Whether it shows what `records/` has of it in a profile, which it names."""
        return "page.record" in self._text and f'"{profile}"' in self._text

    def _tagged(self, tag: str) -> list[nbformat.NotebookNode]:
        return [cell for cell in self.read().cells if tag in cell.metadata.get("tags", [])]

    @cached_property
    def trainings(self) -> str | None:
        """The code of its cells tagged `trainings`, see `workflow.trainings`; None without any."""
        cells = self._tagged("trainings")
        return "\n\n".join(cell.source for cell in cells) if cells else None

    @cached_property
    def _parameters(self) -> tuple[nbformat.NotebookNode, list[ast.AnnAssign]]:
        """The cell tagged `parameters`, and its lines."""
        tagged = self._tagged("parameters")
        if len(tagged) != 1:
            raise UsageError(f"{self.name}: {len(tagged)} cells are tagged 'parameters', not one")
        lines: list[ast.AnnAssign] = []
        where = f"{self.name}: parameters cell, line"
        try:
            for line in ast.parse(tagged[0].source).body:
                if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
                    raise UsageError(f"{where} {line.lineno}: not `name: type = value`")
                lines.append(line)
        except SyntaxError as error:
            raise UsageError(f"{where} {error.lineno}: {error.msg}") from None
        return tagged[0], lines

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their defaults, read from the cell tagged `parameters`, not run."""
        found: dict[str, Any] = {}
        for line in self._parameters[1]:
            name = ast.unparse(line.target)
            try:
                found[name] = ast.literal_eval(line.value or "")
            except (ValueError, TypeError, SyntaxError):
                raise UsageError(
                    f"{self.name}: parameters cell, line {line.lineno}: the value of {name} is "
                    "not a literal"
                ) from None
        return found

    @cached_property
    def bounds(self) -> dict[str, dict[str, Any]]:
        """What the notebook itself allows its parameters to be, as JSON Schema with a title.

        They stand at the cell: `# %% tags=["parameters"] bounds={"width": [16, 4096]}`.
        """
        cell, lines = self._parameters
        annotations = {ast.unparse(line.target): ast.unparse(line.annotation) for line in lines}
        stated = cell.metadata.get("bounds", {})
        if not isinstance(stated, dict):
            raise UsageError(
                f"{self.name}: bounds are {stated!r}; allowed: a mapping of parameters to "
                "[low, high]"
            )
        found: dict[str, dict[str, Any]] = {}
        for name, pair in stated.items():
            match pair, _KINDS.get(annotations.get(name, "")):
                case [int() | float() as low, int() | float() as high], (kind, words) if low < high:
                    title = f"{words} from {low} to {high}"
                    rules = {"type": kind, "minimum": low, "maximum": high, "title": title}
                    found[name] = rules
                case _:
                    raise UsageError(
                        f"{self.name}: bounds of {name!r} are {pair!r}; allowed: [low, high], of "
                        "a parameter annotated with int or float"
                    )
        return found
