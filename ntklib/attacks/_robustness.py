"""Accuracy under attack."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PRNGKeyArray

from ntklib import _checks
from ntklib._checks import Number
from ntklib.attacks._losses import Labels, LogitsFn, Rows, right
from ntklib.attacks._protocol import Attack
from ntklib.cores import share


@dataclass(frozen=True)
class Outcomes:
    """Which points are classified correctly: clean, and also under attack.

    A mistake on the clean input counts as broken.
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
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    attack: Attack,
    batch_size: Number,
) -> Outcomes:
    """Attacks all points in batches and tells which of them withstand.

    All batches have one size, at most `batch_size`, so the attack is compiled once. Each has its
    own key; otherwise the outcome does not depend on `batch_size`. On a CPU the batches are shared
    among threads, one a core, so `attack` and `logits_fn` have to allow calls at the same time.
    Small batches (16 to 64 images for a convolutional net) stay in the cache and are fastest there.

    Inputs may stay on the host, and are attacked in JAX's precision. An attack is, for example,
    `attacks.partial(attacks.pgd, epsilon=0.1, steps=20, step_size=0.01)`; one that returns inputs
    of another shape, or ones that are not finite, is refused.
    """
    x = np.asarray(_checks.points("x", x))
    y = np.asarray(_checks.labels("y", y, len(x)))
    n = len(x)
    size = -(-n // -(-n // _checks.whole("batch_size", batch_size)))  # of the fewest of one size
    outcomes = np.empty((2, n), bool)

    def decide(start: int) -> None:
        # Indices past the end repeat the last point; what they add is cut off.
        batch = np.minimum(np.arange(start, start + size), n - 1)
        inputs, labels = jnp.asarray(x[batch]), jnp.asarray(y[batch])
        attacked = attack(logits_fn, inputs, labels, jax.random.fold_in(key, start))
        if attacked.shape != inputs.shape:
            raise ValueError(f"attack: returned shape {attacked.shape} for {inputs.shape}")
        if not jnp.isfinite(attacked).all():
            raise ValueError("attack: returned values that are not finite")
        clean, robust = (right(logits_fn, z, labels) for z in (inputs, attacked))
        outcomes[:, batch] = clean, clean & robust

    decide(0)  # alone, as it compiles
    share(decide, ((start,) for start in range(size, n, size)))
    return Outcomes(*outcomes)


def withstand(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    among: Bool[np.ndarray, " n"],
    attack: Attack,
    batch_size: Number,
) -> Bool[np.ndarray, " n"]:
    """Which points are classified correctly, on the clean input and under attack.

    Only the points `among` are attacked. The others are known to be broken, by themselves or by
    other attacks, and count so. All batches have the size `batch_size`, or n if that is smaller, so
    that the attack is not compiled anew for another number of points. All else is as in
    `robust_accuracy`.
    """
    x = np.asarray(_checks.points("x", x))
    y, among = np.asarray(_checks.labels("y", y, len(x))), np.asarray(among)
    if among.dtype != bool or among.shape != y.shape:
        raise ValueError(
            f"among: shape {among.shape} of {among.dtype} is not allowed; it is one bool a point"
        )
    left, size = np.flatnonzero(among), min(_checks.whole("batch_size", batch_size), len(y))
    outcomes = np.zeros(len(y), bool)
    if len(left) > 0:
        points = np.resize(left, -(-len(left) // size) * size)  # repeated to fill whole batches
        found = robust_accuracy(
            logits_fn, x[points], y[points], key, attack=attack, batch_size=size
        )
        outcomes[left] = found.robust[: len(left)]
    return outcomes
