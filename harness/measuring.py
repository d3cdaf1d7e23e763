"""Everything that a policy's suites measure of one model, as numbers and as rows of the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pruneproof import gates, policy
from pruneproof.estimates import drawn
from pruneproof.evidence import MeasurementRow
from pruneproof.observed import Observed
from pruneproof.outcomes import Examples, Predictions
from pruneproof.policy import DENSE, Policy
from pruneproof.suite import Context, Measurement, ObservingSuite, Sibling


@dataclass(frozen=True, eq=False)
class Taken:
    """What the suites made of one model.

    Args:
        measured: suite → its measurements.
        failures: suite → why it has none.
    """

    measured: dict[str, list[Measurement]]
    failures: dict[str, str]


Seen = Callable[[str, str], Observed | None]


@dataclass(frozen=True, eq=False)
class Family:
    """All models of an audit that were predicted.

    Args:
        examples: the test set.
        said: model → its predictions, dense among them.
        seen: ``seen(model, suite)``: reads what the suite saw of the model; ``None``: nothing.
    """

    asked: Policy
    examples: Examples
    said: Mapping[str, Predictions]
    seen: Seen

    def context(self, variant: str, suite: str) -> Context:
        """What ``suite`` may look at to measure ``variant``."""
        if not isinstance(policy.suite(suite), ObservingSuite):
            return self._context(variant, None, {})
        return self._context(variant, self.seen(variant, suite), self._siblings(suite))

    def _context(self, variant: str, own: Observed | None, siblings: Mapping[str, Sibling]) -> Context:
        examples, said = self.examples, self.said
        asked = {
            spec.name: (spec.name.rpartition("@")[0], spec.ratio)
            for spec in policy.variants(self.asked)
            if spec.ratio is not None
        }
        return Context(variant, examples.facts, examples, said[variant], said[DENSE], own, siblings, asked)

    def _siblings(self, suite: str) -> dict[str, Sibling]:
        specs = {spec.name: spec for spec in policy.variants(self.asked)}
        found = {}
        for name, said in self.said.items():
            spec = specs.get(name)
            recipe = None if spec is None or spec.ratio is None else name.rpartition("@")[0]
            ratio = None if spec is None else spec.ratio
            found[name] = Sibling(recipe, ratio, said, partial(self.seen, name, suite))
        return found

    def measure(self, variant: str) -> Taken:
        """Everything that the policy's suites measure of one model."""
        taken = Taken({}, {})
        for name, entry in self.asked.suites.items():
            suite, context = policy.suite(name), self.context(variant, name)
            found = context.observed
            if isinstance(suite, ObservingSuite) and (found is None or found.error is not None):
                taken.measured[name] = []
                taken.failures[name] = found.error if found is not None and found.error else "it was not observed"
            else:
                taken.measured[name] = suite.measure(context, entry.options)
        return taken


def measurement_rows(asked: Policy, variant: str, measured: gates.Measured) -> list[MeasurementRow]:
    """Rows of the evidence; bootstrap intervals are left to the gates that need them."""
    return [_measurement_row(asked, variant, suite, entry) for suite, found in measured.items() for entry in found]


def _measurement_row(asked: Policy, variant: str, suite: str, entry: Measurement) -> MeasurementRow:
    estimate = entry.estimate
    bounded = estimate is not None and not drawn(estimate)
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
