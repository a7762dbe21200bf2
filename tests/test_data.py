import errno
import gc
import gzip
import hashlib
import inspect
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import data_files as made
import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pooch
import pytest
import scipy.io
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntklib import data
from ntklib.data import _files

# The run-time type checks of the tests come before the library's own; this is the bare function.
load = inspect.unwrap(data.load)

REAL = Path(
    os.environ.get("NTKLIB_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)
POOLS = {"mnist5k": 5000, "digits": 1797}
DIGITS_PER_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No test sees the user's files or a server other than its own."""
    monkeypatch.delenv("NTKLIB_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    for name in ("mnist", "cifar10", "svhn"):
        source = _files.SOURCES[name]
        nowhere = {p: [address + p, md5] for p, (_, md5) in source.downloads.items()}
        monkeypatch.setitem(_files.SOURCES, name, replace(source, downloads=nowhere))


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """The made-up files, the hashes to expect, and an archive like that of CIFAR-10."""
    folder = tmp_path_factory.mktemp("full")
    sha256 = made.write_all(folder)
    return folder, sha256, made.cifar_archive(folder)


@pytest.fixture
def expected(full, monkeypatch):
    """Makes the library expect the made-up files."""
    for name in ("mnist", "cifar10"):
        monkeypatch.setitem(_files.SOURCES, name, made.expecting(name, full[1]))
        # The downloads stay what the fixture `alone` made of them.
    return full


@pytest.fixture
def local(expected, monkeypatch, tmp_path):
    """A folder with the made-up files, which a test may damage, as NTKLIB_DATA."""
    folder = tmp_path / "local"
    shutil.copytree(expected[0], folder, copy_function=os.link)
    monkeypatch.setenv("NTKLIB_DATA", str(folder))
    return folder


def tree(folder):
    """Every path below a folder with its kind, size and time of change."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IFMT(path.lstat().st_mode),
            # The times and sizes of folders change when a temporary file comes and goes.
            path.is_dir() or (path.lstat().st_size, path.lstat().st_mtime_ns),
        )
        for path in folder.rglob("*")
    }


@contextmanager
def refused(error, *words, within):
    """Expects one line that has all the words, and no change below a folder."""
    before = tree(within)
    with pytest.raises(error) as caught:
        yield
    assert type(caught.value) is error
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert tree(within) == before


def rows(*splits):
    """How often each image with its label occurs."""
    return Counter(
        x.tobytes() + y.tobytes()
        for s in splits
        for x, y in zip(np.asarray(s.x), np.asarray(s.y), strict=True)
    )


def per_class(split):
    return np.bincount(split.y, minlength=split.n_classes).tolist()


def replace_file(path, content):
    path.unlink()  # it is a hard link, to be parted from the original
    path.write_bytes(content)


# What a load returns


@pytest.mark.parametrize(("name", "side"), [("mnist5k", 28), ("digits", 8)])
def test_embedded_set_is_complete_and_split_without_overlap(name, side):
    whole = data.load(name)
    n_test = POOLS[name] // 5
    for split, n in ((whole.train, POOLS[name] - n_test), (whole.test, n_test)):
        assert split.x.shape == (n, side, side, 1)
        assert len(split) == n
        assert (split.x.dtype, split.y.dtype) == (np.float32, np.int32)
        assert (split.x.min(), split.x.max()) == (0, 1)
    [(images, labels)] = _files.read(name)
    pixels = np.float32(images) / np.float32(255 if name == "mnist5k" else 16)
    everything = Counter(
        x.tobytes() + np.int32(y).tobytes() for x, y in zip(pixels, labels, strict=True)
    )
    assert rows(whole.train, whole.test) == everything
    assert max(per_class(whole.test)) - min(per_class(whole.test)) <= 1


def test_mnist5k_has_500_images_a_class():
    whole = data.load("mnist5k")
    assert np.add(per_class(whole.train), per_class(whole.test)).tolist() == [500] * 10


def test_digits_agree_with_scikit_learn():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    [(ours, our_labels)] = _files.read("digits")
    assert np.array_equal(ours.reshape(1797, 64), images)
    assert np.array_equal(our_labels, labels)
    whole = data.load("digits")
    assert np.add(per_class(whole.train), per_class(whole.test)).tolist() == [*DIGITS_PER_CLASS]


def test_draw_of_a_seed_never_changes():
    drawn = data.load("mnist5k", n_train=20, n_test=10, seed=0)
    again = data.load("mnist5k", n_train=20, n_test=10, seed=0)
    assert np.array_equal(drawn.train.x, again.train.x)
    assert np.array_equal(drawn.test.x, again.test.x)
    # Numbers of this book rest on this draw: a change here changes them.
    assert drawn.train.y.tolist() == [2, 0, 9, 7, 5, 8, 3, 0, 4, 8, 2, 4, 1, 6, 1, 6, 5, 9, 3, 7]
    digest = hashlib.sha256(np.asarray(drawn.train.x).tobytes()).hexdigest()
    assert digest == "9138acdc1a5ec33aa625aada82452988bdbbfea342a48817b818f454f303757f"


def test_other_seeds_give_other_draws():
    first, second = (data.load("mnist5k", n_train=50, n_test=50, seed=s) for s in (0, 1))
    assert rows(first.train) != rows(second.train)
    assert rows(first.test) != rows(second.test)


def test_smaller_draw_is_part_of_a_larger_one():
    small = data.load("mnist5k", n_train=35, n_test=25, seed=4)
    large = data.load("mnist5k", n_train=350, n_test=250, seed=4)
    assert rows(small.train) <= rows(large.train)
    assert rows(small.test) <= rows(large.test)


def test_remainder_of_a_draw_goes_to_the_first_classes():
    drawn = data.load("mnist5k", n_train=11, n_test=8, classes=(7, 2, 5))
    assert per_class(drawn.train) == [4, 4, 3]
    assert per_class(drawn.test) == [3, 3, 2]


def test_draw_is_shuffled():
    y = np.asarray(data.load("mnist5k", n_train=1000).train.y)
    # Sorted labels change 9 times, shuffled ones about 900 times.
    assert np.count_nonzero(np.diff(y)) > 800


def test_classes_are_relabelled_in_the_order_given():
    drawn = data.load("mnist5k", n_train=40, n_test=20, classes=(8, 3))
    everything = data.load("mnist5k")
    original = {
        np.asarray(x).tobytes(): int(y)
        for split in (everything.train, everything.test)
        for x, y in zip(np.asarray(split.x), np.asarray(split.y), strict=True)
    }
    assert drawn.classes == ("8", "3")
    for x, y in zip(np.asarray(drawn.train.x), np.asarray(drawn.train.y), strict=True):
        assert original[x.tobytes()] == (8, 3)[y]
    by_name = data.load("mnist5k", n_train=40, n_test=20, classes=["8", "3"])
    assert np.array_equal(drawn.train.x, by_name.train.x)


def test_pooling_is_the_mean_of_each_block():
    fine = data.load("mnist5k", n_train=20, n_test=10)
    coarse = data.load("mnist5k", n_train=20, n_test=10, pool=4)
    assert coarse.train.x.shape == (20, 7, 7, 1)
    assert np.array_equal(coarse.train.y, fine.train.y)
    for row in range(7):
        for column in range(7):
            block = fine.train.x[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4, 0]
            mean = np.float64(block).mean(axis=(1, 2))
            np.testing.assert_allclose(coarse.train.x[:, row, column, 0], mean, atol=1e-6)


def test_halves_are_the_first_classes_against_the_others():
    ten = data.load("digits", n_train=40, n_test=20, classes=[0, 2, 4, 1, 3, 5])
    two = ten.halves()
    for before, after in ((ten.train, two.train), (ten.test, two.test)):
        np.testing.assert_array_equal(after.x, before.x)
        np.testing.assert_array_equal(after.y, before.y >= 3)
        assert after.n_classes == 2
    assert two.classes == ("0 or 2 or 4", "1 or 3 or 5")
    pair = data.load("digits", n_train=20, n_test=20, classes=[3, 8])
    np.testing.assert_array_equal(pair.halves().train.y, pair.train.y)
    with pytest.raises(ValueError, match="has 3 classes; they are of an even number"):
        data.load("digits", n_train=20, n_test=20, classes=[0, 1, 2]).halves()


def test_in_common_tells_what_draws_share():
    a, b = (data.load("digits", n_train=500, n_test=300, seed=seed) for seed in (0, 1))
    images = [[x.tobytes() for x in np.asarray(s.x)] for s in (a.test, a.train, b.test, b.train)]
    tested = len({*images[0]} & {*images[2]}) / 300
    trained = (len({*images[0]} & {*images[3]}) + len({*images[2]} & {*images[1]})) / 600
    assert data.in_common([a, b]) == (
        f"All seeds draw from the same images: a seed has {tested:.0%} of its test images in "
        f"common with another, and {trained:.0%} of them are training images of the other."
    )
    assert "100% of its test images in common with another, and 0% of" in data.in_common([a, a])
    assert data.in_common([a]) == "There is one draw."


def test_balanced_has_the_first_images_of_each_class():
    train = load("digits", n_train=200, n_test=20).train
    part = train.balanced(57)
    assert np.array_equal(part.y, np.repeat(np.arange(10), 5))
    for c in range(10):
        np.testing.assert_array_equal(part.x[5 * c : 5 * c + 5], train.x[train.y == c][:5])
    assert len(train.balanced(10)) == 10
    assert len(train.balanced(209)) == 200


@pytest.mark.parametrize("n", [9, 0, -10, 210])
def test_balanced_refuses_what_it_has_not(n):
    train = load("digits", n_train=200, n_test=20).train
    with pytest.raises(ValueError, match=f"^n: {n} is out of range; it is from 10 to 209$"):
        train.balanced(n)


def test_targets():
    drawn = data.load("digits", n_train=30, n_test=10)
    assert np.array_equal(drawn.train.one_hot(), np.eye(10)[drawn.train.y])
    assert drawn.train.one_hot().dtype == np.float32
    two = data.load("digits", n_train=30, n_test=10, classes=(0, 1)).train
    assert two.signs().tolist() == [[-1.0] if y == 0 else [1.0] for y in two.y]
    assert two.signs().dtype == np.float32


def test_signs_need_two_classes(tmp_path):
    split = data.load("digits", n_train=30, n_test=10, classes=(0, 1, 2)).train
    with refused(ValueError, "signs: this split has 3 classes", within=tmp_path):
        split.signs()


def test_provenance_is_json_and_tells_the_draw():
    drawn = data.load("digits", n_train=7, n_test=5, classes=(3, 8), seed=2, pool=2)
    record = json.loads(json.dumps(drawn.provenance))
    assert record == drawn.provenance
    assert record["name"] == "digits"
    assert record["arguments"] == {
        "n_train": 7,
        "n_test": 5,
        "classes": ["3", "8"],
        "seed": 2,
        "pool": 2,
    }
    assert record["n_per_class"] == {"train": {"3": 4, "8": 3}, "test": {"3": 3, "8": 2}}
    [(path, sha256)] = record["sha256"].items()
    packed = Path(str(distribution("scikit-learn").locate_file(path + ".gz"))).read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == sha256
    for key in ("source", "citation", "license"):
        assert record[key]


# Arguments

wrong_arguments = [
    (ValueError, {"name": "mnist6k"}, ["name: 'mnist6k'", "'mnist5k', 'digits', 'mnist', 'cifar"]),
    (ValueError, {"name": "MNIST"}, ["name: 'MNIST'"]),
    (ValueError, {"name": "a\nb"}, [r"'a\nb'"]),
    (ValueError, {"name": None}, ["name: None"]),
    (ValueError, {"classes": (3, 3)}, ["classes: (3, 3)", "twice"]),
    (ValueError, {"classes": (0, "airplane")}, ["twice"]),
    (ValueError, {"classes": (3,)}, ["two or more"]),
    (ValueError, {"classes": ()}, ["two or more"]),
    (ValueError, {"classes": (3, 10)}, ["classes: 10 is out", "0 to 9"]),
    (ValueError, {"classes": (-1, 3)}, ["classes: -1 is out", "0 to 9"]),
    (ValueError, {"classes": (3.5, 8)}, ["classes: 3.5 is not whole"]),
    (ValueError, {"classes": ("cat", "lion")}, ["classes: 'lion'", "'airplane', 'automobile'"]),
    (TypeError, {"classes": "cat"}, ["classes: a str is not allowed; it is a list"]),
    (TypeError, {"classes": 3}, ["classes: a int"]),
    (TypeError, {"classes": {3, 8}}, ["classes: a set"]),
    (TypeError, {"classes": (True, 8)}, ["classes: True"]),
    (TypeError, {"classes": (None, 8)}, ["classes: None"]),
    (ValueError, {"n_train": 0}, ["n_train: 0 is out of range; it is a whole number >= 1"]),
    (ValueError, {"n_train": -5}, ["n_train: -5"]),
    (ValueError, {"n_train": 10.5}, ["n_train: 10.5 is not whole"]),
    (TypeError, {"n_train": "10"}, ["n_train: '10'"]),
    (TypeError, {"n_train": True}, ["n_train: True"]),
    (ValueError, {"n_test": -1}, ["n_test: -1"]),
    (TypeError, {"n_test": False}, ["n_test: False"]),
    (ValueError, {"seed": -1}, ["seed: -1 is out of range; it is a whole number >= 0"]),
    (ValueError, {"seed": 0.5}, ["seed: 0.5"]),
    (TypeError, {"seed": None}, ["seed: None"]),
    (ValueError, {"pool": 0}, ["pool: 0"]),
    (ValueError, {"pool": 5}, ["pool: 5 is unknown; allowed: 1, 2, 4, 8, 16, 32"]),
    (ValueError, {"pool": 64}, ["pool: 64"]),
    (TypeError, {"pool": "2"}, ["pool: '2'"]),
]


@pytest.mark.parametrize(("error", "arguments", "words"), wrong_arguments)
def test_wrong_argument_is_refused_before_any_file_is_sought(error, arguments, words, tmp_path):
    # The data set cannot be had in this test, so that a search for it would be a DataError.
    with refused(error, *words, within=tmp_path):
        load(**{"name": "cifar10", **arguments})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_test": 5001}, ["n_test: 5001", "5000 images", "at most 5000"]),
        ({"n_train": 4001}, ["n_train: 4001", "4000 images", "at most 4000"]),
        ({"n_train": 11, "n_test": 4990}, ["n_train: 11", "10 images", "at most 10"]),
        ({"n_test": 5000}, ["n_test: 5000", "no image of mnist5k"]),
        ({"n_test": 1001, "classes": (1, 2)}, ["n_test: 1001", "1000 images", "2 classes"]),
    ],
)
def test_more_than_there_is(arguments, words, tmp_path):
    with refused(ValueError, *words, within=tmp_path):
        data.load("mnist5k", **arguments)


def test_largest_balanced_draw_is_told_rightly(tmp_path):
    # Classes 0 and 1 have 178 and 182 digits: 178 each. With 1 first it can give one more.
    with refused(ValueError, "at most 356", within=tmp_path):
        data.load("digits", n_test=357, classes=(0, 1))
    with refused(ValueError, "at most 357", within=tmp_path):
        data.load("digits", n_test=358, classes=(1, 0))
    assert per_class(data.load("digits", n_test=357, classes=(1, 0)).test) == [179, 178]


def counts(n, k):
    return [n // k + (i < n % k) for i in range(k)]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    n_train=st.none() | st.integers(-2, 400),
    n_test=st.none() | st.integers(-2, 400),
    classes=st.none() | st.lists(st.integers(-1, 10), max_size=4),
    seed=st.integers(-1, 2**64),
    pool=st.integers(0, 9),
)
def test_any_arguments_give_what_they_ask_for_or_one_line(n_train, n_test, classes, seed, pool):
    keep = list(range(10)) if classes is None else classes
    allowed = (
        n_train not in (-2, -1, 0)
        and n_test not in (-2, -1, 0)
        and len(set(keep)) == len(keep) >= 2
        and set(keep) <= set(range(10))
        and seed >= 0
        and pool in (1, 2, 4, 8)
    )
    if allowed:
        there = [DIGITS_PER_CLASS[c] for c in keep]
        k = len(keep)
        test = counts(sum(there) // 5 if n_test is None else n_test, k)
        left = np.subtract(there, test)
        train = left.tolist() if n_train is None else counts(n_train, k)
        allowed = (left >= train).all() and (left >= 0).all() and sum(train) > 0
    arguments = {"n_train": n_train, "n_test": n_test, "classes": classes}
    if not allowed:
        with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
            data.load("digits", **arguments, seed=seed, pool=pool)
        return
    drawn = data.load("digits", **arguments, seed=seed, pool=pool)
    for split, sizes in ((drawn.train, train), (drawn.test, test)):
        assert per_class(split) == sizes
        assert split.x.shape == (sum(sizes), 8 // pool, 8 // pool, 1)
        assert 0 <= split.x.min() <= split.x.max() <= 1
    whole = data.load("digits", classes=classes, pool=pool)
    assert rows(drawn.train, drawn.test) <= rows(whole.train, whole.test)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_train": 40.0, "n_test": np.int64(20), "classes": np.array([8, 3]), "pool": 2.0},
        {"n_train": np.array(40), "n_test": 20, "classes": ["8", 3.0], "pool": np.float32(2)},
    ],
)
def test_whole_numbers_can_be_written_in_other_ways(arguments):
    plain = data.load("digits", n_train=40, n_test=20, classes=(8, 3), pool=2)
    drawn = load("digits", **arguments)
    assert np.array_equal(drawn.train.x, plain.train.x)
    assert json.loads(json.dumps(drawn.provenance)) == plain.provenance


def test_points_may_be_vectors(key):
    split = data.Split(jax.random.normal(key, (6, 3)), jnp.array([1, 0, 1, 1, 0, 0]), 2)
    assert len(split) == 6
    np.testing.assert_array_equal(split.balanced(4).x, split.x[np.array([1, 4, 0, 2])])
    assert split.signs().shape == (6, 1)


# Files

TEXT, SHA256, MD5 = {"type": "string", "minLength": 1}, r"^[0-9a-f]{64}$", r"^[0-9a-f]{32}$"
SIZES = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
FILE = {"path": TEXT, "shape": SIZES, "size": {"type": "integer"}, "sha256": {"pattern": SHA256}}
SOURCE = {
    "read": {"enum": ["csv", "idx", "cifar", "mat"]},
    "shape": SIZES | {"minItems": 3, "maxItems": 3},
    "white": {"type": "integer", "maximum": 255},
    "classes": {"type": "array", "items": TEXT, "minItems": 2, "uniqueItems": True},
    **dict.fromkeys(("source", "citation", "license"), TEXT),
    "files": {
        "type": "array",
        "items": {"properties": FILE, "required": [*FILE], "additionalProperties": False},
        "minItems": 1,
    },
}
PLACES = {
    "package": TEXT,
    "downloads": {
        "minProperties": 1,
        "additionalProperties": {
            "prefixItems": [
                {"type": "string", "pattern": r"^(https://|http://ufldl\.stanford\.edu/)"},
                {"pattern": MD5},
            ],
            "minItems": 2,
            "maxItems": 2,
        },
    },
}


def test_the_table_of_sources_says_all_that_a_load_needs():
    schema = {
        "minProperties": 1,
        "additionalProperties": {
            "properties": SOURCE | PLACES,
            "required": [*SOURCE],
            "oneOf": [{"required": [place]} for place in PLACES],
            "additionalProperties": False,
        },
    }
    table = yaml.safe_load(Path(_files.__file__).with_name("sources.yml").read_text())
    jsonschema.Draft202012Validator(schema).validate(table)
    for source in table.values():
        paths = {file["path"] for file in source["files"]}
        archives = {p for p in source.get("downloads", {}) if p.endswith(".tar.gz")}
        assert archives or set(source.get("downloads", paths)) == paths
        for file in source["files"]:
            packed = source["read"] in ("csv", "mat")  # the size of their bytes is another
            assert packed or file["size"] - np.prod(file["shape"]) in (0, 8, 16)


@pytest.mark.parametrize("name", POOLS)
def test_text_is_parsed_once_in_a_process(name, monkeypatch):
    first = data.load(name, n_train=30, n_test=20)
    monkeypatch.setattr(gzip, "open", None)
    again = data.load(name, n_train=30, n_test=20)
    assert np.array_equal(first.train.x, again.train.x)


def test_cifar_reader(local):
    drawn = data.load("cifar10", n_train=1000)
    assert drawn.train.x.shape == (1000, 32, 32, 3)
    assert drawn.test.x.shape == (10_000, 32, 32, 3)
    assert (drawn.train.x.dtype, drawn.train.y.dtype) == (np.float32, np.int32)
    assert per_class(drawn.train) == [100] * 10
    assert drawn.classes[3] == "cat"
    assert drawn.provenance["n_per_class"]["test"]["truck"] == 1000
    colour, row, column = np.ogrid[:3, :32, :32]
    place = np.moveaxis(1024 * colour + 32 * row + column, 0, -1)  # in the record, after the label
    for (images, labels), batches in zip(_files.read("cifar10"), (range(5), [5]), strict=True):
        for k, batch in enumerate(batches):
            part, i = slice(10_000 * k, 10_000 * (k + 1)), np.arange(10_000)
            wanted = (7 * i + batch).astype(np.uint8)[:, None, None, None] + np.uint8(3 * place)
            wanted[:, 31, 31, 2] = batch
            assert np.array_equal(images[part], wanted)
            assert np.array_equal(labels[part], (i + batch) % 10)


def test_cifar_splits_come_from_their_own_files(local):
    drawn = data.load("cifar10", n_train=200, n_test=200, classes=("cat", "ship"))
    for split, batches in ((drawn.train, {0, 1, 2, 3, 4}), (drawn.test, {5})):
        pixels = np.rint(np.asarray(split.x) * 255).astype(int)
        assert set(pixels[:, 31, 31, 2].tolist()) == batches
        # Image i of batch b starts with 7 i + b modulo 256 and is of class (i + b) modulo 10: one
        # is odd if the other is, so that a label that strays from its image shows.
        assert np.array_equal(pixels[:, 0, 0, 0] % 2, np.array([3, 8])[np.asarray(split.y)] % 2)


def test_mnist_reader(local):
    drawn = data.load("mnist")
    assert drawn.train.x.shape == (60_000, 28, 28, 1)
    assert drawn.test.x.shape == (10_000, 28, 28, 1)
    assert per_class(drawn.test) == [1000] * 10
    for (images, labels), part in zip(_files.read("mnist"), made.MNIST, strict=True):
        assert np.array_equal(images[..., 0], made.mnist_images(part))
        assert np.array_equal(labels, made.mnist_labels(part))


def house_numbers(n, seed):
    """Images and labels as the authors' files have them: in MATLAB's order, 1 to 10."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n)[:, None] % 10 + 1
    return {"X": rng.integers(0, 256, (32, 32, 3, n), np.uint8), "y": labels.astype(np.uint8)}


@pytest.fixture
def numbers(tmp_path, monkeypatch):
    """Made-up files of SVHN, small ones, which the library then expects."""
    folder, files, contents = tmp_path / "data" / "svhn", [], []
    folder.mkdir(parents=True)
    for file, n in zip(_files.SOURCES["svhn"].files, (50, 20), strict=True):
        contents.append(house_numbers(n, seed=n))
        path = tmp_path / "data" / file.path
        scipy.io.savemat(path, contents[-1], do_compression=True)
        raw = path.read_bytes()
        files.append(replace(file, size=len(raw), sha256=hashlib.sha256(raw).hexdigest()))
    monkeypatch.setitem(_files.SOURCES, "svhn", replace(_files.SOURCES["svhn"], files=files))
    monkeypatch.setenv("NTKLIB_DATA", str(tmp_path / "data"))
    return contents


def test_svhn_reader(numbers):
    for (images, labels), made_up in zip(_files.read("svhn"), numbers, strict=True):
        assert np.array_equal(images[7, :, :, 2], made_up["X"][:, :, 2, 7])
        assert labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    drawn = data.load("svhn", n_train=40, n_test=10)
    assert drawn.train.x.shape == (40, 32, 32, 3)
    assert (per_class(drawn.train), per_class(drawn.test)) == ([4] * 10, [1] * 10)
    assert drawn.provenance["license"] == "for non-commercial use only"


def test_a_damaged_file_of_svhn_is_refused(numbers, tmp_path):
    path = tmp_path / "data" / "svhn" / "test_32x32.mat"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with refused(data.DataError, str(path), "SHA-256", "delete the file", within=tmp_path):
        data.load("svhn", n_train=10, n_test=10)


def test_other_gzip_wrapping_is_the_same_file(local):
    path = local / "mnist/t10k-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    replace_file(path, gzip.compress(content, 9, mtime=1))
    assert len(data.load("mnist", n_train=10, n_test=10).test) == 10


@pytest.mark.skipif(not (REAL / "cifar-10-batches-bin").is_dir(), reason="needs the authors' files")
def test_real_cifar(monkeypatch):
    monkeypatch.setenv("NTKLIB_DATA", str(REAL))
    (train, train_labels), (test, test_labels) = _files.read("cifar10")
    assert train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert train[0, 0, 0].tolist() == [59, 62, 63]
    assert test[0, 0, 0].tolist() == [158, 112, 49]
    mean = train.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
    drawn = data.load("cifar10", n_train=20, n_test=20, classes=("airplane", "horse"))
    assert drawn.classes == ("airplane", "horse")
    assert per_class(drawn.train) == [10, 10]


@pytest.mark.skipif(not (REAL / "mnist").is_dir(), reason="needs the authors' files")
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("NTKLIB_DATA", str(REAL))
    (train, train_labels), (test, test_labels) = _files.read("mnist")
    assert train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert train.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    # The embedded digits are some of these.
    five = data.load("mnist5k", n_train=100)
    images = {i.tobytes() for i in np.concatenate([train, test])}
    assert all(
        np.rint(x * 255).astype(np.uint8).tobytes() in images for x in np.asarray(five.train.x)
    )


def at(content, place, value):
    """The content with one byte changed."""
    return content[:place] + bytes([value]) + content[place + 1 :]


BATCH = "cifar-10-batches-bin/data_batch_1.bin"
LAST_BATCH = "cifar-10-batches-bin/test_batch.bin"
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (
    f"mnist/{part}.gz"
    for part in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
)
TEST_LABELS_ARRAY = made.mnist_labels("t10k")
TEST_IMAGES_ARRAY = made.mnist_images("t10k")
wrong_files = {
    "batch is empty": (BATCH, lambda c: b"", "0 bytes, expected 30,730,000"),
    "batch is truncated": (BATCH, lambda c: c[:-1], "30,729,999 bytes, expected 30,730,000"),
    "batch has a byte more": (BATCH, lambda c: c + b"\0", "too many bytes, expected 30,730,000"),
    "batch has a flipped pixel": (BATCH, lambda c: at(c, 5, c[5] ^ 1), "SHA-256"),
    "batch has another valid label": (BATCH, lambda c: at(c, 0, 9), "SHA-256"),
    "batch is another one": (BATCH, lambda c: made.cifar_batch(1).tobytes(), "SHA-256"),
    "last batch has a flipped pixel": (LAST_BATCH, lambda c: at(c, 9, c[9] ^ 128), "SHA-256"),
    "file is no gzip": (TEST_LABELS, lambda c: c, "cannot be read: Not a gzipped file"),
    "file is empty": (TEST_LABELS, lambda c: b"", "0 bytes, expected 10,008"),
    "gzip is truncated": (TEST_LABELS, lambda c: gzip.compress(c)[:-9], "cannot be read"),
    "gzip has a wrong checksum": (
        TEST_LABELS,
        lambda c: at(gzip.compress(c), -5, 0x55),
        "cannot be read: CRC",
    ),
    "gzip has a broken stream": (
        TEST_LABELS,
        lambda c: at(gzip.compress(c), 10, 0xFF),
        "cannot be read: Error -3",
    ),
    "gzip has more behind it": (
        TEST_LABELS,
        lambda c: gzip.compress(c) + b"more",
        "cannot be read: Not a gzipped file",
    ),
    "IDX is truncated": (
        TEST_LABELS,
        lambda c: gzip.compress(c[:-1]),
        "10,007 bytes, expected 10,008",
    ),
    "IDX has a byte more": (
        TEST_LABELS,
        lambda c: gzip.compress(c + b"\0"),
        "too many bytes, expected 10,008",
    ),
    "IDX has another magic number": (
        TEST_LABELS,
        lambda c: gzip.compress(made.idx(TEST_LABELS_ARRAY, (0x0D01, 10_000))),
        "unpacked SHA-256",
    ),
    "IDX is little-endian": (
        TEST_LABELS,
        lambda c: gzip.compress(c[3::-1] + c[7:3:-1] + c[8:]),
        "unpacked SHA-256",
    ),
    "images have other sides": (
        TEST_IMAGES,
        lambda c: gzip.compress(made.idx(TEST_IMAGES_ARRAY, (0x0803, 10_000, 14, 56)), 1),
        "unpacked SHA-256",
    ),
    "header counts fewer labels": (
        TEST_LABELS,
        lambda c: gzip.compress(made.idx(TEST_LABELS_ARRAY, (0x0801, 9_999))),
        "unpacked SHA-256",
    ),
    "there are fewer labels than images": (
        TEST_LABELS,
        lambda c: gzip.compress(made.idx(TEST_LABELS_ARRAY[:-1])),
        "10,007 bytes, expected 10,008",
    ),
    "labels of the other part": (
        TRAIN_LABELS,
        lambda c: gzip.compress(made.idx(TEST_LABELS_ARRAY)),
        "10,008 bytes, expected 60,008",
    ),
    "image has a flipped pixel": (
        TEST_IMAGES,
        lambda c: gzip.compress(at(c, 999, c[999] ^ 1), 1),
        "unpacked SHA-256",
    ),
}


@pytest.mark.parametrize("case", wrong_files)
def test_wrong_file_is_refused(case, local, tmp_path):
    path, damage, words = wrong_files[case]
    content = (local / path).read_bytes()
    content = gzip.decompress(content) if path.endswith(".gz") else content
    replace_file(local / path, damage(content))
    with refused(data.DataError, str(local / path), words, "delete the file", within=tmp_path):
        data.load("cifar10" if path in made.CIFAR else "mnist", n_train=10, n_test=10)


def test_gzip_bomb_does_not_fill_memory(local, tmp_path):
    bomb = gzip.compress(bytes(10**7)) * 300  # 3 GB of zeros in 3 MB
    replace_file(local / TRAIN_LABELS, bomb)
    replace_file(local / TRAIN_IMAGES, (local / TRAIN_IMAGES).read_bytes())
    tracemalloc.start()
    with refused(data.DataError, "too many bytes, expected 60,008", within=tmp_path):
        data.load("mnist", n_train=10, n_test=10)
    # The images before it take 47 MB, which the reader may hold twice.
    assert tracemalloc.get_traced_memory()[1] < 150e6
    tracemalloc.stop()


def test_unreadable_file(local, tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(gzip, "open", denied)
    with refused(data.DataError, TRAIN_IMAGES, "read: Permission denied", within=tmp_path):
        data.load("mnist")


def test_damaged_package(tmp_path, monkeypatch):
    source = _files.SOURCES["digits"]
    other = replace(source, files=[replace(source.files[0], sha256="0" * 64)])
    monkeypatch.setitem(_files.SOURCES, "digits", other)
    with refused(data.DataError, "SHA-256", "install scikit-learn anew", within=tmp_path):
        data.load("digits")


# Places


def served_mnist(folder):
    return {path: (folder / path).read_bytes() for path in _files.SOURCES["mnist"].downloads}


def offer(monkeypatch, name, address, served):
    source = made.offering(_files.SOURCES[name], address, served)
    monkeypatch.setitem(_files.SOURCES, name, source)


def test_offline_message_names_all_places(tmp_path, monkeypatch):
    with refused(
        data.DataError,
        "cifar10: NTKLIB_DATA is not set",
        f"the cache ({tmp_path / 'cache'}) lacks {BATCH}",
        "the download failed",
        "data_batch_5.bin",
        "set NTKLIB_DATA",
        "no download: mnist5k, digits",
        within=tmp_path,
    ):
        data.load("cifar10")
    monkeypatch.setenv("NTKLIB_DATA", str(tmp_path / "absent"))
    with refused(
        data.DataError,
        f"mnist: NTKLIB_DATA ({tmp_path / 'absent'}) lacks {TRAIN_IMAGES}",
        f"the cache ({tmp_path / 'cache'}) lacks {TRAIN_IMAGES}",
        "the download failed",
        within=tmp_path,
    ):
        data.load("mnist")


@pytest.mark.parametrize("name", POOLS)
def test_embedded_sets_need_neither_network_nor_cache(name, tmp_path):
    (tmp_path / "cache").rmdir()
    assert len(data.load(name, n_train=10, n_test=10).train) == 10
    assert tree(tmp_path) == {}


def test_folder_with_one_file_missing_is_not_used(local, tmp_path):
    (local / LAST_BATCH).unlink()
    (local / LAST_BATCH).mkdir()
    with refused(data.DataError, f"NTKLIB_DATA ({local}) lacks {LAST_BATCH}", within=tmp_path):
        data.load("cifar10")


def test_variable_comes_before_the_cache_and_the_cache_before_a_download(
    local, tmp_path, monkeypatch
):
    cache = tmp_path / "cache" / "mnist"
    shutil.copytree(local / "mnist", cache)
    replace_file(cache / "t10k-labels-idx1-ubyte.gz", b"damaged")
    data.load("mnist", n_train=10, n_test=10)  # from the folder of the variable
    monkeypatch.setenv("NTKLIB_DATA", str(tmp_path / "absent"))
    with refused(data.DataError, str(cache), "Not a gzipped file", within=tmp_path):
        data.load("mnist")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_download_fills_the_cache_once(name, expected, tmp_path, monkeypatch, capsys):
    folder, _, archive = expected
    served = served_mnist(folder) if name == "mnist" else {made.ARCHIVE: archive}
    with made.serving(served) as address:
        offer(monkeypatch, name, address, served)
        first = data.load(name, n_train=20, n_test=10)
    assert "100%" in capsys.readouterr().err  # the progress bar
    files = {f.path for f in _files.SOURCES[name].files}
    found = {str(p.relative_to(tmp_path / "cache")) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == files
    for path in files:
        assert (tmp_path / "cache" / path).read_bytes() == (folder / path).read_bytes()
    # The server is gone.
    again = data.load(name, n_train=20, n_test=10)
    assert np.array_equal(first.train.x, again.train.x)
    monkeypatch.setenv("NTKLIB_DATA", str(folder))
    assert np.array_equal(first.test.x, data.load(name, n_train=20, n_test=10).test.x)


def test_two_downloads_at_once(expected, tmp_path, monkeypatch):
    served = served_mnist(expected[0])
    with made.serving(served) as address, ThreadPoolExecutor(2) as pool:
        offer(monkeypatch, "mnist", address, served)
        runs = [pool.submit(data.load, "mnist", n_train=10, n_test=10) for _ in range(2)]
        first, second = (run.result() for run in runs)
    assert np.array_equal(first.train.x, second.train.x)
    assert not list(tmp_path.rglob(".partial-*"))


def refused_download(monkeypatch, tmp_path, name, served, *words, md5=None, sent=None):
    with made.serving(served, sent) as address:
        offer(monkeypatch, name, address, served)
        if md5:
            source = _files.SOURCES[name]
            wrong = {p: [url, md5] for p, (url, _) in source.downloads.items()}
            monkeypatch.setitem(_files.SOURCES, name, replace(source, downloads=wrong))
        with refused(data.DataError, *words, within=tmp_path):
            data.load(name)


@pytest.mark.parametrize(
    "damage",
    [lambda archive: b"no archive", lambda archive: archive[: len(archive) // 2]],
    ids=["no archive", "truncated archive"],
)
def test_broken_archive_is_refused(damage, expected, tmp_path, monkeypatch):
    served = {made.ARCHIVE: damage(expected[2])}
    refused_download(monkeypatch, tmp_path, "cifar10", served, "the download failed")


def test_archive_with_a_wrong_hash_is_never_opened(expected, tmp_path, monkeypatch):
    def opened(*_, **__):
        raise AssertionError("the archive was opened")

    monkeypatch.setattr(tarfile, "open", opened)
    refused_download(
        monkeypatch,
        tmp_path,
        "cifar10",
        {made.ARCHIVE: b"other"},
        "the download failed",
        "does not match",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    )


def test_one_wrong_file_of_four_keeps_all_out_of_the_cache(expected, tmp_path, monkeypatch):
    served = served_mnist(expected[0])
    with made.serving({**served, TEST_LABELS: b"other"}) as address:
        offer(monkeypatch, "mnist", address, served)
        with refused(data.DataError, "does not match", within=tmp_path):
            data.load("mnist")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # pooch closes no answer it refuses
def test_address_without_the_file(expected, tmp_path, monkeypatch):
    with made.serving({}) as address:
        offer(monkeypatch, "cifar10", address, {made.ARCHIVE: b""})
        with refused(data.DataError, "the download failed", "404", within=tmp_path):
            data.load("cifar10")
    gc.collect()


def test_cache_in_the_place_of_a_file(expected, tmp_path):
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("a file")
    with refused(data.DataError, "the download failed", "File exists", within=tmp_path):
        data.load("cifar10")


@pytest.mark.skipif(os.name != "posix", reason="file permissions are those of POSIX")
def test_read_only_cache(expected, monkeypatch):
    cache = Path(tempfile.mkdtemp())
    cache.chmod(0o555)
    monkeypatch.setattr(pooch, "os_cache", lambda project: cache)
    root = os.geteuid() == 0
    if root:  # to whom permissions do not apply, so that nobody (65534) has to try
        os.seteuid(65534)
    try:
        with refused(data.DataError, "download failed", "Permission denied", within=cache):
            data.load("cifar10")
    finally:
        if root:
            os.seteuid(0)
        cache.rmdir()


@pytest.mark.parametrize("moment", ["download", "unpack", "move"])
def test_killed_run_leaves_nothing_that_the_next_one_trusts(
    moment, expected, tmp_path, monkeypatch
):
    folder, _, archive = expected
    cache = tmp_path / "cache"
    served = {made.ARCHIVE: archive}
    stop = (lambda name: len(archive) // 2) if moment == "download" else None
    with made.serving(served, stop) as address:
        md5 = hashlib.md5(archive).hexdigest()
        child = subprocess.Popen(
            [sys.executable, made.__file__, str(folder), str(cache), address, md5, moment],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if moment == "download":
            deadline = time.monotonic() + 60
            while not any(p.is_file() and p.stat().st_size for p in cache.rglob("*")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        else:
            assert child.stdout.readline() == b"stalled\n"
        child.kill()
        child.communicate()
    [leftover] = cache.glob(".partial-*")
    unpacked = list(leftover.rglob("*.bin"))
    moved = list(cache.glob("cifar-10-batches-bin/*.bin"))
    assert (len(unpacked), len(moved)) == {"download": (0, 0), "unpack": (3, 0), "move": (3, 3)}[
        moment
    ]
    # Without a network the next run fails; with one it downloads all anew.
    with refused(data.DataError, "the cache", "lacks", within=tmp_path):
        data.load("cifar10")
    with made.serving(served) as address:
        offer(monkeypatch, "cifar10", address, served)
        drawn = data.load("cifar10", n_train=20, n_test=10)
    monkeypatch.setenv("NTKLIB_DATA", str(folder))
    assert np.array_equal(drawn.train.x, data.load("cifar10", n_train=20, n_test=10).train.x)
