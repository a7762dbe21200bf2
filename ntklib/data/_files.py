"""The files of the data sets, as `sources.yml` lists them: finds, checks, downloads, reads them.

A folder counts only if it has every file of the data set. Nothing is trusted because of where it
lies: each file must have its known size and SHA-256 when it is read. Pickles are never read.

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
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io
import yaml
from jaxtyping import UInt8

with warnings.catch_warnings():  # pooch's tqdm warns in a notebook without ipywidgets
    warnings.filterwarnings("ignore", message="IProgress not found")
    import pooch

Part = tuple[UInt8[np.ndarray, "n h w c"], UInt8[np.ndarray, " n"]]
"""Images and their labels."""


class DataError(RuntimeError):
    """The files of a data set are missing, damaged, or cannot be downloaded."""


@dataclass(frozen=True)
class File:
    """A file as it must be; see `sources.yml`."""

    path: str
    shape: list[int]
    size: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Source:
    """All that is known beforehand about a data set; see `sources.yml`."""

    read: str
    shape: list[int]
    white: int
    classes: list[str]
    source: str
    citation: str
    license: str
    files: list[File]
    package: str = ""
    downloads: dict[str, list[str]] = field(default_factory=dict)


SOURCES = {
    name: Source(**entry | {"files": [File(**file) for file in entry["files"]]})
    for name, entry in yaml.safe_load(
        Path(__file__).with_name("sources.yml").read_text(encoding="utf-8")
    ).items()
}


def read(name: str) -> list[Part]:
    """All images and labels: the training part and the test part, or the only part.

    The latter must not be written to.
    """
    source = SOURCES[name]
    readers: dict[str, Callable[[Source, Path], list[Part]]]
    readers = {"csv": _csv, "idx": _idx, "cifar": _cifar, "mat": _mat}
    return readers[source.read](source, _folder(name))


@lru_cache  # to parse text takes longer than what most callers do with the images
def _csv(source: Source, folder: Path) -> list[Part]:
    """Lines of pixels, row-major, with the label last."""
    [file] = source.files
    text = io.BytesIO(_content(source, folder, file).tobytes())
    table = np.loadtxt(text, np.uint8, delimiter=",").reshape(file.shape)
    table.setflags(write=False)
    return [(table[:, :-1].reshape(-1, *source.shape), table[:, -1])]


def _idx(source: Source, folder: Path) -> list[Part]:
    """IDX files: a magic number and the dimensions, all of four bytes, then the values."""
    train, train_labels, test, test_labels = (
        _content(source, folder, file)[4 * (1 + len(file.shape)) :].reshape(file.shape)
        for file in source.files
    )
    return [(train[..., None], train_labels), (test[..., None], test_labels)]


def _cifar(source: Source, folder: Path) -> list[Part]:
    """Records of a label byte, then the red, the green and the blue plane, row-major."""
    *train, test = (_content(source, folder, file).reshape(file.shape) for file in source.files)
    return [
        (records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])
        for records in (np.concatenate(train), test)
    ]


def _mat(source: Source, folder: Path) -> list[Part]:
    """MAT files of version 5: `X` (32, 32, 3, n), and `y` (n, 1), where the digit 0 has 10."""
    files = (io.BytesIO(_content(source, folder, file).tobytes()) for file in source.files)
    found = (scipy.io.loadmat(file, variable_names=["X", "y"]) for file in files)
    return [
        (np.moveaxis(each["X"], 3, 0), (each["y"][:, 0] % 10).astype(np.uint8)) for each in found
    ]


def _content(source: Source, folder: Path, file: File) -> UInt8[np.ndarray, " size"]:
    """The unpacked bytes of a file; never reads further than one byte past the right size."""
    path, problem = folder / file.path, ""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            raw = stream.read(file.size + 1)
    except (OSError, EOFError, zlib.error) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        if len(raw) != file.size:
            size = f"{len(raw):,} bytes" if len(raw) < file.size else "too many bytes"
            problem = f"it holds {size}, expected {file.size:,}"
        elif (found := hashlib.sha256(raw).hexdigest()) != file.sha256:
            unpacked = "unpacked " if path.suffix == ".gz" else ""
            problem = f"its {unpacked}SHA-256 is {found}, expected {file.sha256}"
    if problem:
        remedy = "delete the file, and the next load downloads a good copy"
        if source.package:
            remedy = f"install {source.package} anew"
        raise DataError(f"{path}: {problem}; {remedy}")
    return np.frombuffer(raw, np.uint8)


def _folder(name: str) -> Path:
    """The folder that holds all files of a data set, after a download if need be."""
    source = SOURCES[name]
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
        embedded = ", ".join(n for n, other in SOURCES.items() if other.package)
        raise DataError(
            f"{name}: {'; '.join(tried)}; the download failed: {reason}; fill a folder "
            f"{paths[0].parent} with {', '.join(path.name for path in paths)} from "
            f"{source.source} and set NTKLIB_DATA to the folder around it, or use a data set that "
            f"needs no download: {embedded}"
        ) from None
    return cache


def _download(source: Source, cache: Path) -> None:
    """Fetches, checks and unpacks into a temporary folder, then moves whole files into place."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as temporary:
        for name, (url, md5) in source.downloads.items():
            path = Path(temporary, name)
            unpack = pooch.Untar(extract_dir=".") if name.endswith(".tar.gz") else None
            pooch.retrieve(
                url, f"md5:{md5}", path.name, path.parent, processor=unpack, progressbar=True
            )
        for file in source.files:
            (cache / file.path).parent.mkdir(exist_ok=True)
            os.replace(Path(temporary, file.path), cache / file.path)
