"""Small multiples of a chapter: a drawing for each chart, which the page lays out, and one key for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from pruneproof.exhibits import Band, Line, Multiples, Panel
from pruneproof.reports._charts import COLOURS, LIMIT, _bare, _document, _inline, _plain
from pruneproof.reports._plots import LETTER, _colours, _ends, _limit, _line, _range, _ticks, drawn

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SMALL, LARGE, SWATCH = (2.1, 1.45), (3.5, 2.3), (0.42, 0.15)
"""Widths and heights of a chart, of one of few, and of a line in the key, in inches."""
FEW = 3
"""Charts that have room to be large."""
BANDED = 4
"""Lines whose intervals can be told apart in a small chart."""


@dataclass(frozen=True)
class Key:
    """What a line looks like in every chart."""

    name: str
    swatch: Markup


@dataclass(frozen=True)
class Chart:
    """One of the charts; without a drawing where no line has a point."""

    title: str
    limit: str
    drawing: Markup | None


@dataclass(frozen=True)
class Charts:
    """All of them.

    Args:
        notes: what is said once, of all.
        few: whether they are large.
        pinned: whether the key is short enough to stay on the screen.
    """

    panels: tuple[Chart, ...]
    keys: tuple[Key, ...]
    notes: str
    few: bool
    pinned: bool


@dataclass(frozen=True)
class _Frame:
    """What all charts share.

    Args:
        styles: of each line its colour, and where there are few of them the place of its dash and marker.
        short: whether there is room for more numbers below a small chart, since they are short.
        bands: whether intervals are drawn.
    """

    few: bool
    x: tuple[float, float]
    y: tuple[float, float]
    styles: dict[str, tuple[str, int | None]]
    short: bool
    bands: bool


def charts(multiples: Multiples, slug: str) -> Charts | None:
    """Drawings whose ids start with ``slug``; ``None`` where no line has a point."""
    if not any(_drawn(panel) for panel in multiples.panels):
        return None
    frame = _frame(multiples)
    panels = tuple(_chart(multiples, panel, frame, f"{slug}p{at}") for at, panel in enumerate(multiples.panels, 1))
    keys = [Key(name, _swatch(f"{slug}k{at}", *style)) for at, (name, style) in enumerate(frame.styles.items(), 1)]
    if any(panel.limit is not None for panel in multiples.panels):
        keys.append(Key("limit", _swatch(f"{slug}k0", LIMIT, None)))
    return Charts(panels, tuple(keys), _notes(multiples, frame), frame.few, len(frame.styles) <= len(COLOURS))


def _drawn(panel: Panel) -> list[Line]:
    """The lines that have points, each with its points from left to right."""
    return drawn(panel.lines)


def _frame(multiples: Multiples) -> _Frame:
    lines = [line for panel in multiples.panels for line in _drawn(panel)]
    names = list(dict.fromkeys(line.name for line in lines))
    many = len(names) > len(COLOURS)
    few = len(multiples.panels) <= FEW
    bands = len(names) <= (len(COLOURS) if few else BANDED)
    heights = [end for line in lines for point in line.points for end in _ends(point, bands)]
    heights += [panel.limit for panel in multiples.panels if panel.limit is not None]
    places = [point.x for line in lines for point in line.points]
    return _Frame(
        few=few,
        x=_range(places, 0.05),
        y=_range(heights, 0.07),
        styles={
            name: (colour, None if many else place)
            for place, (name, colour) in enumerate(zip(names, _colours(len(names)), strict=True))
        },
        short=all(len(f"{x:g}") <= 2 for x in places),
        bands=bands,
    )


def _notes(multiples: Multiples, frame: _Frame) -> str:
    """What runs where, for charts that have no room for it; and where the intervals are that are not drawn."""
    up = f"{multiples.y} upwards, " if multiples.y else ""
    told = [] if frame.few else [f"The axes are the same in every chart: {up}{multiples.x} to the right."]
    points = [point for panel in multiples.panels for line in panel.lines for point in line.points]
    if not frame.bands and any(len(_ends(point, bands=True)) > 1 for point in points):
        told.append("Intervals are in the table.")
    return " ".join(told)


def _chart(multiples: Multiples, panel: Panel, frame: _Frame, slug: str) -> Chart:
    limit = "" if panel.limit is None else f"limit {panel.limit:g}"
    if not _drawn(panel):
        return Chart(panel.title, limit, None)
    lines = len(_drawn(panel))
    axes = f"{multiples.y} against {multiples.x}" if multiples.y else f"against {multiples.x}"
    told = [axes, f"{lines} {'line' if lines == 1 else 'lines'}", *([limit] if limit else [])]
    alt = f"{multiples.title}, {panel.title}: {', '.join(told)}. The values are in the table that follows."
    document = _document(slug, LARGE if frame.few else SMALL, lambda figure: _fill(figure, multiples, panel, frame))
    return Chart(panel.title, limit, Markup(_inline(document, slug, panel.title, alt)))


def _fill(figure: Figure, multiples: Multiples, panel: Panel, frame: _Frame) -> None:
    axes = figure.subplots()
    width, height = LARGE if frame.few else SMALL
    axes.set_xlim(*frame.x)
    axes.set_ylim(*frame.y)
    _ticks(axes, 6 if frame.few or frame.short else 4, 6 if frame.few else 4)
    left, bottom = 0.14 + LETTER * max(map(len, _labels(axes.yaxis, frame.y)), default=0), 0.24
    if frame.few:
        axes.set_xlabel(_plain(multiples.x, 50))
        axes.set_ylabel(_plain(multiples.y, 32))
        left, bottom = left + 0.24, bottom + 0.2
    figure.subplots_adjust(left=left / width, right=1 - 0.06 / width, top=1 - 0.08 / height, bottom=bottom / height)
    _limit(axes, panel.limit)
    for line in reversed(_drawn(panel)):
        _line(axes, line if frame.bands else _bare_line(line), *frame.styles[line.name], size=1.0 if frame.few else 0.8)


def _labels(axis: Axis, ends: tuple[float, float]) -> list[str]:
    """What is written beside the axis."""
    ticks = axis.get_major_locator().tick_values(*ends)
    return [axis.get_major_formatter()(tick) for tick in ticks if ends[0] <= tick <= ends[1]]


def _bare_line(line: Line) -> Line:
    return line.model_copy(update={"points": [Band(x=point.x, y=point.y) for point in line.points]})


def _swatch(slug: str, colour: str, place: int | None) -> Markup:
    """A piece of the line, for the key; its name stands beside it."""
    line = Line(name="", points=[Band(x=x, y=0) for x in (-2, 0, 2)])

    def fill(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-1, 1)
        axes.set_ylim(-1, 1)
        if colour == LIMIT:
            _limit(axes, 0)
        else:
            _line(axes, line, colour, place, marked=[1])

    return Markup(_bare(_document(slug, SWATCH, fill), slug, 'class="swatch" aria-hidden="true"'))
