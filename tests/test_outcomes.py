"""Outcomes: decisions of a model's outputs, what is written of them, and where it hurts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import asked, examples, flipped, judged, measured, predictions, saying
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pruneproof import outcomes
from pruneproof.errors import EvidenceError
from pruneproof.hurt import hurt
from pruneproof.outcomes import Examples, Predictions

unhurried = settings(deadline=None)

# Decisions


@pytest.mark.parametrize(
    ("threshold", "called"), [(None, [0, 1, 1]), (0.5, [0, 1, 1]), (0.2, [1, 1, 1]), (0.8, [0, 0, 1])]
)
def test_a_binary_classifier_says_yes_at_and_above_the_threshold(threshold: float | None, called: list[int]) -> None:
    on = examples([0, 0, 0], threshold=threshold)
    logits = np.log([0.3 / 0.7, 1.0, 0.9 / 0.1])
    assert list(predictions(logits, on).labels) == called
    two = predictions(np.stack([np.zeros(3), logits], axis=1), on)
    assert list(two.labels) == called
    assert two.probabilities == pytest.approx(predictions(logits, on).probabilities)
    assert two.probabilities[:, 1] == pytest.approx([0.3, 0.5, 0.9])


def test_more_classes_are_decided_by_the_largest_logit() -> None:
    on = examples([0, 1, 2], ["a", "b", "c"])
    said = predictions([[0.0, 2.0, 1.0], [5.0, 1.0, 1.0], [0.0, 0.0, 1.0]], on)
    assert list(said.labels) == [1, 0, 2]
    assert list(said.spoken()) == ["b", "a", "c"]
    assert said.probabilities.sum(axis=1) == pytest.approx(1)


def test_probabilities_of_single_precision_outputs_are_computed_in_double_precision() -> None:
    on = examples([0, 1])
    said = predictions(np.array([-60.0, 60.0], dtype=np.float32), on)
    assert said.outputs.dtype == np.float32
    assert 0 < said.probabilities[0, 1] < 1e-20


def test_a_regression_speaks_in_numbers() -> None:
    on = examples([1.0, 2.0], classes=())
    assert list(predictions(np.array([1.25, 1e-9]), on).spoken()) == ["1.25", "1e-09"]


# Files


def written(folder: Path, on: Examples, said: dict[str, Predictions]) -> tuple[Examples, dict[str, Predictions]]:
    path = folder / "outcomes.parquet"
    outcomes.write(path, on, said)
    return outcomes.read(path, on.facts, on.threshold)


def same_examples(one: Examples, other: Examples) -> None:
    assert list(one.ids) == list(other.ids)
    assert one.targets.dtype == other.targets.dtype
    assert np.array_equal(one.targets, other.targets)
    assert {column: list(one.segments[column]) for column in one.segments} == {
        column: list(other.segments[column]) for column in other.segments
    }
    assert len(one.segments) == len(other.segments)
    assert (one.facts, one.threshold) == (other.facts, other.threshold)


def same_outputs(one: NDArray[Any], other: NDArray[Any]) -> None:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("task", "width"), [("regression", 1), ("classes", 1), ("classes", 2), ("classes", 7), ("classes", 1000)]
)
def test_outputs_are_read_back_bit_for_bit_in_their_own_precision(
    tmp_path: Path, dtype: Any, width: int, task: str
) -> None:
    generator = np.random.default_rng(width)
    classes = [f"c{label}" for label in range(max(2, width))] if task == "classes" else []
    targets = generator.integers(len(classes), size=23) if classes else generator.normal(size=23)
    on = examples(targets, classes, threshold=0.3 if width <= 2 and classes else None)
    said = {
        name: predictions(generator.normal(size=(23, width)).astype(dtype), on)
        for name in ("dense", "l1-channels@0.5", "a.b_c-d@1e-05")
    }
    found, models = written(tmp_path, on, said)
    same_examples(found, on)
    assert list(models) == list(said)
    for name, model in models.items():
        same_outputs(model.outputs, said[name].outputs)
        assert (model.facts, model.threshold) == (on.facts, on.threshold)


def test_outputs_in_another_memory_layout_are_written_row_by_row(tmp_path: Path) -> None:
    on = examples([0, 1, 2], ["a", "b", "c"])
    said = Predictions(np.asfortranarray(np.arange(9, dtype=np.float32).reshape(3, 3)), on.facts, None)
    _, models = written(tmp_path, on, {"dense": said})
    same_outputs(models["dense"].outputs, np.arange(9, dtype=np.float32).reshape(3, 3))


ODD = [
    "",
    " ",
    "outputs",
    "prediction",
    "a/outputs",
    "segment/outputs",
    "example",
    "target",
    "x=1",
    "größe",
    "a\nb",
    "by",
]


@pytest.mark.parametrize("column", ODD)
@pytest.mark.parametrize("model", ["dense", "outputs", "prediction", "example", "target", "p@0.5"])
def test_odd_names_of_columns_and_models_are_kept_apart(tmp_path: Path, column: str, model: str) -> None:
    on = examples([0, 1, 0], segments={column: ["x", "", "outputs/x"], "plain": ["a", "b", "a"]})
    said = {model: saying([1, 1, 0], on)}
    found, models = written(tmp_path, on, said)
    same_examples(found, on)
    assert list(models) == [model]
    same_outputs(models[model].outputs, said[model].outputs)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), n=st.integers(1, 6))
def test_any_text_in_segments_and_any_number_in_outputs_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, n: int
) -> None:
    columns = data.draw(st.lists(st.text(max_size=5), max_size=3, unique=True))
    segments = {name: data.draw(st.lists(st.text(max_size=5), min_size=n, max_size=n)) for name in columns}
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    outputs = np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)))
    on = examples([0] * n, segments=segments)
    found, models = written(tmp_path_factory.mktemp("outcomes"), on, {"dense": predictions(outputs, on)})
    same_examples(found, on)
    same_outputs(models["dense"].outputs, outputs.reshape(-1, 1))


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "segment=x" / "target=3"
    folder.mkdir(parents=True)
    on = examples([0, 1])
    same_examples(written(folder, on, {"dense": saying([0, 1], on)})[0], on)


def test_a_reader_without_pruneproof_finds_targets_segments_and_words(tmp_path: Path) -> None:
    on = examples([0, 1], segments={"band": ["low", "high"]})
    written(tmp_path, on, {"p@0.5": saying([1, 1], on)})
    table = pd.read_parquet(tmp_path / "outcomes.parquet")
    assert list(table.columns) == ["example", "target", "segment/band", "p@0.5/outputs", "p@0.5/prediction"]
    assert list(table["example"]) == ["e0", "e1"]
    assert list(table["segment/band"]) == ["low", "high"]
    assert list(table["p@0.5/prediction"]) == ["yes", "yes"]
    assert list(table["p@0.5/outputs"][0]) == [0, 4]


def test_the_same_outcomes_are_written_as_the_same_bytes(tmp_path: Path) -> None:
    on = examples([0, 1], segments={"band": ["low", "high"]})
    for name in ("a", "b"):
        outcomes.write(tmp_path / name, on, {"dense": saying([1, 1], on)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


ON = examples([0, 1, 0, 1], segments={"s": ["a", "b", "a", "b"]})


def damaged(change: str, path: Path) -> None:
    outcomes.write(path, ON, {"dense": saying([0, 1, 0, 1], ON)})
    table = pq.read_table(path)
    content = path.read_bytes()
    column = table.column_names.index("dense/outputs")
    if change == "missing":
        path.unlink()
    elif change == "folder":
        path.unlink()
        path.mkdir()
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif change == "text":
        path.write_text("not parquet")
    elif change == "rows":
        pq.write_table(table.slice(1), path)
    elif change == "more rows":
        pq.write_table(pa.concat_tables([table, table]), path)
    elif change == "no targets":
        pq.write_table(table.drop_columns(["target"]), path)
    elif change == "no examples":
        pq.write_table(table.drop_columns(["example"]), path)
    elif change == "text targets":
        pq.write_table(table.set_column(1, "target", pa.array(list("0101"))), path)
    elif change == "flat outputs":
        pq.write_table(table.set_column(column, "dense/outputs", pa.array([0.0, 1.0, 0.0, 1.0])), path)
    elif change == "ragged outputs":
        ragged = pa.array([[0.0], [0.0, 1.0], [], [1.0]])
        pq.write_table(table.set_column(column, "dense/outputs", ragged), path)
    elif change == "null outputs":
        gone = pa.array([[0.0, 1.0], None, [0.0, 1.0], [1.0, 0.0]], pa.list_(pa.float32(), 2))
        pq.write_table(table.set_column(column, "dense/outputs", gone), path)


@pytest.mark.parametrize(
    "change",
    [
        *("missing", "folder", "empty", "cut", "text", "rows", "more rows", "no targets", "no examples"),
        *("text targets", "flat outputs", "ragged outputs", "null outputs"),
    ],
)
def test_a_damaged_file_is_an_evidence_error(tmp_path: Path, change: str) -> None:
    path = tmp_path / "outcomes.parquet"
    damaged(change, path)
    with pytest.raises(EvidenceError) as caught:
        outcomes.read(path, ON.facts, None)
    assert str(path) in caught.value.cause
    assert len(str(caught.value).splitlines()) == 2


def test_examples_without_any_predictions_are_as_many_as_the_test_set_has(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    outcomes.write(path, ON, {})
    same_examples(outcomes.read(path, ON.facts, None)[0], ON)
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(EvidenceError, match="3 rows for 4 examples"):
        outcomes.read(path, ON.facts, None)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data())
def test_a_file_with_bytes_turned_over_is_read_or_an_evidence_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("outcomes") / "outcomes.parquet"
    outcomes.write(path, ON, {"dense": saying([0, 1, 0, 1], ON)})
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        outcomes.read(path, ON.facts, None)
    except EvidenceError:
        return


# Where it hurts


def hurts(gate: str, on: Examples, said: Predictions, before: Predictions) -> Any:
    suite, _, rest = gate.partition("/")
    metric, _, limit = rest.partition(":")
    suites = f"[suites.{suite}]\n[suites.{suite}.gates]\n{metric} = {{ {limit.partition('[')[0]} = 0.5 }}"
    rows = judged(suites, on, said, before)
    return hurt(rows[gate], measured(asked(suites), on, said, before), on, said, before)


def test_the_examples_that_hurt_most_are_right_before_and_wrong_now_the_largest_loss_first() -> None:
    on = examples([1] * 8, segments={"s": ["a", "b"] * 4})
    before = predictions(np.array([3.0, 3, 3, -1, 3, 3, 3, 3]), on)
    said = predictions(np.array([-1.0, -3, 2, -9, -2, -5, -0.5, -0.1]), on)
    found = hurts("accuracy/accuracy:min", on, said, before)
    assert [entry.id for entry in found.examples] == ["e5", "e1", "e4", "e0", "e6"]
    assert found.lost == 6
    first = found.examples[0]
    assert (first.target, first.comparator, first.variant, first.segments) == ("yes", "yes", "no", {"s": "b"})


def test_the_segment_that_hurts_most_lost_the_largest_share() -> None:
    on = examples([0] * 100, segments={"s": ["small"] * 10 + ["large"] * 90, "t": ["all"] * 100})
    found = hurts("accuracy/accuracy:min", on, flipped(on, [*range(5), *range(10, 40)]), saying([0] * 100, on))
    assert found.segment == "s=small"
    assert found.lost == 35


def test_nothing_hurts_where_nothing_was_lost() -> None:
    on = examples([0] * 10, segments={"s": ["a"] * 10})
    found = hurts("accuracy/accuracy:min", on, saying([0] * 10, on), saying([1] * 10, on))
    assert (found.examples, found.lost, found.segment) == ([], 0, None)


def test_the_examples_of_a_segments_gate_are_the_segments_own() -> None:
    on = examples([0] * 60, segments={"s": ["a", "b"] * 30, "by": ["x"] * 60})
    said, before = flipped(on, range(10)), saying([0] * 60, on)
    found = hurts("segments/accuracy:min[s=b]", on, said, before)
    assert [entry.id for entry in found.examples] == ["e1", "e3", "e5", "e7", "e9"]
    assert found.segment == "s=b"
    assert hurts("segments/worst:min[by=s]", on, said, before).lost == 10


def test_segments_whose_names_differ_in_an_invisible_character_hurt_apart() -> None:
    on = examples([0] * 60, segments={"s": ["a", "a\0"] * 30})
    found = hurts("segments/accuracy:min[s=a%00]", on, flipped(on, [0, 1, 2, 3]), saying([0] * 60, on))
    assert [entry.id for entry in found.examples] == ["e1", "e3"]
    assert found.segment == "s=a\0"


@pytest.mark.parametrize(
    ("gate", "ids"),
    [
        ("accuracy/fpr:max", ["e0", "e1"]),
        ("accuracy/fnr:max", ["e10", "e11", "e12"]),
        ("accuracy/accuracy:min", ["e0", "e1", "e10", "e11", "e12"]),
        ("accuracy/recall:min[class=no]", ["e0", "e1"]),
        ("accuracy/recall:min[class=yes]", ["e10", "e11", "e12"]),
        ("accuracy/precision:min[class=yes]", ["e0", "e1"]),
        ("accuracy/precision:min[class=no]", ["e10", "e11", "e12"]),
        ("segments/fpr:max[s=a]", ["e0"]),
        ("segments/recall:min[s=a]", ["e10", "e12"]),
        ("segments/precision:min[s=b]", ["e1"]),
    ],
)
def test_the_examples_are_those_that_the_metric_counts(gate: str, ids: list[str]) -> None:
    on = examples([0] * 10 + [1] * 10, segments={"s": ["a", "b"] * 10})
    said = flipped(on, [0, 1, 10, 11, 12])
    found = hurts(gate, on, said, saying(on.targets, on))
    assert sorted(entry.id for entry in found.examples) == sorted(ids)
    assert found.lost == len(ids)


def test_a_regression_shows_where_the_error_grew_most() -> None:
    on = examples([0.0, 1.0, 2.0, 3.0], classes=(), segments={"s": ["a", "a", "b", "b"]})
    before, said = predictions(np.array([0.5, 1.0, 2.0, 3.5]), on), predictions(np.array([0.1, 1.2, 5.0, 3.5]), on)
    found = hurts("accuracy/mae:max", on, said, before)
    assert [(entry.id, entry.target, entry.comparator, entry.variant) for entry in found.examples] == [
        ("e2", "2", "2", "5"),
        ("e1", "1", "1", "1.2"),
    ]
