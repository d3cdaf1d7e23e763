"""Points of an earlier audit, tried again in one forward pass before anything is spent on new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pruneproof import evidence as records
from pruneproof import observed
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.space import Space
from pruneproof.errors import EvidenceError
from pruneproof.suite import Models

STAGE = "earlier points"
SUITE = "adversarial"


class Earlier:
    """The points kept in an evidence folder.

    Args:
        folder: that an audit of the same test set wrote.

    Raises:
        EvidenceError: it holds no points, or those of another test set.
    """

    def __init__(self, folder: Path, models: Models) -> None:
        found = records.read(folder)
        if found.subject.data_sha256.get("test") != models.loaded.data_digests["test"]:
            raise EvidenceError(
                f"{folder}: its points are of another test set", "replay evidence of the same data, or leave it out"
            )
        self._files = sorted((folder / records.OBSERVED / SUITE).glob("*.npz"))
        if not self._files:
            raise EvidenceError(f"{folder}: it keeps no adversarial points", "name evidence of an adversarial suite")

    def enter(self, arena: Arena, label: str, positions: NDArray[np.int64], entered: Space | None = None) -> None:
        """Puts the points of attack ``label`` into the pool, and tries them on everyone; those in the space
        ``entered`` are in it already."""
        place = {int(position): row for row, position in enumerate(positions)}
        for file in self._files:
            seen = observed.read(file)
            for number, entry in enumerate(seen.record.get("attacks", ())):
                if entry["label"] != label:
                    continue
                points = seen.arrays[f"attack{number}/points"]
                for position, point in zip(seen.arrays[f"attack{number}/point_rows"], points, strict=True):
                    row = place.get(int(position))
                    if row is None or point.shape != arena.clean.shape[1:]:
                        continue
                    given = torch.from_numpy(np.array(point)).to(arena.clean.dtype)
                    if entered is not None and bool(entered.contains(arena.clean[[row]], given[None])[0]):
                        continue
                    if bool(arena.space.contains(arena.clean[[row]], given[None])[0]):
                        arena.pool.add(row, given, "")
        arena.replay(STAGE)
