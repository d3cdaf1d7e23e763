"""White noise at a signal-to-noise ratio."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._signal import OnSignals, added, centre

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SNR = (40.0, 30.0, 20.0, 10.0, 0.0)
"""In dB."""


class SnrNoise(OnSignals):
    """Gaussian white noise of ``10^(-snr/10)`` of the signal's power: its variance over the samples, channel by
    channel, so that a constant offset counts for nothing. A constant channel stays.

    From severity 0 to 1 the noise's amplitude is linear, then its dB are.
    """

    name = "snr_noise"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``snr_db``, before what leaves the range is cut off."""
        amplitude = _amplitude(severity)
        return {"snr_db": -20 * math.log10(amplitude) if amplitude else "none"}

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        power = added((clean - centre(clean)).square()) / clean.shape[-1]
        noise = draws.normal(*clean.shape[1:]).double()
        return clean + _amplitude(severity) * power.sqrt() * noise


def _amplitude(severity: float) -> float:
    """Standard deviation of the noise over the signal's."""
    if severity < 1:
        return severity * math.pow(10.0, -SNR[0] / 20)
    return math.pow(10.0, -_levels.at(SNR, severity) / 20)


CORRUPTION = SnrNoise()
