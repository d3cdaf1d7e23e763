"""Reports show a suite's chapters: every number of them is there in words, every picture pixel by pixel."""

from __future__ import annotations

import base64
import io
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from test_report_in_browser import CHROMIUM, Browser, asked, complaints
from test_reports import ATTACK, NASTY, Page, evidence, full

from pruneproof.evidence import Evidence
from pruneproof.exhibits import (
    Band,
    Chapter,
    Curves,
    Exhibit,
    Gallery,
    Line,
    Mark,
    Matrix,
    Multiples,
    Panel,
    Picture,
    Shot,
    Table,
)
from pruneproof.reports import _pictures, html, junit, markdown

VARIANTS = ("dense", "magnitude@0.3", "magnitude@0.5", "magnitude@0.7", "magnitude@0.8", "magnitude@0.9")
ATTACKS = ("Linf 8/255", "AutoAttack L2", "Square")
CHECKS = ("data's range", "more steps", "more eps", "more restarts", "gradient-free", "transfer", "gradients",
          "loss rises", "control", "boundary")  # fmt: skip
FORTY = ("dense", *(f"global-magnitude@{place / 41:.3f}" for place in range(1, 40)))


def picture(values: Any, signed: bool = False) -> Picture:
    """Of bytes ``(channels, height, width)``, or ``(height, width)`` for grey."""
    array = np.asarray(values, np.uint8)
    array = array[None] if array.ndim == 2 else array
    return Picture(shape=list(array.shape), pixels=base64.b64encode(array.tobytes()).decode(), signed=signed)


def configuration() -> Table:
    rows: list[list[Any]] = [
        ["Linf 8/255", "attack", "audit"],
        ["Linf 8/255", "eps", 8 / 255],
        ["Linf 8/255", "steps", 10],
        ["Linf 8/255", "seed", 20261122],
        ["Linf 8/255", "bfloat16", False],
        ["AutoAttack L2", "version", "standard"],
        ["AutoAttack L2", "targets", None],
    ]
    return Table(title="The attacks", about="As they ran.", columns=["Attack", "Parameter", "Value"], rows=rows)


def robust() -> Table:
    rows: list[list[Any]] = [
        [attack, variant, 0.7 - place / 10, None if place == 0 else place / 10, 1000, "[0.1000, 0.9000]"]
        for attack in ATTACKS
        for place, variant in enumerate(VARIANTS)
    ]
    columns = ["Attack", "Variant", "Robust accuracy", "Drop", "Examples", "Interval"]
    return Table(title="Robust accuracy", columns=columns, rows=rows)


def checks(fails: Sequence[int] = (7, 93), undecided: Sequence[int] = (41,), applies: bool = True) -> Table:
    """6 variants × 3 attacks × 10 checks; every tenth does not apply."""
    rows: list[list[Any]] = []
    marks: list[Mark | None] = []
    for variant in VARIANTS:
        for attack in ATTACKS:
            for check in CHECKS:
                place = len(rows)
                mark: Mark | None = "fail" if place in fails else "inconclusive" if place in undecided else "pass"
                mark = None if check == "boundary" and applies else mark
                rows.append([variant, attack, check, mark or "not applicable", f"what check {place} saw"])
                marks.append(mark)
    columns = ["Variant", "Attack", "Check", "Result", "What was seen"]
    return Table(title="Strength checks", columns=columns, rows=rows, marks=marks)


def against_eps(names: Sequence[str] = VARIANTS) -> Curves:
    lines = []
    for place, name in enumerate(names):
        heights = [(e / 255, math.exp(-e * (1 + place / len(names)) / 14)) for e in (0, 1, 2, 4, 8, 16)]
        lines.append(Line(name=name, points=[Band(x=x, y=y, lower=y - 0.02, upper=y + 0.02) for x, y in heights]))
    return Curves(title="Against ε", about="One line a variant.", x="ε", y="robust accuracy", lines=lines)


def against_ratio() -> Curves:
    lines = [
        Line(name=attack, points=[Band(x=x, y=0.6 - x / 4 - place / 10) for x in (0.0, 0.31, 0.52, 0.9)])
        for place, attack in enumerate(ATTACKS[:2])
    ]
    return Curves(title="Against the ratio", x="weights removed", y="robust accuracy", lines=lines, limit=0.4)


def by_severity(panels: int = 5, names: Sequence[str] = VARIANTS[:3], limit: float | None = None) -> Multiples:
    """Each chart has the same lines, at severities 0 to 5; every other chart has the limit."""
    found = []
    for corruption in range(panels):
        lines = [
            Line(name=name, points=[Band(x=s, y=0.9 - s * (1 + corruption + place) / 200) for s in range(6)])
            for place, name in enumerate(names)
        ]
        found.append(Panel(title=f"corruption {corruption}", lines=lines, limit=None if corruption % 2 else limit))
    return Multiples(title="By severity", about="Severity 0 is clean.", x="severity", y="accuracy", panels=found)


def excess(names: Sequence[str] = VARIANTS[1:]) -> Matrix:
    values = [[(-1) ** place * (row + 1) * place / 50 for place in range(len(names))] for row in range(4)]
    rows = [f"shift {row}" for row in range(4)]
    return Matrix(title="Excess error", rows=rows, columns=list(names), across="variant", down="shift", values=values,
                  signed=True)  # fmt: skip


def transfer(names: Sequence[str] = VARIANTS) -> Matrix:
    n = len(names)
    values = [[None if i == j else (i * n + j) / n**2 for j in range(n)] for i in range(n)]
    return Matrix(title="Transfer", rows=list(names), columns=list(names), across="tried on", down="made for",
                  values=values)  # fmt: skip


def gallery(n: int = 3) -> Gallery:
    rng = np.random.default_rng(5)
    shots = []
    for place in range(n):
        clean = rng.integers(0, 200, (8, 8))
        change = rng.integers(-9, 10, (8, 8))
        pictures = [picture(clean), picture(np.clip(clean + change, 0, 255)), picture(128 + change * 14, True)]
        captions = ["dense, clean: 3", "dense, adversarial: 8", "dense, difference"]
        shots.append(Shot(title=f"Example {place}", pictures=pictures, captions=captions))
    return Gallery(title="Adversarial examples", shots=shots)


def decoded() -> Gallery:
    shot = Shot(title="Row 4711", text="amount  812.40 → 799.99\nhour         3 → 4", captions=["fraud → genuine"])
    return Gallery(title="Decoded rows", shots=[shot])


def everything() -> list[Exhibit]:
    charts = [against_ratio(), against_eps(), by_severity(limit=0.8), by_severity(2)]
    return [configuration(), robust(), *charts, checks(), transfer(), excess(), gallery(), decoded()]


def of(*exhibits: Exhibit, title: str = "Adversarial robustness") -> Evidence:
    """Evidence with one chapter and nothing else."""
    return evidence().model_copy(
        update={"chapters": [Chapter(suite="adversarial", title=title, exhibits=list(exhibits))]}
    )


def part(found: Evidence) -> str:
    """The HTML of the chapters."""
    text = html.render(found)
    return text[text.index('<section id="chapter-1"') : text.index('<section id="sensitivity"')]


def lines(found: Evidence) -> list[str]:
    """The Markdown of the chapters."""
    text = markdown.render(found)
    return text[text.index("<details>") : text.rindex("</details>")].splitlines()


def cells(found: Evidence, first: str) -> list[str]:
    return Page(part(found)).row(first)


def images(found: Evidence) -> list[dict[str, str]]:
    return [attributes for tag, attributes in Page(html.render(found)).elements if tag == "img"]


def decode(attributes: dict[str, str]) -> np.ndarray[Any, Any]:
    """The pixels of an image of the page, ``(height, width, 3)``."""
    kind, data = attributes["src"].split(",", 1)
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image.convert("RGB"))


EMPTY: list[Exhibit] = [
    Table(title="t", columns=["a", "b"], rows=[]),
    Table(title="t", columns=[], rows=[]),
    Curves(title="c", x="x", y="y", lines=[]),
    Curves(title="c", x="x", y="y", lines=[Line(name="a", points=[])], limit=0.5),
    Multiples(title="s", x="x", y="y", panels=[]),
    Multiples(title="s", x="x", y="", panels=[Panel(title="p", lines=[Line(name="a", points=[])], limit=0.5)]),
    Matrix(title="m", rows=[], columns=[], across="a", down="b", values=[], signed=True),
    Matrix(title="m", rows=["a"], columns=[], across="a", down="b", values=[[]]),
    Gallery(title="g", shots=[]),
    Gallery(title="g", shots=[Shot(title="s")]),
]
CASES = {
    "everything": of(*everything()),
    "empty": of(*EMPTY),
    "no exhibits": of(),
    "one point": of(Curves(title="c", x="x", y="y", lines=[Line(name="a", points=[Band(x=0.5, y=0.5)])])),
    "forty variants": of(against_eps(FORTY), by_severity(20, FORTY), transfer(FORTY), gallery(40)),
    "little of each": of(
        Multiples(
            title="s",
            x="x",
            y="",
            panels=[
                Panel(title="one point", lines=[Line(name="a", points=[Band(x=0.5, y=0.5)])]),
                Panel(title="nothing", lines=[], limit=0.5),
            ],
        ),
        Matrix(title="m", rows=["a"], columns=["b"], across="", down="", values=[[None]], signed=True),
    ),
    "hostile": of(*everything(), title=ATTACK),
}
every_case = pytest.mark.parametrize("found", CASES.values(), ids=list(CASES))


def test_a_chapter_stands_behind_the_segments_and_in_the_contents() -> None:
    text = html.render(of(configuration()))
    places = [text.index(f'<section id="{name}"') for name in ("segments", "chapter-1", "sensitivity")]
    assert places == sorted(places)
    assert '<a href="#chapter-1">Adversarial robustness</a>' in text
    assert "suite adversarial" in Page(text).text


def test_without_chapters_nothing_of_them_is_in_a_report() -> None:
    assert "chapter-1" not in html.render(full())
    assert "<details>" not in markdown.render(full())


def test_chapters_change_nothing_for_a_ci_server() -> None:
    found = full()
    more = found.model_copy(update={"chapters": of(*everything()).chapters})
    assert junit.render(more) == junit.render(found)


@every_case
def test_nothing_runs_and_nothing_is_loaded_but_what_the_page_itself_holds(found: Evidence) -> None:
    text = html.render(found)
    assert not re.search(r"https?:|@import|@font-face|url\((?!#)|javascript:", text)
    for tag, attributes in Page(text).elements:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "image"}
        assert not any(name.startswith("on") for name in attributes)
        assert all(value.startswith("#") for name, value in attributes.items() if name.endswith("href"))
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert "srcset" not in attributes


def test_pictures_are_allowed_only_where_there_are_some() -> None:
    def policy(found: Evidence) -> str:
        return next(a["content"] for tag, a in Page(html.render(found)).elements if a.get("http-equiv"))

    assert policy(of(configuration(), decoded())) == "default-src 'none'; style-src 'unsafe-inline'"
    assert policy(of(gallery())) == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@every_case
def test_ids_stay_unique_and_references_find_them(found: Evidence) -> None:
    text = html.render(found)
    elements = Page(text).elements
    ids = Counter(attributes["id"] for _, attributes in elements if "id" in attributes)
    assert [name for name, n in ids.items() if n > 1] == []
    used = {value[1:] for _, attributes in elements for name, value in attributes.items() if name.endswith("href")}
    assert used | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


@every_case
def test_every_table_has_a_caption_and_every_row_a_name(found: Evidence) -> None:
    text = part(found)
    assert text.count("<table") == text.count("<caption")
    for row in re.findall(r"<tr.*?</tr>", text.split("<tbody>", 1)[-1], flags=re.DOTALL):
        assert re.search(r'<th scope="(row|col|rowgroup|colgroup)"', row)
    assert all(attributes["alt"] for attributes in images(found))


def test_the_same_chapters_give_the_same_bytes_in_another_process() -> None:
    found = of(*everything())
    code = (
        "import sys; from pruneproof.evidence import Evidence; from pruneproof.reports import html;"
        "import matplotlib; matplotlib.rcParams['lines.linewidth'] = 9;"
        "sys.stdout.buffer.write(html.render(Evidence.model_validate_json(sys.stdin.buffer.read())).encode())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        input=found.model_dump_json(by_alias=True).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
    )
    assert other.stdout == html.render(found).encode()
    assert html.render(found) == html.render(found)


@pytest.mark.parametrize("value", [ATTACK, NASTY, "$x^{2$", "a|b`c`", "{{ 7 * 7 }}", "</title></style></pre>"])
def test_text_of_users_in_exhibits_stays_text(value: str) -> None:
    hostile: list[Exhibit] = [
        Table(title=value, about=value, columns=[value, "b", value], rows=[[value, value, 1.0], [value, value, value]],
              marks=["fail", "pass"]),
        Curves(title=value, about=value, x=value, y=value, lines=[Line(name=value, points=[Band(x=0, y=0)])]),
        Multiples(title=value, about=value, x=value, y=value, panels=[
            Panel(title=value, lines=[Line(name=value, points=[Band(x=0, y=0)])], limit=1.0),
        ]),
        Matrix(title=value, rows=[value], columns=[value], across=value, down=value, values=[[0.5]]),
        Gallery(title=value, shots=[Shot(title=value, pictures=[picture([[1]])], captions=[value, value], text=value)]),
    ]  # fmt: skip
    kinds = {"script", "i", "style", "title", "pre", "svg", "img"}

    def elements(text: str) -> Counter[str]:
        return Counter(tag for tag, _ in Page(text).elements if tag in kinds)

    found = of(*hostile, title=value)
    text = html.render(found)
    plain = html.render(of(*(type(one).model_validate(_harmless(one.model_dump(), value)) for one in hostile)))
    assert elements(text) == elements(plain)
    shown = " ".join(re.sub("[\u202e\x07]", "\ufffd", value).split())
    assert Page(text).text.count(shown) >= 25
    written = "\n".join(lines(found))
    assert not re.search("<script|<i>|[\u202e\x07]", text + written)
    assert not re.search(r"[`$^{}]", written)
    assert all(line.count("|") in (4, 5, 3) for line in written.splitlines() if line.startswith("|"))


def _harmless(table: Any, value: str) -> Any:
    if isinstance(table, dict):
        return {key: _harmless(entry, value) for key, entry in table.items()}
    if isinstance(table, list):
        return [_harmless(entry, value) for entry in table]
    return "harmless" if table == value else table


def test_counts_are_counts_and_shares_have_four_decimals() -> None:
    table = Table(
        title="t", columns=["a", "n", "share"], rows=[["x", 12345, 1.0], ["y", 0, 0.00004], ["z", None, None]]
    )
    assert cells(of(table), "x") == ["x", "12,345", "1.0000"]
    assert cells(of(table), "y") == ["y", "0", "4e-05"]
    assert cells(of(table), "z") == ["z", "–no value", "–no value"]
    assert "| y | 0 | 4e-05 |" in lines(of(table))
    assert "| z | – | – |" in lines(of(table))


def test_a_setting_is_shown_as_it_was_given() -> None:
    found = of(configuration())
    assert cells(found, "seed") == ["seed", "20261122"]
    assert cells(found, "eps") == ["eps", repr(8 / 255)]
    assert cells(found, "bfloat16") == ["bfloat16", "false"]
    assert cells(found, "targets") == ["targets", "–no value"]
    assert "| Linf 8/255 | seed | 20261122 |" in lines(found)


def test_numbers_survive_being_written_and_read() -> None:
    found = of(configuration(), robust(), checks())
    again = Evidence.model_validate_json(found.model_dump_json(by_alias=True))
    assert html.render(again) == html.render(found)


def test_rows_of_the_same_first_text_are_one_group_with_a_heading() -> None:
    rows = [row for row in Page(part(of(robust()))).rows if row]
    headings = [" ".join(row[0].split()) for row in rows if len(row) == 1]
    assert headings == [f"Attack: {attack}" for attack in ATTACKS]
    assert rows[0] == ["Variant", "Robust accuracy", "Drop", "Examples", "Interval"]
    assert [row[0] for row in rows if len(row) == 5][1:] == list(VARIANTS) * 3


def test_a_state_is_told_in_words_and_signs_and_not_by_colour_alone() -> None:
    table = Table(title="t", columns=["check", "b"], rows=[["p", "x"], ["f", "x"], ["i", "x"], ["n", "x"]],
                  marks=["pass", "fail", "inconclusive", None])  # fmt: skip
    found = of(table)
    assert [cells(found, name)[-1] for name in "pfin"] == ["✓pass", "✗fail", "?inconclusive", ""]
    assert "| f | x | ✗ fail |" in lines(found)


def test_of_a_long_table_what_fails_stands_open_and_the_rest_is_folded() -> None:
    text = part(of(checks()))
    fold = text.index("<details")
    opened = Page(text[text.index("<table") : text.index("</table>") + 8])
    seen = [row[3].strip() for row in opened.rows if len(row) == 5 and row[0].strip() in ATTACKS]
    assert seen == ["what check 7 saw", "what check 41 saw", "what check 93 saw"]
    assert "All 180 rows: 2 fail, 1 inconclusive, 159 pass" in " ".join(text.split())
    assert all(f"what check {place} saw" in text[fold:] for place in range(180))


def test_of_a_table_where_most_fails_the_open_part_stays_short_and_says_so() -> None:
    text = part(of(checks(fails=range(180), applies=False)))
    assert len(re.findall("what check", text[: text.index("<details")])) == 24
    assert "156 more rows of that kind are in the whole table." in text
    assert len(re.findall("what check", text)) == 24 + 180


def test_a_long_table_in_markdown_begins_with_what_fails_and_counts_what_is_left_out() -> None:
    rows = [line for line in lines(of(checks())) if line.startswith("| ")]
    assert [re.findall(r"what check (\d+) saw", row) for row in rows[1:5]] == [["7"], ["93"], ["41"], ["0"]]
    assert "… and 156 more rows." in lines(of(checks()))


def test_every_value_of_a_curve_is_in_a_table() -> None:
    found = of(against_ratio())
    assert cells(found, "weights removed") == ["weights removed", *ATTACKS[:2]]
    assert cells(found, "0.31") == ["0.31", "0.5225", "0.4225"]
    assert "| 0.31 | 0.5225 | 0.4225 |" in lines(found)
    seen = Page(part(of(against_eps(VARIANTS[:2]))))
    assert seen.row("0.03137") == ["0.03137", "0.5647 [0.5447, 0.5847]", "0.4244 [0.4044, 0.4444]"]


def test_a_curve_without_a_value_somewhere_says_so_there() -> None:
    one = Line(name="one", points=[Band(x=0.5, y=0.9), Band(x=0.1, y=0.8, lower=0.7)])
    two = Line(name="two", points=[Band(x=0.5000001, y=0.7)])
    seen = Page(part(of(Curves(title="c", x="x", y="y", lines=[one, two, Line(name="three", points=[])]))))
    assert seen.row("0.1") == ["0.1", "0.8000 [0.7000, –]", "–no value"]
    assert seen.row("0.5") == ["0.5", "0.9000", "–no value"]
    assert seen.row("0.5000001") == ["0.5000001", "–no value", "0.7000"]


def test_a_curve_is_drawn_with_its_names_its_limit_and_a_title_for_who_cannot_see_it() -> None:
    text = part(of(against_ratio()))
    (svg,) = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert all(name in svg for name in (*ATTACKS[:2], "limit 0.4", "weights removed", "robust accuracy"))
    labels = [attributes["aria-label"] for tag, attributes in Page(text).elements if tag == "svg"]
    assert labels == [
        "Against the ratio: robust accuracy against weights removed, 2 lines. The values are in the table that follows."
    ]


def test_the_first_lines_of_a_chart_can_be_told_apart_without_colours() -> None:
    svg = part(of(against_eps()))
    dashes = set(re.findall(r"stroke-dasharray: ([\d., ]+)", svg))
    assert len(dashes) == len(VARIANTS) - 1  # and one line that is not dashed


@every_case
def test_drawing_leaves_the_settings_of_matplotlib_alone(found: Evidence) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    html.render(found)
    assert dict(matplotlib.rcParams) == before


def test_forty_variants_are_all_in_the_tables_and_no_table_is_too_wide_for_paper() -> None:
    found = of(against_eps(FORTY), transfer(FORTY))
    seen = Page(part(found))
    named = Counter(row[0] for row in seen.rows if row and row[1:] and row[1] not in FORTY)
    assert {named[name] for name in FORTY} == {1 + 4}  # six places of a curve; forty columns, twelve at a time
    assert max(len(row) for row in seen.rows) == 13
    assert "Columns 37 to 40 of 40" in seen.text
    svg = part(found).split("</svg>")[0]
    assert FORTY[0] in svg
    assert FORTY[-1] in svg
    assert sum(name in svg for name in FORTY) == 10
    assert "from dark to light" in seen.text


def test_a_heat_map_has_its_numbers_in_it_and_deepens_with_them() -> None:
    matrix = Matrix(title="m", rows=["a", "b"], columns=["c", "d", "e"], across="tried on", down="made for",
                    values=[[0.0, 0.199, 0.2], [None, 0.5, 1.0]])  # fmt: skip
    found = of(matrix)
    assert cells(found, "a") == ["a", "0.000", "0.199", "0.200"]
    assert cells(found, "b") == ["b", "–no value", "0.500", "1.000"]
    assert cells(found, "made for") == ["made for", "tried on"]
    assert re.findall(r"share-(\d)", part(found)) == ["0", "0", "1", "2", "4"]
    assert "| b | – | 0.500 | 1.000 |" in lines(found)
    assert "Columns: tried on." in lines(found)


def test_differences_have_their_sign_and_a_colour_for_each_side_that_deepens_as_that_of_segments_does() -> None:
    worse = [0.0049, 0.005, 0.02, 0.05, 0.1, 1.0]
    rows = {"worse": worse, "better": [-value for value in worse], "none": [0.0, -0.0, 0.0004, -0.0004, None, math.nan]}
    matrix = Matrix(title="m", rows=list(rows), columns=list("abcdef"), across="variant", down="shift",
                    values=list(rows.values()), signed=True)  # fmt: skip
    found = of(matrix)
    assert cells(found, "worse") == ["worse", "+0.005", "+0.005", "+0.020", "+0.050", "+0.100", "+1.000"]
    assert cells(found, "better") == ["better", "-0.005", "-0.005", "-0.020", "-0.050", "-0.100", "-1.000"]
    assert cells(found, "none") == ["none", *["0.000"] * 4, *["–no value"] * 2]
    table = part(found)[part(found).index("<table") :]
    assert re.findall(r"(?:worse|better)-\d", table) == [
        f"{s}-{n}" for s in ("worse", "better") for n in (1, 2, 3, 4, 4)
    ]
    assert "share-" not in table
    assert "| none | 0.000 | 0.000 | 0.000 | 0.000 | – | – |" in lines(found)


def test_what_is_worse_in_a_heat_map_of_differences_is_said_in_words() -> None:
    told = Page(part(of(excess()))).text
    assert "below 0, better; about 0; above 0, worse." in told
    assert "The colours begin at 0.005 and deepen at 0.02, 0.05 and 0.1." in told
    assert "Above 0 is worse, below 0 better." in lines(of(excess()))
    assert "worse" not in part(of(transfer()))
    assert "worse" not in "\n".join(lines(of(transfer())))


@every_case
def test_what_is_empty_is_said_to_be(found: Evidence) -> None:
    assert len(part(found)) > 100
    assert len(lines(found)) > 3


@pytest.mark.parametrize(
    ("exhibit", "told"),
    [
        *((exhibit, "There are no rows.") for exhibit in EMPTY[:2]),
        *((exhibit, "There is nothing to draw") for exhibit in EMPTY[2:6]),
        *((exhibit, "Nothing was measured.") for exhibit in EMPTY[6:8]),
        (EMPTY[8], "There is no example to show."),
    ],
)
def test_an_empty_exhibit_says_that_there_is_nothing(exhibit: Exhibit, told: str) -> None:
    assert told in Page(part(of(exhibit))).text
    assert any("There is n" in line for line in lines(of(exhibit)))


def test_a_grey_picture_comes_out_pixel_by_pixel() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    (image,) = images(of(Gallery(title="g", shots=[Shot(title="s", pictures=[picture(values)])])))
    assert (image["width"], image["height"], image["class"]) == ("32", "8", "coarse")
    assert (decode(image) == values[:, :, None]).all()


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from([1, 3]), st.integers(1, 7), st.integers(1, 7))
def test_any_picture_comes_out_pixel_by_pixel(data: st.DataObject, channels: int, height: int, width: int) -> None:
    size = channels * height * width
    values = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    values = values.reshape(channels, height, width)
    with Image.open(io.BytesIO(_pictures.png(picture(values)))) as image:
        seen = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert (seen == np.broadcast_to(values, (3, height, width))).all()


def test_a_difference_is_blue_below_nothing_and_orange_above_and_white_at_it() -> None:
    values = [[0, 1, 128, 255], [128, 64, 192, 128]]
    (image,) = images(of(Gallery(title="g", shots=[Shot(title="s", pictures=[picture(values, True)])])))
    seen = decode(image).astype(int)
    assert [tuple(pixel) for pixel in seen[0]] == [(33, 82, 160), (33, 82, 160), (247, 247, 247), (176, 74, 0)]
    assert (seen[1, [0, 3]] == 247).all()
    halfway = 64 / 127  # of the way from white to the colour at either end
    assert seen[1, 1] == pytest.approx(247 + halfway * (np.array([33, 82, 160]) - 247), abs=0.51)
    assert seen[1, 2] == pytest.approx(247 + halfway * (np.array([176, 74, 0]) - 247), abs=0.51)
    assert "difference" in image["alt"]


def test_the_difference_of_a_colour_picture_is_that_of_the_channel_that_changed_most() -> None:
    values = np.array([[[128, 130, 255]], [[128, 1, 128]], [[128, 200, 100]]])
    (image,) = images(of(Gallery(title="g", shots=[Shot(title="s", pictures=[picture(values, True)])])))
    assert [tuple(pixel) for pixel in decode(image)[0].tolist()] == [(247, 247, 247), (33, 82, 160), (176, 74, 0)]


def test_a_large_picture_is_not_shown_in_squares() -> None:
    (image,) = images(of(Gallery(title="g", shots=[Shot(title="s", pictures=[picture(np.zeros((65, 65)))])])))
    assert "class" not in image


def test_every_picture_has_its_caption_also_for_who_cannot_see_it() -> None:
    found = of(gallery(1))
    assert [image["alt"] for image in images(found)] == [
        "Example 0: dense, clean: 3",
        "Example 0: dense, adversarial: 8",
        "Example 0: dense, difference (difference)",
    ]
    assert "- **Example 0**: dense, clean: 3; dense, adversarial: 8; dense, difference" in lines(found)
    assert "less" not in Page(part(of(decoded()))).text
    assert "Differences: less, as before, more." in Page(part(found)).text


def test_captions_and_pictures_need_not_be_as_many() -> None:
    few = Shot(title="few", pictures=[picture([[1]]), picture([[2]])], captions=["only one"])
    more = Shot(title="more", pictures=[picture([[3]])], captions=["of the picture", "of the whole"])
    found = of(Gallery(title="g", shots=[few, more]))
    assert [image["alt"] for image in images(found)] == ["few: only one", "few", "more: of the picture"]
    assert "of the whole" in Page(part(found)).text


def test_decoded_rows_keep_their_lines_and_spaces() -> None:
    assert "<pre>amount  812.40 → 799.99\nhour         3 → 4</pre>" in part(of(decoded()))
    assert "fraud → genuine" in Page(part(of(decoded()))).text
    assert lines(of(decoded()))[-4:-1] == [
        "- **Row 4711**: fraud → genuine",
        "  amount 812.40 → 799.99<br>",
        "  hour 3 → 4<br>",
    ]


def test_a_gallery_of_forty_is_folded_behind_the_first_dozen() -> None:
    text = part(of(gallery(40)))
    assert text[: text.index("<details")].count("<article") == 12
    assert text.count("<article") == 40
    assert "28 more examples" in text
    assert "… and 34 more examples." in lines(of(gallery(40)))


def test_the_chapters_of_the_markdown_are_folded_behind_its_first_screen() -> None:
    text = markdown.render(full().model_copy(update={"chapters": of(*everything()).chapters}))
    assert text.index("<details>") > text.index("Gate that does not pass")
    assert text.count("<details>") == text.count("</details>") == 1
    assert "<summary>Adversarial robustness (suite adversarial)</summary>" in text


WHOLE: dict[str, Any] = {"title": "t", "columns": ["a", "b"], "rows": [["x", 1]]}
ONE: dict[str, Any] = {"title": "t", "rows": ["a"], "columns": ["b"], "across": "", "down": ""}


@pytest.mark.parametrize(
    ("kind", "values", "cause"),
    [
        (Table, {**WHOLE, "rows": [["x"]]}, "row 0 has 1 values, the table 2 columns"),
        (Table, {**WHOLE, "marks": ["pass", "fail"]}, "2 marks for 1 rows"),
        (Table, {**WHOLE, "marks": ["green"]}, "'pass', 'fail' or 'inconclusive'"),
        (Matrix, {**ONE, "values": []}, "1 rows of 1"),
        (Matrix, {**ONE, "values": [[1.01]]}, "equal to 1"),
        (Matrix, {**ONE, "values": [[-0.01]]}, "-0.01 is less than 0, and the matrix is not signed"),
        (Matrix, {**ONE, "values": [[-1.01]], "signed": True}, "equal to -1"),
        (Matrix, {**ONE, "values": [[1.01]], "signed": True}, "equal to 1"),
        (Panel, {"title": "t", "lines": [{"name": "a", "points": []}] * 2}, "panel 't' has two lines named 'a'"),
        (Band, {"x": 0, "y": math.nan}, "finite"),
        (Band, {"x": 0, "y": 0, "lower": 0.2, "upper": 0.1}, "wrong way round"),
        (Picture, {"shape": [2, 1, 1], "pixels": "AAA="}, "1 or 3 channels"),
        (Picture, {"shape": [1, 1], "pixels": "AA=="}, "1 or 3 channels"),
        (Picture, {"shape": [1, 0, 1], "pixels": ""}, "1 or 3 channels"),
        (Picture, {"shape": [1, 2, 2], "pixels": "AAA="}, "2 bytes of pixels"),
        (Picture, {"shape": [1, 1, 1], "pixels": "\"onerror="}, "not base64"),
    ],
)  # fmt: skip
def test_an_exhibit_that_does_not_fit_together_is_refused(kind: Any, values: dict[str, Any], cause: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(cause)):
        kind(**values)


def test_a_number_that_is_not_finite_is_none_in_an_exhibit_as_in_the_whole_record() -> None:
    table = Table(title="t", columns=["a", "b", "c"], rows=[[math.nan, -math.inf, 0.5]])
    assert table.rows == [[None, None, 0.5]]
    matrix = Matrix(title="m", rows=["a"], columns=["b"], across="", down="", values=[[math.nan]])
    assert matrix.values == [[None]]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


seen = pytest.mark.skipif(CHROMIUM is None or sys.platform == "win32", reason="no Chromium that can be driven")


@seen
@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 820, 1280])
@pytest.mark.parametrize("name", ["everything", "forty variants"])
def test_in_a_browser_pictures_are_shown_and_the_page_does_not_scroll_sideways(
    browser: Browser, tmp_path: Path, name: str, width: int
) -> None:
    page = tmp_path / "report.html"
    page.write_text(html.render(CASES[name]), "utf-8")
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 900)
    try:
        browser.open(page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        shown = browser.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth])")
        assert len(shown) == len(images(CASES[name]))
        assert all(entry == [True, 8] for entry in shown)
        look = "getComputedStyle(document.images[0])"
        assert browser.evaluate(f"{look}.imageRendering") == "pixelated"
        assert browser.evaluate("document.images[0].getBoundingClientRect().width") > 80
        assert [url for url in asked(browser) if not url.startswith("data:")] == []
        assert complaints(browser) == []
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


@seen
@pytest.mark.slow
def test_on_paper_the_whole_of_a_long_table_and_the_values_of_the_curves_are_there(
    browser: Browser, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(html.render(CASES["everything"]), "utf-8")
    browser.open(page)
    assert "what check 100 saw" not in browser.text
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert all(f"what check {place} saw" in browser.text for place in range(180))
        assert "[0.5447, 0.5847]" in browser.text
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
