"""What one attack did to one variant, gathered shard by shard; its points go to a file as they come."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruneproof.adversarial.arena import Stage


class PointFile:
    """Points on disk, in the order in which they came, so that memory does not grow with them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pruneproof-")
        self._path = Path(self._folder.name) / "points"
        self._file = self._path.open("wb")
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        self.count = 0

    def add(self, points: torch.Tensor) -> None:
        """Appends ``(n, …)`` points; what numpy has no type for (bfloat16) is kept as float32, which holds it."""
        wide = points.float() if points.dtype == torch.bfloat16 else points
        array = wide.detach().cpu().contiguous().numpy()
        self._shape, self._dtype = array.shape[1:], array.dtype
        self._file.write(array.tobytes())
        self.count += len(array)

    def array(self) -> NDArray[Any]:
        """All of them, ``(count, …)``, mapped from disk."""
        self._file.flush()
        if not self.count:
            return np.zeros((0, *self._shape), dtype=self._dtype)
        return np.memmap(self._path, dtype=self._dtype, mode="r", shape=(self.count, *self._shape))


@dataclass(eq=False)
class Trace:
    """One attack on one variant.

    Args:
        rows: positions in the test set, in the order in which they were attacked.
        clean: whether each was right without an attack.
        budget: the smallest of the entry's budgets (its position) at which each fell, -1: none. 0 where ``clean`` is
            false.
        stage: position in ``names`` of the stage at which it fell, -1.
        distance: of the point that fooled it, the shortest on the way to it that still does; NaN.
        queries: scores asked for until it fell; NaN where the attack does not count them.
        answers: what the model says of the point (class), -1.
        point_rows: rows of the points, in their order.
    """

    rows: list[int] = field(default_factory=list)
    clean: list[bool] = field(default_factory=list)
    budget: list[int] = field(default_factory=list)
    stage: list[int] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    queries: list[float] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    point_rows: list[int] = field(default_factory=list)
    points: PointFile = field(default_factory=PointFile)
    names: list[str] = field(default_factory=list)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    unchecked: str = ""
    """Why there are no strength checks."""
    transfer: dict[str, list[int]] = field(default_factory=dict)
    """Source → how many of its points fooled this variant, of how many."""

    def cost(self, stages: list[Stage]) -> None:
        """Adds what these stages cost and yielded."""
        for stage in stages:
            if stage.name not in self.stages:
                self.stages[stage.name] = dict.fromkeys(("tried", "fell", "refused", "forwards", "gradients"), 0)
                self.names.append(stage.name)
            kept = self.stages[stage.name]
            for key in kept:
                kept[key] += getattr(stage, key)

    def place(self, stage: str) -> int:
        """The position of a stage's name."""
        return self.names.index(stage)

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Everything per example, by name."""
        found: dict[str, NDArray[Any]] = {
            "rows": np.array(self.rows, dtype=np.int64),
            "clean": np.array(self.clean, dtype=np.bool_),
            "budget": np.array(self.budget, dtype=np.int16),
            "stage": np.array(self.stage, dtype=np.int16),
            "distance": np.array(self.distance, dtype=np.float64),
            "queries": np.array(self.queries, dtype=np.float64),
            "answers": np.array(self.answers, dtype=np.int64),
            "point_rows": np.array(self.point_rows, dtype=np.int64),
            "points": self.points.array(),
        }
        return {f"{prefix}{name}": array for name, array in found.items()}
