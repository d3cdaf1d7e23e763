"""Spatter: drops of water or mud on the lens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_colour import GREY_OR_RGB, tinted
from pruneproof.corruptions._image_drops import sheen
from pruneproof.corruptions._image_linear import blurred

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws

WATER = (175 / 255, 238 / 255, 238 / 255)
MUD = (63 / 255, 42 / 255, 20 / 255)


class Spatter(OnImages):
    """Normal noise of ``mean`` and ``spread``, smoothed with ``sigma`` pixels: where it is over ``threshold``, there is
    liquid. Severities 1 to 3 are water, which adds its shine (``shine``: of its brightest point); 4 and 5 are mud,
    which covers (``softness``: sigma, in pixels, of its edge). Between 3 and 4 the two are mixed in the share ``mud``.

    The edges that the water's shine follows are the drops' outlines; ImageNet-C finds them with Canny's detector. An
    image that no drop falls on stays as it is.
    """

    name = "spatter"
    channels = GREY_OR_RGB
    knobs = (
        Knob("mean", (0.62, 0.65, 0.65, 0.65, 0.65), (0.65, 0.65, 0.65, 0.65, 0.67), none=None),
        Knob("spread", (0.1, 0.1, 0.3, 0.1, 0.1), (0.3, 0.3, 0.3, 0.3, 0.4), none=None),
        Knob("sigma", (0.7, 0.8, 1, 0.7, 0.5), (4, 3, 2, 1, 1), none=None, length=True),
        Knob("threshold", (0.7, 0.7, 0.69, 0.69, 0.68), (0.69, 0.68, 0.68, 0.65, 0.65), none=None),
        Knob("shine", (0.5, 0.5, 0.5, 0.5, 0.5), (0.6, 0.6, 0.5, 0.5, 0.5)),
        Knob("softness", (0.6, 0.6, 0.6, 0.6, 0.6), (1.5, 1.5, 1.5, 1.5, 1.5), none=None, length=True),
        Knob("mud", (0, 0, 0, 1, 1), (0, 0, 0, 1, 1)),
    )

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.normal(1, *shape[-2:]),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        (noise,) = drawn
        noise = noise.clamp(-6, 6) / 6  # in [-1, 1], as sums must be to be exact
        liquid = blurred(noise, at["sigma"]).mul_(6 * at["spread"]).add_(at["mean"])
        wet = liquid > at["threshold"]
        if at["mud"] == 0:
            return _watered(images, liquid, wet, at)
        if at["mud"] == 1:
            return _muddied(images, wet, at)
        water, mud = _watered(images, liquid, wet, at).clamp_(0, 1), _muddied(images, wet, at)
        return (mud - water).mul_(at["mud"]).add_(water)


def _watered(images: torch.Tensor, liquid: torch.Tensor, wet: torch.Tensor, at: Values) -> torch.Tensor:
    shine = sheen((liquid * wet)[:, 0])[:, None] * at["shine"]
    return images + tinted(shine, WATER, images.shape[1]).clamp_(max=1)


def _muddied(images: torch.Tensor, wet: torch.Tensor, at: Values) -> torch.Tensor:
    cover = blurred(wet.float(), at["softness"])
    cover.masked_fill_(cover < 0.8, 0)
    return images * (1 - cover) + tinted(cover, MUD, images.shape[1])


CORRUPTION = Spatter()
