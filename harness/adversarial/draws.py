"""Random numbers for a search without gradients, and the schedule by which its moves get smaller."""

from __future__ import annotations

import torch

State = tuple[torch.Tensor, ...]
"""Of some examples: what their points are made of, ``(n, …)`` each."""
SHRINKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries, those after which moves get smaller."""


class Draws:
    """Uniform random numbers for a group of examples, drawn for all of them, whoever is moved.

    Args:
        generator: their source.
        size: number of examples.
        rows: those that are moved.
    """

    def __init__(self, generator: torch.Generator, size: int, rows: torch.Tensor) -> None:
        self.generator = generator
        self.size = size
        self.rows = rows

    def uniform(self, *shape: int) -> torch.Tensor:
        """``(rows, *shape)`` in [0, 1)."""
        return torch.rand(self.size, *shape, generator=self.generator, dtype=torch.float32)[self.rows]

    def below(self, limit: int) -> torch.Tensor:
        """``(rows,)`` integers in [0, limit)."""
        return (self.uniform() * limit).long().clamp_max(limit - 1)

    def signs(self, *shape: int) -> torch.Tensor:
        """``(rows, *shape)`` of -1 and 1, in float64."""
        return torch.where(self.uniform(*shape) < 0.5, -1.0, 1.0).double()


def reached(progress: float) -> int:
    """How many of :data:`SHRINKS` lie behind, 0 to 9, when that share of the queries is spent."""
    return sum(progress * 10_000 > query for query in SHRINKS)
