"""What a campaign observed of one variant, read back: one result an attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruneproof.adversarial import checks
from pruneproof.estimates import Proportion, Sequential
from pruneproof.observed import Observed
from pruneproof.outcomes import Examples


@dataclass(frozen=True, eq=False)
class Result:
    """One attack on one variant.

    Args:
        record: its plain values.
        arrays: its arrays, see :class:`~pruneproof.adversarial.trace.Trace`.
        sequential: whether the sample grew until it decided, which asks for bounds of another kind.
    """

    record: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    sequential: bool

    @property
    def label(self) -> str:
        return str(self.record["label"])

    @property
    def rows(self) -> NDArray[np.int64]:
        """Positions in the test set, in the order in which they were attacked."""
        return self.arrays["rows"].astype(np.int64)

    @property
    def clean(self) -> NDArray[np.bool_]:
        """Of each row: whether it was right without an attack."""
        return self.arrays["clean"].astype(bool)

    def stood(self, budget: float | None = None) -> NDArray[np.bool_]:
        """Of each row: whether it was right and still is, within ``budget`` (default: the entry's eps)."""
        level = self.record["budgets"].index(self.record["eps"] if budget is None else budget)
        at = self.arrays["budget"]
        return np.asarray(self.clean & ~((at >= 0) & (at <= level)), dtype=bool)

    def share(self, rows: NDArray[np.int64], hits: NDArray[np.bool_]) -> Proportion | Sequential:
        """The share of ``hits`` among ``rows`` of the sample, with bounds that its kind allows."""
        return Sequential(rows, hits) if self.sequential else Proportion(rows, hits)

    @cached_property
    def checks(self) -> list[checks.Check]:
        """The strength checks, judged."""
        return [
            checks.judge(checks.Observation(entry["name"], entry["numbers"], entry["not_applicable"]))
            for entry in self.record["checks"]
        ]

    @property
    def doubt(self) -> str:
        """Why a PASS must not rest on it; "" where nothing speaks against it."""
        failed = [check for check in self.checks if check.state == "failed"]
        if failed:
            return "; ".join(f"strength check {check.name} failed: {check.says}" for check in failed)
        if not self.record["checks"]:
            return f"its strength could not be checked: {self.record['unchecked'] or 'nothing was attacked'}"
        if not any(check.state == "held" for check in self.checks):
            return "no strength check could show that the attack works: too few examples"
        return ""


def results(seen: Observed) -> list[Result]:
    """Of each attack, in the policy's order."""
    found = []
    for place, record in enumerate(seen.record["attacks"]):
        prefix = f"attack{place}/"
        arrays = {name.removeprefix(prefix): array for name, array in seen.arrays.items() if name.startswith(prefix)}
        found.append(Result(record, arrays, bool(seen.record["sequential"])))
    return found


def goal(seen: Observed, place: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of a goal, and whether each was brought to it."""
    return seen.arrays[f"goal{place}/rows"].astype(np.int64), seen.arrays[f"goal{place}/hits"].astype(bool)


def of_class(examples: Examples, label: int) -> NDArray[np.bool_]:
    """``(test set,)`` booleans."""
    return np.asarray(examples.targets == label)
