"""Categories that training never saw: a new product, a new country."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels, _table

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.05, 0.1, 0.2, 0.35, 0.5)
"""Of the categories and groups that can have an unseen setting, each by itself."""


class UnseenCategory(_table.OnTables):
    """A declared setting that the reference never shows; of a one-hot group that may be none of its columns, none:
    what an encoder makes of a value that it doesn't know."""

    name = "unseen_category"
    touches: _table.Touches = "choices"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of categories."""
        return {"share": _levels.at(SHARE, severity)}

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """No setting that is unseen."""
        if any(bool(_unseen(edit, place).any()) for place in edit.choices):
            return None
        return (
            "the reference examples show every declared value of the categories that it may change, "
            "and no one-hot group of them may be none"
        )

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        from pruneproof.adversarial.rows import drawn

        count = len(edit.choices)
        hit, which = draws.uniform(count) < _levels.at(SHARE, severity), draws.uniform(count).double()
        others = [
            drawn(edit.allowed(position) & _unseen(edit, place), edit.picks[:, position], which[:, position])
            for position, place in enumerate(edit.choices)
        ]
        edit.choose(torch.stack(others, dim=1), hit)


def _unseen(edit: Edit, place: int) -> torch.Tensor:
    """``(settings,)`` booleans; within the column's bounds."""
    choice = edit.sheet.layout.choices[place]
    found = edit.sheet.seen[place] == 0
    if choice.column is not None:
        codes = choice.options[:, 0]
        return found & (codes >= choice.column.low) & (codes <= choice.column.high)
    found[len(choice.columns) :] = True
    return found


CORRUPTION = UnseenCategory()
