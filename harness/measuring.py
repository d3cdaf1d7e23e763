"""Everything that a policy's suites measure of one model, as numbers and as rows of the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pruneproof import gates, policy
from pruneproof.estimates import Statistic
from pruneproof.evidence import MeasurementRow
from pruneproof.observed import Observed
from pruneproof.outcomes import Examples, Predictions
from pruneproof.policy import Policy
from pruneproof.suite import Context, Measurement, ObservingSuite


@dataclass(frozen=True, eq=False)
class Taken:
    """What the suites made of one model.

    Args:
        measured: suite → its measurements.
        failures: suite → why it has none.
    """

    measured: dict[str, list[Measurement]]
    failures: dict[str, str]


def context(
    variant: str, examples: Examples, said: Predictions, dense: Predictions, seen: Observed | None = None
) -> Context:
    """What a suite may look at to measure ``variant``."""
    return Context(variant, examples.facts, examples, said, dense, seen)


def measure(
    asked: Policy,
    variant: str,
    examples: Examples,
    said: Predictions,
    dense: Predictions,
    seen: Mapping[str, Observed] | None = None,
) -> Taken:
    """Everything that the policy's suites measure of one model.

    Args:
        seen: suite → what it observed of the model.
    """
    taken = Taken({}, {})
    for name, entry in asked.suites.items():
        suite = policy.suite(name)
        found = (seen or {}).get(name)
        if isinstance(suite, ObservingSuite) and (found is None or found.error is not None):
            taken.measured[name] = []
            taken.failures[name] = found.error if found is not None and found.error else "it was not observed"
        else:
            taken.measured[name] = suite.measure(context(variant, examples, said, dense, found), entry.options)
    return taken


def measurement_rows(asked: Policy, variant: str, measured: gates.Measured) -> list[MeasurementRow]:
    """Rows of the evidence; bootstrap intervals are left to the gates that need them."""
    return [_measurement_row(asked, variant, suite, entry) for suite, found in measured.items() for entry in found]


def _measurement_row(asked: Policy, variant: str, suite: str, entry: Measurement) -> MeasurementRow:
    estimate = entry.estimate
    bounded = estimate is not None and not isinstance(estimate, Statistic)
    return MeasurementRow(
        variant=variant,
        suite=suite,
        metric=entry.metric,
        segment={entry.member.column: entry.member.value} if entry.member else None,
        value=estimate.value if estimate is not None else None,
        unit=entry.unit,
        n=entry.n,
        interval=tuple(estimate.bounds(asked.audit.confidence)) if bounded and estimate is not None else None,
        method=estimate.method if estimate is not None else "",
        small=entry.small,
        note=entry.note,
        doubt=entry.doubt,
    )
