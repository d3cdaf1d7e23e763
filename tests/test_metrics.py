"""Metrics against scikit-learn, loops and closed forms, with and without example weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from builders import examples, predictions, random_binary, random_multiclass, saying, weights
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn import metrics as reference

from pruneproof import metrics
from pruneproof.estimates import Combination, Proportion, Statistic
from pruneproof.outcomes import Examples, Predictions

unhurried = settings(deadline=None)
SEEDS = range(8)

Estimated = Proportion | Combination | Statistic


def on_all(name: str, on: Examples, said: Predictions, dense: Predictions | None = None) -> Any:
    return metrics.on_rows(name, on, said, dense or said, np.arange(on.facts.n))


def under(estimate: Estimated, drawn: NDArray[np.int64]) -> float:
    """The value under example weights."""
    return float(estimate.replicates(drawn[None, :])[0])


def repeated(drawn: NDArray[np.int64], *arrays: NDArray[Any]) -> list[NDArray[Any]]:
    """What the weights mean: each example as often as it was drawn."""
    return [np.repeat(array, drawn, axis=0) for array in arrays]


def agrees(
    estimate: Estimated,
    drawn: NDArray[np.int64],
    expected: Callable[..., float],
    *arrays: NDArray[Any],
) -> None:
    """The value and the weighted value are those of ``expected``, on the arrays and on the repeated arrays."""
    assert estimate.value == pytest.approx(expected(*arrays), abs=1e-12)
    assert under(estimate, np.ones_like(drawn)) == pytest.approx(expected(*arrays), abs=1e-12)
    assert under(estimate, drawn) == pytest.approx(expected(*repeated(drawn, *arrays)), abs=1e-12)


# Classes


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [random_binary, random_multiclass])
def test_accuracy_and_balanced_accuracy_are_those_of_scikit_learn(make: Any, seed: int) -> None:
    on, said, drawn = make(seed)
    agrees(on_all("accuracy", on, said), drawn, reference.accuracy_score, on.targets, said.labels)
    agrees(on_all("balanced_accuracy", on, said), drawn, reference.balanced_accuracy_score, on.targets, said.labels)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threshold", [None, 0.2, 0.7])
def test_binary_recall_precision_and_error_rates_are_those_of_scikit_learn(seed: int, threshold: float | None) -> None:
    on, said, drawn = random_binary(seed, threshold=threshold)
    logits = said.outputs[:, 0].astype(float)
    labels = (expit(logits) >= (0.5 if threshold is None else threshold)).astype(int)
    for name, expected in {
        "recall": reference.recall_score,
        "precision": reference.precision_score,
        "fpr": lambda truth, called: 1 - reference.recall_score(truth, called, pos_label=0),
        "fnr": lambda truth, called: 1 - reference.recall_score(truth, called),
    }.items():
        agrees(on_all(name, on, said), drawn, expected, on.targets, labels)


@pytest.mark.parametrize("seed", SEEDS)
def test_macro_recall_and_precision_are_those_of_scikit_learn(seed: int) -> None:
    on, said, drawn = random_multiclass(seed)
    for name, score in {"recall": reference.recall_score, "precision": reference.precision_score}.items():
        agrees(
            on_all(name, on, said),
            drawn,
            lambda truth, called, score=score: score(truth, called, average="macro", zero_division=0),
            on.targets,
            said.labels,
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_recall_and_precision_of_each_class_are_those_of_scikit_learn(seed: int) -> None:
    on, said, _ = random_multiclass(seed)
    rows = np.arange(on.facts.n)
    for one, score in ((metrics.recall, reference.recall_score), (metrics.precision, reference.precision_score)):
        expected = score(on.targets, said.labels, average=None)
        found = [one(on, said, rows, label) for label in range(4)]
        assert [estimate.value for estimate in found if not isinstance(estimate, str)] == pytest.approx(expected)


def test_macro_precision_of_a_class_that_is_never_called_counts_it_as_zero_as_scikit_learn_does() -> None:
    on = examples([0, 0, 1, 1, 2, 2], ["a", "b", "c"])
    said = saying([0, 0, 1, 1, 0, 1], on)
    expected = reference.precision_score(on.targets, said.labels, average="macro", zero_division=0)
    assert on_all("precision", on, said).value == pytest.approx(expected)


def test_agreement_is_the_share_of_equal_decisions() -> None:
    on = examples([0, 1, 0, 1])
    assert on_all("agreement", on, saying([0, 1, 1, 1], on), saying([1, 1, 1, 0], on)).value == 0.5


def test_a_metric_without_its_class_says_which_is_missing() -> None:
    on = examples([0, 0, 0])
    said = saying([0, 0, 0], on)
    for name, told in {
        "recall": "no example of class yes",
        "fnr": "no example of class yes",
        "precision": "nothing is called yes",
        "auroc": "no example of class yes",
        "average_precision": "no example of class yes",
    }.items():
        assert on_all(name, on, said) == told
    positive = examples([1, 1])
    assert on_all("fpr", positive, saying([1, 1], positive)) == "no example of class no"
    assert metrics.on_rows("accuracy", on, said, said, np.array([], dtype=np.int64)) == "no examples"


# Scores


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("digits", [0, 1, None])
def test_binary_ranking_metrics_are_those_of_scikit_learn_ties_included(seed: int, digits: int | None) -> None:
    on, said, drawn = random_binary(seed, digits=digits)
    scores = said.outputs[:, 0]
    agrees(on_all("auroc", on, said), drawn, reference.roc_auc_score, on.targets, scores)
    agrees(on_all("average_precision", on, said), drawn, reference.average_precision_score, on.targets, scores)


@pytest.mark.parametrize("seed", SEEDS)
def test_binary_ranking_metrics_under_weights_are_those_of_scikit_learns_sample_weight(seed: int) -> None:
    on, said, drawn = random_binary(seed)
    scores = said.outputs[:, 0]
    for name, score in {
        "auroc": reference.roc_auc_score,
        "average_precision": reference.average_precision_score,
    }.items():
        assert under(on_all(name, on, said), drawn) == pytest.approx(score(on.targets, scores, sample_weight=drawn))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("digits", [0, 1, None])
def test_multiclass_ranking_metrics_are_one_against_the_rest_as_scikit_learns(seed: int, digits: int | None) -> None:
    on, said, drawn = random_multiclass(seed, digits=digits)
    scores = softmax(said.outputs.astype(float), axis=1)
    agrees(
        on_all("auroc", on, said),
        drawn,
        lambda truth, given_scores: reference.roc_auc_score(truth, given_scores, multi_class="ovr", average="macro"),
        on.targets,
        scores,
    )
    agrees(
        on_all("average_precision", on, said),
        drawn,
        lambda truth, given_scores: reference.average_precision_score(truth, given_scores, average="macro"),
        on.targets,
        scores,
    )


def test_two_logits_rank_by_their_difference() -> None:
    generator = np.random.default_rng(5)
    on = examples(generator.integers(2, size=60))
    logits = generator.normal(size=(60, 2))
    found = on_all("auroc", on, predictions(logits, on))
    assert found.value == pytest.approx(reference.roc_auc_score(on.targets, logits[:, 1] - logits[:, 0]))


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_a_perfect_ranking_of_eight_positives_is_bounded_by_what_eight_examples_can_say(name: str) -> None:
    z_squared = 1.6448536269514722**2
    on = examples([1] * 8 + [0] * 492)
    found = on_all(name, on, predictions(np.linspace(3, -3, 500), on))
    assert found.value == 1
    assert found.bounds(0.95).lower == pytest.approx(1 - z_squared / (8 + z_squared))


@pytest.mark.parametrize("name", ["auroc", "average_precision", "precision"])
def test_a_macro_average_is_bounded_by_its_rarest_class_which_weighs_as_much_as_the_others(name: str) -> None:
    z_squared = 1.6448536269514722**2
    on = examples([0] * 8 + [1] * 200 + [2] * 200, ["a", "b", "c"])
    found = on_all(name, on, saying(on.targets, on))
    assert found.value == 1
    assert found.bounds(0.95).lower == pytest.approx(1 - z_squared / (3 * 8 + z_squared))


@unhurried
@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40))
def test_auroc_under_weights_is_the_share_of_rightly_ordered_pairs(drawn: list[tuple[int, bool, int]]) -> None:
    scores, positive, counts = (np.array(column) for column in zip(*drawn, strict=True))
    high = np.repeat(scores[positive], counts[positive])
    low = np.repeat(scores[~positive], counts[~positive])
    found = metrics.auroc(scores.astype(float), positive)(counts)
    if len(high) and len(low):
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(high, low)]
        assert found == pytest.approx(np.mean(pairs))
    else:
        assert math.isnan(found)


@unhurried
@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40))
def test_average_precision_under_weights_is_that_of_scikit_learn(drawn: list[tuple[int, bool, int]]) -> None:
    scores, positive, counts = (np.array(column) for column in zip(*drawn, strict=True))
    found = metrics.average_precision(scores.astype(float), positive)(counts)
    if (counts * positive).sum() == 0:
        assert math.isnan(found)
        return
    assert found == pytest.approx(reference.average_precision_score(*repeated(counts, positive, scores)))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_binary_brier_score_is_that_of_scikit_learn(seed: int) -> None:
    on, said, drawn = random_binary(seed)
    agrees(
        on_all("brier", on, said),
        drawn,
        reference.brier_score_loss,
        on.targets,
        expit(said.outputs[:, 0].astype(float)),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_multiclass_brier_score_is_half_that_of_scikit_learn(seed: int) -> None:
    on, said, drawn = random_multiclass(seed)

    def expected(truth: NDArray[Any], scores: NDArray[Any]) -> float:
        return float(((scores - np.eye(4)[truth]) ** 2).sum(axis=1).mean() / 2)

    scores = softmax(said.outputs.astype(float), axis=1)
    agrees(on_all("brier", on, said), drawn, expected, on.targets, scores)
    try:
        theirs = reference.brier_score_loss(on.targets, scores, labels=range(4))
    except (ValueError, TypeError):
        pytest.skip("this scikit-learn has no multi-class Brier score")
    assert on_all("brier", on, said).value == pytest.approx(theirs / 2)


# Calibration


def calibration_error(confidences: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """The loop of Guo et al.'s temperature_scaling.py, in numpy."""
    error = 0.0
    for lower, upper in itertools.pairwise(np.linspace(0, 1, bins + 1)):
        inside = (confidences > lower) & (confidences <= upper)
        if inside.any():
            error += abs(confidences[inside].mean() - right[inside].mean()) * inside.mean()
    return float(error)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("digits", [0, 1, None])
def test_the_calibration_error_is_that_of_the_original_code(seed: int, digits: int | None) -> None:
    on, said, drawn = random_multiclass(seed, digits=digits)
    scores = softmax(said.outputs.astype(float), axis=1)
    agrees(on_all("ece", on, said), drawn, calibration_error, scores.max(axis=1), scores.argmax(axis=1) == on.targets)


def with_confidences(confidences: list[float], right: list[bool]) -> tuple[Examples, Predictions]:
    """Binary predictions of class 0 with these confidences, of one logit each."""
    on = examples([0 if yes else 1 for yes in right])
    sure = np.array(confidences)
    with np.errstate(divide="ignore"):
        return on, predictions(np.clip(np.log1p(-sure) - np.log(sure), -800, 800), on)


def test_the_calibration_error_of_an_example_worked_by_hand() -> None:
    # Right minus sure in (8/15, 9/15]: 1 - (0.55 + 0.56); in (13/15, 14/15]: 1 - (0.9 + 0.91).
    on, said = with_confidences([0.55, 0.56, 0.9, 0.91], [True, False, True, False])
    assert on_all("ece", on, said).value == pytest.approx((0.11 + 0.81) / 4)


def test_the_calibration_error_of_a_classifier_that_is_sure_is_its_error_rate() -> None:
    on, said = with_confidences([1.0] * 10, [True] * 7 + [False] * 3)
    assert on_all("ece", on, said).value == pytest.approx(0.3)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_it() -> None:
    on = examples([0, 1])
    edges = np.linspace(0, 1, 16)
    for edge in edges[8:15]:
        said = predictions(np.zeros((2, 2)), on)
        confidences = np.array([edge, edge + 1e-9])
        said.__dict__["probabilities"] = np.stack([confidences, 1 - confidences], axis=1)
        # The first is right and the second wrong: in one bin their gaps would nearly cancel.
        assert on_all("ece", on, said).value == pytest.approx((1 - edge) / 2 + edge / 2, abs=1e-8)


@unhurried
@given(st.lists(st.tuples(st.floats(0.5, 1), st.booleans()), min_size=1))
def test_the_calibration_error_is_between_zero_and_one(drawn: list[tuple[float, bool]]) -> None:
    confidences, right = zip(*drawn, strict=True)
    on, said = with_confidences(list(confidences), list(right))
    assert 0 <= on_all("ece", on, said).value <= 1


# Regression


@pytest.mark.parametrize("seed", SEEDS)
def test_regression_metrics_are_those_of_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    targets = generator.normal(5, 3, size=150)
    on = examples(targets, classes=())
    said = predictions((targets + generator.normal(size=150)).astype(np.float64), on)
    drawn = weights(generator, 150)
    values = said.outputs[:, 0]
    agrees(on_all("mae", on, said), drawn, reference.mean_absolute_error, targets, values)
    agrees(on_all("rmse", on, said), drawn, reference.root_mean_squared_error, targets, values)
    agrees(on_all("r2", on, said), drawn, reference.r2_score, targets, values)
    for name, score in {"mae": reference.mean_absolute_error, "r2": reference.r2_score}.items():
        assert under(on_all(name, on, said), drawn) == pytest.approx(score(targets, values, sample_weight=drawn))


def test_r2_of_targets_that_are_all_equal_is_not_measured() -> None:
    on = examples([2.0, 2.0, 2.0], classes=())
    assert on_all("r2", on, predictions(np.array([1.0, 2.0, 3.0]), on)) == "all targets are equal"


# Rows


@pytest.mark.parametrize(
    "name", ["accuracy", "balanced_accuracy", "recall", "precision", "auroc", "average_precision", "brier", "ece"]
)
def test_a_metric_on_some_rows_is_the_metric_of_those_examples_alone(name: str) -> None:
    on, said, drawn = random_multiclass(3)
    dense = saying(on.targets, on)
    rows = np.flatnonzero(np.arange(on.facts.n) % 3 == 0)
    rows = np.union1d(rows, np.arange(4))
    alone = examples(on.targets[rows], on.facts.classes)
    inside: Any = metrics.on_rows(name, on, said, dense, rows)
    expected: Any = on_all(name, alone, predictions(said.outputs[rows], alone))
    assert inside.value == pytest.approx(expected.value)
    only = np.zeros_like(drawn)
    only[rows] = drawn[rows]
    assert under(inside, only) == pytest.approx(under(expected, drawn[rows]))


# Excess accuracy gap


@st.composite
def two_models(draw: st.DrawFn) -> tuple[Examples, Predictions, Predictions, NDArray[np.bool_]]:
    rows = draw(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=2, max_size=60))
    dense, now, inside = (np.array(column) for column in zip(*rows, strict=True))
    on = examples(np.zeros(len(rows), dtype=int))
    return on, saying(~now, on), saying(~dense, on), inside


@unhurried
@given(two_models())
def test_the_excess_accuracy_gap_is_its_definition_and_its_interval_contains_it(
    drawn: tuple[Examples, Predictions, Predictions, NDArray[np.bool_]],
) -> None:
    on, said, dense, inside = drawn
    assume(inside.any())
    before, now = dense.labels == 0, said.labels == 0
    found = metrics.excess_gap(on, said, dense, np.flatnonzero(inside))
    if inside.all():
        assert found == "the segment is the whole test set"
        return
    assert isinstance(found, Combination)
    expected = (before[inside].mean() - now[inside].mean()) - (before.mean() - now.mean())
    assert found.value == pytest.approx(expected, abs=1e-12)
    lower, upper = found.bounds(0.95)
    assert lower <= found.value <= upper
    assert lower < upper
    assert under(found, np.ones(len(inside), dtype=np.int64)) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_the_excess_accuracy_gap_is_nearly_that_of_a_bootstrap() -> None:
    generator = np.random.default_rng(1)
    n = 4000
    inside = generator.random(n) < 0.3
    before = generator.random(n) < 0.95
    now = before & (generator.random(n) > np.where(inside, 0.12, 0.03)) | ~before & (generator.random(n) < 0.2)
    on = examples(np.zeros(n, dtype=int))
    found = metrics.excess_gap(on, saying(~now, on), saying(~before, on), np.flatnonzero(inside))
    assert isinstance(found, Combination)
    resampled = []
    for _ in range(2000):
        pick = generator.integers(n, size=n)
        cell = inside[pick]
        drop = before[pick].astype(int) - now[pick]
        resampled.append(drop[cell].mean() - drop.mean())
    assert found.bounds(0.95) == pytest.approx(np.quantile(resampled, [0.05, 0.95]), abs=0.002)
