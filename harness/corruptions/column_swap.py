"""Two columns mistaken for each other."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._table import OnTables

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.05, 0.1, 0.2, 0.35, 0.5)
"""Of the rows, one pair of columns in each."""


class ColumnSwap(OnTables):
    """The values of two columns change places: real ones, or integers of the same step. With ``columns = [a, b]`` that
    pair, else any such pair, all as often."""

    name = "column_swap"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of rows."""
        return {"share": _levels.at(SHARE, severity)}

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """No two columns of a type."""
        return None if _pairs(edit) else "no two columns that it may change are of the same type and step"

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        pairs = torch.tensor(_pairs(edit))
        swapped = draws.uniform(1) < _levels.at(SHARE, severity)
        pair = pairs[draws.integers(len(pairs), 1)[:, 0]]
        values = edit.values.clone().scatter_(1, pair, edit.values.gather(1, pair.flip(1)))
        edit.write(values, swapped)


def _pairs(edit: Edit) -> list[tuple[int, int]]:
    layout = edit.sheet.layout
    kinds = [
        (column.kind, column.step if column.kind == "integer" else 0.0)
        for column in (layout.columns[place] for place in layout.numbers[edit.numbers].tolist())
    ]
    return [(a, b) for a, b in combinations(range(len(kinds)), 2) if kinds[a] == kinds[b]]


CORRUPTION = ColumnSwap()
