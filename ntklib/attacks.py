"""Adversarial attacks on any function that returns logits, and checks of their soundness.

A classifier is a function `logits_fn` from images `x` (shape `(n, h, w, c)`, values in `clip`)
to logits. With two or more columns the prediction is the argmax; one column means two classes,
told apart by the sign of the logit, class 1 being the positive one. Labels are integers.

The functions are compiled once per `logits_fn`. To attack the same network at many parameters
without compiling again, pass `jax.tree_util.Partial(model.apply, variables)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

Images = Float[Array, "n h w c"]
Labels = Int[Array, " n"]
Logits = Float[Array, "n k"]
LogitsFn = Callable[[Images], Logits]
Loss = Literal["ce", "mse", "margin"]
Norm = Literal["linf", "l2"]
Clip = tuple[float, float]
Scalar = float | int | Shaped[Array, ""]


def _signs(y: Int[Array, " n"]) -> Float[Array, "n 1"]:
    return (2.0 * y - 1.0)[:, None]


def targets(y: Int[Array, " n"], n_outputs: int) -> Float[Array, "n k"]:
    """Regression targets: a column of ±1 for one output, one-hot rows for more."""
    return _signs(y) if n_outputs == 1 else jax.nn.one_hot(y, n_outputs)


def correct(logits: Logits, y: Labels) -> Bool[Array, " n"]:
    """Whether each point is classified correctly; a logit of exactly zero is not."""
    if logits.shape[1] == 1:
        return (logits * _signs(y) > 0)[:, 0]
    return jnp.argmax(logits, axis=1) == y


def loss_per_point(logits: Logits, y: Labels, loss: Loss) -> Float[Array, " n"]:
    r"""The loss that an attack ascends and training descends, one value a point.

    With logits $f$, label $y$ and regression targets $t$ (see `targets`):

    - `"ce"`: cross-entropy, $-\log \mathrm{softmax}(f)_y$; for one column $\log(1 + e^{-tf})$;
    - `"mse"`: $\frac12 \|f - t\|^2$;
    - `"margin"`: $\max_{j \ne y} f_j - f_y$; for one column $-tf$.

    Raises:
        ValueError: if `loss` is none of these.
    """
    t = targets(y, logits.shape[1])
    if loss == "mse":
        return 0.5 * jnp.sum((logits - t) ** 2, axis=1)
    if loss == "ce":
        if logits.shape[1] == 1:
            return jax.nn.softplus(-t * logits)[:, 0]
        return -jnp.sum(t * jax.nn.log_softmax(logits), axis=1)
    if loss == "margin":
        if logits.shape[1] == 1:
            return (-t * logits)[:, 0]
        runner_up = jnp.max(jnp.where(t > 0, -jnp.inf, logits), axis=1)
        return runner_up - jnp.sum(t * logits, axis=1)
    raise ValueError(f"loss: {loss!r} is unknown; allowed: 'ce', 'mse', 'margin'")


def _partial(logits_fn: LogitsFn) -> Partial:
    # A Partial around a Partial would be a new function to the compiler at each call.
    return logits_fn if isinstance(logits_fn, Partial) else Partial(logits_fn)


def input_gradient(logits_fn: LogitsFn, x: Images, y: Labels, loss: Loss = "ce") -> Images:
    """Gradient of the loss of each point with respect to its image."""
    return _input_gradient(_partial(logits_fn), x, y, loss)


@partial(jax.jit, static_argnames="loss")
def _input_gradient(logits_fn: Partial, x: Images, y: Labels, loss: Loss) -> Images:
    return jax.grad(lambda z: jnp.sum(loss_per_point(logits_fn(z), y, loss)))(x)


def _check(x: Any, y: Any, epsilon: float, norm: str, clip: Clip) -> None:
    if x.ndim != 4 or y.shape != x.shape[:1]:
        raise ValueError(
            f"x, y: shapes {x.shape} and {y.shape} do not fit; x is (n, h, w, c), y is (n,)"
        )
    if not epsilon >= 0:
        raise ValueError(f"epsilon: {epsilon} is out of range; it is a number >= 0")
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm: {norm!r} is unknown; allowed: 'linf', 'l2'")
    if not clip[0] < clip[1]:
        raise ValueError(f"clip: {clip} is no interval; its first number is the smaller")
    if not (jnp.all(x >= clip[0]) and jnp.all(x <= clip[1])):
        raise ValueError(f"x: has values outside clip = {clip}, or NaN")


def _box(x: Images, epsilon: Scalar, clip: Clip) -> tuple[Images, Images]:
    """Bounds of the ball of radius epsilon in the box, such that |bound - x| <= epsilon holds
    in floating point too: x + epsilon may round to a number further away.
    """
    low, high = x - epsilon, x + epsilon
    low = jnp.where(x - low > epsilon, jnp.nextafter(low, x), low)
    high = jnp.where(high - x > epsilon, jnp.nextafter(high, x), high)
    return jnp.maximum(low, clip[0]), jnp.minimum(high, clip[1])


def random_sign(x: Images, key: PRNGKeyArray, *, epsilon: float, clip: Clip = (0.0, 1.0)) -> Images:
    r"""Noise of the size of an attack: $\mathrm{clip}(x + \epsilon s)$, $s$ uniform in $\{\pm1\}$.

    The control of every $\ell_\infty$ attack: what it does is not the adversary's doing.

    Raises:
        ValueError: if `epsilon` is negative or `x` leaves `clip`.
    """
    _check(x, x[:, 0, 0, 0], epsilon, "linf", clip)
    low, high = _box(x, epsilon, clip)
    return jnp.where(jax.random.bernoulli(key, shape=x.shape), high, low)


def fgsm(
    logits_fn: LogitsFn,
    x: Images,
    y: Labels,
    *,
    epsilon: float,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Images:
    r"""Fast gradient sign method: $\mathrm{clip}(x + \epsilon\,\mathrm{sign}\nabla_x \ell)$.

    Source: Goodfellow, Shlens & Szegedy (2015). Equal to one step of `pgd` from `x`.

    Raises:
        ValueError: see `pgd`.
    """
    return pgd(
        logits_fn,
        x,
        y,
        jax.random.key(0),  # not used: there is no random start
        epsilon=epsilon,
        steps=1,
        step_size=epsilon,
        random_start=False,
        loss=loss,
        clip=clip,
    )


def pgd(
    logits_fn: LogitsFn,
    x: Images,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    norm: Norm = "linf",
    random_start: bool = True,
    loss: Loss = "ce",
    clip: Clip = (0.0, 1.0),
) -> Images:
    r"""Projected gradient descent on the loss, within the ball and the box.

    $x_{k+1} = \Pi\big(x_k + \alpha\, d(\nabla_x \ell(x_k))\big)$, where $d$ is the sign for
    $\ell_\infty$ and the normalised gradient for $\ell_2$, and $\Pi$ projects on
    $\{z : \|z - x\| \le \epsilon\}$ and on `clip`. A random start is uniform in the ball.
    Source: Madry et al. (2018).

    Args:
        logits_fn: the classifier (see the module's text).
        x: clean images, within `clip`.
        y: their labels.
        key: for the random start.
        epsilon: radius of the ball, in units of pixels.
        steps: number of steps, at least 1.
        step_size: length of a step, in units of pixels.
        norm: `"linf"` or `"l2"` (over all pixels and channels of an image).
        random_start: whether to start at a uniform point of the ball, else at `x`.
        loss: see `loss_per_point`.
        clip: range of a pixel.

    Returns:
        The last iterates. `|result - x| <= epsilon` and the box hold exactly for
        $\ell_\infty$, and to rounding for $\ell_2$.

    Raises:
        ValueError: if a shape, `epsilon`, `steps`, `step_size`, `norm`, `loss` or `clip` is out of
            range, or `x` leaves `clip`.
    """
    _check(x, y, epsilon, norm, clip)
    if steps < 1:
        raise ValueError(f"steps: {steps} is out of range; it is a whole number >= 1")
    if not step_size >= 0:
        raise ValueError(f"step_size: {step_size} is out of range; it is a number >= 0")
    return _pgd(
        _partial(logits_fn), x, y, key, epsilon, steps, step_size, norm, random_start, loss, clip
    )


@partial(jax.jit, static_argnames=("norm", "random_start", "loss", "clip"))
def _pgd(
    logits_fn: Partial,
    x: Images,
    y: Labels,
    key: PRNGKeyArray,
    epsilon: Scalar,
    steps: Scalar,
    step_size: Scalar,
    norm: Norm,
    random_start: bool,
    loss: Loss,
    clip: Clip,
) -> Images:
    low, high = _box(x, epsilon, clip) if norm == "linf" else (jnp.asarray(clip[0]), clip[1])

    def length(d: Images) -> Float[Array, "n 1 1 1"]:
        return jnp.sqrt(jnp.sum(d**2, axis=(1, 2, 3), keepdims=True))

    def project(z: Images) -> Images:
        if norm == "l2":
            d = z - x
            z = x + d * jnp.minimum(1.0, epsilon / jnp.maximum(length(d), 1e-30))
        return jnp.clip(z, low, high)

    def start() -> Images:
        if not random_start:
            return x
        if norm == "linf":
            return project(x + jax.random.uniform(key, x.shape, x.dtype, -epsilon, epsilon))
        key_d, key_r = jax.random.split(key)
        d = jax.random.normal(key_d, x.shape, x.dtype)
        u = jax.random.uniform(key_r, (x.shape[0], 1, 1, 1), x.dtype)
        return project(x + epsilon * u ** (1.0 / x[0].size) * d / length(d))

    def step(_: Scalar, z: Images) -> Images:
        g = _input_gradient(logits_fn, z, y, loss)
        direction = jnp.sign(g) if norm == "linf" else g / jnp.maximum(length(g), 1e-30)
        return project(z + step_size * direction)

    return jax.lax.fori_loop(0, steps, step, start())


@dataclass(frozen=True)
class Finding:
    """One soundness check: `value` is compared with `limit`; `ok` tells whether it passed."""

    name: str
    value: float
    limit: float
    ok: bool
    meaning: str

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data, as in a result file."""
        return asdict(self)


def soundness(
    logits_fn: LogitsFn,
    x: Images,
    y: Labels,
    key: PRNGKeyArray,
    *,
    epsilon: float,
    steps: int = 20,
    loss: Loss = "ce",
    transferred: Mapping[str, Shaped[Array, "n h w c"]] | None = None,
    tolerance: float = 0.02,
    clip: Clip = (0.0, 1.0),
) -> list[Finding]:
    r"""Checks whether the white-box PGD attack on a model can be trusted ($\ell_\infty$).

    A model may look robust because its gradients mislead the attack. After Athalye et al. (2018)
    and the flags of AutoAttack (Croce & Hein 2020), each check measures one symptom:

    - `zero_gradient`: share of images on which the gradient of the loss vanishes;
    - `more_steps`: accuracy under PGD with `steps` steps minus accuracy under one step;
    - `random_start`: accuracy that a second random start takes away;
    - `transfer`: by how much images crafted on another model beat the white-box attack;
    - `unbounded`: accuracy when the whole box is allowed.

    Args:
        logits_fn: the classifier attacked.
        x: clean images.
        y: their labels.
        key: for the random starts.
        epsilon: radius of the ball.
        steps: steps of the white-box attack; its step size is `2.5 * epsilon / steps`.
        loss: loss that the attack ascends.
        transferred: adversarial images within the same ball, crafted on other models, by name.
        tolerance: largest difference of accuracies that passes.
        clip: range of a pixel.

    Returns:
        One finding a check.

    Raises:
        ValueError: see `pgd`.
    """

    def attack(key: PRNGKeyArray, radius: float, **options: Any) -> Bool[Array, " n"]:
        options = {"steps": steps, "step_size": 2.5 * radius / steps} | options
        z = pgd(logits_fn, x, y, key, epsilon=radius, loss=loss, clip=clip, **options)
        return correct(logits_fn(z), y)

    def finding(name: str, value: Any, limit: float, meaning: str) -> Finding:
        return Finding(name, round(float(value), 6), limit, bool(value <= limit), meaning)

    key_1, key_2, key_3 = jax.random.split(key, 3)
    white_box = attack(key_1, epsilon)
    one_step = attack(key_1, epsilon, steps=1, step_size=epsilon, random_start=False)
    restarted = white_box & attack(key_2, epsilon)
    anywhere = attack(key_3, clip[1] - clip[0])
    gradient = input_gradient(logits_fn, x, y, loss)
    findings = [
        finding(
            "zero_gradient",
            jnp.mean(jnp.all(gradient == 0, axis=(1, 2, 3))),
            0.0,
            "share of images with no gradient",
        ),
        finding(
            "more_steps",
            jnp.mean(white_box) - jnp.mean(one_step),
            tolerance,
            f"accuracy under {steps} steps minus under one step",
        ),
        finding(
            "random_start",
            jnp.mean(white_box) - jnp.mean(restarted),
            tolerance,
            "accuracy that a second random start takes away",
        ),
        finding(
            "unbounded",
            jnp.mean(anywhere),
            tolerance,
            "accuracy when every image in the box is allowed",
        ),
    ]
    for name, z in (transferred or {}).items():
        findings.append(
            finding(
                f"transfer_{name}",
                jnp.mean(white_box) - jnp.mean(correct(logits_fn(z), y)),
                tolerance,
                f"accuracy under the white-box attack minus under images crafted on {name}",
            )
        )
    return findings
