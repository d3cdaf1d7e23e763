"""Numbers in the wrong unit: cents for euros, grams for kilograms, a slipped decimal point."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field

from pruneproof.corruptions import Parameters, _levels, _table
from pruneproof.tables import Text, offer

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Of the rows, each with the error in one of the selected columns."""
Factor = Annotated[float, Field(gt=1, le=1e12)]


class Options(_table.Options):
    """How far off."""

    factors: Annotated[tuple[Factor, ...], Field(strict=False, min_length=1)] = (10.0, 100.0, 1000.0)
    """One of them is drawn for each row, all as often."""
    direction: Literal["up", "down"] = "up"
    """``"down"`` divides."""
    logarithms: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Columns that hold a natural logarithm: there ``ln(factor)`` is added."""


class ScaleError(_table.OnTables):
    """``x · factor`` (or ``x / factor``) in a share of the rows."""

    name = "scale_error"
    options: type[BaseModel] = Options

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of rows, and ``factors``."""
        assert isinstance(options, Options)
        sign = "×" if options.direction == "up" else "÷"
        factors = ", ".join(f"{sign}{factor:g}" for factor in options.factors)
        return {"share": _levels.at(SHARE, severity), "factors": factors}

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """Logarithms of columns that are not selected."""
        assert isinstance(options, Options)
        names = tuple(edit.names())
        stray = next((name for name in options.logarithms if name not in names), None)
        return (
            None if stray is None else f"logarithms names '{stray}', which it does not change ({offer(stray, names)})"
        )

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        assert isinstance(options, Options)
        count = edit.values.shape[1]
        wrong = draws.uniform(1) < _levels.at(SHARE, severity)
        column = draws.integers(count, 1) == torch.arange(count)
        which = draws.integers(len(options.factors), 1)
        factor = torch.tensor(options.factors, dtype=torch.float64)[which]
        log = torch.tensor([math.log(factor) for factor in options.factors], dtype=torch.float64)[which]
        logarithm = torch.tensor([name in options.logarithms for name in edit.names()])
        up = options.direction == "up"
        scaled = edit.values * factor if up else edit.values / factor
        edit.write(torch.where(logarithm, edit.values + (log if up else -log), scaled), wrong & column)


CORRUPTION = ScaleError()
