"""Small flax networks with all kinds of layers, and their NTK by plain Jacobians."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class Convolutions(nn.Module):
    """Strides, paddings, 1x1, no bias, and the mean over positions."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3), strides=(2, 1))(x))
        x = nn.relu(nn.Conv(4, (2, 3), strides=2, padding="VALID", use_bias=False)(x))
        x = nn.relu(nn.Conv(6, (1, 1), padding=((0, 1), (1, 0)))(x))
        x = nn.tanh(nn.Conv(3, (3, 3), padding=1)(x))
        return nn.Dense(3)(x.mean((1, 2)))


class Odd(nn.Module):
    """Layers outside of the fast path, between layers inside of it."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), kernel_dilation=2)(x)
        x = nn.relu(nn.Conv(4, (3, 3), feature_group_count=2)(x))
        x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.LayerNorm()(x)).reshape(len(x), -1)
        x = x * self.param("scale", nn.initializers.normal(1.0), x.shape[-1:])
        x = nn.remat(nn.Dense)(7)(x)
        return nn.Dense(3)(nn.relu(x))


class Normalised(nn.Module):
    """BatchNorm with all its options, and residual connections."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        y = nn.Conv(4, (3, 3))(y)
        y = nn.BatchNorm(use_running_average=not train, use_scale=False, epsilon=1e-2)(y)
        x = nn.relu(x + y).mean((1, 2))
        x = nn.BatchNorm(use_running_average=not train, use_bias=False)(x)
        return nn.Dense(3)(x)


class Shared(nn.Module):
    """One layer called three times, at two sizes."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Conv(x.shape[-1], (3, 3), name="shared")
        x = nn.relu(layer(x))
        x = nn.relu(layer(nn.avg_pool(x, (2, 2), (2, 2))))
        return nn.Dense(3)(layer(x).reshape(len(x), -1))


class Tied(nn.Module):
    """An array that a layer uses, and the network too."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        layer = nn.Dense(x.shape[-1])
        y = nn.relu(layer(x))
        kernel = layer.variables["params"]["kernel"]
        return nn.Dense(3)(y @ kernel.T)


class Sequence(nn.Module):
    """Dense layers on the rows of an image, mixed by attention weights."""

    @nn.compact
    def __call__(self, x):
        x = x[..., 0]
        q, k, v = (nn.Dense(4, name=name)(x) for name in "qkv")
        weights = nn.softmax(jnp.einsum("nid,njd->nij", q, k))
        return nn.Dense(3)(jnp.einsum("nij,njd->nid", weights, v).mean(1))


class Scanned(nn.Module):
    """Layers whose weights are stacked by a transformation."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5)(x.reshape(len(x), -1))

        class Step(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.relu(nn.Dense(5)(x)), None

        many = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return nn.Dense(3)(many()(x, None)[0])


class Recurrent(nn.Module):
    """flax's own cells and loop."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(
            nn.RNN(nn.LSTMCell(4, param_dtype=x.dtype))(x.reshape(len(x), 6, -1))[:, -1]
        )


class Broadcast(nn.Module):
    """One layer for all steps of a loop, and one for all rows, by transformations of flax."""

    @nn.compact
    def __call__(self, x):
        class Step(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.tanh(nn.Conv(2, (3, 3))(x)), None

        shared = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
        each = nn.vmap(nn.Dense, in_axes=1, out_axes=1, **shared)
        steps = nn.scan(Step, variable_broadcast="params", split_rngs={"params": False}, length=3)
        x = nn.tanh(each(2)(steps()(x, None)[0]))
        return nn.Dense(3)(x.reshape(len(x), -1))


class Inside(nn.Module):
    """A dense layer, a convolution and a BatchNorm that a transformation of JAX closes over."""

    how: str
    again: bool = False  # whether they are called outside of it too

    def setup(self):
        self.conv, self.dense, self.readout = nn.Conv(2, (3, 3)), nn.Dense(2), nn.Dense(3)
        self.norm = nn.BatchNorm(use_running_average=True)

    def __call__(self, x):
        def f(x):
            return nn.tanh(self.dense(self.norm(self.conv(x))))

        transformed = {
            "vmap": jax.vmap(f),
            "jit": jax.jit(f),
            "checkpoint": jax.checkpoint(f),
            "map": lambda x: jax.lax.map(f, x),
            "cond": lambda x: jax.lax.cond(x.sum() > -1e9, f, lambda x: x, x),
            "switch": lambda x: jax.lax.switch(1, [jnp.sin, f], x),
            "scan": lambda x: jax.lax.scan(lambda x, _: (f(x), None), x, None, length=2)[0],
            "loop": lambda x: jax.lax.fori_loop(0, 2, lambda _, x: f(x), x),
            "grad": jax.grad(lambda x: jnp.sum(f(x) ** 2)),
            "jvp": lambda x: jax.jvp(f, (x,), (jnp.cos(x),))[1],
            "linear": lambda x: jax.linear_transpose(jax.linearize(f, x)[1], x)(x)[0],
        }
        # flax makes parameters outside of transformations only.
        x = f(x) if self.is_initializing() else transformed[self.how](x)
        return self.readout((f(x) if self.again else x).reshape(len(x), -1))


TRANSFORMATIONS = ("vmap", "jit", "checkpoint", "map", "cond", "switch", "scan", "loop", "grad")
TRANSFORMATIONS += ("jvp", "linear")
ALL = [Convolutions, Odd, Normalised, Shared, Tied, Sequence, Scanned, Recurrent, Broadcast]
INSIDE = [partial(Inside, how) for how in TRANSFORMATIONS] + [partial(Inside, "jit", again=True)]


def random_variables(model, key, x):
    """Variables in the type of x, nothing at zero or one, BatchNorm's statistics among them."""
    variables = jax.tree.map(lambda a: a.astype(x.dtype), jax.jit(model.init)(key, x))
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys, strict=True)]
    noisy = [a + 0.3 * jnp.abs(e) for a, e in zip(leaves, noise, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def jacobian(model, variables, x):
    """(n, k, parameters), by reverse-mode differentiation of each output at each input."""

    def single(params, x):
        return model.apply({**variables, "params": params}, x[None])[0]

    trees = jax.jit(jax.vmap(jax.jacrev(single), (None, 0)))(variables["params"], x)
    return jnp.concatenate([a.reshape(*a.shape[:2], -1) for a in jax.tree.leaves(trees)], axis=-1)


def plain_gram(model, variables, x1, x2, output):
    full = jnp.einsum("ncd,med->ncme", *(jacobian(model, variables, x) for x in (x1, x2)))
    if output == "full":
        return full.reshape(full.shape[0] * full.shape[1], -1)
    if output == "trace":
        return jnp.einsum("ncmc->nm", full) / full.shape[1]
    return full[:, output, :, output]
