"""Files: where they are, whether they follow their schema, and HTML from templates."""

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import jsonschema
import yaml
from markupsafe import Markup

PACKAGE = Path(__file__).parents[1]
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PACKAGE / "claims" / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


# The same as `safe_load`, in C where PyYAML was built with it: seven times faster on the registry.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RegistryError(ValueError):
    """The registry or a result file does not follow its schema."""


def located(path: str) -> Path:
    """A file or folder of a checkout; its copy inside the package elsewhere."""
    packaged = PACKAGE / Path(path).name
    return packaged if packaged.exists() else PACKAGE.parent / path


def read_yaml(path: Path, name: str) -> Any:
    """The content of a YAML file; a `RegistryError` says why that of this name has none."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _LOADER)
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


def render(template: str, **values: Any) -> Markup:
    """HTML from a template of this package; all values are escaped."""
    return Markup(_TEMPLATES.get_template(template).render(values))
