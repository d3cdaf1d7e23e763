"""Examples of any shape as pictures, and windows in them."""

from __future__ import annotations

import math

import torch

from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.draws import Draws


class Pictures:
    """Examples ``(n, …)`` as pictures ``(channels, height, width)``.

    Of more dimensions all but the last two are channels, rows of numbers are pictures of height 1.
    """

    def __init__(self, ball: Ball, clean: torch.Tensor) -> None:
        self.ball = ball
        self.clean = clean
        shape = tuple(clean.shape[1:])
        height, width = (1, *shape)[-2:] if shape else (1, 1)
        self.shape = (math.prod(shape[:-2]), height, width)

    def pictures(self, values: torch.Tensor) -> torch.Tensor:
        """``(n, channels, height, width)``."""
        return values.reshape(len(values), *self.shape)

    def examples(self, pictures: torch.Tensor) -> torch.Tensor:
        """In the shape of the examples."""
        return pictures.reshape(len(pictures), *self.clean.shape[1:])

    def window(self, area: float, least: int = 1) -> tuple[int, int]:
        """Height and width of a square of that area; where the picture is too low or narrow for it, a rectangle."""
        _, height, width = self.shape
        side = max(least, round(math.sqrt(area * height * width)))
        if side > height:
            return height, min(width, max(least, round(area * width)))
        if side > width:
            return min(height, max(least, round(area * height))), width
        return side, side

    def places(self, tall: int, wide: int, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """``(n, tall, 1)`` lines and ``(n, 1, wide)`` columns of a random window in each picture."""
        _, height, width = self.shape
        top, left = draws.below(height - tall + 1), draws.below(width - wide + 1)
        return top[:, None, None] + torch.arange(tall)[:, None], left[:, None, None] + torch.arange(wide)
