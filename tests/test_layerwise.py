import flax.linen as nn
import jax
import jax.numpy as jnp
import nets
import numpy as np
import pytest
from jax.tree_util import Partial

from ntklib import models
from ntklib._layerwise import Product, gradients

# Products (Dense, Conv) and matrices (BatchNorm, and all else in one) that each net should give.
KINDS = {
    nets.Convolutions: (5, 0),
    nets.Odd: (2, 1),
    nets.Normalised: (3, 3),
    nets.Shared: (2, 0),
    nets.Tied: (1, 1),
    nets.Sequence: (4, 0),
    nets.Scanned: (2, 1),
    nets.Recurrent: (1, 1),
    nets.Broadcast: (1, 1),
    **dict.fromkeys(nets.INSIDE, (1, 1)),
}


def compiled(apply, *arguments):
    return jax.jit(gradients)(Partial(apply), *arguments)


def inputs(key):
    return jax.random.normal(key, (3, 6, 6, 2))


@pytest.mark.parametrize("net", [*nets.ALL, *nets.INSIDE])
def test_gradients_are_those_of_the_parameters(x64, key, net):
    model, x = models.from_flax(net()), inputs(key)
    variables = nets.random_variables(model, key, x)
    parts = compiled(model.apply, variables, x[0], jnp.eye(3))
    kinds = [isinstance(part, Product) for part in parts]
    assert (sum(kinds), len(kinds) - sum(kinds)) == KINDS[net]
    matrices = [p.matrix() if isinstance(p, Product) else p for p in parts]
    # Up to their order, all numbers are the same: so are sums of squares of single parameters.
    mine = jnp.concatenate(matrices, axis=1)
    expected = nets.jacobian(model, variables, x[:1])[0]
    assert mine.shape == expected.shape
    order, expected_order = (np.lexsort(np.round(np.asarray(a), 9)) for a in (mine, expected))
    np.testing.assert_allclose(mine[:, order], expected[:, expected_order], atol=1e-7)


def test_a_module_with_two_sets_of_parameters(x64, key):
    model, x = models.antisymmetric(models.get("cnn", n_classes=3, width=4)), inputs(key)
    variables = nets.random_variables(model, key, x)
    parts = compiled(model.apply, variables, x[0], jnp.eye(3))
    assert len(parts) == 6
    assert all(isinstance(part, Product) for part in parts)
    total = sum(jnp.sum(part.matrix() ** 2) for part in parts)
    np.testing.assert_allclose(total, jnp.sum(nets.jacobian(model, variables, x[:1]) ** 2))


def test_batch_norm_in_training_mode_is_not_taken_for_inference(x64, key):
    class Training(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x.reshape(4, -1)))
            return nn.Dense(3)(x.reshape(1, -1))

    net, x = Training(), inputs(key)
    variables = net.init(key, x[:1])

    def apply(variables, x):
        return net.apply(variables, x, mutable=["batch_stats"])[0]

    model = models.Model(net.init, apply)
    parts = compiled(apply, variables, x[0], jnp.eye(3))
    total = sum(
        jnp.sum((part.matrix() if isinstance(part, Product) else part) ** 2) for part in parts
    )
    np.testing.assert_allclose(total, jnp.sum(nets.jacobian(model, variables, x[:1]) ** 2))


def test_combinations_of_outputs(x64, key):
    model, x = models.from_flax(nets.Convolutions()), inputs(key)
    variables = nets.random_variables(model, key, x)
    combination = jnp.array([[0.5, -2.0, 1.0]])
    single = compiled(model.apply, variables, x[0], jnp.eye(3))
    combined = compiled(model.apply, variables, x[0], combination)
    for one, all_ in zip(combined, single, strict=True):
        np.testing.assert_allclose(one.matrix(), combination @ all_.matrix(), atol=1e-12)


def test_arrays_in_boxes_are_seen(x64, key):
    """Flax puts arrays in boxes that name their axes, for several devices."""
    plain = nn.initializers.lecun_normal()
    boxed = nn.with_partitioning(plain, ("in", "out"))
    x = jnp.asarray(inputs(key)[:1].reshape(1, -1), float)
    first, second = (models.from_flax(nn.Dense(3, kernel_init=init)) for init in (plain, boxed))
    assert isinstance(second.init(key, x)["params"]["kernel"], nn.Partitioned)
    (one,), (other,) = (
        compiled(model.apply, jax.tree.map(lambda a: a.astype(float), model.init(key, x)), x[0],
                 jnp.eye(3))
        for model in (first, second)
    )  # fmt: skip
    assert isinstance(other, Product)
    np.testing.assert_array_equal(one.matrix(), other.matrix())


def test_without_influence_the_gradient_is_zero():
    (zero,) = compiled(lambda variables, x: x[:, :3], {"params": {"a": jnp.ones(5)}}, jnp.ones(4),
                       jnp.eye(3))  # fmt: skip
    np.testing.assert_array_equal(zero, np.zeros((3, 1)))


def test_unused_parameters_have_no_gradient(x64, key):
    model = models.from_flax(nn.Dense(3))
    x = jnp.ones((1, 4))
    variables = nets.random_variables(model, key, x)
    variables["params"]["unused"] = jnp.ones(5)
    (only,) = compiled(model.apply, variables, x[0], jnp.eye(3))
    assert only.matrix().shape == (3, 15)
