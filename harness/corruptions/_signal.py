"""What the corruptions of signals have in common: they see ``(n, channels, samples)`` float64, and what they give back
is put in the range and type of the data.

Everything is done sample by sample or in a fixed order of additions, so that the bytes do not depend on the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Kind
from pruneproof.tables import Record

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground


class Options(Record):
    """No keys of its own."""


class OnSignals:
    """Corrupts ``(samples,)`` or ``(channels, samples)`` of a :class:`~pruneproof.domain.Box`."""

    kinds: frozenset[Kind] = frozenset({"signal"})
    options: type[BaseModel] = Options

    def refuses(self, ground: Ground, options: BaseModel) -> str | None:
        """Other shapes, signals of one sample, and what :meth:`unfit` says."""
        if len(ground.shape) not in (1, 2):
            return f"it changes signals (samples,) or (channels, samples), not inputs {ground.shape}"
        if ground.shape[-1] < 2:
            return f"signals {ground.shape} have fewer than two samples"
        return self.unfit(ground, options)

    def unfit(self, ground: Ground, options: BaseModel) -> str | None:
        """Why it cannot be applied; ``None``: it can."""
        return None

    def apply(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        """``(n, …)`` signals."""
        import torch

        if severity == 0:
            return clean.clone()
        wide = clean.double().reshape(len(clean), -1, clean.shape[-1])
        found = self.changed(wide, ground, severity, draws, options).reshape(clean.shape)
        same = found == clean.double()
        found = torch.minimum(torch.maximum(found, ground.low), ground.high)
        return torch.where(same, clean, narrowed(found, ground))

    def changed(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        """``(n, channels, samples)`` float64, of ``clean``, which is as wide and may be out of range."""
        raise NotImplementedError


def narrowed(found: torch.Tensor, ground: Ground) -> torch.Tensor:
    """``found``, float64 within the bounds, in the data's dtype and still within; whole numbers are rounded."""
    import torch

    if not ground.dtype.is_floating_point:
        return torch.minimum(torch.maximum(found.round(), ground.low.ceil()), ground.high.floor()).to(ground.dtype)
    narrow = found.to(ground.dtype)
    # Rounding may have stepped over a bound that this dtype does not hold: then toward the inside.
    return torch.where(
        narrow.double() > ground.high,
        _next(narrow, -1),
        torch.where(narrow.double() < ground.low, _next(narrow, 1), narrow),
    )


def _next(values: torch.Tensor, sign: int) -> torch.Tensor:
    """The neighbours in the dtype, toward ``sign`` times infinity; torch does not know those of 16 bits."""
    import torch

    if values.dtype in (torch.float32, torch.float64):
        return torch.nextafter(values, torch.full_like(values, sign * torch.inf))
    bits = values.view(torch.int16)
    around_zero = torch.full_like(bits, 1 if sign > 0 else -(2**15) + 1)
    step = torch.where(values > 0, sign, -sign).to(torch.int16)
    return torch.where(values == 0, around_zero, bits + step).view(values.dtype)


def added(values: torch.Tensor) -> torch.Tensor:
    """``(…, 1)``: the sum over the last axis, by halves: in one order, whatever the batch and the threads."""
    import torch

    while values.shape[-1] > 1:
        if values.shape[-1] % 2:
            values = torch.nn.functional.pad(values, (0, 1))
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return values


def centre(values: torch.Tensor) -> torch.Tensor:
    """``(…, 1)``: the mean over the samples."""
    return added(values) / values.shape[-1]


def swing(values: torch.Tensor) -> torch.Tensor:
    """``(…, 1)``: from the lowest to the highest sample."""
    return values.amax(dim=-1, keepdim=True) - values.amin(dim=-1, keepdim=True)


def interpolated(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """``values (n, channels, samples)`` at ``positions (samples,)`` or ``(n, 1, samples)``, linear between samples,
    held beyond the ends."""
    last = values.shape[-1] - 1
    inside = positions.clamp(0, last)
    below = inside.floor().long().clamp(max=max(last - 1, 0))
    part = inside - below
    shape = (*values.shape[:2], positions.shape[-1])
    left = values.gather(-1, below.expand(shape))
    return left + part * (values.gather(-1, (below + 1).clamp(max=last).expand(shape)) - left)
