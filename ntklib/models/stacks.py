"""Networks that have a limit of infinite width: stacks of layers with Gaussian weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf, sqrt

import flax.linen as nn
from jaxtyping import Array, Float

from ntklib.models._layers import Conv, images


@dataclass(frozen=True)
class Stack:
    r"""A ReLU network as a list of layers and a dense readout.

    Attributes:
        layers: Each "dense" or "conv" (3x3, stride 1, zero padding), followed by a ReLU, or "pool"
            (the mean of 2x2 pixels; a last odd row or column is left out).
        width: Units, or channels, of each hidden layer.
        readout: What the readout takes: "flatten", all pixels and channels, or "pool", the mean
            over the pixels. "pool" layers go with it only.
        parametrization: "ntk" or "standard", see `ntklib.models.get`.
        w_std: Weights start with standard deviation w_std / sqrt(fan-in).
        b_std: Biases start with standard deviation b_std.

    Raises:
        ValueError: If a value is out of range.
    """

    layers: tuple[str, ...]
    width: int
    readout: str
    parametrization: str
    w_std: float | int
    b_std: float | int

    def __post_init__(self) -> None:
        if not isinstance(self.width, int) or self.width < 1:
            raise ValueError(f"width is {self.width}; it must be at least 1 and an integer")
        if self.readout not in ("flatten", "pool"):
            raise ValueError(f"readout is {self.readout!r}; allowed: 'flatten', 'pool'")
        if self.parametrization not in ("ntk", "standard"):
            raise ValueError(
                f"parametrization is {self.parametrization!r}; allowed: 'ntk', 'standard'"
            )
        if not 0 < self.w_std < inf:
            raise ValueError(f"w_std is {self.w_std}; it must be positive and finite")
        if not 0 <= self.b_std < inf:
            raise ValueError(f"b_std is {self.b_std}; it must be finite and at least 0")

    def inputs(self, x: Array) -> Array:
        """The inputs as the first layer takes them: rows, or images.

        Args:
            x: Inputs (n, ...).

        Returns:
            Inputs (n, features) for dense layers, else (n, height, width, channels).

        Raises:
            ValueError: If a convolution does not get images, or they are too small to be pooled.
        """
        if "conv" not in self.layers:
            return x.reshape(len(x), -1)
        return images(x, self.layers.count("pool"))


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
