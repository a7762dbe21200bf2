"""Analytic kernels of infinitely wide networks, and regression with them."""

import copy
from collections.abc import Callable
from functools import cached_property

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.tree_util import Partial
from jaxtyping import Array, Float, Float64, Num
from tqdm import tqdm

from ntklib._analytic import Twin
from ntklib.models import Model

KernelFn = Callable[..., Array]


def kernel(
    model: Model | KernelFn,
    x1: Num[Array | np.ndarray, "n1 ..."],
    x2: Num[Array | np.ndarray, "n2 ..."] | None = None,
    *,
    get: str = "ntk",
    block: int | None = None,
    progress: bool = False,
) -> Float[Array, "n1 n2"]:
    """The analytic kernel between two sets of inputs, computed block by block.

    Works on values, not under `jit`; there, call `twin(model)`. Needs memory for the
    matrix, on the host and on the device, for a second copy of the inputs, and for what
    `kernel_fn` needs for one block.

    Args:
        model: A model with an infinite twin, or a function `(x1, x2, get) -> (n1, n2)`.
        x1: Inputs, one a row, of a floating-point type.
        x2: Inputs of the same shape; None for x1 itself, when blocks below the diagonal are
            mirrored, not computed, and the result is exactly symmetric.
        get: "ntk", the tangent kernel, or "nngp", the covariance of the outputs at
            initialisation.
        block: Rows and columns computed at once, at most 512 if None.
        progress: Whether to show a progress bar over the blocks. For kernels over pairs of
            pixels, where one block of 512 takes hours, set a smaller `block` with it.

    Returns:
        The kernel matrix.

    Raises:
        TypeError: If the inputs are not of a floating-point type.
        ValueError: If the model has no twin, inputs are empty, not finite or differ in shape,
            `get` is unknown, `block` is below 1, or the function returns another shape than
            (n1, n2).
    """
    kernel_fn = twin(model)
    if block is not None and block < 1:
        raise ValueError(f"block is {block}; it must be at least 1")
    x1 = _points("x1", x1)
    symmetric = x2 is None
    x2 = x1 if x2 is None else _points("x2", x2)
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(f"rows of x1 have shape {x1.shape[1:]}, rows of x2 {x2.shape[1:]}")
    rows = _blocks(x1, block or 512)
    columns = rows if symmetric else _blocks(x2, block or 512)
    pairs = [(i, j) for i in rows for j in columns if not symmetric or i <= j]
    gram = np.empty((len(x1), len(x2)), jnp.promote_types(x1.dtype, x2.dtype))

    for i, j in tqdm(pairs, desc="kernel", unit="block", disable=not progress):
        n, m = len(rows[i]), len(columns[j])
        tile = np.asarray(kernel_fn(rows[i], columns[j], get))
        if tile.shape != (n, m):
            raise ValueError(
                f"the kernel function returned shape {tile.shape} for {n} and {m} inputs; "
                f"expected {(n, m)}"
            )
        if symmetric:
            gram[j : j + m, i : i + n] = tile.T
        gram[i : i + n, j : j + m] = (tile + tile.T) / 2 if symmetric and i == j else tile
    return jnp.asarray(gram)


def twin(model: Model | KernelFn) -> KernelFn:
    """The kernel of a model of infinite width, as a function that can be compiled.

    Args:
        model: a model with an infinite twin. A function `(x1, x2, get) -> (n1, n2)` is returned
            as it is.

    Returns:
        `kernel_fn(x1, x2=None, get="ntk" | "nngp")`: the kernel of one output, (n1, n2). It can be
        differentiated in the inputs, and its memory is bounded.

    Raises:
        ValueError: if the model has no infinite twin.
    """
    if not isinstance(model, Model):
        return model
    if model.stack is None:
        raise ValueError("the model has no infinite twin")
    return Twin(model.stack)


class Regressor:
    """A network of infinite width trained on (x, y), as a function of new inputs.

    Gradient flow on 1/2 sum_i |f(x_i) - y_i|^2 (a sum over points) from f = 0 gives, with the
    kernel matrix K = kernel(X, X) and A = K + ridge I,

        f_t(x) = kernel(x, X) A^-1 (I - exp(-t A)) y,

    and kernel regression f(x) = kernel(x, X) A^-1 y in the limit (Jacot et al. 2018; Lee et al.
    2019). For gradient descent of step eta on the sum, t = eta steps; on the mean over n points,
    1/(2n) sum_i, t = eta steps / n. A ridge is the penalty ridge/2 |theta - theta_0|^2.

    Calls can be compiled and differentiated in x. They compute in the dtype of x; the
    factorisation is in float64.

    Attributes:
        coefficients: alpha in f_t(x) = kernel(x, X) alpha, one column an output.
        time: The training time, None for the limit.
    """

    coefficients: Float64[np.ndarray, "n c"]
    time: float | None

    def __init__(
        self,
        kernel_fn: Model | KernelFn,
        x: Num[Array | np.ndarray, "n ..."],
        y: Num[Array | np.ndarray, "..."],
        *,
        ridge: float = 0.0,
        time: float | None = None,
        solver: str = "eigh",
    ) -> None:
        """Computes the kernel matrix and its factorisation.

        Args:
            kernel_fn: A model with an infinite twin, or a function `(x1, x2, get) -> (n1, n2)`.
            x: Training inputs, one a row.
            y: Targets, (n, outputs).
            ridge: Added to the diagonal of the kernel matrix, at least 0.
            time: Training time, at least 0; None for the limit.
            solver: What finds the limit: "eigh", the eigendecomposition, which serves all times
                and is kept, or "cholesky", several times as fast for thousands of points. With
                it the eigendecomposition is computed when it is first needed.

        Raises:
            TypeError: If x is not of a floating-point type.
            ValueError: If an argument is malformed, or the kernel matrix has, up to rounding, a
                negative eigenvalue, or, in the limit, one that is zero.
        """
        self.kernel_fn = twin(kernel_fn)
        self.x = _points("x", x)
        y = np.asarray(y, np.float64)
        if y.ndim != 2 or len(y) != len(self.x):
            raise ValueError(f"y has shape {y.shape}; expected ({len(self.x)}, outputs), as x")
        if not np.isfinite(y).all():
            raise ValueError("y has values that are not finite")
        if not 0 <= ridge < np.inf:
            raise ValueError(f"ridge is {ridge}; it must be finite and at least 0")
        _check(time)
        if solver not in ("eigh", "cholesky"):
            raise ValueError(f"solver is {solver!r}; allowed: 'eigh', 'cholesky'")
        self.ridge, self.solver, self._y = ridge, solver, y
        self._gram = np.asarray(kernel(self.kernel_fn, self.x), np.float64)
        # Rounding the entries moves the eigenvalues by about this much.
        eps = np.finfo(self.x.dtype).eps
        self._noise = 2 * np.sqrt(len(y)) * eps * np.abs(self._gram).max()
        self._train(time)

    @cached_property
    def _eigh(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n n"]]:
        eigenvalues, eigenvectors = scipy.linalg.eigh(self._gram)
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
        limit = time is None and self.solver == "cholesky"
        self.coefficients = self._cholesky() if limit else self._spectral(time)
        self.time = time

    def _spectral(self, time: float | None) -> Float64[np.ndarray, "n c"]:
        rates = self.eigenvalues + self.ridge
        if rates[-1] < -self._noise or (time is None and rates[-1] <= self._noise):
            raise self._refusal("singular" if time is None else "not positive", rates[-1])
        rates = np.maximum(rates, 0)
        learned = np.ones_like(rates) if time is None else -np.expm1(-time * rates)
        # As the rate goes to 0, (1 - exp(-t rate)) / rate goes to t.
        weights = np.divide(learned, rates, out=np.full_like(rates, time or 0), where=rates > 0)
        return self.eigenvectors @ (weights[:, None] * (self.eigenvectors.T @ self._y))

    def _cholesky(self) -> Float64[np.ndarray, "n c"]:
        gram = self._gram + self.ridge * np.eye(len(self._y))
        norm = np.abs(gram).sum(0).max()
        try:
            factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True)
        except scipy.linalg.LinAlgError:
            raise self._refusal("singular", 0.0) from None
        # LAPACK's estimate of 1 / |A^-1|_1, up to sqrt(n) below the smallest eigenvalue.
        inverse_condition, _ = scipy.linalg.lapack.dpocon(factor[0], norm, uplo="L")
        if inverse_condition * norm <= self._noise:
            raise self._refusal("singular", inverse_condition * norm)
        return scipy.linalg.cho_solve(factor, self._y)

    def _refusal(self, what: str, smallest: float) -> ValueError:
        return ValueError(
            f"the kernel matrix is {what}: its smallest eigenvalue with the ridge is "
            f"{smallest:.2g}, rounding is {self._noise:.2g}; remove repeated inputs or set ridge"
        )

    def at(self, time: float | None) -> "Regressor":
        """The same data at another training time; the eigendecomposition is shared.

        Args:
            time: Training time, at least 0; None for the limit.

        Returns:
            Another regressor.

        Raises:
            ValueError: If the time is negative, or None with a singular kernel matrix.
        """
        _check(time)
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

    def __call__(self, x: Num[Array | np.ndarray, "m ..."]) -> Float[Array, "m c"]:
        """f_t at new inputs.

        Args:
            x: Inputs, of the shape of those in training.

        Returns:
            One row an input, one column an output.

        Raises:
            ValueError: If the inputs have another shape than those in training.
        """
        return self.logits_fn(x)


def _predict(
    kernel_fn: KernelFn,
    x_train: Float[Array, "n ..."],
    coefficients: Float[Array | np.ndarray, "n c"],
    x: Float[Array | np.ndarray, "m ..."],
) -> Float[Array, "m c"]:
    if x.shape[1:] != x_train.shape[1:]:
        raise ValueError(f"rows of x have shape {x.shape[1:]}, in training {x_train.shape[1:]}")
    coefficients = jnp.asarray(coefficients, x.dtype)
    return jnp.matmul(kernel_fn(x, x_train, "ntk"), coefficients, precision="highest")


def _blocks(x: Float[Array, "n ..."], block: int) -> dict[int, Array]:
    """The fewest blocks of at most `block` rows that cover x, by their first row.

    All have one size, so that one compilation serves all; the last may overlap the one before.
    """
    count = -(-len(x) // block)
    size = -(-len(x) // count)
    starts = [min(i * size, len(x) - size) for i in range(count)]
    return {start: x[start : start + size] for start in starts}


def _check(time: float | None) -> None:
    if time is not None and not time >= 0:
        raise ValueError(f"time is {time}; it must be at least 0, or None for the limit")


def _points(name: str, x: Num[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {x.dtype}; expected a floating-point type")
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"{name} has shape {x.shape}; expected (points, features...), none empty")
    x = jnp.asarray(x)
    if not jnp.isfinite(x).all():
        raise ValueError(f"{name} has values that are not finite")
    return x
