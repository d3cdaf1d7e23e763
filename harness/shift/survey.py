"""Every model of an audit on every shift: each corrupted batch is made once, and all models answer it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruneproof import inference
from pruneproof.corruptions import Corruption, Resampling
from pruneproof.errors import MeasurementError, PruneProofError
from pruneproof.observed import Observed, failed
from pruneproof.outcomes import Floats, Predictions
from pruneproof.policy import DENSE
from pruneproof.shift import material, windows
from pruneproof.shift.cells import CELL, Cell, stacked
from pruneproof.shift.draws import Draws
from pruneproof.shift.material import Material, Ready
from pruneproof.shift.naming import sampled
from pruneproof.subject import Data
from pruneproof.suite import Models

if TYPE_CHECKING:
    from pruneproof.suites.shift import Options


@dataclass(eq=False)
class Seat:
    """One model, and what was seen of it.

    Args:
        error: why nothing more is asked of it.
    """

    name: str
    model: torch.nn.Module
    record: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    error: str | None = None


class Survey:
    """What the shift suite observes.

    Args:
        models: all of them, dense first.
        options: of the suite.
    """

    def __init__(self, models: Models, options: Options) -> None:
        self.models, self.options = models, options
        self.subject, self.examples = models.loaded.subject, models.examples
        self.facts = self.examples.facts
        self.shared: dict[str, Any] = {}
        """What is the same for every model, in each one's record."""
        self.given: dict[str, NDArray[Any]] = {}
        """Arrays about the data, kept with the dense model."""
        self.seats: list[Seat] = []

    def run(self) -> dict[str, Observed]:
        """What was seen of each model; one that could not answer has an error of its own."""
        for name, build in self.models.models.items():
            self.seats.append(self._seat(name, build))
        self._sets()
        self._parts()
        if self.options.inputs or self.options.samplings or self.options.noise or self.options.counterexamples:
            self._changed(Material(self.subject, self.options, self.facts.classes))
        if self.facts.foreign:
            self._foreign()
        return {seat.name: self._observed(seat) for seat in self.seats}

    def _observed(self, seat: Seat) -> Observed:
        if seat.error is not None:
            return failed(seat.error)
        arrays = {**seat.arrays, **(self.given if seat.name == DENSE else {})}
        return Observed({**self.shared, **seat.record}, arrays)

    def _seat(self, name: str, build: Callable[[], torch.nn.Module]) -> Seat:
        try:
            return Seat(name, build())
        except PruneProofError as error:
            return Seat(name, torch.nn.Identity(), error=f"{error.cause} ({error.remedy})")

    @property
    def standing(self) -> list[Seat]:
        """Models that answered everything until now."""
        return [seat for seat in self.seats if seat.error is None]

    def ask(self, seat: Seat, inputs: Any, what: str) -> Floats | None:
        """Outputs of one model; ``None``, and its error kept, where it raised or answered NaN."""
        try:
            found = inference.forward(seat.model, Data(inputs), self.subject.batch_size)
            return inference.finite(found, seat.name)
        except PruneProofError as error:
            seat.error = f"{what}: {error.cause} ({error.remedy})"
            return None

    def said(self, seat: Seat, inputs: Any, what: str) -> Predictions:
        """As :meth:`ask`.

        Raises:
            MeasurementError: it raised, or answered NaN; its error is kept.
        """
        found = self.ask(seat, inputs, what)
        if found is None:
            raise MeasurementError(seat.error or what, "see its cause")
        return Predictions(found, self.facts, self.examples.threshold)

    def _sets(self) -> None:
        """The further test sets, measured like the test set."""
        for place, name in enumerate(self.facts.shifted):
            data = self.subject.shifted[name]
            self.models.progress(f"shift: {name}, {self.facts.shifted[name]:,} examples")
            self.given[f"targets/{place}"] = inference.targets_of(data, self.subject.batch_size)
            self.given[f"groups/{place}"] = material.groups(data, self.facts.shifted[name], self.options, name)
            for seat in self.standing:
                try:
                    found = inference.forward(seat.model, data, self.subject.batch_size)
                    seat.arrays[f"outputs/{place}"] = inference.finite(found, seat.name)
                except PruneProofError as error:
                    seat.error = f"shifted set '{name}': {error.cause} ({error.remedy})"
        self.shared["shifted"] = dict(self.facts.shifted)

    def _parts(self) -> None:
        """Parts of the test set by time."""
        if self.options.by_time is None:
            return
        when = windows.times(self.subject.test, self.options.by_time)
        for name, inside in windows.cut(when, self.options.windows):
            self.given[f"part/{name}"] = inside
        if self.options.period is not None:
            names, codes = windows.periods(when, self.options.period)
            self.shared["periods"] = names
            self.given["periods"] = codes
        self.shared["times"] = [str(when.min()), str(when.max())]

    def _changed(self, ground: Material) -> None:
        rows = material.sample(self.facts.n, self.options.most, self.models.seed)
        self.given["rows"] = rows
        self.shared["kind"] = ground.ground.kind
        self.shared["corruptions"] = []
        for entry in self.options.corruptions:
            label, levels = entry.called, self.options.severities_of(entry)
            self.models.progress(f"shift: {label}")
            note: dict[str, Any] = {"label": label, "name": entry.name, "severities": list(levels), "error": None}
            self.shared["corruptions"].append(note)
            try:
                ready = ground.ready(entry, levels, self.models.folder)
                note["own"] = ready.options.model_dump(mode="json")
                note["parameters"] = [
                    material.plain(label, ready.found.parameters(ground.ground, level, ready.options))
                    for level in levels
                ]
                if isinstance(ready.found, Resampling):
                    self._resample(ground, ready)
                else:
                    note["changed"] = self._corrupt(ground, ready, rows)
            except Exception as error:
                note["error"] = material.told(label, error)
        self._further(ground, rows)

    def _resample(self, ground: Material, ready: Ready) -> None:
        """Which test examples a resampling keeps; no model is asked again."""
        assert isinstance(ready.found, Resampling)
        n = self.facts.n
        draws = Draws(self.models.seed, ready.label, range(n))
        targets = torch.tensor(self.examples.targets)
        segments = self.examples.segments if self.subject.test.segments is None else self.subject.test.segments
        for severity in ready.severities:
            kept = ready.found.kept(
                ground.ground.test,
                targets,
                segments.reset_index(drop=True),
                ground.ground,
                severity,
                draws.rewound(),
                ready.options,
            )
            self.given[f"part/{sampled(ready.label, severity)}"] = np.asarray(kept, dtype=bool).reshape(n)

    def _corrupt(self, ground: Material, ready: Ready, rows: NDArray[np.int64]) -> list[float]:
        """All models on one corruption; the share of examples that each severity changed."""
        cells: dict[str, list[list[Cell]]] = {seat.name: [[] for _ in ready.severities] for seat in self.standing}
        changed = np.zeros(len(ready.severities))
        for some, inputs in ground.batches(rows, self.subject.batch_size):
            clean = ground.pick(inputs)
            for place, corrupted in enumerate(self.corrupted(ground, ready, some, clean, ready.severities)):
                self._by_itself(ground, ready, some, clean, corrupted, ready.severities[place], some[0] == rows[0])
                different = (corrupted != clean) & ~(_missing(corrupted) & _missing(clean))
                changed[place] += int(different.reshape(len(clean), -1).any(dim=1).sum())
                whole = ground.put(inputs, corrupted)
                for seat in self.standing:
                    what = f"corruption '{ready.label}' at severity {ready.severities[place]}"
                    found = self.ask(seat, inference.each(whole, torch.clone), what)
                    if found is not None:
                        cells[seat.name][place].append(self.cell(found, some))
        for seat in self.standing:
            seat.arrays |= {f"{CELL}{ready.label}/{key}": kept for key, kept in stacked(cells[seat.name]).items()}
        return [float(count / len(rows)) for count in changed]

    def corrupted(
        self,
        ground: Material,
        ready: Ready,
        rows: NDArray[np.int64],
        clean: torch.Tensor,
        severities: tuple[float, ...],
    ) -> Iterator[torch.Tensor]:
        """Examples at each severity, with the same random numbers."""
        assert isinstance(ready.found, Corruption)
        draws = Draws(self.models.seed, ready.label, rows.tolist())
        for severity in severities:
            found = ready.found.apply(clean.clone(), ground.ground, severity, draws.rewound(), ready.options)
            yield material.sound(ready.label, clean, found, ground.ground)

    def _by_itself(
        self,
        ground: Material,
        ready: Ready,
        rows: NDArray[np.int64],
        clean: torch.Tensor,
        corrupted: torch.Tensor,
        severity: float,
        first: bool,
    ) -> None:
        """Corrupts some examples of a batch again, each alone: rows that were mixed up would not fit their targets.

        Args:
            first: it is the first batch, of which both ends are looked at as well; of each batch two at random.

        Raises:
            MeasurementError: they become something else.
        """
        drawn = np.random.default_rng([self.models.seed, int(rows[0])]).integers(len(rows), size=2).tolist()
        for place in sorted({0, *drawn, len(rows) - 1} if first else set(drawn)):
            one = slice(place, place + 1)
            (alone,) = self.corrupted(ground, ready, rows[one], clean[one], (severity,))
            same = (alone == corrupted[one]) | (_missing(alone) & _missing(corrupted[one]))
            if corrupted.is_floating_point():
                # Ours are the same to the last bit; another one's arithmetic may round otherwise in a batch.
                same |= torch.isclose(alone, corrupted[one], rtol=1e-4, atol=1e-6)
            if not bool(same.all()):
                raise MeasurementError(
                    f"corruption '{ready.label}' at severity {severity:g} makes something else of test example "
                    f"{rows[place]} alone than in a batch of {len(rows)}",
                    "what becomes of an example may depend on it and its own draws alone: mend the corruption",
                )

    def cell(self, outputs: Floats, rows: NDArray[np.int64]) -> Cell:
        """What is kept of answers to corrupted examples."""
        said = Predictions(outputs, self.facts, self.examples.threshold)
        return Cell.of(said, self.examples.targets[rows])

    def _further(self, ground: Material, rows: NDArray[np.int64]) -> None:
        """Noise, breaking severities and counterexamples."""
        from pruneproof.shift import probes

        if self.options.noise:
            probes.noise(self, ground, rows)
        if self.options.breaking:
            probes.breaking(self, ground, rows)
        if self.options.counterexamples is not None:
            probes.counterexamples(self, ground, self.options.counterexamples)

    def _foreign(self) -> None:
        from pruneproof.shift import probes

        probes.foreign(self)

    def predictions(self, name: str) -> Predictions:
        """Of a model, on the clean test set."""
        return self.models.predictions[name]

    def note(self, label: str) -> Mapping[str, Any]:
        """What is recorded of a corruption."""
        found: Mapping[str, Any] = next(one for one in self.shared["corruptions"] if one["label"] == label)
        return found


def _missing(values: torch.Tensor) -> torch.Tensor:
    return values.isnan() if values.is_floating_point() else torch.zeros_like(values, dtype=torch.bool)
