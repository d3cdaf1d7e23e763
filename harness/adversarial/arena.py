"""Where all variants meet one attack: who still stands, which points count, and who is tried with them next."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from pruneproof.adversarial.space import Space
from pruneproof.adversarial.victim import Victim

CLEAN = "clean"
"""The stage at which examples fall that are wrong without any attack."""


@dataclass
class Stage:
    """What one stage of an attack did to one variant.

    Args:
        tried: examples that it was tried on.
        fell: examples of these that fell.
        refused: points that did not count: outside what the attacker may do, or not finite.
        forwards, gradients: example-passes.
    """

    name: str
    victim: str
    tried: int = 0
    fell: int = 0
    refused: int = 0
    forwards: int = 0
    gradients: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class Pool:
    """Points that fooled somebody, each of one example.

    Args:
        rows: the example of each point, a position in the arena.
        points: ``(…)`` one tensor a point.
        tried: for each victim, the points that it has been tried with.
    """

    rows: list[int] = field(default_factory=list)
    points: list[torch.Tensor] = field(default_factory=list)
    tried: dict[str, set[int]] = field(default_factory=dict)
    of: dict[int, list[int]] = field(default_factory=dict)
    """Example → its points, oldest first."""
    done: dict[str, dict[int, int]] = field(default_factory=dict)
    """For each victim, the examples all of whose points it was tried with, and how many those were."""

    def add(self, row: int, point: torch.Tensor, victim: str) -> int:
        """Keeps a point that fooled ``victim``; its number."""
        number = len(self.rows)
        self.rows.append(row)
        self.points.append(point)
        self.of.setdefault(row, []).append(number)
        self.tried.setdefault(victim, set()).add(number)
        return number

    def untried(self, victim: str, rows: Sequence[int]) -> list[int]:
        """For each of ``rows`` that has one, the newest point that ``victim`` was not tried with."""
        tried, done = self.tried.setdefault(victim, set()), self.done.setdefault(victim, {})
        found = []
        for row in rows:
            own = self.of.get(row)
            if own is None or done.get(row) == len(own):
                continue
            number = next((number for number in reversed(own) if number not in tried), None)
            if number is None:
                done[row] = len(own)
            else:
                found.append(number)
        tried.update(found)
        return found


class Arena:
    """All variants, a shard of the examples, one threat model.

    Rows are positions in the shard, ``0 … n - 1``. Everything random comes from :meth:`generator`.

    Args:
        victims: dense first; an attack takes them in this order, which does not depend on the policy's.
        clean: ``(n, …)`` inputs that are attacked.
        space: what the attacker may do.
        seed: of the audit, the attack and the shard.
        aim: the class that must not be produced, for a targeted goal; ``None``: any wrong answer counts.
        standing: ``(victims, n)`` booleans of who stands at the beginning; ``None``: every example that the clean
            forward pass gets right (with ``aim``: that is not answered by it).
        pool: points of an arena with a smaller budget, which count here too.
    """

    def __init__(
        self,
        victims: Sequence[Victim],
        clean: torch.Tensor,
        space: Space,
        seed: int,
        aim: int | None = None,
        standing: torch.Tensor | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.victims = tuple(victims)
        self.clean = clean
        self.space = space
        self.seed = seed
        self.aim = aim
        self.pool = Pool() if pool is None else pool
        self.stages: list[Stage] = []
        self.queries: dict[str, torch.Tensor] = {}
        """Victim → ``(n,)`` scores asked for until each example fell, else NaN; of attacks that count them."""
        n = len(clean)
        self._place = {victim.name: place for place, victim in enumerate(self.victims)}
        self.standing = torch.ones(len(self.victims), n, dtype=torch.bool)
        self.fell_at = torch.full((len(self.victims), n), -1, dtype=torch.int64)
        """The stage, a position in :attr:`stages`, at which each example fell; -1 while it stands."""
        self.fell_by = torch.full((len(self.victims), n), -1, dtype=torch.int64)
        """The point of the pool that it fell by; -1 where there is none."""
        self._leads: dict[str, torch.Tensor] = {}
        self.limits: tuple[torch.Tensor, torch.Tensor] | None = None
        """Bounds of every element of the clean examples, where an attack keeps them."""
        if standing is not None:
            self.standing &= standing
            return
        every = torch.arange(n)
        for victim in self.victims:
            with self.stage(CLEAN, victim, n) as stage:
                wrong, self._leads[victim.name] = victim.judged(clean, every, aim)
                self._fall(victim, stage, every[wrong])

    def clean_lead(self, victim: Victim) -> torch.Tensor:
        """``(n,)`` float64 leads of the wrong answer at the clean examples; NaN with a criterion."""
        if victim.name not in self._leads:
            self._leads[victim.name] = victim.judged(self.clean, torch.arange(len(self.clean)), self.aim)[1]
        return self._leads[victim.name]

    def generator(self, *key: object) -> torch.Generator:
        """A generator of its own for ``key``, the same whatever else was drawn before."""
        digest = hashlib.sha256(repr((self.seed, *key)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def rows(self, victim: Victim) -> torch.Tensor:
        """Rows at which ``victim`` still stands, ascending."""
        return self.standing[self._place[victim.name]].nonzero().flatten()

    def stage(self, name: str, victim: Victim, tried: int) -> _Timed:
        """A context that records what a stage of the attack costs and yields; submit inside it."""
        self.stages.append(Stage(name, victim.name, tried))
        return _Timed(self.stages[-1], victim)

    def shared(self, fight: Callable[[Victim], None]) -> None:
        """Every victim, all of them in evaluation mode: what fooled others, then ``fight``; at the end every point on
        everybody."""
        with contextlib.ExitStack() as still:
            for victim in self.victims:
                still.enter_context(victim.attacked())
            for victim in self.victims:
                self.replay("replay", [victim])
                fight(victim)
            self.replay("closure")

    def submit(self, victim: Victim, stage: Stage, rows: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Proposes ``points`` for ``rows``; ``(n,)`` booleans of those that count.

        A point counts when it is finite, inside the space, and fools the model itself in a forward pass of its own.
        Rows that have fallen before are left alone.
        """
        points = points.detach().to(self.clean.dtype)
        place = self._place[victim.name]
        elements = math.prod(points.shape[1:])
        whole = points.isfinite().reshape(len(points), elements).all(dim=1) if points.is_floating_point() else None
        clean = self.clean[rows]
        allowed = self.space.contains(clean, points)
        if whole is not None:
            allowed &= whole
        stage.refused += int((~allowed).sum())
        fair = allowed & self.standing[place, rows]
        counts = torch.zeros(len(rows), dtype=torch.bool)
        if fair.any():
            counts[fair] = victim.fooled(points[fair], rows[fair], self.aim)
        self._fall(victim, stage, rows[counts], points[counts])
        return counts

    def replay(self, name: str, victims: Sequence[Victim] | None = None) -> None:
        """Tries every point of the pool on every victim that stands at its example and was not tried with it."""
        for victim in self.victims if victims is None else victims:
            with self.stage(name, victim, 0) as stage:
                while numbers := self.pool.untried(victim.name, self.rows(victim).tolist()):
                    stage.tried += len(numbers)
                    rows = torch.tensor([self.pool.rows[number] for number in numbers])
                    points = torch.stack([self.pool.points[number] for number in numbers])
                    counts = victim.fooled(points, rows, self.aim)
                    fell = counts.nonzero().flatten().tolist()
                    place = self._place[victim.name]
                    self._fall(victim, stage, rows[counts])
                    for position in fell:
                        self.fell_by[place, rows[position]] = numbers[position]

    def _fall(self, victim: Victim, stage: Stage, rows: torch.Tensor, points: torch.Tensor | None = None) -> None:
        place = self._place[victim.name]
        self.standing[place, rows] = False
        self.fell_at[place, rows] = len(self.stages) - 1
        stage.fell += len(rows)
        if points is not None:
            for row, point in zip(rows.tolist(), points.clone(), strict=True):
                self.fell_by[place, row] = self.pool.add(row, point, victim.name)


class _Timed:
    """Adds a victim's work and the time that passed to a stage."""

    def __init__(self, stage: Stage, victim: Victim) -> None:
        self._stage, self._victim = stage, victim

    def __enter__(self) -> Stage:
        self._before = (self._victim.work.forwards, self._victim.work.gradients, time.perf_counter())
        return self._stage

    def __exit__(self, *error: object) -> None:
        forwards, gradients, moment = self._before
        self._stage.forwards += self._victim.work.forwards - forwards
        self._stage.gradients += self._victim.work.gradients - gradients
        self._stage.seconds += time.perf_counter() - moment
