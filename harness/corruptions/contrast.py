"""Contrast: the image drawn toward its mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_linear import means

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn


class Contrast(OnImages):
    """``mean + factor · (x - mean)``, with the mean of each channel of each image."""

    name = "contrast"
    knobs = (Knob("factor", (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05), none=1.0),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        return (images * at["factor"]).add_(means(images) * (1 - at["factor"]))


CORRUPTION = Contrast()
