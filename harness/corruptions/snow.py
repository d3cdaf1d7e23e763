"""Snow: flakes driven by wind, and the whiter light of a snowy day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_colour import GREY_OR_RGB, luminance
from pruneproof.corruptions._image_linear import zoomed
from pruneproof.corruptions._image_motion import smeared

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class Snow(OnImages):
    """Normal noise of ``mean`` and ``spread``, enlarged by ``zoom``, left out below ``threshold``, smeared along an
    angle of the image's own between -135° and -45° (``radius``, ``sigma``: as in motion blur): flakes, and the same
    upside down. The image itself is whitened: ``kept · x + (1 - kept) · max(x, 1.5 · luminance + 0.5)``. A grey image
    is its own luminance."""

    name = "snow"
    channels = GREY_OR_RGB
    knobs = (
        Knob("mean", (0.1, 0.1, 0.15, 0.25, 0.3), (0.1, 0.2, 0.55, 0.55, 0.55)),
        Knob("spread", (0.2, 0.2, 0.3, 0.3, 0.3), (0.3, 0.3, 0.3, 0.3, 0.3)),
        Knob("zoom", (1, 1, 1.75, 2.25, 1.25), (3, 2, 4, 4.5, 2.5), none=None),
        Knob("threshold", (0.6, 0.5, 0.55, 0.6, 0.65), (0.5, 0.5, 0.9, 0.85, 0.85), none=None),
        Knob("radius", (8, 10, 10, 12, 14), (10, 12, 12, 12, 12), none=None, length=True),
        Knob("sigma", (3, 4, 4, 6, 12), (4, 4, 8, 8, 12), none=None, length=True),
        Knob("kept", (0.95, 0.9, 0.9, 0.85, 0.8), (0.8, 0.7, 0.7, 0.65, 0.55), none=1.0),
    )

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.normal(1, *shape[-2:]), draws.uniform(1))

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        import torch

        noise, turn = drawn
        degrees = (turn[:, 0].double() * 90 - 135).tolist()
        flakes = zoomed(noise.mul_(at["spread"]).add_(at["mean"]), at["zoom"])
        flakes = flakes.masked_fill_(flakes < at["threshold"], 0).clamp_(0, 1)
        flakes = smeared(flakes, degrees, max(round(at["radius"]), 1), at["sigma"])
        flakes = (flakes * 255).round_().div_(255)
        white = torch.maximum(images, luminance(images) * 1.5 + 0.5)
        return (images - white).mul_(at["kept"]).add_(white).add_(flakes).add_(flakes.flip(-2, -1))


CORRUPTION = Snow()
