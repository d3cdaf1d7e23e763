"""Reports tell what pruning did: what was asked for, achieved and claimed, self-checks, and what each layer costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from test_reports import ATTACK, NASTY, Page, evidence, full, gate, page, variant

from pruneproof import summary, terminal, wording
from pruneproof.evidence import Evidence, SelfCheck, SensitivityRow, VariantRow
from pruneproof.recipe import Prune, Recovery, words
from pruneproof.reports import _charts, _sensitivity, html, markdown
from pruneproof.verdicts import Verdict

RATIOS = (0.3, 0.5, 0.9)


def check(id: str = "V3", passed: bool = True, detail: str = "as it should be", decides: bool = True) -> SelfCheck:
    return SelfCheck(id=id, claim=f"the claim of {id}", passed=passed, detail=detail, decides=decides)


def imported(name: str = "nni-70", **changes: Any) -> VariantRow:
    """A model that another tool made: 43.2 % of its layer weights are gone, whatever was claimed."""
    whole: dict[str, Any] = {"kind": "imported", "recipe": None, "units": None, "units_removed": None}
    return variant(name, None, **whole, **{"sparsity": {"layer_weights": 0.4321, "all_parameters": 0.3987}, **changes})


def dense(**changes: Any) -> VariantRow:
    whole: dict[str, Any] = {"kind": "dense", "recipe": None, "requested_ratio": None, "units": None}
    return variant("dense", 0.0, **whole, **changes)


def of(*rows: VariantRow, **changes: Any) -> Evidence:
    """Evidence of these variants, each with one gate that passes."""
    return evidence([gate(row.name) for row in rows if row.kind != "dense"], rows, **changes)


def sensitivity(
    values: dict[str, Sequence[float | None]],
    whole: float | None = 0.9,
    ratios: Sequence[float] = RATIOS,
    metric: Literal["accuracy", "mae"] = "accuracy",
    n: int = 256,
) -> list[SensitivityRow]:
    """Rows of a recipe ``mag``; a missing value at the end was not measured."""
    rows = [SensitivityRow(recipe="mag", layer=None, ratio=None, metric=metric, value=whole, n=n)]
    for layer, own in values.items():
        for ratio, value in zip(ratios, own, strict=False):
            note = "the outputs are not finite" if value is None else ""
            rows.append(
                SensitivityRow(recipe="mag", layer=layer, ratio=ratio, metric=metric, value=value, n=n, note=note)
            )
    return rows


LAYERS: dict[str, Sequence[float | None]] = {
    "conv1": (0.88, 0.80, 0.60),  # loses 0.02, 0.10, 0.30: 0.14 on average
    "conv2": (0.91, 0.90, 0.35),  # gains 0.01, loses nothing, then 0.55: 0.18 on average
    "conv3": (0.90, None),  # has a value at one ratio only, and was not measured at the last
}


def measured(**changes: Any) -> Evidence:
    return full().model_copy(update={"sensitivity": sensitivity(LAYERS), **changes})


def test_a_recipe_is_told_by_what_is_not_at_its_default_and_by_what_everybody_asks_for() -> None:
    plain = Prune(name="a", ratios=(0.5,))
    assert wording.settings(words(plain)) == [
        ("granularity", "element"),
        ("criterion", "magnitude"),
        ("scope", "global"),
        ("denominator", "units"),
    ]
    special = Prune(
        name="a", ratios=(0.5,), granularity="channel", criterion="random", denominator="macs",
        exclude=("head.*", "fc"), schedule="cubic", steps=4, fine_tune=True, recovery=Recovery(epochs=2),
    )  # fmt: skip
    assert wording.settings(words(special)) == [
        ("granularity", "channel"),
        ("criterion", "random"),
        ("scope", "global"),
        ("denominator", "macs"),
        ("exclude", "head.*, fc"),
        ("schedule", "cubic"),
        ("steps", "4"),
        ("fine tune", "true"),
        ("recovery", "(batch size 32, distill 0.0, epochs 2, learning rate 0.0001, patience 2, temperature 2.0)"),
    ]


def test_settings_of_a_later_version_are_told_too() -> None:
    assert wording.settings({"granularity": "element", "colour": "[blue"}) == [
        ("granularity", "element"),
        ("colour", "[blue"),
    ]


def test_the_page_tells_each_recipe_once() -> None:
    recipe = words(Prune(name="mag", ratios=(0.5,), steps=3, schedule="linear"))
    words_of = page(of(variant("mag@0.5", recipe=recipe), variant("mag@0.7", recipe=recipe))).text
    told = "Recipe mag: granularity element, criterion magnitude, scope global, denominator units, "
    assert words_of.count(told + "schedule linear, steps 3") == 1


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"granularity": "head"}, "25.0 %5 of 20 heads"),
        ({"granularity": "block", "denominator": "units"}, "25.0 %5 of 20 blocks"),
        ({"granularity": "channel", "denominator": "macs"}, "25.0 %of MACs; 5 of 20 channels"),
        ({"granularity": "element", "denominator": "all_parameters"}, "25.0 %of parameters; 5 of 20 weights"),
    ],
)
def test_what_was_achieved_is_told_with_what_it_is_a_share_of(recipe: dict[str, str], told: str) -> None:
    row = variant("mag@0.3", recipe=recipe, achieved_ratio=0.25, units_removed=5, units=20)
    assert page(of(row)).row("mag@0.3up for release, pruned")[1:3] == ["30.0 %", told]


def claims(found: Evidence) -> list[str]:
    """The row of the table of what was claimed."""
    table = [row for row in page(found).rows if row and row[0] == "nni-70"]
    return [" ".join(cell.split()) for cell in table[0]]


def test_what_was_claimed_of_an_imported_model_stands_beside_what_was_measured() -> None:
    row = imported(
        claimed_ratio=0.7,
        claimed_of="layer_weights",
        self_checks=[check("V1", False)],
        shape_changes=[("a", [2], None)],
    )
    assert claims(of(dense(), row)) == [
        "nni-70", "70.0 %of layer weights", "43.2 %of layer weights", "-26.8 points", "✗ broken", "1 tensor changed",
    ]  # fmt: skip


def test_a_claim_about_macs_is_held_against_the_dense_model_s() -> None:
    row = imported(claimed_ratio=0.5, claimed_of="macs", macs=60_000, self_checks=[check("V1", False)])
    told = claims(of(dense(macs=80_000), row))
    assert told[1:5] == ["50.0 %of MACs", "25.0 %of MACs", "-25.0 points", "✗ broken"]
    assert claims(of(dense(macs=None), row))[2:4] == ["–of MACs", "–"]


def test_an_imported_model_of_which_nothing_was_claimed_is_measured_all_the_same() -> None:
    assert claims(of(dense(), imported())) == [
        "nni-70", "nothing claimed", "43.2 %of layer weights", "–", "–", "as in the dense model",
    ]  # fmt: skip


def test_the_ratio_of_a_tool_s_function_is_told_as_the_tool_s_own() -> None:
    row = imported(claimed_ratio=0.3, claimed_of="layer_weights", self_checks=[check("V1", False, decides=False)])
    assert claims(of(dense(), row))[1:5] == [
        "30.0 %of what its tool means", "43.2 %of layer weights", "–", "• reported, does not hold",
    ]  # fmt: skip


def test_tensors_of_another_shape_are_listed() -> None:
    changes = [("conv.weight", [64, 3, 7, 7], [32, 3, 7, 7]), ("gone", [1024], None), ("new", None, [])]
    seen = page(of(dense(), imported(shape_changes=changes)))
    assert seen.row("conv.weight") == ["conv.weight", "64 × 3 × 7 × 7", "32 × 3 × 7 × 7"]
    assert seen.row("gone") == ["gone", "1,024", "not there"]
    assert seen.row("new") == ["new", "not there", "one number"]


def test_hundreds_of_changed_shapes_are_folded_up_and_all_there() -> None:
    def folds(n: int) -> int:
        rows = [(f"layer{i}.weight", [64, 64], [32, 64]) for i in range(n)]
        seen = page(of(dense(), imported(shape_changes=rows)))
        assert len([row for row in seen.rows if row and row[0].startswith("layer")]) == n
        return sum(tag == "details" for tag, _ in seen.elements)

    assert [folds(n) for n in (2, 300)] == [0, 1]


@pytest.mark.parametrize(
    ("passed", "decides", "told", "style"),
    [
        (True, True, "✓ holds", "v v-pass"),
        (False, True, "✗ broken", "v v-fail"),
        (True, False, "• reported, holds", "v"),
        (False, False, "• reported, does not hold", "v"),
    ],
)
def test_a_check_that_only_reports_is_told_apart_from_one_that_decides(
    passed: bool, decides: bool, told: str, style: str
) -> None:
    row = variant("mag@0.5", self_checks=[check("V10", passed, "accuracy 0.90, of the random control 0.71", decides)])
    found = html.render(of(row))
    shown = next(cells for cells in Page(found).rows if cells[:1] == ["mag@0.5"] and "V10" in cells)
    assert shown[1:] == ["V10", "the claim of V10", told, "accuracy 0.90, of the random control 0.71"]
    assert f'<span class="{style}">{told}</span>' in found


def test_a_broken_check_is_told_in_one_line_each() -> None:
    rows = [
        variant("mag@0.3", self_checks=[check("V10", False, "0.8 to 0.9", decides=False)]),
        variant("mag@0.5", self_checks=[check("V1"), check("V3", False, "differ by 0.1")]),
        variant("mag@0.7", self_checks=[check("V10", False, "0.7 to 0.8", decides=False)]),
        imported(claimed_ratio=0.7, self_checks=[check("V1", False, "claimed 0.7, measured 0.4321")]),
    ]
    found = of(dense(), *rows)
    assert list(terminal.findings(found)) == [
        "mag@0.5: self-check V3 failed: the claim of V3: differ by 0.1",
        "nni-70: self-check V1 failed: the claim of V1: claimed 0.7, measured 0.4321",
        "mag@0.3, mag@0.7: self-check V10 does not hold (reported only): the claim of V10: mag@0.3: 0.8 to 0.9",
    ]
    lines = markdown.render(found).splitlines()
    assert "- `nni-70`: self-check V1 failed: the claim of V1: `claimed 0.7, measured 0.4321`" in lines
    assert any(
        line.startswith("- `mag@0.3`, `mag@0.7`: self-check V10 does not hold (reported only)") for line in lines
    )


def test_the_terminal_does_not_tell_a_variant_s_error_twice() -> None:
    row = variant("mag@0.5", self_checks=[check("V3", False)], error="self-check V3 failed: the claim of V3")
    assert list(terminal.findings(of(row))) == []


def test_many_broken_checks_leave_the_markdown_on_one_screen() -> None:
    rows = [variant(f"mag@0.{i:02d}", self_checks=[check("V3", False)]) for i in range(1, 31)]
    text = markdown.render(of(*rows))
    assert len(text.splitlines()) <= 42
    assert "… and 26 more self-checks that do not hold." in text


def test_nothing_is_told_where_there_is_nothing_to_tell() -> None:
    found = of(variant("mag@0.5", self_checks=[check(), check("V10", decides=False)]))
    assert list(terminal.findings(found)) == []
    assert "self-check" not in markdown.render(found)


def test_a_layer_left_whole_is_listed_once_with_its_variants() -> None:
    whole = [("head", "the output layer")]
    words_of = page(of(variant("mag@0.5", left_whole=whole), variant("mag@0.7", left_whole=whole))).text
    assert words_of.count("head: the output layer (mag@0.5, mag@0.7)") == 1


def test_sensitivity_is_a_table_of_layers_and_ratios() -> None:
    seen = page(measured())
    assert seen.row("Layer") == ["Layer", "30.0 %", "50.0 %", "90.0 %", "Mean loss"]
    assert seen.row("dense") == ["dense", "0.9000", "0.9000", "0.9000", "–"]
    assert seen.row("conv1") == ["conv1", "0.8800 +0.0200", "0.8000 +0.1000", "0.6000 +0.3000", "+0.1400"]
    assert seen.row("conv2") == [
        "conv2 ◀ most sensitive", "0.9100 -0.0100", "0.9000 0.0000", "0.3500 +0.5500", "+0.1800",
    ]  # fmt: skip
    assert seen.row("conv3") == [
        "conv3", "0.9000 0.0000", "no value the outputs are not finite", "not possible", "0.0000",
    ]  # fmt: skip


def test_its_cells_are_as_dark_as_the_heat_map_s() -> None:
    (table,) = _sensitivity.tables(measured())
    assert [[cell.step for cell in line.cells] for line in table.lines] == [[2, 4, 4], [-1, 0, 4], [0, 0, 0]]


def test_the_reader_is_told_what_sensitivity_rests_on() -> None:
    words_of = page(measured()).text
    assert "Each layer is pruned alone" in words_of
    assert "measured on calibration data, 256 examples, not on the test set" in words_of


def test_the_most_sensitive_layer_is_named_everywhere() -> None:
    told = "pruned alone, accuracy falls by 0.1800 on average over 3 ratios (256 calibration examples)"
    assert f"Most sensitive layer under mag: conv2; {told}." in page(measured()).text
    assert f"most sensitive layer under mag: conv2; {told}" in list(terminal.findings(measured()))
    assert f"- Most sensitive layer under `mag`: `conv2`; {told}" in markdown.render(measured())


def test_of_layers_that_lose_nothing_none_is_called_sensitive() -> None:
    found = measured(sensitivity=sensitivity({"conv1": (0.9, 0.91, 0.9)}))
    assert "No layer, pruned alone, loses anything on average." in page(found).text
    assert summary.most_sensitive(found) == []


def test_the_sensitivity_of_a_regression_is_the_relative_rise_of_its_error() -> None:
    rows = sensitivity({"fc1": (2.0, 3.0), "fc2": (2.0, 2.2)}, 2.0, (0.5, 0.9), "mae")
    seen = page(measured(sensitivity=rows))
    assert seen.row("fc1 ◀") == ["fc1 ◀ most sensitive", "2.0000 0.0000", "3.0000 +0.5000", "+0.2500"]
    assert "fc1; pruned alone, mean absolute error rises by 25.0 % on average over 2 ratios" in seen.text
    assert "relative to dense" in seen.text


def test_the_sensitivity_chart_has_a_line_a_layer_and_one_for_dense() -> None:
    (table,) = _sensitivity.tables(measured())
    assert table.chart is not None
    (panel,) = table.chart.panels
    lines = {line.label: [(p.ratio, p.value) for p in line.points] for line in panel.series}
    assert lines == {
        "conv2": [(0.0, 0.9), (0.3, 0.91), (0.5, 0.9), (0.9, 0.35)],
        "conv1": [(0.0, 0.9), (0.3, 0.88), (0.5, 0.8), (0.9, 0.6)],
        "conv3": [(0.0, 0.9), (0.3, 0.9)],
    }
    assert [line.weight for line in panel.series] == ["main", "named", "rest"]
    drawn = _charts.svg(table.chart, "s1")
    assert "dense 0.9000" in drawn
    assert "limit" not in drawn
    assert 'aria-label="Sensitivity under mag: accuracy, calibration data against the share of weights removed' in drawn


def test_the_sensitivity_of_a_hundred_layers_is_folded_up_and_drawn_legibly() -> None:
    found = measured(sensitivity=sensitivity({f"layer{i}": (0.9, 0.9 - i / 1000, 0.5) for i in range(100)}))
    (table,) = _sensitivity.tables(found)
    assert table.chart is not None
    assert table.folded
    assert len(table.chart.panels[0].series) + table.chart.hidden == 100
    assert sum(line.weight != "rest" for line in table.chart.panels[0].series) == 6
    seen = page(found)
    assert len([row for row in seen.rows if row and re.match(r"layer\d", row[0])]) == 100


def test_blocks_are_called_blocks() -> None:
    row = variant("mag@0.5", recipe={"granularity": "block"})
    rows = sensitivity({"layers.0": (0.8,), "layers.1": (0.7,)}, ratios=(0.5,))
    found = of(row).model_copy(update={"sensitivity": rows})
    seen = page(found)
    assert seen.row("Block") == ["Block", "50.0 %", "Mean loss"]
    (table,) = _sensitivity.tables(found)
    assert table.chart is not None
    assert table.chart.panels[0].ratio == "blocks left out, one at a time"
    assert "layers.1; pruned alone, accuracy falls by 0.2000 at 50.0 %" in seen.text


@pytest.mark.parametrize(
    ("rows", "error", "told"),
    [
        ([], None, "Not measured: the policy has no [sensitivity] table"),
        ([], "the subject has no calibration data", "could not be measured: the subject has no calibration data"),
        (sensitivity({}), None, "No layer has enough weights for any of the ratios."),
        (sensitivity({"conv1": (None, None, None)}), None, "no value the outputs are not finite"),
        (sensitivity(LAYERS, None), None, "Dense has no value:"),
        (sensitivity({"conv1": (0.1,)}, 0.0, metric="mae"), None, "0.1000"),
    ],
)
def test_whatever_came_of_sensitivity_the_page_says_so(
    rows: list[SensitivityRow], error: str | None, told: str
) -> None:
    found = measured(sensitivity=rows, sensitivity_error=error)
    assert told in page(found).text
    assert markdown.render(found)
    assert summary.most_sensitive(found) == []


@pytest.mark.parametrize("value", [ATTACK, NASTY, "$x^{2$", "a|b`c`", "{{ 7 * 7 }}"])
def test_text_of_users_about_pruning_stays_text(value: str) -> None:
    row = variant("mag@0.5", recipe={"criterion": value, value: value}, left_whole=[(value, value)],
                  self_checks=[check("V3", False, value)])  # fmt: skip
    own = imported(shape_changes=[(value, [1], None)], claimed_of=value, claimed_ratio=0.5)
    rows = [row.model_copy(update={"layer": value, "note": value}) for row in sensitivity({"a": (0.1, None)})[1:]]
    found = of(dense(), row, own).model_copy(
        update={"sensitivity": [*sensitivity({})[:1], *rows], "sensitivity_error": value}
    )
    text = html.render(found)
    seen = Page(text)
    shown = " ".join(re.sub("[\u202e\x07]", "\ufffd", value).split())
    assert seen.text.count(shown) >= 8
    assert not any(tag in ("script", "i") for tag, _ in seen.elements)
    assert not re.search("<script|[\u202e\x07]", text + markdown.render(found))


def test_a_ladder_of_another_tool_breaks_first_at_a_ratio_too() -> None:
    where: dict[str, Any] = {"suite": "segments", "key": "max", "segment": ("shop", "a")}
    names = ("tool@0.3", "tool@0.6")
    gates = [gate("tool@0.3", **where), gate("tool@0.6", verdict=Verdict.FAIL, value=0.2, **where)]
    found = evidence(gates, [imported(name) for name in names])
    assert [(broke.recipe, broke.variant.name) for broke in summary.first_breaks(found)] == [("tool", "tool@0.6")]
