"""Gradient ascent inside a space: who is fooled leaves at once, and who waits takes the free place.

A pass is one whole batch until nobody waits any more, so the fewer examples still stand, the fewer passes there are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from pruneproof.adversarial.arena import Arena, Stage
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.convolutions import FastFirstLayers
from pruneproof.adversarial.victim import Victim, lead

CROSS_ENTROPY, MARGIN = -1, -2
"""Goals of a climb beside a class: the cross-entropy of the answer, or the lead of the strongest wrong class."""
SATURATED = 1e-5
"""Below it float32 no longer holds the gradient of a cross-entropy: the lead is raised instead."""
SETTLED = 0.7
"""Share of the steps' length still to come from which on a climb's chances show; before, starts differ too much."""
HARDLY = 50.0
"""A way that is so many times longer than what was gained on it says nothing: the gradients led nowhere."""
FAR = 1e9
"""Units that are farther than every space reaches, and still exact enough in float64."""
KEPT = 2**24
"""Numbers of an arena's examples up to which their bounds are kept."""
PARTS = 8
"""Where nobody waits any more, gradients are taken in batches of the fewest eighths that seat everybody."""
RIVALS = 9
"""Wrong classes that a climb remembers, as many as AutoAttack aims at."""


def cosine(steps: int, first: float = 1.0) -> tuple[float, ...]:
    """Step sizes, from ``first`` down to nearly 0 along half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return tuple(first * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps))


def way_left(led: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """``(n,)`` the lead that is still to be gained, in multiples of what was gained since the clean example.

    It does not depend on the scale of a model's scores, nor on any other example. 0, within everybody's reach, where
    nothing is known: no lead (a criterion of the subject's own), or hardly any gain (gradients that lead nowhere).
    """
    gained = led - clean
    found = (-led / gained.clamp_min(torch.finfo(gained.dtype).tiny)).clamp_min(0)
    return torch.where(found < HARDLY, found, 0.0)


@dataclass(eq=False)
class Climb:
    """Starts of an ascent, and what becomes of them; an example may start several times, towards different goals.

    Args:
        rows: ``(m,)`` the example of each start.
        points: ``(m, …)`` where each one starts; afterwards, where it is.
        goals: ``(m,)`` a class, :data:`CROSS_ENTROPY` or :data:`MARGIN`.
        lead: ``(m,)`` float64 of the wrong answer at the last gradient; NaN: none was taken, or there are no classes.
        rivals: ``(m, RIVALS)`` the strongest wrong classes there, strongest first; -1: there are no more.
        fell: ``(m,)`` booleans: confirmed by the arena, in this climb or in another one of its example.
        won: ``(m,)`` booleans: the example fell by this climb's point.
        hopeless: ``(m,)`` booleans: so much of the way was left that the steps to come would not have got there.
    """

    rows: torch.Tensor
    points: torch.Tensor
    goals: torch.Tensor
    lead: torch.Tensor = field(init=False)
    rivals: torch.Tensor = field(init=False)
    fell: torch.Tensor = field(init=False)
    won: torch.Tensor = field(init=False)
    hopeless: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.lead = torch.full((len(self.rows),), math.nan, dtype=torch.float64)
        self.rivals = torch.full((len(self.rows), RIVALS), -1)
        self.fell, self.won, self.hopeless = torch.zeros(3, len(self.rows), dtype=torch.bool)


def objective(goals: torch.Tensor, aim: int | None) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss ``(scores, targets) -> (n,)`` of a batch whose examples have these goals.

    Cross-entropy as in Madry et al. 2018 (1706.06083), leads as in Carlini & Wagner 2017 (1608.04644, f6). Where the
    softmax is saturated the gradient of the cross-entropy is zero in floating point: there it is the lead from the
    first step on. With ``aim`` the loss rises as class ``aim`` gets likelier, or leads.
    """
    kinds = set(goals.tolist())

    def loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wide, right = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores, targets.long()
        led = lead(wide, right, aim)
        if kinds == {MARGIN}:
            return led
        entropy = functional.cross_entropy(
            wide, right if aim is None else torch.full_like(right, aim), reduction="none"
        )
        flat = entropy.detach() < SATURATED if aim is None else led.detach() < math.log(SATURATED)
        entropy = torch.where(flat, led, entropy if aim is None else -entropy)
        if kinds == {CROSS_ENTROPY}:
            return entropy
        goal = filled(goals, len(wide)).to(wide.device)
        rival = wide.gather(1, goal.clamp_min(0)[:, None]) - wide.gather(1, right[:, None])
        return torch.where(goal >= 0, rival.squeeze(1), torch.where(goal == MARGIN, led, entropy))

    return loss


class Ascent:
    """Climbs of one victim.

    Args:
        arena, victim, stage: whose examples, on which model, and where it is recorded.
        sizes: of the steps, in (0, 1]: see :meth:`_Seats.step`.
        last: the points behind the last step are submitted too; else only those that looked fooled before.
        hope: a climb ends early where the way that is left (:func:`way_left`) is longer than ``hope`` times the share
            of all steps' length that is still to come: of the climbs that got there, next to none was so far behind.
        patient: ``(n,)`` booleans of the arena's examples that climb to the end all the same.
    """

    def __init__(
        self,
        arena: Arena,
        victim: Victim,
        stage: Stage,
        sizes: Sequence[float],
        *,
        last: bool = True,
        hope: float = math.inf,
        patient: torch.Tensor | None = None,
    ) -> None:
        self.arena, self.victim, self.stage = arena, victim, stage
        self.steps = len(sizes)
        self.sizes = torch.tensor([*sizes, 0.0], dtype=torch.float64)
        self.last = last
        self.patient = patient
        ahead = self.sizes.flip(0).cumsum(0).flip(0)
        self.limit = torch.where(ahead < SETTLED * ahead[0], hope * ahead / ahead[0], math.inf)
        self.exact = dataclasses.replace(victim, approximate=None) if victim.approximate is not None else victim

    def run(self, climb: Climb) -> Climb:
        """Takes every step from every start, until its example has fallen.

        Points that the model, in the precision of its gradients, takes for fooled are confirmed by the arena in whole
        batches. One that is not goes on where it was, with the gradients of the model itself.
        """
        at = torch.zeros(len(climb.rows), dtype=torch.int64)  # steps taken; -1: it has ended
        victim = self.victim
        while len(who := (at >= 0).nonzero().flatten()):
            self._confirm(climb, at, self._climb(climb, at, who, victim))
            victim = self.exact
        return climb

    def _climb(self, climb: Climb, at: torch.Tensor, waiting: torch.Tensor, victim: Victim) -> torch.Tensor:
        """Steps until nobody waits; positions of the climbs whose points are proposed."""
        seats = _Seats(self.arena, climb, waiting, victim.batch)
        victims = sized(victim)
        proposed = [waiting[:0]]
        while seats.fill():
            who = seats.who
            goals = climb.goals[who]
            with FastFirstLayers():
                found = fitting(victims, len(who)).gradient(
                    seats.points, climb.rows[who], objective(goals, self.arena.aim), self.arena.aim
                )
            fooled = found.fooled.cpu()
            if found.scores is not None:
                self._look(climb, who, found.scores.detach().cpu())
            seats.step(found.value, self.sizes[at[who]])
            # who looked fooled stays where that was, and the step counts once the arena does not confirm it
            hopeless = ~fooled & self._hopeless(climb, who, at[who])
            at[who] += (~fooled).long()
            ended = (at[who] == self.steps) & ~hopeless
            if self.last:
                proposed.append(who[fooled | ended])
            else:
                proposed.append(who[fooled])
                at[who[ended]] = -1
            at[who[hopeless]] = -1
            seats.leave(fooled, fooled | ended | hopeless)
        return torch.cat(proposed)

    def _hopeless(self, climb: Climb, who: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """``(n,)`` booleans of those that end here."""
        limit = self.limit[at]
        if not bool((limit < math.inf).any()):
            return torch.zeros(len(who), dtype=torch.bool)
        rows = climb.rows[who]
        led = climb.lead[who]
        left = torch.where(led.isnan(), 0.0, way_left(led, self.arena.clean_lead(self.victim)[rows]))
        behind = left > limit
        climb.hopeless[who[behind]] = True
        return behind if self.patient is None else behind & ~self.patient[rows]

    def _look(self, climb: Climb, who: torch.Tensor, scores: torch.Tensor) -> None:
        """Notes leads and rivals."""
        targets = self.victim.targets[climb.rows[who]].cpu().long()
        climb.lead[who] = lead(scores.double(), targets, self.arena.aim)
        others = scores.scatter(1, targets[:, None], -math.inf)
        count = min(RIVALS, scores.shape[1] - 1)
        climb.rivals[who, :count] = others.topk(count, dim=1).indices

    def _confirm(self, climb: Climb, at: torch.Tensor, proposed: torch.Tensor) -> None:
        """Submits points, one of each example at a time; where the arena refuses one, its step counts as taken."""
        left = proposed.sort().values
        while len(left):
            order = climb.rows[left].argsort(stable=True)
            rows = climb.rows[left[order]]
            first = torch.ones(len(rows), dtype=torch.bool)
            first[1:] = rows[1:] != rows[:-1]
            now = left[order[first].sort().values]
            counts = self.arena.submit(self.victim, self.stage, climb.rows[now], climb.points[now])
            at[now] += 1
            climb.won[now[counts]] = True
            climb.fell |= torch.isin(climb.rows, climb.rows[now[counts]])
            left = left[order[~first].sort().values]
            left = left[~climb.fell[left]]
        at[(at >= self.steps) | climb.fell] = -1


class _Seats:
    """The climbs that are in the batch right now."""

    def __init__(self, arena: Arena, climb: Climb, waiting: torch.Tensor, batch: int) -> None:
        self.arena, self.climb, self.batch, self.waiting = arena, climb, batch, waiting
        self.hit = torch.zeros(len(arena.clean), dtype=torch.bool)
        """Examples of which some point looked fooled: their other climbs wait for the arena's word."""
        space: Any = arena.space
        self.space = space
        self.flat = isinstance(space, Ball) and space.norm == "Linf"
        self.who = waiting[:0]
        self.points = self.clean = self.lower = self.upper = self.before = climb.points[:0]

    def fill(self) -> bool:
        """Seats those who wait; whether anybody sits."""
        self.waiting = self.waiting[~self.hit[self.climb.rows[self.waiting]]]
        free = self.batch - len(self.who)
        if free and len(self.waiting):
            new, self.waiting = self.waiting[:free], self.waiting[free:]
            clean = self.arena.clean[self.climb.rows[new]]
            self.who = torch.cat([self.who, new])
            self.points = torch.cat([self.points, self.climb.points[new]])
            self.clean = torch.cat([self.clean, clean])
            if self.flat:
                lower, upper = self._limits(clean, self.climb.rows[new])
                self.lower, self.upper = torch.cat([self.lower, lower]), torch.cat([self.upper, upper])
        return len(self.who) > 0

    def _limits(self, clean: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Bounds of every element; of small arenas once for all, since they are found in float64."""
        if self.arena.clean.numel() > KEPT:
            lower, upper = self.space.limits(clean)
        else:
            if self.arena.limits is None:
                self.arena.limits = self.space.limits(self.arena.clean)
            lower, upper = (bound[rows] for bound in self.arena.limits)
        return lower, upper

    def step(self, gradient: torch.Tensor, sizes: torch.Tensor) -> None:
        """One step up from every seat.

        Linf: the sign of the gradient, ``sizes`` in budgets. Others: that share of the way to where a linear loss would
        be largest (Frank & Wolfe 1956; Chen et al. 2020, arXiv 1811.10828). On sparse balls projected steps along the
        gradient get hardly anywhere: of 300 MNIST digits in L1, 188 stood where 93 do (``benchmarks/README.md``).
        """
        self.before = self.points
        value = torch.nan_to_num(gradient.to(self.points.dtype), nan=0.0, posinf=0.0, neginf=0.0)
        if self.flat:
            unit = torch.as_tensor(self.space.unit, dtype=value.dtype)
            lengths = (sizes * self.space.eps).to(value.dtype).reshape(-1, *[1] * (value.ndim - 1))
            moved = value.sign_().mul_(unit * lengths).add_(self.points)
            self.points = torch.minimum(torch.maximum(moved, self.lower), self.upper)
            return
        share = sizes.clamp(max=1.0).reshape(-1, *[1] * (value.ndim - 1))
        moved = self.points.double() + share * (self._vertex(value).double() - self.points.double())
        self.points = self.space.project(self.clean, moved)

    def _vertex(self, gradient: torch.Tensor) -> torch.Tensor:
        """The point of the space at which a loss that is linear, with this gradient, is largest.

        Where one arrives from infinitely far along the gradient. Where it is zero, the point itself.
        """
        unit = torch.as_tensor(self.space.unit, dtype=torch.float64)
        wide = gradient.double()
        largest = wide.abs().flatten(1).amax(dim=1).reshape(-1, *[1] * (wide.ndim - 1))
        far = self.clean.double() + wide / largest.clamp_min(torch.finfo(torch.float64).tiny) * unit.square() * FAR
        found: torch.Tensor = self.space.project(self.clean, torch.where(largest > 0, far, self.points.double()))
        return found

    def leave(self, fooled: torch.Tensor, gone: torch.Tensor) -> None:
        """Frees the seats of those who are ``gone``, and of other climbs of the examples that look ``fooled``."""
        if not gone.any():
            return
        rows = self.climb.rows[self.who]
        self.hit[rows[fooled]] = True
        self.climb.points[self.who[fooled]] = self.before[fooled]
        moved = (gone | self.hit[rows]) & ~fooled
        self.climb.points[self.who[moved]] = self.points[moved]
        stay = ~(moved | fooled)
        self.who, self.points, self.clean = self.who[stay], self.points[stay], self.clean[stay]
        if self.flat:
            self.lower, self.upper = self.lower[stay], self.upper[stay]


def sized(victim: Victim) -> list[Victim]:
    """The victim with smaller batches too, smallest first: where nobody waits, padding would be most of a whole one."""
    sizes = sorted({-(-victim.batch * part // PARTS) for part in range(1, PARTS + 1)})
    return [victim if size == victim.batch else dataclasses.replace(victim, batch=size) for size in sizes]


def fitting(victims: list[Victim], n: int) -> Victim:
    """Of :func:`sized` victims the one with the smallest batch that seats ``n``."""
    return next(victim for victim in victims if victim.batch >= n)


def filled(values: torch.Tensor, n: int) -> torch.Tensor:
    """``values`` with the last one repeated, as the victim fills up its batches."""
    return values if len(values) == n else torch.cat([values, values[-1:].expand(n - len(values))])
