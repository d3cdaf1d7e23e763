"""Everything that a policy's suites measure of one model, as numbers and as rows of the evidence."""

from __future__ import annotations

from pruneproof import gates, policy
from pruneproof.estimates import Statistic
from pruneproof.evidence import MeasurementRow
from pruneproof.outcomes import Examples, Predictions
from pruneproof.policy import Policy
from pruneproof.suite import Context, Measurement


def measure(
    asked: Policy, variant: str, examples: Examples, said: Predictions, dense: Predictions
) -> dict[str, list[Measurement]]:
    """Everything that the policy's suites measure of one model."""
    context = Context(variant, examples.facts, examples, said, dense)
    return {name: policy.suite(name).measure(context, entry.options) for name, entry in asked.suites.items()}


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
    )
