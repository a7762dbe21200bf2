"""Accuracy under attack."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ntklib.attacks.losses import Images, LogitsFn, correct

Attack = Callable[..., Images]
"""`attack(logits_fn, x, y, key)` returns images of the shape of `x`."""


@dataclass(frozen=True)
class Robustness:
    """Which points are classified correctly, and which of these also under attack.

    Attributes:
        clean: whether the clean image is classified correctly, one value a point.
        robust: whether the attacked image is, too. A mistake on the clean image counts as broken.
    """

    clean: Bool[np.ndarray, " n"]
    robust: Bool[np.ndarray, " n"]

    @property
    def clean_accuracy(self) -> float:
        """Share of points classified correctly."""
        return float(self.clean.mean())

    @property
    def robust_accuracy(self) -> float:
        """Share of points classified correctly, under attack too."""
        return float(self.robust.mean())


def robust_accuracy(
    logits_fn: LogitsFn,
    x: Float[Array | np.ndarray, "n h w c"],
    y: Int[Array | np.ndarray, " n"],
    key: PRNGKeyArray,
    *,
    attack: Attack,
    batch_size: int,
) -> Robustness:
    """Attacks all points in batches and tells which of them withstand.

    All batches have one size, at most `batch_size`, so the attack is compiled once. Each has its
    own key; otherwise the outcome does not depend on `batch_size`. On a CPU the batches are shared
    among threads, one a core, so `attack` and `logits_fn` have to allow calls at the same time.
    Small batches (16 to 64 images for a convolutional net) stay in the cache and are fastest there.

    Args:
        logits_fn: the classifier (see the package's text).
        x: clean images; they may stay on the host.
        y: their labels.
        key: for the attack.
        attack: for example `functools.partial(attacks.pgd, epsilon=0.1, steps=20, step_size=0.01)`.
        batch_size: images attacked at once, at least 1.

    Returns:
        The outcomes, one a point.

    Raises:
        ValueError: if x is empty or does not fit y, `batch_size` is out of range, or the attack
            returns images of another shape, or ones that are not finite.
    """
    n = len(x)
    if n == 0 or y.shape != (n,):
        raise ValueError(f"x, y: shapes {x.shape} and {y.shape}; x is (n, h, w, c), n > 0, y (n,)")
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} is out of range; it is a whole number >= 1")
    size = -(-n // -(-n // batch_size))  # of the fewest batches of one size
    outcomes = np.empty((2, n), bool)
    x, y = np.asarray(x), np.asarray(y)

    def decide(start: int) -> None:
        # Indices past the end repeat the last point; what they add is cut off.
        batch = np.minimum(np.arange(start, start + size), n - 1)
        images, labels = jnp.asarray(x[batch]), jnp.asarray(y[batch])
        attacked = attack(logits_fn, images, labels, jax.random.fold_in(key, start))
        if attacked.shape != images.shape:
            raise ValueError(f"attack: returned shape {attacked.shape} for {images.shape}")
        if not jnp.isfinite(attacked).all():
            raise ValueError("attack: returned values that are not finite")
        clean, robust = (correct(logits_fn(z), labels) for z in (images, attacked))
        outcomes[:, batch] = clean, clean & robust

    decide(0)  # alone, as it compiles
    # XLA computes a convolution on one core of a CPU.
    threads = os.cpu_count() if jax.default_backend() == "cpu" else 1
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decide, range(size, n, size)))  # the list raises what a thread raised
    return Robustness(*outcomes)


def withstand(
    logits_fn: LogitsFn,
    x: Float[Array | np.ndarray, "n h w c"],
    y: Int[Array | np.ndarray, " n"],
    key: PRNGKeyArray,
    *,
    among: Bool[np.ndarray, " n"],
    attack: Attack,
    batch_size: int,
) -> Bool[np.ndarray, " n"]:
    """Which points are classified correctly, on the clean image and under attack.

    Points that are known to be broken, by themselves or by other attacks, are not attacked again.
    All batches have the size `batch_size`, or n if that is smaller, so that the attack is not
    compiled anew for another number of points.

    Args:
        logits_fn: see `robust_accuracy`.
        x: see `robust_accuracy`.
        y: see `robust_accuracy`.
        key: for the attack.
        among: the points to attack; the others count as broken.
        attack: see `robust_accuracy`.
        batch_size: images attacked at once, at least 1.

    Returns:
        The outcomes, one a point.

    Raises:
        ValueError: see `robust_accuracy`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} is out of range; it is a whole number >= 1")
    outcomes, left, size = np.zeros(len(y), bool), np.flatnonzero(among), min(batch_size, len(y))
    if len(left) > 0:
        x, y = np.asarray(x), np.asarray(y)
        points = np.resize(left, -(-len(left) // size) * size)  # repeated to fill whole batches
        found = robust_accuracy(
            logits_fn, x[points], y[points], key, attack=attack, batch_size=size
        )
        outcomes[left] = found.robust[: len(left)]
    return outcomes
