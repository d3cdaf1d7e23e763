"""All examples that the shift suite knows of, one after the other: the test set, the shifted sets, the foreign ones.

An estimate's ``rows`` are positions among them, so that numbers of several sets can be combined.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruneproof.errors import MeasurementError
from pruneproof.estimates import Rows
from pruneproof.observed import Observed
from pruneproof.outcomes import Examples, Predictions
from pruneproof.policy import DENSE
from pruneproof.shift.cells import unstacked
from pruneproof.shift.formulas import Errors
from pruneproof.shift.naming import CORRUPTED, NOMINAL, after, before, parts
from pruneproof.suite import Context, Sibling

if TYPE_CHECKING:
    from pruneproof.suites.shift import Options


class World:
    """What a context holds, by shift.

    Args:
        context: of one variant.
        options: of the suite.

    Raises:
        MeasurementError: the dense model could not be observed: there is nothing to compare with.
    """

    def __init__(self, context: Context, options: Options) -> None:
        self.context, self.options, self.facts = context, options, context.facts
        dense = context.siblings[DENSE].seen() if DENSE in context.siblings else None
        if dense is None or dense.error is not None:
            reason = dense.error if dense is not None else "it was not observed"
            raise MeasurementError(f"the dense model under shift: {reason}", "mend that first")
        self.dense = dense
        self.given = dense.arrays
        """Arrays about the data."""
        self.labels = frozenset(entry.called for entry in options.inputs)
        """Of corruptions that change inputs."""
        self._said: dict[int, Predictions] = {}
        self._errors: dict[tuple[int, str, bool], Errors] = {}
        self.offset: dict[str, int] = {}
        at = self.facts.n
        for name, size in {**self.facts.shifted, **{f"foreign/{k}": n for k, n in self.facts.foreign.items()}}.items():
            self.offset[name], at = at, at + size

    @cached_property
    def examples(self) -> Examples:
        """The test set and the shifted ones."""
        own = self.context.examples
        further = [self.given[f"targets/{place}"] for place in range(len(self.facts.shifted))]
        targets: Any = np.concatenate([own.targets, *further]).astype(own.targets.dtype)
        return replace(own, targets=targets)

    @property
    def size(self) -> int:
        """Examples that have a true answer."""
        return self.facts.n + sum(self.facts.shifted.values())

    def said(self, sibling: Sibling) -> Predictions:
        """A model's answers to :attr:`examples`."""
        if id(sibling) not in self._said:
            seen = observed(sibling)
            further = [seen.arrays[f"outputs/{place}"] for place in range(len(self.facts.shifted))]
            outputs = np.concatenate([sibling.predictions.outputs, *further])
            self._said[id(sibling)] = Predictions(outputs, self.facts, self.context.examples.threshold)
        return self._said[id(sibling)]

    @property
    def clean(self) -> Rows:
        """The test set."""
        return np.arange(self.facts.n, dtype=np.int64)

    def rows(self, shift: str) -> Rows:
        """Positions of a set of examples that were not changed.

        Raises:
            MeasurementError: the resampling could not be carried out.
        """
        if shift == NOMINAL:
            return self.clean
        if shift in self.facts.shifted:
            start = self.offset[shift]
            return np.arange(start, start + self.facts.shifted[shift], dtype=np.int64)
        if f"part/{shift}" not in self.given:
            raise MeasurementError(self.failure(shift.rpartition("@")[0]), "mend the corruption, or leave it out")
        return np.flatnonzero(self.given[f"part/{shift}"])

    def base(self, shift: str) -> tuple[Rows, float]:
        """Examples that a shift is held against, and the weight of the difference to them.

        A shifted set against the test set; a window of time, and what came after it, against what came before. A
        resampling is a part of the test set: its difference to the whole is ``1 - n_part / n`` times that to the rest,
        which are other examples.
        """
        if shift in self.facts.shifted:
            return self.clean, 1.0
        for window, (start, _) in self.options.windows.items():
            if shift in (window, after(window)):
                other = before(window) if start else after(window) if shift == window else window
                return self.rows(other), 1.0
        rest = np.setdiff1d(self.clean, self.rows(shift), assume_unique=True)
        return rest, len(rest) / self.facts.n

    def timed(self, shift: str) -> bool:
        """Whether it is a part of the test set by time."""
        return shift in parts(self.options.windows)

    @property
    def corrupted(self) -> Rows:
        """Positions of the test examples that were corrupted."""
        return np.asarray(self.given["rows"], dtype=np.int64)

    def cells(self, seen: Observed, label: str) -> dict[str, NDArray[Any]]:
        """Arrays ``(severities, m)`` of one model's answers to a corruption.

        Raises:
            MeasurementError: it could not be applied.
        """
        found = unstacked(seen.arrays, label)
        if found is None:
            raise MeasurementError(self.failure(label), "mend the corruption, or leave it out")
        return dict(found)

    def failure(self, label: str) -> str:
        """Why there are no answers to a corruption."""
        found = next((one for one in self.dense.record.get("corruptions", ()) if one["label"] == label), None)
        return str(found["error"]) if found is not None and found["error"] else f"'{label}' was not observed"

    def errors(self, sibling: Sibling, shift: str) -> Errors:
        """What a model got wrong under a shift; of a corruption, severity by severity.

        Raises:
            MeasurementError: the corruption could not be applied.
        """
        key = (id(sibling), shift, True)
        if key not in self._errors:
            self._errors[key] = self._wrong(sibling, shift)
        return self._errors[key]

    def _wrong(self, sibling: Sibling, shift: str) -> Errors:
        if shift == CORRUPTED:
            every = [self.errors(sibling, entry.called) for entry in self.options.inputs]
            # Every corruption weighs the same, however many severities it has.
            most = math.lcm(*(one.cells for one in every))
            wrong = np.concatenate([np.repeat(one.wrong, most // one.cells, axis=0) for one in every])
            return Errors(wrong, _broadcast(every[0].counted, wrong))
        if shift in self.labels:
            answers = self.cells(observed(sibling), shift)["answers"]
            return self._spread(self.corrupted, answers != self.examples.targets[self.corrupted][None])
        said, rows = self.said(sibling), self.rows(shift)
        return self._spread(rows, (said.labels != self.examples.targets)[rows][None])

    def errors_before(self, sibling: Sibling, shift: str) -> Errors:
        """What it got wrong without the shift: corrupted examples when they were clean, or :meth:`base`."""
        key = (id(sibling), shift, False)
        if key not in self._errors:
            self._errors[key] = self._wrong_before(sibling, shift)
        return self._errors[key]

    def _wrong_before(self, sibling: Sibling, shift: str) -> Errors:
        if shift == CORRUPTED or shift in self.labels:
            rows = self.corrupted
        elif shift in self.facts.shifted or self.timed(shift):
            rows = self.base(shift)[0]
        else:
            rows = self.clean
        said = self.said(sibling)
        return self._spread(rows, (said.labels != self.examples.targets)[rows][None])

    def _spread(self, rows: Rows, wrong: NDArray[np.bool_]) -> Errors:
        full = np.zeros((len(wrong), self.size), dtype=bool)
        full[:, rows] = wrong
        counted = np.zeros((1, self.size), dtype=bool)
        counted[:, rows] = True
        return Errors(full, np.broadcast_to(counted, full.shape))

    def family(self) -> list[tuple[float, Sibling]]:
        """The variants of this one's recipe, by ratio, as far as they were observed."""
        return [(ratio, one) for ratio, one in self._recipe() if one.observed is not None]

    def lost(self) -> list[float]:
        """Ratios of this one's recipe at which the variant could not be built, or not be observed."""
        seen = {ratio for ratio, _ in self.family()}
        own = self.context.siblings[self.context.variant].recipe
        return sorted(ratio for recipe, ratio in self.context.asked.values() if recipe == own and ratio not in seen)

    def _recipe(self) -> list[tuple[float, Sibling]]:
        own = self.context.siblings[self.context.variant]
        found = [
            (one.ratio, one)
            for one in self.context.siblings.values()
            if own.recipe is not None and one.recipe == own.recipe and one.ratio is not None
        ]
        return sorted(found, key=lambda pair: pair[0])


def _broadcast(counted: NDArray[np.bool_] | None, like: NDArray[np.generic]) -> NDArray[np.bool_]:
    assert counted is not None
    return np.broadcast_to(counted[:1], like.shape)


def observed(sibling: Sibling) -> Observed:
    """What was seen of a model.

    Raises:
        MeasurementError: nothing.
    """
    found = sibling.observed
    if found is None:
        raise MeasurementError("a model that is compared with was not observed", "see its own errors")
    return found
