"""HTML from the templates beside this module; all values are escaped."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> Markup:
    """What a template makes of the values."""
    return Markup(_ENVIRONMENT.get_template(template).render(values))
