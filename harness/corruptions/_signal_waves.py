"""Sines of a random phase."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws


def wave(rate: float, samples: int, draws: Draws) -> torch.Tensor:
    """``(n, 1, samples)`` float64 of amplitude 1 and ``rate`` cycles a sample, each of a phase of its own.

    A phase is a random direction in the plane: two normal numbers; so no sine is taken of a batch, which could depend
    on its size in the last bit.
    """
    import torch

    angles = [2 * math.pi * (rate * sample % 1.0) for sample in range(samples)]
    sine = torch.tensor([math.sin(angle) for angle in angles], dtype=torch.float64)
    cosine = torch.tensor([math.cos(angle) for angle in angles], dtype=torch.float64)
    x, y = draws.normal(1, 2).double().unsqueeze(-1).unbind(dim=2)
    length = (x * x + y * y).clamp(min=1e-300).sqrt()
    return x / length * sine + y / length * cosine
