r"""Eigen-features of kernel regression: which are useful, which withstand an attack.

With the kernel matrix $\Theta(X, X) = \sum_i \lambda_i v_i v_i^\top$ the regressor is a sum,

$$f = \sum_i f^{(i)}, \qquad f^{(i)}(x) = \lambda_i^{-1}\, \Theta(x, X)\, v_i\, (v_i^\top Y),$$

of features (Tsilivis & Kempe 2022). At time t of training each has the factor
$1 - e^{-t \lambda_i}$: give the regressor at that time, `regressor.at(t)`. A ridge is in, too.

Index 0 belongs to the largest eigenvalue. Of a kernel whose entries are all positive that feature
has one sign nearly everywhere: it is about as useful as a constant, and robust only because it
never changes its mind. Leave it out of statements on robustness.

With a column of targets an output (one-hot labels), all columns of one feature are multiples of one
function of x, so by itself it predicts two classes at most.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Float64, Int, PRNGKeyArray

from ntklib import _checks, attacks
from ntklib.infinite import Regressor, Rows, kernel

Members = int | np.integer | Sequence[int] | Int[np.ndarray, "..."]
"""One feature by its index, or a group of them, such as `range(10, 50)`, whose sum is meant."""
Labels = Int[Array | np.ndarray, " m"] | Sequence[int]


def logits_fn(regressor: Regressor, members: Members, *, unit: bool = False) -> Partial:
    """A feature, or the sum of a group of features, as a function of inputs.

    All groups of one regressor are one function with other coefficients: what is compiled for the
    regressor's own `logits_fn`, such as an attack, serves them all.

    With `unit` the function is scaled to a root mean square of 1 over the training inputs and
    outputs. Predictions stay the same, and for one output the signs of gradients do. But the
    cross-entropy of a tiny output is log 2 to all digits of float32, so that an attack cannot
    compare losses, and that of a large one underflows; and for several outputs the scale sets how
    much of its gradient goes to which wrong class.
    """
    indices = _indices(regressor, members)
    weights = _weights(regressor, indices)
    if unit:
        # On the training inputs a feature is a multiple of its eigenvector, which has norm 1.
        size = np.linalg.norm(regressor.eigenvalues[indices, None] * weights)
        size /= np.sqrt(len(regressor.x) * weights.shape[1])
        weights = weights / (size if size > 0 else 1)
    whole = regressor.logits_fn
    coefficients = regressor.eigenvectors[:, indices] @ weights
    return Partial(whole.func, *whole.args[:-1], coefficients)


def usefulness(
    regressor: Regressor, groups: Sequence[Members], x: Rows, y: Labels
) -> Bool[np.ndarray, "g m"]:
    r"""Which points each feature, or group of features, classifies correctly, one row a group.

    Row means over points that are not those of the training estimate the usefulness
    $\rho = \Pr[\mathrm{sign}\,\phi(x) = y]$. A function value of exactly zero is not correct. One
    kernel matrix serves all; `range(n)` stands for all n features.
    """
    x, y = _points(regressor, x, y)
    chosen = [_indices(regressor, members) for members in groups]
    projected = np.asarray(kernel(regressor.kernel_fn, x, regressor.x), np.float64)
    projected = projected @ regressor.eigenvectors
    outcomes = np.empty((len(chosen), len(y)), bool)
    for row, indices in zip(outcomes, chosen, strict=True):
        logits = projected[:, indices] @ _weights(regressor, indices)
        row[:] = attacks.correct(jnp.asarray(logits), y)
    return outcomes


def robustness(
    regressor: Regressor,
    groups: Sequence[Members],
    x: Rows,
    y: Labels,
    key: PRNGKeyArray,
    *,
    attack: attacks.Attack,
    among: Bool[np.ndarray, "..."] | None = None,
    batch_size: int = 128,
) -> Bool[np.ndarray, "g m"]:
    r"""Which points each feature, or group, classifies correctly under an attack on itself.

    Row means estimate the robustness $\gamma = \mathbb E \inf_\delta \mathbf 1\{\mathrm{sign}\,
    \phi(x + \delta) = y\}$, from above, as an attack need not find the worst $\delta$. Each
    function is scaled, see `logits_fn`, and attacked by itself, all with one key; the attack is
    compiled once. For one step of the sign method it is `attacks.partial(attacks.fgsm, epsilon=e)`.

    Only the points `among` are attacked for each group, such as those that withstand another
    attack, all by default; the others count as broken, and so does a mistake on the clean image. Of
    images that the function classifies correctly, about half of them for most features,
    `batch_size` are attacked at once.
    """
    x, y = _points(regressor, x, y)
    outcomes = usefulness(regressor, groups, x, y)
    if among is not None:
        if among.shape != outcomes.shape:
            raise ValueError(
                f"among: shape {among.shape} is not allowed; it is {outcomes.shape}, a row a group"
            )
        outcomes &= among
    for row, members in zip(outcomes, groups, strict=True):
        function = logits_fn(regressor, members, unit=True)
        row[:] = attacks.withstand(
            function, x, y, key, among=row, attack=attack, batch_size=batch_size
        )
    return outcomes


def fgsm(
    regressor: Regressor,
    groups: Sequence[Members],
    x: Rows,
    y: Labels,
    *,
    epsilon: float,
    clip: attacks.Clip | None = (0.0, 1.0),
) -> Float[Array | np.ndarray, "g m ..."]:
    r"""FGSM images of each feature, or group, of a regressor with one output and labels 0 or 1.

    They are $\mathrm{clip}(x - \epsilon\, s\, \mathrm{sign} \nabla \phi(x))$ with s the sign of the
    label, one set of them a group. With $a$ the coefficients of a group, its function has the
    gradient $\sum_j a_j \nabla_x \Theta(x, x_j)$. The gradients of the kernel are the same for all
    groups, and are computed once: for a convolutional network that takes as long as about two calls
    of `attacks.fgsm`, which makes the same images. Source of the attack: Goodfellow, Shlens &
    Szegedy (2015).
    """
    given = attacks.Ball.around(x, epsilon, clip=clip)
    ball, (x, y) = given.on_device(), _points(regressor, given.x, y)
    if regressor.coefficients.shape[1] != 1:
        raise ValueError(
            f"regressor: has {regressor.coefficients.shape[1]} outputs; it is one with a single "
            "output, as else the gradient of the loss is no multiple of that of the function"
        )
    chosen = [_indices(regressor, members) for members in groups]
    rows = [regressor.eigenvectors[:, i] @ _weights(regressor, i)[:, 0] for i in chosen]
    coefficients = jnp.array(rows, x.dtype).reshape(len(groups), len(regressor.x))
    slopes = _slopes(Partial(regressor.kernel_fn), regressor.x, coefficients, x)
    uphill = -jnp.where(y == 1, 1, -1).reshape(-1, *(1,) * (x.ndim - 1)) * slopes
    return given.exactly(ball.ascend(x, uphill, ball.epsilon))


def overlap(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> Float64[np.ndarray, " k"]:
    r"""Overlap of the top eigenspaces of two kernels on the same points, from 0 to 1, for each k.

    $\|V_k^\top W_k\|_F^2 / k$, with the first k eigenvectors in the columns of $V_k$ and $W_k$: the
    mean squared cosine of the principal angles. Two random subspaces have $k/n$ on average. Both
    have as many columns, orthonormal, that of the largest eigenvalue first: all n or the top ones.
    """
    if a.shape != b.shape:
        raise ValueError(f"b: shape {b.shape} is not allowed; it is that of a, {a.shape}")
    a, b = _orthonormal("a", a), _orthonormal("b", b)
    squares = (a.T @ b) ** 2
    return np.diagonal(squares.cumsum(0).cumsum(1)) / np.arange(1, len(squares) + 1)


def label_energy(eigenvectors: Float[np.ndarray, "n k"], y: Rows) -> Float64[np.ndarray, " k"]:
    r"""Share of the targets' energy along each eigenvector, $\|v_i^\top Y\|^2 / \|Y\|_F^2$.

    Its cumulative sum is the share within the top eigenspaces; over all n eigenvectors, which are
    orthonormal columns, it ends at 1.
    """
    y = _checks.targets("y", y, len(eigenvectors))
    if not y.any():
        raise ValueError("y: is zero; it has no energy to share")
    eigenvectors = _orthonormal("eigenvectors", eigenvectors)
    return ((eigenvectors.T @ y) ** 2).sum(1) / (y**2).sum()


def gradient_images(
    function: Partial, x: Float[Array | np.ndarray, "m ..."], *, output: int = 0
) -> Float[Array, "m ..."]:
    r"""Gradient of an output in the input, $\nabla_x f_c(x)$: what the function looks for.

    The function may be `logits_fn` of a feature, or that of the whole regressor. For a single
    feature all outputs c give the same picture, up to a factor; see `min_max` for pictures.
    """
    outputs = jax.eval_shape(function, x).shape[1]
    output = _checks.whole("output", output, least=0, most=outputs - 1)
    return _gradient(function, jnp.asarray(x), output)


def min_max(images: Float[Array | np.ndarray, "m ..."]) -> Float64[np.ndarray, "m ..."]:
    """Each image scaled to 0 to 1 over all its pixels and channels, or zero if constant."""
    images = _finite(images)
    axes = tuple(range(1, images.ndim))
    shifted = images - images.min(axes, keepdims=True)
    span = shifted.max(axes, keepdims=True)
    return shifted / np.where(span > 0, span, 1)


def mean_frequency(images: Float[Array | np.ndarray, "..."]) -> Float64[np.ndarray, " m"]:
    r"""Spatial frequency of images (m, h, w, c), averaged with their power as the weight.

    In cycles per pixel, from 0 for a constant image to $\sqrt{1/2}$; about 0.38 for white noise.
    The same for all images that differ by a factor; not defined for one that is zero.
    """
    images = _finite(images)
    if images.ndim != 4:
        raise ValueError(f"images: shape {images.shape} is not allowed; it is (m, h, w, c)")
    power = (np.abs(np.fft.fft2(images, axes=(1, 2), norm="ortho")) ** 2).mean(-1)
    rows, columns = (np.fft.fftfreq(side) for side in images.shape[1:3])
    radius = np.hypot(rows[:, None], columns)
    total = power.sum((1, 2))
    if not (total > 0).all():
        raise ValueError("images: one is zero; it has no frequency")
    return (power * radius).sum((1, 2)) / total


@jax.jit
def _slopes(
    kernel_fn: Partial,
    x_train: Float[Array, "n ..."],
    coefficients: Float[Array, "g n"],
    x: Float[Array, "m ..."],
) -> Float[Array, "g m ..."]:
    """Gradients of sums of kernel_fn(x, x_train), one with each row of coefficients, in x."""

    def of_point(z: Float[Array, "..."]) -> Float[Array, "g ..."]:
        def of_pair(p: Float[Array, "..."]) -> Float[Array, "..."]:
            return jax.grad(lambda q: kernel_fn(q[None], p[None], "ntk")[0, 0])(z)

        gradients = jax.lax.map(of_pair, x_train, batch_size=256)  # which stay in the cache
        return jnp.tensordot(coefficients, gradients, 1, precision="highest")

    return jnp.moveaxis(jax.lax.map(of_point, x), 0, 1)


@jax.jit
def _gradient(
    function: Partial, x: Float[Array, "m ..."], output: int | Int[Array, ""]
) -> Float[Array, "m ..."]:
    return jax.grad(lambda z: jnp.sum(function(z)[:, output]))(x)


def _finite(images: Float[Array | np.ndarray, "m ..."]) -> Float64[np.ndarray, "m ..."]:
    images = np.asarray(images, np.float64)
    if 0 in images.shape:
        raise ValueError(f"images: shape {images.shape} is not allowed; no axis is empty")
    if not np.isfinite(images).all():
        raise ValueError("images: has values that are not finite")
    return images


def _indices(regressor: Regressor, members: Members) -> Int[np.ndarray, " k"]:
    indices, last = np.atleast_1d(np.asarray(members)), len(regressor.x) - 1
    if indices.size == 0 or indices.ndim > 1:
        raise ValueError(f"members: {members!r} is not allowed; it is an index, or a list of some")
    if not np.issubdtype(indices.dtype, np.integer):
        raise TypeError(f"members: {members!r} is not allowed; indices are whole numbers")
    if indices.min() < 0 or indices.max() > last:
        raise ValueError(f"members: {members!r} is out of range; indices are 0 to {last}")
    if len(np.unique(indices)) < len(indices):
        raise ValueError(f"members: {members!r} has an index twice; each counts once")
    return indices


def _weights(regressor: Regressor, indices: Int[np.ndarray, " k"]) -> Float64[np.ndarray, "k c"]:
    """Coefficients of the regressor along eigenvectors, with time and ridge in them."""
    return regressor.eigenvectors[:, indices].T @ regressor.coefficients


def _points(
    regressor: Regressor, x: Rows, y: Labels
) -> tuple[Float[Array, "m ..."], Int[Array, " m"]]:
    """Points like those that the regressor was trained on, and their labels."""
    points = _checks.points("x", x)
    _checks.same_rows("x", points, "the training", regressor.x)
    classes = max(2, regressor.coefficients.shape[1])
    return jnp.asarray(points), jnp.asarray(_checks.labels("y", y, len(points), classes))


def _orthonormal(name: str, vectors: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "n k"]:
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(f"{name}: shape {vectors.shape} is not allowed; it is (n, k), none empty")
    vectors = np.asarray(vectors, np.float64)
    gap = vectors.T @ vectors - np.eye(vectors.shape[1])
    if not np.abs(gap).max() < 1e-3:
        raise ValueError(f"{name}: columns are not orthonormal; they are eigenvectors")
    return vectors
