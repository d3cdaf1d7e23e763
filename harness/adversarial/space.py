"""What an attacker may do to an example: the set of points around it that count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Space(Protocol):
    """The points that an attacker may put in the place of clean examples ``(n, …)``."""

    def contains(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` booleans, judged in float64 without any tolerance that a policy would not grant."""

    def distance(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` float64: how much of the budget each point uses, in the budget's unit."""

    def start(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Random points of the space, one an example, of the clean examples' dtype and device.

        What an example gets depends on the generator's state and the example's position alone.
        """

    def at(self, eps: float) -> Space:
        """The same space with another budget."""

    def describe(self) -> dict[str, Any]:
        """The threat model in plain values, for the evidence: norm, budget, unit, bounds."""

    def shown(self, clean: torch.Tensor, point: torch.Tensor) -> str:
        """One point as a person would read it beside the clean example (``amount 940 → 1 010``); "" for pictures."""
