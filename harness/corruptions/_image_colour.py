"""Colours: of RGB images; a grey image is its own luminance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601)."""
GREY_OR_RGB = frozenset({1, 3})


def luminance(images: torch.Tensor) -> torch.Tensor:
    """``(n, 1, height, width)`` of ``(n, 1 or 3, height, width)``."""
    if images.shape[1] == 1:
        return images
    return images[:, :1] * LUMA[0] + images[:, 1:2] * LUMA[1] + images[:, 2:] * LUMA[2]


def tinted(layer: torch.Tensor, colour: tuple[float, float, float], channels: int) -> torch.Tensor:
    """``(n, channels, height, width)``: ``layer (n, 1, height, width)`` in a colour, or in its grey."""
    import torch

    found = torch.cat([layer * part for part in colour], dim=1)
    return found if channels == 3 else luminance(found)
