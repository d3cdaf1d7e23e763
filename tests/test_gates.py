"""Gates on outcomes made by hand: every verdict against a closed form, and no PASS without evidence."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from builders import asked, examples, flipped, judged, measured, predictions, random_binary, saying
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, norm

from pruneproof import gates, policy
from pruneproof.estimates import Estimate, Exact, Proportion, Statistic
from pruneproof.evidence import GateRow
from pruneproof.outcomes import Examples, Predictions
from pruneproof.policy import Waiver
from pruneproof.statistics import binomial_bounds, tango_bounds, tango_z
from pruneproof.suite import Facts, Measurement, Member
from pruneproof.verdicts import Verdict

unhurried = settings(deadline=None)
PASS, FAIL, INCONCLUSIVE, WAIVED, ERROR, NOT_RUN = (
    *(Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE),
    *(Verdict.WAIVED, Verdict.ERROR, Verdict.NOT_RUN),
)
Z95 = 1.6448536269514722
TODAY = datetime.date(2026, 6, 1)


def accuracy(limits: str, wrong: int, n: int, gained: int = 0, **audit: Any) -> dict[str, GateRow]:
    """``n`` examples, of which the variant alone gets ``wrong`` wrong and the dense model alone ``gained``."""
    on = examples([0] * n)
    said, dense = flipped(on, np.arange(wrong)), flipped(on, np.arange(wrong, wrong + gained))
    return judged(f"[suites.accuracy.gates]\naccuracy = {{ {limits} }}", on, said, dense, **audit)


def only(rows: Mapping[str, GateRow]) -> GateRow:
    (row,) = rows.values()
    return row


# Ids

FACTS = Facts("multiclass", 6, ("a", "b", "fraud"), {"transaction_type": {"refund": 3, "sale": 3}})


def test_gate_ids_have_the_forms_of_the_contract() -> None:
    found = asked(
        "[suites.accuracy.gates]\naccuracy = { min = 0.5, max_drop = 0.1 }\nrecall = { min = 0.5 }\n"
        "[suites.segments.gates]\nrecall = { max_drop = 0.1 }\nworst = { min = 0.1 }"
    )
    assert [gate.id for gate in gates.expand(found, FACTS).gates] == [
        "accuracy/accuracy:min",
        "accuracy/accuracy:max_drop",
        "accuracy/recall:min[class=a]",
        "accuracy/recall:min[class=b]",
        "accuracy/recall:min[class=fraud]",
        "segments/recall:max_drop[transaction_type=refund]",
        "segments/recall:max_drop[transaction_type=sale]",
        "segments/worst:min[by=transaction_type]",
    ]


@pytest.mark.parametrize(
    ("column", "value", "suffix"),
    [
        ("shift", "2027-q1", "[shift=2027-q1]"),
        ("a[b]", "c=d", "[a%5Bb%5D=c%3Dd]"),
        ("time", "10:30 / 50%", "[time=10%3A30 %2F 50%25]"),
        ("band", ">80k", "[band=>80k]"),
        ("line\nbreak", "tab\tnul\0del\x7f", "[line%0Abreak=tab%09nul%00del%7F]"),
        ("größe", "\u2028", "[größe=%E2%80%A8]"),
        ("c", "", "[c=]"),
    ],
)
def test_the_characters_that_structure_an_id_are_percent_encoded_in_values(
    column: str, value: str, suffix: str
) -> None:
    assert Member(column, value).suffix == suffix


@given(st.text(), st.text())
def test_a_gates_member_can_be_read_back_from_its_id(column: str, value: str) -> None:
    suffix = Member(column, value).suffix
    assert suffix.isprintable()
    assert not set("[]:/") & set(suffix[1:-1])
    assert tuple(unquote(part) for part in suffix[1:-1].split("=")) == (column, value)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_distinct_members_have_distinct_ids(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (Member(*one).suffix == Member(*other).suffix) == (one == other)


# Verdicts of one gate


@pytest.mark.parametrize("wrong", range(26))
def test_a_share_passes_and_fails_where_the_exact_binomial_test_says_so(wrong: int) -> None:
    n, limit = 100, 0.9
    right = n - wrong
    row = only(accuracy(f"min = {limit}", wrong, n))
    # PASS: so many right would be rare at the limit; FAIL: so few would.
    passes = binom.sf(right - 1, n, limit) <= 0.05
    fails = binom.cdf(right, n, limit) < 0.05
    assert row.verdict is (PASS if passes else FAIL if fails else INCONCLUSIVE)
    assert row.value == right / n
    assert row.n == n
    assert row.interval == pytest.approx(binomial_bounds(right, n, 0.95))
    assert row.basis == "absolute"


@pytest.mark.parametrize(("n", "verdict"), [(28, INCONCLUSIVE), (29, PASS)])
def test_without_an_error_twenty_nine_examples_show_ninety_percent(n: int, verdict: Verdict) -> None:
    # 0.95 ≥ 1 - 0.9^n from n = 28.4.
    assert only(accuracy("min = 0.9", 0, n)).verdict is verdict


@pytest.mark.parametrize(
    ("limit", "n", "verdict"),
    [
        (0.01, 267, INCONCLUSIVE),
        (0.01, 268, PASS),
        (0.02, 132, INCONCLUSIVE),
        (0.02, 133, PASS),
        (0.05, 51, INCONCLUSIVE),
        (0.05, 52, PASS),
    ],
)
def test_without_any_difference_a_drop_passes_from_z_squared_by_the_limit_on(
    limit: float, n: int, verdict: Verdict
) -> None:
    assert (Z95**2 / (n + Z95**2) <= limit) == (verdict is PASS)
    row = only(accuracy(f"max_drop = {limit}", 0, n))
    assert row.verdict is verdict
    assert row.value == 0
    assert row.interval == pytest.approx((-(Z95**2) / (n + Z95**2), Z95**2 / (n + Z95**2)))


@pytest.mark.parametrize("gained", [0, 3])
@pytest.mark.parametrize("lost", range(0, 31, 2))
def test_a_drop_passes_and_fails_where_tangos_score_test_says_so(lost: int, gained: int) -> None:
    z = tango_z(lost, gained, 200, 0.05)
    row = only(accuracy("max_drop = 0.05", lost, 200, gained))
    assert row.verdict is (PASS if z <= -Z95 else FAIL if z > Z95 else INCONCLUSIVE)
    assert row.value == pytest.approx((lost - gained) / 200)
    assert (row.variant_value, row.comparator_value) == pytest.approx((1 - lost / 200, 1 - gained / 200))
    assert row.basis == "paired"
    assert row.comparator == "dense"


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_point_estimate_that_keeps_the_limit_is_not_yet_a_pass(wrong: int) -> None:
    rows = accuracy("max_drop = 0.02, min = 0.98", wrong, 100)
    assert {row.verdict for row in rows.values()} == {INCONCLUSIVE}


def test_a_limit_met_with_equality_by_the_bound_is_a_pass() -> None:
    bound = binomial_bounds(95, 100, 0.95).lower
    assert only(accuracy(f"min = {bound!r}", 5, 100)).verdict is PASS
    assert only(accuracy(f"min = {np.nextafter(bound, 1)!s}", 5, 100)).verdict is INCONCLUSIVE


def test_an_interval_that_is_outside_by_a_hair_fails() -> None:
    for lost in range(5, 40, 7):
        bound = tango_bounds(lost, 0, 300, 0.95).lower
        assert only(accuracy(f"max_drop = {np.nextafter(bound, -1)!s}", lost, 300)).verdict is FAIL
        assert only(accuracy(f"max_drop = {bound!r}", lost, 300)).verdict is INCONCLUSIVE


@pytest.mark.parametrize(("confidence", "n"), [(0.9, 163), (0.95, 268), (0.99, 536), (0.999, 946)])
def test_a_gate_may_have_its_own_confidence(confidence: float, n: int) -> None:
    # Smallest n with z²/(n + z²) ≤ 0.01.
    assert n == math.ceil(99 * norm.ppf(confidence) ** 2)
    limits = f"max_drop = 0.01, confidence = {confidence}"
    for have, verdict in ((n - 1, INCONCLUSIVE), (n, PASS)):
        row = only(accuracy(limits, 0, have, confidence=0.8))
        assert (row.verdict, row.confidence) == (verdict, confidence)


@pytest.mark.parametrize("confidence", [0.95, 0.9999, 0.9999999])
def test_what_is_clearly_outside_fails_at_any_confidence(confidence: float) -> None:
    assert only(accuracy("min = 0.9", 500, 1000, confidence=confidence)).verdict is FAIL


def test_the_reason_gives_value_interval_level_and_limit() -> None:
    row = only(accuracy("max_drop = 0.05", 30, 200))
    lower, upper = tango_bounds(30, 0, 200, 0.95)
    assert row.reason == f"0.1500, 90 % interval {lower:.4f} to {upper:.4f}, is outside max_drop 0.05"


# How many more


@pytest.mark.parametrize(
    ("limits", "wrong", "n", "gained"),
    [
        ("min = 0.9", 0, 20, 0),
        ("min = 0.9", 6, 80, 0),
        ("min = 0.9", 12, 90, 0),
        ("max_drop = 0.01", 0, 100, 0),
        ("max_drop = 0.05", 2, 60, 1),
        ("max_drop = 0.05", 9, 120, 0),
    ],
)
def test_with_the_promised_number_of_examples_the_verdict_is_decided_and_with_one_less_it_is_not(
    limits: str, wrong: int, n: int, gained: int
) -> None:
    row = only(accuracy(limits, wrong, n, gained))
    assert row.verdict is INCONCLUSIVE
    assert row.needed is not None
    assert f"about {row.needed:,} more examples would decide" in row.reason
    limit = row.limit.value

    def decided(total: int) -> bool:
        scale = total / n
        if row.limit.key == "min":
            lower, upper = binomial_bounds((n - wrong) * scale, total, 0.95)
            return bool(lower >= limit or upper < limit)
        lower, upper = tango_bounds(wrong * scale, gained * scale, total, 0.95)
        return bool(upper <= limit or lower > limit)

    assert decided(n + row.needed)
    assert not decided(n + row.needed - 1)


def test_the_promise_is_kept_by_a_larger_test_set() -> None:
    row = only(accuracy("max_drop = 0.01", 0, 100))
    assert row.needed == 168
    assert only(accuracy("max_drop = 0.01", 0, 268)).verdict is PASS


@pytest.mark.parametrize(
    "limits",
    ["balanced_accuracy.min = 0.6", "recall.min = 0.7", "precision.min = 0.6", "auroc.min = 0.75", "brier.max = 0.22"],
)
def test_the_promise_is_kept_for_other_kinds_of_estimate(limits: str) -> None:
    on, said, _ = random_binary(1, n=60, digits=None)
    gate = f"[suites.segments]\nmin_n = 1\n[suites.segments.gates]\n{limits}"
    row = only(repeated(gate, on, said, 1))
    assert row.verdict is INCONCLUSIVE
    assert row.needed
    times = 1.15 * (row.n + row.needed) / row.n
    assert only(repeated(gate, on, said, math.ceil(times))).verdict in (PASS, FAIL)


def repeated(gate: str, on: Examples, said: Predictions, times: int) -> dict[str, GateRow]:
    """The rows of one segment within a test set, all of it repeated."""
    inside = ["a"] * on.facts.n + ["b"] * 5
    targets = np.concatenate([on.targets, [0, 1, 0, 1, 0]])
    outputs = np.concatenate([said.outputs, np.zeros((5, 1))])
    many = examples(np.tile(targets, times), segments={"s": inside * times})
    found = judged(gate, many, predictions(np.tile(outputs, (times, 1)), many), saying(many.targets, many))
    return {name: row for name, row in found.items() if name.endswith("[s=a]")}


def test_no_number_is_promised_where_the_value_is_on_the_limit() -> None:
    row = only(accuracy("min = 0.9", 10, 100))
    assert (row.verdict, row.needed) == (INCONCLUSIVE, None)
    assert "no number of examples would soon decide" in row.reason


# Families


def in_segments(limits: str, lost: list[int], n: int = 60) -> list[GateRow]:
    """One segment of ``n`` examples for each count of lost ones."""
    total = n * len(lost)
    names = [f"s{position}" for position in range(len(lost)) for _ in range(n)]
    on = examples([0] * total, segments={"s": names})
    wrong = np.concatenate([np.arange(count) + n * position for position, count in enumerate(lost)])
    said, dense = flipped(on, wrong.astype(int)), saying([0] * total, on)
    return list(judged(f"[suites.segments.gates]\naccuracy = {{ {limits} }}", on, said, dense).values())


def test_a_family_passes_when_each_member_passes_uncorrected() -> None:
    # Zero of 60 are bounded by 0.0432 at 95 %, by 0.0996 at the 99.5 % of a correction for ten.
    rows = in_segments("max_drop = 0.05", [0] * 10)
    assert {row.verdict for row in rows} == {PASS}


def p_of(lost: int, n: int, margin: float) -> float:
    return float(norm.sf(tango_z(lost, 0, n, margin)))


@pytest.mark.parametrize("lost", range(4, 16))
def test_one_member_fails_only_when_it_does_so_holm_corrected(lost: int) -> None:
    row, *others = in_segments("max_drop = 0.05", [lost, *[0] * 9])
    p = p_of(lost, 60, 0.05)
    assert row.verdict is (FAIL if p <= 0.05 / 10 else INCONCLUSIVE)
    if 0.05 / 10 < p < 0.05:
        assert row.reason.endswith("is outside max_drop 0.05 by itself, not after Holm's correction over 10 members")
    if p <= 0.05 / 10:
        assert row.reason.endswith("is outside max_drop 0.05, Holm-corrected over 10 members")
    assert {other.verdict for other in others} == {PASS}


def test_the_losses_of_that_test_reach_each_of_its_cases() -> None:
    p_values = [p_of(lost, 60, 0.05) for lost in range(4, 16)]
    assert any(p > 0.05 for p in p_values)
    assert any(0.005 < p < 0.05 for p in p_values)
    assert any(p <= 0.005 for p in p_values)


def test_holm_steps_down_from_the_worst_member() -> None:
    # Alone among three members it may be chance; beside one that fails outright it fails too.
    assert 0.05 / 3 < p_of(7, 55, 0.05) <= 0.05 / 2
    assert [row.verdict for row in in_segments("max_drop = 0.05", [7, 0, 0], 55)] == [INCONCLUSIVE, PASS, PASS]
    assert [row.verdict for row in in_segments("max_drop = 0.05", [7, 30, 0], 55)] == [FAIL, FAIL, PASS]


def test_a_single_member_is_not_corrected() -> None:
    on = examples([0] * 60, segments={"s": ["x"] * 60})
    suites = "[suites.segments.gates]\naccuracy = { max_drop = 0.05 }"
    row = only(judged(suites, on, flipped(on, range(9)), saying([0] * 60, on)))
    assert row.verdict is FAIL
    assert "Holm" not in row.reason


def test_each_class_is_a_member_of_its_metrics_family() -> None:
    on = examples([0] * 50 + [1] * 50 + [2] * 50, ["a", "b", "c"])
    said = saying([0] * 50 + [1] * 20 + [0] * 30 + [2] * 50, on)
    rows = judged("[suites.accuracy.gates]\nrecall = { min = 0.9 }", on, said, saying(on.targets, on))
    assert {name: row.verdict for name, row in rows.items()} == {
        "accuracy/recall:min[class=a]": PASS,
        "accuracy/recall:min[class=b]": FAIL,
        "accuracy/recall:min[class=c]": PASS,
    }
    assert rows["accuracy/recall:min[class=b]"].segment == {"class": "b"}


# Bootstrap, exact numbers and ratios

BOOTSTRAPPED = """
[suites.accuracy.gates]
auroc = { min = 0.6, max_drop = 0.2 }
brier = { max = 0.3, max_ratio = 2 }
fpr = { max_ratio = 5 }
"""


def bootstrapped(suites: str = BOOTSTRAPPED, **audit: Any) -> dict[str, GateRow]:
    on, said, _ = random_binary(5, n=150)
    generator = np.random.default_rng(0)
    dense = predictions(said.outputs[:, 0] + 0.3 * generator.normal(size=150), on)
    return judged(suites, on, said, dense, **audit)


def test_bootstrapped_gates_are_the_same_again_and_in_any_order() -> None:
    first, again = bootstrapped(), bootstrapped()
    assert first == again
    turned = bootstrapped("""
[suites.accuracy.gates]
fpr = { max_ratio = 5 }
brier = { max_ratio = 2, max = 0.3 }
auroc = { max_drop = 0.2, min = 0.6 }
""")
    assert list(turned) != list(first)
    assert turned == first
    alone = bootstrapped("[suites.accuracy.gates]\nbrier = { max_ratio = 2 }")
    assert only(alone) == first["accuracy/brier:max_ratio"]


def test_bootstrapped_gates_change_with_the_audits_seed_and_resamples() -> None:
    plain = bootstrapped()["accuracy/auroc:min"].interval
    assert bootstrapped(seed=1)["accuracy/auroc:min"].interval != plain
    assert bootstrapped(resamples=500)["accuracy/auroc:min"].interval != plain


def test_two_gates_of_one_metric_do_not_share_their_resamples() -> None:
    row = bootstrapped("[suites.accuracy.gates]\nauroc = { min = 0.6 }")["accuracy/auroc:min"]
    on, said, _ = random_binary(5, n=150)
    other = judged("[suites.accuracy.gates]\nauroc = { min = 0.6 }", on, said, saying(on.targets, on), variant="p@0.8")
    assert other["accuracy/auroc:min"].value == row.value
    assert other["accuracy/auroc:min"].interval != row.interval


def test_a_ratio_is_that_of_the_variant_to_the_comparator() -> None:
    on = examples([0] * 1000 + [1] * 10)
    dense, said = flipped(on, range(50)), flipped(on, range(25, 125))
    rows = judged("[suites.accuracy.gates]\nfpr = { max_ratio = 3 }", on, said, dense)
    row = only(rows)
    assert (row.value, row.variant_value, row.comparator_value) == pytest.approx((2.0, 0.1, 0.05))
    assert row.verdict is PASS
    assert only(judged("[suites.accuracy.gates]\nfpr = { max_ratio = 1.2 }", on, said, dense)).verdict is FAIL
    assert only(judged("[suites.accuracy.gates]\nfpr = { max_ratio = 2 }", on, said, dense)).verdict is INCONCLUSIVE


def test_a_ratio_to_zero_is_an_error() -> None:
    on = examples([0] * 100 + [1] * 10)
    right = saying(on.targets, on)
    row = only(judged("[suites.accuracy.gates]\nfpr = { max_ratio = 9 }", on, right, right))
    assert (row.verdict, row.value) == (ERROR, None)
    assert "fpr of dense is 0" in row.reason


def by_hand(metric: str, limits: str, estimate: Estimate | None, **comparators: Estimate | None) -> GateRow:
    """The row of a gate whose measurement is made by hand."""
    found = asked(f"[suites.accuracy.gates]\n{metric} = {{ {limits} }}")
    facts = Facts("regression" if metric in ("mae", "rmse", "r2") else "binary", 50, ("no", "yes"), {})

    def one(value: Estimate | None) -> dict[str, list[Measurement]]:
        return {"accuracy": [Measurement(metric, None, value, 50, "", "hand")]}

    (spec, _) = policy.variants(found)
    others = {name: one(value) for name, value in comparators.items()}
    (row,) = gates.judge(found, gates.expand(found, facts), spec, one(estimate), others, facts.n)
    return row


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ("max = 4", PASS),
        ("max = 3.99", FAIL),
        ("max_rise = 0.5", FAIL),
        ("max_ratio = 1.34", PASS),
        ("max_ratio = 1.33", FAIL),
    ],
)
def test_an_exact_number_is_inside_or_outside_and_has_no_interval(limits: str, verdict: Verdict) -> None:
    row = by_hand("mae", limits, Exact(4.0), dense=Exact(3.0))
    assert (row.verdict, row.interval, row.method) == (verdict, None, "deterministic")


# Comparators, ratios, tasks


def test_a_gate_against_previous_compares_with_the_last_accepted_model() -> None:
    on = examples([0] * 400)
    dense, previous, said = saying([0] * 400, on), flipped(on, range(40)), flipped(on, range(44))
    suites = (
        '[comparators]\nprevious = "old.safetensors"\n'
        '[suites.accuracy.gates]\naccuracy = {{ max_drop = 0.05, comparator = "{}" }}'
    )
    row = only(judged(suites.format("previous"), on, said, dense, previous))
    assert (row.verdict, row.comparator) == (PASS, "previous")
    assert row.value == pytest.approx(0.01)
    assert row.comparator_value == pytest.approx(0.9)
    assert only(judged(suites.format("dense"), on, said, dense, previous)).verdict is FAIL
    missing = only(judged(suites.format("previous"), on, said, dense))
    assert missing.verdict is ERROR
    assert missing.reason == "no accuracy of previous to compare with: it was not measured"


def test_up_to_gates_the_lower_ratios_only() -> None:
    on = examples([0] * 100)
    suites = "[suites.accuracy.gates]\naccuracy = { min = 0.5 }\nbalanced_accuracy = { min = 0.5, up_to = 0.5 }"
    right = saying([0] * 100, on)
    assert list(judged(suites, on, right, right)) == ["accuracy/accuracy:min", "accuracy/balanced_accuracy:min"]
    assert list(judged(suites, on, right, right, variant="p@0.8")) == ["accuracy/accuracy:min"]


@pytest.mark.parametrize(
    ("suites", "classes", "told"),
    [
        ("[suites.accuracy.gates]\nmae = { max = 1 }", ["a", "b"], "mae is not defined for a binary task"),
        ("[suites.accuracy.gates]\nfpr = { max = 0.9 }", ["a", "b", "c"], "fpr is not defined for a multiclass task"),
        ("[suites.accuracy.gates]\nrecall = { min = 0.1 }", [], "recall is not defined for a regression task"),
        ("[suites.segments.gates]\naccuracy = { min = 0.1 }", ["a", "b"], "there is no segment to measure accuracy on"),
        (
            "[suites.segments.gates]\nworst = { min = 0.1 }",
            ["a", "b"],
            "there is no segment column to measure worst on",
        ),
    ],
)
def test_a_metric_that_the_task_does_not_have_is_one_error_row(suites: str, classes: list[str], told: str) -> None:
    on = examples([0] * 40, classes)
    right = predictions(np.zeros((40, max(1, len(classes)))), on)
    row = only(judged(suites, on, right, right))
    assert (row.verdict, row.reason, row.n) == (ERROR, told, 0)


def test_each_gate_of_a_test_set_that_could_not_be_loaded_is_one_gate() -> None:
    found = asked("[suites.accuracy.gates]\nrecall = { min = 0.5, max_drop = 0.1 }")
    assert [gate.id for gate in gates.unexpanded(found).gates] == ["accuracy/recall:min", "accuracy/recall:max_drop"]


# Nothing that is missing passes

GENEROUS = {"min": 1e-9, "max": 0.999999, "max_drop": 0.999999, "max_rise": 0.999999, "max_ratio": 1e6}
"""Limits that any evidence at all keeps."""

METRICS = [
    (name, metric, key)
    for name in ("accuracy", "segments")
    for metric in policy.suite(name).metrics
    for key in metric.limits
]


def statistic(value: float, n: int = 50, spread: float = 1.0) -> Statistic:
    return Statistic(np.arange(n), lambda weights: value, support=n, size=50, spread=spread, resamples=200)


def good() -> Proportion:
    return Proportion(np.arange(50), np.arange(50) % 2 == 0)


def never(weights: NDArray[np.int64]) -> float:
    return float("nan") if weights.max() > 1 else 0.5


nothing = st.sampled_from(
    [
        "absent",
        "another metric",
        "another member",
        None,
        Exact(math.nan),
        Exact(math.inf),
        Exact(-math.inf),
        Proportion(np.array([], dtype=np.int64), np.array([], dtype=bool)),
        statistic(math.nan),
        Statistic(np.arange(50), never, support=50, size=50),
    ]
)
"""What is no measurement: none, nothing, not a number, of no example, undefined under resampling."""


def with_measurements(
    suite: str, metric: str, key: str, own: Any, other: Any, small: bool, comparator: str
) -> list[GateRow]:
    limit = -1e6 if metric == "r2" and key == "min" else GENEROUS[key]
    compares = f', comparator = "{comparator}"' if key in policy.COMPARING_KEYS else ""
    found = asked(
        '[comparators]\nprevious = "m:f"\n'
        f"[suites.{suite}]\n[suites.{suite}.gates]\n{metric} = {{ {key} = {limit!r}{compares} }}",
        resamples=200,
    )
    found_metric = next(each for each in policy.suite(suite).metrics if each.name == metric)
    task = "regression" if "regression" in found_metric.tasks else "binary"
    facts = Facts(task, 50, ("no", "yes"), {"s": {"a": 25, "b": 25}})  # type: ignore[arg-type]
    expansion = gates.expand(found, facts)

    def made(estimate: Any, is_small: bool = False) -> dict[str, list[Measurement]]:
        if estimate == "absent":
            return {}
        return {
            suite: [
                Measurement(
                    "mce" if estimate == "another metric" else metric,
                    Member("s", "z") if estimate == "another member" else gate.member,
                    good() if isinstance(estimate, str) else estimate,
                    50,
                    "share",
                    "",
                    is_small,
                )
                for gate in expansion.gates
            ]
        }

    (spec, _) = policy.variants(found)
    others = {"dense": made(good()), "previous": made(good()), comparator: made(other)}
    if other == "absent":
        del others[comparator]
    return gates.judge(found, expansion, spec, made(own, small), others, 50)


@pytest.mark.parametrize(("suite", "metric", "key"), [(suite, metric.name, key) for suite, metric, key in METRICS])
def test_the_generous_limits_pass_with_any_measurement(suite: str, metric: str, key: str) -> None:
    rows = with_measurements(suite, metric, key, good(), good(), small=False, comparator="dense")
    assert rows
    assert {row.verdict for row in rows} == {PASS}


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(METRICS), nothing, st.booleans(), st.sampled_from(["dense", "previous"]))
def test_no_missing_or_undefined_measurement_passes(case: Any, own: Any, small: bool, comparator: str) -> None:
    suite, metric, key = case
    if own == "another member" and metric.family is None:
        own = "absent"
    rows = with_measurements(suite, metric.name, key, own, good(), small, comparator)
    assert rows
    for row in rows:
        assert row.verdict in (ERROR, INCONCLUSIVE)
        assert row.reason
        assert row.interval is None or not small


@settings(deadline=None, max_examples=120)
@given(
    st.sampled_from([case for case in METRICS if case[2] in policy.COMPARING_KEYS]),
    nothing,
    st.sampled_from(["dense", "previous"]),
)
def test_no_missing_or_undefined_comparator_lets_a_gate_pass(case: Any, other: Any, comparator: str) -> None:
    suite, metric, key = case
    if other == "another member" and metric.family is None:
        other = "absent"
    rows = with_measurements(suite, metric.name, key, good(), other, False, comparator)
    assert {row.verdict for row in rows} <= {ERROR, INCONCLUSIVE}


@pytest.mark.parametrize(("suite", "metric", "key"), [(suite, metric.name, key) for suite, metric, key in METRICS])
def test_a_measurement_on_too_few_examples_is_inconclusive(suite: str, metric: str, key: str) -> None:
    for row in with_measurements(suite, metric, key, good(), good(), small=True, comparator="dense"):
        assert row.verdict is INCONCLUSIVE
        assert row.reason == "50 examples are under the policy's min_n"


def test_a_metric_with_nothing_to_measure_on_says_why() -> None:
    on = examples([0] * 50 + [1] * 50)
    said = saying([0] * 100, on)
    rows = judged("[suites.accuracy.gates]\nprecision = { min = 0.1 }", on, said, said)
    row = rows["accuracy/precision:min[class=yes]"]
    assert (row.verdict, row.value, row.n) == (INCONCLUSIVE, None, 0)
    assert row.reason == "nothing to measure: nothing is called yes"


def test_an_undefined_bootstrap_is_inconclusive_with_its_value_and_no_interval() -> None:
    on = examples([1] + [0] * 99)
    said = predictions(np.linspace(3, -3, 100), on)
    row = only(judged("[suites.accuracy.gates]\nauroc = { min = 0.1 }", on, said, said))
    assert (row.verdict, row.value, row.interval) == (INCONCLUSIVE, 1.0, None)
    assert "give no interval" in row.reason


def test_a_small_segment_without_a_bootstrap_interval_does_not_stop_the_others() -> None:
    on = examples([1] + [0] * 9 + [0, 1] * 200, segments={"s": ["few"] * 10 + ["many"] * 400})
    said = predictions(on.targets * 4.0 - 2 + np.linspace(-1, 1, 410), on)
    rows = judged("[suites.segments.gates]\nauroc = { min = 0.5 }", on, said, said)
    assert [row.verdict for row in rows.values()] == [INCONCLUSIVE, PASS]
    assert rows["segments/auroc:min[s=few]"].interval is None


def test_too_few_resamples_for_the_confidence_are_inconclusive() -> None:
    row = bootstrapped("[suites.accuracy.gates]\nauroc = { min = 0.1, confidence = 0.999 }", resamples=200)
    assert (only(row).verdict, only(row).interval) == (INCONCLUSIVE, None)


@pytest.mark.parametrize("limits", ["mae = { max = 100 }", "mae = { max_rise = 100 }", "rmse = { max_ratio = 100 }"])
def test_a_regression_without_any_spread_is_no_evidence(limits: str) -> None:
    on = examples([3.0], classes=())
    said = predictions(np.array([3.5]), on)
    assert only(judged(f"[suites.accuracy.gates]\n{limits}", on, said, said)).verdict is INCONCLUSIVE


def test_a_regression_is_judged_by_a_paired_bootstrap() -> None:
    generator = np.random.default_rng(0)
    on = examples(generator.normal(size=500), classes=())
    dense = predictions(on.targets + 0.1 * generator.normal(size=500), on)
    said = predictions(dense.outputs[:, 0] + 0.1 * generator.normal(size=500), on)
    found = judged("[suites.accuracy.gates]\nmae = { max = 0.2, max_rise = 0.01 }", on, said, dense)
    assert [row.verdict for row in found.values()] == [PASS, FAIL]


# Gates made in test code


@pytest.mark.parametrize(
    ("key", "limit", "estimate", "verdict"),
    [
        ("max", 0.02, Proportion(np.arange(300), np.zeros(300, dtype=bool)), PASS),
        ("max", 0.02, Proportion(np.arange(30), np.zeros(30, dtype=bool)), INCONCLUSIVE),
        ("max", 0.02, Proportion(np.arange(300), np.arange(300) < 30), FAIL),
        ("min", 0.5, Exact(0.5), PASS),
        ("min", 0.5, Exact(0.4), FAIL),
        ("min", 0.5, Exact(math.nan), ERROR),
        ("max", 0.5, Exact(math.nan), ERROR),
        ("max", 1.0, Proportion(np.arange(0), np.zeros(0, dtype=bool)), ERROR),
    ],
)
def test_a_gate_of_test_code_is_judged_by_the_same_rules(
    key: str, limit: float, estimate: Estimate, verdict: Verdict
) -> None:
    row = gates.from_test("churn", "p@0.5", True, key, limit, estimate, 300, 0.95)
    assert (row.id, row.verdict, row.basis) == (f"tests/churn:{key}", verdict, "test code")


# Waivers


def waiver(**changes: Any) -> Waiver:
    table = {
        "gate": "accuracy/accuracy:max_drop",
        "variant": "p@0.5",
        "observed_max": 0.2,
        "reason": "known",
        "approved_by": "board",
        "expires": TODAY,
    }
    return Waiver(**{**table, **changes})


def waived(row: GateRow, *found: Waiver, today: datetime.date = TODAY) -> tuple[GateRow, list[str]]:
    (after,), rows = gates.waive([row], found, today)
    return after, [each.state for each in rows]


@cache
def failing(limits: str = "max_drop = 0.05") -> GateRow:
    return only(accuracy(limits, 30, 200))


def test_a_waiver_covers_a_failure_within_its_limit_until_its_last_day() -> None:
    row, states = waived(failing(), waiver())
    assert (row.verdict, states) == (WAIVED, ["used"])
    assert row.reason.startswith("waived until 2026-06-01 by board: known (0.1500, 90 % interval")
    row, states = waived(failing(), waiver(), today=TODAY + datetime.timedelta(days=1))
    assert (row.verdict, states) == (FAIL, ["expired"])
    assert row.reason.endswith("its waiver expired on 2026-06-01")


@pytest.mark.parametrize(("observed", "verdict", "state"), [(0.15, WAIVED, "used"), (0.149, FAIL, "exceeded")])
def test_a_waiver_is_a_looser_limit_and_no_blank_cheque(observed: float, verdict: Verdict, state: str) -> None:
    row, states = waived(failing(), waiver(observed_max=observed))
    assert (row.verdict, states) == (verdict, [state])


@pytest.mark.parametrize(("observed", "verdict"), [(0.85, WAIVED), (0.8, WAIVED), (0.851, FAIL)])
def test_for_a_minimum_the_worst_that_is_accepted_is_the_smallest(observed: float, verdict: Verdict) -> None:
    row, _ = waived(failing("min = 0.95"), waiver(gate="accuracy/accuracy:min", observed_max=observed))
    assert row.value == 0.85
    assert row.verdict is verdict


def test_a_waiver_covers_an_inconclusive_gate() -> None:
    undecided = only(accuracy("max_drop = 0.05", 8, 200))
    assert undecided.verdict is INCONCLUSIVE
    assert waived(undecided, waiver())[0].verdict is WAIVED


def test_a_waiver_of_another_gate_or_variant_is_unused() -> None:
    for other in (waiver(gate="accuracy/accuracy:min"), waiver(variant="p@0.8")):
        row, states = waived(failing(), other)
        assert (row, states) == (failing(), ["unused"])


@given(
    st.sampled_from(Verdict),
    st.none() | st.floats(-1, 1),
    st.floats(-1, 1),
    st.sampled_from(["min", "max", "max_drop", "max_rise", "max_ratio"]),
    st.integers(-2, 2),
)
def test_waivers_turn_nothing_into_pass_and_leave_errors_and_gates_that_did_not_run(
    verdict: Verdict, value: float | None, observed: float, key: str, days: int
) -> None:
    limit = failing().limit.model_copy(update={"key": key})
    before = failing().model_copy(update={"verdict": verdict, "value": value, "limit": limit, "reason": "why"})
    date = TODAY + datetime.timedelta(days=days)
    after, states = waived(before, waiver(observed_max=observed, expires=date))
    if verdict not in (FAIL, INCONCLUSIVE):
        assert (after, states) == (before, ["unused"])
        return
    within = value is not None and (value >= observed if key == "min" else value <= observed)
    assert after.verdict is (WAIVED if within and days >= 0 else verdict)
    assert "why" in after.reason


def test_the_policys_own_waiver_reaches_the_gate_of_an_odd_segment() -> None:
    on = examples([0] * 200, segments={"s": ["50%=half"] * 100 + ["rest"] * 100})
    suites = (
        "[suites.segments.gates]\naccuracy = { max_drop = 0.05 }\n[[waivers]]\n"
        'gate = "segments/accuracy:max_drop[s=50%25%3Dhalf]"\nvariant = "p@0.5"\nobserved_max = 0.5\n'
        'reason = "r"\napproved_by = "b"\nexpires = 2030-01-01'
    )
    rows = judged(suites, on, flipped(on, range(40)), saying([0] * 200, on))
    after, waivers = gates.waive(list(rows.values()), asked(suites).waivers, TODAY)
    assert [row.verdict for row in after] == [WAIVED, PASS]
    assert waivers[0].state == "used"


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"], []])
def test_what_is_measured_has_one_measurement_for_each_gate(classes: list[str]) -> None:
    suites = ""
    for name in ("accuracy", "segments"):
        limits = [f"{metric.name}.{metric.limits[0]} = 0.5\n" for metric in policy.suite(name).metrics]
        suites += f"[suites.{name}.gates]\n{''.join(limits)}"
    found = asked(suites)
    on = examples(np.arange(90) % max(len(classes), 2), classes, {"s": ["x"] * 40 + ["y"] * 50})
    said = predictions(np.zeros((90, max(1, len(classes)))), on)
    keys = [
        (suite, entry.metric, entry.member)
        for suite, entries in measured(found, on, said, said).items()
        for entry in entries
    ]
    assert len(keys) == len(set(keys))
    expansion = gates.expand(found, on.facts)
    wanted = {
        (gate.spec.suite, gate.spec.metric.name, gate.member)
        for gate in expansion.gates
        if gate.spec.stem not in expansion.undefined
    }
    assert wanted == set(keys)
