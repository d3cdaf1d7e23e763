"""The audit's attack: leg after leg on one variant after the other, each one on whom it can still reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ascent import CROSS_ENTROPY, MARGIN, RIVALS, Ascent, Climb, cosine, way_left
from pruneproof.adversarial.victim import Victim

CHECKED = "out of reach, attacked to check"
"""The stage that counts who fell among those that went on although others like them were left alone."""
EVERYBODY = math.inf
FARTHER = 1.5
"""Where somebody out of reach fell, the reach becomes that many times what was left of their way."""


@dataclass(frozen=True)
class Leg:
    """One stage of the attack.

    Args:
        name: in the evidence.
        steps: of half a cosine, each climb.
        goals: what to raise: the ``"entropy"`` of the answer, the ``"lead"`` of the strongest wrong class, or the leads
            of the wrong classes of these ranks (1 is the strongest), each in a climb of its own.
        start: ``"fresh"``: the random point of the restart, the same for every variant; ``"clean"``: the clean example;
            ``"on"``: the best point so far.
        reach: how much of the way (:func:`~pruneproof.adversarial.ascent.way_left`) may be left.
        last: the points behind the last step are tried; not needed where the next leg goes on from them.
    """

    name: str
    steps: int
    goals: Literal["entropy", "lead"] | tuple[int, ...]
    start: Literal["fresh", "clean", "on"] = "on"
    reach: float = EVERYBODY
    last: bool = True


class Pursuit:
    """All variants of an arena.

    Whom a leg reaches follows from an example's own course alone; a share of the examples goes through all legs, and if
    one of those falls who would have been left alone, the legs are walked again on a longer reach. So that nothing is
    given away is measured, stage :data:`CHECKED`.

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
                    Course(self, victim, fresh, f" {restart + 1}" if restart else "").run()
        self.close()

    def close(self) -> None:
        """Replays until nobody falls: no variant keeps an example that another one's point takes."""
        before = -1
        while before != (before := int(self.arena.standing.sum())):
            with_points = [victim for victim in self.arena.victims if len(self.arena.rows(victim))]
            for victim in with_points:
                with victim.attacked():
                    self.arena.replay("closure", [victim])


class Course:
    """One victim's legs: the best point of each example so far, and how much of its way was left there."""

    def __init__(self, pursuit: Pursuit, victim: Victim, fresh: torch.Tensor, suffix: str) -> None:
        self.arena, self.victim, self.suffix = pursuit.arena, victim, suffix
        self.legs, self.checked = pursuit.legs, pursuit.checked
        n = len(self.arena.clean)
        self.fresh, self.points = fresh, fresh.clone()
        self.left = torch.full((n,), math.inf, dtype=torch.float64)
        self.seen = torch.zeros(n, dtype=torch.bool)
        self.rivals = torch.full((n, RIVALS), -1)
        self.beyond = torch.full((n,), math.inf, dtype=torch.float64)
        """What was left of the way of the checked when others like them were left alone."""

    def run(self) -> None:
        """Every leg, and the check of their reach."""
        for leg in self.legs:
            rows = self.arena.rows(self.victim)
            near = ~self.seen[rows] | (self.left[rows] <= leg.reach)
            spared = rows[~near & self.checked[rows]]
            self.beyond[spared] = torch.minimum(self.beyond[spared], self.left[spared])
            self.walk(leg, rows[near | self.checked[rows]], self.suffix)
        self.check()

    def walk(self, leg: Leg, rows: torch.Tensor, suffix: str) -> None:
        """One leg of those who stand at ``rows``."""
        climb = self._climb(leg, rows)
        if not len(climb.rows):
            return
        with self.arena.stage(leg.name + suffix, self.victim, len(rows)) as stage:
            ascent = Ascent(self.arena, self.victim, stage, cosine(leg.steps), jump=leg.start != "on", last=leg.last)
            ascent.run(climb)
        self._note(climb)

    def check(self) -> None:
        """Counts who fell among the checked, and reaches farther where one did."""
        standing = torch.zeros(len(self.seen), dtype=torch.bool)
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
        for leg in self.legs:
            rows = self.arena.rows(self.victim)
            self.walk(leg, rows[farther[rows] & ~self.checked[rows]], f"{self.suffix} farther")

    def _climb(self, leg: Leg, rows: torch.Tensor) -> Climb:
        place = {"fresh": self.fresh, "clean": self.arena.clean, "on": self.points}[leg.start]
        if isinstance(leg.goals, str) or self.arena.aim is not None:
            goal = CROSS_ENTROPY if leg.goals == "entropy" else MARGIN
            return Climb(rows, place[rows].clone(), torch.full((len(rows),), goal))
        goals = self.rivals[rows][:, [rank - 1 for rank in leg.goals]].T.flatten()
        rows = rows.repeat(len(leg.goals))[goals >= 0]
        return Climb(rows, place[rows].clone(), goals[goals >= 0])

    def _note(self, climb: Climb) -> None:
        """Of several climbs of one example the best one counts, and is where the next leg goes on."""
        clean = self.arena.clean_lead(self.victim)
        looked = ~climb.lead.isnan()
        left = torch.where(looked, way_left(climb.lead, clean[climb.rows]), 0.0)
        # the best one is written last
        for position in left.argsort(descending=True, stable=True).tolist():
            row = int(climb.rows[position])
            if left[position] <= self.left[row]:
                self.left[row], self.points[row] = left[position], climb.points[position]
                self.rivals[row] = climb.rivals[position]
        self.seen[climb.rows] = True
