"""Files from which an interrupted computation goes on.

A checkpoint is one msgpack file, in flax's encoding of arrays, so reading one runs no code. It
holds a state, and a description of the run that the state belongs to. It is replaced as a whole: a
process that is killed leaves the last whole checkpoint, and at most a file `.NAME.*.partial` beside
it, which nothing reads. Processes that make the same computation at the same time may share one.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

_FORMAT = "ntklib checkpoint 1"
PATIENCE = 20  # between two checkpoints, in units of what writing one takes


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, or belongs to another run."""


def digest(tree: Any) -> str:
    """SHA-256 of a tree of arrays: their names in the tree, types, shapes and values."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(_data(leaf))
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _data(leaf: Any) -> Any:
    """The numbers behind a typed key of JAX, which flax does not save; anything else as it is."""
    typed = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if typed else leaf


def _like(leaf: Any, data: Any) -> Any:
    """A typed key from its numbers, where a leaf is one."""
    typed = _data(leaf) is not leaf
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf)) if typed else data


def save(path: str | Path, run: Mapping[str, Any], state: Any) -> None:
    """Writes a checkpoint, atomically and through to the disk, into a folder that exists.

    Args:
        path: the file, replaced if it exists.
        run: what identifies the run: strings, numbers, and lists of them, by name.
        state: any tree that flax can serialise, of arrays, keys and numbers.
    """
    path = Path(path)
    content = {
        "format": _FORMAT,
        "run": dict(run),
        "state": serialization.to_state_dict(jax.tree.map(_data, state)),
    }
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    with partial.open("wb") as file:
        file.write(serialization.msgpack_serialize(content))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load(path: str | Path, run: Mapping[str, Any], state: Any) -> Any:
    """Reads the state that was saved for a run, or returns `state` if there is no such file.

    `state` has the structure of what was saved. A CheckpointError says that the file is damaged, no
    checkpoint, or of another run, and then what differs; or that there is no folder to save in.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: its folder does not exist")
    try:
        content = serialization.msgpack_restore(path.read_bytes())
    except FileNotFoundError:
        return state
    except Exception as error:  # foreign bytes can fail anywhere in the decoder
        raise CheckpointError(f"{path}: is no checkpoint, or a damaged one: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: is no checkpoint of the format {_FORMAT!r}")
    saved = content["run"]
    differences = [
        f"{name} ({saved.get(name)!r} there, {run.get(name)!r} here)"
        for name in sorted(saved.keys() | run.keys())
        if saved.get(name) != run.get(name)
    ]
    if differences:
        raise CheckpointError(f"{path}: is of another run, with other {', '.join(differences)}")
    numbers = serialization.from_state_dict(jax.tree.map(_data, state), content["state"])
    return jax.tree.map(_like, state, numbers)
