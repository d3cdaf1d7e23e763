"""Floating point arithmetic without tolerance: exact comparisons, and rounding to a chosen side."""

from __future__ import annotations

import torch


def beyond(center: torch.Tensor, points: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Whether ``|points - center| > radius``, exactly: the difference with its rounding error (Knuth's two-sum)."""
    rough = points - center
    back = rough + center
    error = (points - back) - (center - (back - rough))
    sign = rough.sign()
    edge = (rough.abs() == radius) & (sign * error <= 0)
    return torch.logical_not((rough.abs() < radius) | edge)


def toward(clean: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """``clean + change`` in ``clean``'s dtype, rounded towards ``clean``, exactly."""
    center = clean.double()
    found = (center + change).to(clean.dtype)
    for _ in range(2):  # one for the sum in float64, one for the dtype
        found = torch.where(beyond(center, found.double(), change.abs()), _next(found, clean), found)
    return found


def inward(bound: torch.Tensor, dtype: torch.dtype, *, up: bool) -> torch.Tensor:
    """The representable number nearest to ``bound`` on the inner side."""
    found = bound.to(dtype)
    outside = found.double() < bound if up else found.double() > bound
    return torch.where(outside, _next(found, torch.full_like(found, torch.inf if up else -torch.inf)), found)


def _next(values: torch.Tensor, towards: torch.Tensor) -> torch.Tensor:
    """``torch.nextafter``, also where it knows no float16: bit patterns of one sign are in order."""
    if values.dtype != torch.float16:
        return torch.nextafter(values, towards)
    bits = values.contiguous().view(torch.int16)
    grows = (towards > values) == (values > 0)
    stepped = torch.where(grows, bits + 1, bits - 1).view(torch.float16)
    smallest = torch.copysign(torch.full_like(values, 2**-24), towards)
    stepped = torch.where(values == 0, smallest, stepped)
    return torch.where(values == towards, values, stepped)
