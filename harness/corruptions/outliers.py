"""Cells at, and far beyond, the extremes that were observed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._table import OnTables

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Of the cells."""
BEYOND = (0.0, 1.0, 2.0, 4.0, 8.0)
"""How far past the extreme of the reference, in spreads: interquartile range / 1.349, or the standard deviation."""


class Outliers(OnTables):
    """``max + beyond · spread`` or ``min - beyond · spread``, as often, and no further than the column's bounds."""

    name = "outliers"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of cells, and how far ``beyond`` the extremes, in spreads."""
        return {"share": _levels.at(SHARE, severity), "beyond": _levels.at(BEYOND, severity)}

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        sheet, count = edit.sheet, edit.values.shape[1]
        hit, upward = draws.uniform(count) < _levels.at(SHARE, severity), draws.uniform(count) < 0.5
        spread = sheet.spread[edit.numbers]
        far = _levels.at(BEYOND, severity) * spread
        edit.write(
            torch.where(upward, sheet.most[edit.numbers] + far, sheet.least[edit.numbers] - far), hit & (spread > 0)
        )


CORRUPTION = Outliers()
