"""Networks that have a limit of infinite width: stacks of layers with Gaussian weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt

import flax.linen as nn
from jaxtyping import Array, Float

from ntklib.models._layers import Conv, images


@dataclass(frozen=True)
class Stack:
    """A ReLU network as a list of layers and a dense readout.

    A layer is "dense" or "conv" (3x3, stride 1, zero padding), followed by a ReLU, or "pool" (the
    mean of 2x2 pixels; a last odd row or column is left out). The readout takes all pixels and
    channels ("flatten"), or the mean over the pixels ("pool"); "pool" layers go with the latter
    only. For the rest see `ntklib.models.get`.
    """

    layers: tuple[str, ...]
    width: int
    readout: str
    parametrization: str
    w_std: float
    b_std: float

    def inputs(self, x: Array) -> Array:
        """The inputs as the first layer takes them: rows, or images."""
        if "conv" not in self.layers:
            return x.reshape(len(x), -1)
        return images(x, self.layers.count("pool"))


class Stacked(nn.Module):
    """A network with an infinite twin, of finite width."""

    stack: Stack
    n_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n {self.n_classes}"]:
        """The logits of a batch of inputs."""
        x, i = self.stack.inputs(x), 0
        for kind in self.stack.layers:
            if kind == "pool":
                x = nn.avg_pool(x, (2, 2), (2, 2))
                continue
            conv = kind == "conv"
            layer = partial(Conv, kernel_size=(3, 3)) if conv else nn.Dense
            fan_in = 9 * x.shape[-1] if conv else x.shape[-1]
            x = _Scaled(layer, self.stack.width, fan_in, self.stack, name=f"hidden_{i}")(x)
            x, i = nn.relu(x), i + 1
        x = x.mean((1, 2)) if self.stack.readout == "pool" else x.reshape(len(x), -1)
        return _Scaled(nn.Dense, self.n_classes, x.shape[-1], self.stack, name="readout")(x)


class _Scaled(nn.Module):
    """One layer W x + b of a parametrisation (see `models.get`), around a plain flax layer."""

    layer: Callable[..., nn.Module]
    features: int
    fan_in: int
    stack: Stack

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        w_scale, b_scale = self.stack.w_std / sqrt(self.fan_in), self.stack.b_std
        normal = nn.initializers.normal
        if self.stack.parametrization == "standard":
            return self.layer(
                self.features, kernel_init=normal(w_scale), bias_init=normal(b_scale)
            )(x)
        # The scales act on the input and the output, so that the layer in between stays a plain
        # Dense or Conv, which tools that intercept flax layers understand.
        outer = b_scale or 1.0
        layer = self.layer(
            self.features, use_bias=b_scale > 0, kernel_init=normal(1.0), bias_init=normal(1.0)
        )
        return outer * layer(w_scale / outer * x)
