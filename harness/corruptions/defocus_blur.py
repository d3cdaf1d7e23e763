"""Defocus blur: a lens out of focus spreads each point over a disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pruneproof.corruptions._image import FINEST, Knob, OnImages, Values
from pruneproof.corruptions._image_linear import padded, spread

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn


class DefocusBlur(OnImages):
    """Each channel filtered with a disk of ``radius`` pixels, whose edge is smoothed by a Gaussian of ``smoothing``
    pixels over 3 × 3 (radii beyond 8: 5 × 5) pixels; beyond the border the image is mirrored.

    The weights add up to 1. At radii of 8 and 10 the published filter is cut off by its array, which changes brightness
    by 1 %.
    """

    name = "defocus_blur"
    knobs = (
        Knob("radius", (0.3, 0.4, 0.5, 1, 1.5), (3, 4, 6, 8, 10), length=True),
        Knob("smoothing", (0.4, 0.5, 0.6, 0.2, 0.1), (0.1, 0.5, 0.5, 0.5, 0.5)),
    )

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        reach, around = math.floor(at["radius"]), 1 if at["radius"] <= 8 else 2
        smoothing = max(at["smoothing"], FINEST)
        smooth = [math.exp(-(place**2) / (2 * smoothing**2)) for place in range(-around, around + 1)]
        wide = padded(images, reach + around, "reflect")
        disk = _disk(wide, at["radius"])
        return spread(disk, [weight / sum(smooth) for weight in smooth])


def _disk(images: torch.Tensor, radius: float) -> torch.Tensor:
    """The mean over a disk: rows of its width are summed once for each width, then laid on each other.
    ``2 · ⌊radius⌋`` pixels fewer on both axes."""
    reach = math.floor(radius)
    height, width = (size - 2 * reach for size in images.shape[-2:])
    half = {down: math.floor(math.sqrt(radius**2 - down**2)) for down in range(-reach, reach + 1)}
    row = images.narrow(-1, reach, width).clone()
    found = None
    for wide in range(reach + 1):
        if wide:
            row += images.narrow(-1, reach - wide, width)
            row += images.narrow(-1, reach + wide, width)
        for down in (down for down in half if half[down] == wide):
            part = row.narrow(-2, reach + down, height)
            found = part.clone() if found is None else found.add_(part)
    assert found is not None
    return found.div_(sum(2 * wide + 1 for wide in half.values()))


CORRUPTION = DefocusBlur()
