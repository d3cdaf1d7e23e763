"""The audit's attack: leg after leg on one variant after the other, each one on whom it can still reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ascent import CROSS_ENTROPY, MARGIN, RIVALS, Ascent, Climb, cosine, way_left
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.victim import Victim

CHECKED = "out of reach, attacked to check"
"""The stage that counts who fell among those that went on although others like them were left alone."""
EVERYBODY = math.inf
NOBODY = -1
"""In the place of a wrong class that there is not."""
TILES = 3
"""Along each side. Of climbs for examples that Square alone had fooled 4 in 10 got there from tiles of a third of a
side, 1 in 10 from those of a seventh, 1 in 12 from noise."""
FARTHER = 1.5
"""Where somebody out of reach fell, the reach becomes that many times what was left of their way."""


@dataclass(frozen=True)
class Leg:
    """One stage of the attack.

    Args:
        name: in the evidence.
        steps: of half a cosine, each climb.
        goals: what to raise: the ``"entropy"`` of the answer, the ``"lead"`` of the strongest wrong class, or the leads
            of the wrong classes of these ranks (1 is the strongest; 0: whichever is the strongest at each step), each
            in a climb of its own.
        start: ``"fresh"``: the random point of the restart, the same for every variant; ``"clean"``: the clean example;
            ``"on"``: the best point so far; ``"tiles"``: for every climb another random point of :func:`tiles`.
        reach: how much of the way (:func:`~pruneproof.adversarial.ascent.way_left`) may be left.
        first: the first step's size, in budgets; others than Linf go no farther than 1.
        last: the points behind the last step are tried; not needed where the next leg goes on from them.
        hope: how far behind a climb may be (:class:`~pruneproof.adversarial.ascent.Ascent`) before it ends early.
    """

    name: str
    steps: int
    goals: Literal["entropy", "lead"] | tuple[int, ...]
    start: Literal["fresh", "clean", "on", "tiles"] = "on"
    reach: float = EVERYBODY
    first: float = 1.0
    last: bool = True
    hope: float = math.inf


class Pursuit:
    """All variants of an arena.

    Whom a leg reaches follows from an example's own course alone. A share of the examples goes through all legs, so
    that what the reach gives away is measured, stage :data:`CHECKED`; if one of them falls who would have been left
    alone, all whose way is hardly longer walk the legs that they missed.

    Args:
        legs: of every variant.
        restarts: how often they are walked, each time from another random point, on who still stands.
        checked: share of the examples that go through all legs.
    """

    def __init__(self, arena: Arena, legs: Sequence[Leg], restarts: int = 1, checked: float = 0.05) -> None:
        self.arena, self.legs, self.restarts = arena, legs, restarts
        drawn = torch.rand(len(arena.clean), generator=arena.generator("checked"), dtype=torch.float64)
        self.checked = drawn < checked

    def run(self) -> None:
        """Attacks every victim, then tries every point on every victim until nobody falls any more."""
        for restart in range(self.restarts):
            fresh = self.arena.space.start(self.arena.clean, self.arena.generator("start", restart))
            for victim in self.arena.victims:
                self.arena.replay("pool", [victim])
                with victim.attacked():
                    Course(self, victim, fresh, restart).run()
        self.close()

    def close(self) -> None:
        """Replays until nobody falls: no variant keeps an example that another one's point takes."""
        before = -1
        while before != (before := int(self.arena.standing.sum())):
            for victim in self.arena.victims:
                with victim.attacked():
                    self.arena.replay("closure", [victim])


class Course:
    """One victim's legs: the best point of each example so far, and how much of its way was left there."""

    def __init__(self, pursuit: Pursuit, victim: Victim, fresh: torch.Tensor, restart: int) -> None:
        self.arena, self.victim, self.restart = pursuit.arena, victim, restart
        self.suffix = f" {restart + 1}" if restart else ""
        self.legs, self.checked = pursuit.legs, pursuit.checked
        n = len(self.arena.clean)
        self.fresh, self.points = fresh, fresh.clone()
        self.left = torch.full((n,), math.inf, dtype=torch.float64)
        self.walked = torch.zeros(n, dtype=torch.int64)
        """How many legs each example has behind it, up to the first that left it alone."""
        self.rivals = torch.full((n, RIVALS), -1)
        self.beyond = torch.full((n,), math.inf, dtype=torch.float64)
        """What was left of the way of the checked when others like them were left alone."""
        self.ended = torch.zeros(len(pursuit.legs), n, dtype=torch.bool)
        """Whose climbs ended early, by leg."""
        self.patience = torch.zeros(len(pursuit.legs), dtype=torch.bool)
        """Legs of which a checked example fell by a climb that would have ended early."""

    def run(self) -> None:
        """Every leg, and the check of their reach."""
        for number, leg in enumerate(self.legs):
            rows = self.arena.rows(self.victim)
            near = (self.left[rows] <= leg.reach) | (number == 0)
            spared = rows[~near & self.checked[rows]]
            self.beyond[spared] = torch.minimum(self.beyond[spared], self.left[spared])
            rows = rows[near | self.checked[rows]]
            climb = self.walk(leg, rows, self.suffix)
            self.ended[number, climb.rows[climb.hopeless]] = True
            self.patience[number] = bool((climb.won & climb.hopeless).any())
            self.walked[rows] = torch.where(self.walked[rows] == number, number + 1, self.walked[rows])
        self.check()

    def walk(self, leg: Leg, rows: torch.Tensor, suffix: str, patient: torch.Tensor | None = None) -> Climb:
        """One leg of those who stand at ``rows``; ``patient``: who climbs to the end, instead of the checked."""
        climb = self._climb(leg, rows)
        if not len(climb.rows):
            return climb
        patient = self.checked if patient is None else patient
        with self.arena.stage(leg.name + suffix, self.victim, len(rows)) as stage:
            sizes = cosine(leg.steps, leg.first)
            Ascent(self.arena, self.victim, stage, sizes, last=leg.last, hope=leg.hope, patient=patient).run(climb)
        self._note(climb)
        return climb

    def check(self) -> None:
        """Counts who fell among the checked; where one did, the others get what they were spared."""
        for number in self.patience.nonzero().flatten().tolist():
            rows = self.arena.rows(self.victim)
            everybody = torch.ones_like(self.checked)
            again = rows[self.ended[number, rows] & ~self.checked[rows]]
            self.walk(self.legs[number], again, f"{self.suffix} to the end", everybody)
        standing = torch.zeros(len(self.left), dtype=torch.bool)
        standing[self.arena.rows(self.victim)] = True
        tested = self.beyond < math.inf
        caught = tested & ~standing
        if not tested.any():
            return
        with self.arena.stage(CHECKED + self.suffix, self.victim, int(tested.sum())) as stage:
            stage.fell = int(caught.sum())  # they count at the leg that they fell at, too
        if not caught.any():
            return
        farther = self.left <= float(self.beyond[caught].max()) * FARTHER
        for number, leg in enumerate(self.legs):
            rows = self.arena.rows(self.victim)
            self.walk(leg, rows[farther[rows] & (self.walked[rows] <= number)], f"{self.suffix} farther")

    def _climb(self, leg: Leg, rows: torch.Tensor) -> Climb:
        if isinstance(leg.goals, str):
            goal = CROSS_ENTROPY if leg.goals == "entropy" else MARGIN
            return Climb(rows, self._start(leg, rows, 0), torch.full((len(rows),), goal))
        aimless = self.arena.aim is not None or self.victim.criterion is not None
        # without wrong classes to choose from, climbs from one point would be one climb
        ranks = (0,) if aimless and leg.start != "tiles" else leg.goals
        parts = []
        for number, rank in enumerate(ranks):
            goals = torch.full((len(rows),), MARGIN)
            if rank and not aimless:
                goals = self.rivals[rows, rank - 1]
            there = goals != NOBODY
            parts.append((rows[there], self._start(leg, rows[there], number), goals[there]))
        return Climb(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _start(self, leg: Leg, rows: torch.Tensor, number: int) -> torch.Tensor:
        if leg.start == "tiles":
            return tiles(self.arena, self.restart, number)[rows]
        place = {"fresh": self.fresh, "clean": self.arena.clean, "on": self.points}[leg.start]
        return place[rows].clone()

    def _note(self, climb: Climb) -> None:
        """Of several climbs of one example the best one counts, and is where the next leg goes on."""
        clean = self.arena.clean_lead(self.victim)
        left = torch.where(climb.lead.isnan(), 0.0, way_left(climb.lead, clean[climb.rows]))
        order = left.argsort(stable=True)
        order = order[climb.rows[order].argsort(stable=True)]
        rows = climb.rows[order]
        best = torch.ones(len(rows), dtype=torch.bool)
        best[1:] = rows[1:] != rows[:-1]
        best &= left[order] <= self.left[rows]
        rows, order = rows[best], order[best]
        self.left[rows], self.points[rows] = left[order], climb.points[order]
        self.rivals[rows] = climb.rivals[order]


def tiles(arena: Arena, restart: int, number: int) -> torch.Tensor:
    """A random corner of every example's ball, the same for every variant: Linf; of other balls a random point.

    Of images, tiles of a third of their sides go to one side of the ball as a whole, as the squares of the Square
    attack do (Andriushchenko et al. 2020, arXiv 1912.00049): from there gradients lead where they do not from noise,
    on networks whose gradients are masked near the example.
    """
    space, clean = arena.space, arena.clean
    generator = arena.generator("tiles", restart, number)
    if not (isinstance(space, Ball) and space.norm == "Linf"):
        return space.start(clean, generator)
    sides = [max(1, -(-length // TILES)) for length in clean.shape[2:]]
    counts = [-(-length // side) for length, side in zip(clean.shape[2:], sides, strict=True)]
    above = torch.rand([*clean.shape[:2], *counts], generator=generator) < 0.5
    for dim, side in enumerate(sides, start=2):
        above = above.repeat_interleave(side, dim=dim).narrow(dim, 0, clean.shape[dim])
    lower, upper = arena.limits or space.limits(clean)
    return torch.where(above.to(clean.device), upper, lower)
