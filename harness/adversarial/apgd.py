"""Auto-PGD (Croce & Hein 2020, arXiv 2003.01690): momentum, and steps that are halved where they no longer help.

The published algorithm, with less work for it: who is fooled leaves at once, who waits takes the free place, and a
climb that is far behind at a checkpoint ends there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from pruneproof.adversarial.arena import Arena, Stage
from pruneproof.adversarial.ascent import filled, fitting, sized, way_left
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.convolutions import FastFirstLayers
from pruneproof.adversarial.victim import Victim, lead

FIRST = 2.0
"""The first step's size, in budgets."""
MOMENTUM = 0.75
"""Share of a step in the new direction; the rest is the last movement."""
RISES = 0.75
"""Of the steps between two checkpoints so many have to raise the loss, or the steps are halved."""
HOPE = 0.8
"""A climb ends at a checkpoint where more of its way (:func:`~pruneproof.adversarial.ascent.way_left`) is left than
that many times the squared share of its steps. Of 352 climbs of 100 steps that got there, on digits, the farthest
behind had 0.2 left at the first checkpoint and 0.11 at the second, where they may have 0.49 and 0.28."""
UNTARGETED = -1
"""The goal of a climb that raises the cross-entropy."""


def checkpoints(steps: int) -> list[int]:
    """Numbers of steps after which the step size is thought over, ascending: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    before, now, found = 0.0, 0.22, []
    while (at := math.ceil(round(now * steps, 9))) < steps:
        found.append(at)
        before, now = now, now + max(now - before - 0.03, 0.06)
    return sorted(set(found))


def loss(goals: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """``(scores, targets) -> (n,)``: cross-entropy, or towards class ``goals`` the targeted difference of logits ratio.

    That one needs four classes.
    """

    def each(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wide, right = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores, targets.long()
        if bool((goals == UNTARGETED).all()):
            return functional.cross_entropy(wide, right, reduction="none")
        goal = filled(goals, len(wide)).to(wide.device)
        ordered = wide.topk(4, dim=1).values
        ahead = wide.gather(1, goal[:, None]) - wide.gather(1, right[:, None])
        return ahead.squeeze(1) / (ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]) + 1e-12)

    return each


@dataclass(eq=False)
class Climbs:
    """What :class:`AutoPGD` is to do, and what becomes of it.

    Args:
        rows: ``(m,)`` the example of each climb.
        starts: ``(m, …)``
        goals: ``(m,)`` a class, or :data:`UNTARGETED`.
        left: ``(m,)`` float64: the least of the way that was left; inf where the climb was not needed any more.
        early: ``(m,)`` booleans: it was so far behind at a checkpoint that it ended there, or would have.
        won: ``(m,)`` booleans: its example fell by it.
    """

    rows: torch.Tensor
    starts: torch.Tensor
    goals: torch.Tensor
    left: torch.Tensor = field(init=False)
    early: torch.Tensor = field(init=False)
    won: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.left = torch.full((len(self.rows),), math.inf, dtype=torch.float64)
        self.early, self.won = torch.zeros(2, len(self.rows), dtype=torch.bool)

    def those(self, chosen: torch.Tensor) -> Climbs:
        """The same from the beginning, of the ``chosen (m,)``."""
        return Climbs(self.rows[chosen], self.starts[chosen], self.goals[chosen])


@dataclass(eq=False)
class _Seats:
    """The climbs in the batch, one a row of everything."""

    who: torch.Tensor
    """Their numbers."""
    at: torch.Tensor
    """Steps taken."""
    clean: torch.Tensor
    points: torch.Tensor
    before: torch.Tensor
    """The point before."""
    best: torch.Tensor
    uphill: torch.Tensor
    """The gradient at the best point."""
    highest: torch.Tensor
    """The loss there."""
    checked: torch.Tensor
    """The highest loss at the last checkpoint."""
    latest: torch.Tensor
    """The loss at the point before."""
    rises: torch.Tensor
    """Steps since the last checkpoint that raised the loss."""
    halved: torch.Tensor
    """Whether the last checkpoint halved the steps."""
    size: torch.Tensor
    """Of the steps, in budgets."""
    lower: torch.Tensor
    upper: torch.Tensor
    """Bounds of every element; of balls other than Linf the points themselves, never read."""

    @classmethod
    def taken(cls, who: torch.Tensor, clean: torch.Tensor, start: torch.Tensor, bounds: Any) -> _Seats:
        n, low = len(who), torch.full((len(who),), -math.inf, dtype=torch.float64)
        count = torch.zeros(n, dtype=torch.int64)
        lower, upper = (start, start) if bounds is None else bounds
        halved = torch.ones(n, dtype=torch.bool)  # no halving for want of a new best point at the first checkpoint
        size = torch.full((n,), FIRST, dtype=torch.float64)
        return cls(who, count, clean, start, start, start, start, low, low, low, count, halved, size, lower, upper)

    def parts(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from vars(self).items()

    def joined(self, other: _Seats) -> _Seats:
        return _Seats(**{name: torch.cat([part, getattr(other, name)]) for name, part in self.parts()})

    def kept(self, stay: torch.Tensor) -> _Seats:
        return _Seats(**{name: part[stay] for name, part in self.parts()})


class AutoPGD:
    """Climbs of one victim, towards any wrong class or one class each.

    Args:
        arena: whose space is a :class:`~pruneproof.adversarial.ball.Ball` in Linf or L2.
        victim: inside :meth:`~pruneproof.adversarial.victim.Victim.attacked`.
        stage: where it is recorded.
        steps: of every climb.
    """

    def __init__(self, arena: Arena, victim: Victim, stage: Stage, steps: int) -> None:
        self.arena, self.victim, self.stage, self.steps = arena, victim, stage, steps
        space: Any = arena.space
        self.space = space
        self.flat = isinstance(space, Ball) and space.norm == "Linf"
        self.width = torch.zeros(steps + 1, dtype=torch.int64)
        """At a checkpoint the steps since the one before, else 0."""
        marks = checkpoints(steps)
        for last, mark in zip([0, *marks], marks, strict=False):
            self.width[mark] = mark - last

    def run(self, climbs: Climbs, patient: torch.Tensor) -> Climbs:
        """Climbs until each example has fallen.

        Args:
            patient: ``(n,)`` booleans of the arena's examples that climb to the end, however far behind.
        """
        waiting = torch.arange(len(climbs.rows))
        victims = sized(self.victim)
        fell = torch.zeros(len(self.arena.clean), dtype=torch.bool)
        seats = self._seated(climbs, waiting[:0])
        while True:
            waiting = waiting[~fell[climbs.rows[waiting]]]
            free = self.victim.batch - len(seats.who)
            if free and len(waiting):
                seats = seats.joined(self._seated(climbs, waiting[:free]))
                waiting = waiting[free:]
            if not len(seats.who):
                return climbs
            who, rows = seats.who, climbs.rows[seats.who]
            fooled, uphill, left = self._look(seats, rows, climbs.goals[who], fitting(victims, len(who)))
            climbs.left[who] = torch.minimum(climbs.left[who], left)
            climbs.won[who] = self._confirmed(seats, rows, fooled)
            fell[rows[climbs.won[who]]] = True
            due = self.width[seats.at] > 0
            behind = due & (left > HOPE * (1 - seats.at.double() / self.steps).square())
            climbs.early[who] |= behind
            self._consider(seats, uphill, due)
            stay = ~fell[rows] & (seats.at < self.steps) & (~behind | patient[rows])
            seats, uphill = seats.kept(stay), uphill[stay]
            self._step(seats, uphill)

    def _seated(self, climbs: Climbs, who: torch.Tensor) -> _Seats:
        clean = self.arena.clean[climbs.rows[who]]
        return _Seats.taken(who, clean, climbs.starts[who], self.space.limits(clean) if self.flat else None)

    def _look(
        self, seats: _Seats, rows: torch.Tensor, goals: torch.Tensor, victim: Victim
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Who is fooled, the gradients, and how much of the way is left; notes the losses."""
        with FastFirstLayers():
            found = victim.gradient(seats.points, rows, loss(goals))
        uphill = torch.nan_to_num(found.value.to(seats.points.dtype), nan=0.0, posinf=0.0, neginf=0.0)
        now = torch.nan_to_num(found.loss.double().cpu(), nan=-math.inf)
        seats.rises = seats.rises + ((now > seats.latest) & (seats.at > 0)).long()
        better = (now > seats.highest) | (seats.at == 0)
        wide = better.reshape(-1, *[1] * (seats.points.ndim - 1)).to(seats.points.device)
        seats.best = torch.where(wide, seats.points, seats.best)
        seats.uphill = torch.where(wide, uphill, seats.uphill)
        seats.highest = torch.where(better, now, seats.highest)
        seats.checked = torch.where(seats.at == 0, now, seats.checked)
        seats.latest = now
        assert found.scores is not None  # reference.check refuses criteria
        targets = self.victim.targets[rows].cpu().long()
        left = way_left(lead(found.scores.cpu().double(), targets), self.arena.clean_lead(self.victim)[rows])
        return found.fooled.cpu(), uphill, left

    def _confirmed(self, seats: _Seats, rows: torch.Tensor, fooled: torch.Tensor) -> torch.Tensor:
        """``(n,)`` booleans of the points that count; of several of one example the first; the others go on."""
        counts = torch.zeros(len(rows), dtype=torch.bool)
        places = fooled.nonzero().flatten().tolist()
        first = torch.tensor(list({int(rows[place]): place for place in reversed(places)}.values()), dtype=torch.int64)
        if len(first):
            first = first.sort().values
            counts[first] = self.arena.submit(self.victim, self.stage, rows[first], seats.points[first])
        return counts

    def _consider(self, seats: _Seats, uphill: torch.Tensor, due: torch.Tensor) -> None:
        """At a checkpoint: halves the steps and goes back to the best point, where too few of them helped."""
        if not due.any():
            return
        few = seats.rises < RISES * self.width[seats.at]
        stuck = ~seats.halved & (seats.checked >= seats.highest)
        back = due & (few | stuck)
        seats.halved = torch.where(due, back, seats.halved)
        seats.checked = torch.where(due, seats.highest, seats.checked)
        seats.rises = torch.where(due, 0, seats.rises)
        seats.size = torch.where(back, seats.size / 2, seats.size)
        wide = back.reshape(-1, *[1] * (seats.points.ndim - 1)).to(seats.points.device)
        seats.points = torch.where(wide, seats.best, seats.points)
        uphill.copy_(torch.where(wide, seats.uphill, uphill))

    def _step(self, seats: _Seats, uphill: torch.Tensor) -> None:
        shape = (-1, *[1] * (seats.points.ndim - 1))
        lengths = (seats.size * self.space.eps).to(seats.points).reshape(shape)
        unit = torch.as_tensor(self.space.unit, dtype=seats.points.dtype, device=seats.points.device)
        if self.flat:
            direction = uphill.sign() * unit
        else:
            scaled = uphill * unit
            length = scaled.flatten(1).norm(dim=1).reshape(shape)
            direction = scaled / length.clamp_min(torch.finfo(scaled.dtype).tiny) * unit
        ahead = self._inside(seats, seats.points + lengths * direction)
        new = torch.where(seats.at > 0, MOMENTUM, 1.0).to(seats.points).reshape(shape)
        moved = seats.points + new * (ahead - seats.points) + (1 - new) * (seats.points - seats.before)
        seats.before, seats.points = seats.points, self._inside(seats, moved)
        seats.at = seats.at + 1

    def _inside(self, seats: _Seats, points: torch.Tensor) -> torch.Tensor:
        if self.flat:
            return torch.minimum(torch.maximum(points, seats.lower), seats.upper)
        found: torch.Tensor = self.space.project(seats.clean, points)
        return found
