"""The figures of all models of an audit under shift, as the exhibits of a report need them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pruneproof.estimates import Estimate
from pruneproof.shift.figures import Figures
from pruneproof.shift.members import sets, shifts
from pruneproof.shift.naming import CORRUPTED
from pruneproof.suite import Measurement, Member

if TYPE_CHECKING:
    from pruneproof.suites.shift import Options

CONFIDENCE = 0.95


class Shown:
    """The models that could be measured.

    Args:
        able: their figures, dense first.
    """

    def __init__(self, able: Sequence[Figures], options: Options) -> None:
        self.able, self.options = able, options
        self.facts = able[0].facts
        self.dense = able[0]
        self.record: dict[str, Any] = dict(able[0].seen.record)
        failed = [note["label"] for note in self.record.get("corruptions", []) if note["error"] is not None]
        self.inputs = [entry for entry in options.inputs if entry.called not in failed]
        """Corruptions that could be applied."""
        lost = [entry for entry in options.samplings if entry.called in failed]
        self.sets = [
            name for name in sets(self.facts, options) if not any(name.startswith(f"{one.called}@") for one in lost)
        ]
        """Sets of examples that were not changed, as far as they could be made."""

    def value(self, figures: Figures, name: str, member: Member | None) -> Measurement:
        """One metric of one model."""
        from pruneproof.suites.shift import SUITE

        return figures.measured(next(metric for metric in SUITE.metrics if metric.name == name), member)

    def excess_shifts(self) -> list[str]:
        """Shifts that excess error is measured on, of those that could be applied."""
        able = {*self.sets, *(entry.called for entry in self.inputs)}
        if len(self.inputs) == len(self.options.inputs):
            able.add(CORRUPTED)
        return [name for name in shifts("excess_error", self.facts, self.options) if name in able]


def number(made: Measurement) -> float | None:
    """Its value; ``None``: there is none."""
    if made.estimate is None:
        return None
    value = float(made.estimate.value)
    return value if math.isfinite(value) else None


def bounds(
    estimate: Estimate | None, least: float = -math.inf, most: float = math.inf
) -> tuple[float | None, float | None]:
    """Two one-sided bounds, as far as there are such values."""
    if estimate is None:
        return None, None
    low, high = estimate.bounds(CONFIDENCE)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None, None
    return float(max(low, least)), float(min(high, most))
