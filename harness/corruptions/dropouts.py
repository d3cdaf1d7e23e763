"""Gaps: lost packets, a loose contact."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._signal import OnSignals
from pruneproof.tables import Record

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the gaps that the signal has room for."""


class Options(Record):
    """What a gap looks like."""

    fill: Literal["mid", "zero", "hold"] = "mid"
    """The middle of the bounds, zero, or the last sample before the gap."""
    gap: float = Field(default=0.02, gt=0, le=1)
    """Its length, a share of the signal's; at least one sample."""


class Dropouts(OnSignals):
    """The signal is cut into pieces of the gap's length, from a point that is drawn; each is lost with probability
    ``share``, in all channels at once."""

    name = "dropouts"
    options: type[BaseModel] = Options

    def unfit(self, ground: Ground, options: BaseModel) -> str | None:
        """A level that the range does not have."""
        assert isinstance(options, Options)
        if options.fill == "mid" and not bool((ground.low.isfinite() & ground.high.isfinite()).all()):
            return "bounds that are not finite have no middle: give fill = 'zero' or 'hold'"
        if options.fill == "zero" and not bool(((ground.low <= 0) & (ground.high >= 0)).all()):
            return "fill = 'zero', and zero is out of the bounds: give fill = 'mid' or 'hold'"
        return None

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of the samples, and the length of a ``gap`` in samples."""
        assert isinstance(options, Options)
        return {"share": _levels.at(SHARE, severity), "gap": _gap(ground, options), "fill": options.fill}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        assert isinstance(options, Options)
        gap, samples = _gap(ground, options), clean.shape[-1]
        first = draws.integers(gap, 1, 1)
        drawn = draws.uniform(1, math.ceil(samples / gap) + 1)
        places = torch.arange(samples)
        lost = (drawn < _levels.at(SHARE, severity)).gather(-1, (places + first) // gap)
        if options.fill == "hold":
            # The last sample that was not lost; before the first one, that one.
            seen = torch.where(lost, -1, places).cummax(dim=-1).values
            start = torch.where(lost, samples, places).amin(dim=-1, keepdim=True).clamp(max=samples - 1)
            return clean.gather(-1, torch.where(seen < 0, start, seen).expand(clean.shape))
        level = (ground.low + ground.high) / 2 if options.fill == "mid" else torch.zeros((), dtype=torch.float64)
        shown = level.expand(ground.shape).reshape(clean.shape[1:])
        return torch.where(lost, shown, clean)


def _gap(ground: Ground, options: Options) -> int:
    return max(1, round(options.gap * ground.shape[-1]))


CORRUPTION = Dropouts()
