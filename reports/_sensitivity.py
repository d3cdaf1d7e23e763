"""Sensitivity: what it costs to prune each layer alone, as a table and a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pruneproof import summary, wording
from pruneproof.evidence import Evidence, SensitivityRow
from pruneproof.reports import _curves, _heat
from pruneproof.reports._curves import Chart, Panel, Point, Series
from pruneproof.summary import Cost

FOLDED = 24
"""Layers of a table that is shown at once; a longer one is folded up on screen."""
MEASURES = {"accuracy": "accuracy", "mae": "mean absolute error"}


@dataclass(frozen=True)
class Cell:
    """One layer at one ratio.

    Args:
        row: ``None``: not measured, because the ratio is none of the layer's units, or all.
        harm: what was lost against dense, positive for worse.
        step: colour, -4 (better) to 4 (worse).
    """

    row: SensitivityRow | None
    harm: float | None
    step: int


@dataclass(frozen=True)
class Line:
    """One layer: a cell for each ratio of the table."""

    cost: Cost
    cells: tuple[Cell, ...]
    worst: bool
    """Loses most on average."""


@dataclass(frozen=True)
class Table:
    """One recipe: layers × ratios, in the network's order.

    Args:
        units: what of a layer is removed: ``channels``.
        chart: ``None`` where no layer has a value.
    """

    recipe: str
    units: str
    measure: str
    dense: SensitivityRow
    ratios: tuple[float, ...]
    lines: tuple[Line, ...]
    first: Cost | None
    chart: Chart | None

    @property
    def folded(self) -> bool:
        """Too long to stand open on a screen."""
        return len(self.lines) > FOLDED


def tables(evidence: Evidence) -> Iterator[Table]:
    """One for each recipe that was measured."""
    costs = summary.costs(evidence)
    first = {cost.recipe: cost for cost in summary.most_sensitive(evidence)}
    for dense in (row for row in evidence.sensitivity if row.layer is None):
        own = [cost for cost in costs if cost.recipe == dense.recipe]
        ratios = tuple(sorted({row.ratio for cost in own for row in cost.rows if row.ratio is not None}))
        units = _units(evidence, dense.recipe)
        worst = first.get(dense.recipe)
        lines = tuple(Line(cost, _cells(cost, ratios), cost == worst) for cost in own)
        yield Table(dense.recipe, units, MEASURES[dense.metric], dense, ratios, lines, worst, _chart(dense, own, units))


def _units(evidence: Evidence, recipe: str) -> str:
    settings = [row.recipe for row in evidence.variants if wording.recipe(row) == recipe and row.recipe]
    return wording.units(settings[0]) if settings else "units"


def _cells(cost: Cost, ratios: Sequence[float]) -> tuple[Cell, ...]:
    rows = {row.ratio: row for row in cost.rows}
    found = []
    for ratio in ratios:
        row = rows.get(ratio)
        harm = None if row is None else summary.harm(row, cost.dense)
        found.append(Cell(row, harm, _heat.step(harm)))
    return tuple(found)


def _chart(dense: SensitivityRow, costs: Sequence[Cost], units: str) -> Chart | None:
    if dense.value is None:
        return None
    start = Point(0.0, dense.value, None, None)
    lines = [(cost, (start, *points)) for cost in summary.ranked(costs) if (points := _points(cost))]
    if not lines:
        return None
    losing = sum(cost.mean is not None and cost.mean > 0 for cost, _ in lines)
    named = min(max(1, losing), _curves.NAMED)
    series = tuple(
        Series(cost.layer, points, "main" if place == 0 else "named" if place < named else "rest")
        for place, (cost, points) in enumerate(lines[: _curves.DRAWN])
    )
    left = [points for _, points in lines[_curves.DRAWN :]]
    alone = "blocks left out, one at a time" if units == "blocks" else f"{units} removed (share of the layer's)"
    return Chart(
        title=f"Sensitivity under {dense.recipe}",
        quantity=f"{MEASURES[dense.metric]}, calibration data",
        limit_key="",
        limit=dense.value,
        panels=(Panel("", alone, series, _curves.spread(left)),),
        members=len(lines),
        hidden=len(left),
        across=f"the share of {units} removed from one layer alone",
        wide=True,
    )


def _points(cost: Cost) -> tuple[Point, ...]:
    return tuple(
        Point(row.ratio, row.value, None, None) for row in cost.rows if row.ratio is not None and row.value is not None
    )
