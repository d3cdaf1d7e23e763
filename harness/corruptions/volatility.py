"""Wider swings: every number further from its column's median, as in a volatile market."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._table import OnTables

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

FACTOR = (1.1, 1.25, 1.5, 2.0, 3.0)


class Volatility(OnTables):
    """``median + factor · (x - median)``: the variance is multiplied by ``factor²``, the ranks stay."""

    name = "volatility"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``factor`` of the distance from the median."""
        return {"factor": _levels.at(FACTOR, severity, none=1.0)}

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        factor, median = _levels.at(FACTOR, severity, none=1.0), edit.sheet.median[edit.numbers]
        wider = edit.values + (factor - 1) * (edit.values - median)
        edit.write(wider, torch.ones_like(wider, dtype=torch.bool))


CORRUPTION = Volatility()
