"""A signal that was sampled down and up again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._signal import OnSignals, interpolated

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

FACTOR = (1.25, 1.5, 2.0, 3.0, 4.0)


class ResamplingError(OnSignals):
    """Linear interpolation at every ``factor``-th sample and back, without a filter before: what is faster than the new
    rate can carry is folded back or lost."""

    name = "resampling_error"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``factor`` by which there are fewer samples in between."""
        return {"factor": _levels.at(FACTOR, severity, none=1.0)}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        factor, samples = _levels.at(FACTOR, severity, none=1.0), clean.shape[-1]
        count = int((samples - 1) / factor) + 1
        coarse = torch.arange(count, dtype=torch.float64) * factor
        # The last sample is kept as well: a resampler is given the end of the signal.
        known = torch.cat([coarse, torch.tensor([float(samples - 1)], dtype=torch.float64)])
        fine = torch.arange(samples, dtype=torch.float64)
        below = (fine / factor).floor().clamp(max=count - 1)
        left, right = known[below.long()], known[below.long() + 1]
        part = torch.where(right > left, (fine - left) / (right - left).clamp(min=1e-300), 0.0)
        return interpolated(interpolated(clean, known), below + part)


CORRUPTION = ResamplingError()
