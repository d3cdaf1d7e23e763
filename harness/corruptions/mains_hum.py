"""Hum of the mains."""

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

AMPLITUDE = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the signal's own range, from its lowest to its highest sample."""


class Options(Record):
    """Frequencies in Hz."""

    sample_rate: float | None = Field(default=None, gt=0)
    """Of the data; there is no default."""
    frequency: float = Field(default=50.0, gt=0)


class MainsHum(OnSignals):
    """A sine of the mains' frequency, of a phase that is drawn for each example."""

    name = "mains_hum"
    options: type[BaseModel] = Options

    def unfit(self, ground: Ground, options: BaseModel) -> str | None:
        """No sample rate, or one too low."""
        assert isinstance(options, Options)
        if options.sample_rate is None:
            return "it needs the data's sample rate: give sample_rate = … in Hz"
        if 2 * options.frequency >= options.sample_rate:
            return f"{options.frequency:g} Hz is not below half the sample rate of {options.sample_rate:g} Hz"
        return None

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``amplitude``, a share of the signal's range, and ``frequency`` in Hz."""
        assert isinstance(options, Options)
        return {"amplitude": _levels.at(AMPLITUDE, severity), "frequency": options.frequency}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        assert isinstance(options, Options)
        assert options.sample_rate is not None
        size = _levels.at(AMPLITUDE, severity) * swing(clean)
        return clean + size * wave(options.frequency / options.sample_rate, clean.shape[-1], draws)


CORRUPTION = MainsHum()
