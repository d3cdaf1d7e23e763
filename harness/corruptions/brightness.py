"""Brightness: the value of HSV raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn


class Brightness(OnImages):
    """``amount`` is added to V of HSV, the largest channel, and the others grow with it. A grey image is its own V."""

    name = "brightness"
    knobs = (Knob("amount", (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        import torch

        if images.shape[1] == 1:
            return images + at["amount"]
        value = images.amax(dim=1, keepdim=True)
        raised = (value + at["amount"]).clamp_(max=1)
        # Black has no colour and becomes grey; its factor is not used.
        return torch.where(value > 0, images * (raised / value.clamp_min(1e-30)), raised)


CORRUPTION = Brightness()
