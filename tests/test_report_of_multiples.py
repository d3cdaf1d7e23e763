"""Small multiples in reports: the same axes, the same looks of a line in every chart, every value in a table."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report_in_browser import CHROMIUM, Browser, show
from test_report_of_exhibits import FORTY, VARIANTS, by_severity, lines, of, part
from test_reports import Page

from pruneproof.exhibits import Band, Line, Multiples, Panel

LIMIT = "#b3261e"
EIGHT = tuple(f"variant {place}" for place in range(8))


def line(name: str, *heights: float) -> Line:
    return Line(name=name, points=[Band(x=x, y=y) for x, y in enumerate(heights)])


def multiples(*panels: Panel, y: str = "accuracy") -> Multiples:
    return Multiples(title="By severity", x="severity", y=y, panels=list(panels))


def charts(found: Multiples) -> list[str]:
    """The drawings of the charts, in their order."""
    return re.findall(r'<svg class="chart".*?</svg>', part(of(found)), flags=re.DOTALL)


def swatches(found: Multiples) -> dict[str, str]:
    """Name in the key → what is drawn before it."""
    (key,) = re.findall(r'<ul aria-label="Lines">.*?</ul>', part(of(found)), flags=re.DOTALL)
    entries = re.findall(r"<li>(<svg.*?</svg>)(.*?)</li>", key, flags=re.DOTALL)
    return {name.strip(): drawing for drawing, name in entries}


def written(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def stroke(svg: str, colour: str) -> list[str]:
    """Paths that a line of this colour runs along."""
    return re.findall(rf'<path d="([^"]+)" clip-path="[^"]+" style="[^"]*stroke: {colour}', svg)


def colour(swatch: str) -> str:
    return re.findall(r"stroke: (#[0-9a-f]{6})", swatch)[0]


def looks(swatch: str) -> tuple[str, ...]:
    """Dashes and marker, without the colour."""
    dashes = re.findall(r"stroke-dasharray: ([^;\"]+)", swatch)
    marker = re.findall(r'<defs>\s*<path id="[^"]+" d="([^"]+)"', swatch)
    return (dashes[0] if dashes else "solid", marker[0])


def test_each_chart_stands_under_its_title_in_the_order_given() -> None:
    text = part(of(by_severity(20)))
    titles = [" ".join(found.split()) for found in re.findall(r"<figcaption>(.*?)</figcaption>", text, flags=re.DOTALL)]
    assert titles == [f"corruption {place}" for place in range(20)]
    assert len(charts(by_severity(20))) == 20


def test_a_value_stands_at_the_same_place_in_every_chart() -> None:
    alone = Panel(title="alone", lines=[line("a", 0.5, 0.4)])
    beside = Panel(title="beside", lines=[line("a", 0.5, 0.4), line("b", 0.9, -3.0, 7.0)], limit=20.0)
    first, second = charts(multiples(alone, beside))
    (own,) = stroke(first, colour(swatches(multiples(alone, beside))["a"]))
    assert own in second
    numbers = [[text for text in written(svg) if re.fullmatch(r"-?[\d.]+", text)] for svg in (first, second)]
    assert numbers[0] == numbers[1]
    assert "20" in numbers[0]


def test_a_line_looks_the_same_in_every_chart_and_in_the_key_wherever_it_stands_in_them() -> None:
    found = multiples(
        Panel(title="p", lines=[line("a", 1, 2), line("b", 2, 3), line("c", 3, 4)]),
        Panel(title="q", lines=[line("c", 5, 5), line("d", 7, 7)]),
        Panel(title="r", lines=[line("b", 8, 8)]),
    )
    key = swatches(found)
    assert list(key) == ["a", "b", "c", "d"]
    for svg, names in zip(charts(found), ("abc", "cd", "b"), strict=True):
        assert {name for name in key if stroke(svg, colour(key[name]))} == set(names)


def test_eight_lines_are_told_apart_by_colour_and_without_colours_by_dashes_and_markers() -> None:
    key = swatches(by_severity(3, EIGHT))
    assert list(key) == list(EIGHT)
    assert len({colour(swatch) for swatch in key.values()}) == 8
    dashes, markers = zip(*map(looks, key.values()), strict=True)
    assert len(set(dashes)) == len(set(markers)) == 8


def test_of_forty_lines_each_has_its_shade_and_its_entry_in_the_key() -> None:
    key = swatches(by_severity(4, FORTY))
    assert list(key) == list(FORTY)
    assert len({colour(swatch) for swatch in key.values()}) == 40


def test_a_limit_is_drawn_in_its_chart_alone_and_said_in_words() -> None:
    found = by_severity(4, limit=0.8)
    assert [LIMIT in svg for svg in charts(found)] == [True, False, True, False]
    assert "corruption 0 limit 0.8" in " ".join(Page(part(of(found))).text.split())
    assert list(swatches(found)) == [*VARIANTS[:3], "limit"]
    assert LIMIT in swatches(found)["limit"]
    assert "limit" not in swatches(by_severity(4))
    assert "Chart: corruption 0 (limit 0.8)" in Page(part(of(found))).text


def test_a_limit_beyond_all_values_is_still_inside_the_charts() -> None:
    (svg,) = charts(multiples(Panel(title="p", lines=[line("a", 0.1, 0.2)], limit=0.9)))
    assert "0.8" in written(svg)


def test_few_charts_name_their_axes_and_many_say_once_what_they_are() -> None:
    assert all({"severity", "accuracy"} <= set(written(svg)) for svg in charts(by_severity(3)))
    assert "The axes are the same" not in part(of(by_severity(3)))
    assert not any({"severity", "accuracy"} & set(written(svg)) for svg in charts(by_severity(4)))
    told = "The axes are the same in every chart: accuracy upwards, severity to the right."
    assert part(of(by_severity(4))).count(told) == 1


def test_what_cannot_be_seen_is_told() -> None:
    found = by_severity(2, limit=0.8)
    labels = [attributes["aria-label"] for tag, attributes in Page(part(of(found))).elements if tag == "svg"
              and "aria-hidden" not in attributes]  # fmt: skip
    end = "The values are in the table that follows."
    assert labels == [
        f"By severity, corruption 0: accuracy against severity, 3 lines, limit 0.8. {end}",
        f"By severity, corruption 1: accuracy against severity, 3 lines. {end}",
    ]


def test_axes_without_a_name_are_not_named() -> None:
    found = multiples(*(Panel(title=f"p{place}", lines=[line("a", 1, 2)]) for place in range(4)), y="")
    text = part(of(found))
    assert "in every chart: severity to the right." in text
    assert 'aria-label="By severity, p0: against severity, 1 line. ' in text
    assert "Numbers:" not in text


def test_the_values_of_all_charts_are_in_one_table_a_group_for_each_chart() -> None:
    found = by_severity(2, VARIANTS[:2])
    rows = [[cell.strip() for cell in row] for row in Page(part(of(found))).rows]
    assert rows == [
        ["Line", "severity"],
        ["0", "1", "2", "3", "4", "5"],
        ["Chart: corruption 0"],
        ["dense", "0.9000", "0.8950", "0.8900", "0.8850", "0.8800", "0.8750"],
        ["magnitude@0.3", "0.9000", "0.8900", "0.8800", "0.8700", "0.8600", "0.8500"],
        ["Chart: corruption 1"],
        ["dense", "0.9000", "0.8900", "0.8800", "0.8700", "0.8600", "0.8500"],
        ["magnitude@0.3", "0.9000", "0.8850", "0.8700", "0.8550", "0.8400", "0.8250"],
    ]
    assert "Numbers: accuracy. Columns: severity." in lines(of(found))
    shown = "| corruption 1 | dense | 0.9000 | 0.8900 | 0.8800 | 0.8700 | 0.8600 | 0.8500 |"
    assert shown in lines(of(found))


def test_more_places_than_fit_beside_each_other_run_down_the_page() -> None:
    found = multiples(Panel(title="p", lines=[line("a", *[place / 10 for place in range(9)])]))
    seen = Page(part(of(found)))
    assert seen.row("severity") == ["severity", "a"]
    assert seen.row("7") == ["7", "0.7000"]
    assert "| p | 7 | 0.7000 |" in lines(of(found))


def test_charts_need_not_have_the_same_lines_nor_the_same_places() -> None:
    low = Line(name="a", points=[Band(x=0.3, y=0.7, lower=0.6, upper=0.8), Band(x=0.1, y=0.8)])
    found = multiples(
        Panel(title="p", lines=[low]), Panel(title="q", lines=[line("b", 0.5)]), Panel(title="r", lines=[])
    )
    rows = [[cell.strip() for cell in row] for row in Page(part(of(found))).rows]
    assert rows[1:] == [
        ["0", "0.1", "0.3"],
        ["Chart: p"],
        ["a", "–no value", "0.8000", "0.7000 [0.6000, 0.8000]"],
        ["Chart: q"],
        ["b", "0.5000", "–no value", "–no value"],
    ]
    assert "Nothing was measured." in Page(part(of(found))).text


def test_where_intervals_are_not_drawn_the_report_says_where_they_are() -> None:
    def banded(names: tuple[str, ...], panels: int) -> Multiples:
        points = [Band(x=x, y=0.5, lower=0.4, upper=0.6) for x in range(3)]
        panel = [Line(name=name, points=points) for name in names]
        return multiples(*(Panel(title=f"p{place}", lines=panel) for place in range(panels)))

    told = "Intervals are in the table."
    shading = "opacity: 0.1"
    assert shading in part(of(banded(EIGHT[:4], 5)))
    assert told not in part(of(banded(EIGHT[:4], 5)))
    assert shading in part(of(banded(EIGHT, 3)))
    assert shading not in part(of(banded(EIGHT[:5], 5)))
    assert told in part(of(banded(EIGHT[:5], 5)))
    assert told not in part(of(by_severity(5, EIGHT)))


def test_a_key_that_is_short_stays_on_the_screen() -> None:
    assert 'class="keys pinned"' in part(of(by_severity(5, EIGHT)))
    assert 'class="keys"' in part(of(by_severity(5, FORTY)))


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=4), min_size=1, max_size=5
    ),
    st.none() | st.floats(-1e9, 1e9),
)  # fmt: skip
def test_any_numbers_can_be_drawn(panels: list[list[tuple[float, float]]], limit: float | None) -> None:
    found = multiples(
        *(
            Panel(title="p", lines=[Line(name="a", points=[Band(x=x, y=y) for x, y in points])], limit=limit)
            for points in panels
        )
    )
    drawn = sum(bool(points) for points in panels)
    assert len(charts(found)) == drawn
    assert not any("nan" in svg for svg in charts(found))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


seen = pytest.mark.skipif(CHROMIUM is None or sys.platform == "win32", reason="no Chromium that can be driven")
BOXES = "[...document.querySelectorAll('.panels figure')].map(f => f.getBoundingClientRect())"


@seen
@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "panels", "abreast"), [(360, 20, 2), (390, 20, 2), (1280, 20, 5), (390, 2, 1), (1280, 2, 2)]
)
def test_in_a_browser_charts_stand_beside_each_other_as_many_as_can_be_read(
    browser: Browser, tmp_path: Path, width: int, panels: int, abreast: int
) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 900)
    try:
        show(browser, of(by_severity(panels, EIGHT, limit=0.8)), tmp_path)
        tops = browser.evaluate(f"{BOXES}.map(box => Math.round(box.bottom))")
        assert [tops.count(top) for top in dict.fromkeys(tops)] == [abreast] * (panels // abreast)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        boxes = "[...document.querySelectorAll('.panels svg text')].map(t => t.getBoundingClientRect())"
        assert browser.evaluate(f"Math.min(...{boxes}.map(box => box.height))") > 8
        assert browser.evaluate(f"Math.max(...{boxes}.map(box => Math.min(box.width, box.height)))") < 24
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@seen
@pytest.mark.slow
def test_in_a_browser_what_is_written_in_a_chart_lies_inside_it_and_not_on_each_other(
    browser: Browser, tmp_path: Path
) -> None:
    heights = [1234.5, 123456.0, 98765.4]
    long = multiples(*(Panel(title=f"p{place}", lines=[line("a", *heights)]) for place in range(5)))
    points = [Band(x=1000 * x, y=0.5) for x in range(1, 6)]
    far = multiples(*(Panel(title=f"p{place}", lines=[Line(name="a", points=points)]) for place in range(5)))
    show(browser, of(long, far, by_severity(5)), tmp_path)
    outside = browser.evaluate(
        "[...document.querySelectorAll('.panels svg')].flatMap(svg => [...svg.querySelectorAll('text')]"
        ".filter(t => t.getBoundingClientRect().left < svg.getBoundingClientRect().left - 1"
        " || t.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1).map(t => t.textContent))"
    )
    assert outside == []
    across = browser.evaluate(
        "[...document.querySelectorAll('.panels svg')].map(svg => [...svg.querySelectorAll('text')]"
        ".map(t => t.getBoundingClientRect()).map(b => [b.left, b.right, b.top, b.bottom]))"
    )
    for boxes in across:
        for place, one in enumerate(boxes):
            for other in boxes[:place]:
                apart = one[0] >= other[1] or other[0] >= one[1] or one[2] >= other[3] - 3 or other[2] >= one[3] - 3
                assert apart


@seen
@pytest.mark.slow
def test_on_a_phone_the_key_stays_in_sight_as_long_as_its_charts_do(browser: Browser, tmp_path: Path) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    try:
        show(browser, of(by_severity(20, EIGHT)), tmp_path)
        browser.evaluate("document.querySelectorAll('.panels figure')[15].scrollIntoView()")
        top = "document.querySelector('.keys').getBoundingClientRect().top"
        assert browser.evaluate(top) == 0
        browser.evaluate("document.querySelector('#sensitivity').scrollIntoView()")
        assert browser.evaluate(top) < 0
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@seen
@pytest.mark.slow
def test_on_paper_the_values_of_all_charts_are_there(browser: Browser, tmp_path: Path) -> None:
    show(browser, of(by_severity(20, EIGHT)), tmp_path)
    assert "Chart: corruption 19" not in browser.text
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert all(f"Chart: corruption {place}" in browser.text for place in range(20))
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
