"""Cells go missing, completely at random, and stay so or are filled as a pipeline would fill them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels, _table

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.05, 0.1, 0.2, 0.35, 0.5)
"""Of the cells that can be changed; of the rows where they go missing together."""


class Options(_table.Options):
    """What the model gets to see of a missing cell, and which go missing together."""

    fill: Literal["auto", "nan", "median", "mean"] = "auto"
    """``"nan"`` where the subject allows missing values, else ``"median"``: of the reference. Categories and groups are
    filled with their commonest setting."""
    together: bool = False
    """All selected columns of a row at once, as when a source fails."""


class MissingValues(_table.OnTables):
    """A share of the cells goes missing; a total that is known stays known when its parts are lost."""

    name = "missing_values"
    options: type[BaseModel] = Options
    touches: _table.Touches = "cells"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of cells (rows), and what fills them."""
        assert isinstance(options, Options)
        return {"share": _levels.at(SHARE, severity), "fill": _fill(ground, options)}

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """NaN where it has no place."""
        assert isinstance(options, Options)
        if options.fill == "nan" and not ground.missing:
            return "fill = 'nan', and the subject does not say allow_missing"
        if _fill(ground, options) == "nan" and not ground.dtype.is_floating_point:
            return f"rows of {ground.dtype} hold no NaN: give fill = 'median'"
        return None

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        assert isinstance(options, Options)
        numbers, choices = edit.values.shape[1], edit.picks.shape[1]
        drawn = draws.uniform(1 if options.together else numbers + choices).expand(-1, numbers + choices)
        lost = drawn < _levels.at(SHARE, severity)
        fill = _fill(ground, options)
        if fill == "nan":
            spelled = torch.tensor([_none(edit, place) is not None for place in edit.choices], dtype=torch.bool)
            none = torch.tensor([_none(edit, place) or 0 for place in edit.choices], dtype=torch.int64)
            edit.choose(none.expand(len(lost), -1), lost[:, numbers:] & spelled)
            edit.lose(lost[:, :numbers], lost[:, numbers:] & ~spelled)
            return
        typical = edit.sheet.median if fill == "median" else edit.sheet.mean
        edit.write(typical[edit.numbers].expand(len(lost), -1), lost[:, :numbers])
        edit.choose(_commonest(edit).expand(len(lost), -1), lost[:, numbers:])


def _fill(ground: Ground, options: Options) -> str:
    if options.fill != "auto":
        return options.fill
    return "nan" if ground.missing and ground.dtype.is_floating_point else "median"


def _none(edit: Edit, place: int) -> int | None:
    """The setting of a one-hot group in which all its columns are 0; ``None``: there is none."""
    choice = edit.sheet.layout.choices[place]
    size = len(choice.columns)
    return size if choice.column is None and len(choice.options) > size else None


def _commonest(edit: Edit) -> torch.Tensor:
    """``(b,)`` of each selected choice."""
    import torch

    return torch.tensor([int(edit.sheet.seen[place].argmax()) for place in edit.choices], dtype=torch.int64)


CORRUPTION = MissingValues()
