"""Test sets, predictions and policies made by hand, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pruneproof import gates, policy, policy_file
from pruneproof.evidence import GateRow
from pruneproof.outcomes import Examples, Predictions
from pruneproof.policy import Policy
from pruneproof.suite import Context, Facts, Measurement, Task


def examples(
    targets: ArrayLike,
    classes: Sequence[str] = ("no", "yes"),
    segments: Mapping[str, Sequence[str]] | None = None,
    threshold: float | None = None,
) -> Examples:
    """A test set; without classes it is one of a regression."""
    values = np.asarray(targets)
    table = pd.DataFrame(dict(segments or {}), index=range(len(values)), dtype=object)
    counts = {
        str(column): {str(value): int(n) for value, n in table[column].value_counts().sort_index().items()}
        for column in table.columns
    }
    task: Task = "regression" if not classes else "binary" if len(classes) == 2 else "multiclass"
    return Examples(
        ids=np.array([f"e{row}" for row in range(len(values))]),
        targets=values.astype(np.int64 if classes else np.float64),
        segments=table,
        facts=Facts(task, len(values), tuple(classes), counts),
        threshold=threshold,
    )


def predictions(outputs: ArrayLike, on: Examples) -> Predictions:
    """Logits, or numbers, of shape ``(n, width)`` or ``(n,)``."""
    array = np.asarray(outputs)
    if array.dtype.kind != "f":
        array = array.astype(np.float32)
    return Predictions(array.reshape(len(array), -1), on.facts, on.threshold)


def saying(labels: ArrayLike, on: Examples) -> Predictions:
    """Predictions of these classes."""
    return predictions(np.eye(len(on.facts.classes), dtype=np.float32)[np.asarray(labels, dtype=int)] * 4, on)


def flipped(on: Examples, rows: ArrayLike) -> Predictions:
    """Right everywhere but on ``rows``."""
    labels = on.targets.astype(np.int64).copy()
    labels[rows] = (labels[rows] + 1) % len(on.facts.classes)
    return saying(labels, on)


def random_multiclass(
    seed: int, n: int = 200, classes: int = 4, digits: int | None = 1
) -> tuple[Examples, Predictions, NDArray[np.int64]]:
    """A test set that holds each class, predictions with ties between their scores, and bootstrap weights."""
    generator = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), generator.integers(classes, size=n - classes)])
    made = examples(targets, [f"c{label}" for label in range(classes)])
    logits = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[targets]
    return made, predictions(logits if digits is None else logits.round(digits), made), weights(generator, n)


def random_binary(
    seed: int, n: int = 200, digits: int | None = 1, threshold: float | None = None
) -> tuple[Examples, Predictions, NDArray[np.int64]]:
    """As :func:`random_multiclass`, with one logit."""
    generator = np.random.default_rng(seed)
    targets = np.concatenate([[0, 1], generator.integers(2, size=n - 2)])
    made = examples(targets, threshold=threshold)
    logits = generator.normal(size=n) + targets
    return made, predictions(logits if digits is None else logits.round(digits), made), weights(generator, n)


def weights(generator: np.random.Generator, n: int) -> NDArray[np.int64]:
    """``(n,)`` bootstrap counts; the first ten examples, with each class among them, are drawn at least once."""
    drawn = np.bincount(generator.integers(n, size=n), minlength=n)
    drawn[:10] += 1
    return drawn


@cache
def asked(suites: str, **audit: Any) -> Policy:
    """A policy of one recipe ``p`` at 0.5 and 0.8 with ``suites``, a piece of TOML."""
    keys = "".join(f"{key} = {value!r}\n" for key, value in audit.items())
    return policy_file.parse(
        f'[audit]\nname = "a"\n{keys}[subject]\nload = "m:f"\n[[prune]]\nname = "p"\nratios = [0.5, 0.8]\n{suites}'
    )


def measured(found: Policy, on: Examples, said: Predictions, dense: Predictions) -> dict[str, list[Measurement]]:
    """What the policy's suites measure of ``said``."""
    context = Context("p@0.5", on.facts, on, said, dense)
    return {name: policy.suite(name).measure(context, entry.options) for name, entry in found.suites.items()}


def judged(
    suites: str,
    on: Examples,
    said: Predictions,
    dense: Predictions,
    previous: Predictions | None = None,
    variant: str = "p@0.5",
    **audit: Any,
) -> dict[str, GateRow]:
    """Gate id → row of one variant, from its predictions."""
    found = asked(suites, **audit)
    comparators = {"dense": measured(found, on, dense, dense)}
    if previous is not None:
        comparators["previous"] = measured(found, on, previous, dense)
    (spec,) = (spec for spec in policy.variants(found) if spec.name == variant)
    rows = gates.judge(
        found, gates.expand(found, on.facts), spec, measured(found, on, said, dense), comparators, on.facts.n
    )
    return {row.id: row for row in rows}
