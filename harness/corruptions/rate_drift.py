"""A clock that runs fast or slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._signal import OnSignals, interpolated

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

DRIFT = (0.002, 0.005, 0.01, 0.02, 0.05)
"""Of the sample rate."""


class RateDrift(OnSignals):
    """Sample ``i`` is what was at ``i · (1 ± drift)``, interpolated linearly, held beyond the end; the sign is drawn
    for each example."""

    name = "rate_drift"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``drift``, a share of the sample rate."""
        return {"drift": _levels.at(DRIFT, severity)}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        drift = torch.where(draws.uniform(1, 1) < 0.5, -1.0, 1.0).double() * _levels.at(DRIFT, severity)
        return interpolated(clean, torch.arange(clean.shape[-1], dtype=torch.float64) * (1 + drift))


CORRUPTION = RateDrift()
