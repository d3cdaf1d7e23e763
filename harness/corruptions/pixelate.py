"""Pixelation: the image shrunk and enlarged again."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_linear import separable, whole

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn


class Pixelate(OnImages):
    """Shrunk to ``⌊size · side⌋`` by averages over boxes, and enlarged by repeating them: Pillow's box filter both
    ways, without the rounding to 8 bits in between."""

    name = "pixelate"
    knobs = (Knob("size", (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25), none=1.0),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        rows, columns = (_boxes(side, int(side * at["size"])) for side in images.shape[-2:])
        return separable(images, rows, columns)


@lru_cache(maxsize=32)
def _boxes(side: int, fewer: int) -> torch.Tensor:
    """``(side, side)``: what becomes of a line of pixels, for :func:`separable`: Pillow's own answer for each one."""
    import numpy as np
    from PIL import Image

    units = Image.fromarray(np.eye(side, dtype=np.float32))
    box = Image.Resampling.BOX
    there = units.resize((fewer, side), box).resize((side, side), box)
    return whole(np.asarray(there).T.astype(np.float64))


CORRUPTION = Pixelate()
