"""The adversarial suite's numbers, from what a campaign observed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pruneproof.adversarial.entries import WORST, spelled
from pruneproof.adversarial.results import Result, goal, of_class, results
from pruneproof.estimates import Proportion, Statistic
from pruneproof.suite import Context, Found, Measurement, Member, Metric, measurement

if TYPE_CHECKING:
    from pruneproof.suites.adversarial import Options


def measured(metric: Metric, member: Member, context: Context, options: Options) -> Measurement:
    """One metric of one member of its family."""
    assert context.observed is not None
    found = results(context.observed)
    by_label = {result.label: result for result in found}
    if metric.family == "attack" and member.value != WORST:
        result = by_label[member.value]
        made = _of_attack(metric.name, result, context.facts.n)
        return _with(metric, member, made, [result], note=_sampled(result, context))
    if metric.family == "budget":
        result = by_label[member.column]
        budget = next(one for one in result.record["budgets"] if spelled(one) == member.value)
        return _with(metric, member, result.share(result.rows, result.stood(budget)), [result])
    if metric.family == "goal":
        place = [one.called for one in options.goals].index(member.value)
        rows, hits = goal(context.observed, place)
        made = Proportion(rows, hits) if len(rows) else f"no test example is of class {member.value.split('->')[0]}"
        return _with(metric, member, made, found[:1], small=len(rows) < options.min_n)
    if metric.family == "source":
        return _transferred(metric, member, found[0], context)
    rows, stood = worst(found)
    if metric.family == "attack":
        return _with(metric, member, found[0].share(rows, stood), found)
    inside = _members(metric, member, context)[rows]
    made = found[0].share(rows[inside], stood[inside]) if inside.any() else "no example of it was attacked"
    return _with(metric, member, made, found, small=int(inside.sum()) < options.min_n)


def worst(found: list[Result]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows that every attack was tried on, and whether they stand under all of them (the mean of minima, not the
    minimum of means)."""
    shortest = min(found, key=lambda result: len(result.rows))
    rows = shortest.rows
    stood = np.ones(len(rows), dtype=bool)
    for result in found:
        at = dict(zip(result.rows.tolist(), result.stood().tolist(), strict=True))
        stood &= np.array([at[row] for row in rows.tolist()], dtype=bool)
    return rows, stood


def _of_attack(name: str, result: Result, size: int) -> Found:
    if name == "robust_accuracy":
        return result.share(result.rows, result.stood())
    right = result.clean
    if not right.any():
        return "the model gets none of the examples right"
    rows, fell = result.rows[right], ~result.stood()[right]
    if name == "attack_success_rate":
        return result.share(rows, fell)
    if result.sequential:
        return "medians have no interval that holds when a sample stops as soon as it decides; attack a fixed sample"
    if name == "median_perturbation":
        distance = np.where(fell, result.arrays["distance"][right], result.record["eps"])
        return _median(rows, np.minimum(distance, result.record["eps"]), size, float(result.record["eps"]))
    if not result.record["queries"]:
        return "this attack is not counted in queries"
    most = float(result.record["queries"])
    queries = result.arrays["queries"][right]
    return _median(rows, np.where(fell & ~np.isnan(queries), queries, most), size, most)


def _median(rows: NDArray[np.int64], values: NDArray[np.float64], size: int, spread: float) -> Statistic:
    """The median of values that are cut off at ``spread``: examples that stood count as that much."""
    full = np.zeros(size)
    full[rows] = values
    order = np.argsort(full[rows], kind="stable")
    ordered, places = full[rows][order], rows[order]

    def weighted(weights: NDArray[np.int64]) -> float:
        counts = np.cumsum(weights[places])
        if not len(counts) or counts[-1] == 0:
            return float("nan")
        low = ordered[np.searchsorted(counts, counts[-1] / 2)]
        high = ordered[min(np.searchsorted(counts, counts[-1] / 2, side="right"), len(ordered) - 1)]
        return float((low + high) / 2)

    return Statistic(rows=rows, weighted=weighted, support=len(rows), size=size, spread=spread)


def _members(metric: Metric, member: Member, context: Context) -> NDArray[np.bool_]:
    if metric.family == "class":
        return of_class(context.examples, context.facts.classes.index(member.value))
    return np.asarray(context.examples.segments[member.column] == member.value, dtype=bool)


def _transferred(metric: Metric, member: Member, result: Result, context: Context) -> Measurement:
    hits, n = result.record["transfer"].get(member.value, (0, 0))
    if not n:
        return _with(metric, member, f"no point of {member.value} to try", [result])
    made = Proportion(np.arange(n), np.arange(n) < hits)
    note = f"points that fool {member.value}, on examples that both get right"
    return _with(metric, member, made, [], note=note, small=n < 30)


def _sampled(result: Result, context: Context) -> str:
    n = len(result.rows)
    return "" if n == context.facts.n else f"{n} of {context.facts.n} examples attacked"


def _with(
    metric: Metric, member: Member, found: Found, basis: list[Result], note: str = "", small: bool = False
) -> Measurement:
    made = measurement(metric, member, found, getattr(found, "support", 0), small, note)
    doubts = [f"{result.label}: {result.doubt}" if len(basis) > 1 else result.doubt for result in basis if result.doubt]
    return Measurement(
        made.metric, made.member, made.estimate, made.n, made.unit, made.note, made.small, "; ".join(doubts)
    )
