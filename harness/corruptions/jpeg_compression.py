"""JPEG compression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_colour import GREY_OR_RGB
from pruneproof.corruptions._image_jpeg import compressed

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn


class JpegCompression(OnImages):
    """Rounded to 8 bits, compressed as a JPEG of ``quality`` (1 to 100, of libjpeg) with chroma halved both ways, and
    decompressed, as Pillow does; grey images as grey JPEGs."""

    name = "jpeg_compression"
    channels = GREY_OR_RGB
    knobs = (Knob("quality", (80, 65, 58, 50, 40), (25, 18, 15, 10, 7), none=100.0),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        import torch

        pixels = (images * 255).round_().to(torch.uint8)
        return compressed(pixels, round(at["quality"])).float().div_(255)


CORRUPTION = JpegCompression()
