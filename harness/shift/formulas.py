"""Published numbers of a model under shift, each as a function of example weights.

What a model got wrong in some cells (the severities of a corruption, or several corruptions) is an :class:`Errors`;
a formula gives ``weighted(weights) -> float``, so that one bootstrap over the examples serves all of them, with the
same resample in every cell and for both models. Where a number is not defined it is NaN, and the ``…_undefined``
function beside the formula says why in a line.

Sources: corruption error, mCE, relative mCE: Hendrycks and Dietterich 2019 (arXiv 1903.12261), normalised by the dense
model in place of AlexNet. Excess error and prune potential: Liebenwein et al. 2021 (arXiv 2103.03014). Effective
robustness: Taori et al. 2020 (arXiv 2007.00644).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.int64]
"""``(…, n)`` how often each example is drawn, in one resample or in several."""
Numbers = Any
"""``(…)`` a number for each of them: a float where there is one."""
Weighted = Callable[[Weights], Numbers]
DELTA = 0.005
"""Of the prune potential: the error, absolute, that a pruned model may have above the dense one's."""
ROUNDING = 1e-12
"""What float64 may add to a difference of error rates: far below one example in a billion."""


@dataclass(frozen=True, eq=False)
class Errors:
    """What one model got wrong in some cells, on the same ``n`` examples.

    Args:
        wrong: ``(cells, n)``, 1 where it was wrong, 0 where it was right.
        counted: ``(cells, n)`` booleans: the examples that a cell holds, where it does not hold all of them (a
            resampling, or further examples beside the test set's).
    """

    wrong: NDArray[np.generic]
    counted: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.wrong.ndim != 2 or not len(self.wrong):
            raise ValueError(f"errors of shape {self.wrong.shape}: (cells, n) are wanted, with a cell at least")
        if self.counted is not None and self.counted.shape != self.wrong.shape:
            raise ValueError(f"counted {self.counted.shape} for errors of shape {self.wrong.shape}")

    @property
    def cells(self) -> int:
        return len(self.wrong)

    def total(self, weights: Weights) -> Numbers:
        """``(…)`` Σ over the cells of the error rate, each in [0, 1]; NaN where a cell holds no example."""
        if self._alike:
            return _number(_over(weights @ self._each, weights @ self._held))
        return _number(self._rates(weights).sum(axis=-1))

    def rate(self, weights: Weights) -> Numbers:
        """``(…)`` mean over the cells of the error rate."""
        return self.total(weights) / self.cells

    def above(self, clean: Errors, weights: Weights) -> Numbers:
        """``(…)`` Σ over the cells of the error rate less the mean one of ``clean``; exactly 0 where each cell is as
        clean."""
        if self._alike and clean._alike and np.array_equal(self._held, clean._held):
            wrong = weights @ self._each - self.cells * (weights @ clean._each) / clean.cells
            return _number(_over(wrong, weights @ self._held))
        return _number(self.total(weights) - self.cells * np.asarray(clean.rate(weights)))

    def shares(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """``(m,)`` in which share of the cells each of the examples ``rows`` is wrong."""
        return self._each[rows] / self.cells

    def size(self, weights: Weights) -> Numbers:
        """``(…)`` examples in a cell, in the mean."""
        return _number(weights @ self._held)

    def _rates(self, weights: Weights) -> NDArray[np.float64]:
        """``(…, cells)`` error rates, NaN where a cell holds no example."""
        counted = np.ones(self.wrong.shape, dtype=np.bool_) if self.counted is None else self.counted
        return _over(
            weights @ (np.asarray(self.wrong, dtype=np.float64) * counted).T, weights @ counted.T.astype(float)
        )

    @cached_property
    def _alike(self) -> bool:
        """Whether all cells hold the same examples."""
        return self.counted is None or bool((self.counted == self.counted[0]).all())

    @cached_property
    def _each(self) -> NDArray[np.float64]:
        """``(n,)`` in how many cells each example is wrong: all that a sum over whole cells needs."""
        wrong = self.wrong if self.counted is None else self.wrong * self.counted
        return np.asarray(wrong.sum(axis=0), dtype=np.float64)

    @cached_property
    def _held(self) -> NDArray[np.float64]:
        """``(n,)`` in which share of the cells each example is."""
        if self.counted is None:
            return np.ones(self.wrong.shape[1])
        return np.asarray(self.counted.mean(axis=0), dtype=np.float64)


def errors(wrong: NDArray[np.generic], counted: NDArray[np.bool_] | None = None) -> Errors:
    """:class:`Errors` of one cell, ``(n,)``."""
    return Errors(wrong[None], None if counted is None else counted[None])


def corruption_error(variant: Errors, dense: Errors) -> Weighted:
    """``CE_c = Σ_s E(variant, s, c) / Σ_s E(dense, s, c)`` over the severities of one corruption."""
    _same(variant, dense)
    return lambda weights: ratio(variant.total(weights), dense.total(weights))


def mce(variant: Sequence[Errors], dense: Sequence[Errors]) -> Weighted:
    """``mCE = mean_c CE_c``; NaN where the CE of one corruption is."""
    return _mean([corruption_error(one, of_dense) for one, of_dense in zip(variant, dense, strict=True)])


def corruption_error_undefined(dense: Errors, weights: Weights) -> str | None:
    """Why :func:`corruption_error` is NaN, or ``None``."""
    total = dense.total(weights)
    if math.isnan(total):
        return "a severity holds no examples"
    return None if total > 0 else "the dense model makes no error at any severity, and CE divides by its errors"


def relative_ce(variant: Errors, dense: Errors, variant_clean: Errors, dense_clean: Errors) -> Weighted:
    """``Σ_s (E(variant, s, c) - E(variant, clean)) / Σ_s (E(dense, s, c) - E(dense, clean))`` of one corruption.

    NaN where the corruption does not make the dense model worse: a ratio to nothing, or to a gain, says nothing.
    """
    _same(variant, dense)

    def weighted(weights: Weights) -> Numbers:
        return ratio(variant.above(variant_clean, weights), dense.above(dense_clean, weights))

    return weighted


def relative_mce(
    variant: Sequence[Errors], dense: Sequence[Errors], variant_clean: Errors, dense_clean: Errors
) -> Weighted:
    """Mean over corruptions of :func:`relative_ce`; NaN where that of one corruption is."""
    pairs = zip(variant, dense, strict=True)
    return _mean([relative_ce(one, of_dense, variant_clean, dense_clean) for one, of_dense in pairs])


def relative_ce_undefined(dense: Errors, dense_clean: Errors, weights: Weights) -> str | None:
    """Why :func:`relative_ce` is NaN, or ``None``."""
    degraded = dense.above(dense_clean, weights)
    if math.isnan(degraded):
        return "a severity holds no examples"
    if degraded > ROUNDING:
        return None
    return "it does not make the dense model worse, and relative CE divides by how much worse it makes it"


def excess_error(variant: Errors, dense: Errors, variant_clean: Errors, dense_clean: Errors) -> Weighted:
    """``Δe = (l(variant, D') - l(variant, D)) - (l(dense, D') - l(dense, D))``, l the error rate.

    D is the clean distribution, D' the mean over the cells. Above 0: the shift costs the variant more than the dense
    model. Where the cells of one model are its clean ones, Δe is exactly 0.
    """
    _same(variant, dense)

    def weighted(weights: Weights) -> Numbers:
        return (variant.above(variant_clean, weights) - dense.above(dense_clean, weights)) / variant.cells

    return weighted


def excess_slope(ratios: Sequence[float], excess: Sequence[Weighted]) -> Weighted:
    """Slope of ``Δe`` over the prune ratio, by least squares through the origin: ``Σ r Δe / Σ r²``.

    Through the origin, since at a ratio of 0 the variant is the dense model, and Δe is 0. In error rate for a ratio
    of 1: a slope of 0.02 says that pruning all would cost 2 points more under shift than without it.

    Raises:
        ValueError: there is no variant, or a ratio is not in (0, 1].
    """
    x = np.asarray(ratios, dtype=np.float64)
    if not len(x) or not ((x > 0) & (x <= 1)).all() or len(x) != len(excess):
        raise ValueError(f"ratios {list(ratios)} of {len(excess)} variants: each lies in (0, 1]")
    return lambda weights: _number(np.tensordot(x, np.stack([one(weights) for one in excess]), axes=1) / (x @ x))


def prune_potential(ratios: Sequence[float], error: Sequence[float], dense: float, delta: float = DELTA) -> float:
    """``P_δ = max({0} ∪ {r : error_r <= error_dense + δ})``: the largest ratio that qualifies.

    As published it looks past failures: a ratio that qualifies counts also where a smaller one does not. See
    :func:`unbroken_potential`. An error exactly δ above the dense one qualifies, whatever float64 makes of the sum.

    Args:
        ratios: of the pruned models, in any order.
        error: their error rates; one that is NaN does not qualify.
        dense: the dense model's.
    """
    if math.isnan(dense):
        return math.nan
    pairs = zip(ratios, error, strict=True)
    return max((ratio for ratio, one in pairs if _qualifies(one, dense, delta)), default=0.0)


def unbroken_potential(ratios: Sequence[float], error: Sequence[float], dense: float, delta: float = DELTA) -> float:
    """The largest ratio below the first that does not qualify for :func:`prune_potential`; 0 if there is none."""
    if math.isnan(dense):
        return math.nan
    pairs = sorted(zip(ratios, error, strict=True))
    first = min((ratio for ratio, one in pairs if not _qualifies(one, dense, delta)), default=math.inf)
    return max((ratio for ratio, _ in pairs if ratio < first), default=0.0)


def potential(
    formula: Callable[[Sequence[float], Sequence[float], float, float], float],
    ratios: Sequence[float],
    variants: Sequence[Errors],
    dense: Errors,
    delta: float = DELTA,
) -> Weighted:
    """:func:`prune_potential` or :func:`unbroken_potential` of mean error rates over the cells."""
    return lambda weights: formula(ratios, [one.rate(weights) for one in variants], dense.rate(weights), delta)


def effective_robustness(variant: Errors, dense: Errors, variant_clean: Errors, dense_clean: Errors) -> Weighted:
    """``acc'(variant) - β(acc(variant))``: the accuracy under shift beyond what the clean accuracy lets one expect.

    Taori et al. fit β to many reference models, a line in log-odds. An audit has one, the dense model: here β is the
    line of slope 1 through its accuracies, so it multiplies the odds of being right by what the shift multiplied the
    dense model's odds by. It is exactly 0 for the dense model, and where the shift changes nothing. An accuracy of 0
    or 1, whose odds are none, is taken as half an example from it.
    """
    _same(variant, dense)

    def weighted(weights: Weights) -> Numbers:
        own, own_clean = (1 - np.asarray(one.rate(weights)) for one in (variant, variant_clean))
        of_dense, of_dense_clean = (1 - np.asarray(one.rate(weights)) for one in (dense, dense_clean))
        shifted = _odds(of_dense, dense.size(weights)) / _odds(of_dense_clean, dense_clean.size(weights))
        odds = shifted * _odds(own_clean, variant_clean.size(weights))
        found = own - odds / (1 + odds)
        # Exact where there is nothing to expect: a model as right as dense, and a shift that leaves dense as it is.
        found = np.where(own_clean == of_dense_clean, own - of_dense, found)
        same = np.asarray(dense.above(dense_clean, weights)) == 0
        return _number(np.where(same, -np.asarray(variant.above(variant_clean, weights)) / variant.cells, found))

    return weighted


def _odds(accuracy: NDArray[np.float64], n: Numbers) -> NDArray[np.float64]:
    half = 0.5 / np.where(np.asarray(n) > 0, n, math.nan)
    inside = np.minimum(np.maximum(accuracy, half), 1 - half)
    return np.asarray(inside / (1 - inside))


def _qualifies(error: float, dense: float, delta: float) -> bool:
    return error - dense <= delta + ROUNDING


def ratio(above: Numbers, below: Numbers) -> Numbers:
    """``(…)`` one number over another; NaN where that is 0, or less."""
    return _number(_over(np.asarray(above), np.where(np.asarray(below) > ROUNDING, below, 0.0)))


def _over(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ratio; NaN where it is one to 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    whole = np.full(np.broadcast(above, below).shape, math.nan)
    return np.asarray(np.divide(above, below, out=whole, where=below > 0))


def _number(found: NDArray[np.float64]) -> Numbers:
    return float(found) if np.ndim(found) == 0 else found


def _mean(each: Sequence[Weighted]) -> Weighted:
    if not each:
        raise ValueError("a mean over no corruptions")
    return lambda weights: sum(one(weights) for one in each) / len(each)


def _same(variant: Errors, dense: Errors) -> None:
    if variant.wrong.shape != dense.wrong.shape:
        raise ValueError(f"errors {variant.wrong.shape} of the variant and {dense.wrong.shape} of the dense model")
