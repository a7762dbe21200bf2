import os
import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from hypothesis import given
from hypothesis import strategies as st

from ntklib import _checkpoint as checkpoint

RUN = {"batch_size": 4, "loss": "ce", "key": [0, 1]}


def state():
    params = {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3, jnp.float16)}
    optimizer = optax.inject_hyperparams(optax.adam)(0.1)
    return {"params": params, "optimizer": optimizer.init(params), "loss": np.array([0.1, 1 / 3])}


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    saved = state()
    checkpoint.save(tmp_path / "run", RUN, saved)
    zeros = jax.tree.map(jnp.zeros_like, saved)
    loaded = checkpoint.load(tmp_path / "run", RUN, zeros)
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(saved), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        assert a.dtype == b.dtype


def test_no_file_is_the_start(tmp_path):
    start = state()
    assert checkpoint.load(tmp_path / "run", RUN, start) is start


def test_a_missing_folder_is_refused_before_the_work(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="run: its folder does not exist"):
        checkpoint.load(tmp_path / "missing" / "run", RUN, state())


def test_another_run_is_refused_in_one_line_that_names_all_that_differs(tmp_path):
    path = tmp_path / "run"
    checkpoint.save(path, RUN, state())
    other = {"batch_size": 8, "key": [0, 1], "jax": "9"}
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.load(path, other, state())
    assert str(error.value) == (
        f"{path}: is of another run, with other batch_size (4 there, 8 here), "
        "jax (None there, '9' here), loss ('ce' there, None here)"
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "run"
    checkpoint.save(path, RUN, state())
    return path, path.read_bytes()


@given(part=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(whole, part):
    path, content = whole
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(checkpoint.CheckpointError, match=r"^[^\n]*run: is no checkpoint[^\n]*$"):
        checkpoint.load(path, RUN, state())


@given(
    content=st.binary() | st.builds(serialization.msgpack_serialize, st.text() | st.integers(-9, 9))
)
def test_a_foreign_file_is_refused(whole, content):
    path, _ = whole
    path.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match="is no checkpoint"):
        checkpoint.load(path, RUN, state())


def test_files_of_flax_and_numpy_and_folders_are_refused(tmp_path):
    parameters, archive = tmp_path / "parameters", tmp_path / "archive.npz"
    parameters.write_bytes(serialization.to_bytes(state()))
    np.savez(archive, loss=np.zeros(3))
    for path in (parameters, archive, tmp_path):
        with pytest.raises(checkpoint.CheckpointError, match="is no checkpoint"):
            checkpoint.load(path, RUN, state())


def test_the_digest_sees_names_types_shapes_and_values():
    base = {"a": np.arange(4, dtype=np.int32), "b": np.zeros(2)}
    others = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].view(np.float32), "b": base["b"]},
        {"a": base["a"].reshape(2, 2), "b": base["b"]},
        {"a": base["a"] + 1, "b": base["b"]},
        {"a": base["a"]},
    ]
    assert checkpoint.digest(base) == checkpoint.digest(jax.tree.map(np.copy, base))
    assert len({checkpoint.digest(tree) for tree in (base, *others)}) == 1 + len(others)


@pytest.mark.parametrize("where", ["os.fsync", "os.replace"])
def test_a_writer_killed_at_work_leaves_the_last_whole_file(tmp_path, where):
    """The process ends without a chance to clean up, after the bytes but before the new name."""
    path = tmp_path / "run"
    checkpoint.save(path, RUN, {"loss": np.array([1.0])})
    script = textwrap.dedent(f"""
        import os, signal
        import numpy as np
        from ntklib import _checkpoint as checkpoint

        {where} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.save({str(path)!r}, {RUN!r}, {{"loss": np.array([1.0, 2.0])}})
    """)
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    left = sorted(os.listdir(tmp_path))
    assert [re.sub("[0-9a-f]{32}", "*", name) for name in left] == [".run.*.partial", "run"]
    np.testing.assert_array_equal(checkpoint.load(path, RUN, {"loss": 0})["loss"], [1.0])
    checkpoint.save(path, RUN, {"loss": np.array([3.0])})
    assert sorted(os.listdir(tmp_path)) == left
    np.testing.assert_array_equal(checkpoint.load(path, RUN, {"loss": 0})["loss"], [3.0])


def test_two_writers_do_not_disturb_each_other(tmp_path, monkeypatch):
    """One writes the whole file while the other has written its bytes, and not yet the new name."""
    path, whole = tmp_path / "run", os.replace

    def other_first(*names):
        monkeypatch.setattr(os, "replace", whole)
        checkpoint.save(path, RUN, {"loss": np.array([1.0])})
        whole(*names)

    monkeypatch.setattr(os, "replace", other_first)
    checkpoint.save(path, RUN, {"loss": np.array([1.0, 2.0])})
    assert os.listdir(tmp_path) == ["run"]
    np.testing.assert_array_equal(checkpoint.load(path, RUN, {"loss": 0})["loss"], [1.0, 2.0])
