"""A signal that starts too early or too late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._signal import OnSignals
from pruneproof.tables import Record

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Of the signal's length."""


class Options(Record):
    """What comes in from outside."""

    fill: Literal["edge", "wrap"] = "edge"
    """The first or last sample, or the other end of the signal."""


class TimeShift(OnSignals):
    """All channels moved by as many samples, earlier or later as often."""

    name = "time_shift"
    options: type[BaseModel] = Options

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``samples``, the nearest whole number to a share of the length."""
        return {"samples": _samples(ground, severity)}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        assert isinstance(options, Options)
        samples = clean.shape[-1]
        moved = torch.where(draws.uniform(1, 1) < 0.5, -1, 1) * _samples(ground, severity)
        source = torch.arange(samples) - moved
        source = source.clamp(0, samples - 1) if options.fill == "edge" else source % samples
        return clean.gather(-1, source.expand(clean.shape))


def _samples(ground: Ground, severity: float) -> int:
    return round(_levels.at(SHARE, severity) * ground.shape[-1])


CORRUPTION = TimeShift()
