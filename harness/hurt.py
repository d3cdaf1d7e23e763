"""Where a gate that did not pass hurts most: the examples, and the segment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruneproof.estimates import about
from pruneproof.evidence import Example, GateRow, Hurt
from pruneproof.gates import Measured, find
from pruneproof.outcomes import Examples, Predictions
from pruneproof.suite import Member

SHOWN = 5


def hurt(found: GateRow, measured: Measured, examples: Examples, said: Predictions, before: Predictions) -> Hurt:
    """Examples that the gate's number is about, which ``before`` got right and the variant gets wrong.

    For regression: the examples whose absolute error grew most.
    """
    inside = _inside(found, measured, len(examples.targets))
    lost, weight = _lost(examples, said, before)
    rows = np.flatnonzero(inside & lost)
    order = rows[np.argsort(-weight[rows], kind="stable")][:SHOWN]
    now, then = said.spoken(), before.spoken()
    truth = _truth(examples)
    return Hurt(
        examples=[
            Example(
                id=str(examples.ids[row]),
                target=str(truth[row]),
                comparator=str(then[row]),
                variant=str(now[row]),
                segments={str(name): str(value) for name, value in examples.segments.iloc[row].items()},
            )
            for row in order
        ],
        lost=len(rows),
        segment=_segment(inside, lost, examples),
    )


def _truth(examples: Examples) -> NDArray[np.str_]:
    if examples.facts.task == "regression":
        return np.array([f"{value:.6g}" for value in examples.targets])
    return np.array(examples.facts.classes)[examples.targets.astype(np.int64)]


def _inside(found: GateRow, measured: Measured, size: int) -> NDArray[np.bool_]:
    """Which examples the gate's number is about; all where it has none."""
    members = [Member(column, value) for column, value in (found.segment or {}).items()]
    measurement = find(measured, found.suite, found.metric, members[0] if members else None)
    if measurement is None or measurement.estimate is None:
        return np.ones(size, dtype=bool)
    return np.isin(np.arange(size), about(measurement.estimate))


def _lost(examples: Examples, said: Predictions, before: Predictions) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    if examples.facts.task == "regression":
        grown = np.abs(said.values - examples.targets) - np.abs(before.values - examples.targets)
        return np.asarray(grown > 0), np.asarray(grown, dtype=np.float64)
    lost = (before.labels == examples.targets) & (said.labels != examples.targets)
    rows, truth = np.arange(len(examples.targets)), examples.targets.astype(np.int64)
    return np.asarray(lost), np.asarray(before.probabilities[rows, truth] - said.probabilities[rows, truth])


def _segment(inside: NDArray[np.bool_], lost: NDArray[np.bool_], examples: Examples) -> str | None:
    """The segment that lost the largest share of its examples."""
    shares = {}
    for column in examples.segments.columns:
        values = examples.segments[column]
        for value in sorted(set(values[inside])):
            rows = inside & np.asarray(values == value, dtype=bool)
            shares[f"{column}={value}"] = float(lost[rows].mean())
    return max(shares, key=lambda name: shares[name]) if shares and max(shares.values()) > 0 else None
