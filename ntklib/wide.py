r"""Adversarial training of wide networks: its two kernels, its flow, and the flow's closed form.

The theory of Fu & Wang (2024). An attack is a gradient flow of length $S$ in the input, without a
ball, $\partial_s x_{i,s} = \eta_i\, \nabla_x L(f(x_{i,s}), y_i)$, with the loss
$L = \frac12 \|f - y\|^2$ and a rate $\eta_i$ for each training input; training is gradient flow in
the parameters on what the attack has made. In a wide network two kernels stand still: the tangent
kernel $\Theta(x, x') = \partial_\theta f(x)\, \partial_\theta f(x')^\top$, and the adversarial
regularisation kernel (ARK) $\Theta_x(x) = \partial_x f(x)\, \partial_x f(x)^\top$, a multiple of
the identity. The attack then multiplies the residual by $e^{\Theta_x(x_i)\, \eta_i S}$, as if the
input were trained on for so much longer: with $r = y - f$ on the training inputs and the times
$\Xi(t) = \int_0^t e^{\Theta_x \eta(\tau) S}\, d\tau$, training is
$\dot r = -\Theta\, \dot\Xi(t)\, r$.

What is solved here is in float64, by NumPy and SciPy.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Float64, PRNGKeyArray
from scipy.integrate import solve_ivp

from ntklib import _checks
from ntklib.attacks import Labels, LogitsFn, Loss, input_gradient

# Shapes that do not fit each other are refused in one line.
Gram = Float[Array | np.ndarray, "rows columns"]
Columns = Float[Array | np.ndarray, "targets outputs"]
PerInput = Float[Array | np.ndarray, " inputs"] | Sequence[float]


def attack_flow(
    logits_fn: LogitsFn,
    x: Float[Array | np.ndarray, "n *shape"],
    y: Labels,
    key: PRNGKeyArray | None = None,
    *,
    rate: float,
    time: float,
    steps: int = 20,
    loss: Loss = "mse",
) -> Float[Array, "n *shape"]:
    r"""The attack of the theory: Euler steps of $\partial_s x = \eta\, \nabla_x L$ up to $s = S$.

    An attack as `ntklib.attacks` has them, for any shape of inputs, with no ball and no box.

    Args:
        logits_fn: the function attacked.
        x: inputs.
        y: labels.
        key: not used.
        rate: $\eta$; 0 leaves the inputs as they are.
        time: $S$.
        steps: of Euler's method.
        loss: see `ntklib.attacks.loss_per_point`.
    """
    size = rate * time / _checks.whole("steps", steps)

    def step(_: Array, z: Array) -> Array:
        return z + size * input_gradient(logits_fn, z, y, loss)

    return jax.lax.fori_loop(0, steps, step, jnp.asarray(x))


def ark(
    logits_fn: LogitsFn, x: Float[Array | np.ndarray, "n *shape"]
) -> Float[Array, "n outputs outputs"]:
    r"""The adversarial regularisation kernel of each input, $\partial_x f\,\partial_x f^\top$.

    In a network of infinite width it is a multiple of the identity (Fu & Wang 2024, Theorem 1).
    """

    def one(point: Array) -> Array:
        jacobian = jax.jacrev(lambda z: logits_fn(z[None])[0])(point)
        rows = jacobian.reshape(len(jacobian), -1)
        return jnp.matmul(rows, rows.T, precision="highest")

    return jax.lax.map(one, jnp.asarray(x), batch_size=32)


def speeds(ark: PerInput, rate: PerInput | float, time: float) -> Float64[np.ndarray, " n"]:
    r"""How many times faster the attack makes training on each input, $e^{\Theta_x \eta S}$.

    Args:
        ark: $\Theta_x(x_i)$ of each input, a multiple of the identity told by its factor.
        rate: $\eta_i$ of each input, or one for all.
        time: $S$.
    """
    return np.exp(np.asarray(ark, np.float64) * np.asarray(rate, np.float64) * time)


def coefficients(
    kernel: Gram, times: PerInput, targets: Columns
) -> Float64[np.ndarray, "targets outputs"]:
    r"""Of a kernel predictor trained on each input for a time of its own.

    That is $P = D\, \varphi_1(-\Theta D)\, Y$ with $D = \mathrm{diag}(t_i)$ and
    $\varphi_1(z) = (e^z - 1)/z$, so that
    $\Theta(x, X) P = \Theta(x, X)\, \Theta^{-1} (I - e^{-\Theta D})\, Y$; no inverse is taken. With
    $D = \Xi(t)$ it is the closed form of adversarial training (Fu & Wang 2024, Theorem 3), if the
    attack's rates do not change in time: else the matrices $\Theta \dot\Xi(t)$ of different times
    do not commute, and `integrate` is to be used. With equal times it is training without attacks,
    up to that time.

    Args:
        kernel: $\Theta(X, X)$, positive semi-definite.
        times: $t_i$, at least 0.
        targets: $Y$, or what is left of it to learn, $y - f_0(X)$.

    Raises:
        ValueError: if shapes do not fit, a time is negative or not finite, or the kernel has a
            negative eigenvalue that rounding does not explain.
    """
    kernel, targets = _problem(kernel, targets)
    times = np.asarray(times, np.float64)
    if times.shape != (len(kernel),) or not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError(
            f"times: shape {times.shape}, or a value below 0 or not finite, is not allowed; there "
            f"is one of at least 0 for each of {len(kernel)} inputs"
        )
    root = np.sqrt(times)[:, None]
    rates, vectors = scipy.linalg.eigh(root * kernel * root.T)
    noise = len(kernel) * np.finfo(np.float64).eps * np.abs(rates).max(initial=0)
    if (rates < -max(noise, 1e-6 * np.abs(rates).max(initial=0))).any():
        raise ValueError(f"kernel: is not positive, an eigenvalue is {rates[0]:.2g}")
    rates = np.maximum(rates, 0)
    learned = np.divide(-np.expm1(-rates), rates, out=np.ones_like(rates), where=rates > 0)
    return root * (vectors @ (learned[:, None] * (vectors.T @ (root * targets))))


def integrate(
    kernel: Gram,
    targets: Columns,
    speed: Callable[[float], PerInput],
    times: Sequence[float],
    *,
    rtol: float = 1e-11,
) -> Float64[np.ndarray, "t targets outputs"]:
    r"""The coefficients of `coefficients` for rates that change in time, by integration.

    Solves $\dot P = \dot\Xi(t)\,(Y - \Theta P)$ from $P(0) = 0$ by an explicit Runge-Kutta method
    of order 8 (Dormand & Prince). The number of its steps grows with the largest eigenvalue of
    $\Theta\, \dot\Xi$ times the time.

    Args:
        kernel: $\Theta(X, X)$.
        targets: $Y$.
        speed: the diagonal of $\dot\Xi(t)$, see `speeds`, as a function of $t$.
        times: at which the coefficients are returned, ascending, at least 0.
        rtol: relative error that each step may have.

    Raises:
        ValueError: if shapes do not fit, or the times do not ascend.
        RuntimeError: if the integration fails.
    """
    kernel, targets = _problem(kernel, targets)
    ends = np.asarray(times, np.float64)
    if ends.ndim != 1 or len(ends) == 0 or ends[0] < 0 or (np.diff(ends) <= 0).any():
        raise ValueError("times: are numbers of at least 0 that ascend")

    def change(t: float, flat: Float64[np.ndarray, " nc"]) -> Float64[np.ndarray, " nc"]:
        residual = targets - kernel @ flat.reshape(targets.shape)
        return (np.asarray(speed(t), np.float64)[:, None] * residual).ravel()

    scale = np.abs(targets).max(initial=0) / max(np.abs(kernel).max(), np.finfo(float).tiny)
    solved = solve_ivp(
        change,
        (0.0, ends[-1]),
        np.zeros(targets.size),
        method="DOP853",
        t_eval=ends,
        rtol=rtol,
        atol=rtol * scale,
    )
    if not solved.success:
        raise RuntimeError(f"integrate: {solved.message}")
    return solved.y.T.reshape(len(ends), *targets.shape)


def _problem(
    kernel: Gram, targets: Columns
) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n c"]]:
    kernel, targets = np.asarray(kernel, np.float64), np.asarray(targets, np.float64)
    n = len(kernel)
    if kernel.shape != (n, n) or targets.ndim != 2 or len(targets) != n or n == 0:
        raise ValueError(
            f"kernel, targets: shapes {kernel.shape} and {targets.shape} do not fit; they are "
            "(n, n) and (n, outputs)"
        )
    if not (np.isfinite(kernel).all() and np.isfinite(targets).all()):
        raise ValueError("kernel, targets: have values that are not finite")
    return kernel, targets
