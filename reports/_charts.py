"""Draws curves as SVG that can stand inside an HTML page: no script, no reference to anywhere, the same bytes
for the same chart."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pruneproof import wording
from pruneproof.reports._curves import Chart, Panel, Series
from pruneproof.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 5.1, 3.0
"""Of one panel, in inches."""
COLOURS = ("#1f4e8c", "#b45309", "#0f766e", "#7c3aed", "#9d174d", "#4d7c0f", "#0284c7", "#292524")
GREY, INK, LIMIT, DENSE = "#9aa5b1", "#1f2933", "#b3261e", "#52606d"
LABEL, LONG_LABEL = 19, 48
"""Letters of a label that fit beside the axes, and beside those of a wide chart."""

MARKERS: dict[Verdict | None, tuple[str, bool]] = {
    Verdict.PASS: ("o", True),
    Verdict.FAIL: ("X", True),
    Verdict.INCONCLUSIVE: ("D", False),
    Verdict.WAIVED: ("s", True),
    None: ("o", False),
}
"""Verdict → marker, and whether it is filled; of other verdicts there is no value to draw."""
KEY = "● PASS, ✖ FAIL, ◇ INCONCLUSIVE, ■ WAIVED, ○ dense, or measured and not gated"

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.edgecolor": "#7b8794",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "text.color": INK,
    "hatch.linewidth": 0.5,
}
_KEEP = ("backend", "webagg", "toolbar", "interactive", "tk.", "savefig.directory", "date.epoch", "timezone")
"""Settings that are about the user's machine rather than about how a chart looks."""


def svg(chart: Chart, slug: str) -> str:
    """The chart as one ``<svg>`` element whose ids start with ``slug``."""
    across = min(len(chart.panels), 2)
    down = -(-len(chart.panels) // across)
    width, room = (WIDTH * 2, 3.1) if chart.wide else (WIDTH * across, 1.3)

    def fill(figure: Figure) -> None:
        grid = figure.subplots(down, across, squeeze=False, sharey=True)
        for axes in grid.flat[len(chart.panels) :]:
            axes.set_visible(False)
        for position, (axes, panel) in enumerate(zip(grid.flat, chart.panels, strict=False)):
            _panel(axes, panel, chart, ylabel=position % across == 0)
        top, bottom = 0.30 / (HEIGHT * down), 0.55 / (HEIGHT * down)
        figure.subplots_adjust(
            left=0.75 / width, right=1 - room / width, top=1 - top, bottom=bottom, wspace=0.7, hspace=0.4
        )

    return _inline(_document(slug, (width, HEIGHT * down), fill), slug, chart.title, chart.alt)


def _document(slug: str, size: tuple[float, float], fill: Callable[[Figure], None]) -> str:
    """An SVG file of this width and height in inches, the same bytes whatever matplotlib is set to."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    looks: dict[Any, Any] = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(_KEEP)}
    looks.update(_STYLE)
    looks["svg.hashsalt"] = slug
    with matplotlib.rc_context(looks):
        figure = Figure(figsize=size, facecolor="none")
        FigureCanvasSVG(figure)
        fill(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def _panel(axes: Axes, panel: Panel, chart: Chart, ylabel: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    if panel.title:
        axes.set_title(_plain(panel.title))
    axes.set_xlabel(_plain(panel.ratio, 64))
    if ylabel:
        axes.set_ylabel(_plain(chart.quantity, 40))
    axes.tick_params(labelleft=True, length=3)
    ratios = [point.ratio for series in panel.series for point in series.points]
    axes.set_xlim(-0.02, min(1.02, max(0.1, *ratios) * 1.04))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value, 9):,g}"))
    _limits(axes, chart)
    if panel.shaded:
        across, low, high = zip(*panel.shaded, strict=True)
        axes.fill_between(across, low, high, color=GREY, alpha=0.25, linewidth=0)
    labels = []
    mains = sum(series.weight != "rest" for series in panel.series)
    for position, series in reversed(list(enumerate(panel.series))):
        colour = GREY if series.weight == "rest" else COLOURS[position % len(COLOURS)]
        _series(axes, series, colour, alone=mains == 1)
        if series.weight != "rest":
            labels.append((series.points[-1].ratio, series.points[-1].value, series.label, colour))
    _labels(axes, labels, chart)


def _limits(axes: Axes, chart: Chart) -> None:
    """Limit line, the side beyond it shaded, and a vertical range that holds everything."""
    values = [chart.limit]
    for panel in chart.panels:
        for series in panel.series:
            for point in series.points:
                values.append(point.value)
                if point.interval and series.weight == "main":
                    values.extend(point.interval)
        for _, low, high in panel.shaded:
            values.extend((low, high))
    low, high = min(values), max(values)
    margin = (high - low) * 0.09 or abs(high) * 0.1 or 0.1
    axes.set_ylim(low - margin, high + margin)
    axes.axhline(chart.limit, color=_line_colour(chart), linestyle=(0, (5, 3)), linewidth=1.2, zorder=2)
    if not chart.limit_key:
        return
    outside = (low - margin, chart.limit) if chart.limit_key == "min" else (chart.limit, high + margin)
    axes.axhspan(*outside, color=LIMIT, alpha=0.05, linewidth=0, zorder=0)


def _line_colour(chart: Chart) -> str:
    return LIMIT if chart.limit_key else DENSE


def _series(axes: Axes, series: Series, colour: str, alone: bool) -> None:
    across = [point.ratio for point in series.points]
    values = [point.value for point in series.points]
    if series.weight == "rest":
        axes.plot(across, values, color=colour, linewidth=0.7, alpha=0.9, marker="." if len(across) < 2 else None)
        return
    axes.plot(across, values, color=colour, linewidth=1.9 if series.weight == "main" else 1.2, zorder=4)
    if series.weight == "main":
        within = [(p.ratio, *p.interval) for p in series.points if p.interval]
        if within:
            at, low, high = zip(*within, strict=True)
            axes.fill_between(at, low, high, color=colour, alpha=0.16 if alone else 0.10, linewidth=0, zorder=1)
            axes.vlines(at, low, high, color=colour, linewidth=0.9, alpha=0.8, zorder=3)
    for point in series.points:
        marker, filled = MARKERS.get(point.verdict, ("o", False))
        face = colour if filled else "white"
        size = 8 if marker == "X" else 5.5
        axes.plot(point.ratio, point.value, marker=marker, markersize=size, markerfacecolor=face,
                  markeredgecolor="white" if marker == "X" else colour, markeredgewidth=0.6 if marker == "X" else 1.1,
                  zorder=5)  # fmt: skip


def _labels(axes: Axes, labels: Sequence[tuple[float, float, str, str]], chart: Chart) -> None:
    """Names at the right end of the lines, and the limit's, moved apart where they would touch."""
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    entries = [(value, ratio, _label(label, chart), colour) for ratio, value, label, colour in labels]
    entries.append((chart.limit, right, chart.line, _line_colour(chart)))
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    gap = (high - low) * 0.062
    places = _spread([entry[0] for entry in entries], gap, low, high)
    for (value, ratio, label, colour), place in zip(entries, places, strict=True):
        axes.annotate(
            label,
            xy=(ratio, value),
            xytext=(1.025, place),
            textcoords=axes.get_yaxis_transform(),
            color=colour,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def _label(name: str, chart: Chart) -> str:
    if chart.wide and len(name) > LONG_LABEL:  # a layer's: the end tells it from its neighbours
        return _plain("…" + name[1 - LONG_LABEL :], LONG_LABEL)
    return _plain(name, LONG_LABEL if chart.wide else LABEL)


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near ``wanted``, ascending, at least ``gap`` apart, inside the range where they fit."""
    places: list[float] = []
    for value in wanted:
        places.append(max(value, places[-1] + gap) if places else max(value, low))
    ceiling = high
    for position in range(len(places) - 1, -1, -1):
        places[position] = min(places[position], ceiling)
        ceiling = places[position] - gap
    return places


def _plain(text: str, longest: int = 60) -> str:
    """Text that matplotlib takes as it is: no mathtext, one line."""
    line = " ".join(wording.clean(text).split())
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return line.replace("$", r"\$")


def _inline(document: str, slug: str, title: str, alt: str) -> str:
    """The ``<svg>`` element of a matplotlib file, told to who cannot see it."""
    label = html.escape(wording.clean(alt), quote=True)
    name = html.escape(wording.clean(title))
    return _bare(document, slug, f'class="chart" role="img" aria-label="{label}"', f"<title>{name}</title>")


def _bare(document: str, slug: str, attributes: str, first: str = "") -> str:
    """The ``<svg>`` element of a matplotlib file, without what clashes with a page around it."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", body).replace("xlink:href=", "href=")
    used = set(re.findall(r'href="#([^"]+)"', body)) | set(re.findall(r"url\(#([^)]+)\)", body))
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r'( id="|href="#|url\(#)', lambda found: f"{found[0]}{slug}-", body)
    body = re.sub(r"\n\s*", "\n", body).strip()
    opened = f"<svg {attributes}"
    return re.sub(r"<svg([^>]*)>", lambda found: f"{opened}{found[1]}>\n{first}", body, count=1)
