"""Analytic kernels of infinitely wide networks, and regression with them."""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64, Num

from ntklib import _checks
from ntklib._analytic import Twin
from ntklib.models import Model

KernelFn = Callable[..., Any]
"""A function `(x1, x2, get) -> (n1, n2)`, such as the third that `neural_tangents.stax` returns."""
Rows = Num[Array | np.ndarray, "..."] | Sequence[Any]
"""One point a row: an array, or lists of numbers."""


def kernel(
    model: Model | KernelFn,
    x1: Rows,
    x2: Rows | None = None,
    *,
    get: str = "ntk",
    block: int | None = None,
) -> Float[Array, "n1 n2"]:
    """The analytic kernel between two sets of inputs, computed block by block.

    Works on values, not under `jit`; there, call `twin(model)`. Needs memory for the matrix, on the
    host and on the device, for a second copy of the inputs, and for what `kernel_fn` needs for one
    block.

    Args:
        model: see `twin`.
        x1: inputs, one a row, of a floating-point type; half precision becomes float32.
        x2: inputs of the same shape; None for x1 itself, when blocks below the diagonal are
            mirrored, not computed, and the result is exactly symmetric.
        get: "ntk", the tangent kernel, or "nngp", the covariance of the outputs at initialisation.
        block: rows and columns computed at once, at most 512 if None.
    """
    kernel_fn, symmetric = twin(model), x2 is None
    _checks.one_of("get", get, ("ntk", "nngp"))
    size = 512 if block is None else _checks.whole("block", block)
    x1 = _inputs("x1", x1)
    x2 = x1 if x2 is None else _inputs("x2", x2)
    _checks.same_rows("x2", x2, "x1", x1)
    rows = _blocks(x1, size)
    columns = rows if symmetric else _blocks(x2, size)
    gram = np.empty((len(x1), len(x2)), jnp.promote_types(x1.dtype, x2.dtype))

    for i, j in ((i, j) for i in rows for j in columns if not symmetric or i <= j):
        n, m = len(rows[i]), len(columns[j])
        tile = np.asarray(kernel_fn(rows[i], columns[j], get))
        if tile.shape != (n, m):
            raise ValueError(
                f"kernel_fn: returns shape {tile.shape} for {n} and {m} inputs; it is {(n, m)}"
            )
        if symmetric:
            gram[j : j + m, i : i + n] = tile.T
        gram[i : i + n, j : j + m] = (tile + tile.T) / 2 if symmetric and i == j else tile
    return jnp.asarray(gram)


def twin(model: Any) -> KernelFn:
    """The kernel of a model of infinite width, as a function that can be compiled.

    That is `kernel_fn(x1, x2=None, get="ntk" | "nngp")`: the kernel of one output, (n1, n2). It can
    be differentiated in the inputs, and its memory is bounded. A function
    `(x1, x2, get) -> (n1, n2)`, as `neural_tangents.stax` returns them, is returned as it is.
    """
    wanted = "it is a model with an infinite twin, or a function (x1, x2, get) -> (n1, n2)"
    if isinstance(model, Model):
        if model.stack is None:
            raise ValueError(f"kernel_fn: the model has no infinite twin; {wanted}")
        return Twin(model.stack)
    if not callable(model):
        raise TypeError(f"kernel_fn: a {type(model).__name__} is not allowed; {wanted}")
    return model


class Regressor:
    """A network of infinite width trained on (x, y), as a function of new inputs.

    Gradient flow on 1/2 sum_i |f(x_i) - y_i|^2 (a sum over points) from f = 0 gives, with the
    kernel matrix K = kernel(X, X) and A = K + ridge I,

        f_t(x) = kernel(x, X) A^-1 (I - exp(-t A)) y,

    and kernel regression f(x) = kernel(x, X) A^-1 y in the limit (Jacot et al. 2018; Lee et al.
    2019). For gradient descent of step eta on the sum, t = eta steps; on the mean over n points,
    1/(2n) sum_i, t = eta steps / n. A ridge is the penalty ridge/2 |theta - theta_0|^2.

    Calls can be compiled and differentiated in x. They compute in the dtype of x, in float32 at
    least; the factorisation is in float64. The limit takes a Cholesky factor, a finite time the
    eigendecomposition, which serves all times and is kept.
    """

    gram: Float64[np.ndarray, "n n"]  # K, without the ridge
    coefficients: Float64[np.ndarray, "n c"]  # alpha in f_t(x) = kernel(x, X) alpha
    ridge: float
    time: float | None  # None for the limit

    def __init__(
        self,
        kernel_fn: Model | KernelFn,
        x: Rows,
        y: Rows,
        *,
        ridge: float = 0.0,
        time: float | None = None,
    ) -> None:
        """Computes the kernel matrix and its factorisation.

        Args:
            kernel_fn: see `twin`.
            x: training inputs, one a row, of a floating-point type.
            y: targets, (n, outputs), or (n,) for one output; labels are no targets.
            ridge: added to the diagonal of the kernel matrix, at least 0.
            time: training time, at least 0; None or infinity for the limit.

        Raises:
            TypeError: if a type is not allowed.
            ValueError: if an argument is malformed, or the kernel matrix has, up to rounding, a
                negative eigenvalue, or, in the limit, one that is zero.
        """
        self.kernel_fn = twin(kernel_fn)
        self.x = _inputs("x", x)
        self._y = _checks.targets("y", y, len(self.x))
        self.ridge = _checks.number("ridge", ridge, least=0)
        time = _time(time)
        self.gram = np.asarray(kernel(self.kernel_fn, self.x), np.float64)
        if not np.isfinite(self.gram).all():
            raise ValueError("kernel_fn: returns values that are not finite")
        # Rounding the entries moves the eigenvalues by about this much.
        eps = float(jnp.finfo(self.x.dtype).eps)
        self._noise = 2 * np.sqrt(len(self.x)) * eps * np.abs(self.gram).max()
        self._train(time)

    @cached_property
    def _eigh(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n n"]]:
        eigenvalues, eigenvectors = scipy.linalg.eigh(self.gram)
        return eigenvalues[::-1], eigenvectors[:, ::-1]

    @property
    def eigenvalues(self) -> Float64[np.ndarray, " n"]:
        """The eigenvalues of K, descending."""
        return self._eigh[0]

    @property
    def eigenvectors(self) -> Float64[np.ndarray, "n n"]:
        """The eigenvectors of K, in the columns, in the order of the eigenvalues."""
        return self._eigh[1]

    def _train(self, time: float | None) -> None:
        self.coefficients = self._limit() if time is None else self._spectral(time)
        self.time = time

    def _limit(self) -> Float64[np.ndarray, "n c"]:
        gram = self.gram + self.ridge * np.eye(len(self.gram))
        norm = np.abs(gram).sum(0).max()
        try:
            factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True)
        except scipy.linalg.LinAlgError:
            return self._spectral(None)
        # LAPACK's estimate of 1 / |A^-1|_1, up to sqrt(n) below the smallest eigenvalue.
        inverse_condition, _ = scipy.linalg.lapack.dpocon(factor[0], norm, uplo="L")
        if inverse_condition * norm <= self._noise:
            return self._spectral(None)
        return scipy.linalg.cho_solve(factor, self._y)

    def _spectral(self, time: float | None) -> Float64[np.ndarray, "n c"]:
        rates = self.eigenvalues + self.ridge
        if rates[-1] < -self._noise or (time is None and rates[-1] <= self._noise):
            what = "singular" if time is None else "not positive"
            raise ValueError(
                f"gram: is {what}, its smallest eigenvalue with the ridge is {rates[-1]:.2g} and "
                f"rounding is {self._noise:.2g}; remove repeated inputs or set ridge"
            )
        rates = np.maximum(rates, 0)
        with np.errstate(over="ignore"):  # all is learned then
            learned = np.ones_like(rates) if time is None else -np.expm1(-time * rates)
        # As the rate goes to 0, (1 - exp(-t rate)) / rate goes to t.
        weights = np.divide(learned, rates, out=np.full_like(rates, time or 0), where=rates > 0)
        return self.eigenvectors @ (weights[:, None] * (self.eigenvectors.T @ self._y))

    def at(self, time: float | None) -> "Regressor":
        """The same data at another time, None for the limit; the eigendecomposition is shared."""
        time = _time(time)
        if time is not None:
            _ = self._eigh  # here, so that the copies share it
        other = copy.copy(self)
        other._train(time)
        return other

    @property
    def logits_fn(self) -> Partial:
        """This function as a pytree, for arguments of compiled functions.

        A function compiled for one training time, or data set of the same shape, serves others.
        """
        return Partial(_predict, Partial(self.kernel_fn), self.x, self.coefficients)

    def __call__(self, x: Rows) -> Float[Array, "m c"]:
        """f_t at new inputs, of the shape of those in training, one column an output."""
        return self.logits_fn(_inputs("x", x))


def predictor(
    kernel_fn: Model | KernelFn, x: Rows, coefficients: Float[Array | np.ndarray, "n c"]
) -> Partial:
    """The function kernel(., X) alpha of new inputs, whatever made the coefficients.

    A pytree, for arguments of compiled functions: what was compiled for one set of coefficients
    serves others. It computes in the dtype of the new inputs, in float32 at least.

    Args:
        kernel_fn: see `Regressor`.
        x: training inputs, one a row, of a floating-point type.
        coefficients: alpha, one row a training input, one column an output.

    Returns:
        The function, from (m, ...) to (m, outputs).

    Raises:
        TypeError: if a type is not allowed.
        ValueError: if the inputs are malformed, or there is not one row of coefficients for each.
    """
    x = _inputs("x", x)
    if np.ndim(coefficients) != 2 or len(coefficients) != len(x):
        raise ValueError(f"coefficients: shape {np.shape(coefficients)}; it is ({len(x)}, outputs)")
    return Partial(_predict, Partial(twin(kernel_fn)), x, coefficients)


def _predict(
    kernel_fn: KernelFn,
    x_train: Float[Array, "n ..."],
    coefficients: Float[Array | np.ndarray, "n c"],
    x: Num[Array | np.ndarray, "m ..."],
) -> Float[Array, "m c"]:
    _checks.same_rows("x", x, "the training", x_train)
    x = _wide(jnp.asarray(x))
    cross = jnp.asarray(kernel_fn(x, x_train, "ntk"), x.dtype)
    return jnp.matmul(cross, jnp.asarray(coefficients, x.dtype), precision="highest")


def _blocks(x: Float[Array, "n ..."], block: int) -> dict[int, Array]:
    """The fewest blocks of at most `block` rows that cover x, by their first row.

    All have one size, so that one compilation serves all; the last may overlap the one before.
    """
    count = -(-len(x) // block)
    size = -(-len(x) // count)
    starts = [min(i * size, len(x) - size) for i in range(count)]
    return {start: x[start : start + size] for start in starts}


def _inputs(name: str, x: Rows) -> Float[Array, "n ..."]:
    return _wide(jnp.asarray(_checks.points(name, jnp.asarray(x))))


def _wide(x: Num[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Half precision, too coarse to tell eigenvalues from rounding, becomes float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _time(time: Any) -> float | None:
    """A training time at least 0; None for the limit."""
    if time is None or (np.ndim(time) == 0 and time == np.inf):
        return None
    return _checks.number("time", time, least=0)
