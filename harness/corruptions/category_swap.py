"""Categories mistaken for one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels, _table

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.05, 0.1, 0.2, 0.35, 0.5)
"""Of the categories and groups of a row, each by itself."""


class CategorySwap(_table.OnTables):
    """Another setting of a category or a one-hot group, any that the reference has, all as often."""

    name = "category_swap"
    touches: _table.Touches = "choices"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of categories."""
        return {"share": _levels.at(SHARE, severity)}

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """No category with two settings."""
        if any(int((edit.sheet.seen[place] > 0).sum()) > 1 for place in edit.choices):
            return None
        return "no category that it may change has two settings among the reference examples"

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        from pruneproof.adversarial.rows import drawn

        count = len(edit.choices)
        hit, which = draws.uniform(count) < _levels.at(SHARE, severity), draws.uniform(count).double()
        others = [
            drawn(edit.allowed(position) & (edit.sheet.seen[place] > 0), edit.picks[:, position], which[:, position])
            for position, place in enumerate(edit.choices)
        ]
        edit.choose(torch.stack(others, dim=1), hit)


CORRUPTION = CategorySwap()
