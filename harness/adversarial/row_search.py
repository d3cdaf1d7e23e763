"""Search on rows of a table by the model's scores alone: all of them where they are few, evolution where not."""

from __future__ import annotations

import math

import torch

from pruneproof.adversarial.arena import Arena, Stage
from pruneproof.adversarial.margin import margin
from pruneproof.adversarial.row_ascent import row_space
from pruneproof.adversarial.row_breeding import Breeding, kept
from pruneproof.adversarial.row_listing import listed
from pruneproof.adversarial.victim import Victim

PARENTS = 8
"""Rows that are kept of each example."""
CHILDREN = 24
"""Rows that are tried of each example a generation."""
AT_ONCE = 2**14
"""Rows of the table in one pass over the examples: memory does not grow with their number."""


class RowSearch:
    """The search on all victims of an arena.

    Of an example that has no more than ``queries`` valid rows within the budget all are tried, so that what stands is
    robust for certain. Of the others first each number is moved as far as it goes and each choice changed, one at a
    time; then a (μ+λ) evolution goes on from the best, with repair of every child.

    Args:
        arena: whose space is a :class:`~pruneproof.adversarial.rows.RowSpace`.
        queries: scores asked for, of each example that stands; points of other victims are not among them.

    Raises:
        SubjectError: the space is another one.
    """

    def __init__(self, arena: Arena, queries: int) -> None:
        self.arena, self.queries = arena, queries
        self.space = row_space(arena)
        self.loss = margin(arena.aim)

    def run(self) -> None:
        """Every victim: what fooled others, then its own search; at the end everything on everybody."""
        self.arena.shared(self.search)

    def search(self, victim: Victim) -> None:
        """All of it on one victim, which is in evaluation mode; ``arena.queries`` says what each example took."""
        n = len(self.arena.clean)
        self.arena.queries.setdefault(victim.name, torch.full((n,), float("nan")))
        rows = self.arena.rows(victim)
        with self.arena.stage("every valid row", victim, 0) as stage:
            many = rows[~self._every(victim, stage, rows)]
        if len(many):
            with self.arena.stage("search", victim, len(many)) as stage:
                for part in torch.split(many, max(1, AT_ONCE // CHILDREN)):
                    self._evolve(victim, stage, part)

    def _every(self, victim: Victim, stage: Stage, rows: torch.Tensor) -> torch.Tensor:
        """``(m,)`` booleans of the rows that have few enough valid ones around them; all of these are tried."""
        few = torch.zeros(len(rows), dtype=torch.bool)
        waiting: list[tuple[int, torch.Tensor]] = []
        for place, row in enumerate(rows.tolist()):
            points = listed(self.space, self.arena.clean[row], self.queries)
            few[place] = points is not None
            if points is not None and len(points):
                waiting.append((row, points))
            if sum(len(one) for _, one in waiting) >= AT_ONCE:
                self._tried(victim, stage, waiting)
                waiting = []
        stage.tried = int(few.sum())
        self._tried(victim, stage, waiting)
        return few

    def _tried(self, victim: Victim, stage: Stage, waiting: list[tuple[int, torch.Tensor]]) -> None:
        if not waiting:
            return
        rows = torch.cat([torch.full((len(points),), row) for row, points in waiting])
        order = torch.cat([torch.arange(len(points)) for _, points in waiting])
        points = torch.cat([points for _, points in waiting])
        _, hit = victim.losses(points, rows, self.loss, self.arena.aim)
        # Every hit is handed in until one counts: scores may differ in the last place from one pass to the next.
        while bool(hit.any()):
            at = hit.nonzero().flatten()
            first = at[first_of(rows[at])]
            counts = self.arena.submit(victim, stage, rows[first], points[first])
            self._count(victim, rows[first[counts]], 1 + order[first[counts]])
            hit[first] = False
            hit &= ~torch.isin(rows, rows[first[counts]])

    def _count(self, victim: Victim, rows: torch.Tensor, queries: torch.Tensor) -> None:
        self.arena.queries[victim.name][rows] = queries.float()

    def _evolve(self, victim: Victim, stage: Stage, rows: torch.Tensor) -> None:
        breeding = Breeding(self.space, len(self.arena.clean))
        clean = self.arena.clean[rows]
        tried, asked = breeding.singles(clean), 0
        pool = clean[:, None, :]
        best = torch.full((len(rows), 1), -math.inf, dtype=torch.float64)
        generation = 0
        while asked < self.queries:
            tried = tried[:, : self.queries - asked]
            stands, values = self._asked(victim, stage, rows, tried, asked)
            asked += tried.shape[1]
            rows, clean = rows[stands], clean[stands]
            if not len(rows):
                return
            born, score = tried[stands], values[stands]
            if generation == 0:
                joined = breeding.joined(clean, born, score)
            pool, best = kept(pool[stands], best[stands], born, score, PARENTS)
            generator = self.arena.generator("table_search", generation)
            tried = breeding.children(clean, rows, pool, CHILDREN, generator)
            if generation == 0:
                tried = torch.cat([joined, tried], dim=1)
            generation += 1

    def _asked(
        self, victim: Victim, stage: Stage, rows: torch.Tensor, tried: torch.Tensor, asked: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of ``tried (m, k, columns)``: who of ``rows`` still stands, and the losses ``(m, k)``."""
        m, k, width = tried.shape
        owner = rows.repeat_interleave(k)
        flat = tried.reshape(m * k, width)
        losses, hit = victim.losses(flat, owner, self.loss, self.arena.aim)
        hit = hit.reshape(m, k)
        stands = torch.ones(m, dtype=torch.bool)
        while bool(hit.any()):
            which = hit.any(dim=1).nonzero().flatten()
            place = hit[which].to(torch.int8).argmax(dim=1)
            counts = self.arena.submit(victim, stage, rows[which], tried[which, place])
            self._count(victim, rows[which[counts]], asked + 1 + place[counts])
            stands[which[counts]] = False
            hit[which, place] = False
            hit[which[counts]] = False
        return stands, losses.reshape(m, k).nan_to_num(nan=-math.inf)


def first_of(rows: torch.Tensor) -> torch.Tensor:
    """Positions at which each of ``rows``, equal ones side by side, comes first."""
    new = torch.ones(len(rows), dtype=torch.bool)
    new[1:] = rows[1:] != rows[:-1]
    return new.nonzero().flatten()
