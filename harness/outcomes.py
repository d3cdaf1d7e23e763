"""Outcomes per example: the test set, and what each model said of it.

They are what every measurement is a pure function of, so they are kept (``outcomes.parquet``) and a
verdict can be derived again from them without any model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.special import expit, softmax

from pruneproof.errors import EvidenceError
from pruneproof.suite import Facts

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Examples:
    """The test set without its inputs.

    Args:
        ids: ``(n,)`` names of the examples.
        targets: ``(n,)`` class indices (int64), or numbers (float64) for regression.
        segments: ``n`` rows of text, one column a way to cut the data.
        facts: the same in summary.
        threshold: probability of the positive class at and above which a binary classifier says it.
    """

    ids: NDArray[np.str_]
    targets: NDArray[np.int64] | NDArray[np.float64]
    segments: pd.DataFrame
    facts: Facts
    threshold: float | None


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one model said of the test set.

    Args:
        outputs: logits ``(n, classes)``, one logit ``(n, 1)``, or numbers ``(n, 1)`` for regression,
            in the model's own precision.
        facts: of the test set.
        threshold: as in :class:`Examples`.
    """

    outputs: Floats
    facts: Facts
    threshold: float | None

    @cached_property
    def log_odds(self) -> NDArray[np.float64]:
        """``(n,)`` log-odds of the positive class; binary tasks only."""
        outputs = self.outputs.astype(np.float64)
        return np.asarray(outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0])

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """``(n, classes)``; classification only."""
        if self.outputs.shape[1] == 1:
            positive = expit(self.log_odds)
            return np.stack([1 - positive, positive], axis=1)
        return np.asarray(softmax(self.outputs.astype(np.float64), axis=1))

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """``(n,)``; regression only."""
        return self.outputs[:, 0].astype(np.float64)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """``(n,)`` predicted classes: at the threshold for binary tasks, else the largest logit."""
        if self.facts.task == "binary":
            threshold = 0.5 if self.threshold is None else self.threshold
            return np.asarray(self.probabilities[:, 1] >= threshold, dtype=np.int64)
        return np.asarray(self.outputs.argmax(axis=1), dtype=np.int64)

    def spoken(self) -> NDArray[np.str_]:
        """``(n,)`` predictions in words: class names, or numbers."""
        if self.facts.task == "regression":
            return np.array([f"{value:.6g}" for value in self.values])
        return np.array(self.facts.classes)[self.labels]


SEPARATOR = "/"


def write(path: Path, examples: Examples, predictions: Mapping[str, Predictions]) -> None:
    """Writes ``outcomes.parquet``: ``example``, ``target``, ``segment/<column>``, and for each model
    ``<name>/outputs`` and, spelled out for readers, ``<name>/prediction``."""
    columns: dict[str, pa.Array] = {"example": pa.array(examples.ids.tolist()), "target": pa.array(examples.targets)}
    for column in examples.segments.columns:
        columns[f"segment{SEPARATOR}{column}"] = pa.array(examples.segments[column].tolist(), pa.string())
    for name, said in predictions.items():
        flat = pa.array(np.ascontiguousarray(said.outputs).reshape(-1))
        columns[f"{name}{SEPARATOR}outputs"] = pa.FixedSizeListArray.from_arrays(flat, said.outputs.shape[1])
        columns[f"{name}{SEPARATOR}prediction"] = pa.array(said.spoken().tolist(), pa.string())
    pq.write_table(pa.table(columns), path, compression="zstd")


def read(path: Path, facts: Facts, threshold: float | None) -> tuple[Examples, dict[str, Predictions]]:
    """What :func:`write` wrote.

    Raises:
        EvidenceError: missing, unreadable, or not of this shape.
    """
    try:
        table = pq.read_table(path)
        if table.num_rows != facts.n:
            raise ValueError(f"{table.num_rows} rows for {facts.n} examples")
        if table["target"].type not in (pa.int64(), pa.float64()):
            raise ValueError(f"targets are {table['target'].type}")
        segments = {
            name.removeprefix(f"segment{SEPARATOR}"): table[name].to_pylist()
            for name in table.column_names
            if name.startswith(f"segment{SEPARATOR}")
        }
        examples = Examples(
            ids=np.array(table["example"].to_pylist(), dtype=np.str_),
            targets=table["target"].to_numpy(),
            segments=pd.DataFrame(segments, index=range(table.num_rows), dtype=str),
            facts=facts,
            threshold=threshold,
        )
        predictions = {}
        for name in table.column_names:
            model, _, kind = name.rpartition(SEPARATOR)
            if kind == "outputs" and not name.startswith(f"segment{SEPARATOR}"):
                column = table[name].combine_chunks()
                width = column.type.list_size
                outputs = column.flatten().to_numpy(zero_copy_only=False).reshape(facts.n, width)
                predictions[model] = Predictions(outputs, facts, threshold)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError) as error:
        raise EvidenceError(
            f"{path}: {error.__class__.__name__}: {error}", "run the audit again; the outcomes are damaged or missing"
        ) from None
    return examples, predictions
