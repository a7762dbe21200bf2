"""Files: where they are, and whether they follow their schema."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

HERE = Path(__file__).parent


class RegistryError(ValueError):
    """The registry or a result file does not follow its schema."""


def located(in_checkout: str, in_package: str) -> Path:
    """A file or folder of the checkout; in an installed library, its copy in the package."""
    packaged = HERE.parent / in_package
    return packaged if packaged.exists() else HERE.parents[1] / in_checkout


@cache
def _validator(schema: str) -> Any:
    content = yaml.safe_load((HERE / "schemas" / f"{schema}.yml").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(content)


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
