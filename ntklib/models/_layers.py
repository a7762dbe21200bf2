"""What networks on images share."""

from functools import partial

import flax.linen as nn
from jaxtyping import Array

from ntklib.models._convolution import conv_general_dilated

# The same layer and the same values; only its derivatives are computed in another way.
Conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)


def images(x: Array, n_pools: int = 0) -> Array:
    """Inputs that are images, large enough to be halved `n_pools` times.

    Args:
        x: Inputs (n, height, width, channels).
        n_pools: How often 2x2 pixels are pooled.

    Returns:
        The inputs.

    Raises:
        ValueError: If the inputs have no such shape.
    """
    if x.ndim != 4 or min(x.shape[1:3]) < 2**n_pools:
        smallest = f" of at least {2**n_pools} x {2**n_pools} pixels" if n_pools else ""
        raise ValueError(
            f"inputs have shape {x.shape}; a network with convolutions takes (n, height, width, "
            f"channels){smallest}"
        )
    return x
