"""Zoom blur: the camera moved toward its object while the shutter was open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_linear import zoomed

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn


class ZoomBlur(OnImages):
    """The mean of the image and its enlargements by 1, 1 + ``step``, … ``largest``."""

    name = "zoom_blur"
    knobs = (
        # As numpy.arange(1, 1.06, 0.01) and so on come out: with the end in it where rounding goes that way.
        Knob("largest", (1.06, 1.11, 1.15, 1.2, 1.25), (1.11, 1.15, 1.2, 1.24, 1.3), none=1.0),
        Knob("step", (0.01, 0.01, 0.01, 0.01, 0.01), (0.01, 0.01, 0.02, 0.02, 0.03), none=None),
    )

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        steps = int((at["largest"] - 1) / at["step"] + 1e-6)
        found = images * 2  # itself, and enlarged by 1
        for place in range(1, steps + 1):
            found += zoomed(images, 1 + place * at["step"])
        return found.div_(steps + 2)


CORRUPTION = ZoomBlur()
