"""Lost precision: numbers rounded to a coarse grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._table import OnTables

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

GRID = (0.1, 0.25, 0.5, 1.0, 2.0)
"""In spreads: interquartile range / 1.349, or the standard deviation where that is 0."""


class Rounding(OnTables):
    """The nearest multiple of ``grid · spread``; integers then go to their nearest step."""

    name = "rounding"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``grid`` in spreads."""
        return {"grid": _levels.at(GRID, severity)}

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        spread = edit.sheet.spread[edit.numbers]
        grid = (_levels.at(GRID, severity) * spread).clamp(min=1e-300)
        edit.write((edit.values / grid).round() * grid, (spread > 0).expand_as(edit.values))


CORRUPTION = Rounding()
