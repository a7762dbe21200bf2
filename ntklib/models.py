"""Finite networks in flax.linen, and the kernels of their infinite-width limits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import pi, prod, sqrt
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

NAMES = ("cnn", "mlp")

Variables: TypeAlias = Any  # what flax's `init` returns: {"params": {...}, ...}


@dataclass(frozen=True)
class Model:
    """A network as two pure functions, with the kernel of its infinite-width limit if known.

    Attributes:
        init: `init(key, x) -> variables`; of the batch x only the shape matters.
        apply: `apply(variables, x) -> logits` of shape (n, n_classes).
        kernel_fn: The infinite twin, `kernel_fn(x1, x2=None, get="ntk" | "nngp")`: the kernel of
            one output, of shape (n1, n2). None if there is none.
    """

    init: Callable[..., Variables]
    apply: Callable[..., Any]
    kernel_fn: Callable[..., Array] | None = None


def get(
    name: str,
    *,
    n_classes: int,
    width: int = 512,
    depth: int = 2,
    parametrization: str = "ntk",
    w_std: float | int = sqrt(2),
    b_std: float | int = 0.1,
) -> Model:
    """A ReLU network by name, with its infinite twin.

    Each layer is y = W x + b with Gaussian entries at initialisation: those of W have standard
    deviation w_std / sqrt(fan_in), those of b have b_std, in the readout too. The
    parametrisation says what is trained, hence which tangent kernel the network has:

    - "ntk": W = (w_std / sqrt(fan_in)) V and b = b_std c, and V, c ~ N(0, 1) are trained. The
      kernel has a limit as the width grows, which is the twin (Jacot et al. 2018). With
      b_std = 0 there is no bias.
    - "standard": W and b themselves are trained. The kernel grows in proportion to the width; the
      twin is its leading behaviour at this width (Sohl-Dickstein et al. 2020). With b_std = 0 the
      bias starts at zero and is trained.

    Args:
        name: "mlp": dense layers on the flattened input. "cnn": 3x3 convolutions with zero
            padding and stride 1, then a dense readout of all pixels and channels; inputs are
            images (n, height, width, channels).
        n_classes: Number of outputs.
        width: Units, or channels, of each hidden layer.
        depth: Number of hidden layers, each followed by a ReLU; the readout is one layer more.
        parametrization: "ntk" or "standard".
        w_std: Scale of the weights.
        b_std: Scale of the biases.

    Returns:
        The model, with a twin that computes in the dtype of its inputs, can be differentiated in
        them, and keeps its memory bounded. Inputs whose angle is below rounding (2e-3 in float32,
        5e-8 in float64) count as parallel.

    Raises:
        ValueError: If the name or the parametrisation is unknown, or a size or scale is out of
            range.
    """
    if name not in NAMES:
        raise ValueError(f"model {name!r} is unknown; known are {', '.join(NAMES)}")
    if parametrization not in ("ntk", "standard"):
        raise ValueError(f"parametrization is {parametrization!r}; allowed: 'ntk', 'standard'")
    for size, value in (("n_classes", n_classes), ("width", width), ("depth", depth)):
        if value < 1:
            raise ValueError(f"{size} is {value}; it must be at least 1")
    if not 0 < w_std < float("inf"):
        raise ValueError(f"w_std is {w_std}; it must be positive and finite")
    if not 0 <= b_std < float("inf"):
        raise ValueError(f"b_std is {b_std}; it must be finite and at least 0")
    hidden = _Hidden("conv" if name == "cnn" else "dense", width, depth)
    scales = _Scales(parametrization, float(w_std), float(b_std))
    network = _Network(hidden, n_classes, scales)
    return Model(network.init, network.apply, partial(_kernel, hidden=hidden, scales=scales))


def from_flax(module: nn.Module) -> Model:
    """Any flax module as a model without an infinite twin.

    Args:
        module: Its `__call__` takes the inputs alone and returns logits (n, n_classes).

    Returns:
        The model.
    """
    return Model(module.init, module.apply)


def antisymmetric(model: Model) -> Model:
    """Two copies of a model subtracted, so that the output starts at exactly zero.

    f = (g(theta_1) - g(theta_2)) / sqrt(2), where theta_1 = theta_2 at the start, and both are
    trained. Then f = 0 at the start, and the tangent kernel of f there is that of g (Chizat et
    al. 2019; Zhang et al. 2020).

    Args:
        model: The model g.

    Returns:
        The model f, with the infinite twin of g.
    """

    def init(key: PRNGKeyArray, x: Array) -> Variables:
        variables = model.init(key, x)
        return {kind: {"first": tree, "second": tree} for kind, tree in variables.items()}

    def apply(variables: Variables, x: Array) -> Array:
        first, second = (
            model.apply({kind: trees[copy] for kind, trees in variables.items()}, x)
            for copy in ("first", "second")
        )
        return (first - second) / sqrt(2)

    return Model(init, apply, model.kernel_fn)


@dataclass(frozen=True)
class _Hidden:
    kind: str  # "dense" or "conv"
    width: int
    depth: int


@dataclass(frozen=True)
class _Scales:
    parametrization: str
    w_std: float
    b_std: float


# --- finite ---


class _Network(nn.Module):
    hidden: _Hidden
    n_classes: int
    scales: _Scales

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n {self.n_classes}"]:
        conv = self.hidden.kind == "conv"
        layer = partial(nn.Conv, kernel_size=(3, 3), padding="SAME") if conv else nn.Dense
        x = _pixels(x) if conv else x.reshape(len(x), -1)
        for i in range(self.hidden.depth):
            fan_in = 9 * x.shape[-1] if conv else x.shape[-1]
            x = _Scaled(layer, self.hidden.width, fan_in, self.scales, name=f"hidden_{i}")(x)
            x = nn.relu(x)
        x = x.reshape(len(x), -1)
        return _Scaled(nn.Dense, self.n_classes, x.shape[-1], self.scales, name="readout")(x)


class _Scaled(nn.Module):
    """One layer W x + b of a parametrisation (see `get`), around a plain flax layer."""

    layer: Callable[..., nn.Module]
    features: int
    fan_in: int
    scales: _Scales

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        w_scale, b_scale = self.scales.w_std / sqrt(self.fan_in), self.scales.b_std
        normal = nn.initializers.normal
        if self.scales.parametrization == "standard":
            return self.layer(
                self.features, kernel_init=normal(w_scale), bias_init=normal(b_scale)
            )(x)
        # The scales act on the input and the output, so that the layer in between stays a plain
        # Dense or Conv, which tools that intercept flax layers understand.
        outer = b_scale or 1.0
        layer = self.layer(
            self.features, use_bias=b_scale > 0, kernel_init=normal(1.0), bias_init=normal(1.0)
        )
        return outer * layer(w_scale / outer * x)


def _pixels(x: Array) -> Array:
    if x.ndim != 4:
        raise ValueError(f"inputs have shape {x.shape}; 'cnn' takes (n, height, width, channels)")
    return x


# --- infinite ---

# Entries of one array over pairs of inputs (and pixels) held at once; about a dozen are alive.
_MEMORY = 2**23


@partial(jax.jit, static_argnames=("get", "hidden", "scales"))
def _kernel(
    x1: Float[Array, "n1 ..."],
    x2: Float[Array, "n2 ..."] | None = None,
    get: str = "ntk",
    *,
    hidden: _Hidden,
    scales: _Scales,
) -> Float[Array, "n1 n2"]:
    if get not in ("ntk", "nngp"):
        raise ValueError(f"get is {get!r}; allowed are 'ntk' and 'nngp'")
    x2 = x1 if x2 is None else x2
    if hidden.kind == "conv":
        x1, x2 = _pixels(x1), _pixels(x2)
    else:  # a dense layer is a 1x1 convolution of a single pixel
        x1, x2 = x1.reshape(len(x1), 1, 1, -1), x2.reshape(len(x2), 1, 1, -1)
    pairs = partial(_pairs, get=get, hidden=hidden, scales=scales)
    columns = max(1, _MEMORY // prod(x1.shape[:3]))
    if columns >= len(x2):
        return pairs(x1, x2)
    # The gradient computes each batch of columns anew rather than keep what it needs of all.
    column = jax.checkpoint(lambda x: pairs(x1, x[None])[:, 0])
    return jax.lax.map(column, x2, batch_size=columns).T


def _pairs(
    x1: Float[Array, "n1 h w c"],
    x2: Float[Array, "n2 h w c"],
    *,
    get: str,
    hidden: _Hidden,
    scales: _Scales,
) -> Float[Array, "n1 n2"]:
    """The recursion over layers on all pairs of inputs, [n1, n2, height, width] for images.

    k is the covariance of a pair's pre-activations at one pixel, a and b their variances for
    either input, and ntk the tangent kernel (Jacot et al. 2018; Arora et al. 2019 for
    convolutions). Different pixels need no covariance, as the readout weighs each by itself.
    """
    window = (3, 3) if hidden.kind == "conv" else (1, 1)
    area, n_pixels = prod(window), prod(x1.shape[1:3])

    def patches(m: Array) -> Array:  # mean over a convolution's window, zeros around the image
        images = m.reshape(-1, *m.shape[2:], 1)
        return nn.avg_pool(images, window, padding="SAME").reshape(m.shape)

    def affine(m: Array) -> Array:
        return scales.w_std**2 * m + scales.b_std**2

    def own(m: Array, fan_in: int) -> Array:  # tangent kernel of a layer's own weights and biases
        return affine(m) if scales.parametrization == "ntk" else fan_in * m + 1

    a = patches(jnp.mean(x1**2, -1)[:, None])
    b = patches(jnp.mean(x2**2, -1)[None, :])
    k = patches(jnp.einsum("ihwc,jhwc->ijhw", x1, x2, precision="highest") / x1.shape[-1])
    ntk = own(k, area * x1.shape[-1])
    for layer in range(1, hidden.depth + 1):
        readout = layer == hidden.depth
        gather = partial(jnp.mean, axis=(2, 3)) if readout else patches
        a, b, k = affine(a), affine(b), affine(k)
        k, positive = _relu_moments(a, b, k)
        a, b, k, ntk = gather(a / 2), gather(b / 2), gather(k), gather(positive * ntk)
        fan_in = hidden.width * (n_pixels if readout else area)
        ntk = scales.w_std**2 * ntk + own(k, fan_in)
    return ntk if get == "ntk" else affine(k)


@jax.custom_jvp
def _relu_moments(a: Array, b: Array, k: Array) -> tuple[Array, Array]:
    """E[relu(u) relu(v)] and P(u > 0, v > 0) for (u, v) ~ N(0, [[a, k], [k, b]]).

    With t the angle between u and v, and s = sqrt(ab) sin t, they are (s + k (pi - t)) / 2 pi and
    (pi - t) / 2 pi, the arc-cosine kernels of order 1 and 0 (Cho and Saul 2009).
    """
    s, angle = _angle(a, b, k)
    positive = (pi - angle) / (2 * pi)
    return s / (2 * pi) + k * positive, positive


@_relu_moments.defjvp
def _relu_moments_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    # Where u and v are parallel, P has a kink in the inputs: for its slope there the mean over
    # opposite directions is taken, 0. All other slopes are finite, which autodiff does not see.
    (a, b, k), (da, db, dk) = primals, tangents
    s, _ = _angle(a, b, k)
    moment, positive = _relu_moments(a, b, k)
    stretch = da / jnp.where(a > 0, a, 1) + db / jnp.where(b > 0, b, 1)
    slope = jnp.where(s > 0, 1 / (2 * pi * jnp.where(s > 0, s, 1)), 0)
    return (moment, positive), (
        positive * dk + s / (4 * pi) * stretch,
        slope * (dk - k / 2 * stretch),
    )


def _angle(a: Array, b: Array, k: Array) -> tuple[Array, Array]:
    product = jnp.sqrt(a) * jnp.sqrt(b)
    square = (product - k) * (product + k)
    # Between equal inputs this is rounding error, up to 14 eps on CPU, and its root would be 1e-3
    # in float32. Angles that small count as 0, so the kernel of an input with itself is exact.
    s = jnp.sqrt(jnp.where(square > 32 * jnp.finfo(k.dtype).eps * product**2, square, 0))
    half = jnp.arctan(s / jnp.where(product > 0, product + jnp.abs(k), 1))
    return s, jnp.where(k < 0, pi - 2 * half, 2 * half)
