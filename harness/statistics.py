"""Bounds and tests that decide a gate: formula, source, units.

``confidence`` is the one-sided confidence of *each* bound returned, in (0.5, 1): a pair of bounds at 0.95 is
a two-sided 90 % interval. A claim "below the limit" is shown when the upper bound is below it, a claim "above
the limit" when the lower bound is above it; when neither holds, the examples do not decide.

Counts may be fractions: :func:`examples_needed` scales them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtri

MOST_WEIGHTS = 4_000_000
"""Counts in one block of :func:`bootstrap_weights`: 32 MB."""

MOST_UNDEFINED = 0.01
"""Share of undefined replicates from which :func:`percentile_bounds` refuses."""


class Bounds(NamedTuple):
    """A lower and an upper confidence bound, in the unit of the quantity bounded."""

    lower: float
    upper: float


def binomial_bounds(successes: float, n: float, confidence: float) -> Bounds:
    """Exact bounds on a proportion, in [0, 1].

    With a = 1 - confidence and k successes: lower = the a quantile of Beta(k, n - k + 1), 0 when k = 0;
    upper = the 1 - a quantile of Beta(k + 1, n - k), 1 when k = n. From 0 of n, upper = 1 - a^(1/n), about
    3/n at 0.95 ("rule of three").

    Source: Clopper & Pearson (1934), Biometrika 26:404-413.

    Raises:
        ValueError: n is not positive, successes outside [0, n], confidence outside (0.5, 1).
    """
    _check_confidence(confidence)
    _check_n(n)
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, n = {n}], not {successes}")
    failures = n - successes
    lower = float(betaincinv(successes, failures + 1, 1 - confidence)) if successes > 0 else 0.0
    upper = float(betaincinv(successes + 1, failures, confidence)) if failures > 0 else 1.0
    return Bounds(lower, upper)


def tango_z(lost: float, gained: float, n: float, delta: float) -> float:
    """Score statistic of a difference of paired proportions, standard normal when the difference is delta.

    Of n examples, ``lost`` are right for the first model only and ``gained`` for the second only:

        z = (lost - gained - n delta) / sqrt(n (2 q + delta (1 - delta)))

    where q is the maximum-likelihood estimate of P(gained) when P(lost) = q + delta, the larger root of

        2n q^2 + (-lost - gained + (2n - lost + gained) delta) q - gained delta (1 - delta) = 0.

    At delta = 0 this is McNemar's z, (lost - gained) / sqrt(lost + gained). z falls as delta rises. Where the
    variance is 0 z is 0 if the estimate is delta, otherwise infinite.

    Source: Tango (1998), Statistics in Medicine 17:891-908.

    Raises:
        ValueError: n is not positive, a count is negative, lost + gained > n, delta outside [-1, 1].
    """
    _check_pairs(lost, gained, n)
    if not -1 <= delta <= 1:
        raise ValueError(f"delta must be in [-1, 1], not {delta}")
    if delta < 0:
        return -tango_z(gained, lost, n, -delta)
    excess = lost - gained - n * delta
    variance = _tango_variance(lost, gained, n, delta)
    if variance > 0:
        return excess / math.sqrt(variance)
    return math.copysign(math.inf, excess) if excess else 0.0


def tango_bounds(lost: float, gained: float, n: float, confidence: float) -> Bounds:
    """Bounds on the drop P(lost) - P(gained) between two paired proportions, in [-1, 1].

    Positive means that the second model is worse. With z the ``confidence`` quantile of the normal
    distribution, upper is the delta where :func:`tango_z` = -z and lower the one where it is z. Without any
    difference (lost = gained = 0) the bounds are -+ z^2 / (n + z^2), so that a small sample never shows that
    the drop is small; with lost = n, lower = (n - z^2) / (n + z^2) and upper = 1.

    Source: Tango (1998), Statistics in Medicine 17:891-908.

    Raises:
        ValueError: n is not positive, a count is negative, lost + gained > n, confidence outside (0.5, 1).
    """
    _check_pairs(lost, gained, n)
    z = _normal_quantile(confidence)
    return Bounds(-_tango_upper(gained, lost, n, z), _tango_upper(lost, gained, n, z))


def _tango_upper(lost: float, gained: float, n: float, z: float) -> float:
    # In these three cases the variance at the estimate is 0, which makes the estimate itself a false root.
    if lost == gained == 0:
        return z**2 / (n + z**2)
    if lost >= n:
        return 1.0
    if gained >= n:
        return (z**2 - n) / (n + z**2)

    def above(delta: float) -> float:
        # z's numerator and denominator apart: no division by the variance, which is 0 at delta = 1.
        counts = (gained, lost) if delta < 0 else (lost, gained)
        variance = _tango_variance(*counts, n, abs(delta))
        return lost - gained - n * delta + z * math.sqrt(variance)

    return float(brentq(above, (lost - gained) / n, 1.0, xtol=1e-13))


def _tango_variance(lost: float, gained: float, n: float, delta: float) -> float:
    """Variance of lost - gained under delta in [0, 1], at the constrained estimate of P(gained)."""
    half_b = (-lost - gained + (2 * n - lost + gained) * delta) / 2
    minus_c = gained * delta * (1 - delta)
    root = math.sqrt(half_b**2 + 2 * n * minus_c)
    # Two forms of the larger root: each where it does not cancel.
    q = minus_c / (half_b + root) if half_b > 0 else (root - half_b) / (2 * n)
    return n * (2 * q + delta * (1 - delta))


def mover_bounds(parts: Sequence[tuple[float, float, Bounds]]) -> Bounds:
    """Bounds on a linear combination sum c_i t_i of independent estimates.

    The method of variance estimates recovery (MOVER). Each part is (c_i, t_i, bounds (l_i, u_i) of t_i), all
    at one confidence, which is the result's:

        lower = sum c_i t_i - sqrt(sum d_i^2), d_i = c_i (t_i - l_i) if c_i > 0, |c_i| (u_i - t_i) otherwise

    and upper with l and u exchanged.

    Source: Zou & Donner (2008), Statistics in Medicine 27:1693-1702.

    Raises:
        ValueError: no parts, a coefficient or value is not finite, or bounds that do not contain their value
            (as percentile bounds of a biased estimate may not; :func:`floor_bounds` makes them contain it).
    """
    if not parts:
        raise ValueError("a linear combination needs at least one part")
    total = below = above = 0.0
    for coefficient, value, bounds in parts:
        if not (math.isfinite(coefficient) and math.isfinite(value)):
            raise ValueError(f"coefficient and value must be finite, not {coefficient} and {value}")
        rounding = 1e-9 * max(1.0, abs(value))
        if not bounds.lower - rounding <= value <= bounds.upper + rounding:
            raise ValueError(f"the bounds {tuple(bounds)} do not contain their value {value}")
        if coefficient == 0:
            continue
        down, up = max(0.0, value - bounds.lower), max(0.0, bounds.upper - value)
        if coefficient < 0:
            down, up = up, down
        total += coefficient * value
        below += (coefficient * down) ** 2
        above += (coefficient * up) ** 2
    return Bounds(total - math.sqrt(below), total + math.sqrt(above))


def bootstrap_weights(n: int, resamples: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Blocks of how often each of n examples is drawn in each bootstrap resample, shape (block, n).

    A row is multinomial(n; 1/n, ..., 1/n) and sums to n; the blocks have ``resamples`` rows together. A mean
    is ``weights @ values / n``. A block has at most max(n, 4e6) counts, so memory does not grow with
    ``resamples``; the rows depend on the generator alone, not on where the blocks end.

    Source: Efron (1979), Annals of Statistics 7:1-26.

    Raises:
        ValueError: n or resamples below 1 (raised by the call itself, not by the first block).
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"n and resamples must be at least 1, not {n} and {resamples}")
    return _weight_blocks(n, resamples, generator)


def _weight_blocks(n: int, resamples: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    most_rows = max(1, MOST_WEIGHTS // n)
    for start in range(0, resamples, most_rows):
        rows = min(most_rows, resamples - start)
        # Drawing examples and counting them is several times faster than generator.multinomial, which draws n
        # binomials a row.
        drawn = generator.integers(n, size=(rows, n))
        drawn += n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def percentile_bounds(replicates: ArrayLike, confidence: float) -> Bounds:
    """Percentile bootstrap bounds, in the unit of the replicates.

    With a = 1 - confidence and B replicates, the (B + 1) a -th and the (B + 1)(1 - a) -th in order,
    interpolated. When (B + 1) a < 1 there is no such replicate and the bounds are infinite: B replicates say
    nothing further out than 1 / (B + 1).

    NaN replicates (a resample on which the quantity is undefined) are dropped while they are fewer than 1 %.

    Source: Davison & Hinkley (1997), Bootstrap Methods and their Application, sections 2.7 and 5.3.

    Raises:
        ValueError: replicates not of shape (B,), none, an infinite one, 1 % or more NaN, confidence outside
            (0.5, 1).
    """
    _check_confidence(confidence)
    values = np.asarray(replicates, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"replicates must have the shape (B,) with B >= 1, not {values.shape}")
    undefined = np.isnan(values)
    if undefined.mean() >= MOST_UNDEFINED:
        raise ValueError(f"{undefined.sum()} of {values.size} replicates are undefined (NaN)")
    values = values[~undefined]
    if np.isinf(values).any():
        raise ValueError("a replicate is infinite")
    alpha = 1 - confidence
    # The tolerance keeps 19 replicates enough for 0.95, whatever the rounding of 1 - 0.95.
    if (values.size + 1) * alpha < 1 - 1e-9:
        return Bounds(-math.inf, math.inf)
    lower, upper = np.quantile(values, [alpha, confidence], method="weibull")
    return Bounds(float(lower), float(upper))


def floor_bounds(bounds: Bounds, value: float, n: float, confidence: float, scale: float = 1.0) -> Bounds:
    """The bounds, widened where a side is nearer to ``value`` than scale * z^2 / (n + z^2).

    An interval of width zero from few examples is no evidence: a bootstrap of 20 examples without an error
    has one. z^2 / (n + z^2), z the ``confidence`` quantile of the normal distribution, is what
    :func:`tango_bounds` and the interval of Wilson (1927, JASA 22:209-212) give n examples among which
    nothing happened. ``scale`` is the range of the quantity per example, in its unit: 1 for a proportion or a
    difference of two paired ones. The result contains ``value`` and may leave the quantity's range.

    Raises:
        ValueError: n is not positive, scale is negative or not finite, value is not finite, a bound is NaN,
            confidence outside (0.5, 1).
    """
    _check_n(n)
    if not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f"scale must be finite and not negative, not {scale}")
    if not math.isfinite(value) or math.isnan(bounds.lower) or math.isnan(bounds.upper):
        raise ValueError(f"value and bounds must be numbers, not {value} and {tuple(bounds)}")
    z = _normal_quantile(confidence)
    least = scale * z**2 / (n + z**2)
    return Bounds(min(bounds.lower, value - least), max(bounds.upper, value + least))


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which of m hypotheses to reject so that any false rejection has a probability of at most alpha.

    In ascending order, the i-th p-value (i = 0, 1, ...) is rejected while p_i <= alpha / (m - i); the first
    that is not ends it. The tests need not be independent. The answer is in the order of ``p_values``.

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65-70. Not statsmodels' ``multipletests``, which collects
    garbage at every call: 70 ms beside a loaded model, for each family of every audit.

    Raises:
        ValueError: alpha outside (0, 1) or a p-value outside [0, 1].
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), not {alpha}")
    for p_value in p_values:
        if not 0 <= p_value <= 1:
            raise ValueError(f"a p-value must be in [0, 1], not {p_value}")
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > alpha / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def p_beyond(
    bounds_at: Callable[[float], Bounds],
    limit: float,
    side: Literal["above", "below"],
    resolution: float = 1e-6,
) -> float:
    """One-sided p-value of "not beyond the limit": small when the true value is shown to lie beyond it.

    The smallest alpha at which the bounds still show it, ``bounds_at(1 - alpha).lower > limit`` ("above") or
    ``.upper < limit`` ("below"). Bisection over [resolution, 0.5 - resolution]; bounds must not get narrower
    as the confidence rises. Rounded up by at most ``resolution`` and never less than it; 1 when not even the
    widest alpha shows it.

    Source: the duality of tests and confidence bounds, Lehmann & Romano (2005), section 3.5.

    Raises:
        ValueError: side is neither "above" nor "below", resolution outside (0, 0.25).
    """
    if side not in ("above", "below"):
        raise ValueError(f'side must be "above" or "below", not {side!r}')
    if not 0 < resolution < 0.25:
        raise ValueError(f"resolution must be in (0, 0.25), not {resolution}")

    def shown(alpha: float) -> bool:
        bounds = bounds_at(1 - alpha)
        return bounds.lower > limit if side == "above" else bounds.upper < limit

    low, high = resolution, 0.5 - resolution
    if not shown(high):
        return 1.0
    if shown(low):
        return low
    while high - low > resolution:
        middle = (low + high) / 2
        if shown(middle):
            high = middle
        else:
            low = middle
    return high


def examples_needed(decides_at: Callable[[float], bool], n: int, most: float = 1e4) -> int | None:
    """Smallest total number of examples, at least n, at which a verdict would fall; None when there is none.

    ``decides_at(f)`` says whether n f examples would decide if every count were f times what it is (f >= 1).
    Doubling, then bisection on whole totals up to n * ``most``; taken to stay true once it is true. A plan
    for a next audit, not a promise: it holds the observed rates fixed.

    Raises:
        ValueError: n below 1 or most below 1.
    """
    if n < 1 or not 1 <= most < math.inf:
        raise ValueError(f"n must be at least 1 and most finite and at least 1, not {n} and {most}")
    if decides_at(1.0):
        return n
    few, enough, ceiling = n, n, int(n * most)
    while True:
        if enough >= ceiling:
            return None
        few, enough = enough, min(2 * enough, ceiling)
        if decides_at(enough / n):
            break
    while enough - few > 1:
        middle = (few + enough) // 2
        if decides_at(middle / n):
            enough = middle
        else:
            few = middle
    return enough


def _normal_quantile(confidence: float) -> float:
    _check_confidence(confidence)
    return float(ndtri(confidence))


def _check_confidence(confidence: float) -> None:
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must be in (0.5, 1), not {confidence}")


def _check_n(n: float) -> None:
    if not 0 < n < math.inf:
        raise ValueError(f"n must be positive, not {n}")


def _check_pairs(lost: float, gained: float, n: float) -> None:
    _check_n(n)
    # Scaled counts may exceed n by their rounding.
    if not (lost >= 0 and gained >= 0 and lost + gained <= n * (1 + 1e-9)):
        raise ValueError(f"lost and gained must be counts of different examples of {n}, not {lost}, {gained}")
