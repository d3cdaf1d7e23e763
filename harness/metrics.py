"""Metrics of predictions, each as an estimate on some rows of the test set.

Sources: recall, precision, balanced accuracy, AUROC and average precision as scikit-learn defines them;
Brier score (Brier 1950), halved for more than two classes so that it lies in [0, 1]; expected
calibration error (Guo et al. 2017) with 15 equal-width bins of the top probability.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pruneproof.estimates import Combination, Difference, Proportion, Rows, Statistic
from pruneproof.outcomes import Examples, Predictions
from pruneproof.suite import Found

ECE_BINS = 15


def on_rows(name: str, examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    """Metric ``name`` of ``said`` on ``rows``; recall and precision of the positive class, or macro-averaged."""
    if not len(rows):
        return "no examples"
    return _METRICS[name](examples, said, dense, rows)


def correct(examples: Examples, said: Predictions) -> NDArray[np.bool_]:
    """``(n,)`` whether each example is classified rightly."""
    return np.asarray(said.labels == examples.targets)


def recall(examples: Examples, said: Predictions, rows: Rows, label: int) -> Found:
    """Share of class ``label`` that is called so."""
    own = rows[examples.targets[rows] == label]
    return Proportion(own, said.labels[own] == label) if len(own) else _none(examples, label)


def precision(examples: Examples, said: Predictions, rows: Rows, label: int) -> Found:
    """Share of what is called ``label`` that is so."""
    called = rows[said.labels[rows] == label]
    if not len(called):
        return f"nothing is called {examples.facts.classes[label]}"
    return Proportion(called, examples.targets[called] == label)


def drop(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Difference:
    """Paired drop in accuracy, dense - variant."""
    before, now = (correct(examples, model)[rows].astype(np.int8) for model in (dense, said))
    return Difference(rows, before - now)


def excess_gap(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    """Excess accuracy gap ψ_g = (acc_g(dense) - acc_g(pruned)) - (acc(dense) - acc(pruned)).

    Hashemizadeh et al., ICLR 2024. The overall drop holds the segment's own, so with w = n_g / n it is
    (1 - w) · (drop in g - drop outside g): two independent paired differences.
    """
    everything = np.arange(len(examples.targets))
    rest = np.setdiff1d(everything, rows, assume_unique=True)
    if not len(rest):
        return "the segment is the whole test set"
    share = 1 - len(rows) / len(everything)
    return Combination((share, -share), (drop(examples, said, dense, rows), drop(examples, said, dense, rest)))


def _none(examples: Examples, label: int) -> str:
    return f"no example of class {examples.facts.classes[label]}"


def _accuracy(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    return Proportion(rows, correct(examples, said)[rows])


def _balanced(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    present = np.unique(examples.targets[rows])
    parts = tuple(recall(examples, said, rows, int(label)) for label in present)
    return Combination((1 / len(parts),) * len(parts), parts)  # type: ignore[arg-type]


def _recall(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    if examples.facts.task == "binary":
        return recall(examples, said, rows, 1)
    return _balanced(examples, said, dense, rows)


def _precision(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    if examples.facts.task == "binary":
        return precision(examples, said, rows, 1)
    targets, labels, classes = examples.targets, said.labels, len(examples.facts.classes)

    def macro(weights: NDArray[np.int64]) -> float:
        called = np.bincount(labels, weights, classes)
        right = np.bincount(labels, weights * (labels == targets), classes)
        present = np.bincount(targets.astype(np.int64), weights, classes) + called > 0
        shares = np.divide(right, called, out=np.zeros(classes), where=called > 0)
        return float(shares[present].mean())

    return _statistic(macro, rows, examples, _macro(examples, rows))


def _fpr(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    own = rows[examples.targets[rows] == 0]
    return Proportion(own, said.labels[own] == 1) if len(own) else _none(examples, 0)


def _fnr(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    own = rows[examples.targets[rows] == 1]
    return Proportion(own, said.labels[own] == 0) if len(own) else _none(examples, 1)


def _auroc(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    return _ranking(auroc, examples, said, rows)


def _average_precision(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    return _ranking(average_precision, examples, said, rows)


Ranking = Callable[[NDArray[np.float64], NDArray[np.bool_]], Callable[[NDArray[np.int64]], float]]


def _ranking(metric: Ranking, examples: Examples, said: Predictions, rows: Rows) -> Found:
    """Binary: of the positive class; more classes: one against the rest, macro-averaged."""
    facts = examples.facts
    present = np.unique(examples.targets[rows])
    if len(present) < len(facts.classes):
        missing = next(name for label, name in enumerate(facts.classes) if label not in present)
        return f"no example of class {missing}"
    if facts.task == "binary":
        one = metric(said.log_odds, examples.targets == 1)
        return _statistic(one, rows, examples, _rarest(examples, rows))
    each = [metric(said.probabilities[:, label], examples.targets == label) for label in range(len(facts.classes))]
    return _statistic(
        lambda weights: float(np.mean([one(weights) for one in each])), rows, examples, _macro(examples, rows)
    )


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> Callable[[NDArray[np.int64]], float]:
    """Area under the ROC curve as a function of example weights: P(score⁺ > score⁻) + ½ P(=)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])

    def weighted(weights: NDArray[np.int64]) -> float:
        drawn = weights[order].astype(np.float64)
        high = np.add.reduceat(drawn * positive[order], starts)
        low = np.add.reduceat(drawn * ~positive[order], starts)
        below = np.cumsum(low) - low
        total = high.sum() * low.sum()
        return float((high * (below + low / 2)).sum() / total) if total else float("nan")

    return weighted


def average_precision(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> Callable[[NDArray[np.int64]], float]:
    """Σ (R_k - R_{k-1}) P_k over thresholds from high to low, as a function of example weights."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(-scores[order]) > 0])

    def weighted(weights: NDArray[np.int64]) -> float:
        drawn = weights[order].astype(np.float64)
        high = np.add.reduceat(drawn * positive[order], starts)
        called = np.cumsum(np.add.reduceat(drawn, starts))
        precisions = np.divide(np.cumsum(high), called, out=np.zeros(len(starts)), where=called > 0)
        return float((high * precisions).sum() / high.sum()) if high.sum() else float("nan")

    return weighted


def _brier(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    truth = np.eye(len(examples.facts.classes))[examples.targets.astype(np.int64)]
    losses = ((said.probabilities - truth) ** 2).sum(axis=1) / 2
    return _statistic(_mean(losses), rows, examples, len(rows))


def _ece(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    confidence = said.probabilities.max(axis=1)
    right = (said.probabilities.argmax(axis=1) == examples.targets).astype(np.float64)
    # Each bin is open below and closed above, as in the paper's code; the first also holds 0.
    bins = np.searchsorted(np.linspace(0, 1, ECE_BINS + 1)[1:-1], confidence, side="left")

    def weighted(weights: NDArray[np.int64]) -> float:
        gaps = np.bincount(bins, weights * (right - confidence), ECE_BINS)
        return float(np.abs(gaps).sum() / weights.sum())

    return _statistic(weighted, rows, examples, len(rows))


def _agreement(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    return Proportion(rows, said.labels[rows] == dense.labels[rows])


def _mae(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    return _statistic(_mean(np.abs(said.values - examples.targets)), rows, examples, len(rows), spread=0.0)


def _rmse(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    mean = _mean((said.values - examples.targets) ** 2)
    return _statistic(lambda weights: mean(weights) ** 0.5, rows, examples, len(rows), spread=0.0)


def _r2(examples: Examples, said: Predictions, dense: Predictions, rows: Rows) -> Found:
    targets = examples.targets.astype(np.float64)
    if len(np.unique(targets[rows])) < 2:
        return "all targets are equal"

    def weighted(weights: NDArray[np.int64]) -> float:
        centre = (weights @ targets) / weights.sum()
        total = weights @ (targets - centre) ** 2
        return float(1 - (weights @ (targets - said.values) ** 2) / total) if total else float("nan")

    return _statistic(weighted, rows, examples, len(rows), spread=0.0)


def _mean(losses: NDArray[np.float64]) -> Callable[[NDArray[np.int64]], float]:
    return lambda weights: float((weights @ losses) / weights.sum())


def _rarest(examples: Examples, rows: Rows) -> int:
    return int(np.unique(examples.targets[rows], return_counts=True)[1].min())


def _macro(examples: Examples, rows: Rows) -> int:
    """Support of a macro average: the rarest class weighs one class in all of them."""
    return min(len(rows), _rarest(examples, rows) * len(examples.facts.classes))


def _statistic(
    weighted: Callable[[NDArray[np.int64]], float], rows: Rows, examples: Examples, support: int, spread: float = 1.0
) -> Statistic:
    return Statistic(rows=rows, weighted=weighted, support=support, size=len(examples.targets), spread=spread)


_METRICS: dict[str, Callable[[Examples, Predictions, Predictions, Rows], Found]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced,
    "recall": _recall,
    "precision": _precision,
    "fpr": _fpr,
    "fnr": _fnr,
    "auroc": _auroc,
    "average_precision": _average_precision,
    "brier": _brier,
    "ece": _ece,
    "agreement": _agreement,
    "mae": _mae,
    "rmse": _rmse,
    "r2": _r2,
}
