"""Draws the curves of a chapter as SVG, as the charts of the gates are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pruneproof.exhibits import Band, Curves, Line
from pruneproof.reports._charts import (
    COLOURS,
    INK,
    LIMIT,
    LONG_LABEL,
    _document,
    _inline,
    _plain,
    _spread,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT, ROOM = 10.2, 3.4, 3.1
"""Of the drawing, and of the names at its right where they are long, in inches."""
LETTER = 0.068
"""Width of a name's letter, in inches."""
NAMED = 10
"""Names that fit beside the axes."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 1)),
                           (0, (10, 2)), (0, (5, 2, 5, 2, 1, 2)))  # fmt: skip
"""Of the first lines, so that they can be told apart without colours."""


def drawn(lines: Sequence[Line]) -> list[Line]:
    """The lines that have points, each with its points from left to right."""
    return [
        line.model_copy(update={"points": sorted(line.points, key=lambda point: point.x)})
        for line in lines
        if line.points
    ]


def many(curves: Curves) -> bool:
    """More lines than there are colours: they shade from dark to light, and intervals are left to the table."""
    return len(drawn(curves.lines)) > len(COLOURS)


def svg(curves: Curves, slug: str) -> str:
    """The curves as one ``<svg>`` element whose ids start with ``slug``; at least one line needs a point."""

    def fill(figure: Figure) -> None:
        _fill(figure.subplots(), curves)
        room = min(ROOM, 0.7 + LETTER * max(len(line.name) for line in drawn(curves.lines)))
        figure.subplots_adjust(left=0.75 / WIDTH, right=1 - room / WIDTH, top=1 - 0.15 / HEIGHT, bottom=0.55 / HEIGHT)

    lines = len(drawn(curves.lines))
    alt = f"{curves.title}: {curves.y} against {curves.x}, {lines} {'line' if lines == 1 else 'lines'}. "
    document = _document(slug, (WIDTH, HEIGHT), fill)
    return _inline(document, slug, curves.title, f"{alt}The values are in the table that follows.")


def _fill(axes: Axes, curves: Curves) -> None:
    lines = drawn(curves.lines)
    axes.set_xlabel(_plain(curves.x, 90))
    axes.set_ylabel(_plain(curves.y, 40))
    _ticks(axes, 7, 7)
    axes.set_xlim(*_range([point.x for line in lines for point in line.points], 0.03))
    heights = [end for line in lines for point in line.points for end in _ends(point, bands=not many(curves))]
    axes.set_ylim(*_range(heights if curves.limit is None else [*heights, curves.limit], 0.07))
    _limit(axes, curves.limit)
    colours = _colours(len(lines))
    for place, (line, colour) in reversed(list(enumerate(zip(lines, colours, strict=True)))):
        _line(axes, line, colour, None if many(curves) else place)
    _names(axes, lines, colours, curves.limit)


def _ticks(axes: Axes, across: int, up: int) -> None:
    """At round numbers, with at most so many steps between them."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.tick_params(length=3)
    for axis, most in ((axes.xaxis, across), (axes.yaxis, up)):
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value, 9):,g}"))


def _limit(axes: Axes, limit: float | None) -> None:
    if limit is not None:
        axes.axhline(limit, color=LIMIT, linestyle=(0, (5, 3)), linewidth=1.2, zorder=2)


def _ends(point: Band, bands: bool) -> list[float]:
    given = (point.y, point.lower, point.upper) if bands else (point.y,)
    return [value for value in given if value is not None]


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Room for all of them, also where they are one."""
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.1 or 0.1
    return low - room, high + room


def _colours(n: int) -> list[str]:
    """The report's own; of more lines shades that even without colour run from dark to light, readable on white."""
    import matplotlib
    from matplotlib.colors import to_hex

    if n <= len(COLOURS):
        return list(COLOURS[:n])
    shades = matplotlib.colormaps["cividis"]
    return [to_hex(shades(0.68 * place / (n - 1))) for place in range(n)]


def _line(
    axes: Axes, line: Line, colour: str, place: int | None, size: float = 1.0, marked: list[int] | None = None
) -> None:
    """``place`` among the first few, which have a dash and a marker of their own, and their intervals.

    Args:
        size: of strokes and markers, in those of a wide chart.
        marked: places of the points that have a marker; ``None``: all.
    """
    across, values = [point.x for point in line.points], [point.y for point in line.points]
    if place is None:
        axes.plot(across, values, color=colour, linewidth=1.1 * size, marker=".", markersize=4 * size,
                  markevery=marked, zorder=4)  # fmt: skip
        return
    axes.plot(across, values, color=colour, linewidth=1.7 * size, linestyle=DASHES[place], zorder=4)
    axes.plot(across, values, color=colour, linestyle="", marker=MARKERS[place], markersize=5 * size,
              markeredgecolor="white", markeredgewidth=0.5 * size, markevery=marked, zorder=5)  # fmt: skip
    within = [(p.x, p.lower, p.upper) for p in line.points if p.lower is not None and p.upper is not None]
    if within:
        at, low, high = zip(*within, strict=True)
        axes.fill_between(at, low, high, color=colour, alpha=0.10, linewidth=0, zorder=1)
        axes.vlines(at, low, high, color=colour, linewidth=0.9 * size, alpha=0.7, zorder=3)


def _names(axes: Axes, lines: Sequence[Line], colours: Sequence[str], limit: float | None) -> None:
    """Names at the right end of the lines: of many, those of every few, the first and the last among them."""
    n = min(len(lines), NAMED)
    named = [round(place * (len(lines) - 1) / max(n - 1, 1)) for place in range(n)]
    entries = [(lines[p].points[-1].y, lines[p].points[-1].x, lines[p].name, colours[p]) for p in named]
    if limit is not None:
        entries.append((limit, axes.get_xlim()[1], f"limit {limit:g}", LIMIT))
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    low, high = axes.get_ylim()
    places = _spread([entry[0] for entry in entries], (high - low) * 0.062, low, high)
    for (y, x, name, colour), place in zip(entries, places, strict=True):
        axes.annotate(
            _plain(name, LONG_LABEL),
            xy=(x, y),
            xytext=(1.025, place),
            textcoords=axes.get_yaxis_transform(),
            color=colour if len(lines) <= len(COLOURS) else INK,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )
