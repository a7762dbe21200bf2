r"""How rough images are: filters, gradients and perturbations, as well as pictures.

Images are (n, height, width, channels), of any values. Both numbers are without a unit, and are the
same for all multiples of an image.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Float64

from ntklib import _checks

Images = Float[Array | np.ndarray, "..."]
Each = Float64[np.ndarray, " n"]
"""One number an image."""


def total_variation(images: Images) -> Each:
    r"""Total variation of an image relative to its size.

    $\sum |x_{i+1,j} - x_{i,j}| + |x_{i,j+1} - x_{i,j}|$ over all pixels and channels, divided by
    $\sum |x_{i,j}|$ (Rudin, Osher & Fatemi 1992, in its anisotropic form). Of a constant image it
    is 0. If pixels are independent and Gaussian it is about $2 \sqrt 2$, where there are many.
    """
    x = _checked(images)
    steps = sum(np.abs(np.diff(x, axis=axis)).sum((1, 2, 3)) for axis in (1, 2))
    return steps / np.abs(x).sum((1, 2, 3))


def high_frequency(images: Images) -> Each:
    r"""Share of the energy of an image above a quarter of a cycle a pixel.

    The energy is that of the discrete Fourier transform, $\sum_u |\hat x_u|^2$ over all channels;
    a frequency $u = (u_1, u_2)$ is high if $\sqrt{u_1^2 + u_2^2} > 1/4$ in cycles a pixel, half of
    what a row of pixels can have. Of a constant image it is 0. If pixels are independent it is
    about $1 - \pi/16$, the share of the frequencies that are high.
    """
    x = _checked(images)
    energy = (np.abs(np.fft.fft2(x, axes=(1, 2))) ** 2).sum(-1)
    rows, columns = (np.fft.fftfreq(side) for side in x.shape[1:3])
    # A quarter itself is not high, however it is rounded.
    high = np.hypot(*np.meshgrid(rows, columns, indexing="ij")) > 0.25 + 1e-9
    return energy[:, high].sum(1) / energy.sum((1, 2))


def _checked(images: Any) -> Float64[np.ndarray, "n h w c"]:
    x = np.asarray(_checks.points("images", jax.device_get(images), ndim=4), np.float64)
    if x.ndim != 4:
        raise ValueError(
            f"images: shape {x.shape} is not allowed; it is (n, height, width, channels)"
        )
    zero = np.flatnonzero(~x.any((1, 2, 3)))
    if len(zero):
        raise ValueError(f"images: number {zero[0]} is zero everywhere; one that is not is needed")
    # Numbers as small as gradients may be have no squares.
    return x / np.abs(x).max((1, 2, 3), keepdims=True)
