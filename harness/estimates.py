"""Estimates: a metric's value together with the per-example data that its uncertainty comes from.

Each kind names the method that its bounds rest on. All bounds are one-sided at the stated confidence;
a pair of them at 0.95 is a two-sided 90 % interval.

============================= ==========================================================================
kind                          bounds
============================= ==========================================================================
:class:`Exact`                none needed: deterministic
:class:`Proportion`           exact binomial (Clopper and Pearson 1934)
:class:`Difference`           score interval for paired proportions (Tango 1998)
:class:`Combination`          square-and-add over independent parts (MOVER, Zou and Donner 2008)
:class:`Extreme`              worst of a family: intersection-union one way, Bonferroni the other
                              (Berger 1982)
:class:`Statistic`            percentile bootstrap over examples, never narrower than what so few
                              examples can say
:class:`MeanDifference`       the same score interval, of paired means of several trials
:class:`Ladder`               step by step, from the bounds of a difference at each
:class:`Sequential`           betting, valid whenever one stops (Waudby-Smith and Ramdas 2024)
:class:`SequentialDifference` the same, of a difference of paired proportions
:class:`SequentialRatio`      the same, of a ratio of paired proportions
============================= ==========================================================================

Formulas stand in :mod:`pruneproof.statistics` and :mod:`pruneproof.betting`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pruneproof.betting import mean_bounds, ratio_bounds
from pruneproof.errors import MeasurementError
from pruneproof.statistics import (
    MOST_UNDEFINED,
    Bounds,
    binomial_bounds,
    bootstrap_weights,
    floor_bounds,
    mover_bounds,
    percentile_bounds,
    tango_bounds,
)

Rows = NDArray[np.int64]
LEAST = 30
"""Examples under which a bootstrap of an unbounded number is no evidence: a resample holds only what was seen."""
ROUNDING = 1e-12
"""What float64 may add to a difference of rates."""
Change = Literal["max_drop", "max_rise", "max_ratio"]


@dataclass(frozen=True)
class Exact:
    """A deterministic number, such as a parameter count."""

    value: float
    method = "deterministic"

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        """The value itself, twice."""
        return Bounds(self.value, self.value)


@dataclass(frozen=True, eq=False)
class Proportion:
    """Share of ``hits`` among the examples ``rows``.

    Args:
        rows: ``(n,)`` positions in the test set, distinct.
        hits: ``(n,)`` booleans.
    """

    rows: Rows
    hits: NDArray[np.bool_]
    method = "exact binomial (Clopper-Pearson)"

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def count(self) -> int:
        return int(self.hits.sum())

    @property
    def value(self) -> float:
        return self.count / self.n if self.n else float("nan")

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        """Bounds; ``scale`` > 1 asks what the same rates in that many times the examples would give."""
        return binomial_bounds(self.count * scale, self.n * scale, confidence)

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """``(resamples,)`` values under bootstrap counts ``(resamples, test set)``."""
        drawn = weights[:, self.rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((drawn @ self.hits) / drawn.sum(axis=1), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Difference:
    """Mean over ``rows`` of ``changes`` in {-1, 0, 1}: a difference of paired proportions.

    ``lost`` counts +1 (the comparator is right, the variant wrong, for a drop), ``gained`` counts -1.
    """

    rows: Rows
    changes: NDArray[np.int8]
    method = "Tango score interval for paired proportions"

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def lost(self) -> int:
        return int((self.changes > 0).sum())

    @property
    def gained(self) -> int:
        return int((self.changes < 0).sum())

    @property
    def value(self) -> float:
        return (self.lost - self.gained) / self.n if self.n else float("nan")

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        return tango_bounds(self.lost * scale, self.gained * scale, self.n * scale, confidence)

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        drawn = weights[:, self.rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((drawn @ self.changes) / drawn.sum(axis=1), dtype=np.float64)


Part = Proportion | Difference


@dataclass(frozen=True, eq=False)
class Combination:
    """Σ coefficient · part over parts on disjoint, hence independent, examples."""

    coefficients: tuple[float, ...]
    parts: tuple[Part, ...]

    @property
    def method(self) -> str:
        return f"square-and-add (MOVER) of {self.parts[0].method}"

    @property
    def value(self) -> float:
        return sum(c * part.value for c, part in zip(self.coefficients, self.parts, strict=True))

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        return mover_bounds(
            [
                (c, part.value, part.bounds(confidence, scale))
                for c, part in zip(self.coefficients, self.parts, strict=True)
            ]
        )

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        terms = [c * part.replicates(weights) for c, part in zip(self.coefficients, self.parts, strict=True)]
        return np.asarray(np.sum(terms, axis=0), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Extreme:
    """The worst of a family of proportions on disjoint examples: ``"lowest"``, or ``"range"`` (max - min).

    A limit holds for the worst when it holds for each, so the bound that a PASS rests on is taken
    member by member uncorrected (intersection-union); the bound that a FAIL rests on is corrected
    for the number of members (Bonferroni).
    """

    kind: Literal["lowest", "range"]
    parts: tuple[Proportion, ...]

    @property
    def method(self) -> str:
        return f"worst of {len(self.parts)}: intersection-union of {self.parts[0].method}"

    @property
    def value(self) -> float:
        values = [part.value for part in self.parts]
        return min(values) if self.kind == "lowest" else max(values) - min(values)

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        if self.kind == "lowest":
            strict = 1 - (1 - confidence) / len(self.parts)
            return Bounds(
                min(part.bounds(confidence, scale).lower for part in self.parts),
                min(part.bounds(strict, scale).upper for part in self.parts),
            )
        pairs = [(a, b) for a in self.parts for b in self.parts if a is not b]
        strict = 1 - (1 - confidence) / len(pairs)
        return Bounds(
            max(0.0, *(Combination((1.0, -1.0), pair).bounds(strict, scale).lower for pair in pairs)),
            max(Combination((1.0, -1.0), pair).bounds(confidence, scale).upper for pair in pairs),
        )

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        values = np.stack([part.replicates(weights) for part in self.parts])
        lowest = values.min(axis=0)
        return np.asarray(lowest if self.kind == "lowest" else values.max(axis=0) - lowest, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Statistic:
    """Any other function of the examples: its value under example weights.

    Args:
        rows: ``(n,)`` positions in the test set that it looks at.
        weighted: ``weighted(weights)`` with integer ``weights`` ``(test set,)`` → value, NaN when undefined.
        support: the number of examples that limits it (for AUROC, the smaller class): no interval is
            narrower than ``z²/(support + z²)`` to each side.
        spread: the size of the metric's range, scales that floor. 0 for unbounded units, which have none:
            there an interval of width zero is no evidence at all, and the bounds are infinite.
        size: number of examples that ``weighted`` takes weights of.
        many: ``many(weights)``, of ``(resamples, size)``, gives ``weighted`` of each row, where there is a way that is
            faster than one after the other.
    """

    rows: Rows
    weighted: Callable[[NDArray[np.int64]], float]
    support: int
    size: int
    spread: float = 1.0
    seed: tuple[int, ...] = (0,)
    resamples: int = 2000
    many: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None
    method = "percentile bootstrap over examples"

    @cached_property
    def value(self) -> float:
        weights = np.zeros(self.size, dtype=np.int64)
        weights[self.rows] = 1
        return float(self.weighted(weights))

    @cached_property
    def _drawn(self) -> NDArray[np.float64]:
        if self.many is None:
            return np.array([self.weighted(weights) for weights in _resampled(self)], dtype=np.float64)
        return np.concatenate([self.many(block) for block in _blocks(self)])

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        defined = self._drawn[~np.isnan(self._drawn)]
        if len(defined) <= (1 - MOST_UNDEFINED) * len(self._drawn):
            return Bounds(-math.inf, math.inf)
        if not self.spread and self.support < LEAST:
            return Bounds(-math.inf, math.inf)
        if not self.spread and np.ptp(defined) <= 1e-9 * max(1.0, abs(self.value)):
            return Bounds(-math.inf, math.inf)
        found = percentile_bounds(self._drawn, confidence)
        root = scale**0.5
        shrunk = Bounds(self.value - (self.value - found.lower) / root, self.value + (found.upper - self.value) / root)
        # A percentile interval can miss the value itself where the statistic is biased; never report that.
        kept = Bounds(min(shrunk.lower, self.value), max(shrunk.upper, self.value))
        return floor_bounds(kept, self.value, round(self.support * scale), confidence, self.spread)

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        held = weights[:, : self.size]
        if self.many is not None:
            return self.many(held)
        return np.array([self.weighted(row) for row in held], dtype=np.float64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean(Statistic):
    """Mean over ``rows`` of ``values`` in [0, 1], shares of several trials of each example.

    Args:
        values: ``(n,)``, of ``rows``.
    """

    values: NDArray[np.float64]


def mean(rows: Rows, values: NDArray[np.float64], size: int) -> Mean:
    """:class:`Mean`; ``size``: number of examples that weights are of."""

    def many(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        drawn = weights[..., rows]
        total = drawn.sum(axis=-1)
        return np.asarray(np.divide(drawn @ values, total, out=np.full(total.shape, np.nan), where=total > 0))

    return Mean(
        rows=rows, weighted=lambda weights: float(many(weights)), support=len(rows), size=size, many=many, values=values
    )


@dataclass(frozen=True, eq=False)
class MeanDifference:
    """Mean over ``rows`` of ``changes`` in [-``most``, ``most``]: a difference of paired means of several trials.

    Tango's interval for as many changes of one size as have the same sum and the same sum of squares: with
    ``k = Σ d² / Σ |d|`` that is ``k`` times the interval of ``Σ d⁺ / k`` lost and ``Σ d⁻ / k`` gained. Where all
    changes are 0 or ±1 it is Tango's own; a percentile bootstrap of rare changes is too narrow. It is never narrower
    than what ``n`` examples without any change could say.
    """

    rows: Rows
    changes: NDArray[np.float64]
    most: float = 1.0
    method = "Tango score interval for paired means, of as many changes of one size"

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def value(self) -> float:
        return float(self.changes.mean()) if self.n else float("nan")

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        size = float(np.abs(self.changes).sum())
        one = float((self.changes**2).sum()) / size if size else self.most
        lost, gained = (float(np.clip(sign * self.changes, 0, None).sum()) / one for sign in (1, -1))
        found = tango_bounds(lost * scale, gained * scale, self.n * scale, confidence)
        kept = Bounds(min(one * found.lower, self.value), max(one * found.upper, self.value))
        return floor_bounds(kept, self.value, round(self.n * scale), confidence, self.most)

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return _means(weights[:, self.rows], self.changes)


@dataclass(frozen=True, eq=False)
class Ladder:
    """The highest of ``steps`` at which a difference stays within a limit.

    Args:
        steps: ascending, in (0, 1); below them all lies 0, which always stays within.
        parts: the difference at each step, each an estimate with bounds.
        limit: that a difference may be at most.
        unbroken: only steps below the first that is beyond the limit count; else any step does, whatever lies below.

    Bounds are steps, so nothing is added to them for a small sample: what few examples can say is in the bounds of the
    parts. Where one step of several decides, it is Bonferroni-corrected for their number; where all have to hold, each
    is tested uncorrected (Berger 1982).
    """

    steps: tuple[float, ...]
    parts: tuple[Difference | MeanDifference, ...]
    limit: float
    unbroken: bool = False

    @property
    def method(self) -> str:
        return f"steps of {self.parts[0].method}"

    @property
    def n(self) -> int:
        return min(_support(part) for part in self.parts)

    @property
    def value(self) -> float:
        return self._highest([part.value <= self.limit + ROUNDING for part in self.parts])

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        strict = 1 - (1 - confidence) / len(self.parts)
        low, high = (confidence, strict) if self.unbroken else (strict, confidence)
        surely = [part.bounds(low, scale).upper <= self.limit for part in self.parts]
        perhaps = [part.bounds(high, scale).lower <= self.limit + ROUNDING for part in self.parts]
        return Bounds(min(self._highest(surely), self.value), max(self._highest(perhaps), self.value))

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        within = np.stack([part.replicates(weights) for part in self.parts], axis=1) <= self.limit + ROUNDING
        return np.array([self._highest(row.tolist()) for row in within])

    def _highest(self, within: Sequence[bool]) -> float:
        highest = 0.0
        for step, holds in zip(self.steps, within, strict=True):
            if holds:
                highest = step
            elif self.unbroken:
                break
        return highest


@dataclass(frozen=True, eq=False)
class Sequential:
    """Share of ``hits`` among examples that were drawn in random order until the answer was clear.

    Args:
        rows: ``(n,)`` positions in the test set, distinct, in the order drawn.
        hits: ``(n,)`` booleans.
    """

    rows: Rows
    hits: NDArray[np.bool_]
    method = "betting confidence sequence (Waudby-Smith and Ramdas)"

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def value(self) -> float:
        return float(self.hits.mean()) if self.n else float("nan")

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        """Bounds that hold however the number of examples was chosen, also by looking at them."""
        return _holding(mean_bounds(self.hits, confidence, scale=scale), self.value)

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return _means(weights[:, self.rows], self.hits)


@dataclass(frozen=True, eq=False)
class SequentialDifference:
    """As :class:`Difference`, of examples that were drawn in random order until the answer was clear.

    Args:
        rows: ``(n,)`` positions in the test set, distinct, in the order drawn.
        changes: ``(n,)`` in {-1, 0, 1}.
    """

    rows: Rows
    changes: NDArray[np.int8]
    method = "betting confidence sequence for paired proportions (Waudby-Smith and Ramdas)"

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def value(self) -> float:
        return float(self.changes.mean()) if self.n else float("nan")

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        """As of :class:`Sequential`, in [-1, 1]."""
        return _holding(mean_bounds(self.changes, confidence, -1.0, 1.0, scale), self.value)

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        return _means(weights[:, self.rows], self.changes)


@dataclass(frozen=True, eq=False)
class SequentialRatio:
    """Number of ``above`` over number of ``below`` among examples drawn in random order until the answer was clear.

    Args:
        rows: ``(n,)`` positions in the test set, distinct, in the order drawn.
        above, below: ``(n,)`` booleans.
    """

    rows: Rows
    above: NDArray[np.bool_]
    below: NDArray[np.bool_]
    method = "betting confidence sequence for a ratio of paired proportions (Waudby-Smith and Ramdas)"

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def value(self) -> float:
        return _ratio(float(self.above.sum()), float(self.below.sum()))

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        """As of :class:`Sequential`; the upper one is infinite while nothing bounds it."""
        return _holding(ratio_bounds(self.above, self.below, confidence, scale), self.value)

    def replicates(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        drawn = weights[:, self.rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((drawn @ self.above) / (drawn @ self.below), dtype=np.float64)


def _holding(bounds: Bounds, value: float) -> Bounds:
    """The narrowest bounds at any time may miss the value at the end; what is reported never does."""
    return Bounds(min(bounds.lower, value), max(bounds.upper, value))


def _means(
    drawn: NDArray[np.int64], values: NDArray[np.bool_] | NDArray[np.int8] | NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((drawn @ values) / drawn.sum(axis=1), dtype=np.float64)


Estimate = (
    Exact
    | Proportion
    | Difference
    | Combination
    | Extreme
    | Statistic
    | MeanDifference
    | Ladder
    | Sequential
    | SequentialDifference
    | SequentialRatio
)


def change(variant: Estimate, comparator: Estimate, key: Change, size: int) -> Estimate:
    """The estimate that a comparing limit is about.

    ``max_drop``: comparator - variant; ``max_rise``: variant - comparator; ``max_ratio``:
    variant / comparator. Where both are proportions of the same examples the result is their paired
    difference; otherwise examples are resampled together (paired bootstrap). Sequential estimates are compared
    on the examples that both have: the shorter one's, which are the first of the longer one's.

    Args:
        size: number of examples that either can rest on.

    Raises:
        MeasurementError: only one is sequential, or they drew examples in different orders.
    """
    if isinstance(variant, Sequential) or isinstance(comparator, Sequential):
        return _sequential_change(variant, comparator, key)
    high, low = (comparator, variant) if key == "max_drop" else (variant, comparator)
    if isinstance(high, Exact) and isinstance(low, Exact):
        return Exact(_ratio(high.value, low.value) if key == "max_ratio" else high.value - low.value)
    if key != "max_ratio":
        if isinstance(high, Proportion) and isinstance(low, Proportion) and _same(high, low):
            return _difference(high, low)
        if isinstance(high, Mean) and isinstance(low, Mean) and np.array_equal(high.rows, low.rows):
            return MeanDifference(high.rows, high.values - low.values)
        if isinstance(high, Combination) and isinstance(low, Combination) and _alike(high, low):
            pairs = zip(high.parts, low.parts, strict=True)
            return replace(high, parts=tuple(_difference(a, b) for a, b in pairs))  # type: ignore[arg-type]
    return _resampled_change(high, low, key, size)


def _same(a: Proportion, b: Proportion) -> bool:
    return np.array_equal(a.rows, b.rows)


def _alike(a: Combination, b: Combination) -> bool:
    return a.coefficients == b.coefficients and all(
        isinstance(x, Proportion) and isinstance(y, Proportion) and _same(x, y)
        for x, y in zip(a.parts, b.parts, strict=True)
    )


def _difference(high: Proportion, low: Proportion) -> Difference:
    return Difference(high.rows, (high.hits.astype(np.int8) - low.hits.astype(np.int8)))


def _sequential_change(variant: Estimate, comparator: Estimate, key: Change) -> Estimate:
    if isinstance(variant, Sequential) and isinstance(comparator, Sequential):
        n = min(variant.n, comparator.n)
        if np.array_equal(variant.rows[:n], comparator.rows[:n]):
            rows, now, before = variant.rows[:n], variant.hits[:n], comparator.hits[:n]
            if key == "max_ratio":
                return SequentialRatio(rows, now, before)
            rise = now.astype(np.int8) - before.astype(np.int8)
            return SequentialDifference(rows, rise if key == "max_rise" else -rise)
    raise MeasurementError(
        "a sample that grew until it decided is compared with one of other examples",
        "draw the examples of variant and comparator in the same order",
    )


def _resampled_change(high: Estimate, low: Estimate, key: Change, size: int) -> Statistic:
    def weighted(weights: NDArray[np.int64]) -> float:
        a, b = (_under(estimate, weights) for estimate in (high, low))
        return _ratio(a, b) if key == "max_ratio" else a - b

    def many(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        a, b = (_under_many(estimate, weights) for estimate in (high, low))
        return np.divide(a, b, out=np.full(len(a), np.nan), where=b != 0) if key == "max_ratio" else a - b

    supports = [_support(estimate) for estimate in (high, low)]
    spread = max(getattr(high, "spread", 1.0), getattr(low, "spread", 1.0))
    if key == "max_ratio" and spread:
        spread = _ratio(1.0, low.value)
    return Statistic(
        rows=np.union1d(_rows(high), _rows(low)),
        weighted=weighted,
        support=min(supports),
        size=size,
        spread=spread,
        many=many,
    )


def seeded(estimate: Estimate, seed: tuple[int, ...], resamples: int) -> Estimate:
    """``estimate`` with its bootstrap, where it has one, drawn from ``seed``."""
    if isinstance(estimate, Statistic):
        return replace(estimate, seed=seed, resamples=resamples)
    return estimate


def drawn(estimate: Estimate) -> bool:
    """Whether its bounds rest on a bootstrap."""
    return isinstance(estimate, Statistic)


def _under(estimate: Estimate, weights: NDArray[np.int64]) -> float:
    if isinstance(estimate, Exact):
        return estimate.value
    if isinstance(estimate, Statistic):
        return float(estimate.weighted(weights[: estimate.size]))
    return float(estimate.replicates(weights[None, :])[0])


def _under_many(estimate: Estimate, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.full(len(weights), estimate.value) if isinstance(estimate, Exact) else estimate.replicates(weights)


def about(estimate: Estimate) -> Rows:
    """Positions of the examples that the number is about: of a difference between parts, those of the first."""
    if isinstance(estimate, Combination):
        parts = zip(estimate.coefficients, estimate.parts, strict=True)
        return np.unique(np.concatenate([part.rows for coefficient, part in parts if coefficient > 0]))
    return _rows(estimate)


def _rows(estimate: Estimate) -> Rows:
    if isinstance(estimate, Exact):
        return np.empty(0, dtype=np.int64)
    if isinstance(estimate, Combination | Extreme | Ladder):
        return np.unique(np.concatenate([part.rows for part in estimate.parts]))
    return estimate.rows


def _support(estimate: Estimate) -> int:
    if isinstance(estimate, Exact):
        return 10**9
    if isinstance(estimate, Combination | Extreme):
        return min(part.n for part in estimate.parts)
    if isinstance(estimate, Ladder):
        return estimate.n
    return estimate.support if isinstance(estimate, Statistic) else estimate.n


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")


def _blocks(statistic: Statistic) -> Iterator[NDArray[np.int64]]:
    """Weights ``(some resamples, size)``, block after block: those of :func:`_resampled`."""
    generator = np.random.default_rng(statistic.seed)
    everybody = len(statistic.rows) == statistic.size and np.array_equal(statistic.rows, np.arange(statistic.size))
    for block in bootstrap_weights(len(statistic.rows), statistic.resamples, generator):
        if everybody:
            yield block
            continue
        weights = np.zeros((len(block), statistic.size), dtype=np.int64)
        weights[:, statistic.rows] = block
        yield weights


def _resampled(statistic: Statistic) -> Iterator[NDArray[np.int64]]:
    """Weights ``(test set,)`` of one resample after the other, in one array that is written over."""
    generator = np.random.default_rng(statistic.seed)
    weights = np.zeros(statistic.size, dtype=np.int64)
    for block in bootstrap_weights(len(statistic.rows), statistic.resamples, generator):
        for drawn in block:
            weights[statistic.rows] = drawn
            yield weights
