"""What a corruption may know of a subject's inputs: their shape and range, and what they look like when clean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from pruneproof import domain
from pruneproof.corruptions import Kind


@dataclass(frozen=True, eq=False)
class Ground:
    """The inputs that are corrupted.

    Args:
        kind: ``"image"`` ``(channels, height, width)`` and ``"signal"`` ``(samples,)`` or ``(channels, samples)`` of a
            ``Box``; ``"table"`` ``(columns,)``; ``"tokens"`` ``(length,)``.
        shape: of one example.
        dtype: of the examples.
        domain: that the subject states, or ``Box`` of the policy's bounds.
        reference: ``(m, …)`` clean examples to take spreads, quantiles and categories from: calibration examples where
            there are any, else the test set's.
        test: ``(n, …)`` the whole test set, of tables; ``None`` else.
        missing: whether the model deals with NaN.
        classes: names of the classes, in the order of their indices; empty for regression.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype
    domain: domain.Box | domain.Table | domain.Tokens
    reference: torch.Tensor
    test: torch.Tensor | None = None
    missing: bool = False
    classes: tuple[str, ...] = ()

    @cached_property
    def low(self) -> torch.Tensor:
        """Lower bounds of a box, float64, of a shape that broadcasts to one example."""
        return _bound(self.domain, "low")

    @cached_property
    def high(self) -> torch.Tensor:
        """Upper bounds of a box, as :attr:`low`."""
        return _bound(self.domain, "high")

    def to_unit(self, examples: torch.Tensor) -> torch.Tensor:
        """``examples`` of a box in [0, 1], float32, or float64 where they are."""
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        return ((examples.double() - self.low) / (self.high - self.low)).clamp_(0, 1).to(wide)

    def from_unit(self, unit: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """The examples of the box that ``unit`` in [0, 1] stands for, in its dtype; whole numbers are rounded.

        What ``unit`` leaves as ``to_unit(clean)`` has it keeps its clean bytes.
        """
        wide = unit.double().clamp(0, 1) * (self.high - self.low) + self.low
        wide = torch.minimum(torch.maximum(wide, self.low), self.high)
        found = wide.to(self.dtype) if self.dtype.is_floating_point else wide.round().to(self.dtype)
        if self.dtype.is_floating_point:
            # Rounding to a narrower dtype may have stepped over a bound that this dtype does not hold.
            found = torch.where(found.double() > self.high, torch.nextafter(found, _toward(found, -1)), found)
            found = torch.where(found.double() < self.low, torch.nextafter(found, _toward(found, 1)), found)
        return torch.where(unit == self.to_unit(clean), clean, found)


def _bound(stated: object, name: str) -> torch.Tensor:
    if not isinstance(stated, domain.Box):
        raise TypeError(f"a {type(stated).__name__} has no bounds of every element")
    return torch.as_tensor(getattr(stated, name), dtype=torch.float64)


def _toward(values: torch.Tensor, sign: int) -> torch.Tensor:
    return torch.full_like(values, sign * float("inf"))
