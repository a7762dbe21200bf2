import itertools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ntklib.models import _convolution
from ntklib.models._convolution import conv_general_dilated, convolve, patches

CASES = list(
    itertools.product(
        [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((1, 1), (2, 2)), ((2, 5), (3, 1)), ((1, 3), (2, 3))],
        [((0, 0), (0, 0)), ((1, 1), (0, 2)), ((0, 1), (2, 1))],
    )
)


def reference(x, kernel, strides, padding):
    numbers = ("NHWC", "HWIO", "NHWC") if x.ndim == 4 else ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def wave(convolution):
    """A function of images and kernel whose derivatives of all orders differ from zero."""
    return lambda x, kernel: jnp.sum(jnp.sin(convolution(x, kernel)))


def gradients(function, x, kernel):
    return jax.grad(function, (0, 1))(x, kernel)


def forward_over_reverse(function, x, kernel):
    return jax.jvp(jax.grad(function, (0, 1)), (x, kernel), (2 * x, kernel + 1))[1]


def reverse_over_forward(function, x, kernel):
    def slope(x, kernel):
        return jax.jvp(function, (x, kernel), (2 * x, kernel + 1))[1]

    return jax.grad(slope, (0, 1))(x, kernel)


def reverse_over_reverse(function, x, kernel):
    def size(x, kernel):
        first, second = jax.grad(function, (0, 1))(x, kernel)
        return jnp.sum(first**2) + jnp.sum(second**3)

    return jax.grad(size, (0, 1))(x, kernel)


def in_a_loop(function, x, kernel):
    def step(i, carry):
        x, kernel = carry
        dx, dk = jax.grad(function, (0, 1))(x, kernel)
        return x - 0.1 * dx, kernel - 0.1 * dk

    return jax.lax.fori_loop(0, 2, step, (x, kernel))


def mapped_over_images(function, x, kernel):
    return jax.vmap(jax.grad(function, (0, 1)), (0, None))(x[:, None], kernel)


def mapped_over_kernels(function, x, kernel):
    kernels = jnp.stack([kernel, 2 * kernel])
    return jax.vmap(jax.grad(function, (0, 1)), (None, 0))(x, kernels)


DERIVATIVES = [
    gradients,
    forward_over_reverse,
    reverse_over_forward,
    reverse_over_reverse,
    in_a_loop,
    mapped_over_images,
    mapped_over_kernels,
]


@pytest.mark.parametrize("channels", [(3, 4), (5, 4), (24, 25)])  # three ways to compute
@pytest.mark.parametrize(("geometry", "padding"), CASES)
def test_values_and_gradients_are_those_of_xla(x64, key, geometry, padding, channels):
    window, strides = geometry
    x = jax.random.normal(key, (2, 7, 8, channels[0]))
    kernel = jax.random.normal(key, (*window, *channels))
    ours, xla = (
        jax.jit(partial(gradients, wave(lambda x, k, f=f: f(x, k, strides, padding))))
        for f in (convolve, reference)
    )
    for mine, expected in zip(ours(x, kernel), xla(x, kernel), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-11)


@pytest.mark.parametrize("pixels", [2048, 70])  # one block; blocks of two images, or of one
@pytest.mark.parametrize(
    ("channels", "strides"), [((2, 4), (2, 1)), ((5, 4), (2, 1)), ((24, 25), (1, 1))]
)
@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_all_derivatives_are_those_of_xla(
    x64, key, monkeypatch, derivative, channels, strides, pixels
):
    monkeypatch.setattr(_convolution, "_PIXELS", pixels)
    x = jax.random.normal(key, (3, 6, 5, channels[0]))
    kernel = jax.random.normal(key, (3, 3, *channels)) / channels[0]
    geometry = strides, ((1, 1), (0, 2))
    ours, xla = (
        jax.jit(partial(derivative, wave(lambda x, k, f=f: f(x, k, *geometry))))(x, kernel)
        for f in (convolve, reference)
    )
    for mine, expected in zip(ours, xla, strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1, ((0, 1), (2, 0))])
def test_as_an_option_of_flax(x64, key, padding):
    x = jax.random.normal(key, (2, 7, 8, 3))
    plain, ours = (
        nn.Conv(4, (3, 2), strides=(2, 1), padding=padding, conv_general_dilated=option)
        for option in (None, conv_general_dilated)
    )
    variables = plain.init(key, x)
    np.testing.assert_allclose(ours.apply(variables, x), plain.apply(variables, x), atol=1e-6)


@settings(max_examples=30)
@given(
    size=st.integers(1, 9),
    window=st.integers(1, 4),
    stride=st.integers(1, 5),
    low=st.integers(0, 4),
    high=st.integers(0, 4),
    channels=st.sampled_from([3, 5]),
)
def test_in_one_dimension(size, window, stride, low, high, channels):
    if size + low + high < window:
        return
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, size, channels)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(window, channels, 2)), jnp.float32)
    y, pullback = jax.vjp(lambda x: convolve(x, kernel, (stride,), ((low, high),)), x)
    expected, expected_pullback = jax.vjp(
        lambda x: reference(x, kernel, (stride,), [(low, high)]), x
    )
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_allclose(pullback(y)[0], expected_pullback(y)[0], atol=1e-4)


@pytest.mark.parametrize(("geometry", "padding"), CASES)
def test_patches_times_kernel_is_the_convolution(x64, key, geometry, padding):
    window, strides = geometry
    x = jax.random.normal(key, (2, 6, 7, 3))
    kernel = jax.random.normal(key, (*window, 3, 4))
    product = patches(x, window, strides, padding) @ kernel.reshape(-1, 4)
    np.testing.assert_allclose(product, reference(x, kernel, strides, padding), atol=1e-12)
