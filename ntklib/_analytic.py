r"""The kernels of infinitely wide ReLU networks, by recursion over their layers.

For a pair of inputs $x, x'$ let $k_{pq}$ be the covariance of the pre-activations $u$ at pixel p of
x and $v$ at pixel q of x', $a_p$ and $b_q$ their variances, and $\theta_{pq}$ the tangent kernel. A
ReLU takes $k$ to $E[\mathrm{relu}(u)\,\mathrm{relu}(v)]$ and $\theta$ to $P(u > 0, v > 0)\,\theta$.
A layer $y = Wx + b$ takes the mean over its window of both, then $k$ to $w^2 k + b^2$ and $\theta$
to $w^2 \theta$ plus the kernel of its own weights (Jacot et al. 2018; Arora et al. 2019 for
convolutions). Pooling takes means over both pixels. A dense layer sees one pixel.
"""

from dataclasses import dataclass
from functools import partial, reduce
from math import ceil, isqrt, log, pi, prod, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntklib._checks import one_of, same_rows
from ntklib.models.stacks import Stack

# Entries of one array over pairs of inputs (and of pixels) held at once; about a dozen are alive.
_MEMORY = 2**23
# With convolutions on a CPU, where they are to stay in the cache.
_CACHE = 2**18


@dataclass(frozen=True)
class Twin:
    """The kernel of an infinitely wide network, as a function; equal ones compile once."""

    stack: Stack

    def __call__(
        self,
        x1: Float[Array | np.ndarray, "n1 ..."],
        x2: Float[Array | np.ndarray, "n2 ..."] | None = None,
        get: str = "ntk",
    ) -> Float[Array, "n1 n2"]:
        """The kernel of one output, between all pairs of inputs: see `ntklib.infinite.twin`.

        Computes in the dtype of its inputs and can be differentiated in them. Inputs whose angle is
        below rounding (2e-3 in float32, 5e-8 in float64) count as parallel. Memory is bounded: for
        convolutions, batches of pairs follow one another, and a gradient computes each anew.
        """
        one_of("get", get, ("ntk", "nngp"))
        x2 = x1 if x2 is None else x2
        same_rows("x1", x1, "x2", x2)
        return _between(x1, x2, get, self.stack)


@partial(jax.jit, static_argnames=("get", "stack"))
def _between(
    x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."], get: str, stack: Stack
) -> Float[Array, "n1 n2"]:
    x1, x2 = (jnp.moveaxis(stack.inputs(x), -1, 1) for x in (x1, x2))  # channels first
    n_pixels = prod(x1.shape[2:])
    size = n_pixels**2 if stack.readout == "pool" else n_pixels
    own_size = n_pixels**2 if "pool" in stack.layers else n_pixels
    limit = _CACHE if "conv" in stack.layers and jax.default_backend() == "cpu" else _MEMORY
    variances = jax.checkpoint(partial(_variances, stack=stack))
    first, second = (
        (x, jax.lax.map(variances, x, batch_size=max(1, limit // own_size)))
        if len(x) * own_size > limit
        else (x, jax.vmap(variances)(x))
        for x in (x1, x2)
    )
    pair = partial(_pair, get=get, stack=stack)
    if len(x1) * len(x2) * size <= limit:
        return jax.vmap(lambda p: jax.vmap(lambda q: pair(p, q))(second))(first)
    rows = min(len(x1), max(1, isqrt(limit // size)))  # a square has the fewest inputs
    columns = max(1, limit // (rows * size))

    def row(p: tuple) -> Float[Array, " n2"]:
        return jax.lax.map(jax.checkpoint(lambda q: pair(p, q)), second, batch_size=columns)

    return jax.lax.map(jax.checkpoint(row), first, batch_size=rows)


def _pair(first: tuple, second: tuple, *, get: str, stack: Stack) -> Float[Array, ""]:
    """The recursion for one pair of inputs, each with its variances before every ReLU.

    Inputs are [channels, *pixels]. If the readout weighs each pixel by itself, covariances of
    different pixels are not needed, and arrays are [height, width]; else they are [height, width,
    height, width].
    """
    (x, variances_x), (y, variances_y) = first, second
    full = stack.readout == "pool"
    k = _products(x, y, full=full)
    ntk, fan_in, layer = jnp.zeros_like(k), len(x), 0
    for kind in stack.layers:
        if kind == "pool":
            k, ntk = _pool(k), _pool(ntk)
            continue
        if kind == "conv":
            k, ntk, fan_in = _patches(k), _patches(ntk), 9 * fan_in
        own = _own(k, fan_in, stack)
        a, b = variances_x[layer], variances_y[layer]
        k, positive = _relu_moments(a[..., None, None] if full else a, b, _affine(k, stack))
        ntk = positive * (stack.w_std**2 * ntk + own)
        fan_in, layer = stack.width, layer + 1
    if get == "nngp":
        return _affine(jnp.mean(k), stack)
    fan_in *= 1 if full else k.size
    return stack.w_std**2 * jnp.mean(ntk) + _own(jnp.mean(k), fan_in, stack)


def _variances(x: Float[Array, "c *pixels"], *, stack: Stack) -> tuple[Array, ...]:
    """The variance of each pixel of one input before every ReLU."""
    full = "pool" in stack.layers  # which mixes covariances of different pixels into variances
    k = _products(x, x, full=full)
    variances = []
    for kind in stack.layers:
        if kind == "pool":
            k = _pool(k)
            continue
        k = _affine(_patches(k) if kind == "conv" else k, stack)
        a = jnp.einsum("hwhw->hw", k) if full else k
        k = _relu_moments(a[..., None, None], a, k)[0] if full else k / 2
        variances.append(a)
    return tuple(variances)


def _products(
    x: Float[Array, "c *pixels"], y: Float[Array, "c *pixels"], *, full: bool
) -> Float[Array, "..."]:
    """The mean over channels of the products of each pixel with itself, or with all pixels."""
    if full or x.ndim == 1:
        return jnp.tensordot(x, y, (0, 0), precision="highest") / len(x)
    # Not as matrices, which XLA on CPU would lay out with the pairs of inputs last.
    return sum(p * q for p, q in zip(x, y, strict=True)) / len(x)


def _affine(k: Array, stack: Stack) -> Array:
    return stack.w_std**2 * k + stack.b_std**2


def _own(k: Array, fan_in: int, stack: Stack) -> Array:
    """The tangent kernel of a layer's own weights and biases, for k the mean of its inputs'."""
    return _affine(k, stack) if stack.parametrization == "ntk" else fan_in * k + 1


def _patches(m: Array) -> Array:
    """The mean over a 3x3 window around a pixel, or around both, with zeros around the image."""
    if m.ndim == 2:
        # Not by shifted sums as below: XLA on CPU would compute what m is of for each of them anew.
        zero = np.zeros((), m.dtype)
        for window in ((3, 1), (1, 3)):
            m = jax.lax.reduce_window(m, zero, jax.lax.add, window, (1, 1), "SAME")
        return m / 9
    for axes in ((0, 2), (1, 3)):  # both pixels move together
        padded = jnp.pad(m, [(1, 1) if axis in axes else (0, 0) for axis in range(4)])
        parts = (
            [slice(i, i + n) if axis in axes else slice(None) for axis, n in enumerate(m.shape)]
            for i in range(3)
        )
        m = reduce(jnp.add, (padded[tuple(part)] for part in parts))
    return m / 9


def _pool(m: Float[Array, "h w h w"]) -> Float[Array, "h2 w2 h2 w2"]:
    h, w = (n // 2 for n in m.shape[:2])
    whole = m[: 2 * h, : 2 * w, : 2 * h, : 2 * w]
    return whole.reshape(h, 2, w, 2, h, 2, w, 2).mean((1, 3, 5, 7))


@jax.custom_jvp
def _relu_moments(a: Array, b: Array, k: Array) -> tuple[Array, Array]:
    """E[relu(u) relu(v)] and P(u > 0, v > 0) for (u, v) ~ N(0, [[a, k], [k, b]]).

    With t the angle between u and v, and s = sqrt(ab) sin t, they are (s + k (pi - t)) / 2 pi and
    (pi - t) / 2 pi, the arc-cosine kernels of order 1 and 0 (Cho and Saul 2009).
    """
    s, positive = _angle(a, b, k)
    return s / (2 * pi) + k * positive, positive


@_relu_moments.defjvp
def _relu_moments_jvp(
    primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    # Where u and v are parallel, P has a kink in the inputs: for its slope there the mean over
    # opposite directions is taken, 0. All other slopes are finite, which autodiff does not see.
    (a, b, k), (da, db, dk) = primals, tangents
    s, positive = _angle(a, b, k)
    stretch = da / jnp.where(a > 0, a, 1) + db / jnp.where(b > 0, b, 1)
    slope = jnp.where(s > 0, 1 / (2 * pi * jnp.where(s > 0, s, 1)), 0)
    return (s / (2 * pi) + k * positive, positive), (
        positive * dk + s / (4 * pi) * stretch,
        slope * (dk - k / 2 * stretch),
    )


def _angle(a: Array, b: Array, k: Array) -> tuple[Array, Array]:
    """sqrt(ab) sin t and (pi - t) / 2 pi, for t the angle between u and v."""
    product = jnp.sqrt(a) * jnp.sqrt(b)
    square = (product - k) * (product + k)
    # Between equal inputs this is rounding error, up to 14 eps on CPU, and its root would be 1e-3
    # in float32. Angles that small count as 0, so the kernel of an input with itself is exact.
    s = jnp.sqrt(jnp.where(square > 32 * jnp.finfo(k.dtype).eps * product**2, square, 0))
    half = _arctan(s / jnp.where(product > 0, product + jnp.abs(k), 1)) / pi
    return s, jnp.where(k < 0, half, 0.5 - half)


def _arctan(x: Array) -> Array:
    """The arctangent on [0, 1], to rounding.

    XLA's takes thirty times as long on CPU, longer than all the rest of a kernel. This one is x
    times the polynomial in x^2 that interpolates arctan(x) / x at Chebyshev points. Its error
    shrinks by 3 + sqrt 8 a degree, as the singularity next to [0, 1] is at x^2 = -1.
    """
    degree = ceil(-log(jnp.finfo(x.dtype).eps) / log(3 + sqrt(8)))
    fit = np.polynomial.Chebyshev.interpolate(
        lambda u: np.arctan(np.sqrt(u)) / np.sqrt(u), degree, domain=(0, 1)
    )
    coefficients = fit.convert(kind=np.polynomial.Polynomial).coef[::-1].tolist()
    return x * reduce(lambda value, c: value * x**2 + c, coefficients, jnp.zeros_like(x))
