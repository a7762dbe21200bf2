"""Files: where they are, and whether they follow their schema."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

PACKAGE = Path(__file__).parents[1]


class RegistryError(ValueError):
    """The registry or a result file does not follow its schema."""


def located(path: str) -> Path:
    """A file or folder of a checkout; its copy inside the package elsewhere."""
    packaged = PACKAGE / Path(path).name
    return packaged if packaged.exists() else PACKAGE.parent / path


def read_yaml(path: Path, name: str) -> Any:
    """The content of a YAML file.

    Raises:
        RegistryError: one line that says why the file of that name cannot be read.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RegistryError(f"{name}: cannot be read: {' '.join(str(error).split())}") from error


@cache
def _validator(schema: str) -> Any:
    path = PACKAGE / "claims" / "schemas" / f"{schema}.yml"
    return jsonschema.Draft202012Validator(read_yaml(path, path.name))


def validate(content: Any, schema: str, where: str) -> None:
    """Holds content against the schema `registry` or `result`.

    Raises:
        RegistryError: one line that names the place and what is allowed.
    """
    error = jsonschema.exceptions.best_match(_validator(schema).iter_errors(content))
    if error is None:
        return
    path = error.json_path.removeprefix("$.")
    match list(error.absolute_path):
        case ["claims", int(number), *_] if "id" in content["claims"][number]:
            entry = f"claims[{number}]"
            path = path.replace(entry, f"claim {content['claims'][number]['id']}", 1)
    title = error.schema.get("title") if isinstance(error.schema, dict) else None
    reason = f"{error.instance!r} is not allowed; it is {title}" if title else error.message
    raise RegistryError(f"{where}: {path}: {' '.join(reason.split())}")
