"""Chains of plain layers, so that tools that intercept flax's calls see all parameters."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from ntklib.models._layers import Conv, images


class Plain(nn.Module):
    """A chain of layers in the standard parametrisation, with flax's default initialisation.

    A layer is "conv" (3x3, zero padding), "conv/2" (of stride 2) or "dense", with the width, and
    followed by a ReLU, or the activation that stands for it; "max" or "avg", a pooling of 2x2
    pixels; or "mean", the mean over all pixels. The first dense layer, or else the readout that
    ends the chain, flattens.
    """

    layers: tuple[tuple[str, int] | str, ...]
    n_classes: int
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n {self.n_classes}"]:
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
                    x = self.activation(Conv(width, (3, 3), stride)(x))
        return nn.Dense(self.n_classes)(x.reshape(len(x), -1))
