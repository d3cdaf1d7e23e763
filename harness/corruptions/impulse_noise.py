"""Impulse noise: salt and pepper, as of bit errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class ImpulseNoise(OnImages):
    """A share ``amount`` of all numbers becomes 0 or 1, either with equal chance; those that did at one severity do
    so at all higher ones."""

    name = "impulse_noise"
    knobs = (Knob("amount", (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),)

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.uniform(*shape),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        (noise,), half = drawn, at["amount"] / 2
        # Below half: minus 1; from 1 - half on: plus 1; then cut off.
        return (noise - half).floor_().add_((noise + half).floor_()).add_(images)


CORRUPTION = ImpulseNoise()
