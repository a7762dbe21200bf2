"""What an attack is, and the value that an attack with its settings is."""

import functools
import inspect
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from ntklib.attacks._losses import Inputs, Labels, LogitsFn


@runtime_checkable
class Attack(Protocol):
    """What everything here takes and makes: a function of a classifier and of its inputs."""

    def __hash__(self) -> int:
        """Attacks are static arguments of what is compiled."""

    def __call__(self, logits_fn: LogitsFn, x: Inputs, y: Labels, key: PRNGKeyArray, /) -> Inputs:
        """Inputs of the shape of `x`, made to be misclassified; the key is for what is random."""


class partial(functools.partial[Inputs]):  # noqa: N801 (named as what it extends)
    """A `functools.partial` that compares, hashes and prints by value.

    So an attack with its settings, such as `partial(pgd, epsilon=0.1, steps=5, step_size=0.05)`,
    can be a static argument of what is compiled, a part of a recipe, and a part of a file's name:
    equal ones compile once, and print alike. Settings are numbers, strings, other attacks, and
    whatever else is such a value; lists and arrays of them become tuples and numbers. A name that
    the attack does not have is a TypeError.
    """

    def __new__(cls, attack: Any, /, *args: Any, **settings: Any) -> "partial":
        """The attack with these settings; more of them may be set later."""
        values = {name: _value(setting) for name, setting in settings.items()}
        self = super().__new__(cls, attack, *map(_value, args), **values)
        self._settings()
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, partial) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        settings = (f"{name}={_shown(value)}" for name, value in self._settings().items())
        return f"{_shown(self.func).lstrip('_')}({', '.join(settings)})"

    def _key(self) -> tuple[Any, ...]:
        return self.func, self.args, frozenset(self.keywords.items())

    def _settings(self) -> dict[str, Any]:
        """By name, in the order of the attack's signature."""
        return inspect.signature(self.func).bind_partial(*self.args, **self.keywords).arguments


def _value(setting: Any) -> Any:
    """The setting as one of those that compare, hash and print by value."""
    if isinstance(setting, np.ndarray | np.generic | jax.Array):
        return _value(setting.item() if setting.size == 1 else setting.tolist())
    if type(setting) in (list, tuple):
        return tuple(map(_value, setting))
    if type(setting) is functools.partial:
        return partial(setting.func, *setting.args, **setting.keywords)
    return setting


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # as the number that it is equal to
    return getattr(value, "__name__", None) or repr(value)
