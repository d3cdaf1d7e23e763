"""A slow swing of the zero line: breathing in an electrocardiogram, warming of a sensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._signal import OnSignals, swing
from pruneproof.corruptions._signal_waves import wave
from pruneproof.tables import Record

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

AMPLITUDE = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Of the signal's own range, from its lowest to its highest sample."""


class Options(Record):
    """How slow."""

    cycles: float = Field(default=1.0, gt=0)
    """In the length of a signal."""


class BaselineWander(OnSignals):
    """A sine of a phase that is drawn for each example, the same in all channels but for their range."""

    name = "baseline_wander"
    options: type[BaseModel] = Options

    def unfit(self, ground: Ground, options: BaseModel) -> str | None:
        """Faster than half the sample rate."""
        assert isinstance(options, Options)
        if 2 * options.cycles < ground.shape[-1]:
            return None
        return f"cycles = {options.cycles:g} is more than {ground.shape[-1]} samples can show"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``amplitude``, a share of the signal's range, and ``cycles``."""
        assert isinstance(options, Options)
        return {"amplitude": _levels.at(AMPLITUDE, severity), "cycles": options.cycles}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        assert isinstance(options, Options)
        size = _levels.at(AMPLITUDE, severity) * swing(clean)
        return clean + size * wave(options.cycles / clean.shape[-1], clean.shape[-1], draws)


CORRUPTION = BaselineWander()
