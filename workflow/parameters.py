"""Values of parameters: how they are written, and what is allowed."""

import json
import math
import re
from typing import Any

import jsonschema

from workflow.errors import UsageError

# JSON Schema takes 1.0 for an integer, and NaN for a number in every range.
_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: type(value) is int,
        "number": lambda _, value: (
            type(value) is int or (type(value) is float and math.isfinite(value))
        ),
    }
)
_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_TYPES)


def allowed(value: Any, rules: dict[str, Any]) -> bool:
    """Whether a value follows a JSON Schema."""
    return _Validator(rules).is_valid(value)


def number(value: Any) -> Any:
    """Turns a fraction such as `"8/255"`, as budgets are usually written, into its number."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9})/([1-9]\d{0,8})", value)):
        return int(match[1]) / int(match[2])
    return value


def _value(text: str, after_json: str, after_text: str) -> tuple[Any, str]:
    """The value that a text begins with, and the rest.

    It is JSON, a fraction, or else plain text. Patterns say what comes after JSON, and after text.
    """
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        if re.match(after_json, text[end:]):
            return value, text[end:]
    except (ValueError, RecursionError):
        pass
    end = next(re.finditer(after_text, text)).start()
    return number(text[:end]), text[end:]


def _named(text: str, variable: str, form: str) -> tuple[str, str]:
    """The name that a text begins with, and what follows its equals sign."""
    match = re.match(r"([^\s=]+)=(\S.*)", text, re.DOTALL)
    if not match or not match[1].isidentifier():
        raise UsageError(f"{variable}: {text!r} is not of the form {form}")
    return match[1], match[2]


def parse_set(text: str) -> dict[str, Any]:
    """Reads `name=value name=value`; a value is JSON, a fraction, or else plain text."""
    values: dict[str, Any] = {}
    rest = text.strip()
    while rest:
        name, rest = _named(rest, "SET", "name=value")
        if name in values:
            raise UsageError(f"SET: {name!r} is given twice")
        values[name], rest = _value(rest, r"\s|\Z", r"\s+[^\s=]+=|\Z")
        rest = rest.strip()
    return values


def parse_grid(text: str) -> dict[str, list[Any]]:
    """Reads `name=value,value name=value`; values are as in `parse_set`, text without spaces."""
    grid: dict[str, list[Any]] = {}
    rest = text.strip()
    while rest or not grid:
        start = rest
        name, rest = _named(rest, "GRID", "name=value,value")
        if name in grid:
            raise UsageError(f"GRID: {name!r} is given twice")
        grid[name], rest = [], f",{rest}"
        while rest.startswith(","):
            value, after = _value(rest[1:], r"[,\s]|\Z", r"[,\s]|\Z")
            if after == rest[1:]:
                raise UsageError(f"GRID: {start!r} is not of the form name=value,value")
            if value in grid[name]:
                raise UsageError(f"GRID: {name} = {json.dumps(value)} is given twice")
            grid[name].append(value)
            rest = after
        rest = rest.strip()
    return grid
