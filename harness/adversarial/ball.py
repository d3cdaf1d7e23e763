"""Norm balls around clean examples, cut by the box of the data: what an attacker may do to numbers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from pruneproof.adversarial import projections, rounding
from pruneproof.errors import SubjectError

Norm = Literal["Linf", "L2", "L1", "L0"]
TOLERANCE = 1e-9
"""Relative, of L2 and L1 alone: their sums of up to millions of squares are rounded in float64."""
SPARSE = 0.2
"""Share of the elements that a step in L1 moves, the first one of APGD-L1."""

FAR = 1e6
"""A step without end, in multiples of the widest way that there is."""


@dataclass(frozen=True, eq=False)
class Ball:
    """Points within ``eps`` of a clean example in a norm, inside a box; a :class:`~pruneproof.adversarial.space.Space`.

    A change is measured in multiples of ``unit``, element by element: of images that were normalised with ``std``,
    ``unit = 1 / std`` states ``eps`` in pixels. Where a clean element itself lies outside the box (by the rounding of
    a normalisation; the suite refuses more than that), the box reaches to it, so that no ball is empty.

    Args:
        norm: ``"L0"`` counts elements: the three channels of one pixel are three.
        eps: at least 0, in units; of ``"L0"`` the number of elements, rounded down.
        low, high: of the data, a number or a tensor that broadcasts to one example; infinite where there is no bound.
        unit: above 0, in the units of the data, a number or a tensor that broadcasts to one example.

    Raises:
        SubjectError: a bound or unit that is not one.
    """

    norm: Norm
    eps: float
    low: torch.Tensor | float
    high: torch.Tensor | float
    unit: torch.Tensor | float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise SubjectError(f"unknown norm {self.norm!r}", f"name one of {', '.join(get_args(Norm))}")
        if not self.eps >= 0:
            raise SubjectError(f"a ball of eps {self.eps}", "give an eps of at least 0")
        unit = _wide(self.unit)
        if not bool(((unit > 0) & unit.isfinite()).all()):
            raise SubjectError("the unit of the box is not above 0 everywhere", "give Box(unit=…) finite and above 0")
        if not bool((_wide(self.low) <= _wide(self.high)).all()):
            raise SubjectError("the box ends below its beginning", "give Box(low, high) with low <= high")

    def contains(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` booleans; exact for Linf, L0 and the box, within 1e-9 of ``eps`` for L2 and L1."""
        center, wide = clean.double(), points.double()
        low, high = self._box(center)
        inside = _every((wide >= low) & (wide <= high))
        if self.norm == "Linf":
            return inside & _every(~rounding.beyond(center, wide, self._radius(center)))
        allowed = math.floor(self.eps) if self.norm == "L0" else self.eps * (1 + TOLERANCE)
        return torch.logical_and(inside, self.distance(clean, points) <= allowed)

    def distance(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` float64, in units; of L0 the number of elements that differ."""
        change = _rows((points.double() - clean.double()) / _wide(self.unit, clean))
        if self.norm == "L0":
            return (_rows(points.double()) != _rows(clean.double())).sum(dim=1).double()
        if change.shape[1] == 0:
            return change.new_zeros(len(change))
        if self.norm == "Linf":
            return change.abs().amax(dim=1)
        return projections.norm(change, 2 if self.norm == "L2" else 1)

    def limits(self, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Bounds of every element, in ``clean``'s dtype: the box, for Linf cut with the ball.

        They are rounded inward: what lies between them is inside in exact arithmetic. Of Linf they are the space.
        """
        center = clean.double()
        low, high = (bound.expand_as(center) for bound in self._box(center))
        lower, upper = rounding.inward(low, clean.dtype, up=True), rounding.inward(high, clean.dtype, up=False)
        if self.norm == "Linf":
            radius = self._radius(center)
            lower = torch.maximum(lower, rounding.toward(clean, -radius))
            upper = torch.minimum(upper, rounding.toward(clean, radius))
        return lower, upper

    def project(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """The point of the space nearest to each of ``points`` in the Euclidean distance, measured in units.

        In ``clean``'s dtype, rounded towards the clean example, so that rounding leads out of no ball. What is inside
        is left alone; NaN stays NaN: it does not count. L1 in a box: Croce & Hein 2021 (Mind the box, arXiv
        2103.01208), proposition 2.1.
        """
        lower, upper = self.limits(clean)
        if self.norm == "Linf":
            return torch.clamp(points.to(clean.dtype), lower, upper)
        center, unit = clean.double(), _wide(self.unit, clean)
        wish = _rows((points.double() - center) / unit)
        low, high = self._box(center)
        room = _rows(torch.where(_unrows(wish, clean) > 0, high - center, center - low) / unit)
        sizes = {"L2": projections.l2_sizes, "L1": projections.l1_sizes, "L0": projections.l0_sizes}[self.norm]
        size = sizes(wish.abs(), room, self.eps)
        change = _unrows(torch.copysign(size, wish), clean) * unit
        found = torch.clamp(rounding.toward(clean, change), lower, upper)
        found = torch.where(_unrows(wish, clean).isnan(), torch.nan, found)
        plain = points.to(clean.dtype)
        return torch.where(self.contains(clean, plain).reshape(-1, *[1] * (clean.ndim - 1)), plain, found)

    def extreme(self, clean: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The point of the space at which a linear function with that gradient is largest: what a step without end
        projects to, the linear oracle of Frank & Wolfe 1956. Of a linear model it is the worst there is."""
        center, unit = clean.double(), _wide(self.unit, clean)
        slope = _rows(gradient.double() * unit)
        if slope.shape[1] == 0:
            return clean.clone()
        slope = slope / slope.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        low, high = self._box(center)
        room = _rows(torch.maximum(high - center, center - low) / unit)
        far = torch.where(room.isfinite(), room, 0).amax(dim=1, keepdim=True) + self.eps
        return self.project(clean, center + _unrows(slope * far * FAR, clean) * unit)

    def step(
        self,
        gradient: torch.Tensor,
        size: float,
        *,
        sparse: float = SPARSE,
        points: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The displacement of length ``size`` (in units) along which a loss with that gradient rises most.

        Linf: the sign. L2: the normalised gradient. L1: the signs of the largest ``sparse`` of the elements, as the
        single largest one alone would be too slow (Tramèr & Boneh 2019, arXiv 1904.13000). L0: the gradient, scaled so
        that ``size`` elements' worth of the box's width is moved in all; :meth:`project` keeps the largest (Croce &
        Hein 2019, arXiv 1909.05040). No step where the gradient is zero.

        ``points``: where the gradients were taken: elements that the box lets go no further are left out, so that none
        of the length is spent on them.
        """
        unit = self._width(gradient) if self.norm == "L0" else _wide(self.unit, gradient)
        slope = gradient.double() * unit
        if self.norm == "Linf":
            return (slope.sign() * unit * size).to(gradient.dtype)
        if points is not None:
            edge = torch.where(slope > 0, _wide(self.high, points), _wide(self.low, points))
            slope = torch.where((points.double() - edge) * slope.sign() < 0, slope, 0)
        rows = _rows(slope)
        if rows.shape[1]:
            # the largest first, so that squares of tiny gradients do not vanish
            rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
            if self.norm == "L1":
                rows = rows.sign() * projections.largest(rows.abs(), max(1, round(sparse * rows.shape[1])))
            order = 2 if self.norm == "L2" else 1
            rows = rows / projections.norm(rows, order)[:, None].clamp_min(1e-300)
        return (_unrows(rows, gradient) * unit * size).to(gradient.dtype)

    def start(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Uniform in the ball, then moved into the box; of L0 ``eps`` random elements, uniform in the box.

        Every example takes the same number of draws, in its turn: what it gets does not depend on those behind it.
        L2: a normal direction, radius ``u ** (1 / d)`` (Muller 1959); L1: exponential spacings with random signs.
        """
        center, elements = clean.double(), math.prod(clean.shape[1:])
        size = {"Linf": elements, "L2": elements + 1, "L1": 2 * elements + 1, "L0": 2 * elements}[self.norm]
        draws = torch.rand(len(clean), size, dtype=torch.float64, generator=generator).to(clean.device)
        draws = draws.clamp_min(2**-54)  # of 0 logarithm and normal quantile are infinite; 1 is never drawn
        first, second, last = draws[:, :elements], draws[:, elements : 2 * elements], draws[:, -1:]
        if self.norm == "L0":
            return self._scattered(clean, _unrows(first, clean), second)
        if self.norm == "Linf":
            change = 2 * first - 1
        elif self.norm == "L2":
            normal = torch.special.ndtri(first)
            change = normal / projections.norm(normal, 2)[:, None] * last ** (1 / max(1, elements))
        else:
            spacing = -torch.log(first)
            share = spacing / (spacing.sum(dim=1, keepdim=True) - torch.log(last))
            change = torch.where(second < 0.5, -share, share)
        # a radius without end: from an infinite ball nobody can draw, the largest float stands in its place
        radius = min(self.eps, torch.finfo(torch.float32).max) * _wide(self.unit, center)
        return torch.clamp(rounding.toward(clean, _unrows(change, clean) * radius), *self.limits(clean))

    def at(self, eps: float) -> Ball:
        """The same ball with another ``eps``."""
        return dataclasses.replace(self, eps=eps)

    def describe(self) -> dict[str, Any]:
        """Norm, eps, bounds and unit; ``None`` for a bound that is infinite, the ends for more than 16 numbers."""
        plain = {"low": _plain(self.low), "high": _plain(self.high), "unit": _plain(self.unit)}
        return {"norm": self.norm, "eps": float(self.eps), **plain}

    def shown(self, clean: torch.Tensor, point: torch.Tensor) -> str:
        """Nothing: numbers of a signal are shown as pictures."""
        return ""

    def width(self) -> torch.Tensor:
        """Of the box, in the units of the data, float64; infinite where it has no end."""
        return _wide(self.high) - _wide(self.low)

    def evenness(self) -> float | None:
        """How many units wide the box is, if equally many everywhere; ``None`` if not. Elements that it fixes aside."""
        units = self.width() / _wide(self.unit)
        units = units[units > 0]
        if units.numel() == 0:
            return 1.0
        widest = float(units.max())
        return widest if math.isfinite(widest) and float(units.min()) >= widest * (1 - 1e-6) else None

    def _radius(self, center: torch.Tensor) -> torch.Tensor:
        return (self.eps * _wide(self.unit, center)).expand_as(center)

    def _box(self, center: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.minimum(_wide(self.low, center), center), torch.maximum(_wide(self.high, center), center)

    def _width(self, like: torch.Tensor) -> torch.Tensor:
        """Of the box; where that is infinite, of one unit to either side."""
        width = self.width().to(like.device)
        return torch.where(width.isfinite(), width, 2 * _wide(self.unit, like))

    def _scattered(self, clean: torch.Tensor, height: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        low, high = _wide(self.low, clean), _wide(self.high, clean)
        bounded = (high - low).isfinite()
        center, width = clean.double(), self._width(clean)
        value = torch.where(bounded, low, center - width / 2) + height * width
        chosen = _unrows(projections.largest(order, math.floor(self.eps)), clean) > 0
        moved = torch.clamp(value.to(clean.dtype), *self.limits(clean))
        return torch.where(chosen, moved, clean)


def _every(flags: torch.Tensor) -> torch.Tensor:
    return _rows(flags).all(dim=1)


def _rows(values: torch.Tensor) -> torch.Tensor:
    """``(n, elements)``, of no examples as well."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _unrows(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return rows.reshape(like.shape)


def _wide(value: torch.Tensor | float, like: torch.Tensor | None = None) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=None if like is None else like.device)


def _plain(value: torch.Tensor | float) -> Any:
    wide = _wide(value).cpu()
    if wide.numel() > 16:
        return {"min": _finite(float(wide.min())), "max": _finite(float(wide.max()))}
    if wide.ndim == 0:
        return _finite(float(wide))
    return [_plain(part) for part in wide]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
