"""Networks by name."""

import inspect
from collections.abc import Callable
from functools import partial
from math import inf, sqrt
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from ntklib.models._model import Model, from_flax
from ntklib.models.plain import Plain
from ntklib.models.resnet import ResNet18
from ntklib.models.stacks import Stack, Stacked


def get(name: str, *, n_classes: int, **options: Any) -> Model:
    """A ReLU network by name.

    Three families have an infinite twin:

    - "mlp": `depth` dense layers on the flattened input.
    - "cnn": `depth` 3x3 convolutions with zero padding and stride 1, then a dense readout: of all
      pixels and channels (readout="flatten"), or of the mean over pixels ("pool").
    - "myrtle": 4, 6 or 9 such convolutions (`depth` 5, 7 or 10, the readout counted), with 2x2
      average pools after the first and the second group (2+1+1, 2+2+2, 3+3+3), then the mean over
      pixels and a dense readout (Shankar et al. 2020, who have 32x32 pixels, and pool three times
      where the mean is taken here; that is the same).

    Their options are `width` (512), the units or channels of each hidden layer; `depth` (2, for
    "myrtle" 5), the number of hidden layers; `parametrization` ("ntk"), `w_std` (sqrt 2) and
    `b_std` (0.1). Each layer is y = W x + b with Gaussian entries at initialisation: those of W
    have standard deviation w_std / sqrt(fan_in), those of b have b_std, in the readout too. The
    parametrisation says what is trained, hence which tangent kernel the network has:

    - "ntk": W = (w_std / sqrt(fan_in)) V and b = b_std c, and V, c ~ N(0, 1) are trained. The
      kernel has a limit as the width grows, which is the twin (Jacot et al. 2018). With
      b_std = 0 there is no bias.
    - "standard": W and b themselves are trained. The kernel grows in proportion to the width; the
      twin is its leading behaviour at this width (Sohl-Dickstein et al. 2020). With b_std = 0 the
      bias starts at zero and is trained.

    The others have the standard parametrisation and flax's initialisation: W of variance
    1 / fan_in, b = 0. Their option `width` (1) multiplies the channels, and the units of hidden
    dense layers. With `softplus` (infinity) each ReLU is replaced by log(1 + exp(beta z)) / beta
    for that beta, which is smooth and tends to the ReLU as beta grows; parameters are the same.
    Convolutions are 3x3 with zero padding:

    - "cnn_mega": conv 32, 32, max-pool, conv 64, 64, 128, 128, average-pool, dense (the official
      code of Tsilivis and Kempe 2022).
    - "cnn_small": conv 32, average-pool, conv 64, average-pool, dense 256, dense (ibid.).
    - "cnn_mnist": conv 16, average-pool, conv 32, average-pool, dense 64, dense: 24 k parameters
      for 14x14 pixels, our stand-in for larger networks.
    - "conv3": conv 32, conv 64 and 64 of stride 2, mean over pixels, dense: for benchmarks.
    - "alexnet": conv 64, max-pool, conv 192, max-pool, conv 384, 256, 256, max-pool, dense 1024,
      1024, dense. The five convolutions and three dense layers of AlexNet (Krizhevsky et al.
      2012), with the small windows and strides that images of 32x32 pixels need. Allen-Zhu and Li
      (2020) do not specify theirs.
    - "resnet18": the ResNet-18 of Loo et al. (2022), after He et al. (2016): conv 64; four groups
      of two blocks conv-conv of 64, 128, 256, 512 channels, all but the first halving the image
      and projecting the shortcut; batch normalisation after each convolution (epsilon 1e-5,
      averages decay by 0.9); mean over pixels, dense. With `zero_head` (True) the weights of the
      readout start at zero, and so do the logits.

    Args:
        name: The network.
        n_classes: Number of outputs.
        **options: Those of the network.

    Returns:
        The model. Its twin computes in the dtype of its inputs, can be differentiated in them, and
        keeps its memory bounded. Inputs whose angle is below rounding (2e-3 in float32, 5e-8 in
        float64) count as parallel.

    Raises:
        ValueError: If the name is unknown, the network does not have an option, or a value is out
            of range.
    """
    if name not in _NETWORKS:
        raise ValueError(f"model {name!r} is unknown; known are {', '.join(NAMES)}")
    _, *known = inspect.signature(_NETWORKS[name]).parameters
    if unknown := [option for option in options if option not in known]:
        raise ValueError(
            f"model {name!r} has no option {unknown[0]!r}; its options are {', '.join(known)}"
        )
    _positive("n_classes", n_classes)
    return _NETWORKS[name](n_classes, **options)


# --- networks by name: the options of each are the keywords of its function ---


def _mlp(
    n_classes: int,
    *,
    width: int = 512,
    depth: int = 2,
    parametrization: str = "ntk",
    w_std: float | int = sqrt(2),
    b_std: float | int = 0.1,
) -> Model:
    layers = ("dense",) * _positive("depth", depth)
    stack = Stack(layers, width, "flatten", parametrization, w_std, b_std)
    return _stacked(stack, n_classes)


def _cnn(
    n_classes: int,
    *,
    width: int = 512,
    depth: int = 2,
    readout: str = "flatten",
    parametrization: str = "ntk",
    w_std: float | int = sqrt(2),
    b_std: float | int = 0.1,
) -> Model:
    layers = ("conv",) * _positive("depth", depth)
    return _stacked(Stack(layers, width, readout, parametrization, w_std, b_std), n_classes)


def _myrtle(
    n_classes: int,
    *,
    width: int = 512,
    depth: int = 5,
    parametrization: str = "ntk",
    w_std: float | int = sqrt(2),
    b_std: float | int = 0.1,
) -> Model:
    groups = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}
    if depth not in groups:
        raise ValueError(f"depth is {depth}; allowed for 'myrtle' are 5, 7 and 10")
    first, second, third = (("conv",) * n for n in groups[depth])
    layers = (*first, "pool", *second, "pool", *third)
    return _stacked(Stack(layers, width, "pool", parametrization, w_std, b_std), n_classes)


def _stacked(stack: Stack, n_classes: int) -> Model:
    network = Stacked(stack, n_classes)
    return Model(network.init, network.apply, stack)


def _plain(
    layers: tuple[tuple[str, int] | str, ...],
    n_classes: int,
    *,
    width: float | int = 1,
    softplus: float | int = inf,
) -> Model:
    network = Plain(_scaled(layers, width), n_classes, activation=_activation(softplus))
    return from_flax(network)


def _resnet18(
    n_classes: int,
    *,
    width: float | int = 1,
    zero_head: bool = True,
    softplus: float | int = inf,
) -> Model:
    channels = _times(width, 64), _times(width, 128), _times(width, 256), _times(width, 512)
    return from_flax(ResNet18(channels, n_classes, zero_head, _activation(softplus)))


def _activation(softplus: float | int) -> Callable[[Array], Array]:
    if not softplus > 0:
        raise ValueError(f"softplus is {softplus}; it must be positive, or infinite for ReLUs")
    return nn.relu if softplus == inf else partial(_softplus, softplus)


def _softplus(beta: float | int, z: Array) -> Array:
    return nn.softplus(beta * z) / beta


def _scaled(
    layers: tuple[tuple[str, int] | str, ...], width: float | int
) -> tuple[tuple[str, int] | str, ...]:
    return tuple(
        layer if isinstance(layer, str) else (layer[0], _times(width, layer[1])) for layer in layers
    )


def _times(width: float | int, channels: int) -> int:
    if not 0 < width < inf:
        raise ValueError(f"width is {width}; it must be positive and finite")
    return max(1, round(width * channels))


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1 and an integer")
    return value


_CNN_MEGA = (
    *(("conv", 32), ("conv", 32), "max"),
    *(("conv", 64), ("conv", 64), ("conv", 128), ("conv", 128), "avg"),
)
_CNN_SMALL = (("conv", 32), "avg", ("conv", 64), "avg", ("dense", 256))
_CNN_MNIST = (("conv", 16), "avg", ("conv", 32), "avg", ("dense", 64))
_CONV3 = (("conv", 32), ("conv/2", 64), ("conv/2", 64), "mean")
_ALEXNET = (
    *(("conv", 64), "max", ("conv", 192), "max"),
    *(("conv", 384), ("conv", 256), ("conv", 256), "max", ("dense", 1024), ("dense", 1024)),
)

_NETWORKS: dict[str, Callable[..., Model]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "myrtle": _myrtle,
    "cnn_mega": partial(_plain, _CNN_MEGA),
    "cnn_small": partial(_plain, _CNN_SMALL),
    "cnn_mnist": partial(_plain, _CNN_MNIST),
    "conv3": partial(_plain, _CONV3),
    "alexnet": partial(_plain, _ALEXNET),
    "resnet18": _resnet18,
}
NAMES = tuple(_NETWORKS)
