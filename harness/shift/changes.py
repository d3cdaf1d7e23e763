"""What can be changed about one real example, so that it stays one that could be met."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from pruneproof import domain
from pruneproof.shift.ground import Ground


class Change(NamedTuple):
    """One thing that changed, as a person reads it."""

    name: str
    before: str
    after: str


class Changes(Protocol):
    """The things that can be changed about examples ``clean (n, …)``, by number.

    How far each is changed is asked for with a number: 0 leaves it alone; of what has settings, 1 … k are the others;
    of what goes by degrees, -1 and 1 are as far down and up as it can go.
    """

    unit: str
    """What sizes are counted in."""

    @property
    def clean(self) -> torch.Tensor:
        """``(n, …)`` the examples."""

    def starts(self) -> torch.Tensor:
        """``(n,)`` booleans: the examples that are themselves within what may be changed to."""

    @property
    def most(self) -> int:
        """The largest number of settings that a thing has; 0: everything goes by degrees."""

    def settings(self, row: int) -> list[int]:
        """Of each thing about example ``row``: its number of other settings; 0: it goes by degrees; -1: it stays."""

    def built(self, row: int, asked: torch.Tensor) -> torch.Tensor:
        """``(m, …)`` examples changed as ``asked (m, things)``, made valid; the clean one where that cannot be."""

    def sizes(self, row: int, points: torch.Tensor) -> torch.Tensor:
        """``(m,)`` float64: how large the change is."""

    def rounder(self, row: int, asked: torch.Tensor, thing: int) -> list[float]:
        """Numbers to ask for in place of ``asked[thing]``, a little farther, with fewer digits; fewest first."""

    def told(self, row: int, asked: torch.Tensor, point: torch.Tensor) -> list[Change]:
        """What is different about ``point``."""

    def shown(self, row: int, asked: torch.Tensor, point: torch.Tensor) -> str:
        """The same in one line."""


def changes(ground: Ground, clean: torch.Tensor, positions: list[int], seed: int) -> Changes:
    """What can be changed about ``clean (n, …)`` on this ground.

    Args:
        positions: ``(n,)`` of the examples in their data set.
        seed: of noise.

    Raises:
        SubjectError: nothing can be, or the domain contradicts itself or the examples.
    """
    from pruneproof.shift.box_changes import BoxChanges
    from pruneproof.shift.row_changes import RowChanges
    from pruneproof.shift.token_changes import TokenChanges

    if isinstance(ground.domain, domain.Table):
        return RowChanges(ground.domain, ground.reference, clean)
    if isinstance(ground.domain, domain.Tokens):
        return TokenChanges(ground.domain, clean)
    return BoxChanges(ground, clean, positions, seed)
