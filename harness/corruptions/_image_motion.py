"""Motion: images smeared along a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FAINTEST = 1e-5
"""Share of the whole weight below which the far end of a streak is left out."""
TOGETHER = 2**18
"""Numbers worked on at a time, so that they stay in the cache; results do not depend on it."""


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
    import torch

    along = weights(radius, sigma)
    lines = torch.tensor([offsets(angle, len(along)) for angle in degrees])
    step = max(1, TOGETHER // (images[0].numel() + len(along) * sum(images.shape[-2:]) * images.shape[1]))
    parts = [slice(start, start + step) for start in range(0, len(images), step)]
    return torch.cat([_smeared(images[some], lines[some], along) for some in parts])


def _smeared(images: torch.Tensor, lines: torch.Tensor, along: list[float]) -> torch.Tensor:
    """With the streak's ``lines (n, pixels of the streak, down and right)``, and its weights."""
    import torch

    number, channels, height, width = images.shape
    up, left = (min(max(-int(lines[..., axis].min()), 0), images.shape[axis + 2]) for axis in (0, 1))
    below, beyond = (min(max(int(lines[..., axis].max()), 0), images.shape[axis + 2]) for axis in (0, 1))
    wide = torch.nn.functional.pad(images, (left, beyond, up, below), mode="replicate")
    stride = (width + left + beyond) * channels
    flat = wide.permute(0, 2, 3, 1).flatten().contiguous()  # channels together: a row of an image is one run of numbers
    run = width * channels
    runs = flat.as_strided((len(flat) - run + 1, run), (1, 1))
    rows = torch.arange(height) * stride + torch.arange(number)[:, None] * (height + up + below) * stride
    down, right = lines[..., 0].clamp(-up, below) + up, lines[..., 1].clamp(-left, beyond) + left
    starts = down * stride + right * channels
    found, part = images.new_zeros(number * height, run), images.new_empty(number * height, run)
    for place, weight in enumerate(along):
        torch.index_select(runs, 0, (rows + starts[:, place, None]).flatten(), out=part)
        found += part.mul_(weight)
    return found.reshape(number, height, width, channels).permute(0, 3, 1, 2).contiguous()
