"""Gaussian noise, as of a sensor in poor light."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class GaussianNoise(OnImages):
    """``x + N(0, sigma²)``, each number by itself."""

    name = "gaussian_noise"
    knobs = (Knob("sigma", (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),)

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.normal(*shape),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        (noise,) = drawn
        return noise.mul_(at["sigma"]).add_(images)


CORRUPTION = GaussianNoise()
