"""Saturation: colours faded or made gaudy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn


class Saturate(OnImages):
    """S of HSV becomes ``factor · S + offset``; severities 1 and 2 fade, 3 to 5 strengthen. Grey counts as red, as in
    ImageNet-C. Images of one channel have no colour: refused."""

    name = "saturate"
    channels = frozenset({3})
    knobs = (
        Knob("factor", (0.3, 0.1, 1.5, 2, 2.5), (0.3, 0.1, 2, 5, 20), none=1.0),
        Knob("offset", (0, 0, 0, 0.1, 0.2), (0, 0, 0, 0.1, 0.2)),
    )

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        import torch

        value = images.amax(dim=1, keepdim=True)
        range_ = value - images.amin(dim=1, keepdim=True)
        saturation = range_ / value.clamp_min(1e-30)
        wanted = (saturation * at["factor"]).add_(at["offset"]).clamp_(0, 1)
        # How far each channel lies below V, as a share of the most: from 0 to 1.
        below = (value - images) / range_.clamp_min(1e-30)
        red = torch.tensor([0.0, 1.0, 1.0]).reshape(3, 1, 1)
        return value - torch.where(range_ > 0, below, red) * (wanted * value)


CORRUPTION = Saturate()
