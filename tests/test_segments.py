"""The suites on outcomes made by hand: each segment and class against a loop, and nothing dropped on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from builders import asked, examples, flipped, judged, measured, predictions, random_multiclass, saying
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from pruneproof import policy
from pruneproof.estimates import Extreme, Proportion
from pruneproof.outcomes import Examples, Predictions
from pruneproof.suite import Measurement, Member
from pruneproof.verdicts import Verdict

unhurried = settings(deadline=None)


def measurements(
    options: str, on: Examples, said: Predictions, dense: Predictions | None = None
) -> dict[tuple[str, Member | None], Measurement]:
    found = asked(f"[suites.segments]\n{options}\n[suites.segments.gates]\naccuracy = {{ min = 0.5 }}")
    entries = measured(found, on, said, dense or said)["segments"]
    keyed = {(entry.metric, entry.member): entry for entry in entries}
    assert len(keyed) == len(entries)
    return keyed


def value(entry: Measurement) -> float:
    assert entry.estimate is not None
    return entry.estimate.value


@st.composite
def cut(draw: st.DrawFn) -> tuple[Examples, Predictions, Predictions]:
    """A test set in segments with odd names, and two models."""
    names = draw(st.lists(st.text(max_size=4) | st.just("other"), min_size=1, max_size=5, unique=True))
    rows = draw(st.lists(st.tuples(st.sampled_from(names), st.booleans(), st.booleans()), min_size=1, max_size=80))
    segments, now, before = zip(*rows, strict=True)
    on = examples([0] * len(rows), segments={"col": segments})
    return on, saying(~np.array(now), on), saying(~np.array(before), on)


# Segments


@unhurried
@given(cut())
def test_each_segments_accuracy_gap_and_size_are_what_a_loop_finds(
    drawn: tuple[Examples, Predictions, Predictions],
) -> None:
    on, said, dense = drawn
    column = list(on.segments["col"])
    found = measurements("min_n = 5", on, said, dense)
    accuracies = {}
    drop = np.mean(dense.labels == 0) - np.mean(said.labels == 0)
    for name in set(column):
        inside = np.array([entry == name for entry in column])
        member = Member("col", name)
        entry = found["accuracy", member]
        accuracies[name] = float(np.mean(said.labels[inside] == 0))
        assert value(entry) == pytest.approx(accuracies[name])
        assert entry.n == inside.sum()
        assert entry.small == (inside.sum() < 5)
        gap = found["excess_accuracy_gap", member]
        if inside.all():
            assert (gap.estimate, gap.note) == (None, "the segment is the whole test set")
        else:
            own = np.mean(dense.labels[inside] == 0) - np.mean(said.labels[inside] == 0)
            assert value(gap) == pytest.approx(own - drop, abs=1e-12)
            assert gap.n == inside.sum()
    assert sum(found["accuracy", Member("col", name)].n for name in set(column)) == on.facts.n
    by = Member("by", "col")
    assert value(found["worst", by]) == pytest.approx(min(accuracies.values()))
    if len(accuracies) > 1:
        assert value(found["gap", by]) == pytest.approx(max(accuracies.values()) - min(accuracies.values()))
    else:
        assert found["gap", by].note == "col has one segment only"
    assert found["worst", by].n == on.facts.n


@unhurried
@given(cut(), st.integers(1, 30))
def test_pooled_segments_are_joined_and_every_example_is_in_exactly_one(
    drawn: tuple[Examples, Predictions, Predictions], min_n: int
) -> None:
    on, said, dense = drawn
    column = list(on.segments["col"])
    found = measurements(f'min_n = {min_n}\nsmall = "pool"', on, said, dense)
    sizes = {name: column.count(name) for name in set(column)}
    kept = {name for name, n in sizes.items() if n >= min_n and name != "other"}
    shown = {member.value: entry for (metric, member), entry in found.items() if metric == "accuracy" and member}
    assert set(shown) == kept | ({"other"} if kept != set(sizes) else set())
    assert sum(entry.n for entry in shown.values()) == on.facts.n
    for name in kept:
        assert shown[name].n == sizes[name]
    if "other" in shown:
        pooled = [position for position, name in enumerate(column) if name not in kept]
        assert value(shown["other"]) == pytest.approx(np.mean(said.labels[pooled] == 0))
        assert shown["other"].small == (len(pooled) < min_n)
        assert list(shown)[-1] == "other"


@unhurried
@given(cut(), st.sampled_from(["inconclusive", "pool"]), st.integers(1, 30))
def test_what_is_measured_is_what_the_gates_expand_to_before_anything_is_measured(
    drawn: tuple[Examples, Predictions, Predictions], small: str, min_n: int
) -> None:
    on, said, dense = drawn
    options = f'min_n = {min_n}\nsmall = "{small}"'
    suite = policy.suite("segments")
    read = asked(f"[suites.segments]\n{options}\n[suites.segments.gates]\naccuracy = {{ min = 0.5 }}")
    expected = [
        (metric.name, member)
        for metric in suite.metrics
        if "binary" in metric.tasks
        for member in suite.members(metric, on.facts, read.suites["segments"].options)
    ]
    assert set(measurements(options, on, said, dense)) == set(expected)
    assert len(expected) == len(set(expected))


def test_segments_whose_names_differ_in_an_invisible_character_are_two_segments() -> None:
    on = examples([0] * 90, segments={"s": ["a"] * 40 + ["a\0"] * 30 + ["\0"] * 20})
    found = measurements("", on, flipped(on, range(40, 70)))
    assert [found["accuracy", Member("s", name)].n for name in ("a", "a\0", "\0")] == [40, 30, 20]
    assert [value(found["accuracy", Member("s", name)]) for name in ("a", "a\0", "\0")] == [1, 0, 1]


def test_a_segment_that_is_the_whole_test_set_is_no_evidence_for_the_excess_gap() -> None:
    on = examples([0] * 500, segments={"s": ["all"] * 500})
    right = saying([0] * 500, on)
    rows = judged("[suites.segments.gates]\nexcess_accuracy_gap = { max = 0.999 }", on, right, right)
    (row,) = rows.values()
    assert row.verdict is Verdict.INCONCLUSIVE
    assert "the segment is the whole test set" in row.reason


def test_only_the_columns_that_are_asked_for_are_measured() -> None:
    on = examples([0, 1] * 20, segments={"a": ["x", "y"] * 20, "b": ["u"] * 40, "c": ["v"] * 40})
    said = saying(on.targets, on)
    assert {member.column for _, member in measurements('by = ["c", "a"]', on, said) if member} == {"a", "c", "by"}
    assert {member.column for _, member in measurements("", on, said) if member} == {"a", "b", "c", "by"}
    suite = policy.suite("segments")
    assert suite.columns(suite.options()) is None
    assert suite.columns(suite.options(by=("a",))) == ("a",)
    assert policy.suite("accuracy").columns(policy.suite("accuracy").options()) == ()


def test_a_column_may_be_called_like_a_metrics_family() -> None:
    on = examples([0, 1] * 40, segments={"by": ["x", "y"] * 40, "class": ["u", "v"] * 40})
    suites = "[suites.segments.gates]\naccuracy = { min = 0.5 }\nworst = { min = 0.5 }"
    rows = judged(suites, on, saying(on.targets, on), saying(on.targets, on))
    assert set(rows) == {
        "segments/accuracy:min[by=x]",
        "segments/accuracy:min[by=y]",
        "segments/accuracy:min[class=u]",
        "segments/accuracy:min[class=v]",
        "segments/worst:min[by=by]",
        "segments/worst:min[by=class]",
    }
    assert {row.verdict for row in rows.values()} == {Verdict.PASS}


@pytest.mark.parametrize("metric", ["recall", "precision", "balanced_accuracy"])
def test_the_metrics_of_a_segment_without_some_class_are_those_of_the_classes_it_has(metric: str) -> None:
    on, said, _ = random_multiclass(2, n=240)
    names = ["without" if target != 3 and row % 2 else "with" for row, target in enumerate(on.targets)]
    on = examples(on.targets, on.facts.classes, {"s": names})
    found = measurements("min_n = 1", on, said)
    inside = np.array(names) == "without"
    truth, called = on.targets[inside], said.labels[inside]
    assert 3 not in truth
    assert 3 in called
    expected = {
        "recall": reference.recall_score(truth, called, labels=[0, 1, 2], average="macro"),
        "precision": reference.precision_score(truth, called, average="macro", zero_division=0),
        "balanced_accuracy": reference.recall_score(truth, called, labels=[0, 1, 2], average="macro"),
    }
    assert value(found[metric, Member("s", "without")]) == pytest.approx(expected[metric])
    auroc = found["auroc", Member("s", "without")]
    assert (auroc.estimate, auroc.note, auroc.n) == (None, "no example of class c3", 0)


@pytest.mark.parametrize("metric", ["recall", "fnr", "auroc", "precision", "fpr"])
def test_a_segment_of_one_class_leaves_the_other_classes_gates_undecided(metric: str) -> None:
    on = examples([0] * 60 + [0, 1] * 60, segments={"s": ["clean"] * 60 + ["mixed"] * 120})
    said = saying(on.targets, on)
    limit = "max = 0.9" if metric in ("fpr", "fnr") else "min = 0.1"
    rows = judged(f"[suites.segments.gates]\n{metric} = {{ {limit} }}", on, said, said)
    expected = Verdict.PASS if metric == "fpr" else Verdict.INCONCLUSIVE
    assert rows[f"segments/{metric}:{limit[:3]}[s=clean]"].verdict is expected
    assert rows[f"segments/{metric}:{limit[:3]}[s=mixed]"].verdict is Verdict.PASS


def test_a_small_segment_is_shown_and_judged_by_nobody() -> None:
    on = examples([0] * 129, segments={"s": ["few"] * 29 + ["many"] * 100})
    said = flipped(on, range(29))
    suites = "[suites.segments.gates]\naccuracy = { min = 0.9 }\nworst = { min = 0.9 }"
    rows = judged(suites, on, said, saying([0] * 129, on))
    assert {name: row.verdict for name, row in rows.items()} == {
        "segments/accuracy:min[s=few]": Verdict.INCONCLUSIVE,
        "segments/accuracy:min[s=many]": Verdict.PASS,
        "segments/worst:min[by=s]": Verdict.INCONCLUSIVE,
    }
    assert rows["segments/accuracy:min[s=few]"].value == 0
    pooled = judged(f'[suites.segments]\nsmall = "pool"\nmin_n = 29\n{suites}', on, said, saying([0] * 129, on))
    assert pooled["segments/accuracy:min[s=few]"].verdict is Verdict.FAIL


@pytest.mark.parametrize(("lost", "verdict"), [(0, Verdict.PASS), (40, Verdict.FAIL)])
def test_the_worst_segment_and_the_range_are_gated_as_one(lost: int, verdict: Verdict) -> None:
    on = examples([0] * 800, segments={"s": [f"s{row % 4}" for row in range(800)]})
    said = flipped(on, np.arange(lost) * 4)
    suites = "[suites.segments.gates]\nworst = { min = 0.95, max_drop = 0.05 }\ngap = { max = 0.08, max_rise = 0.08 }"
    rows = judged(suites, on, said, saying([0] * 800, on))
    assert len(rows) == 4
    assert {name: row.verdict for name, row in rows.items()} == dict.fromkeys(rows, verdict)


def test_the_worst_of_a_column_is_an_extreme_over_all_of_its_segments() -> None:
    on = examples([0] * 90, segments={"s": [f"s{row % 3}" for row in range(90)]})
    entry = measurements("", on, flipped(on, range(5)))["worst", Member("by", "s")]
    assert isinstance(entry.estimate, Extreme)
    assert all(isinstance(part, Proportion) for part in entry.estimate.parts)
    assert sorted(np.concatenate([part.rows for part in entry.estimate.parts])) == list(range(90))


def test_a_drop_that_one_segment_bears_alone_is_found_there_and_nowhere_else() -> None:
    on = examples([0] * 1000, segments={"s": [f"s{row % 5}" for row in range(1000)]})
    said = flipped(on, np.arange(40) * 5)
    rows = judged("[suites.segments.gates]\nexcess_accuracy_gap = { max = 0.05 }", on, said, saying([0] * 1000, on))
    assert [row.verdict for row in rows.values()] == [Verdict.FAIL, *[Verdict.PASS] * 4]
    row = rows["segments/excess_accuracy_gap:max[s=s0]"]
    assert row.value == pytest.approx(0.2 - 0.04)
    assert row.n == 200


# The accuracy suite


@pytest.mark.parametrize("classes", [["no", "yes"], ["a", "b", "c", "d"]])
def test_the_accuracy_suite_measures_every_metric_of_the_task_and_each_class(classes: list[str]) -> None:
    on, said, _ = random_multiclass(1, classes=len(classes))
    on = examples(on.targets, classes)
    said = predictions(said.outputs, on)
    found = asked("[suites.accuracy.gates]\naccuracy = { min = 0.5 }")
    entries = measured(found, on, said, said)["accuracy"]
    suite = policy.suite("accuracy")
    expected = [
        (metric.name, member)
        for metric in suite.metrics
        if on.facts.task in metric.tasks
        for member in (suite.members(metric, on.facts, suite.options()) if metric.family else [None])
    ]
    assert [(entry.metric, entry.member) for entry in entries] == expected
    for entry in entries:
        assert entry.estimate is not None
        assert 0 < entry.n <= on.facts.n


def test_a_class_without_examples_is_listed_with_the_reason() -> None:
    on = examples([0, 0, 1, 1], ["a", "b", "c"])
    said = saying([0, 1, 1, 1], on)
    found = asked("[suites.accuracy.gates]\naccuracy = { min = 0.5 }")
    entries = {
        (entry.metric, entry.member.value if entry.member else ""): entry
        for entry in measured(found, on, said, said)["accuracy"]
    }
    assert entries["recall", "c"].note == "no example of class c"
    assert entries["precision", "c"].note == "nothing is called c"
    assert entries["auroc", ""].note == "no example of class c"
    assert value(entries["balanced_accuracy", ""]) == pytest.approx(0.75)


def test_a_regression_has_its_own_metrics_only() -> None:
    generator = np.random.default_rng(0)
    on = examples(generator.normal(size=90), classes=(), segments={"s": ["a", "b", "c"] * 30})
    said = predictions(on.targets + generator.normal(size=90), on)
    found = asked("[suites.accuracy.gates]\nmae = { max = 5 }\n[suites.segments.gates]\nr2 = { min = -5 }")
    names: Mapping[str, Any] = {
        suite: {entry.metric for entry in entries} for suite, entries in measured(found, on, said, said).items()
    }
    assert names == {"accuracy": {"mae", "rmse", "r2"}, "segments": {"mae", "rmse", "r2"}}
