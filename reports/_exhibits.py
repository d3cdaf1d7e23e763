"""Chapters as reports show them: tables in sheets that fit on paper, curves with their values, heat maps, galleries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby, pairwise, zip_longest

from pruneproof import wording
from pruneproof.exhibits import Band, Chapter, Curves, Exhibit, Mark, Matrix, Picture, Shot, Table, Value
from pruneproof.verdicts import GLYPHS, Verdict

FOLDED = 24
"""Rows of a table that is shown at once; a longer one is folded up on screen, but for the rows that call for it."""
SHOTS = 12
"""Examples of a gallery that are shown at once."""
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
        level: colour of a heat map, 0 to 4; ``None``: no colour.
    """

    text: str
    kind: str
    interval: str = ""
    level: int | None = None


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
    """

    corner: str
    columns: tuple[tuple[str, bool], ...]
    groups: tuple[Group, ...]
    across: str = ""
    by: str = ""
    marked: bool = False
    part: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of all groups."""
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def width(self) -> int:
        """Columns, that of the rows' names and that of the states among them."""
        return 1 + len(self.columns) + self.marked


@dataclass(frozen=True)
class Listed:
    """A table.

    Args:
        urgent: of a long one the rows that fail or are undecided, ``None`` where there are none.
        left: how many of those are in ``sheet`` only.
    """

    sheet: Sheet
    folded: bool
    urgent: Sheet | None
    left: int


@dataclass(frozen=True)
class Framed:
    """A picture of a shot and what is said of it."""

    picture: Picture | None
    caption: str


@dataclass(frozen=True)
class View:
    """An exhibit, ready to be laid out; what it has none of is empty.

    Args:
        number: of the exhibit in the report, from 1.
    """

    number: int
    kind: str
    title: str
    about: str
    listed: Listed | None = None
    curves: Curves | None = None
    sheets: tuple[Sheet, ...] = ()
    shots: tuple[tuple[Shot, tuple[Framed, ...]], ...] = ()

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Of all shots."""
        return tuple(picture for shot, _ in self.shots for picture in shot.pictures)

    @property
    def folded(self) -> bool:
        """Whether a heat map is too large to stand open on a screen."""
        return len(self.sheets) > 1 or any(len(sheet.rows) > FOLDED for sheet in self.sheets)

    @property
    def differs(self) -> bool:
        """Whether there are differences among the pictures."""
        return any(picture.signed for picture in self.pictures)


@dataclass(frozen=True)
class Part:
    """A chapter."""

    title: str
    suite: str
    views: tuple[View, ...]


def parts(chapters: Sequence[Chapter]) -> Iterator[Part]:
    """Every chapter, in the evidence's order."""
    number = count(1)
    for chapter in chapters:
        views = tuple(_view(exhibit, next(number)) for exhibit in chapter.exhibits)
        yield Part(chapter.title, chapter.suite, views)


def _view(exhibit: Exhibit, number: int) -> View:
    view = View(number, exhibit.kind, exhibit.title, exhibit.about)
    if isinstance(exhibit, Table):
        return replace(view, listed=_listed(exhibit) if exhibit.rows and exhibit.columns else None)
    if isinstance(exhibit, Curves):
        return replace(view, curves=exhibit, sheets=tuple(values(exhibit)))
    if isinstance(exhibit, Matrix):
        return replace(view, sheets=tuple(_heat(exhibit)))
    return replace(view, shots=tuple((shot, _framed(shot)) for shot in exhibit.shots))


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


def _listed(table: Table) -> Listed:
    sheet = _sheet(table)
    folded = len(sheet.rows) > FOLDED
    calling = [row for row in sheet.rows if row.mark in ("fail", "inconclusive")]
    if not folded or not calling:
        return Listed(sheet, folded, None, 0)
    shown = {id(row) for row in calling[:FOLDED]}
    groups = [Group(group.name, tuple(row for row in group.rows if id(row) in shown)) for group in sheet.groups]
    urgent = replace(sheet, groups=tuple(group for group in groups if group.rows))
    return Listed(sheet, folded, urgent, len(calling) - len(shown))


def _sheet(table: Table) -> Sheet:
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


def values(curves: Curves) -> Iterator[Sheet]:
    """The numbers of the curves: the longer of lines and places runs down the page."""
    places = sorted({point.x for line in curves.lines for point in line.points})
    names = _labels(places)
    table = [[{p.x: p for p in line.points}.get(x) for x in places] for line in curves.lines if line.points]
    lines = [line.name for line in curves.lines if line.points]
    if len(lines) >= len(places):
        yield from _split(curves.x, lines, [(name, True) for name in names], [list(map(_band, row)) for row in table])
    else:
        turned = [[_band(row[place]) for row in table] for place in range(len(places))]
        yield from _split("", names, [(name, True) for name in lines], turned, corner=curves.x)


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


def _heat(matrix: Matrix) -> Iterator[Sheet]:
    columns = [(name, True) for name in matrix.columns]
    cells = [[_share(value) for value in row] for row in matrix.values]
    yield from _split(matrix.across, matrix.rows, columns, cells, corner=matrix.down, abreast=NARROW)


def _share(value: float | None) -> Cell:
    if value is None:
        return cell(None)
    return Cell(f"{value:.3f}", "number", level=min(int(value * LEVELS), LEVELS - 1))


def _split(
    across: str,
    names: Sequence[str],
    columns: Sequence[tuple[str, bool]],
    cells: Sequence[Sequence[Cell]],
    corner: str = "",
    abreast: int = ABREAST,
) -> Iterator[Sheet]:
    """One sheet for every ``abreast`` columns; none where there is nothing to show."""
    for start in range(0, len(columns) if names else 0, abreast):
        end = min(start + abreast, len(columns))
        rows = [Row(cell(name), tuple(row[start:end])) for name, row in zip(names, cells, strict=True)]
        part = f"Columns {start + 1} to {end} of {len(columns)}" if len(columns) > abreast else ""
        yield Sheet(corner, tuple(columns[start:end]), (Group("", tuple(rows)),), across, part=part)


def _framed(shot: Shot) -> tuple[Framed, ...]:
    return tuple(
        Framed(picture, caption or "") for picture, caption in zip_longest(shot.pictures, shot.captions, fillvalue=None)
    )
