"""A victim that remembers what an attack asked of it, and answers as before."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.victim import Gradient, Loss, Victim


@dataclass
class Seen:
    """What an attack asked for, by row.

    Args:
        shape: of one example; points of another shape (moves of an embedding) are not remembered.
        last: the last point of each row.
        led: rows of which some gradient was neither zero nor broken.
        asked: rows of which a gradient was taken.
        fooled: a point of each row that fooled by the scores of the attack itself.
        taken, empty: gradients that were taken of scores alone, where the row is not known, and those that were zero or
            not finite.
    """

    shape: tuple[int, ...]
    last: dict[int, torch.Tensor] = field(default_factory=dict)
    led: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    fooled: dict[int, torch.Tensor] = field(default_factory=dict)
    taken: int = 0
    empty: int = 0
    inside: bool = False
    """Within a pass whose rows are known."""

    def remember(self, points: torch.Tensor, rows: torch.Tensor, into: dict[int, torch.Tensor]) -> None:
        if tuple(points.shape[1:]) == self.shape:
            into.update(zip(rows.tolist(), points.detach().clone(), strict=True))


@dataclass(eq=False)
class Watched(Victim):
    """A victim under observation.

    Args:
        seen: shared with the copies that an attack makes of it.
    """

    seen: Seen = field(default_factory=lambda: Seen(()))

    def fooled(self, points: torch.Tensor, rows: torch.Tensor, aim: int | None = None) -> torch.Tensor:
        self.seen.remember(points, rows, self.seen.last)
        return super().fooled(points, rows, aim)

    def gradient(self, points: torch.Tensor, rows: torch.Tensor, loss: Loss, aim: int | None = None) -> Gradient:
        self.seen.inside = True
        try:
            found = super().gradient(points, rows, loss, aim)
        finally:
            self.seen.inside = False
        self.seen.remember(points, rows, self.seen.last)
        hit = found.fooled.to(rows.device)
        self.seen.remember(points[hit.to(points.device)], rows[hit], self.seen.fooled)
        self.seen.asked.update(rows.tolist())
        self.seen.led.update(rows[~useless(found.value).to(rows.device)].tolist())
        return found

    def scores(self, points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        if self.seen.inside or not (torch.is_grad_enabled() and points.requires_grad):
            return super().scores(points, rows)
        passed = points.view_as(points)
        passed.register_hook(self._count)  # type: ignore[no-untyped-call]
        return super().scores(passed, rows)

    def _count(self, value: torch.Tensor) -> None:
        self.seen.taken += len(value)
        self.seen.empty += int(useless(value).sum())


def watch(arena: Arena, victim: str) -> Seen:
    """Has ``victim`` of an arena that no attack entered yet watched from now on."""
    seen = Seen(tuple(arena.clean.shape[1:]))

    def watched(one: Victim) -> Victim:
        if one.name != victim:
            return one
        given = {part.name: getattr(one, part.name) for part in dataclasses.fields(Victim)}
        return Watched(**given, seen=seen)

    arena.victims = tuple(watched(one) for one in arena.victims)
    return seen


def useless(values: torch.Tensor) -> torch.Tensor:
    """``(n,)`` booleans of gradients that are zero, or not finite: they lead nowhere."""
    rows = values.detach().reshape(len(values), -1)
    return (rows == 0).all(dim=1) | ~rows.isfinite().all(dim=1)
