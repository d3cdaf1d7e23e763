"""Gaussian blur."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_linear import blurred

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn


class GaussianBlur(OnImages):
    """Each channel filtered with a Gaussian of ``sigma`` pixels, cut off at four sigma."""

    name = "gaussian_blur"
    knobs = (Knob("sigma", (0.4, 0.6, 0.7, 0.8, 1), (1, 2, 3, 4, 6), length=True),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        return blurred(images, at["sigma"])


CORRUPTION = GaussianBlur()
