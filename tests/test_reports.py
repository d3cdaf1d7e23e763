"""Reports say what the evidence says, in words, to everyone, and cannot be talked into anything else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pytest

from pruneproof import evidence as records
from pruneproof import reporting
from pruneproof.evidence import Evidence, GateRow, MeasurementRow, VariantRow
from pruneproof.reports import _charts, _curves, html, junit, markdown
from pruneproof.verdicts import GLYPHS, Verdict, worst

ATTACK = "<script>alert(1)</script>"
NASTY = "\"a\" & 'b' <i>\u202e\x07"

Inconclusive = Literal["fail", "warn"]


def gate(
    variant: str,
    metric: str = "accuracy",
    verdict: Verdict = Verdict.PASS,
    value: float | None = 0.01,
    *,
    suite: str = "accuracy",
    key: str = "max_drop",
    limit: float = 0.02,
    segment: tuple[str, str] | None = None,
    candidate: bool = True,
    **changes: Any,
) -> GateRow:
    """A gate's row; of one that got no value where ``value`` is None."""
    comparing = key in ("max_drop", "max_rise", "max_ratio")
    row = GateRow(
        id=f"{suite}/{metric}:{key}" + (f"[{segment[0]}={segment[1]}]" if segment else ""),
        variant=variant,
        suite=suite,
        metric=metric,
        segment=dict([segment]) if segment else None,
        limit=records.LimitRow(key=key, value=limit),
        comparator="dense" if comparing else None,
        value=value,
        variant_value=None if value is None else 0.9 - value,
        comparator_value=0.9 if comparing and value is not None else None,
        interval=None if value is None else (value - 0.004, value + 0.006),
        confidence=0.95,
        n=0 if value is None else 500,
        method="" if value is None else "score interval",
        basis="none" if value is None else "paired" if comparing else "absolute",
        verdict=verdict,
        reason=f"because of {metric}",
        candidate=candidate,
    )
    return row.model_copy(update=changes)


def variant(name: str, achieved: float | None = 0.5, **changes: Any) -> VariantRow:
    """A pruned variant whose tensors say that ``achieved`` of them is gone."""
    share = {"pruned_tensors": achieved, "layer_weights": 0.4321, "all_parameters": 0.3987}
    row = VariantRow(
        name=name,
        kind="pruned",
        recipe={"criterion": "magnitude", "granularity": "element"},
        requested_ratio=float(name.rsplit("@", 1)[1]) if "@" in name else None,
        units_removed=617,
        units=1234,
        achieved_ratio=achieved,
        sparsity={} if achieved is None else {key: value for key, value in share.items() if value is not None},
        parameters=4545,
        nonzero_parameters=2321,
        macs=77_000,
        bytes=19_068,
        model_sha256="d" * 64,
    )
    return row.model_copy(update=changes)


def measurement(
    name: str, value: float | None, segment: tuple[str, str] | None = None, **changes: Any
) -> MeasurementRow:
    """An accuracy on the whole test set or, with ``segment``, on one segment."""
    row = MeasurementRow(
        variant=name,
        suite="segments" if segment else "accuracy",
        metric="accuracy",
        segment=dict([segment]) if segment else None,
        value=value,
        unit="share",
        n=240,
        interval=None,
        method="exact",
    )
    return row.model_copy(update=changes)


def evidence(
    gates: Sequence[GateRow] = (),
    variants: Sequence[VariantRow] = (),
    measurements: Sequence[MeasurementRow] = (),
    *,
    candidates: Sequence[str] | None = None,
    inconclusive: Inconclusive = "fail",
    error: str | None = None,
    task: Literal["binary", "multiclass", "regression"] | None = "binary",
    **changes: Any,
) -> Evidence:
    """A record as an audit would write it: verdicts of variants and of the audit follow from the gates."""
    names = list(candidates if candidates is not None else dict.fromkeys(row.variant for row in gates))
    gates = [row.model_copy(update={"candidate": row.variant in names}) for row in gates]
    judged = []
    for row in variants:
        verdict = worst(found.verdict for found in gates if found.variant == row.name)
        released = row.name in names and verdict in (Verdict.PASS, Verdict.WAIVED)
        judged.append(row.model_copy(update={"verdict": verdict, "candidate": row.name in names, "released": released}))
    found = Evidence(
        audit=records.AuditRow(
            name="cards", id="run-1", seed=7, started="2026-11-23T06:47:31+00:00", finished="2026-11-23T06:48:00+00:00"
        ),
        policy=records.PolicyRow(
            path="audit.toml", sha256="a" * 64, text="[audit]\n", candidates=names, inconclusive=inconclusive
        ),
        subject=records.SubjectRow(
            load="bank:subject",
            task=None if error else task,
            classes=["genuine", "fraud"],
            threshold=0.5,
            segments={},
            model_sha256=None if error else "b" * 64,
            data_sha256={"test": "c" * 64},
            data_sizes={"test": 500},
            error=error,
        ),
        environment=records.EnvironmentRow(
            packages={"torch": "2.9"},
            python="3.12",
            platform="Linux",
            cpu="a processor",
            cpu_count=2,
            threads=1,
            git_commit=None,
            git_dirty=None,
        ),
        variants=judged,
        measurements=list(measurements),
        gates=gates,
        waivers=[],
        ledger=[],
        limitations=[],
        digests={},
        verdict=worst(row.verdict for row in gates if row.candidate),
    )
    return found.model_copy(update=changes)


def hurt(value: str = "refund") -> records.Hurt:
    """What a gate's examples look like, in segment ``value``."""
    example = records.Example(
        id="4711", target="fraud", comparator="fraud", variant="genuine", segments={"transaction_type": value}
    )
    return records.Hurt(examples=[example], lost=12, segment=f"transaction_type={value}")


def full(value: str = "refund") -> Evidence:
    """Two ratios of one recipe, one of them up for release; the segment ``value`` breaks first."""
    where = ("transaction_type", value)
    gap: dict[str, Any] = {
        "metric": "excess_accuracy_gap",
        "suite": "segments",
        "key": "max",
        "limit": 0.05,
        "segment": where,
    }
    gates = [
        gate("mag@0.5", rationale="SLA 4.2"),
        gate("mag@0.5", **gap),
        gate("mag@0.7", rationale="SLA 4.2"),
        gate("mag@0.7", **gap, verdict=Verdict.FAIL, value=0.21, hurt=hurt(value)),
        gate("mag@0.9", verdict=Verdict.FAIL, value=0.08, rationale="SLA 4.2"),
        gate("mag@0.9", **gap, verdict=Verdict.INCONCLUSIVE, value=0.06, needed=321),
    ]
    dense = variant("dense", 0.0, kind="dense", recipe=None, requested_ratio=None)
    measurements = [
        measurement("dense", 0.95, where),
        measurement("mag@0.5", 0.94, where),
        measurement("mag@0.7", 0.7375, where),
        measurement("mag@0.9", 0.90, where, small=True, n=17),
    ]
    variants = [dense, variant("mag@0.5", 0.51), variant("mag@0.7", 0.72), variant("mag@0.9", 0.93)]
    return evidence(gates, variants, measurements, candidates=["mag@0.5", "mag@0.7"])


class Page(HTMLParser):
    """What a reader sees of a page, its elements, and whether they nest."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            return
        self.words.append(data)
        if self._open and self.rows and {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        """Visible text, white space collapsed."""
        return " ".join("".join(self.words).split())

    def row(self, first: str) -> list[str]:
        """Cells of the first table row whose first cell starts with ``first``."""
        return next(
            [" ".join(cell.split()) for cell in row] for row in self.rows if row and row[0].strip().startswith(first)
        )


def page(found: Evidence) -> Page:
    return Page(html.render(found))


def broken() -> Evidence:
    """The subject could not be loaded: no variants, no measurements, and every gate an ERROR."""
    gates = [
        gate(name, metric, Verdict.ERROR, None, reason="the subject could not be loaded")
        for name in ("mag@0.5", "mag@0.7")
        for metric in ("accuracy", "recall")
    ]
    return evidence(gates, error="No module named 'bank'")


EDGE_CASES = {
    "full": full(),
    "subject could not be loaded": broken(),
    "no gates, no variants": evidence(),
    "one variant, no segments": evidence([gate("mag@0.5")], [variant("mag@0.5")]),
    "a variant that could not be built": evidence(
        [gate("mag@0.5", verdict=Verdict.ERROR, value=None)], [variant("mag@0.5", None, error="no memory")]
    ),
    "not run": evidence([gate("mag@0.5", verdict=Verdict.NOT_RUN, value=None)], [variant("mag@0.5", None)]),
    "measured as nothing": evidence(
        [gate("mag@0.5", verdict=Verdict.ERROR, value=None)],
        [variant("mag@0.5")],
        [measurement("dense", None, ("a", "b")), measurement("mag@0.5", None, ("a", "b"))],
    ),
    "regression": evidence(
        [gate("mag@0.5", "mae", key="max_ratio", limit=1.1, value=1.05)],
        [variant("mag@0.5")],
        [
            measurement(name, value, ("city", "north"), metric="mae")
            for name, value in (("dense", 2.0), ("mag@0.5", 2.5))
        ],
        task="regression",
    ),
    "three recipes and an imported model": evidence(
        [gate(name) for name in ("a@0.5", "b@0.5", "c@0.5", "nni-70")],
        [
            variant("a@0.5"),
            variant("b@0.5", recipe={"granularity": "channel"}),
            variant("c@0.5"),
            variant("nni-70", kind="imported", recipe=None),
        ],
    ),
    "gates of test code": evidence(
        [
            gate("mag@0.5", "refund_churn", suite="tests", key="max", basis="test code"),
            gate("mag@0.5", "churn", Verdict.NOT_RUN, None, suite="tests", key="required", limit=1.0, id="tests/churn"),
        ],
        [variant("mag@0.5")],
    ),
    "constant value, no interval": evidence(
        [gate("mag@0.5", key="max", limit=0.0, value=0.0, interval=None)], [variant("mag@0.5", 0.0)]
    ),
    "unknown limit key, large numbers": evidence(
        [gate("mag@0.5", "model_bytes", suite="latency", key="max", limit=2e6, value=1_234_567.0, interval=None)],
        [variant("mag@0.5")],
    ),
}
every_case = pytest.mark.parametrize("found", EDGE_CASES.values(), ids=list(EDGE_CASES))


def test_the_formats_are_html_junit_and_markdown_and_helpers_are_none_of_them() -> None:
    assert {"html", "junit", "markdown"} <= set(reporting.formats())
    assert not any(name.startswith("_") or name == "templates" for name in reporting.formats())


@every_case
@pytest.mark.parametrize("form", ["html", "junit", "markdown"])
def test_whatever_happened_there_is_a_report(found: Evidence, form: str, tmp_path: Path) -> None:
    assert reporting.render(found, form, tmp_path).stat().st_size > 200


@every_case
def test_every_gate_appears_in_the_page(found: Evidence) -> None:
    text = page(found).text
    assert [row.id for row in found.gates if row.id not in text] == []


@every_case
def test_every_verdict_stands_in_its_cell_in_words(found: Evidence) -> None:
    seen = page(found)
    names = list(
        dict.fromkeys([row.name for row in found.variants if row.kind != "dense"] + [g.variant for g in found.gates])
    )
    for row in found.gates:
        cell = seen.row(row.id)[2 + names.index(row.variant)]
        assert cell.startswith(f"{GLYPHS[row.verdict]} {row.verdict.value.replace('_', ' ')}")


@every_case
def test_nothing_in_the_page_runs_or_loads(found: Evidence) -> None:
    text = html.render(found)
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"@import|@font-face|src\s*=|url\((?!#)|javascript:", text)
    for tag, attributes in Page(text).elements:
        assert tag not in {"script", "iframe", "object", "embed", "link", "img", "base", "form", "foreignobject"}
        assert not any(name.startswith("on") for name in attributes)
        assert all(value.startswith("#") for name, value in attributes.items() if name.endswith("href"))


def test_the_browser_is_told_to_load_nothing() -> None:
    policies = [a["content"] for tag, a in page(full()).elements if tag == "meta" and a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


@every_case
def test_ids_are_unique_and_references_find_them(found: Evidence) -> None:
    text = html.render(found)
    elements = Page(text).elements
    ids = Counter(attributes["id"] for _, attributes in elements if "id" in attributes)
    assert [name for name, n in ids.items() if n > 1] == []
    used = {value[1:] for _, attributes in elements for name, value in attributes.items() if name.endswith("href")}
    used |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(ids)


def test_the_same_evidence_gives_the_same_bytes_in_another_process() -> None:
    found = full()
    code = (
        "import sys; from pruneproof.evidence import Evidence; from pruneproof.reports import html;"
        "import matplotlib; matplotlib.rcParams['lines.linewidth'] = 9;"
        "sys.stdout.buffer.write(html.render(Evidence.model_validate_json(sys.stdin.buffer.read())).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    written = found.model_dump_json(by_alias=True).encode()
    other = subprocess.run(
        [sys.executable, "-c", code], input=written, capture_output=True, env=environment, check=True
    )
    assert other.stdout == html.render(found).encode()


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    html.render(full())
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or matplotlib.get_backend()


@pytest.mark.parametrize("value", [ATTACK, NASTY, "$x^{2$", "a|b`c`", "{{ 7 * 7 }}", "</title></style></pre>"])
def test_text_of_users_stays_text(value: str) -> None:
    found = full(value)
    gates = [row.model_copy(update={"reason": value, "rationale": value}) for row in found.gates]
    waiver = records.WaiverRow(
        gate=value, variant=value, observed_max=1, reason=value, approved_by=value, expires="2027-01-31", state="used"
    )
    found = found.model_copy(
        update={
            "gates": gates,
            "limitations": [value],
            "waivers": [waiver],
            "policy": found.policy.model_copy(update={"text": value, "path": value}),
            "subject": found.subject.model_copy(update={"classes": [value], "error": value}),
        }
    )
    text = html.render(found)
    seen = Page(text)
    plain = Page(html.render(full()))
    kinds = {"script", "i", "style", "title", "pre"}
    assert Counter(tag for tag, _ in seen.elements if tag in kinds) == Counter(
        tag for tag, _ in plain.elements if tag in kinds
    )
    shown = " ".join(re.sub("[\u202e\x07]", "\ufffd", value).split())
    assert seen.text.count(shown) >= len(gates)
    assert "<script" not in text
    assert "<script" not in markdown.render(found)
    tree = ET.fromstring(junit.render(found))
    assert any(value.replace("\x07", "\ufffd") in (case.get("message") or "") for case in tree.iter("failure"))


def test_control_characters_and_changes_of_direction_do_not_reach_the_page() -> None:
    assert not re.search("[\u202e\x07]", html.render(full(NASTY)) + markdown.render(full(NASTY)))


def test_the_verdict_comes_first_in_words() -> None:
    words = page(full()).text
    places = [words.index(text) for text in ("✗ BLOCKED", "Gate matrix", "Curves", "Sign-off")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("verdict", "headline"),
    [
        (Verdict.PASS, "RELEASED"),
        (Verdict.WAIVED, "RELEASED WITH WAIVERS"),
        (Verdict.INCONCLUSIVE, "INCONCLUSIVE"),
        (Verdict.FAIL, "BLOCKED"),
        (Verdict.NOT_RUN, "BLOCKED"),
        (Verdict.ERROR, "BLOCKED"),
    ],
)
def test_headlines(verdict: Verdict, headline: str) -> None:
    found = evidence([gate("mag@0.5", verdict=verdict)], [variant("mag@0.5")])
    assert f"{GLYPHS[verdict]} {headline} " in page(found).text
    assert markdown.render(found).startswith(f"## {GLYPHS[verdict]} {headline}: ")
    assert ("RELEASED" in page(found).text) == (verdict in (Verdict.PASS, Verdict.WAIVED))


def test_each_candidate_has_a_sentence() -> None:
    words = page(full()).text
    assert "mag@0.5 released: all 2 gates pass." in words
    assert (
        "mag@0.7 blocked: 1 of 2 gates does not pass; worst: "
        "segments/excess_accuracy_gap:max[transaction_type=refund] 0.2100 [0.2060, 0.2160] against max 0.05." in words
    )


def test_the_first_segment_to_break_is_named_with_what_the_whole_test_set_hides() -> None:
    words = page(full()).text
    assert (
        "Which segment breaks first under mag: at mag@0.7, "
        "segments/excess_accuracy_gap:max[transaction_type=refund] is 0.2100 [0.2060, 0.2160]" in words
    )
    assert "Overall accuracy still passes its gates at that ratio." in words
    assert "Segments break first at `mag@0.7`" in markdown.render(full())


def test_what_is_up_for_release_and_what_is_explored_is_said() -> None:
    head = page(full()).row("Gate")
    assert head[2:] == [
        "mag@0.5up for release✓ PASS",
        "mag@0.7up for release✗ FAIL",
        "mag@0.9explored✗ FAIL",
    ]


def test_a_cell_gives_value_and_interval() -> None:
    assert page(full()).row("accuracy/accuracy:max_drop")[1:3] == [
        "drop ≤ 0.02from dense",
        "✓ PASS0.0100 [0.0060, 0.0160]",
    ]


def test_a_gate_that_does_not_apply_to_a_variant_is_said_not_to() -> None:
    found = evidence([gate("mag@0.5", "recall"), gate("mag@0.7")], [variant("mag@0.5"), variant("mag@0.7")])
    assert page(found).row("accuracy/recall:max_drop")[3] == "not gated"


def test_why_it_is_blocked_names_limit_comparison_and_examples() -> None:
    words = page(full()).text
    assert "12 examples right before and wrong now" in words
    assert "transaction_type=refund" in words
    assert page(full()).row("4711") == ["4711", "fraud", "fraud", "genuine", "transaction_type=refund"]
    assert "drop of accuracy from dense: max_drop = 0.02" in words
    assert "accuracydense 0.9000 → mag@0.9 0.8200" in words.replace("accuracy dense", "accuracydense")
    assert "About 321 more test examples of transaction_type=refund" in words
    assert "no rationale given" in words
    assert "SLA 4.2" in words


def test_gates_that_failed_alike_without_a_value_are_explained_once() -> None:
    words = page(broken()).text
    assert "The same holds for 1 more gate: accuracy/recall:max_drop." in words
    assert "No module named 'bank'" in words


def test_achieved_ratios_stand_beside_the_requested_one() -> None:
    assert page(full()).row("mag@0.7up for release, pruned")[1:] == [
        "70.0 %", "72.0 %617 of 1,234 weights", "72.0 %", "43.2 %", "39.9 %", "4,545", "2,321", "77,000", "19,068",
    ]  # fmt: skip


def test_curves_stand_over_the_achieved_ratio() -> None:
    labels = [a["aria-label"] for tag, a in page(full()).elements if tag == "svg"]
    assert labels[0] == (
        "accuracy/accuracy:max_drop: drop of accuracy from dense against the achieved ratio. "
        "mag: 0.0100 at 51.0 %, 0.0100 at 72.0 %, 0.0800 at 93.0 %. Limit: max_drop 0.02."
    )


@pytest.mark.parametrize(
    ("granularity", "denominator", "axis"),
    [
        ("element", "units", "weights removed (share of 112 weights)"),
        ("n_of_m", "units", "weights removed (share of 112 weights)"),
        ("channel", "units", "channels removed (share of 112 channels)"),
        ("head", "units", "heads removed (share of 112 heads)"),
        ("block", "units", "blocks removed (share of 112 blocks)"),
        ("element", "layer_weights", "layer weights removed (share of all of the dense network)"),
        ("block", "all_parameters", "parameters removed (share of all of the dense network)"),
        ("channel", "macs", "MACs removed (share of all of the dense network)"),
    ],
)
def test_a_curve_s_axis_says_what_the_ratio_is_a_share_of(granularity: str, denominator: str, axis: str) -> None:
    recipe = {"granularity": granularity, "denominator": denominator}
    rows = [variant("ch@0.5", 0.74, recipe=recipe, units_removed=56, units=112, achieved_ratio=0.5)]
    (chart,) = _curves.charts(evidence([gate("ch@0.5")], rows))
    assert chart.panels[0].ratio == axis
    assert [point.ratio for point in chart.panels[0].series[0].points] == [0.5]


def test_the_variants_of_another_tool_s_function_are_one_curve() -> None:
    rows = [variant(name, at, kind="imported", recipe=None) for name, at in (("tool@0.3", 0.3), ("tool@0.6", 0.7))]
    (chart,) = _curves.charts(evidence([gate("tool@0.3"), gate("tool@0.6")], rows))
    assert [(series.label, [point.ratio for point in series.points]) for series in chart.panels[0].series] == [
        ("tool", [0.3, 0.7])
    ]
    assert chart.panels[0].ratio == "layer weights removed (share of all layer weights)"


def test_a_ratio_that_is_measured_but_not_gated_is_drawn_as_such() -> None:
    names = ("dense", "mag@0.5", "mag@0.9")
    rows = [measurement(name, value) for name, value in zip(names, (0.9, 0.89, 0.7), strict=True)]
    (chart,) = _curves.charts(evidence([gate("mag@0.5")], [variant("mag@0.5", 0.5), variant("mag@0.9", 0.9)], rows))
    points = chart.panels[0].series[0].points
    assert [(point.ratio, point.verdict) for point in points] == [(0.0, None), (0.5, Verdict.PASS), (0.9, None)]
    assert [point.value for point in points] == pytest.approx([0.0, 0.01, 0.2])


def test_charts_have_a_limit_line_and_a_name_for_it() -> None:
    (chart, *_) = _curves.charts(full())
    drawn = _charts.svg(chart, "x")
    assert "stroke-dasharray" in drawn
    assert "limit: max_drop 0.02" in drawn
    assert drawn.startswith("<svg")
    assert "<metadata" not in drawn
    assert "<style" not in drawn


def family(members: int) -> Evidence:
    names = ("mag@0.5", "mag@0.7")
    gates = [
        gate(
            name, "recall", Verdict.FAIL if i > members - 4 else Verdict.PASS, i / 1000,
            suite="segments", segment=("shop", f"shop {i:03d}"), limit=(members - 3.5) / 1000, hurt=hurt(f"{i}"),
        )
        for name in names
        for i in range(members)
    ]  # fmt: skip
    return evidence(gates, [variant(name, float(name[-3:])) for name in names])


def test_a_family_of_two_hundred_is_listed_in_full_and_drawn_legibly() -> None:
    found = family(200)
    (chart,) = _curves.charts(found)
    (panel,) = chart.panels
    weights = Counter(series.weight for series in panel.series)
    assert weights["main"] == 1
    assert weights["named"] <= 7
    assert len(panel.series) <= 24
    assert chart.hidden == 200 - len(panel.series)
    assert panel.series[0].label == "shop 199"
    seen = page(found)
    assert len([row for row in seen.rows if row and "segments/recall:max_drop[shop=" in row[0]]) >= 200
    assert f"200 members; the range of {chart.hidden} is shaded grey" in seen.text


def test_many_variants_are_split_into_tables_that_fit_on_paper() -> None:
    names = [f"mag@0.{i:02d}" for i in range(1, 13)]
    found = evidence([gate(name) for name in names], [variant(name) for name in names])
    assert max(len(row) for row in page(found).rows) <= 11
    assert "Variants 6 to 10 of 12" in page(found).text


def test_the_heat_map_gives_what_each_segment_lost_and_how_many_it_has() -> None:
    assert page(full()).row("refund") == ["refund", "+0.0100 n=240", "+0.2125 n=240", "+0.0500 n=17, small"]


def test_a_regression_s_heat_map_gives_the_rise_of_its_error() -> None:
    assert page(EDGE_CASES["regression"]).row("north") == ["north", "+0.2500 n=240"]


def test_waivers_limitations_and_earlier_audits_are_listed() -> None:
    waiver = records.WaiverRow(
        gate="accuracy/accuracy:max_drop",
        variant="mag@0.5",
        observed_max=0.03,
        reason="until the retraining",
        approved_by="M. Curie",
        expires="2027-01-31",
        state="expired",
    )
    earlier = records.LedgerRow(
        id="run-0", started="2026-11-01T00:00:00+00:00", policy_sha256="e" * 64, verdict=Verdict.FAIL
    )
    words = page(
        full().model_copy(update={"waivers": [waiver], "ledger": [earlier], "limitations": ["not tested: latency"]})
    ).text
    assert "M. Curie" in words
    assert "expired: waives nothing" in words
    assert "not tested: latency" in words
    assert "run-0" in words
    assert "another policy" in words


def test_the_page_says_how_to_reproduce_it_and_has_lines_to_sign() -> None:
    words = page(full()).text
    assert "pruneproof audit audit.toml" in words
    assert "pruneproof verify DIR" in words
    assert records.sha256(full()) in words
    assert page(full()).row("Approved") == ["Approved", "", "", "", ""]


def test_the_level_of_intervals_and_the_corrections_are_explained() -> None:
    words = page(full()).text
    assert "two-sided 90 % intervals; each end is a one-sided bound at 95 % confidence" in words
    assert "intersection–union" in words
    assert "Holm" in words


def contrast(ink: str, paper: str) -> float:
    """WCAG 2.2 contrast ratio of two colours ``#rrggbb``."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_is_dark_enough_on_every_background() -> None:
    css = (files("pruneproof.reports.templates") / "report.css").read_text("utf-8")
    inks = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", css))
    papers = set(re.findall(r"background: (#[0-9a-f]{6})", css)) | {inks["faint"], "#ffffff"}
    assert len(papers) > 10
    assert min(contrast(inks["ink"], paper) for paper in papers) >= 4.5
    deep = {"#f6bd95", "#ee9a75", "#b3d0ec", "#8fb9e1"}  # there the small print is as dark as the rest
    assert min(contrast(inks["soft"], paper) for paper in papers - deep) >= 4.5
    on_cells = ("#fdf1f0", "#fdf7ea", "#f6f2fc", "#f0f2f5", "#eef3fa", "#ffffff", inks["faint"])
    coloured = ("pass", "fail", "inconclusive", "waived", "other")
    assert min(contrast(inks[name], paper) for name in coloured for paper in on_cells) >= 4.5


def test_the_markdown_fits_on_a_screen_whatever_fails() -> None:
    names = [f"mag@0.{i:02d}" for i in range(1, 31)]
    gates = [gate(name, f"m{i}", Verdict.FAIL) for name in names for i in range(20)]
    text = markdown.render(evidence(gates, [variant(name) for name in names]))
    assert len(text.splitlines()) <= 42
    assert "… and 18 more variants." in text
    assert "… and 590 more gates." in text


def test_the_markdown_lists_what_does_not_pass_candidates_first() -> None:
    rows = [
        line for line in markdown.render(full()).splitlines() if line.startswith("| `segments") or "(explored)" in line
    ]
    assert rows[0] == (
        "| `segments/excess_accuracy_gap:max[transaction_type=refund]` | `mag@0.7` | ✗ FAIL "
        "| 0.2100 [0.2060, 0.2160] | ≤ 0.05 |"
    )
    assert all("(explored)" in row for row in rows[1:])


def test_tables_of_the_markdown_keep_their_columns_whatever_the_names() -> None:
    for line in markdown.render(full("a|b`c`<d>\nx")).splitlines():
        if line.startswith("|") and "accuracy_gap" in line:
            assert line.count("|") == 6


def results(found: Evidence) -> dict[tuple[str, str], str]:
    """(class, name) → outcome of every test case."""
    tree = ET.fromstring(junit.render(found))
    return {
        (case.get("classname") or "", case.get("name") or ""): next((child.tag for child in case), "passed")
        for case in tree.iter("testcase")
    }


@pytest.mark.parametrize(
    ("verdict", "candidate", "inconclusive", "outcome"),
    [
        (Verdict.PASS, True, "fail", "passed"),
        (Verdict.FAIL, True, "fail", "failure"),
        (Verdict.INCONCLUSIVE, True, "fail", "failure"),
        (Verdict.INCONCLUSIVE, True, "warn", "skipped"),
        (Verdict.WAIVED, True, "fail", "skipped"),
        (Verdict.ERROR, True, "fail", "error"),
        (Verdict.NOT_RUN, True, "fail", "error"),
        (Verdict.PASS, False, "fail", "passed"),
        (Verdict.FAIL, False, "fail", "skipped"),
        (Verdict.ERROR, False, "fail", "skipped"),
    ],
)
def test_outcomes_in_junit(verdict: Verdict, candidate: bool, inconclusive: Inconclusive, outcome: str) -> None:
    gates = [gate("ok@0.3"), gate("mag@0.5", verdict=verdict)]
    candidates = ["ok@0.3", "mag@0.5"] if candidate else ["ok@0.3"]
    found = evidence(gates, [variant("mag@0.5")], candidates=candidates, inconclusive=inconclusive)
    assert results(found) == {
        ("ok@0.3", "accuracy/accuracy:max_drop"): "passed",
        ("mag@0.5", "accuracy/accuracy:max_drop"): outcome,
    }


@every_case
def test_junit_counts_every_gate_of_every_variant(found: Evidence) -> None:
    tree = ET.fromstring(junit.render(found))
    outcomes = results(found)
    judged = {key: value for key, value in outcomes.items() if key != ("audit", "verdict")}
    assert set(judged) == {(row.variant, row.id) for row in found.gates}
    for element in (tree, tree[0]):
        assert int(element.get("tests") or -1) == len(outcomes)
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.get(attribute) or 0) == list(outcomes.values()).count(tag)


def test_junit_is_red_where_nothing_was_judged() -> None:
    assert results(evidence()) == {("audit", "verdict"): "error"}


def test_junit_survives_characters_that_xml_cannot_write() -> None:
    found = evidence([gate("mag@0.5", verdict=Verdict.FAIL, reason="a\x00b\x1b[31m\ufffe]]>")])
    (failure,) = ET.fromstring(junit.render(found)).iter("failure")
    assert failure.get("message") == "✗ FAIL: a\ufffdb\ufffd[31m\ufffd]]>"
