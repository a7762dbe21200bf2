"""What attacks ascend and training descends: the losses of a classifier, one value a point."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from ntklib import _checks

Inputs = Float[Array | np.ndarray, "n *shape"]
Rows = Inputs | Sequence[Any]
"""Inputs as users have them: an array, or lists of numbers."""
Labels = Integer[Array | np.ndarray, " n"] | Sequence[int]
Logits = Float[Array | np.ndarray, "n k"]
LogitsFn = Callable[[Inputs], Logits]
Loss = Literal["ce", "mse", "margin", "dlr"]


def _signs(y: Integer[Array, " n"]) -> Float[Array, "n 1"]:
    return (2.0 * y - 1.0)[:, None]


def targets(y: Integer[Array, " n"], n_outputs: int) -> Float[Array, "n k"]:
    """Regression targets: a column of ±1 for one output, one-hot rows for more."""
    return _signs(y) if n_outputs == 1 else jax.nn.one_hot(y, n_outputs)


def correct(logits: Logits, y: Labels) -> Bool[Array, " n"]:
    """Whether each point is classified correctly, which it is not with a logit of NaN.

    Neither is it with a logit of zero, if that is the only one.
    """
    logits, y = jnp.asarray(logits), _labels(y, logits)
    if logits.shape[1] == 1:
        return (logits * _signs(y) > 0)[:, 0]
    return (jnp.argmax(logits, axis=1) == y) & ~jnp.isnan(logits).any(axis=1)


def right(logits_fn: LogitsFn, x: Rows, y: Labels) -> Bool[Array, " n"]:
    """Whether a classifier is correct on each input, wherever that is."""
    logits = logits_fn(jnp.asarray(x))
    _checks.logits(logits, len(x))
    return correct(logits, y)


def loss_per_point(logits: Logits, y: Labels, loss: Loss) -> Float[Array, " n"]:
    r"""The loss that an attack ascends and training descends, one value a point.

    With logits $f$, label $y$ and regression targets $t$ (see `targets`):

    - `"ce"`: cross-entropy, $-\log \mathrm{softmax}(f)_y$; for one column $\log(1 + e^{-tf})$;
    - `"mse"`: $\frac12 \|f - t\|^2$;
    - `"margin"`: $\max_{j \ne y} f_j - f_y$; for one column $-tf$;
    - `"dlr"`: the margin over the difference of the largest and the third largest logit,
      $(\max_{j \ne y} f_j - f_y) / (f_{\pi_1} - f_{\pi_3})$, which neither a shift nor a scale of
      the logits changes (Croce & Hein 2020); for three columns or more. Where the three largest
      tie, the margin.
    """
    t = targets(_labels(y, logits), logits.shape[1])
    if loss == "mse":
        return 0.5 * jnp.sum((logits - t) ** 2, axis=1)
    if loss == "ce":
        # The gradient of log_softmax is a difference, lost in rounding where a class is certain.
        # This one has none: it is small there, and exact.
        return jax.nn.softplus(_margin(logits, t, jax.nn.logsumexp))
    if loss == "margin":
        return _margin(logits, t, jnp.max)
    if loss == "dlr":
        if logits.shape[1] < 3:
            raise ValueError(f"loss: 'dlr' needs 3 classes or more; there are {logits.shape[1]}")
        first, _, third = jax.lax.top_k(logits, 3)[0].T
        gap = jnp.where(first > third, first - third, 1.0)
        return _margin(logits, t, jnp.max) / gap
    raise ValueError(f"loss: {loss!r} is unknown; allowed: 'ce', 'mse', 'margin', 'dlr'")


def targeted_dlr(logits: Logits, y: Labels, toward: Labels) -> Float[Array, " n"]:
    r"""The DLR loss towards a class: $(f_t - f_y) / (f_{\pi_1} - (f_{\pi_3} + f_{\pi_4}) / 2)$.

    $f_{\pi_1}$ is the largest of the logits, of which there are four or more. Where the first, the
    third and the fourth tie, it is $f_t - f_y$. Source: Croce & Hein (2020).
    """
    logits = jnp.asarray(logits)
    first, _, third, fourth = jax.lax.top_k(logits, 4)[0].T
    gap = first - third / 2 - fourth / 2  # half precision has no room for their sum
    rows = jnp.arange(len(logits))
    return (logits[rows, toward] - logits[rows, y]) / jnp.where(gap > 0, gap, 1.0)


def _labels(y: Labels, logits: Logits) -> Integer[Array, " n"]:
    return jnp.asarray(_checks.labels("y", y, len(logits), max(2, logits.shape[1])))


def _margin(
    logits: Logits, t: Float[Array, "n k"], of_others: Callable[..., Array]
) -> Float[Array, " n"]:
    if logits.shape[1] == 1:
        return (-t * logits)[:, 0]
    return of_others(jnp.where(t > 0, -jnp.inf, logits), axis=1) - jnp.sum(t * logits, axis=1)
