"""Random moves among the corners of an L1 or L0 ball in a box: single elements, swapped for others.

Source: Croce, Andriushchenko, Singh, Flammarion & Hein 2022 (Sparse-RS, arXiv 2006.12834), algorithm 1; there for L0.
"""

from __future__ import annotations

import math

import torch

from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.draws import Draws, State, reached
from pruneproof.adversarial.pictures import Pictures

SWAPPED = 0.3
"""Share of the changed elements that are swapped at first, as in Sparse-RS."""
SPARE = 5
"""Times as many elements as the budget lasts for with a box's whole width each: few have that much room."""


class Spots(Pictures):
    """Single elements at the edge of the box, swapped for others: the corners of an L1 or L0 ball in a box.

    L0: so many elements as the budget has. L1: one after the other, as far as the budget lasts. A box without an edge
    ends one unit away for L0.
    """

    def __init__(self, ball: Ball, clean: torch.Tensor) -> None:
        super().__init__(ball, clean)
        center = clean.double().flatten(1)
        unit = torch.as_tensor(ball.unit, dtype=torch.float64, device=clean.device).expand_as(clean).flatten(1)
        lower, upper = (bound.double().flatten(1) for bound in ball.limits(clean))
        if ball.norm == "L0":
            lower = torch.where(lower.isfinite(), lower, center - unit)
            upper = torch.where(upper.isfinite(), upper, center + unit)
        self.unit = unit
        self.down, self.up = (center - lower) / unit, (upper - center) / unit
        """How far each element can go, in units."""
        elements = center.shape[1]
        wanted = ball.eps if ball.norm == "L0" else 2 + SPARE * ball.eps / self._wide()
        self.count = min(elements, max(1, math.floor(min(wanted, elements))))
        """Elements in a state, the first to be changed first; of L1 the budget does not last for the last ones."""

    def first(self, draws: Draws) -> State:
        """Random elements, to a random side each."""
        elements = self.down.shape[1]
        places = draws.uniform(elements).argsort(dim=1, stable=True)[:, : self.count]
        return places.to(self.clean.device), (draws.signs(self.count) > 0).to(self.clean.device)

    def next(self, state: State, draws: Draws, progress: float) -> State:
        """Some of those that are changed make place for others, which come first, each to a random side."""
        places, ups = state
        elements = self.down.shape[1]
        some = max(1, round(SWAPPED * sparser(progress) * self.count))
        idle = (self._far(places, ups, draws.rows) <= 0).cpu().float()
        gone = (draws.uniform(self.count) + idle).argsort(dim=1, stable=True)[:, :some].to(places.device)
        come = (draws.uniform(some) * elements).long().clamp_max(elements - 1).to(places.device)
        sides = (draws.signs(some) > 0).to(places.device)
        places, ups = torch.cat([come, places], dim=1), torch.cat([sides, ups], dim=1)
        rank = torch.zeros_like(places).scatter(1, gone + some, 1).masked_fill(_repeated(places), 2)
        kept = rank.argsort(dim=1, stable=True)[:, : self.count]
        return places.gather(1, kept), ups.gather(1, kept)

    def points(self, state: State, rows: torch.Tensor) -> torch.Tensor:
        places, ups = state
        change = torch.zeros_like(self.down[rows]).scatter(1, places, self._far(places, ups, rows, signed=True))
        clean = self.clean[rows]
        moved = clean.double() + (change * self.unit[rows]).reshape(clean.shape)
        return self.ball.project(clean, moved)

    def _far(self, places: torch.Tensor, ups: torch.Tensor, rows: torch.Tensor, signed: bool = False) -> torch.Tensor:
        """How far each of ``places`` is moved, in units: to the other side where there is no room on its own."""
        down, up = self.down[rows].gather(1, places), self.up[rows].gather(1, places)
        rises = torch.where(ups, up > 0, down <= 0)
        far = torch.where(rises, up, down)
        if self.ball.norm == "L1":
            far = far.clamp_max(self.ball.eps)
            far = torch.minimum(far, (self.ball.eps - (far.cumsum(dim=1) - far)).clamp_min(0))
        return torch.where(rises, far, -far) if signed else far

    def _wide(self) -> float:
        """How wide the box is on average, in units, but no wider than the budget lasts for; of no example's own."""
        widths = torch.as_tensor(self.ball.width(), device=self.unit.device).expand_as(self.clean[:1]).flatten(1)
        found = (widths / self.unit[:1]).clamp_max(self.ball.eps)
        return max(float(found.mean()), 1e-9 * self.ball.eps) if found.numel() else 1.0


def sparser(progress: float) -> float:
    """Sparse-RS's schedule of swaps."""
    return 1 / (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)[reached(progress)]


def _repeated(places: torch.Tensor) -> torch.Tensor:
    """``(n, k)`` booleans: whether the same number stands further to the left."""
    ordered, at = places.sort(dim=1, stable=True)
    again = torch.zeros_like(places, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(again).scatter(1, at, again)
