"""Sampling by rejection: an example is kept with its weight over the largest one (von Neumann 1951)."""

from __future__ import annotations

import torch

from pruneproof.shift.draws import Draws


def tilted(ranks: torch.Tensor, exponent: float, draws: Draws) -> torch.Tensor:
    """``(n,)`` booleans: kept with weights ``exp(exponent · ranks)``, ``ranks (n,)`` in [0, 1]; 0 keeps all."""
    return _drawn((exponent * ranks - max(exponent, 0.0)).exp(), draws)


def favoured(member: torch.Tensor, odds: float, draws: Draws) -> torch.Tensor:
    """``(n,)`` booleans: kept so that the odds of ``member (n,)`` are multiplied by ``odds``; 1 keeps all."""
    most = max(odds, 1.0)
    chances = torch.tensor([1.0 / most, odds / most], dtype=torch.float64)
    return _drawn(chances[member.long()], draws)


def _drawn(chance: torch.Tensor, draws: Draws) -> torch.Tensor:
    return draws.uniform(1)[:, 0].double() < chance
