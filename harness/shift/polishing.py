"""Counterexamples made smaller: fewer changes, each as near to the clean value as the disagreement lasts."""

from __future__ import annotations

import numpy as np
import torch

from pruneproof.shift.disagreement import SWEEP, Disagreement, Find, sweep

REFINEMENTS = 8
"""Times that an interval is divided in :data:`SWEEP`: to 2⁻³² of what can be changed."""
SETTLED = 4
"""Rounds over all changes, at most, in which each is made smaller given the others."""
ROUNDER = 1.1
"""How much larger a change may become for a value with fewer digits."""
ALONE = 64
"""Things about an example, at most, of which each is tried alone."""


class Polish:
    """Makes finds smaller, one change after the other."""

    def __init__(self, disagreement: Disagreement) -> None:
        self.models, self.changes = disagreement, disagreement.changes

    def __call__(self, found: Find) -> Find:
        """The find made smaller until nothing makes it smaller; then with round numbers."""
        settings = self.changes.settings(found.row)
        found = self._alone(found, settings)
        for _ in range(SETTLED):
            before = found
            found = self._fewer(found)
            for thing in found.asked.nonzero().flatten().tolist():
                if settings[thing] == 0:
                    found = self._nearer(found, thing)
            if found.size >= before.size:
                break
        for thing in found.asked.nonzero().flatten().tolist():
            found = self._rounder(found, thing)
        return found

    def _alone(self, found: Find, settings: list[int]) -> Find:
        """The smallest change of one thing alone, if it is smaller."""
        free = [thing for thing, count in enumerate(settings) if count >= 0]
        if len(free) > ALONE:
            return found
        single = torch.eye(len(settings), dtype=torch.float64)
        other = self.models.smallest(found.row, torch.cat([sweep(single[thing], settings) for thing in free]))
        return found if other is None or other.size >= found.size else other

    def _fewer(self, found: Find) -> Find:
        while len(changed := found.asked.nonzero().flatten()) > 1:
            less = found.asked.repeat(len(changed), 1)
            less[torch.arange(len(changed)), changed] = 0
            smaller = self.models.smallest(found.row, less)
            if smaller is None:
                break
            found = smaller
        return found

    def _nearer(self, found: Find, thing: int) -> Find:
        """One change as small as the models still differ, the others as they are."""
        low, high = 0.0, float(found.asked[thing])
        for _ in range(REFINEMENTS):
            grid = low + (high - low) * torch.arange(1, SWEEP, dtype=torch.float64) / SWEEP
            asked = found.asked.repeat(len(grid), 1)
            asked[:, thing] = grid
            points = self.changes.built(found.row, asked)
            differ = self.models.differ(found.row, points)
            if bool((points == found.point).all()):
                break
            first = int(np.argmax(differ)) if differ.any() else len(grid)
            low = float(grid[first - 1]) if first else low
            if first < len(grid):
                high = float(grid[first])
                size = float(self.changes.sizes(found.row, points[first, None])[0])
                found = Find(found.row, asked[first], points[first], size)
        return found

    def _rounder(self, found: Find, thing: int) -> Find:
        for wanted in self.changes.rounder(found.row, found.asked, thing):
            asked = found.asked.clone()
            asked[thing] = wanted
            other = self.models.smallest(found.row, asked[None])
            if other is not None and other.size <= ROUNDER * found.size:
                return other
        return found
