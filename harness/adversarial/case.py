"""One attack on one variant under examination: what every strength check's experiment starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pydantic import BaseModel

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.checks import Observation
from pruneproof.adversarial.space import Space
from pruneproof.adversarial.victim import Victim, Work
from pruneproof.adversarial.watching import Seen
from pruneproof.attacks import Attack

NEAREST = frozenset({"CW", "DeepFool", "EADL1", "EADEN", "FAB", "JSMA", "SparseFool"})
"""Look for the nearest point that fools, however far it is."""


ODD = 0.05
"""Share of all examples, estimated from some, from which the rest is looked at too."""


class Trial(Protocol):
    """Builds a fresh arena on some examples of the shard that is examined."""

    def __call__(
        self, victims: Sequence[Victim], rows: torch.Tensor, space: Space | None = None, seed: int | None = None
    ) -> Arena:
        """An arena whose examples are those at ``rows`` of the shard, in their order; its victims are ``victims``, cut
        to them. ``space``: in the place of the policy's. The same ``seed`` gives the same random numbers."""


@dataclass(frozen=True, eq=False)
class Case:
    """What every experiment needs.

    Args:
        arena: after the attack.
        rows: ``(n,)`` of the shard: examples that the victim gets right, on which the attack is repeated.
        base: the attack repeated on ``rows``, by this victim alone.
        seen: what it asked of the victim there.
    """

    attack: Attack
    options: BaseModel
    trial: Trial
    arena: Arena
    victim: Victim
    seed: int
    rows: torch.Tensor
    base: Arena
    seen: Seen

    @property
    def space(self) -> Space:
        """What the attacker may do, by the policy."""
        return self.base.space

    @property
    def watched(self) -> Victim:
        """The victim, cut to :attr:`rows`."""
        return self.base.victims[0]

    @property
    def stood(self) -> torch.Tensor:
        """``(n,)`` booleans."""
        return self.base.standing[0]

    def again(
        self, places: torch.Tensor, options: BaseModel, space: Space | None = None, seed: int | None = None
    ) -> torch.Tensor:
        """``(m,)`` booleans of who stands when the attack is repeated at ``places``, positions in :attr:`rows`."""
        arena = self.afresh(self.rows[places], space, seed)
        if len(places):
            self.attack.run(arena, options)
        return arena.standing[0]

    def afresh(self, rows: torch.Tensor, space: Space | None = None, seed: int | None = None) -> Arena:
        """An arena of the victim alone, at ``rows`` of the shard."""
        return lean(self.trial([self.victim], rows, space=space, seed=seed))

    def drawn(self, places: torch.Tensor, most: int, *key: object) -> torch.Tensor:
        """At most ``most`` of ``places``, at random, ascending."""
        generator = self.arena.generator("strength", self.seed, self.victim.name, *key)
        return places[torch.randperm(len(places), generator=generator)[:most]].sort().values


def trials(arena: Arena, space: Space | None = None) -> Trial:
    """Trials on the examples of ``arena``, within ``space`` (default: the arena's)."""
    usual = arena.space if space is None else space

    def trial(
        victims: Sequence[Victim], rows: torch.Tensor, space: Space | None = None, seed: int | None = None
    ) -> Arena:
        some = [cut(victim, rows) for victim in victims]
        drawn = int(torch.randint(2**62, (1,), generator=arena.generator("trial", seed)))
        return Arena(some, arena.clean[rows], usual if space is None else space, drawn, aim=arena.aim)

    return trial


def lean(arena: Arena) -> Arena:
    """The arena, its victims with batches no larger than it: passes are padded to them."""
    most = max(1, len(arena.clean))
    arena.victims = tuple(dataclasses.replace(victim, batch=min(victim.batch, most)) for victim in arena.victims)
    return arena


def cut(victim: Victim, rows: torch.Tensor) -> Victim:
    """The victim on some of its examples alone, with its own account of work."""

    def inputs(points: torch.Tensor, these: torch.Tensor) -> Any:
        return victim.inputs(points, rows[these])

    cheaper, approximate = victim.approximate, None
    if cheaper is not None:

        def approximate(points: torch.Tensor, these: torch.Tensor) -> Any:
            return cheaper(points, rows[these])

    changes: dict[str, Any] = {"targets": victim.targets[rows], "inputs": inputs, "approximate": approximate}
    return dataclasses.replace(victim, **changes, work=Work())


def share(fell: int, tested: int, stood: int, examples: int) -> float:
    """The share of all examples that would fall, had all that ``stood`` been looked at and not ``tested`` of them."""
    return fell / max(1, tested) * stood / max(1, examples)


def without(name: str, why: str) -> Observation:
    """A check that says nothing here, and why."""
    return Observation(name, {}, why)


def widest(ball: Ball, clean: torch.Tensor) -> float:
    """The ε at which the ball holds the whole box, around any point of it."""
    low, high, unit = (torch.as_tensor(part, dtype=torch.float64) for part in (ball.low, ball.high, ball.unit))
    widths = ((high - low) / unit).expand(clean.shape[1:])
    if ball.norm == "L0":
        return float(widths.numel())
    if ball.norm == "Linf":
        return float(widths.max())
    return float(widths.sum() if ball.norm == "L1" else widths.square().sum().sqrt())


def budget(space: Space) -> float:
    """The space's ε, in its unit."""
    return float(space.describe()["eps"])


def class_count(case: Case) -> int:
    """How many scores the victim gives, one logit counted as two."""
    with torch.no_grad():
        row = torch.zeros(1, dtype=torch.int64)
        found = case.victim.scores(case.arena.clean[:1], row)
    return int(found.shape[1])
