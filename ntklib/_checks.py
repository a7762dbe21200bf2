"""Refusals in one wording: `NAME: what it is; what is allowed`.

Each function returns the value in the one form that the code behind it works with, or raises a
TypeError for a wrong type (but a ValueError for labels), and a ValueError for a wrong value. Values
are not looked at while another function is being compiled.
"""

from collections.abc import Collection, Iterable, Mapping
from math import inf
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Integer, Num

Number = float | np.number | Num[Array | np.ndarray, "..."]
"""A number as users have it: a whole one as 10, 10.0, or an array of one element."""


def whole(name: str, value: Any, *, least: int = 1, most: float = inf) -> int:
    """A whole number; one written as 10.0, or as an array of one element, means 10."""
    value = _scalar(name, value, "a whole number")
    wanted = f"a whole number >= {least}" if most == inf else f"a whole number, {least} to {most}"
    if isinstance(value, Integral) or float(value).is_integer():
        if least <= value <= most:
            return int(value)
        raise ValueError(f"{name}: {value} is out of range; it is {wanted}")
    raise ValueError(f"{name}: {value} is not whole; it is {wanted}")


def number(name: str, value: Any, *, least: float = -inf, above: float | None = None) -> float:
    """A finite number, at least `least`, or greater than `above`."""
    value = float(_scalar(name, value, "a number"))
    if above is not None and not above < value < inf:
        raise ValueError(f"{name}: {value:g} is out of range; it is finite and above {above:g}")
    if not least <= value < inf or value == -inf:
        bound = "" if least == -inf else f" and at least {least:g}"
        raise ValueError(f"{name}: {value:g} is out of range; it is finite{bound}")
    return value


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """A value among those allowed."""
    allowed = tuple(allowed)
    if not any(type(value) is type(a) and value == a for a in allowed):
        raise ValueError(f"{name}: {value!r} is unknown; allowed: {', '.join(map(repr, allowed))}")
    return value


def points(
    name: str, x: Any, *, ndim: int = 2, dtypes: Collection[Any] = ()
) -> Float[Array | np.ndarray, "n ..."]:
    """Inputs, one a row, finite, of a floating-point type, or one of `dtypes`; lists become arrays.

    They stay where they were: a NumPy array on the host.
    """
    x = x if isinstance(x, jax.Array | np.ndarray) else np.asarray(x)
    if dtypes and x.dtype not in dtypes:
        allowed = " or ".join(jnp.dtype(d).name for d in dtypes)
        raise TypeError(f"{name}: dtype {x.dtype} is not allowed; it is {allowed}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: dtype {x.dtype} is not allowed; it is a floating-point type")
    if x.ndim < ndim or 0 in x.shape:
        raise ValueError(
            f"{name}: shape {x.shape} is not allowed; it is one row a point, of "
            f"{ndim} axes or more, none empty"
        )
    if not isinstance(x, jax.core.Tracer):
        with jax.ensure_compile_time_eval():  # the values may be known while others are not
            finite = (np if isinstance(x, np.ndarray) else jnp).isfinite(x).all()
        if not finite:
            raise ValueError(f"{name}: has values that are not finite")
    return x


def same_rows(name: str, x: Any, other: str, y: Any) -> None:
    """Rows of two sets of inputs must have one shape."""
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{name}: its rows have shape {x.shape[1:]}; they are of shape {y.shape[1:]}, "
            f"as those of {other}"
        )


def labels(
    name: str, y: Any, n: int, n_classes: int | None = None
) -> Integer[Array | np.ndarray, " n"]:
    """Labels, one a point, integers counted from 0; lists become arrays."""
    y = y if isinstance(y, jax.Array | np.ndarray) else np.asarray(y)
    if y.shape != (n,):
        raise ValueError(f"{name}: shape {y.shape} is not allowed; labels of {n} points are ({n},)")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(f"{name}: dtype {y.dtype} is not allowed; labels are of an integer type")
    if n_classes is not None and n > 0:
        least, most = y.min(), y.max()
        if not isinstance(least, jax.core.Tracer) and (least < 0 or most >= n_classes):
            raise ValueError(
                f"{name}: has labels from {least} to {most}; they are 0 to {n_classes - 1}"
            )
    return y


def targets(name: str, y: Any, n: int) -> Float64[np.ndarray, "n c"]:
    """Targets of a regression, one row a point; a single column may come without its axis.

    Labels, one integer a point, are no targets.
    """
    y = np.asarray(y)
    whole = y.dtype == bool or jnp.issubdtype(y.dtype, jnp.integer)
    if not (whole or jnp.issubdtype(y.dtype, jnp.floating)):
        raise TypeError(f"{name}: dtype {y.dtype} is not allowed; targets are real numbers")
    if whole and y.ndim == 1:
        raise TypeError(f"{name}: dtype {y.dtype} is that of labels; targets are one-hot or signs")
    if y.shape[:1] != (n,) or y.ndim not in (1, 2) or y.size == 0:
        raise ValueError(
            f"{name}: shape {y.shape} is not allowed; targets of {n} points are ({n}, outputs)"
        )
    if not np.isfinite(y).all():
        raise ValueError(f"{name}: has values that are not finite")
    return y.reshape(n, -1).astype(np.float64)


def logits(shape_of: Any, n: int) -> int:
    """The number of columns of what a classifier returns for n points, or of the shape of that."""
    if not hasattr(shape_of, "shape"):
        raise TypeError(
            f"logits: the classifier returns a {type(shape_of).__name__}; it is one array "
            "(n, classes)"
        )
    if len(shape_of.shape) != 2 or shape_of.shape[0] != n or shape_of.shape[1] == 0:
        raise ValueError(
            f"logits: the classifier returns shape {shape_of.shape} for {n} points; it is "
            f"({n}, classes)"
        )
    return shape_of.shape[1]


def parameters(name: str, variables: Any) -> dict[str, Any]:
    """Variables of a network as dicts, from any mappings; its parameters can have gradients."""
    variables = _as_dicts(variables)
    if not isinstance(variables, dict) or not jax.tree.leaves(variables.get("params")):
        has = f"collections {sorted(variables)}" if isinstance(variables, dict) else "none"
        raise ValueError(f"{name}: has {has}; the collection 'params', with arrays, is needed")
    for path, leaf in jax.tree.leaves_with_path(variables["params"]):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise TypeError(
                f"{name}: params{jax.tree_util.keystr(path)} has dtype {jnp.result_type(leaf)}; "
                "parameters are of a floating-point or complex type"
            )
    return variables


def _as_dicts(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _as_dicts(branch) for name, branch in tree.items()}
    return tree


def _scalar(name: str, value: Any, wanted: str) -> Any:
    """A Python number, from a number or an array of one element; True is never meant as one."""
    if isinstance(value, np.ndarray | np.generic | jax.Array) and value.size == 1:
        value = np.asarray(value).item()
    if isinstance(value, bool) or not isinstance(value, int | float | Integral):
        raise TypeError(f"{name}: {_shown(value)} is not allowed; it is {wanted}")
    return value


def _shown(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"an array of shape {value.shape}"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"
