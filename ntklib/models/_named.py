"""Networks by name."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from math import inf, sqrt
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from ntklib._checks import number, one_of, whole
from ntklib.models._model import Model, from_flax
from ntklib.models._softplus import softplus
from ntklib.models.plain import Plain
from ntklib.models.resnet import ResNet
from ntklib.models.stacks import Stack, Stacked


def get(name: str, *, n_classes: int, **options: Any) -> Model:
    """A ReLU network by name; for equal arguments always the same model.

    Its own name is how it is called, without the options that have their default values:
    "mlp(n_classes=2, depth=3)". Three families have an infinite twin:

    - "mlp": `depth` dense layers on the flattened input; with none, a linear model in the pixels.
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
      kernel has a limit as the width grows, which is the twin (Jacot et al. 2018). With b_std = 0
      there is no bias.
    - "standard": W and b themselves are trained. The kernel grows in proportion to the width; the
      twin is its leading behaviour at this width (Sohl-Dickstein et al. 2020). With b_std = 0 the
      bias starts at zero and is trained.

    The others have the standard parametrisation and flax's initialisation: W of variance 1 /
    fan_in, b = 0. Their option `width` (1) multiplies the channels, and the units of hidden dense
    layers. With `softplus` (infinity) each ReLU is replaced by log(1 + exp(beta z)) / beta for that
    beta, which is smooth and tends to the ReLU as beta grows; parameters are the same. Convolutions
    are 3x3 with zero padding:

    - "cnn_mega": conv 32, 32, max-pool, conv 64, 64, 128, 128, average-pool, dense (the official
      code of Tsilivis and Kempe 2022).
    - "cnn_small": conv 32, average-pool, conv 64, average-pool, dense 256, dense (ibid.).
    - "cnn_mnist": conv 16, average-pool, conv 32, average-pool, dense 64, dense: 24 k parameters
      for 14x14 pixels, our stand-in for larger networks.
    - "conv3": conv 32, conv 64 and 64 of stride 2, mean over pixels, dense: for benchmarks.
    - "conv4": conv 32, conv 64, 64 and 128 of stride 2, dense: four layers of filters to compare.
    - "alexnet": conv 64, max-pool, conv 192, max-pool, conv 384, 256, 256, max-pool, dense 1024,
      1024, dense. The five convolutions and three dense layers of AlexNet (Krizhevsky et al. 2012),
      with the small windows and strides that images of 32x32 pixels need. Allen-Zhu and Li (2020)
      do not specify theirs.
    - "resnet18": the ResNet-18 of Loo et al. (2022), after He et al. (2016): conv 64; four groups
      of two blocks conv-conv of 64, 128, 256, 512 channels, all but the first halving the image and
      projecting the shortcut; batch normalisation after each convolution (epsilon 1e-5, averages
      decay by 0.9); mean over pixels, dense. With `zero_head` (True) the weights of the readout
      start at zero, and so do the logits.
    - "resnet8": ours, for photographs on a CPU: as "resnet18", but conv 64 of 4x4 and stride 2,
      then three groups of one block of 64, 128, 256 channels, so that no convolution of many
      channels meets a large image; images are halved by means over 2x2 pixels, so that all others
      have stride 1; 49 million multiply-adds for 32x32 pixels. Its `zero_head` is False.
    """
    allowed = _OPTIONS[one_of("name", name, NAMES)]
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"{option}: is no option of {name!r}; its options are {', '.join(allowed)}"
            )
    checked = {"n_classes": whole("n_classes", n_classes)}
    for option, (default, check) in allowed.items():
        value = check(option, options.get(option, default))
        if value != default:
            checked[option] = value
    return _get(name, **checked)


@cache
def _get(name: str, **given: Any) -> Model:
    defaults = {option: default for option, (default, _) in _OPTIONS[name].items()}
    module = _NETWORKS[name](**defaults | given)
    shown = ", ".join(f"{option}={value!r}" for option, value in given.items())
    stack = module.stack if isinstance(module, Stacked) else None
    return replace(from_flax(module), stack=stack, name=f"{name}({shown})")


# --- the options of each network: the value of each if not given, and what checks it ---


def _slope(name: str, beta: Any) -> float:
    return beta if isinstance(beta, float) and beta == inf else number(name, beta, above=0)


def _depth(name: str, depth: Any) -> int:
    return one_of(name, whole(name, depth), _MYRTLE)


def _among(*values: Any) -> Callable[..., Any]:
    return partial(one_of, allowed=values)


Options = dict[str, tuple[Any, Callable[..., Any]]]
_STACK: Options = {
    "width": (512, whole),
    "depth": (2, whole),
    "parametrization": ("ntk", _among("ntk", "standard")),
    "w_std": (sqrt(2), partial(number, above=0)),
    "b_std": (0.1, partial(number, least=0)),
}
_FINITE: Options = {"width": (1.0, partial(number, above=0)), "softplus": (inf, _slope)}
_OPTIONS: dict[str, Options] = {
    "mlp": _STACK | {"depth": (2, partial(whole, least=0))},
    "cnn": _STACK | {"readout": ("flatten", _among("flatten", "pool"))},
    "myrtle": _STACK | {"depth": (5, _depth)},
    "cnn_mega": _FINITE,
    "cnn_small": _FINITE,
    "cnn_mnist": _FINITE,
    "conv3": _FINITE,
    "conv4": _FINITE,
    "alexnet": _FINITE,
    "resnet18": _FINITE | {"zero_head": (True, _among(False, True))},
    "resnet8": _FINITE | {"zero_head": (False, _among(False, True))},
}
NAMES = tuple(_OPTIONS)

# --- the networks ---

Layers = tuple[tuple[str, int] | str, ...]


def _mlp(n_classes: int, depth: int, **options: Any) -> nn.Module:
    return Stacked(Stack(("dense",) * depth, readout="flatten", **options), n_classes)


def _cnn(n_classes: int, depth: int, **options: Any) -> nn.Module:
    return Stacked(Stack(("conv",) * depth, **options), n_classes)


def _myrtle(n_classes: int, depth: int, **options: Any) -> nn.Module:
    first, second, third = (("conv",) * n for n in _MYRTLE[depth])
    layers = (*first, "pool", *second, "pool", *third)
    return Stacked(Stack(layers, readout="pool", **options), n_classes)


def _plain(layers: Layers, n_classes: int, width: float, softplus: float) -> nn.Module:
    scaled = tuple(
        layer if isinstance(layer, str) else (layer[0], _times(width, layer[1])) for layer in layers
    )
    return Plain(scaled, n_classes, _activation(softplus))


def _resnet(
    channels: tuple[int, ...],
    blocks: int,
    stem: tuple[int, int],
    pooled: bool,
    n_classes: int,
    width: float,
    softplus: float,
    zero_head: bool,
) -> nn.Module:
    scaled = tuple(_times(width, c) for c in channels)
    return ResNet(scaled, blocks, stem, pooled, n_classes, zero_head, _activation(softplus))


def _times(width: float, channels: int) -> int:
    return max(1, round(width * channels))


def _activation(beta: float) -> Callable[[Array], Array]:
    return nn.relu if beta == inf else partial(softplus, beta)


_MYRTLE = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}  # convolutions between the pools, by depth
_CNN_MEGA = (
    *(("conv", 32), ("conv", 32), "max"),
    *(("conv", 64), ("conv", 64), ("conv", 128), ("conv", 128), "avg"),
)
_CNN_SMALL = (("conv", 32), "avg", ("conv", 64), "avg", ("dense", 256))
_CNN_MNIST = (("conv", 16), "avg", ("conv", 32), "avg", ("dense", 64))
_CONV3 = (("conv", 32), ("conv/2", 64), ("conv/2", 64), "mean")
_CONV4 = (("conv", 32), ("conv/2", 64), ("conv/2", 64), ("conv/2", 128))
_ALEXNET = (
    *(("conv", 64), "max", ("conv", 192), "max"),
    *(("conv", 384), ("conv", 256), ("conv", 256), "max", ("dense", 1024), ("dense", 1024)),
)
_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "myrtle": _myrtle,
    "cnn_mega": partial(_plain, _CNN_MEGA),
    "cnn_small": partial(_plain, _CNN_SMALL),
    "cnn_mnist": partial(_plain, _CNN_MNIST),
    "conv3": partial(_plain, _CONV3),
    "conv4": partial(_plain, _CONV4),
    "alexnet": partial(_plain, _ALEXNET),
    "resnet18": partial(_resnet, (64, 128, 256, 512), 2, (3, 1), False),
    "resnet8": partial(_resnet, (64, 128, 256), 1, (4, 2), True),
}
