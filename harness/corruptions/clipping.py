"""An amplifier or a converter that saturates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._signal import OnSignals, centre

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

LEVEL = (0.9, 0.75, 0.6, 0.4, 0.2)
"""Of the signal's own peak."""


class Clipping(OnSignals):
    """Samples further than ``level · peak`` from the mean are held there; the peak is the largest distance of the
    example's samples from their mean, channel by channel."""

    name = "clipping"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``level``, a share of the peak."""
        return {"level": _levels.at(LEVEL, severity, none=1.0)}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        middle = centre(clean)
        most = (clean - middle).abs().amax(dim=-1, keepdim=True) * _levels.at(LEVEL, severity, none=1.0)
        return torch.minimum(torch.maximum(clean, middle - most), middle + most)


CORRUPTION = Clipping()
