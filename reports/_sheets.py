"""Sheets: the tables of a chapter, every value in words, in columns that fit on paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from pruneproof import wording
from pruneproof.exhibits import Band, Curves, Line, Mark, Matrix, Multiples, Panel, Table, Value
from pruneproof.reports import _heat
from pruneproof.verdicts import GLYPHS, Verdict

ABREAST, NARROW = 6, 12
"""Columns side by side that still fit on paper: with intervals, and of single numbers."""
SHORT, LONG, WORD = 20, 40, 30
"""Letters of a cell that stays on one line, of one that needs room, and of a word that may be broken."""
STATES: dict[Mark, Verdict] = {"fail": Verdict.FAIL, "inconclusive": Verdict.INCONCLUSIVE, "pass": Verdict.PASS}
"""Worst first."""
LEVELS = 5
"""Colours of a heat map, of equal widths over [0, 1]."""
NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A value in words.

    Args:
        kind: ``"number"``, ``"none"`` (no number), ``"blank"`` (no text), or how much room the text needs:
            ``"short"``, ``"text"``, ``"words"``, ``"long"``.
        interval: of a number that has one.
        shade: class of its colour in a heat map; empty: no colour.
    """

    text: str
    kind: str
    interval: str = ""
    shade: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a sheet; ``head`` names it."""

    head: Cell
    cells: tuple[Cell, ...]
    mark: Mark | None = None


@dataclass(frozen=True)
class Group:
    """Rows that belong together; without a name where the sheet has no groups."""

    name: str
    rows: tuple[Row, ...]

    @property
    def states(self) -> str:
        """``2 fail, 1 inconclusive``."""
        return states(self.rows)


@dataclass(frozen=True)
class Sheet:
    """A table that fits on paper.

    Args:
        corner: over the row's names.
        columns: name, and whether they are numbers.
        across: what the columns are, where one name stands for all of them.
        by: what the groups are; empty where there are none.
        marked: whether rows have states.
        part: which of the table's columns these are, where it has more.
        numbers: what they are, where it is the same of all of them.
    """

    corner: str
    columns: tuple[tuple[str, bool], ...]
    groups: tuple[Group, ...]
    across: str = ""
    by: str = ""
    marked: bool = False
    part: str = ""
    numbers: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of all groups."""
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def width(self) -> int:
        """Columns, that of the rows' names and that of the states among them."""
        return 1 + len(self.columns) + self.marked


def states(rows: Sequence[Row]) -> str:
    """How many rows are in which state, worst first; nothing where none is."""
    found = Counter(row.mark for row in rows)
    return ", ".join(f"{found[mark]} {wording.WORDS[STATES[mark]].lower()}" for mark in STATES if found[mark])


def glyph(mark: Mark) -> str:
    """The sign that the report has for this state everywhere."""
    return GLYPHS[STATES[mark]]


def cell(value: Value) -> Cell:
    """A count, a number, or a text with the room that it needs."""
    if value is None:
        return Cell(NOTHING, "none")
    if isinstance(value, int):
        return Cell(wording.count(value), "number")
    if isinstance(value, float):
        tiny = value != 0 and abs(value) < 0.001
        return Cell(f"{value:.2g}" if tiny else wording.number(value), "number")
    return _text(value)


def _setting(value: Value) -> Cell:
    """A value among texts: numbers as they were given, such as a seed."""
    return Cell(NOTHING, "blank") if value is None else _text(str(value))


def _text(value: str) -> Cell:
    if any(len(word) > WORD for word in value.split()):
        return Cell(value, "long")
    return Cell(value, "words" if len(value) > LONG else "text" if len(value) > SHORT else "short")


def of_table(table: Table) -> Sheet:
    """Rows that follow each other with the same first text are one group, which takes the first column's place."""
    first = [row[0] for row in table.rows]
    grouped = (
        len(table.columns) > 2
        and all(isinstance(value, str) for value in first)
        and any(value == other for value, other in pairwise(first))
    )
    start = 1 if grouped else 0
    numeric = [_numeric([row[place] for row in table.rows]) for place in range(len(table.columns))]
    marks = table.marks or [None] * len(table.rows)
    rows = []
    for values, mark in zip(table.rows, marks, strict=True):
        shown = [cell(value) if number else _setting(value) for value, number in zip(values, numeric, strict=True)]
        rows.append((str(values[0]) if grouped else "", Row(shown[start], tuple(shown[start + 1 :]), mark)))
    groups = tuple(Group(name, tuple(row for _, row in own)) for name, own in groupby(rows, key=lambda row: row[0]))
    columns = tuple(zip(table.columns[start + 1 :], numeric[start + 1 :], strict=True))
    return Sheet(table.columns[start], columns, groups, by=table.columns[0] if grouped else "", marked=any(marks))


def _numeric(column: Sequence[Value]) -> bool:
    given = [value for value in column if value is not None]
    return bool(given) and not any(isinstance(value, str) for value in given)


def of_curves(curves: Curves) -> Iterator[Sheet]:
    """The numbers of the curves: the longer of lines and places runs down the page."""
    lines = [line for line in curves.lines if line.points]
    turned = len(lines) < len(_places(lines))
    yield from _charted(curves, [line.name for line in lines], [("", lines)], turned)


def of_multiples(multiples: Multiples) -> Iterator[Sheet]:
    """The numbers of small charts, a group for each of them: in as few tables as can be, and then as few rows."""
    panels = [(panel, {line.name: line for line in panel.lines if line.points}) for panel in multiples.panels]
    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    wide, long = len(_places([line for _, lines in panels for line in lines.values()])), len(names)
    turned = (-(-long // ABREAST), wide) < (-(-wide // ABREAST), long)
    groups = [(_called(panel), [lines.get(name) for name in names]) for panel, lines in panels if lines]
    yield from _charted(multiples, names, groups, turned, by="Chart")


def _called(panel: Panel) -> str:
    return panel.title if panel.limit is None else f"{panel.title} (limit {panel.limit:g})"


def _charted(
    chart: Curves | Multiples,
    names: Sequence[str],
    groups: Sequence[tuple[str, Sequence[Line | None]]],
    turned: bool,
    by: str = "",
) -> Iterator[Sheet]:
    """A row for each line, or ``turned`` for each place; of several groups without those that have no value."""
    places = _places([line for _, lines in groups for line in lines if line])
    labels = _labels(places)
    rows = []
    for title, lines in groups:
        points = [{point.x: point for point in line.points} if line else {} for line in lines]
        table = [[_band(own.get(x)) for x in places] for own in points]
        if turned:
            table = [[row[at] for row in table] for at in range(len(places))]
        named = list(zip(labels if turned else names, table, strict=True))
        rows.append((title, [(name, row) for name, row in named if any(cell.kind == "number" for cell in row)]))
    corner, columns, across = (chart.x, names, "") if turned else ("", labels, chart.x)
    yield from _split(across, columns, rows, corner, by=by, numbers=chart.y)


def _places(lines: Sequence[Line]) -> list[float]:
    return sorted({point.x for line in lines for point in line.points})


def _labels(places: Sequence[float]) -> list[str]:
    """Numbers with as few digits, from four on, as tell them apart."""
    digits = next((n for n in range(4, 17) if len({f"{x:.{n}g}" for x in places}) == len(places)), 17)
    return [f"{x:.{digits}g}" for x in places]


def _band(point: Band | None) -> Cell:
    if point is None:
        return cell(None)
    ends = (point.lower, point.upper)
    if ends == (None, None):
        return cell(point.y)
    lower, upper = (NOTHING if end is None else cell(end).text for end in ends)
    return Cell(cell(point.y).text, "number", f"[{lower}, {upper}]")


def of_matrix(matrix: Matrix) -> Iterator[Sheet]:
    """The numbers of a heat map and their colours."""
    shade = _harm if matrix.signed else _share
    rows = [(name, [shade(value) for value in row]) for name, row in zip(matrix.rows, matrix.values, strict=True)]
    yield from _split(matrix.across, matrix.columns, [("", rows)], corner=matrix.down, abreast=NARROW)


def _share(value: float | None) -> Cell:
    if value is None:
        return cell(None)
    return Cell(f"{value:.3f}", "number", shade=f"share-{min(int(value * LEVELS), LEVELS - 1)}")


def _harm(value: float | None) -> Cell:
    """With its sign, in the colours of the segments."""
    if value is None:
        return cell(None)
    text, step = f"{value:+.3f}", _heat.step(value)
    shade = "" if step == 0 else f"{'worse' if step > 0 else 'better'}-{abs(step)}"
    return Cell(text if text.strip("+-0.") else "0.000", "number", shade=shade)


def _split(
    across: str,
    columns: Sequence[str],
    groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[Cell]]]]],
    corner: str,
    abreast: int = ABREAST,
    by: str = "",
    numbers: str = "",
) -> Iterator[Sheet]:
    """One sheet for every ``abreast`` columns; none where there is nothing to show."""
    for start in range(0, len(columns) if any(rows for _, rows in groups) else 0, abreast):
        end = min(start + abreast, len(columns))
        own = tuple(
            Group(title, tuple(Row(cell(name), tuple(cells[start:end])) for name, cells in rows))
            for title, rows in groups
        )
        part = f"Columns {start + 1} to {end} of {len(columns)}" if len(columns) > abreast else ""
        shown = tuple((name, True) for name in columns[start:end])
        yield Sheet(corner, shown, own, across, by=by, part=part, numbers=numbers)
