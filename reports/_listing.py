"""Chapters as Markdown: tables, and what is drawn elsewhere as tables of its values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pruneproof import wording
from pruneproof.exhibits import Chapter
from pruneproof.reports import _exhibits, _sheets
from pruneproof.reports._exhibits import Part, View
from pruneproof.reports._sheets import Row, Sheet

ROWS, SHOTS = 24, 6
"""Of each table and gallery; what is left out is counted."""


def chapters(found: Sequence[Chapter]) -> list[str]:
    """Each one folded up, so that what comes before it stays on one screen."""
    return [line for part in _exhibits.parts(found) for line in _chapter(part)]


def _chapter(part: Part) -> Iterator[str]:
    yield from ("", "<details>", f"<summary>{escaped(part.title)} (suite {escaped(part.suite)})</summary>")
    if not part.views:
        yield from ("", "The suite has nothing to show.")
    for view in part.views:
        yield from ("", f"### {escaped(view.title)}", "")
        if view.about:
            yield from (_line(view.about), "")
        yield from _exhibit(view)
    yield from ("", "</details>")


def _exhibit(view: View) -> Iterator[str]:
    sheets = (view.listed.sheet,) if view.listed else view.sheets
    if view.kind == "gallery":
        yield from _gallery(view)
    elif not sheets:
        yield "There is nothing to show."
    elif view.signed:
        yield from ("Above 0 is worse, below 0 better.", "")
    for place, sheet in enumerate(sheets):
        yield from ([""] if place else [])
        yield from _sheet(sheet)


def _sheet(sheet: Sheet) -> Iterator[str]:
    """Rows that call for it come first where not all of them are shown; a group's name is a column here."""
    told = [("Numbers", sheet.numbers), ("Columns", sheet.across)]
    if any(what for _, what in told):
        yield from (" ".join(f"{name}: {escaped(what)}." for name, what in told if what), "")
    grouped = bool(sheet.by)
    rows = [(group.name, row) for group in sheet.groups for row in group.rows]
    if len(rows) > ROWS:
        worst = list(_sheets.STATES)[:2]
        rows.sort(key=lambda entry: worst.index(entry[1].mark) if entry[1].mark in worst else len(worst))
    heads = [*([sheet.by] if grouped else []), sheet.corner, *(name for name, _ in sheet.columns)]
    rules = ["---" for _ in heads[: 1 + grouped]] + ["--:" if numeric else "---" for _, numeric in sheet.columns]
    if sheet.marked:
        heads, rules = [*heads, ""], [*rules, "---"]
    yield f"| {' | '.join(map(escaped, heads))} |"
    yield f"|{'|'.join(rules)}|"
    for name, row in rows[:ROWS]:
        yield _row(row, [name] if grouped else [], sheet.marked)
    if len(rows) > ROWS:
        yield from ("", f"… and {wording.plural(len(rows) - ROWS, 'more row')}.")


def _row(row: Row, first: list[str], marked: bool) -> str:
    texts = [*first, row.head.text, *(f"{cell.text} {cell.interval}" for cell in row.cells)]
    state = [] if not marked else [""] if row.mark is None else [f"{_sheets.glyph(row.mark)} {row.mark}"]
    return f"| {' | '.join([*map(escaped, texts), *state])} |"


def _gallery(view: View) -> Iterator[str]:
    """Captions and texts; there are no pictures in Markdown that needs no further file."""
    if not view.shots:
        yield "There is no example to show."
    for shot, framed in view.shots[:SHOTS]:
        captions = "; ".join(escaped(entry.caption) for entry in framed if entry.caption)
        yield f"- **{escaped(shot.title) or 'Example'}**{': ' if captions else ''}{captions}"
        yield from (f"  {_line(line)}<br>" for line in shot.text.splitlines() if line.strip())
    if len(view.shots) > SHOTS:
        yield from ("", f"… and {wording.plural(len(view.shots) - SHOTS, 'more example')}.")


def escaped(text: str) -> str:
    """Text of users on one line, in which no character means anything to Markdown."""
    line = " ".join(wording.clean(text).split())
    return re.sub(r"[!-/:-@\[-`{-~]", lambda found: _entity(found[0]), line)


def _line(text: str) -> str:
    """As :func:`escaped`, where the first character could begin a list or a rule."""
    shown = escaped(text)
    return f"&#{ord(shown[0])};{shown[1:]}" if shown[:1] in tuple("-=:.,0123456789") else shown


def _entity(char: str) -> str:
    """What is only punctuation inside a line stays readable in the source."""
    return char if char in "%'(),-./:;?=" else f"&#{ord(char)};"
