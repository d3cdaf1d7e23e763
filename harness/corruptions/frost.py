"""Frost: seen through an iced pane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_colour import GREY_OR_RGB, tinted
from pruneproof.corruptions._image_plasma import plasma, side_for

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws

ICE = (0.90, 1.0, 1.07)
"""The tint of red, green and blue."""
DIMMEST, BRIGHTEST = 0.35, 0.80
"""Mean brightness of a pane."""


class Frost(OnImages):
    """``kept · x + ice · pane``.

    ImageNet-C lays photographs of frosted panes on the images, which cannot be shipped here. These panes are made:
    clouds of plasma with ridges in them, bluish, each image's own, of about the photographs' brightness (0.3 to 0.8)
    and spread (0.06 to 0.19). The weights are the published ones; errors under it compare with each other, but not with
    published errors under frost.
    """

    name = "frost"
    channels = GREY_OR_RGB
    knobs = (
        Knob("kept", (1, 1, 0.9, 0.85, 0.75), (1, 0.8, 0.7, 0.65, 0.6), none=1.0),
        Knob("ice", (0.2, 0.3, 0.4, 0.4, 0.45), (0.4, 0.6, 0.7, 0.7, 0.75)),
    )

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (*(draws.uniform(side_for(*shape[-2:]) ** 2) for _ in range(2)), draws.uniform(1))

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        height, width = images.shape[-2:]
        panes = pane(*drawn)[:, None, :height, :width]
        return tinted(panes, ICE, images.shape[1]).clamp_(0, 1).mul_(at["ice"]).add_(images * at["kept"])


def pane(clouds: torch.Tensor, ridges: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    """``(n, side, side)`` in about [0, 1], of ``(n, side · side)``, the same and ``(n, 1)`` uniform draws."""
    cloud = plasma(clouds, 1.5)
    ridge = 1 - (plasma(ridges, 1.25) * 2 - 1).abs_()
    crystal = (ridge * ridge).square_()
    mean = brightness[:, :, None] * (BRIGHTEST - DIMMEST) + DIMMEST
    return (cloud - 0.5) * 0.4 + (crystal - 0.3) * 0.25 + mean


CORRUPTION = Frost()
