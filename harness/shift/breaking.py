"""The smallest breaking shift: the severity of a corruption from which a model's accuracy is under a limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pruneproof.corruptions import SEVERITIES
from pruneproof.shift.formulas import ROUNDING, Weighted, Weights

Hits = NDArray[np.bool_]
RESOLUTION = 1 / 16
"""Severities; how near the two ends of the answer are brought to each other."""


class Point(NamedTuple):
    """What a model got right at one severity.

    Args:
        severity: in [0, 5].
        hits: ``(n,)`` whether each example is right.
    """

    severity: float
    hits: Hits


def absolute(minimum: float) -> Weighted:
    """The limit ``accuracy >= minimum``."""
    return lambda weights: minimum


def under(reference: Hits, drop: float) -> Weighted:
    """The limit ``accuracy >= accuracy of reference - drop``; ``reference (n,)`` whether each example was right there:
    the dense model's answers, or the model's own, on clean examples."""
    return lambda weights: _accuracy(reference, weights) - drop


@dataclass(frozen=True, eq=False)
class Breaking:
    """Where accuracy falls under a limit, with all that was looked at to find it.

    Args:
        points: by rising severity, from 0 to the highest.
        limit: under example weights.
    """

    points: tuple[Point, ...]
    limit: Weighted

    @property
    def last(self) -> float:
        """The highest severity that was looked at: what a censored answer stands for."""
        return self.points[-1].severity

    @property
    def bracket(self) -> tuple[float, float] | None:
        """The last severity before the first break at which the limit held, and that of the break: at most
        ``resolution`` apart. ``(0, 0)``: broken without any shift. ``None``: never broken."""
        first = self._first(np.ones(len(self.points[0].hits), dtype=np.int64))
        if first is None:
            return None
        return self.points[max(first - 1, 0)].severity, self.points[first].severity

    @property
    def censored(self) -> bool:
        """It never broke: the breaking severity lies above :attr:`last`, if there is one."""
        return self.bracket is None

    def severity(self, weights: Weights) -> float:
        """The breaking severity under example weights, by straight lines between the points; NaN: no example drawn.

        0 where the limit is broken without any shift; :attr:`last` where it never breaks, which is too low.
        """
        if not weights.sum():
            return math.nan
        first = self._first(weights)
        if first is None:
            return self.last
        if first == 0:
            return 0.0
        (low, before), (high, after) = ((p.severity, p.hits) for p in self.points[first - 1 : first + 1])
        limit, held, broken = float(self.limit(weights)), _accuracy(before, weights), _accuracy(after, weights)
        return low + (high - low) * min(max((held - limit) / (held - broken), 0.0), 1.0)

    def says(self) -> str:
        """The answer in words: ``0.31``, ``5+ (not broken by the highest severity)``, ``0 (broken without shift)``."""
        found = self.bracket
        if found is None:
            return f"{self.last:g}+ (not broken by the highest severity)"
        return "0 (broken without shift)" if found[1] == 0 else f"{found[1]:g}"

    def _first(self, weights: Weights) -> int | None:
        limit = self.limit(weights) - ROUNDING
        return next((at for at, point in enumerate(self.points) if _accuracy(point.hits, weights) < limit), None)


def breaking(hits: Callable[[float], Hits], limit: Weighted, resolution: float = RESOLUTION) -> Breaking:
    """Looks for the smallest severity that breaks ``limit``.

    Severity 0 and the whole ones first, all of them, so that a bootstrap knows the curve beyond the break as well;
    then bisection between the first that breaks and the one before. Accuracy falls only roughly with severity: where it
    recovers between two whole severities and falls again, the first fall that was seen is the answer.

    Args:
        hits: ``hits(severity) -> (n,)`` whether each example is right; called once a severity.
        limit: :func:`absolute` or :func:`under`.
        resolution: in severities, above 0; halving stops once the ends are this near.
    """
    if not resolution > 0:
        raise ValueError(f"a resolution of {resolution}")
    seen = {float(severity): _checked(hits(float(severity))) for severity in (0, *SEVERITIES)}
    found = _of(seen, limit)
    while (bracket := found.bracket) is not None and bracket[1] - bracket[0] > resolution * (1 + ROUNDING):
        middle = sum(bracket) / 2
        seen[middle] = _checked(hits(middle))
        found = _of(seen, limit)
    return found


def _of(seen: dict[float, Hits], limit: Weighted) -> Breaking:
    points = tuple(Point(severity, seen[severity]) for severity in sorted(seen))
    if len({len(point.hits) for point in points}) > 1:
        raise ValueError("hits of different numbers of examples")
    return Breaking(points, limit)


def _checked(hits: Hits) -> Hits:
    if hits.ndim != 1 or not len(hits):
        raise ValueError(f"hits of shape {hits.shape}: (n,) is wanted, with an example at least")
    return np.asarray(hits, dtype=np.bool_)


def _accuracy(hits: Hits, weights: Weights) -> float:
    drawn = weights.sum()
    return float((weights @ hits) / drawn) if drawn else math.nan
