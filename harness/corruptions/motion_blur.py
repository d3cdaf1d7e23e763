"""Motion blur: the camera moved while the shutter was open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import FINEST, Knob, OnImages, Values
from pruneproof.corruptions._image_motion import smeared

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class MotionBlur(OnImages):
    """Each image smeared along an angle of its own between -45° and 45°, with half a Gaussian of ``sigma`` pixels over
    ``2 · radius + 1`` pixels."""

    name = "motion_blur"
    knobs = (
        Knob("radius", (6, 6, 6, 8, 9), (10, 15, 15, 15, 20), none=None, length=True),
        Knob("sigma", (1, 1.5, 2, 2, 2.5), (3, 5, 8, 12, 15), length=True),
    )

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.uniform(1),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        (turn,) = drawn
        degrees = (turn[:, 0].double() * 90 - 45).tolist()
        return smeared(images, degrees, max(round(at["radius"]), 1), max(at["sigma"], FINEST))


CORRUPTION = MotionBlur()
