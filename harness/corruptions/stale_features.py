"""Features that were not updated: rows hold what an earlier row held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from pruneproof.corruptions import Parameters, _levels, _table
from pruneproof.errors import MeasurementError

if TYPE_CHECKING:
    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.1, 0.2, 0.4, 0.7, 1.0)
"""Of the rows, all selected columns of each."""


class Options(_table.Options):
    """How old."""

    lag: int = Field(default=1, ge=1)
    """Rows of the test set, in its order; the first ``lag`` rows take the very first one's."""


class StaleFeatures(_table.OnTables):
    """The selected columns of the row ``lag`` rows earlier in the test set. It makes sense where the rows are in the
    order of time."""

    name = "stale_features"
    options: type[BaseModel] = Options
    touches: _table.Touches = "cells"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of rows, and ``lag`` in rows."""
        assert isinstance(options, Options)
        return {"share": _levels.at(SHARE, severity), "lag": options.lag}

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """No test set, or a shorter one."""
        assert isinstance(options, Options)
        count = 0 if ground.test is None else len(ground.test)
        return None if count > options.lag else f"lag = {options.lag}, and the test set has {count} rows"

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        assert isinstance(options, Options)
        assert ground.test is not None
        positions = torch.tensor(draws.positions, dtype=torch.int64)
        if len(positions) and int(positions.max()) >= len(ground.test):
            raise MeasurementError(
                f"stale_features: example {int(positions.max())} of a test set of {len(ground.test)}",
                "corrupt the test set that the rows are from",
            )
        earlier = edit.of(ground.test[(positions - options.lag).clamp(min=0)])
        stale = draws.uniform(1) < _levels.at(SHARE, severity)
        numbers, choices = earlier.missing()
        edit.write(earlier.values, stale & ~numbers)
        edit.choose(earlier.picks, stale & ~choices)
        edit.lose(stale & numbers, stale & choices)


CORRUPTION = StaleFeatures()
