"""Chapters as reports show them: tables in sheets that fit on paper, charts with their values, heat maps, galleries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, zip_longest

from pruneproof.exhibits import Chapter, Curves, Exhibit, Matrix, Multiples, Picture, Shot, Table
from pruneproof.reports import _sheets
from pruneproof.reports._sheets import Group, Sheet

FOLDED = 24
"""Rows of a table that is shown at once; a longer one is folded up on screen, but for the rows that call for it."""
SHOTS = 12
"""Examples of a gallery that are shown at once."""


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
        signed: whether the numbers of a heat map are differences, worse above 0.
    """

    number: int
    kind: str
    title: str
    about: str
    listed: Listed | None = None
    curves: Curves | None = None
    multiples: Multiples | None = None
    signed: bool = False
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
        return replace(view, curves=exhibit, sheets=tuple(_sheets.of_curves(exhibit)))
    if isinstance(exhibit, Multiples):
        return replace(view, multiples=exhibit, sheets=tuple(_sheets.of_multiples(exhibit)))
    if isinstance(exhibit, Matrix):
        return replace(view, signed=exhibit.signed, sheets=tuple(_sheets.of_matrix(exhibit)))
    return replace(view, shots=tuple((shot, _framed(shot)) for shot in exhibit.shots))


def _listed(table: Table) -> Listed:
    sheet = _sheets.of_table(table)
    folded = len(sheet.rows) > FOLDED
    calling = [row for row in sheet.rows if row.mark in ("fail", "inconclusive")]
    if not folded or not calling:
        return Listed(sheet, folded, None, 0)
    shown = {id(row) for row in calling[:FOLDED]}
    groups = [Group(group.name, tuple(row for row in group.rows if id(row) in shown)) for group in sheet.groups]
    urgent = replace(sheet, groups=tuple(group for group in groups if group.rows))
    return Listed(sheet, folded, urgent, len(calling) - len(shown))


def _framed(shot: Shot) -> tuple[Framed, ...]:
    return tuple(
        Framed(picture, caption or "") for picture, caption in zip_longest(shot.pictures, shot.captions, fillvalue=None)
    )
