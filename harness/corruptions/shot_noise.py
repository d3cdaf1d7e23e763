"""Shot noise: light comes in photons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions import _image_poisson
from pruneproof.corruptions._image import Knob, OnImages, Values

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class ShotNoise(OnImages):
    """``Poisson(photons · x) / photons``, each number by itself; between severities ``1 / photons`` is interpolated."""

    name = "shot_noise"
    knobs = (Knob("photons", (500, 250, 100, 75, 50), (60, 25, 12, 5, 3), none=float("inf"), reciprocal=True),)

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.normal(*shape), draws.uniform(*shape))

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        normal, uniform = drawn
        return _image_poisson.quantile(images * at["photons"], normal, uniform).div_(at["photons"])


CORRUPTION = ShotNoise()
