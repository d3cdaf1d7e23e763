"""Speckle noise: stronger where the image is bright."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class SpeckleNoise(OnImages):
    """``x + x · N(0, sigma²)``, each number by itself."""

    name = "speckle_noise"
    knobs = (Knob("sigma", (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.35, 0.45, 0.6)),)

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.normal(*shape),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        (noise,) = drawn
        return noise.mul_(at["sigma"]).add_(1).mul_(images)


CORRUPTION = SpeckleNoise()
