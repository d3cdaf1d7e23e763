"""What is kept of a model's answers to corrupted examples: enough for every metric, whatever the number of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruneproof.outcomes import Predictions


@dataclass(frozen=True, eq=False)
class Cell:
    """Answers to one corruption at one severity.

    Args:
        answers: ``(m,)`` int32 classes, at the threshold; of a regression float64 numbers.
        confidence: ``(m,)`` float32 the largest probability.
        top: ``(m,)`` booleans: its class is the true one.
        brier: ``(m,)`` float32 squared distance of the probabilities from the truth, halved.
    """

    answers: NDArray[np.int32] | NDArray[np.float64]
    confidence: NDArray[np.float32]
    top: NDArray[np.bool_]
    brier: NDArray[np.float32]

    @classmethod
    def of(cls, said: Predictions, targets: NDArray[np.int64] | NDArray[np.float64]) -> Cell:
        """Of a model's outputs and the true answers."""
        if said.facts.task == "regression":
            none = np.zeros(len(targets), dtype=np.float32)
            return cls(said.values, none, none.astype(bool), none)
        chances, right = said.probabilities, targets.astype(np.int64)
        truth = np.take_along_axis(chances, right[:, None], axis=1)[:, 0]
        return cls(
            said.labels.astype(np.int32),
            chances.max(axis=1).astype(np.float32),
            np.asarray(chances.argmax(axis=1) == right),
            (((chances**2).sum(axis=1) - 2 * truth + 1) / 2).astype(np.float32),
        )


NAMES = ("answers", "confidence", "top", "brier")
CELL = "cell/"
"""Before the label of a corruption in the names of its arrays."""


def stacked(cells: Sequence[Sequence[Cell]]) -> dict[str, NDArray[np.generic]]:
    """Arrays ``(severities, m)`` by name, of the batches of each severity."""
    return {
        name: np.stack([np.concatenate([getattr(one, name) for one in batches]) for batches in cells]) for name in NAMES
    }


def unstacked(arrays: Mapping[str, NDArray[np.generic]], label: str) -> Mapping[str, NDArray[np.generic]] | None:
    """The arrays of one corruption; ``None``: there are none."""
    if f"{CELL}{label}/answers" not in arrays:
        return None
    return {name: arrays[f"{CELL}{label}/{name}"] for name in NAMES}
