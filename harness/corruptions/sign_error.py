"""Numbers with the wrong sign: a refund for a payment, a debit for a credit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._table import OnTables

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.05, 0.1, 0.2, 0.35, 0.5)
"""Of the cells."""


class SignError(OnTables):
    """``-x`` in a share of the cells of columns whose bounds allow both signs."""

    name = "sign_error"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of cells."""
        return {"share": _levels.at(SHARE, severity)}

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """No column with both signs."""
        return None if bool(_signed(edit).any()) else "no column that it may change can be negative and positive"

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        hit = draws.uniform(edit.values.shape[1]) < _levels.at(SHARE, severity)
        edit.write(-edit.values, hit & _signed(edit))


def _signed(edit: Edit) -> torch.Tensor:
    import torch

    layout = edit.sheet.layout
    columns = [layout.columns[place] for place in layout.numbers[edit.numbers].tolist()]
    return torch.tensor([column.low < 0 < column.high for column in columns], dtype=torch.bool)


CORRUPTION = SignError()
