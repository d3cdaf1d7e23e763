"""Motion: images smeared along a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FAINTEST = 1e-5
"""Share of the whole weight below which the far end of a streak is left out."""


def weights(radius: int, sigma: float) -> list[float]:
    """Half a Gaussian over ``2 · radius + 1`` pixels, from 0 on; they add up to 1."""
    found = [math.exp(-(place**2) / (2 * sigma**2)) for place in range(2 * radius + 1)]
    found = [weight for weight in found if weight > FAINTEST * sum(found)]
    return [weight / sum(found) for weight in found]


def offsets(degrees: float, count: int) -> list[tuple[int, int]]:
    """Where the ``i``-th pixel of a streak is taken from: ``(down, right)``, ``i`` pixels away and rounded."""
    down, right = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [(math.ceil(place * down - 0.5), math.ceil(place * right - 0.5)) for place in range(count)]


def smeared(images: torch.Tensor, degrees: Sequence[float], radius: int, sigma: float) -> torch.Tensor:
    """Each image of ``(n, channels, height, width)`` smeared along its own angle; border pixels go on beyond it.

    As ``_motion_blur`` of ``imagecorruptions``, which stands in for ImageMagick's; but a streak longer than the image
    is not cut off there, which would darken it.
    """
    import numpy as np
    import torch

    along = weights(radius, sigma)
    lines = [offsets(angle, len(along)) for angle in degrees]
    height, width = images.shape[-2:]
    down = [min(max(sign * line[-1][0] for line in lines), height) for sign in (-1, 1)]
    right = [min(max(sign * line[-1][1] for line in lines), width) for sign in (-1, 1)]
    up, below, left, beyond = (max(reach, 0) for reach in (*down, *right))
    wide = torch.nn.functional.pad(images, (left, beyond, up, below), mode="replicate")
    channels = images.shape[1]
    rows = wide.permute(0, 2, 3, 1).flatten(2).contiguous().numpy()  # channels together: longer runs
    found = np.zeros((len(images), height, width * channels), dtype=np.float32)
    part = np.empty(found.shape[1:], dtype=np.float32)
    factors = [np.array(weight, dtype=np.float32) for weight in along]
    views = np.lib.stride_tricks.sliding_window_view(rows, part.shape, axis=(1, 2))[:, :, ::channels]
    for view, target, line in zip(views, found, lines, strict=True):
        for factor, (to_row, to_column) in zip(factors, line, strict=True):
            place = up + min(max(to_row, -up), below), left + min(max(to_column, -left), beyond)
            np.multiply(view[place], factor, part)
            np.add(target, part, target)
    return torch.from_numpy(found).unflatten(2, (width, channels)).permute(0, 3, 1, 2).contiguous()
