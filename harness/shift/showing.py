"""The shift suite's chapter of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pruneproof import metrics
from pruneproof.corruptions import SEVERITIES
from pruneproof.estimates import Estimate
from pruneproof.exhibits import Band, Chapter, Exhibit, Gallery, Line, Matrix, Multiples, Panel, Shot, Table
from pruneproof.policy import DENSE
from pruneproof.shift.figures import Figures
from pruneproof.shift.members import sets
from pruneproof.shift.naming import CORRUPTED, NOMINAL
from pruneproof.suite import BINARY, CLASSIFICATION, Context, Measurement, Member, Metric

if TYPE_CHECKING:
    from pruneproof.suites.shift import Options

Row = list[str | int | float | None]
CONFIDENCE = 0.95


def chapter(contexts: Sequence[Context], options: Options) -> Chapter:
    """Everything that reports show of the survey, dense first."""
    broken: list[Row] = [
        [one.variant, one.observed.error] for one in contexts if one.observed is not None and one.observed.error
    ]
    able = [Figures(one, options) for one in contexts if one.observed is not None and one.observed.error is None]
    exhibits: list[Exhibit] = []
    if broken:
        exhibits.append(Table(title="Variants that could not be measured", columns=["variant", "why"], rows=broken))
    if able and able[0].context.variant == DENSE:
        exhibits += Showing(able, options).exhibits()
    return Chapter(suite="shift", title="Shifted data", exhibits=exhibits)


class Showing:
    """The exhibits of the models that could be measured.

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
        lost = [entry for entry in options.samplings if entry.called in failed]
        self.sets = [
            name for name in sets(self.facts, options) if not any(name.startswith(f"{one.called}@") for one in lost)
        ]

    def exhibits(self) -> Iterator[Exhibit]:
        """All of them, in the order to be read."""
        yield from self._sets()
        yield from self._corruptions()
        if self.facts.task in CLASSIFICATION:
            yield from self._potentials()
            yield from self._by_severity()
            yield from self._excess()
            yield from self._by_ratio()
        yield from self._periods()
        yield from self._breaking()
        yield from self._noise()
        yield from self._foreign()
        yield from self._counterexamples()
        yield from self._configuration()

    def _value(self, figures: Figures, name: str, member: Member | None) -> Measurement:
        return figures.measured(_metric(name), member)

    def _sets(self) -> Iterator[Exhibit]:
        """Every set of examples that were not changed."""
        if not self.sets:
            return
        right = self.facts.task in CLASSIFICATION
        name, drop = ("accuracy", "excess_error") if right else ("mae", "")
        rows: list[Row] = []
        for shift in self.sets:
            for figures in self.able:
                made = self._value(figures, name, Member("shift", shift))
                row: Row = [shift, figures.context.variant, made.n, _number(made), *_bounds(made.estimate)]
                if right:
                    excess = None
                    if figures is not self.dense and shift in _measured_excess(self):
                        excess = _number(self._value(figures, drop, Member("shift", shift)))
                    balanced = self._value(figures, "balanced_accuracy", Member("shift", shift))
                    row += [_number(balanced), excess]
                rows.append(row)
        further = ["balanced accuracy", "excess error"] if right else []
        yield Table(
            title="Accuracy on shifted sets" if right else "Mean absolute error on shifted sets",
            about="Excess error: what the shift costs the variant beyond what it costs the dense model."
            if right
            else "",
            columns=["shift", "variant", "examples", name, "from", "to", *further],
            rows=rows,
        )

    def _corruptions(self) -> Iterator[Exhibit]:
        """What all corruptions together cost."""
        if not self.inputs or self.facts.task not in CLASSIFICATION:
            return
        whole = len(self.inputs) == len(self.options.inputs)
        rows: list[Row] = []
        for figures in self.able:
            clean = metrics.correct(figures.context.examples, figures.context.predictions)
            row: Row = [figures.context.variant, float(clean.mean())]
            if whole:
                made = self._value(figures, "corruption_accuracy", None)
                shift = CORRUPTED if len(self.inputs) > 1 else self.inputs[0].called
                row += [_number(made), *_bounds(made.estimate)]
                row += [_number(self._value(figures, name, None)) for name in ("mce", "relative_mce")]
                row.append(_number(self._value(figures, "excess_error", Member("shift", shift))))
            else:
                row += [None] * 6
            rows.append(row)
        yield Table(
            title="What corruption costs",
            about="Means over corruptions and severities. mCE and relative mCE: error, and rise of error, in multiples "
            "of the dense model's. Excess error: the rise of error beyond the dense model's.",
            columns=[
                "variant", "clean accuracy", "corrupted accuracy", "from", "to", "mCE", "relative mCE", "excess error",
            ],
            rows=rows,
        )  # fmt: skip

    def _potentials(self) -> Iterator[Exhibit]:
        """How far each recipe can go."""
        recipes = {
            figures.own.recipe: figures for figures in self.able if figures.own.recipe is not None
        }  # the last of each recipe: all of one recipe give the same
        shifts = [NOMINAL, *_measured_excess(self)]
        rows: list[Row] = []
        for recipe, figures in recipes.items():
            if len(figures.world.family()) < 2:
                continue
            for shift in shifts:
                member = Member("shift", shift)
                published, unbroken = (
                    self._value(figures, name, member) for name in ("prune_potential", "unbroken_potential")
                )
                if published.estimate is None:
                    continue
                low, high = _bounds(published.estimate)
                rows.append([recipe, shift, _number(published), low, high, _number(unbroken)])
        if rows:
            yield Table(
                title="How far can it be pruned?",
                about=f"Prune potential: the largest of the audit's ratios at which the error is at most "
                f"{self.options.delta:g} above the dense model's on the same examples; beside it the largest one "
                "before the first that is not.",
                columns=["recipe", "on", "prune potential", "from", "to", "before the first failure"],
                rows=rows,
            )

    def _by_severity(self) -> Iterator[Exhibit]:
        """Accuracy of every model against the severity of each corruption."""
        panels = []
        for entry in self.inputs:
            lines = []
            for figures in self.able:
                clean = float(metrics.correct(figures.context.examples, figures.context.predictions).mean())
                points = [Band(x=0.0, y=clean)]
                for level in self.options.severities_of(entry):
                    made = self._value(figures, "accuracy_at", Member(entry.called, str(level)))
                    low, high = _bounds(made.estimate)
                    points.append(Band(x=float(level), y=float(_number(made) or 0.0), lower=low, upper=high))
                lines.append(Line(name=figures.context.variant, points=points))
            panels.append(Panel(title=entry.called, lines=lines))
        if panels:
            yield Multiples(
                title="Accuracy against severity",
                about="Severity 0 is the clean test set.",
                x="severity",
                y="accuracy",
                panels=panels,
            )

    def _by_ratio(self) -> Iterator[Exhibit]:
        """Accuracy against the ratio, recipe by recipe."""
        panels = []

        for recipe in dict.fromkeys(one.own.recipe for one in self.able if one.own.recipe is not None):
            every = [one for one in self.able if one.own.recipe == recipe]
            if len(every) < 2:
                continue
            points = [(0.0, self.dense), *((float(one.own.ratio or 0.0), one) for one in every)]
            lines = [
                Line(
                    name="(clean)",
                    points=[
                        Band(x=x, y=float(metrics.correct(one.context.examples, one.context.predictions).mean()))
                        for x, one in points
                    ],
                )
            ]
            if self.inputs and len(self.inputs) == len(self.options.inputs):
                lines.append(self._line("(corrupted)", points, "corruption_accuracy", None))
            named = [name for name in self.sets if name in self.facts.shifted or name in self.options.windows]
            lines += [self._line(name, points, "accuracy", Member("shift", name)) for name in named[:5]]
            if len(lines) > 1:
                panels.append(Panel(title=str(recipe), lines=lines))
        if panels:
            yield Multiples(
                title="Accuracy against the ratio pruned",
                about="Ratio 0 is the dense model.",
                x="ratio",
                y="accuracy",
                panels=panels,
            )

    def _line(self, name: str, points: list[tuple[float, Figures]], metric: str, member: Member | None) -> Line:
        bands = []
        for x, one in points:
            made = self._value(one, metric, member)
            value = _number(made)
            if value is not None:
                low, high = _bounds(made.estimate)
                bands.append(Band(x=x, y=value, lower=low, upper=high))
        return Line(name=name, points=bands)

    def _excess(self) -> Iterator[Exhibit]:
        """Excess error by corruption and variant."""
        shifts, variants = _measured_excess(self), [one for one in self.able if one is not self.dense]
        if not shifts or not variants:
            return
        values = [
            [_number(self._value(one, "excess_error", Member("shift", shift))) for one in variants] for shift in shifts
        ]
        yield Matrix(
            title="Excess error",
            about="The rise of the error under each shift, beyond the dense model's: above 0 pruning makes it worse.",
            rows=shifts,
            columns=[one.context.variant for one in variants],
            across="variant",
            down="shift",
            values=[[None if value is None else max(-1.0, min(1.0, value)) for value in row] for row in values],
            signed=True,
        )

    def _periods(self) -> Iterator[Exhibit]:
        """Drift over the periods of the test set."""
        if self.options.period is None or self.facts.task not in CLASSIFICATION:
            return
        names, codes = self.record["periods"], self.dense.world.given["periods"]
        shown = [("accuracy", "accuracy")] + ([("fpr", "false-positive rate")] if self.facts.task in BINARY else [])
        panels = []
        for metric, title in shown:
            lines = []
            for one in self.able:
                points = []
                for place in range(len(names)):
                    examples, said, dense = one.context.examples, one.context.predictions, one.context.dense
                    found = metrics.on_rows(metric, examples, said, dense, np.flatnonzero(codes == place))
                    if not isinstance(found, str):
                        low, high = found.bounds(CONFIDENCE)
                        points.append(Band(x=float(place), y=found.value, lower=float(low), upper=float(high)))
                lines.append(Line(name=one.context.variant, points=points))
            panels.append(Panel(title=title, lines=lines))
        yield Multiples(
            title=f"Drift, {self.options.period} by {self.options.period}",
            about=f"Period 0 is {names[0]}, {len(names) - 1} is {names[-1]}; times from column {self.options.by_time}.",
            x=self.options.period,
            y="share",
            panels=panels,
        )

    def _breaking(self) -> Iterator[Exhibit]:
        """From which severity on a limit is broken."""
        from pruneproof.shift import probes

        rows: list[Row] = []
        for asked in self.options.breaking:
            limit = (
                f"at least {asked.min_accuracy:g}" if asked.min_accuracy else f"{asked.max_drop:g} under dense, clean"
            )
            for one in self.able:
                key = probes.BREAKING + asked.corruption
                kept = one.seen.record.get(key)
                if kept is None:
                    continue
                made = self._value(one, "breaking_severity", Member("corruption", asked.corruption))
                low, high = _bounds(made.estimate, 0.0, float(SEVERITIES[-1]))
                at = made.note if kept["error"] is None else None
                that = kept.get("parameters")
                what = kept["error"] or _spelled(that) or ("not broken" if that is None else "no shift at all")
                rows.append([asked.corruption, limit, one.context.variant, at, what, low, high])
        if rows:
            yield Table(
                title="The smallest shift that breaks the limit",
                about="Found by bisection between the severities.",
                columns=["corruption", "accuracy", "variant", "breaks at severity", "that is", "from", "to"],
                rows=rows,
            )

    def _noise(self) -> Iterator[Exhibit]:
        """How alike variants and dense are, as functions."""
        others = [one for one in self.able if one is not self.dense]
        if not self.options.noise or not others:
            return
        panels = []
        for metric, title in (("label_match", "same class"), ("softmax_distance", "distance of the probabilities")):
            lines = []
            for one in others:
                points = []
                for level in self.options.noise:
                    made = self._value(one, metric, Member("noise", f"{level:g}"))
                    low, high = _bounds(made.estimate)
                    points.append(Band(x=float(level), y=float(_number(made) or 0.0), lower=low, upper=high))
                lines.append(Line(name=one.context.variant, points=points))
            panels.append(Panel(title=title, lines=lines))
        yield Multiples(
            title="Agreement with the dense model under noise",
            about="Uniform noise, in shares of the inputs' range: whether the variant is still the same function.",
            x="noise",
            y="",
            panels=panels,
        )

    def _foreign(self) -> Iterator[Exhibit]:
        """Whether it still knows what it does not know."""
        rows: list[Row] = []
        for name in self.facts.foreign:
            for detector in self.options.detectors:
                for one in self.able:
                    made = self._value(one, "ood_auroc", Member(name, detector))
                    low, high = _bounds(made.estimate)
                    missed = _number(self._value(one, "ood_fpr95", Member(name, detector)))
                    rows.append([name, detector, one.context.variant, _number(made), low, high, missed, made.note])
        if rows:
            yield Table(
                title="Inputs that the model was not made for",
                about="AUROC: how well a score tells them from the test set; 0.5 is chance. FPR at 95 % TPR: the share "
                "of the test set that is taken for foreign where 95 % of the foreign inputs are found.",
                columns=["foreign set", "score", "variant", "AUROC", "from", "to", "FPR at 95 % TPR", "note"],
                rows=rows,
            )

    def _counterexamples(self) -> Iterator[Exhibit]:
        """Inputs that dense and a variant decide differently."""
        if self.options.counterexamples is None:
            return
        shots, rows = [], []
        for one in self.able:
            if one is self.dense:
                continue
            kept = one.seen.record["search"]
            rows.append([one.context.variant, len(kept["found"]), kept["says"], kept["error"] or ""])
            for found in kept["found"]:
                changed = [f"{change['name']}: {change['before']} → {change['after']}" for change in found["changes"]]
                about = (
                    f"Test example {found['example']}, which both call {found['clean']} as it is; "
                    f"a change of {found['size']:.3g} {found['unit']}."
                )
                shots.append(Shot(title=found["text"], text="\n".join([about, *changed])))
        yield Table(
            title="The search for counterexamples",
            about="Realistic inputs that dense and the variant decide differently, each shrunk to the smallest change "
            "from a real example that both decide alike. That none was found does not show that there is none.",
            columns=["variant", "found", "search", "problem"],
            rows=rows,
        )
        if shots:
            yield Gallery(title="Counterexamples", about="The smallest changes first.", shots=shots)

    def _configuration(self) -> Iterator[Exhibit]:
        """Parameters of the corruptions."""
        rows: list[Row] = []
        for note in self.record.get("corruptions", []):
            levels = note.get("parameters") or [{}] * len(note["severities"])
            changed = note.get("changed") or [None] * len(note["severities"])
            for level, parameters, share in zip(note["severities"], levels, changed, strict=True):
                rows.append([note["label"], level, _spelled(parameters) or "", share, note["error"] or ""])
        if rows:
            yield Table(
                title="Corruptions and their parameters",
                about="Seeded by the policy: the same audit corrupts every example in the same way.",
                columns=["corruption", "severity", "parameters", "share of examples changed", "problem"],
                rows=rows,
            )


def _measured_excess(showing: Showing) -> list[str]:
    """Shifts that excess error is measured on, of those that could be applied."""
    from pruneproof.shift.members import shifts

    able = {*showing.sets, *(entry.called for entry in showing.inputs)}
    if len(showing.inputs) == len(showing.options.inputs):
        able.add(CORRUPTED)
    return [name for name in shifts("excess_error", showing.facts, showing.options) if name in able]


def _metric(name: str) -> Metric:
    from pruneproof.suites.shift import SUITE

    return next(metric for metric in SUITE.metrics if metric.name == name)


def _number(made: Measurement) -> float | None:
    if made.estimate is None:
        return None
    value = float(made.estimate.value)
    return value if np.isfinite(value) else None


def _bounds(
    estimate: Estimate | None, least: float = -math.inf, most: float = math.inf
) -> tuple[float | None, float | None]:
    """Two one-sided bounds, as far as there are such values."""
    if estimate is None:
        return None, None
    low, high = estimate.bounds(CONFIDENCE)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None, None
    return float(max(low, least)), float(min(high, most))


def _spelled(parameters: dict[str, Any] | None) -> str:
    if not parameters:
        return ""
    said = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in parameters.items()}
    return ", ".join(f"{name} {value}" for name, value in said.items())
