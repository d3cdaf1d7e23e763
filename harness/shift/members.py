"""What the shift suite's metrics are measured on, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.shift.naming import CORRUPTED, NOMINAL, before, parts, sampled
from pruneproof.suite import Facts, Member, Metric

if TYPE_CHECKING:
    from pruneproof.suites.shift import Options

ALSO_CORRUPTIONS = (
    "effective_robustness",
    "excess_error",
    "excess_error_slope",
    "prune_potential",
    "unbroken_potential",
)
"""Metrics of a shift that are defined for a corruption, the mean over its severities, as well."""
AGAINST_CLEAN = ("accuracy_drop", "fpr_rise", "fnr_rise")
POTENTIALS = ("prune_potential", "unbroken_potential")


def of(metric: Metric, facts: Facts, options: Options) -> tuple[Member, ...]:
    """The members of ``metric``'s family, in a stable order."""
    if metric.family == "severity":
        return tuple(
            Member(entry.called, str(severity)) for entry in options.inputs for severity in options.severities_of(entry)
        )
    if metric.family == "corruption":
        labels = [entry.called for entry in options.inputs]
        if metric.name == "breaking_severity":
            labels = [entry.corruption for entry in options.breaking]
        return tuple(Member("corruption", label) for label in labels)
    if metric.family == "noise":
        return tuple(Member("noise", f"{level:g}") for level in options.noise)
    if metric.family == "detector":
        return tuple(Member(name, detector) for name in facts.foreign for detector in options.detectors)
    return tuple(Member("shift", name) for name in shifts(metric.name, facts, options))


def shifts(metric: str, facts: Facts, options: Options) -> list[str]:
    """The shifts that ``metric`` is measured on."""
    found = sets(facts, options)
    if metric in AGAINST_CLEAN or metric in ALSO_CORRUPTIONS:
        first = {before(name) for name in options.windows}
        found = [name for name in found if name not in first]
    if metric in ALSO_CORRUPTIONS:
        found += [entry.called for entry in options.inputs]
        found += [CORRUPTED] if len(options.inputs) > 1 else []
    return [NOMINAL, *found] if metric in POTENTIALS else found


def sets(facts: Facts, options: Options) -> list[str]:
    """Sets of examples that were not changed: further test sets, parts of the test set by time, and resamplings of
    it."""
    tilted = [sampled(entry.called, level) for entry in options.samplings for level in options.severities_of(entry)]
    return [*facts.shifted, *parts(options.windows), *tilted]
