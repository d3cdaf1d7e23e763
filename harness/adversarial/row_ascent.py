"""Gradient ascent on rows of a table: numbers by projected steps, choices by what their change gains for its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pruneproof.adversarial.arena import Arena, Stage
from pruneproof.adversarial.margin import cross_entropy, margin
from pruneproof.adversarial.repair import Proposal, Repairs
from pruneproof.adversarial.row_steps import chained, farthest
from pruneproof.adversarial.rows import RowSpace
from pruneproof.adversarial.victim import Loss, Victim
from pruneproof.errors import MeasurementError, SubjectError

RIVALS = 3
"""Wrong classes that restarts aim at in turn, the strongest first."""


@dataclass(eq=False)
class _Climb:
    """Where the rows of one restart are.

    Args:
        rows: ``(m,)`` of the arena.
        at: their changes; numbers are carried on unrounded, since steps may be smaller than a whole unit.
    """

    rows: torch.Tensor
    at: Proposal

    def keep(self, which: torch.Tensor) -> None:
        self.rows, self.at = self.rows[which], self.at.at(which)


class RowAscent:
    """The ascent on all victims of an arena.

    The first run starts at the clean row with a step to the best point of the linear model there, which is exact for
    linear models; further ones start at random valid rows, the same for every victim. Gradients are taken at valid
    rows, so that what is proposed is what was seen.

    Args:
        arena: whose space is a :class:`~pruneproof.adversarial.rows.RowSpace`.
        steps: gradients a run and example.
        restarts: runs after the first one, each on what stands then.

    Raises:
        SubjectError: the space is another one.
        MeasurementError: the rows are integers, of which there is no gradient.
    """

    def __init__(self, arena: Arena, steps: int, restarts: int) -> None:
        self.arena, self.steps, self.restarts = arena, steps, restarts
        self.space = row_space(arena)
        if not arena.clean.is_floating_point():
            raise MeasurementError(f"rows of {arena.clean.dtype} have no gradient", "use table_search")
        self.repairs: Repairs = self.space.repairs

    def run(self) -> None:
        """Every victim: what fooled others, then its own runs; at the end everything on everybody."""
        self.arena.shared(self.climb)

    def climb(self, victim: Victim) -> None:
        """All runs on one victim, which is in evaluation mode."""
        for run in range(self.restarts + 1):
            rows = self.arena.rows(victim)
            if len(rows):
                name = "gradient" if run == 0 else f"gradient, restart {run}"
                with self.arena.stage(name, victim, len(rows)) as stage:
                    self._run(victim, stage, rows, run)

    def _run(self, victim: Victim, stage: Stage, rows: torch.Tensor, run: int) -> None:
        climb = self._begun(rows, run)
        loss = self._loss(run)
        generator = self.arena.generator("table_gradient", "steps", run)
        for step in range(self.steps):
            length = (1 + math.cos(math.pi * step / self.steps)) / 2
            draws = torch.rand(len(self.arena.clean), climb.at.picks.shape[1], generator=generator)
            points = self.repairs.settle(climb.at)
            found = victim.gradient(points, climb.rows, loss, self.arena.aim)
            hit = found.fooled.cpu()
            if bool(hit.any()):
                hit[hit.clone()] = self.arena.submit(victim, stage, climb.rows[hit], points[hit])
            stands = ~hit
            points, value = points[stands], found.value.cpu()[stands]
            climb.keep(stands)
            if not len(climb.rows):
                return
            slope = chained(self.space.layout, points, climb.at.clean, value)
            self._step(climb, farthest(self.repairs, points, climb.at.clean, slope), length, draws[climb.rows])
        points = self.repairs.settle(climb.at)
        self.arena.submit(victim, stage, climb.rows, points)

    def _begun(self, rows: torch.Tensor, run: int) -> _Climb:
        clean = self.arena.clean
        if run == 0:
            return _Climb(rows, self.repairs.proposal(clean[rows], clean[rows]))
        points = self.space.start(clean, self.arena.generator("table_gradient", "start", run))
        return _Climb(rows, self.repairs.proposal(clean[rows], points[rows]))

    def _step(self, climb: _Climb, best: Proposal, length: float, draws: torch.Tensor) -> None:
        """Moves by ``length`` of the way that the best point is off the clean row; each choice with that chance."""
        picks = torch.where(draws < length, best.picks, climb.at.picks)
        asked = Proposal(climb.at.clean, climb.at.moves + length * best.moves, picks)
        picks, rest = self.repairs.afford(asked)
        climb.at = Proposal(climb.at.clean, self.repairs.project(asked.clean, asked.moves, rest), picks)

    def _loss(self, run: int) -> Loss:
        """The margin, then cross-entropy, then the lead of single wrong classes in turn."""
        if run == 0:
            return margin(self.arena.aim)
        if run % 2 or self.arena.aim is not None:
            return cross_entropy(self.arena.aim) if run % 2 else margin(self.arena.aim)
        return rival(run // 2 % RIVALS)


def rival(rank: int) -> Loss:
    """The lead of the wrong class of that rank by its score over the target; of few classes the last one there is."""

    def loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wanted = targets.long()[:, None]
        own = scores.gather(1, wanted)[:, 0]
        others = scores.scatter(1, wanted, float("-inf")).sort(dim=1, descending=True).values
        return others[:, min(rank, scores.shape[1] - 2)] - own

    return loss


def row_space(arena: Arena) -> RowSpace:
    """The arena's space, which is one of rows.

    Raises:
        SubjectError: it is not.
    """
    if not isinstance(arena.space, RowSpace):
        raise SubjectError(
            f"attacks on tables need a RowSpace, not {type(arena.space).__name__}",
            "state Subject(domain=Table(…))",
        )
    return arena.space
