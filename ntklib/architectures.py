"""The networks as flax modules, made of plain Dense, Conv and BatchNorm layers.

Tools that intercept the calls of flax layers thus see all parameters.
"""

from collections.abc import Callable
from functools import partial
from math import sqrt

import flax.linen as nn
from jaxtyping import Array, Float

from ntklib.convolution import conv_general_dilated
from ntklib.kernels import Stack, images

# The same layer and the same values; only its derivatives are computed in another way.
_Conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)


class Stacked(nn.Module):
    """A network with an infinite twin, of finite width.

    Attributes:
        stack: Its layers and scales.
        n_classes: Number of outputs.
    """

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
            layer = partial(_Conv, kernel_size=(3, 3)) if conv else nn.Dense
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


class Plain(nn.Module):
    """A chain of layers in the standard parametrisation, with flax's default initialisation.

    Attributes:
        layers: "conv" (3x3, zero padding), "conv/2" (of stride 2) or "dense", with the width, each
            followed by a ReLU; "max" or "avg", a pooling of 2x2 pixels; "mean", the mean over all
            pixels. The first dense layer, or else the readout, flattens.
        n_classes: Outputs of the dense readout that ends the chain.
        batch_norm: Whether each convolution is followed by batch normalisation, as in `ResNet18`,
            instead of a bias.
        activation: Stands for the ReLU.
    """

    layers: tuple[tuple[str, int] | str, ...]
    n_classes: int
    batch_norm: bool = False
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(
        self, x: Float[Array, "n ..."], train: bool = False
    ) -> Float[Array, "n {self.n_classes}"]:
        """The logits of a batch of images."""
        x = images(x, sum(layer in ("max", "avg") for layer in self.layers))
        for layer in self.layers:
            match layer:
                case "max" | "avg":
                    x = (nn.max_pool if layer == "max" else nn.avg_pool)(x, (2, 2), (2, 2))
                case "mean":
                    x = x.mean((1, 2))
                case "dense", width:
                    x = self.activation(nn.Dense(width)(x.reshape(len(x), -1)))
                case kind, width:
                    stride = 2 if kind == "conv/2" else 1
                    x = _Conv(width, (3, 3), stride, use_bias=not self.batch_norm)(x)
                    x = self.activation(_norm(train)(x) if self.batch_norm else x)
        return nn.Dense(self.n_classes)(x.reshape(len(x), -1))


class ResNet18(nn.Module):
    """ResNet-18, version 1, for small images: a 3x3 stem of stride 1 and no max-pooling.

    Attributes:
        channels: Of the stem and the first group, the second, third and fourth group.
        n_classes: Number of outputs.
        zero_head: Whether the weights of the readout start at zero.
        activation: Stands for the ReLU.
    """

    channels: tuple[int, int, int, int]
    n_classes: int
    zero_head: bool
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(
        self, x: Float[Array, "n ..."], train: bool = False
    ) -> Float[Array, "n {self.n_classes}"]:
        """The logits of a batch of images."""
        x = _Conv(self.channels[0], (3, 3), use_bias=False)(images(x))
        x = self.activation(_norm(train)(x))
        for group, channels in enumerate(self.channels):
            for block in range(2):
                first = group > 0 and block == 0
                x = _Block(channels, 2 if first else 1, first, self.activation)(x, train)
        head = nn.initializers.zeros if self.zero_head else nn.initializers.lecun_normal()
        return nn.Dense(self.n_classes, kernel_init=head)(x.mean((1, 2)))


class _Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    channels: int
    stride: int
    projection: bool
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        conv = partial(_Conv, self.channels, use_bias=False)
        shortcut = x
        if self.projection:
            shortcut = _norm(train)(conv((1, 1), self.stride)(x))
        x = self.activation(_norm(train)(conv((3, 3), self.stride)(x)))
        return self.activation(_norm(train)(conv((3, 3))(x)) + shortcut)


def _norm(train: bool) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
