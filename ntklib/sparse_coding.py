r"""Feature purification: sparse inputs, a network that learns them, and what its weights hold.

The setting of Allen-Zhu & Li (2021), with constants that we could not check against their text. An
input $x = Mz + \xi \in \mathbb R^d$ is made of few columns of a dictionary $M$, the features; its
label is $y = \mathrm{sign}\langle w^\star, z\rangle$. The network has two layers, of which the
first is trained,

$$f(x) = \sum_{i=1}^m \mathbb E_\rho\big[\mathrm{ReLU}(\langle w_i, x\rangle + \rho - b_i)
- \mathrm{ReLU}(-\langle w_i, x\rangle + \rho - b_i)\big], \qquad \rho \sim N(0, \sigma^2),$$

so that a neuron is silent where $|\langle w_i, x\rangle| < b_i$. It is trained on fresh inputs,
first without attacks, then with them. All classifiers are a `Model` of one output, attacked by
`ntklib.attacks` with `clip=None`.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm as gaussian
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ntklib import _checks
from ntklib._checks import Number
from ntklib.attacks import Attack, Ball, Labels, LogitsFn, Norm, loss_per_point
from ntklib.linear import bind
from ntklib.models import Model, Variables

Rows = Float[Array, "*n d"]
Vectors = Float[Array | np.ndarray, "n d"]


class Sample(NamedTuple):
    """Inputs, their labels, 0 or 1, and the coefficients of the features in them."""

    x: Float[Array, "n d"]
    y: Int[Array, " n"]
    z: Float[Array, "n d"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("labelling", "dictionary", "active", "spikes"),
    meta_fields=("noise",),  # where there is none, none is drawn
)
@dataclass(frozen=True)
class Task:
    r"""The distribution of inputs and labels; the function `task` makes one.

    Attributes:
        labelling: $w^\star$.
        dictionary: $M$, orthonormal, one feature a column; None is the identity.
        active: $k$, the mean number of coefficients of size $1/\sqrt k$.
        spikes: the mean number of coefficients of size 1.
        noise: $\sigma_x$; each entry of $\xi$ is Gaussian of variance $\sigma_x^2 / d$.
    """

    labelling: Float[Array, " d"]
    dictionary: Float[Array, "d d"] | None
    active: float | Float[Array, ""]
    spikes: float | Float[Array, ""]
    noise: float

    @property
    def direction(self) -> Float[Array, " d"]:
        r"""The dense direction $u = M w^\star / \|w^\star\|$, the same for all inputs."""
        return self.inputs(self.labelling / jnp.linalg.norm(self.labelling))

    def inputs(self, z: Rows) -> Rows:
        """$Mz$ for each row of coefficients."""
        return z if self.dictionary is None else z @ self.dictionary.T

    def coefficients(self, x: Rows) -> Rows:
        r"""$M^\top x$ for each row: inputs, weights or gradients, told by features."""
        return x if self.dictionary is None else x @ self.dictionary

    @partial(jax.jit, static_argnames="n")
    def sample(self, key: PRNGKeyArray, n: int) -> Sample:
        r"""Fresh inputs, the same ones for the same key.

        Coefficients are independent: $\pm 1$ with probability `spikes`$/d$, $\pm 1/\sqrt k$ with
        probability $k/d$, else 0.
        """
        d = len(self.labelling)
        key_z, key_x = jax.random.split(key)
        u = jax.random.uniform(key_z, (n, d), minval=-1.0)  # decides on size and sign
        rare, often = self.spikes / d, (self.spikes + self.active) / d
        size = jnp.where(abs(u) < rare, 1.0, jnp.where(abs(u) < often, self.active**-0.5, 0.0))
        z = jnp.sign(u) * size
        x = self.inputs(z)
        if self.noise:
            x += self.noise * d**-0.5 * jax.random.normal(key_x, (n, d))
        return Sample(x, (z @ self.labelling > 0).astype(jnp.int32), z)


def task(
    key: PRNGKeyArray,
    d: Number,
    k: Number,
    *,
    dictionary: Float[Array, "d d"] | None = None,
    spikes: Number = 0.3,
    noise: Number = 0.0,
) -> Task:
    r"""A task with random labelling weights: $|w^\star_j|$ uniform in [0.75, 1.25], random signs.

    Sums of such weights do not tie, so that all inputs but $x = 0$ have a label.

    Args:
        key: for the weights.
        d: number of features, and of entries of an input.
        k: mean number of active features, `Task.active`.
        dictionary: $M$, orthonormal, such as `rotation` and `cosine_basis` make; None for identity.
        spikes: see `Task`.
        noise: see `Task`.

    Raises:
        TypeError, ValueError: if a number is out of range, k and `spikes` are more than d, or the
            dictionary is not an orthonormal matrix of that size.
    """
    d, k = _checks.whole("d", d, least=2), _checks.number("k", k, above=0)
    spikes = _checks.number("spikes", spikes, least=0)
    if k + spikes > d:
        raise ValueError(f"k, spikes: {k:g} and {spikes:g} are more than all {d} features")
    if dictionary is not None:
        shape = jnp.shape(dictionary)
        if shape != (d, d) or jnp.abs(dictionary.T @ dictionary - jnp.eye(d)).max() > 1e-4:
            raise ValueError(
                f"dictionary: an array of shape {shape} is not allowed; it is orthonormal, ({d}, "
                f"{d})"
            )
    key_sign, key_size = jax.random.split(key)
    size = jax.random.uniform(key_size, (d,), minval=0.75, maxval=1.25)
    labelling = size * jax.random.rademacher(key_sign, (d,), jnp.float32)
    return Task(labelling, dictionary, k, spikes, _checks.number("noise", noise, least=0))


def rotation(key: PRNGKeyArray, d: int) -> Float[Array, "d d"]:
    """A random rotation, uniform over all orthogonal matrices (Mezzadri 2007)."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (d, d)))
    return q * jnp.sign(jnp.diag(r))


def cosine_basis(d: int) -> Float[Array, "d d"]:
    r"""The cosines of the DCT-II, orthonormal, with entries of at most $\sqrt{2/d}$."""
    angles = jnp.pi / d * (jnp.arange(d)[:, None] + 0.5) * jnp.arange(d)
    return jnp.sqrt(2 / d) * jnp.cos(angles) * jnp.where(jnp.arange(d) == 0, 0.5**0.5, 1.0)


# ------------------------------------------------------------------------------- classifiers


def learner(
    width: Number, *, threshold: Number, norm: Number = 0.07, smoothing: Number = 0.0
) -> Model:
    r"""The network of the module's text, of which `weights` are trained and the bias is not.

    Args:
        width: $m$, the number of neurons.
        threshold: $b_i / \|w_i\|$ at initialisation.
        norm: about $\|w_i\|$ at initialisation; the weights are Gaussian.
        smoothing: $\sigma$, the standard deviation of $\rho$; 0 for none.

    Returns:
        A model with variables `{"params": {"weights": (m, d)}, "frozen": {"bias": (m,)}}`.
    """
    width, norm = _checks.whole("width", width), _checks.number("norm", norm, above=0)
    threshold = _checks.number("threshold", threshold, least=0)
    smoothing = _checks.number("smoothing", smoothing, least=0)

    def init(key: PRNGKeyArray, x: Vectors) -> Variables:
        weights = norm * x.shape[-1] ** -0.5 * jax.random.normal(key, (width, x.shape[-1]))
        return tied({"params": {"weights": weights}}, threshold)

    apply = bind(_smooth, smoothing) if smoothing else bind(_sharp)
    return Model(init, apply, name=f"learner(width={width}, smoothing={smoothing:g})")


def tied(variables: Variables, threshold: Number | Array) -> Variables:
    r"""The learner's variables with each bias in proportion to its weights, $b_i = t\,\|w_i\|$."""
    norms = jnp.linalg.norm(variables["params"]["weights"], axis=1)
    return variables | {"frozen": {"bias": jax.lax.stop_gradient(threshold * norms)}}


def _sharp(variables: Variables, x: Vectors) -> Float[Array, "n 1"]:
    """Without smoothing the two ReLUs are the soft threshold a - clip(a, -b, b)."""
    a, bias = x @ variables["params"]["weights"].T, variables["frozen"]["bias"]
    return jnp.sum(a - jnp.clip(a, -bias, bias), axis=1, keepdims=True)


def _smooth(
    smoothing: Float[Array, ""] | float, variables: Variables, x: Vectors
) -> Float[Array, "n 1"]:
    r"""The mean of $\mathrm{ReLU}(s + \rho)$ is $s\,\Phi(s/\sigma) + \sigma\,\varphi(s/\sigma)$."""
    a, bias = x @ variables["params"]["weights"].T, variables["frozen"]["bias"]

    def relu(s: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return s * gaussian.cdf(s / smoothing) + smoothing * gaussian.pdf(s / smoothing)

    return jnp.sum(relu(a - bias) - relu(-a - bias), axis=1, keepdims=True)


def polynomial(degree: Number, width: Number = 1) -> Model:
    r"""A polynomial as a network, all of whose weights are trained.

    $f(x) = \langle u, x\rangle + m^{-1/2} \sum_{p=2}^q \sum_{i=1}^m v_{pi}\langle w_i, x\rangle^p$,
    of degree 1 a linear rule, without $w$. It starts from $u = 0$, $v = 0$ and standard normal
    $w$. Every polynomial without a constant term is such a sum, if m is large enough.

    Args:
        degree: $q$.
        width: $m$.
    """
    degree, width = _checks.whole("degree", degree), _checks.whole("width", width)

    def init(key: PRNGKeyArray, x: Vectors) -> Variables:
        d = x.shape[-1]
        higher = {
            "weights": jax.random.normal(key, (width, d)),
            "outputs": jnp.zeros((degree - 1, width)),
        }
        return {"params": {"linear": jnp.zeros(d)} | (higher if degree > 1 else {})}

    return Model(init, bind(_polynomial), name=f"polynomial(degree={degree}, width={width})")


def _polynomial(variables: Variables, x: Vectors) -> Float[Array, "n 1"]:
    params = variables["params"]
    total = x @ params["linear"]
    if "weights" in params:
        a = x @ params["weights"].T
        for power, outputs in enumerate(params["outputs"] / len(params["weights"]) ** 0.5, 2):
            total += a**power @ outputs
    return total[:, None]


# ------------------------------------------------------------------------------- training


def train(
    model: Model,
    variables: Variables,
    inputs: Task,
    key: PRNGKeyArray,
    *,
    steps: Number,
    rate: Number,
    batch_size: Number = 800,
    attack: Attack | None = None,
    thresholds: tuple[float, float] | None = None,
    decay: Number = 0.0,
    momentum: Number = 0.9,
) -> Variables:
    r"""Stochastic gradient descent on the logistic loss, on fresh inputs in each step.

    The velocity is a running mean of gradients, $v \leftarrow \mu v + (1 - \mu) g$. Memory is a few
    times that of the parameters and of `batch_size` times the number of neurons, whatever the
    number of steps.

    Args:
        model: a model of one output; its parameters are trained, its other variables are not.
        variables: where it starts.
        inputs: the distribution of inputs.
        key: draws them.
        steps: number of steps.
        rate: the learning rate, constant.
        batch_size: inputs in a step.
        attack: attacks each batch with the current model; None for training without attacks.
        thresholds: for a `learner`, ties each bias to its weights (see `tied`), with a factor that
            goes linearly from the first number to the second; None leaves the bias as it is.
        decay: $\lambda$ of the penalty $\lambda \sum_i (\|w_i\|^2/2 + \|w_i\|^3/3)$ on `weights`.
        momentum: $\mu$.

    Returns:
        The variables at the end.
    """
    steps, batch_size = _checks.whole("steps", steps), _checks.whole("batch_size", batch_size)
    settings = {
        "rate": _checks.number("rate", rate, above=0),
        "decay": _checks.number("decay", decay, least=0),
        "momentum": _checks.number("momentum", momentum, least=0),
    }
    ends = (
        None if thresholds is None else tuple(_checks.number("thresholds", t) for t in thresholds)
    )
    variables = _checks.parameters("variables", variables)
    return _train(
        bind(model.apply), variables, inputs, key, ends, settings, steps, batch_size, attack
    )


@partial(jax.jit, static_argnames=("batch_size", "attack"))
def _train(
    apply: Partial,
    variables: Variables,
    inputs: Task,
    key: PRNGKeyArray,
    ends: tuple[Array, Array] | None,
    settings: dict[str, Array],
    steps: Int[Array, ""],
    batch_size: int,
    attack: Attack | None,
) -> Variables:
    def loss(params: Variables, state: Variables, x: Array, y: Array) -> Float[Array, ""]:
        found = jnp.mean(loss_per_point(apply(state | {"params": params}, x), y, "ce"))
        if "weights" in params:
            norms = jnp.linalg.norm(params["weights"], axis=1)
            found += settings["decay"] * jnp.sum(norms**2 / 2 + norms**3 / 3)
        return found

    def step(
        i: Int[Array, ""], carried: tuple[Variables, Variables]
    ) -> tuple[Variables, Variables]:
        state, velocity = carried
        draw, start = jax.random.split(jax.random.fold_in(key, i))
        x, y, _ = inputs.sample(draw, batch_size)
        if attack is not None:
            x = attack(bind(apply, state), x, y, start)
        gradient = jax.grad(loss)(state["params"], state, x, y)
        mu, rate = settings["momentum"], settings["rate"]
        velocity = jax.tree.map(lambda v, g: mu * v + (1 - mu) * g, velocity, gradient)
        params = jax.tree.map(lambda p, v: p - rate * v, state["params"], velocity)
        state = state | {"params": params}
        if ends is not None:
            state = tied(state, ends[0] + (ends[1] - ends[0]) * (i + 1) / steps)
        return state, velocity

    still = jax.tree.map(jnp.zeros_like, variables["params"])
    return jax.lax.fori_loop(0, steps, step, (variables, still))[0]


def universal(
    logits_fn: LogitsFn,
    x: Vectors,
    y: Labels,
    key: PRNGKeyArray | None = None,
    *,
    direction: Float[Array, " d"],
    epsilon: Number,
    norm: Norm = "l2",
) -> Vectors:
    r"""The attack $x - \tau y\, u$ along one direction $u$, the same for all inputs.

    It sees neither the classifier nor its gradient. For $\ell_\infty$ it goes along the signs of
    $u$. It is an attack once `functools.partial` has set the direction and the radius $\tau$.
    """
    ball = Ball.around(x, epsilon, norm, None).on_device()
    signs = 1.0 - 2.0 * jnp.asarray(y)
    return ball.ascend(ball.x, signs[:, None] * direction, ball.epsilon)


# ------------------------------------------------------------------------------- measures


class Features(NamedTuple):
    r"""What each of m weights is made of, with its coefficients $a = M^\top w$ in the dictionary.

    Attributes:
        main: the feature $j^\star$ of the largest $|a_j|$.
        purity: $a_{j^\star}^2 / \|w\|^2$.
        pure: whether that is above 1/2, and $a_{j^\star}$ has the sign of $w^\star_{j^\star}$.
        mixture: the dense coefficient $\beta$, that of $w^\star$ in the other coefficients by least
            squares over $|a_{j^\star}|$: for
            $w \propto \mathrm{sign}(w^\star_j) M_j + \beta \sum_{l \ne j} w^\star_l M_l$ it is
            $\beta$.
        alignment: cosine between the other coefficients and those of $w^\star$.
    """

    main: Int[Array, " m"]
    purity: Float[Array, " m"]
    pure: Bool[Array, " m"]
    mixture: Float[Array, " m"]
    alignment: Float[Array, " m"]


def features(weights: Float[Array, "m d"], inputs: Task) -> Features:
    """What weights are made of; of a weight of zero it is not a number."""
    a, target = inputs.coefficients(jnp.asarray(weights)), inputs.labelling
    main = jnp.argmax(abs(a), axis=1)
    top, own = jnp.take_along_axis(a, main[:, None], axis=1)[:, 0], target[main]
    # Left out of the sums, and not subtracted from them: the rest may be much smaller.
    rest = jnp.where(jnp.arange(a.shape[1]) == main[:, None], 0.0, a)
    dense, norm = rest @ target, jnp.linalg.norm(rest, axis=1)
    others = target @ target - own**2
    purity = top**2 / (top**2 + norm**2)
    pure = (purity > 0.5) & (jnp.sign(top) == jnp.sign(own))
    return Features(
        main, purity, pure, dense / others / abs(top), dense / (norm * jnp.sqrt(others))
    )


def dense_share(weights: Float[Array, "m d"], inputs: Task) -> Float[Array, ""]:
    r"""Share of the weights along $u$, $\sum_i \langle w_i, u\rangle^2 / \sum_i \|w_i\|^2$."""
    return jnp.sum((weights @ inputs.direction) ** 2) / jnp.sum(jnp.square(weights))


def overlap(a: Float[Array, "m d"], b: Float[Array, "m d"]) -> Float[Array, " m"]:
    r"""$\theta = |\langle a_i, b_i\rangle| / (\|a_i\| \|b_i\|)$ of each neuron's two weights."""
    return abs(jnp.sum(a * b, axis=1)) / (jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1))


def gradient_alignment(logits_fn: LogitsFn, inputs: Task, sample: Sample) -> Float[Array, "2 n"]:
    r"""Of each input's gradient $G = \nabla_x f$: its cosine with $u$, its share off the support.

    The second is $\sum_{j:\, z_j = 0} g_j^2 / \|g\|^2$ with $g = M^\top G$. A gradient of zero has
    zeros for both.
    """
    gradient = jax.grad(lambda x: jnp.sum(logits_fn(x)))(sample.x)
    norm = jnp.linalg.norm(gradient, axis=1)
    norm = jnp.where(norm > 0, norm, 1.0)
    off = jnp.where(sample.z == 0, inputs.coefficients(gradient), 0.0)
    return jnp.stack([gradient @ inputs.direction / norm, jnp.sum(off**2, axis=1) / norm**2])


def _reach(rows: Rows, norm: Norm) -> Float[Array, "*n"]:
    """The dual norm: by how much a linear function changes at most in the unit ball."""
    _checks.one_of("norm", norm, ("linf", "l2"))
    return jnp.linalg.norm(rows, ord=1 if norm == "linf" else 2, axis=-1)


def linear_withstands(
    rule: Float[Array, " d"],
    x: Vectors,
    y: Labels,
    *,
    epsilon: Number,
    norm: Norm = "l2",
) -> Bool[Array, " n"]:
    r"""Which inputs a linear rule $v$ classifies whatever the attack, exactly.

    They have $y\langle v, x\rangle > \tau\|v\|_*$ with the dual norm, $\ell_2$ for itself and
    $\ell_1$ for $\ell_\infty$.
    """
    epsilon = _checks.number("epsilon", epsilon, least=0)
    signs = 2.0 * jnp.asarray(_checks.labels("y", y, len(x), 2)) - 1.0
    return signs * (x @ rule) > epsilon * _reach(rule, norm)


def ceiling(
    inputs: Task, z: Float[Array, "n d"], *, epsilon: Number, norm: Norm = "l2"
) -> Bool[Array, " n"]:
    r"""Which inputs withstand every attack on the rule that knows which features are active.

    $|\langle w^\star, z\rangle| > \tau \|M w^\star_{\mathrm{supp}(z)}\|_*$: the rule
    $\langle w^\star, z\rangle$ whose gradient is cut to the support. It is a reference and no
    strict bound, and knows $z$ without noise.
    """
    epsilon = _checks.number("epsilon", epsilon, least=0)
    on_support = inputs.inputs(jnp.where(z == 0, 0.0, inputs.labelling))
    return abs(z @ inputs.labelling) > epsilon * _reach(on_support, norm)
