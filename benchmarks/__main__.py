"""Compares ntklib with other libraries: `make bench` prints a table of ratios."""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ntklib import infinite, models
from ntklib._neural_tangents import stax

REPEATS = 5
Work = Callable[[], Any]


def seconds(work: Work) -> float:
    """Time of one call, until its result is there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def compare(ours: Work, theirs: Work) -> tuple[float, float]:
    """Median times of both, measured in turn after a first call that compiles."""
    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
    mine, other = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(other)


def analytic_kernel(n: int) -> tuple[Work, Work]:
    """The NTK matrix of a perceptron with three hidden layers, on images of CIFAR-10's size."""
    x = jax.random.uniform(jax.random.key(0), (n, 32, 32, 3))
    model = models.get("mlp", n_classes=1, depth=3)
    layers = [stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()] * 3
    *_, kernel_fn = stax.serial(stax.Flatten(), *layers, stax.Dense(1, W_std=2**0.5, b_std=0.1))
    peer = jax.jit(lambda x: kernel_fn(x, None, "ntk"))
    return lambda: infinite.kernel(model, x), lambda: peer(x)


def kernel_gradient(n: int) -> tuple[Work, Work]:
    """The gradient of a kernel predictor with respect to 250 images, as an attack needs it."""
    x = jax.random.uniform(jax.random.key(0), (n, 14, 14, 1))
    new = jax.random.uniform(jax.random.key(1), (250, 14, 14, 1))
    weights = jax.random.normal(jax.random.key(2), (n,))
    model = models.get("mlp", n_classes=1, depth=2)
    layers = [stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu()] * 2
    *_, kernel_fn = stax.serial(stax.Flatten(), *layers, stax.Dense(1, W_std=2**0.5, b_std=0.1))
    mine = jax.jit(jax.grad(lambda z: jnp.sum(model.kernel_fn(z, x, "ntk") @ weights)))
    peer = jax.jit(jax.grad(lambda z: jnp.sum(kernel_fn(z, x, "ntk") @ weights)))
    return lambda: mine(new), lambda: peer(new)


WORK = {
    "NTK of a 3-layer MLP, 1,000 x 1,000 CIFAR-size images": analytic_kernel(1000),
    "input gradient of a kernel predictor, 250 on 500 images": kernel_gradient(500),
}

print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, {platform.machine()}; float32")
print(f"{'work':<58}{'ntklib':>10}{'neural-tangents':>17}{'ratio':>8}")
for name, (ours, theirs) in WORK.items():
    mine, other = compare(ours, theirs)
    print(f"{name:<58}{mine:>8.3f} s{other:>15.3f} s{other / mine:>7.1f}x")
