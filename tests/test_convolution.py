import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ntklib.convolution import convolve, patches

CASES = list(
    itertools.product(
        [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((1, 1), (2, 2)), ((2, 5), (3, 1)), ((1, 3), (2, 3))],
        [((0, 0), (0, 0)), ((1, 1), (0, 2)), ((0, 1), (2, 1))],
    )
)


def reference(x, kernel, strides, padding):
    numbers = ("NHWC", "HWIO", "NHWC") if x.ndim == 4 else ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


@pytest.mark.parametrize(("geometry", "padding"), CASES)
def test_values_and_gradients_are_those_of_xla(x64, key, geometry, padding):
    window, strides = geometry
    x = jax.random.normal(key, (2, 7, 8, 3))
    kernel = jax.random.normal(key, (*window, 3, 4))
    y, pullback = jax.vjp(lambda x: convolve(x, kernel, strides, padding), x)
    expected, expected_pullback = jax.vjp(lambda x: reference(x, kernel, strides, padding), x)
    d = jax.random.normal(key, y.shape)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(pullback(d)[0], expected_pullback(d)[0], atol=1e-12)


@settings(max_examples=30)
@given(
    size=st.integers(1, 9),
    window=st.integers(1, 4),
    stride=st.integers(1, 5),
    low=st.integers(0, 4),
    high=st.integers(0, 4),
)
def test_in_one_dimension(size, window, stride, low, high):
    if size + low + high < window:
        return
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, size, 3)), jnp.float32)
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(window, 3, 2)), jnp.float32)
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
    np.testing.assert_allclose(product, convolve(x, kernel, strides, padding), atol=1e-12)


def test_it_can_be_mapped_twice(x64, key):
    x = jax.random.normal(key, (2, 6, 6, 3))
    kernel = jax.random.normal(key, (3, 3, 3, 4))
    pads = ((1, 1), (1, 1))

    def single(x):
        y, pullback = jax.vjp(lambda x: convolve(x[None], kernel, (2, 2), pads), x)
        return jax.vmap(pullback)(jnp.stack([y, 2 * y]))[0]

    y, pullback = jax.vjp(lambda x: reference(x, kernel, (2, 2), pads), x)
    expected = pullback(y)[0]
    np.testing.assert_allclose(
        jax.vmap(single)(x), jnp.stack([expected, 2 * expected], 1), atol=1e-12
    )
