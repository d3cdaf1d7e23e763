"""Fog: a plasma of haze."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_plasma import plasma, side_for

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class Fog(OnImages):
    """``(x + thickness · plasma) · m / (m + thickness)``, with the image's largest value m; the plasma, from 0 to 1, is
    smoother the larger its ``decay``, and the same for all channels."""

    name = "fog"
    knobs = (
        Knob("thickness", (0.2, 0.5, 0.75, 1, 1.5), (1.5, 2, 2.5, 2.5, 3)),
        Knob("decay", (3, 3, 2.5, 2, 1.75), (2, 2, 1.7, 1.5, 1.4), none=None),
    )

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.uniform(side_for(*shape[-2:]) ** 2),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        height, width = images.shape[-2:]
        haze = plasma(drawn[0], at["decay"])[:, None, :height, :width]
        most = images.amax(dim=(1, 2, 3), keepdim=True)
        return (images + haze * at["thickness"]).mul_(most / (most + at["thickness"]))


CORRUPTION = Fog()
