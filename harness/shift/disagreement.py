"""Where two models decide differently: what is asked of both, and the smallest change on which they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pruneproof.outcomes import Predictions
from pruneproof.shift.changes import Changes

Ask = Callable[[torch.Tensor], Predictions]
SWEEP = 16
"""Sizes that are tried of one proposal, in one batch."""


@dataclass(frozen=True, eq=False)
class Rivals:
    """Two models and the examples on which they are compared.

    Args:
        dense, variant: ``ask(inputs (m, …)) -> Predictions``.
        changes: what can be changed about the examples.
        positions: ``(n,)`` of the examples in their data set.
        batch_size: examples a forward pass; the own batch of an example is that of this size which it lies in.
        name: of the variant, for the text.
    """

    dense: Ask
    variant: Ask
    changes: Changes
    positions: NDArray[np.integer]
    batch_size: int = 256
    name: str = "pruned"


class Find(NamedTuple):
    """A changed example on which the models differ.

    Args:
        row: its place among the examples.
        asked: ``(things,)``, see :class:`~pruneproof.shift.changes.Changes`.
        point: the changed example.
    """

    row: int
    asked: torch.Tensor
    point: torch.Tensor
    size: float


class Disagreement:
    """Asks both models about changed examples, and counts how many.

    Attributes:
        evaluated: changed examples that both were asked about.
    """

    def __init__(self, rivals: Rivals) -> None:
        self.rivals, self.changes, self.evaluated = rivals, rivals.changes, 0

    def smallest(self, row: int, asked: torch.Tensor) -> Find | None:
        """Of several changes ``(m, things)`` of an example the smallest on which the models differ."""
        points = self.changes.built(row, asked)
        differ = self.differ(row, points)
        if not differ.any():
            return None
        sizes = self.changes.sizes(row, points).numpy()
        best = int(np.argmin(np.where(differ, sizes, np.inf)))
        return Find(row, asked[best], points[best], float(sizes[best]))

    def differ(self, row: int, points: torch.Tensor) -> NDArray[np.bool_]:
        """``(m,)`` whether the models differ on a point that is not the clean example."""
        found = np.zeros(len(points), dtype=np.bool_)
        changed = (points != self.changes.clean[row]).reshape(len(points), -1).any(dim=1)
        some = points[changed]
        if len(some):
            self.evaluated += len(some)
            dense, variant = self.rivals.dense(some.clone()), self.rivals.variant(some.clone())
            found[changed.numpy()] = dense.labels != variant.labels
        return found

    def confirmed(self, found: Find) -> bool:
        """Whether passes of the example alone and of its own batch say the same."""
        clean, size = self.changes.clean, self.rivals.batch_size
        first = found.row // size * size
        batch = clean[first : first + size]
        place = found.row - first
        changed = batch.clone()
        changed[place] = found.point
        seen = []
        for rows, at in ((clean[found.row, None], 0), (batch, place)):
            seen.append([int(ask(rows.clone()).labels[at]) for ask in (self.rivals.dense, self.rivals.variant)])
        said = []
        for rows, at in ((found.point[None], 0), (changed, place)):
            said.append([int(ask(rows.clone()).labels[at]) for ask in (self.rivals.dense, self.rivals.variant)])
        agree = len({label for both in seen for label in both}) == 1
        return agree and said[0] == said[1] and said[0][0] != said[0][1]


def sweep(asked: torch.Tensor, settings: list[int]) -> torch.Tensor:
    """``(m, things)`` sizes of a proposal, small ones more closely; of a single setting, its neighbours as well."""
    degrees = torch.tensor([count == 0 for count in settings])
    changed = asked.nonzero().flatten()
    if not bool(degrees[changed].any()):
        if len(changed) > 1:
            return asked[None]
        thing = int(changed[0])
        some = min(SWEEP, settings[thing])
        found = asked.repeat(some, 1)
        found[:, thing] = 1 + (asked[thing] - 1 + torch.arange(some)) % settings[thing]
        return found
    if len(changed) == 1:  # alone, it may go as far as it can, both ways
        asked = asked.sign()
    shares = (torch.arange(1, SWEEP + 1, dtype=torch.float64) / SWEEP).square()[:, None]
    found = torch.where(degrees, asked * shares, asked)
    return torch.cat([found, -found]) if len(changed) == 1 else found
