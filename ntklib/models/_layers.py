"""What networks on images share."""

from functools import partial

import flax.linen as nn
from jaxtyping import Array

from ntklib.models._convolution import conv_general_dilated

# The same layer and the same values; only its derivatives are computed in another way.
Conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)


def images(x: Array, n_pools: int = 0) -> Array:
    """The inputs; ValueError if they are no images (n, height, width, channels) to be halved."""
    if x.ndim != 4 or min(x.shape[1:3]) < 2**n_pools:
        least = f" of at least {2**n_pools} x {2**n_pools} pixels" if n_pools else ""
        raise ValueError(
            f"x: shape {x.shape} is not allowed; a network with convolutions takes (n, height, "
            f"width, channels){least}"
        )
    return x
