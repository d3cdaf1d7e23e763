"""Filters and resampling of images, to the last bit the same in any batch and on any number of threads.

Products of matrices are done on whole numbers: coefficients and pixels are rounded to multiples of 2⁻²⁶, so that no
sum of their products, whose coefficients add up to no more than 1, needs more than the 53 bits of float64. Such sums
are exact, in any order. The rounding is finer than that of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

BITS = 26
EXACT = 32
"""Pixels from which enlargements are as published."""
Edge = Literal["edge", "symmetric", "reflect"]
"""What lies beyond the border, by numpy's names: ``aaa|abc|ccc``, ``cba|abc|cba`` and ``cb|abc|ba``."""


def separable(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """``rows @ image @ columns.T``, ``(n, channels, h', w')`` float32.

    Args:
        images: ``(n, channels, h, w)`` in [-1, 1].
        rows, columns: ``(h', h)`` and ``(w', w)``, as :func:`whole` gives them.
    """
    number, channels, height, width = images.shape
    unit = 2.0**-BITS
    pixels = (images * 2.0**BITS).round_().double().reshape(-1, width)
    across = (columns @ pixels.T).mul_(unit).round_()  # w', and the rest; of multiples of 2⁻⁵², exactly
    down = (across.reshape(-1, height) @ rows.T).mul_(unit**2).float()
    return down.reshape(len(columns), -1).T.contiguous().reshape(number, channels, len(rows), len(columns))


def whole(matrix: object) -> torch.Tensor:
    """Coefficients in multiples of 2⁻²⁶, as whole numbers in float64, of ``(k, l)``."""
    import torch

    return torch.as_tensor(matrix, dtype=torch.float64).mul(2.0**BITS).round_()


@lru_cache(maxsize=32)
def gaussian(side: int, sigma: float, truncate: float, edge: Edge) -> torch.Tensor:
    """``(side, side)``: what ``scipy.ndimage.gaussian_filter1d`` does to a line of pixels, for :func:`separable`."""
    import numpy as np
    from scipy import ndimage

    mode = {"edge": "nearest", "symmetric": "reflect", "reflect": "mirror"}[edge]
    return whole(ndimage.gaussian_filter1d(np.eye(side), sigma, axis=0, mode=mode, truncate=truncate))


def blurred(images: torch.Tensor, sigma: float, truncate: float = 4.0, edge: Edge = "edge") -> torch.Tensor:
    """Gaussian blur of each channel, as scikit-image's ``gaussian`` with the same arguments."""
    height, width = images.shape[-2:]
    if int(truncate * sigma + 0.5) == 0:  # the filter is one pixel wide
        return images.clone()
    return separable(images, gaussian(height, sigma, truncate, edge), gaussian(width, sigma, truncate, edge))


def padded(images: torch.Tensor, by: int, edge: Edge) -> torch.Tensor:
    """``by`` pixels more on every side, of any number."""
    import numpy as np
    import torch

    for axis in (-2, -1):
        places = np.pad(np.arange(images.shape[axis]), by, mode=edge)
        images = images.index_select(images.dim() + axis, torch.from_numpy(places))
    return images


def spread(images: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Both axes filtered with an odd number of ``weights``; ``(len(weights) - 1)`` pixels fewer on each."""
    for axis in (-2, -1):
        size = images.shape[axis] - len(weights) + 1
        found = images.narrow(axis, 0, size) * weights[0]
        for place, weight in enumerate(weights[1:], 1):
            found += images.narrow(axis, place, size) * weight
        images = found
    return images


def zoomed(images: torch.Tensor, factor: float) -> torch.Tensor:
    """The middle of each image, enlarged by ``factor`` ≥ 1 to the size it had, linear between pixels: the
    ``clipped_zoom`` of ImageNet-C, which is ``scipy.ndimage.zoom`` of order 1 with its ends cut off. Of images of fewer
    than 32 pixels the middle is not rounded to whole pixels: an enlargement of 1.06 would change nothing."""
    for axis in (-2, -1):
        below, part = _zoom(images.shape[axis], factor)
        left = images.index_select(images.dim() + axis, below)
        right = images.index_select(images.dim() + axis, below + 1)
        images = right.sub_(left).mul_(part[:, None] if axis == -2 else part).add_(left)
    return images


@lru_cache(maxsize=256)
def _zoom(side: int, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """For each pixel of a line, the one before it in the line it is taken from, and how far it is toward the next."""
    import math

    import numpy as np
    import torch

    if side < EXACT:
        positions = (np.arange(side) - (side - 1) / 2) / factor + (side - 1) / 2
        first, last = 0, side - 1
    else:
        crop = min(math.ceil(side / factor), side)
        size, first = round(crop * factor), (side - crop) // 2
        last, cut = first + crop - 1, (size - side) // 2
        positions = (np.arange(size) * ((crop - 1) / (size - 1)))[cut : cut + side] + first
    below = np.clip(np.floor(positions), first, last - 1)
    part = torch.from_numpy(positions - below).float()
    return torch.from_numpy(below).long(), part


def means(images: torch.Tensor) -> torch.Tensor:
    """``(n, channels, 1, 1)`` float32: each channel's mean, of pixels in [0, 1] rounded to multiples of 2⁻²³, which is
    all that is left of them after 1 more, so that the sum is exact."""
    import torch

    count = images.shape[-2] * images.shape[-1]
    sums = (images + 1).sum(dim=(-2, -1), keepdim=True, dtype=torch.float64)
    return ((sums - count) / count).float()
