"""Search without gradients, by the model's scores alone.

Square Attack in Linf and L2 (Andriushchenko, Croce, Flammarion & Hein 2020, arXiv 1912.00049), in L1 and L0 a random
search over single elements after Sparse-RS (Croce, Andriushchenko, Singh, Flammarion & Hein 2022, arXiv 2006.12834).
It needs no gradient, so neither masked nor missing ones mislead it; and it has a budget, as an attacker has who pays
for every answer or is locked out after too many. Each variant is attacked by itself, with the same random numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from pruneproof.attacks import Domain
from pruneproof.tables import Record

if TYPE_CHECKING:
    from pruneproof.adversarial.arena import Arena


class Options(Record):
    """The attacker's budget of queries; that of the change is the suite's ``eps``."""

    queries: int = Field(default=1000, ge=1)
    """Scores that a run asks for, of each example that stands; after the last, the example withstood it."""
    restarts: int = Field(default=1, ge=1)
    """Runs from the beginning, with other random numbers and as many queries again."""


class BlackBox:
    """Random moves, kept where they bring the model nearer to a wrong answer."""

    name = "black_box"
    options = Options
    domains: frozenset[Domain] = frozenset({"box"})
    norms = frozenset({"Linf", "L2", "L1", "L0"})
    gradients = False

    def refuses(self, shape: tuple[int, ...], classes: int) -> str | None:
        """Nothing that has an element: pictures of any size, signals, rows of numbers."""
        return None if 0 not in shape else f"inputs {shape} have no elements to change"

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena; ``arena.queries`` counts what each example took."""
        from pruneproof.adversarial.random_search import RandomSearch

        own = Options.model_validate(options.model_dump())
        RandomSearch(arena, own.queries, own.restarts).run()


ATTACK = BlackBox()
