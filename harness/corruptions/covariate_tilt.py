"""Covariate shift by resampling: more examples with high values of a column, or of one segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, model_validator

from pruneproof.corruptions import EVERY, Kind, Parameters, _levels
from pruneproof.errors import SubjectError
from pruneproof.tables import Record, Text, offer

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

TILT = (0.5, 1.0, 2.0, 3.0, 5.0)
"""Exponent: how much denser, in logarithms, the highest rank gets than the lowest."""
FACTOR = (1.5, 2.0, 3.0, 5.0, 10.0)
"""By which the odds of the segment are multiplied."""


class Options(Record):
    """What gets more frequent."""

    column: Text | None = None
    """Of a table: its higher values."""
    segment: Text | None = None
    """A segment column."""
    value: Text | None = None
    """Its value."""
    direction: Literal["up", "down"] = "up"
    """``"down"``: less frequent."""

    @model_validator(mode="after")
    def _either(self) -> Options:
        if (self.column is None) == (self.segment is None) or (self.segment is None) != (self.value is None):
            raise ValueError("give 'column', or 'segment' and 'value'")
        return self


class CovariateTilt:
    """The density is tilted by ``exp(t · F(x))``, ``F`` the share of the reference below ``x`` (ties: half of them);
    or the odds of one segment are multiplied. A missing value counts as the median."""

    name = "covariate_tilt"
    kinds: frozenset[Kind] = EVERY
    options: type[BaseModel] = Options

    def refuses(self, ground: Ground, options: BaseModel) -> str | None:
        """A column that there is not. Whether there is such a segment shows when it is resampled."""
        from pruneproof.domain import Table

        assert isinstance(options, Options)
        if options.column is None:
            return None
        if not isinstance(ground.domain, Table):
            return "only a table has columns: give segment = … and value = …"
        names = tuple(column.name for column in ground.domain.columns)
        return (
            None
            if options.column in names
            else f"there is no column '{options.column}' ({offer(options.column, names)})"
        )

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """The exponent ``t``, negative where it goes down; or the ``odds_factor`` of the segment."""
        assert isinstance(options, Options)
        up = options.direction == "up"
        if options.column is not None:
            return {"t": _levels.at(TILT, severity) * (1 if up else -1)}
        factor = _levels.at(FACTOR, severity, none=1.0)
        return {"odds_factor": factor if up else 1 / factor}

    def kept(
        self,
        inputs: torch.Tensor | None,
        targets: torch.Tensor,
        segments: pd.DataFrame,
        ground: Ground,
        severity: float,
        draws: Draws,
        options: BaseModel,
    ) -> torch.Tensor:
        """``(n,)`` booleans.

        Raises:
            SubjectError: there is no such segment column or value.
        """
        from pruneproof.corruptions import _rejection

        assert isinstance(options, Options)
        if options.column is None:
            return _rejection.favoured(
                _members(segments, options),
                float(self.parameters(ground, severity, options)["odds_factor"]),
                draws,
            )
        assert inputs is not None
        ranks = _ranks(inputs, ground, options.column)
        return _rejection.tilted(ranks, float(self.parameters(ground, severity, options)["t"]), draws)


def _members(segments: pd.DataFrame, options: Options) -> torch.Tensor:
    """``(n,)`` booleans: examples of the segment."""
    import torch

    assert options.segment is not None
    assert options.value is not None
    columns = tuple(map(str, segments.columns))
    if options.segment not in columns:
        raise SubjectError(
            f"covariate_tilt: there is no segment column '{options.segment}'", offer(options.segment, columns)
        )
    found = segments.iloc[:, columns.index(options.segment)].astype(str)
    if not (found == options.value).any():
        values = tuple(sorted(set(found)))
        raise SubjectError(
            f"covariate_tilt: no test example has {options.segment} = '{options.value}'", offer(options.value, values)
        )
    return torch.from_numpy((found == options.value).to_numpy().copy())


def _ranks(inputs: torch.Tensor, ground: Ground, name: str) -> torch.Tensor:
    """``(n,)`` float64 in [0, 1]: the empirical distribution of the reference, at its middle where values tie."""
    import torch

    from pruneproof.domain import Table

    assert isinstance(ground.domain, Table)
    place = [column.name for column in ground.domain.columns].index(name)
    known = ground.reference[:, place].double()
    known = known[~known.isnan()].sort().values
    values = inputs[:, place].double().contiguous()
    below, upto = (torch.searchsorted(known, values, right=right) for right in (False, True))
    return torch.where(values.isnan(), 0.5, (below + upto).double() / (2 * max(len(known), 1)))


CORRUPTION = CovariateTilt()
