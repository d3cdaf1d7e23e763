"""Gaussian noise on numbers, scaled by each column's spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._table import OnTables

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SIGMA = (0.1, 0.2, 0.4, 0.7, 1.0)
"""Standard deviation in spreads: interquartile range / 1.349, or the standard deviation where that is 0."""


class FeatureNoise(OnTables):
    """``x + sigma · spread · N(0, 1)``; a column that is constant in the reference stays."""

    name = "feature_noise"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``sigma`` in spreads."""
        return {"sigma": _levels.at(SIGMA, severity)}

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        spread = edit.sheet.spread[edit.numbers]
        noise = draws.normal(len(spread)).double() * _levels.at(SIGMA, severity)
        edit.write(edit.values + noise * spread, torch.ones_like(noise, dtype=torch.bool))


CORRUPTION = FeatureNoise()
