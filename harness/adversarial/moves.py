"""Random moves inside a ball that a search without gradients proposes.

Every example has draws of its own, the same whoever is attacked with them and whichever other examples still stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.draws import Draws, State
from pruneproof.adversarial.spots import Spots
from pruneproof.adversarial.squares import Corners, Heaps


class Moves(Protocol):
    """How a search starts, and what it proposes next."""

    def first(self, draws: Draws) -> State:
        """A random start of each of the drawn rows."""

    def next(self, state: State, draws: Draws, progress: float) -> State:
        """A change of each row's state; ``progress`` in [0, 1) is the share of the queries that were spent."""

    def points(self, state: State, rows: torch.Tensor) -> torch.Tensor:
        """``(rows, …)`` points of the space, in the shape and dtype of the examples."""


def moves(ball: Ball, clean: torch.Tensor) -> Moves:
    """Those of the ball's norm, around the examples ``clean`` ``(n, …)``."""
    kinds: dict[str, Callable[[Ball, torch.Tensor], Moves]] = {"Linf": Corners, "L2": Heaps, "L1": Spots, "L0": Spots}
    return kinds[ball.norm](ball, clean)
