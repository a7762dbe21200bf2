"""Checks whether an attack can be trusted, each of them one symptom of a misled attack.

Each measures a value, of which the largest that passes is `tolerance`, or a limit of its own.
Inputs that two attacks made are within the same ball. Sources: Athalye et al. (2018) for
`zero_gradient`, `more_steps`, `transfer`, `black_box`, `unbounded` and `stochastic`; the flags of
AutoAttack (Croce & Hein 2020) for `zero_gradient`, `probabilities` and `stochastic`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ntklib import _checks
from ntklib._checks import Number
from ntklib.attacks._ball import Ball, Clip, Norm, length
from ntklib.attacks._gradient import input_gradient, pgd
from ntklib.attacks._losses import Inputs, Labels, LogitsFn, Loss, Rows, right
from ntklib.attacks._protocol import Attack, partial
from ntklib.attacks._robustness import withstand
from ntklib.attacks._square import square


@dataclass(frozen=True)
class Finding:
    """One soundness check: `value` is compared with `limit`; `ok` tells whether it passed."""

    name: str
    value: float
    limit: float
    ok: bool
    meaning: str


def _finding(name: str, value: Any, limit: float, meaning: str) -> Finding:
    return Finding(name, round(float(value), 6), float(limit), bool(value <= limit), meaning)


def _accuracy(logits_fn: LogitsFn, x: Rows, y: Labels) -> Float[Array, ""]:
    return jnp.mean(right(logits_fn, x, y))


def zero_gradient(logits_fn: LogitsFn, x: Rows, y: Labels, *, loss: Loss = "ce") -> Finding:
    """Share of inputs classified correctly on which the loss has no gradient.

    The gradient is exactly zero or not finite: an attack cannot move such an input, or not where it
    should.
    """
    gradient = input_gradient(logits_fn, x, y, loss).reshape(len(x), -1)
    useful = jnp.any(gradient != 0, axis=1) & jnp.all(jnp.isfinite(gradient), axis=1)
    stuck = ~useful & right(logits_fn, x, y)
    return _finding("zero_gradient", jnp.mean(stuck), 0.0, "share of inputs with no gradient")


def more_steps(
    logits_fn: LogitsFn, y: Labels, *, many: Inputs, one: Inputs, tolerance: float = 0.02
) -> Finding:
    """Accuracy under an attack of many steps minus accuracy under its one-step variant.

    The loss has to rise with the steps.
    """
    value = _accuracy(logits_fn, many, y) - _accuracy(logits_fn, one, y)
    return _finding("more_steps", value, tolerance, "accuracy under many steps minus under one")


def random_start(
    logits_fn: LogitsFn, y: Labels, *, first: Inputs, second: Inputs, tolerance: float = 0.02
) -> Finding:
    """Accuracy that a second random start takes away.

    An attack whose success hangs on its start has not found the worst input.
    """
    lost = right(logits_fn, first, y) & ~right(logits_fn, second, y)
    meaning = "accuracy that a second random start takes away"
    return _finding("random_start", jnp.mean(lost), tolerance, meaning)


def transfer(
    logits_fn: LogitsFn,
    y: Labels,
    *,
    white_box: Inputs,
    transferred: Inputs,
    source: str,
    tolerance: float = 0.02,
) -> Finding:
    """By how much inputs crafted on another model, the source, beat the white-box attack.

    An attack that knows less must not do more. The finding is named `transfer_` and the source.
    """
    value = _accuracy(logits_fn, white_box, y) - _accuracy(logits_fn, transferred, y)
    meaning = f"accuracy under the white-box attack minus under inputs crafted on {source}"
    return _finding(f"transfer_{source}", value, tolerance, meaning)


def black_box(
    logits_fn: LogitsFn, y: Labels, *, white_box: Inputs, searched: Inputs, tolerance: float = 0.02
) -> Finding:
    """By how much an attack that sees logits only, such as `square`, beats the white-box attack.

    The finding is named `square`.
    """
    value = _accuracy(logits_fn, white_box, y) - _accuracy(logits_fn, searched, y)
    meaning = "accuracy under the white-box attack minus under one that sees the logits only"
    return _finding("square", value, tolerance, meaning)


def further(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    left: Bool[np.ndarray, " n"],
    tried: Sequence[Attack],
    batch_size: Number = 50,
    tolerance: float = 0.02,
) -> Finding:
    """Accuracy that one more run of attacks takes away of what is left after all others.

    An evaluation by many attacks is at its end where other starts and other random numbers find no
    more. The attacks are made one after the other, with one key, each on what is left before it.

    Raises:
        ValueError: if there are no attacks; or see `withstand`.
    """
    if not tried:
        raise ValueError("tried: there are no attacks; give one or more")
    kept = left
    for attack in tried:
        kept = withstand(logits_fn, x, y, key, among=kept, attack=attack, batch_size=batch_size)
    meaning = "accuracy that one more run of attacks takes away"
    return _finding("further", (left & ~kept).mean(), tolerance, meaning)


def unbounded(
    logits_fn: LogitsFn, y: Labels, *, anywhere: Inputs, tolerance: float = 0.02
) -> Finding:
    """Accuracy when every input in the box is allowed; an attack that works leaves none."""
    meaning = "accuracy when every input in the box is allowed"
    return _finding("unbounded", _accuracy(logits_fn, anywhere, y), tolerance, meaning)


def probabilities(logits_fn: LogitsFn, x: Rows) -> Finding:
    """Share of inputs whose logits look like probabilities: in [0, 1], with the sum 1.

    The cross-entropy takes the softmax of them once more, and its gradient fades. Up to a half of
    the inputs may look so by chance: regression on one-hot targets aims at such outputs.
    """
    logits = logits_fn(jnp.asarray(x))
    rounding = 1e-5
    inside = jnp.all((logits >= -rounding) & (logits <= 1 + rounding), axis=1)
    value = jnp.mean(inside & (jnp.abs(jnp.sum(logits, axis=1) - 1) <= rounding))
    return _finding("probabilities", value, 0.5, "share of inputs with probabilities for logits")


def stochastic(logits_fn: LogitsFn, x: Rows) -> Finding:
    """Largest difference between the logits of two calls, relative to the largest logit.

    Gradients of a random model are noise, unless they are averaged. The calls are made on values,
    so randomness is seen that a compiled function would freeze.
    """
    x = jnp.asarray(x)
    # Logits that are not finite, if they stay so, are no change.
    first, second = jnp.nan_to_num(logits_fn(x)), jnp.nan_to_num(logits_fn(x))
    value = jnp.max(jnp.abs(first - second)) / jnp.maximum(jnp.max(jnp.abs(first)), 1e-30)
    return _finding("stochastic", value, 1e-4, "relative change of the logits from call to call")


def budget(
    x: Rows,
    adversarial: Float[Array | np.ndarray, "..."],
    *,
    epsilon: Number,
    norm: Norm = "linf",
    clip: Clip = (0.0, 1.0),
) -> Finding:
    """By how much, in units of entries, adversarial inputs leave the ball or the box.

    A millionth is allowed for rounding.
    """
    ball = Ball.around(x, epsilon, norm, clip)
    z = np.asarray(adversarial, np.float64)
    if z.shape != ball.x.shape:
        raise ValueError(f"adversarial: shape {z.shape}; it is that of x, {ball.x.shape}")
    if not np.isfinite(z).all():
        raise ValueError("adversarial: has values that are not finite")
    moved = (z - np.asarray(ball.x, np.float64)).reshape(len(z), -1)
    lengths = np.linalg.norm(moved, ord=np.inf if norm == "linf" else 2, axis=1)
    low, high = ball.clip
    excess = max(lengths.max() - ball.epsilon, low - z.min(), z.max() - high, 0.0)
    return _finding("budget", excess, 1e-6, "largest excess over the ball or the box")


def soundness(
    logits_fn: LogitsFn,
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: Number,
    steps: Number = 20,
    restarts: Number = 1,
    norm: Norm = "linf",
    loss: Loss = "ce",
    queries: Number = 100,
    transferred: Mapping[str, Inputs] | None = None,
    tolerance: float = 0.02,
    clip: Clip = (0.0, 1.0),
) -> list[Finding]:
    r"""Checks whether the white-box PGD attack on a model can be trusted.

    A model may look robust because its gradients mislead the attack. Each check measures one
    symptom; the functions of the same names tell more. The attack ascends `loss` in `steps` steps
    of size `2.5 * epsilon / steps`, from as many random starts as there are `restarts`, the best of
    which counts. Findings, in this order:

    - `zero_gradient`, `more_steps` and `random_start`;
    - `unbounded`, where there is a box;
    - `probabilities` and `stochastic`;
    - `square` (see `black_box`), with so many `queries` an image; only for images and
      $\ell_\infty$, so that other inputs and balls have no check by an attack that sees the logits
      only;
    - `budget`: the largest excess of all these inputs over the ball or the box;
    - `transfer_...`: for each name in `transferred`, the inputs crafted on that other model.
    """
    ball, epsilon = Ball.around(x, epsilon, norm, clip), length("epsilon", epsilon)
    x, transferred = ball.x, transferred or {}
    steps, queries = _checks.whole("steps", steps), _checks.whole("queries", queries, least=0)
    options = {"norm": norm, "loss": loss, "clip": clip}
    attack = partial(pgd, epsilon=epsilon, steps=steps, restarts=restarts, **options)
    one = partial(attack, steps=1, step_size=epsilon, restarts=1, random_start=False)
    key_1, key_2, key_3, key_4 = jax.random.split(key, 4)
    white_box, second = (attack(logits_fn, x, y, key) for key in (key_1, key_2))
    one_step = one(logits_fn, x, y, key)
    within = [white_box, second, one_step, *transferred.values()]
    findings = [
        zero_gradient(logits_fn, x, y, loss=loss),
        more_steps(logits_fn, y, many=white_box, one=one_step, tolerance=tolerance),
        random_start(logits_fn, y, first=white_box, second=second, tolerance=tolerance),
    ]
    if clip is not None:
        width = ball.clip[1] - ball.clip[0]
        whole = width if norm == "linf" else width * x[0].size ** 0.5
        anywhere = attack(logits_fn, x, y, key_3, epsilon=whole)
        findings.append(unbounded(logits_fn, y, anywhere=anywhere, tolerance=tolerance))
    findings += [probabilities(logits_fn, x), stochastic(logits_fn, x)]
    if queries and x.ndim == 4 and norm == "linf":
        searched = square(logits_fn, x, y, key_4, epsilon=epsilon, queries=queries, clip=clip)
        within.append(searched)
        findings.append(
            black_box(logits_fn, y, white_box=white_box, searched=searched, tolerance=tolerance)
        )
    excess = [budget(x, z, epsilon=epsilon, norm=norm, clip=clip) for z in within]
    findings.append(max(excess, key=lambda finding: finding.value))
    for name, z in transferred.items():
        findings.append(
            transfer(
                logits_fn, y, white_box=white_box, transferred=z, source=name, tolerance=tolerance
            )
        )
    return findings
