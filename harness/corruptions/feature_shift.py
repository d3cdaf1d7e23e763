"""All rows off by as much, in one direction: a sensor out of calibration, a drift of the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels, _table

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

OFFSET = (0.1, 0.25, 0.5, 1.0, 2.0)
"""In spreads: interquartile range / 1.349, or the standard deviation where that is 0."""


class Options(_table.Options):
    """Which way."""

    direction: Literal["up", "down"] = "up"


class FeatureShift(_table.OnTables):
    """``x ± offset · spread`` of every selected column, in every row."""

    name = "feature_shift"
    options: type[BaseModel] = Options

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``offset`` in spreads, negative where it goes down."""
        assert isinstance(options, Options)
        return {"offset": _levels.at(OFFSET, severity) * (1 if options.direction == "up" else -1)}

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        offset = float(self.parameters(ground, severity, options)["offset"])
        every = torch.ones_like(edit.values, dtype=torch.bool)
        edit.write(edit.values + offset * edit.sheet.spread[edit.numbers], every)


CORRUPTION = FeatureShift()
