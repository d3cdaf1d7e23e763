"""Anytime-valid bounds on means of bounded random variables, by betting against every candidate mean.

A gambler starts with a capital of 1 and stakes, on each example in turn, a share of it on "the mean is above m". If it
is not, the game is not in the gambler's favour: the capital exceeds 1/a *at any time* with probability at most a
(Ville 1939). The values of m at which the gambler never got so rich are a confidence bound that holds at all times at
once, so one may look after every example and stop when the answer is clear. A fixed-sample interval does not allow
that.

Which share is best depends on the unknown mean. The capital is therefore split evenly over :data:`BETS`, 25 constant
shares: their mixture (a diversified bet) is at most a factor of 25 behind the best of them in hindsight, and what it is
worth does not depend on the order of the examples, only on their counts at each time. Source: Waudby-Smith & Ramdas
(2024), Estimating means of bounded random variables by betting, JRSS B 86:1-27 (arXiv 2010.09686).

**Population, not test set.** A finite test set could also be drawn *without* replacement, which gives narrower bounds
(in the same paper) on the test set's own mean: with all examples drawn, of width zero. A gate asks about what the
model will meet, of which the test set itself is a sample. Examples in random order are independent draws from that
population, and the bounds here are about its mean; they stay open when the test set is used up, as those of Clopper
and Pearson or Tango do.

**Price.** For never having to say beforehand when one will stop: with all n examples used the interval is 1.4 to 2.1
times as wide as the fixed-sample one (n from 100 to 3 000; Tango's for drops, Clopper and Pearson's for shares). It
pays where the answer is clear: where nothing was lost the median sample was 0.6 to 0.9 of what Tango's interval needs
for 90 % power, where twice the margin was lost 0.4 to 0.8 of that. ``benchmarks/betting_error_rates.py`` measures it.

``confidence`` is the one-sided confidence of each bound, in (0.5, 1), as in :mod:`pruneproof.statistics`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from pruneproof.statistics import Bounds

BETS: NDArray[np.float64] = np.arange(1, 26) / 26
"""Shares of what may be staked without ever owing anything."""
LEAST = 1e-12
"""Candidates below it are not told from 0: the bound is 0."""


def mean_bounds(
    values: ArrayLike, confidence: float, low: float = 0.0, high: float = 1.0, scale: float = 1.0
) -> Bounds:
    """Anytime-valid bounds on the mean of independent ``values`` ``(n,)`` in ``[low, high]``, in the order drawn.

    The capital staked on "above m" is, with c over :data:`BETS` and x = values - low,

        K_t(m) = mean_c prod_{i <= t} (1 + c/(m - low) (values_i - m)) = mean_c prod_{i <= t} (1 - c + c x_i/(m - low))

    and falls as m rises; lower is the m at which its maximum over t is 1/(1 - confidence): the running intersection of
    the bounds after each example. Upper mirrors it.

    Args:
        scale: > 1 asks what the same rates in that many times the examples would give.

    Raises:
        ValueError: values not ``(n,)``, or outside ``[low, high]``, confidence outside (0.5, 1), scale below 1.
    """
    found = _checked(values, low, high)
    level = _level(confidence, scale)
    width = high - low
    shares = (found - low) / width
    return _ordered(
        low + width * _root(shares, np.ones_like(shares), level, scale),
        high - width * _root(1 - shares, np.ones_like(shares), level, scale),
    )


def ratio_bounds(numerators: ArrayLike, denominators: ArrayLike, confidence: float, scale: float = 1.0) -> Bounds:
    """Anytime-valid bounds on E[numerator] / E[denominator] of independent pairs in [0, 1], in the order drawn.

    The ratio is at most r when E[numerator - r denominator] <= 0, which is bet against as the mean is: a factor of
    ``1 + c/r (numerator - r denominator)`` an example. Upper is infinite while nothing bounds it.

    Raises:
        ValueError: as :func:`mean_bounds`, or arrays of different lengths.
    """
    above, below = _checked(numerators, 0.0, 1.0), _checked(denominators, 0.0, 1.0)
    if len(above) != len(below):
        raise ValueError(f"{len(above)} numerators and {len(below)} denominators are no pairs")
    level = _level(confidence, scale)
    inverse = _root(below, above, level, scale)
    return _ordered(_root(above, below, level, scale), 1 / inverse if inverse else math.inf)


def _checked(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1:
        raise ValueError(f"values must have the shape (n,), not {found.shape}")
    if not low < high:
        raise ValueError(f"low must be under high, not {low} and {high}")
    if not bool(((found >= low) & (found <= high)).all()):
        raise ValueError(f"values must be in [{low}, {high}]")
    return found


def _level(confidence: float, scale: float) -> float:
    """Log of the capital at which a candidate is given up."""
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must be in (0.5, 1), not {confidence}")
    if not 1 <= scale < math.inf:
        raise ValueError(f"scale must be finite and at least 1, not {scale}")
    return -math.log1p(-confidence)


def _ordered(lower: float, upper: float) -> Bounds:
    """Bounds that excluded every candidate (a drift, or bad luck of probability 2a) exclude none between them."""
    return Bounds(min(lower, upper), max(lower, upper))


def _root(gains: NDArray[np.float64], risks: NDArray[np.float64], level: float, scale: float) -> float:
    """The largest r at which bets on "E[gains] > r E[risks]" ever made ``exp(level)`` of 1; 0 where there is none."""
    if not (gains > 0).any():
        return 0.0
    capital = _Capital(gains, risks, scale)

    def excess(ratio: float) -> float:
        return capital.most(ratio) - level

    high = 1.0
    while excess(high) >= 0:
        high *= 2
    low = high / 2
    while excess(low) < 0:
        low, high = low / 2, low
        if low < LEAST:
            return 0.0
    return float(brentq(excess, low, high, xtol=LEAST))


class _Capital:
    """The mixture's capital after each example, for any candidate ratio.

    Examples with the same gain and risk change it alike, so logarithms are taken of the few distinct ones.
    """

    def __init__(self, gains: NDArray[np.float64], risks: NDArray[np.float64], scale: float) -> None:
        pairs, which = np.unique(np.stack([gains, risks], axis=1), axis=0, return_inverse=True)
        self._gains, self._risks, self._which = pairs[:, :1], pairs[:, 1:], which.reshape(-1)
        self._scale = scale

    def most(self, ratio: float) -> float:
        """Log of the largest capital at any time.

        With a scale also after ``scale`` times the examples at the same rates. In between it is no larger: each log
        of a bet's capital is linear in the scale, so the log of their sum is convex.
        """
        grown: NDArray[Any] = np.log1p(BETS * (self._gains / ratio - self._risks))[self._which].cumsum(axis=0)
        if self._scale > 1:
            grown = np.concatenate([grown, grown[-1:] * self._scale])
        best = grown.max(axis=1)
        top = best.max()
        # a sum of 25 is at most 25 times its largest term: other times cannot have the largest sum
        near = grown[best >= top - math.log(len(BETS))]
        return float(top + np.log(np.exp(near - top).mean(axis=1).max()))
