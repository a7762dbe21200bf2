"""A residual network of nine layers with BatchNorm, in flax and in PyTorch, and a step of each."""

import copy
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ntklib.models._layers import Conv

CHANNELS = {"stem": (3, 32), "a": (32, 64), "b": (64, 128), "b1": (128, 128), "b2": (128, 128)}
CHANNELS |= {"c": (128, 256), "c1": (256, 256), "c2": (256, 256)}


class ResNet9(nn.Module):
    """Convolutions 3x3 of 32, 64, 128, 256 channels with pools between, and two residual pairs."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """The logits of a batch of images."""

        def layer(name: str, x: jax.Array) -> jax.Array:
            y = Conv(CHANNELS[name][1], (3, 3), use_bias=False, name=name)(x)
            norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=f"{name}_norm")
            return nn.relu(norm(y))

        return nn.Dense(10, name="head")(_network(layer, _pool, x).mean((1, 2)))


def _pool(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (2, 2), (2, 2))


def _network(layer: Callable[[str, Any], Any], pool: Callable[[Any], Any], x: Any) -> Any:
    """What lies between the images and the mean over pixels, in either library."""
    x = layer("b", pool(layer("a", layer("stem", x))))
    x = pool(x)
    x = x + layer("b2", layer("b1", x))
    x = pool(layer("c", x))
    return x + layer("c2", layer("c1", x))


def torch_step(
    variables: Any, x: jax.Array, y: jax.Array, *, learning_rate: float, steps: int, epsilon: float
) -> Callable[[], np.ndarray]:
    """One step of PyTorch's SGD on images under PGD of so many steps, without a random start.

    The network has the flax one's variables, and batch statistics in the step but not in the
    attack, as in `ntklib.training`. What is returned is the step of the readout's weights.
    """
    import torch
    from torch.nn import functional

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    layers = torch.nn.ModuleDict()
    for name, (a, b) in CHANNELS.items():
        conv = torch.nn.Conv2d(a, b, 3, padding=1, bias=False)
        kernel = np.asarray(variables["params"][name]["kernel"]).transpose(3, 2, 0, 1)
        conv.weight.data = torch.tensor(kernel.copy())
        layers[name] = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(b), torch.nn.ReLU(True))
    layers["head"] = head = torch.nn.Linear(256, 10)
    head.weight.data = torch.tensor(np.asarray(variables["params"]["head"]["kernel"]).T.copy())
    head.bias.data.zero_()
    start = copy.deepcopy(layers.state_dict())
    optimizer = torch.optim.SGD(layers.parameters(), learning_rate)
    images = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(np.asarray(y, np.int64))

    def loss(z: Any) -> Any:
        z = _network(lambda name, z: layers[name](z), torch.nn.AvgPool2d(2), z)
        return functional.cross_entropy(head(z.mean((2, 3))), labels)

    def attacked() -> Any:
        layers.eval().requires_grad_(False)
        z = images
        for _ in range(steps):
            z = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(z), z)
            z = z + 2.5 * epsilon / steps * gradient.sign()
            z = z.clamp(images - epsilon, images + epsilon).clamp(0, 1)
        layers.train().requires_grad_(True)
        return z.detach()

    def step() -> np.ndarray:
        layers.load_state_dict(start)
        optimizer.zero_grad()
        loss(attacked()).backward()
        optimizer.step()
        return (head.weight.data - start["head.weight"]).numpy().T

    return step
