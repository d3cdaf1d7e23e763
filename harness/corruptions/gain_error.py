"""A signal that is too loud or too quiet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._signal import OnSignals, centre

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

GAIN = (1.0, 2.0, 4.0, 6.0, 10.0)
"""In dB."""


class GainError(OnSignals):
    """The distance from the signal's mean is multiplied by ``10^(± gain/20)``; the sign is drawn for each example."""

    name = "gain_error"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``gain_db``, up or down."""
        return {"gain_db": _levels.at(GAIN, severity)}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        up = math.pow(10.0, _levels.at(GAIN, severity) / 20)
        gain = torch.tensor([1 / up, up], dtype=torch.float64)[draws.integers(2, 1, 1)]
        middle = centre(clean)
        return middle + gain * (clean - middle)


CORRUPTION = GainError()
