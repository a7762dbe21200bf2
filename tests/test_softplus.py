import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntklib.models._softplus import softplus

POINTS = np.concatenate([-np.geomspace(40, 1e-3, 30), [0], np.geomspace(1e-3, 40, 30)])


def derivative(function, order):
    for _ in range(order):
        function = jax.grad(function)
    return jax.vmap(function)


@pytest.mark.parametrize("beta", [0.5, 10.0, 80.0])
def test_derivatives_are_those_of_the_formula(beta, x64):
    e = np.exp(-np.abs(beta * POINTS))
    bell = e / (1 + e) ** 2
    expected = [
        np.logaddexp(beta * POINTS, 0) / beta,
        np.where(POINTS < 0, e, 1) / (1 + e),
        beta * bell,
        beta**2 * bell * np.sign(POINTS) * (e - 1) / (1 + e),
    ]
    for order, values in enumerate(expected):
        found = derivative(lambda z: softplus(beta, z), order)(jnp.asarray(POINTS))
        np.testing.assert_allclose(found, values, rtol=1e-10, atol=1e-14 * beta**order)


def test_far_from_zero_nothing_overflows():
    z = jnp.array([-1e30, -500.0, 500.0, 1e30], jnp.float32)
    for order, ends in enumerate([[0, 0, 500, 1e30], [0, 0, 1, 1], [0] * 4, [0] * 4]):
        found = derivative(lambda z: softplus(20.0, z), order)(z)
        np.testing.assert_array_equal(found, np.array(ends, np.float32))


def test_modes_agree():
    z = jnp.linspace(-2, 2, 9)
    forward = jax.jacfwd(jax.jacrev(lambda z: softplus(3.0, z).sum()))(z)
    reverse = jax.jacrev(jax.jacrev(lambda z: softplus(3.0, z).sum()))(z)
    np.testing.assert_allclose(forward, reverse, rtol=1e-6)
