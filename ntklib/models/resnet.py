"""Residual networks for small images, of plain Dense, Conv and BatchNorm layers."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

from ntklib.models._layers import Conv, images


class ResNet(nn.Module):
    """A ResNet, version 1, without max-pooling: all groups but the first halve the image.

    They do so by a stride of 2, or where the image is `pooled`, by means over 2x2 pixels before.
    """

    channels: tuple[int, ...]  # of each group of blocks; those of the first are the stem's, too
    blocks: int  # in each group
    stem: tuple[int, int]  # side of the window of the first convolution, and its stride
    pooled: bool
    n_classes: int
    zero_head: bool  # whether the weights of the readout start at zero
    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(
        self, x: Float[Array, "n ..."], train: bool = False
    ) -> Float[Array, "n {self.n_classes}"]:
        """The logits of a batch of images."""
        side, stride = self.stem
        x = Conv(self.channels[0], (side, side), stride, use_bias=False)(images(x))
        x = self.activation(_norm(train)(x))
        for group, channels in enumerate(self.channels):
            for block in range(self.blocks):
                first = group > 0 and block == 0
                if first and self.pooled:
                    x = nn.avg_pool(x, (2, 2), (2, 2))
                stride = 2 if first and not self.pooled else 1
                x = _Block(channels, stride, first, self.activation)(x, train)
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
        conv = partial(Conv, self.channels, use_bias=False)
        shortcut = x
        if self.projection:
            shortcut = _norm(train)(conv((1, 1), self.stride)(x))
        x = self.activation(_norm(train)(conv((3, 3), self.stride)(x)))
        return self.activation(_norm(train)(conv((3, 3))(x)) + shortcut)


def _norm(train: bool) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
