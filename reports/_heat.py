"""Segment heat maps: who loses how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pruneproof.evidence import Evidence, MeasurementRow
from pruneproof.reports import _matrix
from pruneproof.reports._matrix import Column

STEPS = (0.005, 0.02, 0.05, 0.1)
"""Where the colour deepens: shares lost or gained."""


@dataclass(frozen=True)
class Cell:
    """A segment of a variant.

    Args:
        value: harm: what was lost, positive for worse than dense.
        step: colour, -4 (better) to 4 (worse).
        n: examples that it rests on.
        small: too few of them for a verdict.
    """

    value: float | None
    step: int
    n: int
    small: bool


@dataclass(frozen=True)
class HeatMap:
    """Segments × variants, grouped by column of the data."""

    title: str
    explanation: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[str, tuple[tuple[str, tuple[Cell, ...]], ...]], ...]


Table = dict[tuple[str, str], dict[str, MeasurementRow]]
"""(column, value) → variant → measurement."""


def heat_maps(evidence: Evidence) -> Iterator[HeatMap]:
    """Loss of accuracy (of a regression: rise of the mean absolute error), and the excess accuracy gap."""
    every = [column for column in _matrix.columns(evidence) if not _failed(evidence, column.name)]
    for start in range(0, len(every), _matrix.COLUMNS + 1):
        part = every[start : start + _matrix.COLUMNS + 1]
        if table := _table(evidence, "accuracy"):
            yield _map(
                "Drop of accuracy from dense",
                "Accuracy of dense minus accuracy of the variant, on the segment's test examples.",
                part,
                table,
                lost=1.0,
            )
        if table := _table(evidence, "mae"):
            yield _map(
                "Rise of the mean absolute error over dense",
                "Mean absolute error of the variant minus that of dense, relative to dense.",
                part,
                table,
                lost=-1.0,
            )
        if table := _table(evidence, "excess_accuracy_gap"):
            yield _map(
                "Excess accuracy gap",
                "The segment's drop of accuracy minus the drop on the whole test set.",
                part,
                table,
                lost=None,
            )


def _failed(evidence: Evidence, name: str) -> bool:
    return not any(row.variant == name for row in evidence.measurements)


def _table(evidence: Evidence, metric: str) -> Table:
    found: Table = {}
    for row in evidence.measurements:
        if row.suite == "segments" and row.metric == metric and row.segment and "by" not in row.segment:
            ((column, value),) = row.segment.items()
            found.setdefault((column, value), {})[row.variant] = row
    return found


def _map(title: str, explanation: str, part: Sequence[Column], table: Table, lost: float | None) -> HeatMap:
    groups: dict[str, list[tuple[str, tuple[Cell, ...]]]] = {}
    for (column, value), rows in table.items():
        cells = tuple(_cell(rows.get(variant.name), rows.get("dense"), lost) for variant in part)
        groups.setdefault(column, []).append((value, cells))
    return HeatMap(title, explanation, tuple(part), tuple((name, tuple(rows)) for name, rows in groups.items()))


def _cell(row: MeasurementRow | None, dense: MeasurementRow | None, lost: float | None) -> Cell:
    if row is None:
        return Cell(None, 0, 0, False)
    harm = row.value if lost is None else None
    if lost is not None and row.value is not None and dense is not None and dense.value is not None:
        harm = lost * (dense.value - row.value)
        if lost < 0 and dense.value:
            harm /= abs(dense.value)
    return Cell(harm, step(harm), row.n, row.small)


def step(harm: float | None) -> int:
    """Colour of a cell, -4 (better) to 4 (worse)."""
    if harm is None:
        return 0
    size = sum(round(abs(harm), 9) >= least for least in STEPS)
    return size if harm > 0 else -size
