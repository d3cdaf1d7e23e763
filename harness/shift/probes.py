"""What a survey asks beside fixed severities: noise, the severity that breaks a limit, foreign inputs, the search for
counterexamples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruneproof import inference
from pruneproof.errors import MeasurementError, PruneProofError
from pruneproof.observed import Observed
from pruneproof.outcomes import Floats, Predictions
from pruneproof.policy import DENSE
from pruneproof.shift import breaking as breakings
from pruneproof.shift import counterexample as search
from pruneproof.shift import detectors, features, material, similarity
from pruneproof.shift.breaking import Breaking, Point
from pruneproof.shift.changes import changes as may_change
from pruneproof.shift.disagreement import Rivals
from pruneproof.shift.formulas import Weighted
from pruneproof.shift.material import Material, Ready
from pruneproof.subject import Data

if TYPE_CHECKING:
    from pruneproof.shift.survey import Seat, Survey
    from pruneproof.shift.world import World
    from pruneproof.suites.shift import Counterexamples, Options

MOST_STARTS = 2000
"""Test examples that counterexamples are looked for near."""
BREAKING = "breaking/"
"""Before the label of a corruption in the names of arrays."""


def breaking(survey: Survey, ground: Material, rows: NDArray[np.int64]) -> None:
    """For every model the smallest severity of each corruption in question that breaks its limit."""
    reference = _hits(survey.predictions(DENSE).labels[rows], survey.examples.targets[rows])
    for asked in survey.options.breaking:
        if survey.note(asked.corruption)["error"] is not None:
            continue
        entry = next(one for one in survey.options.inputs if one.called == asked.corruption)
        ready = ground.ready(entry, survey.options.severities_of(entry), survey.models.folder)
        limit = _limit(asked.min_accuracy, asked.max_drop, reference)
        for seat in survey.standing:
            survey.models.progress(f"shift: what severity of {asked.corruption} breaks {seat.name}")
            key = BREAKING + asked.corruption
            try:
                found = breakings.breaking(Trial(survey, ground, ready, seat, rows).hits, limit)
                parameters = _parameters(ground, ready, found)
            except Exception as error:
                if seat.error is None:
                    # The corruption failed, between the severities that it was measured at: no fault of the model.
                    seat.record[key] = {"error": material.told(ready.label, error)}
                continue
            seat.record[key] = {
                "error": None,
                "severities": [point.severity for point in found.points],
                "parameters": parameters,
            }
            seat.arrays[key] = np.stack([point.hits for point in found.points])


@dataclass(frozen=True, eq=False)
class Trial:
    """One model on one corruption, at any severity."""

    survey: Survey
    ground: Material
    ready: Ready
    seat: Seat
    rows: NDArray[np.int64]

    def hits(self, severity: float) -> NDArray[np.bool_]:
        """``(m,)`` whether each of the examples at ``rows`` is right.

        Raises:
            MeasurementError: the model raised, or answered NaN.
        """
        survey, targets = self.survey, self.survey.examples.targets[self.rows]
        if severity == 0:
            return _hits(survey.predictions(self.seat.name).labels[self.rows], targets)
        labels = []
        for some, inputs in self.ground.batches(self.rows, survey.subject.batch_size):
            clean = self.ground.pick(inputs)
            (corrupted,) = survey.corrupted(self.ground, self.ready, some, clean, (severity,))
            what = f"corruption '{self.ready.label}' at severity {severity:g}"
            outputs = survey.ask(self.seat, self.ground.put(inputs, corrupted), what)
            if outputs is None:
                raise MeasurementError(self.seat.error or what, "see its cause")
            labels.append(Predictions(outputs, survey.facts, survey.examples.threshold).labels)
        return _hits(np.concatenate(labels), targets)


def _parameters(ground: Material, ready: Ready, found: Breaking) -> Mapping[str, Any] | None:
    """What the breaking severity comes to; ``None``: it never breaks."""
    bracket = found.bracket
    if bracket is None:
        return None
    return material.plain(ready.label, ready.found.parameters(ground.ground, bracket[1], ready.options))


def broken(world: World, seen: Observed, options: Options, label: str) -> Breaking:
    """What was kept of the search for the breaking severity of a corruption.

    Raises:
        MeasurementError: it could not be looked for.
    """
    asked = next(one for one in options.breaking if one.corruption == label)
    if BREAKING + label not in seen.arrays:
        reason = seen.record.get(BREAKING + label, {}).get("error") or world.failure(label)
        raise MeasurementError(reason, "mend the corruption, or leave it out")
    rows = world.corrupted
    reference = _hits(world.context.dense.labels[rows], world.context.examples.targets[rows])
    kept = zip(seen.record[BREAKING + label]["severities"], seen.arrays[BREAKING + label], strict=True)
    return Breaking(
        tuple(Point(float(severity), hits) for severity, hits in kept),
        _limit(asked.min_accuracy, asked.max_drop, reference),
    )


def _limit(least: float | None, drop: float | None, reference: NDArray[np.bool_]) -> Weighted:
    if least is not None:
        return breakings.absolute(least)
    assert drop is not None
    return breakings.under(reference, drop)


def _hits(labels: NDArray[np.int64], targets: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(labels == targets, dtype=bool)


def foreign(survey: Survey) -> None:
    """How foreign every model finds the test set and each foreign set: one score an example and detector."""
    for seat in survey.standing:
        survey.models.progress(f"shift: what {seat.name} does not know")
        outputs = [survey.predictions(seat.name).outputs]
        for name in survey.facts.foreign:
            data = survey.subject.foreign[name]
            try:
                found = inference.forward(seat.model, data, survey.subject.batch_size)
                outputs.append(inference.finite(found, seat.name))
            except PruneProofError as error:
                seat.error = f"foreign set '{name}': {error.cause} ({error.remedy})"
                break
        if seat.error is not None:
            continue
        every, problems = np.concatenate(outputs), {}
        for detector in survey.options.detectors:
            try:
                seat.arrays[f"ood/{detector}"] = _scores(survey, seat, detector, every)
            except PruneProofError as error:
                problems[detector] = f"{error.cause} ({error.remedy})"
        seat.record["detectors"] = problems


def _scores(survey: Survey, seat: Seat, detector: str, outputs: Floats) -> NDArray[np.float64]:
    simple = {"msp": detectors.msp, "max_logit": detectors.max_logit, "energy": detectors.energy}
    if detector in simple:
        return simple[detector](outputs)
    subject = survey.subject
    assert subject.calibration is not None
    known = _features(survey, seat, subject.calibration)
    if detector == "mahalanobis":
        labels = inference.targets_of(subject.calibration, subject.batch_size)
        fitted: Any = detectors.Mahalanobis(known, labels)
    else:
        fitted = detectors.Neighbours(known, survey.options.neighbours)
    sets = [subject.test, *(subject.foreign[name] for name in survey.facts.foreign)]
    return np.concatenate([fitted(_features(survey, seat, data)) for data in sets])


def _features(survey: Survey, seat: Seat, data: Data) -> NDArray[np.float32]:
    found = []
    first, _ = next(inference.batches(data, 2))
    with features.tap_of(seat.model, first, survey.options.layer) as tap:
        for inputs, _ in inference.batches(data, survey.subject.batch_size):
            inference.forward(seat.model, Data(inputs), survey.subject.batch_size)
            found.append(tap.take())
    return np.concatenate(found)


def noise(survey: Survey, ground: Material, rows: NDArray[np.int64]) -> None:
    """How alike every model and the dense one are as functions, on inputs that are more and more noise."""
    seats = survey.standing
    if len(seats) < 2 or seats[0].name != DENSE:
        return
    given: list[Any] = []

    def batches() -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        for some, inputs in ground.batches(rows, survey.subject.batch_size):
            given[:] = [inputs]
            yield some.tolist(), ground.pick(inputs)

    def answers(noisy: torch.Tensor) -> list[Predictions]:
        whole = ground.put(given[0], noisy)
        return [survey.said(seat, inference.each(whole, torch.clone), "noise") for seat in seats]

    survey.models.progress("shift: agreement under noise")
    options, uniform = survey.options, similarity.uniform(ground.ground)
    try:
        found = similarity.similarity(
            batches(), uniform, answers, options.noise, survey.models.seed, options.noise_samples
        )
    except MeasurementError as error:
        # One model that cannot answer noise has no number; without it the others do.
        broken = [seat for seat in seats if seat.error is not None]
        if not broken or broken[0].name == DENSE:
            for seat in seats:
                seat.error = seat.error or f"{error.cause} ({error.remedy})"
            return
        noise(survey, ground, rows)
        return
    for seat, one in zip(seats[1:], found, strict=True):
        seat.arrays["noise/match"], seat.arrays["noise/distance"] = one.matches, one.distances


def counterexamples(survey: Survey, ground: Material, asked: Counterexamples) -> None:
    """Realistic inputs that a variant decides otherwise than the dense model."""
    seats = survey.standing
    if not seats or seats[0].name != DENSE:
        return
    rows = material.sample(survey.facts.n, MOST_STARTS, survey.models.seed)
    clean = torch.cat([ground.pick(inputs) for _, inputs in ground.batches(rows, max(survey.subject.batch_size, 1))])
    try:
        changes = may_change(ground.ground, clean, rows.tolist(), survey.models.seed)
    except PruneProofError as caught:
        for seat in seats[1:]:
            seat.record["search"] = {
                "error": f"{caught.cause} ({caught.remedy})",
                "found": [],
                "says": "",
                "started": 0,
                "tried": 0,
            }
        return
    for seat in seats[1:]:
        survey.models.progress(f"shift: counterexamples to {seat.name}")
        asks = [lambda inputs, one=one: survey.said(one, inputs, "a changed example") for one in (seats[0], seat)]
        rivals = Rivals(asks[0], asks[1], changes, rows, survey.subject.batch_size, seat.name)
        problem: str | None = None
        try:
            within = math.inf if asked.within is None else asked.within
            found = search.counterexamples(rivals, survey.models.seed, asked.tries, asked.most, within)
        except Exception as raised:
            problem, found = material.told("counterexamples", raised), search.Search()
            seats[0].error = seat.error = None
        seat.record["search"] = {
            "error": problem,
            "started": found.started,
            "tried": found.tried,
            "found": sorted(found.records, key=lambda one: float(one["size"])),
            "says": found.says(),
        }
