"""Search without gradients: random moves, kept where they bring the model nearer to a wrong answer."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch

from pruneproof.adversarial.arena import Arena, Stage
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.draws import Draws, State
from pruneproof.adversarial.margin import margin
from pruneproof.adversarial.moves import Moves, moves
from pruneproof.adversarial.victim import Victim

CONFIRMED = 50
"""Queries after which the points found meanwhile are handed in: one at a time, each would cost a batch."""
ELEMENTS = 2**23
"""Of the examples that are searched together, if they fill a batch: half a gigabyte in L2."""


class Group(NamedTuple):
    """Examples that are searched together: ``size`` of the arena's from ``start`` on."""

    start: int
    size: int
    moves: Moves


class RandomSearch:
    """Attacks every victim of an arena through its answers alone.

    Victims get the same random numbers. The points of one are not tried on another: each has its budget of queries.

    Args:
        arena: of a :class:`~pruneproof.adversarial.ball.Ball`.
        queries: scores that each run asks for, of each example that stands.
        restarts: runs, one after the other, each on what stands then.
    """

    def __init__(self, arena: Arena, queries: int, restarts: int) -> None:
        self.arena = arena
        self.queries = queries
        self.restarts = restarts
        self.loss = margin(arena.aim)

    def run(self) -> None:
        """Attacks; ``arena.queries`` says after how many queries each example fell."""
        arena, n = self.arena, len(self.arena.clean)
        for victim in arena.victims:
            arena.queries.setdefault(victim.name, torch.full((n,), float("nan"), dtype=torch.float64))
        batch = max((victim.batch for victim in arena.victims), default=1)
        size = max(batch, ELEMENTS // max(1, math.prod(arena.clean.shape[1:])))
        for start in range(0, n, size):
            clean = arena.clean[start : start + size]
            group = Group(start, len(clean), moves(cast(Ball, arena.space), clean))
            for victim in arena.victims:
                for restart in range(self.restarts):
                    self._attack(victim, group, restart)

    def _attack(self, victim: Victim, group: Group, restart: int) -> None:
        rows = self.arena.rows(victim)
        rows = rows[(rows >= group.start) & (rows < group.start + group.size)]
        if len(rows):
            with self.arena.stage(f"black box, run {restart + 1}", victim, len(rows)) as stage:
                _Run(self, victim, stage, group, restart, rows).run()


class _Run:
    """One run on one victim: what each row is at, and who still has to be moved.

    Positions count the rows of this run, not the arena's.
    """

    def __init__(
        self, search: RandomSearch, victim: Victim, stage: Stage, group: Group, restart: int, rows: torch.Tensor
    ) -> None:
        self.search, self.victim, self.stage, self.group, self.rows = search, victim, stage, group, rows
        self.before = restart * search.queries
        self.generator = search.arena.generator("black_box", restart, group.start)
        self.best = torch.full((len(rows),), float("-inf"), dtype=torch.float64)
        self.found = torch.full((len(rows),), -1, dtype=torch.int64)
        """The query at which a row seemed to fall; -1 while it does not."""
        self.fallen = torch.zeros(len(rows), dtype=torch.bool)
        self.state: State = ()

    def run(self) -> None:
        for query in range(self.search.queries):
            moved = (self.found < 0).nonzero().flatten()
            self._ask(query, moved)
            last = query + 1 == self.search.queries or not bool((self.found < 0).any())
            if last or (query + 1) % CONFIRMED == 0:
                self._hand_in()
                if bool(self.fallen.all()):
                    return

    def _ask(self, query: int, moved: torch.Tensor) -> None:
        """One query for each of the rows at ``moved``."""
        arena, ways, rows = self.search.arena, self.group.moves, self.rows[moved]
        draws = Draws(self.generator, self.group.size, rows - self.group.start)
        if query == 0:
            self.state = tried = ways.first(draws)
        else:
            tried = ways.next(tuple(part[moved] for part in self.state), draws, query / self.search.queries)
        points = ways.points(tried, draws.rows)
        losses, hits = self.victim.losses(points, rows, self.search.loss, arena.aim)
        better = hits | (losses >= self.best[moved])
        self.best[moved[better]] = losses[better].nan_to_num(float("-inf"))
        for part, new in zip(self.state, tried, strict=True):
            part[moved[better]] = new[better]
        self.found[moved[hits]] = query

    def _hand_in(self) -> None:
        """Lets the arena judge what seemed to fool; what does not count is moved on."""
        at = ((self.found >= 0) & ~self.fallen).nonzero().flatten()
        if not len(at):
            return
        arena, rows = self.search.arena, self.rows[at]
        points = self.group.moves.points(tuple(part[at] for part in self.state), rows - self.group.start)
        counts = arena.submit(self.victim, self.stage, rows, points)
        self.fallen[at[counts]] = True
        arena.queries[self.victim.name][rows[counts]] = (self.before + 1 + self.found[at[counts]]).double()
        self.found[at[~counts]] = -1
