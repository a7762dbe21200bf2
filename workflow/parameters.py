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


def parse_set(text: str) -> dict[str, Any]:
    """Reads `name=value name=value`; a value is JSON, a fraction, or else plain text."""
    values: dict[str, Any] = {}
    rest = text.strip()
    while rest:
        match = re.match(r"([^\s=]+)=(\S.*)", rest, re.DOTALL)
        if not match or not match[1].isidentifier():
            raise UsageError(f"SET: {rest!r} is not of the form name=value")
        name, rest = match.groups()
        if name in values:
            raise UsageError(f"SET: {name!r} is given twice")
        try:
            values[name], end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError):
            end = 0
        if end == 0 or rest[end : end + 1].strip():  # not JSON, or more than JSON
            following = re.search(r"\s+[^\s=]+=", rest)
            end = following.start() if following else len(rest)
            values[name] = number(rest[:end])
        rest = rest[end:].strip()
    return values
