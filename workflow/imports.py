"""Which files of a folder a program depends on: those that it imports, directly or not."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path


@cache
def imported(source: str, package: str = "", path: str | Path = "") -> frozenset[str]:
    """Dotted names that may be modules which a source imports, relative ones from `package`.

    Imports within functions count, and so do names in strings, which `importlib` may be given. The
    path is for the SyntaxError of what is no Python.
    """
    found: list[str] = []
    for node in ast.walk(ast.parse(source, str(path))):
        match node:
            case ast.Import(names):
                found += [alias.name for alias in names]
            case ast.ImportFrom(module, names, level):
                parents = package.split(".")[: package.count(".") + 2 - level] if level else []
                base = ".".join([*parents, *([module] if module else [])])
                found += [f"{base}.{alias.name}" for alias in names]
            case ast.Constant(str(text)) if re.fullmatch(r"\w+(\.\w+)+", text):
                found.append(text)
    return frozenset(found)


def closure(root: Path, names: Iterable[str]) -> set[Path]:
    """The files of a folder that are read when modules are imported from it.

    A package brings its `__init__.py` and its data: files that are no Python, also in folders below
    that are no packages. Names are those of modules, of what is in them, or of all that is:
    `package.*`. Modules that the folder does not have count as installed.
    """
    todo, seen, found = list(names), set(), set()
    while todo:
        name = todo.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        package, _, last = name.rpartition(".")
        todo.append(package)
        folder = root.joinpath(*package.split("."))
        if last == "*":
            todo += [f"{package}.{path.stem}" for path in folder.glob("*") if path.stem != "*"]
            continue
        if (module := folder / f"{last}.py").is_file():
            found.add(module)
            todo += imported(module.read_text(encoding="utf-8"), package, module)
        if (start := folder / last / "__init__.py").is_file():
            found |= {start, *_data(start.parent)}
            todo += imported(start.read_text(encoding="utf-8"), name, start)
    return found


def _data(folder: Path) -> Iterator[Path]:
    """Files of a package that are no Python."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            yield from _data(path)
        elif path.is_file() and path.suffix != ".py":
            yield path
