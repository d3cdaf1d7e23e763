"""What the shift suite's chapter draws: accuracy against severity and ratio, excess error, drift, agreement."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pruneproof import metrics
from pruneproof.exhibits import Band, Exhibit, Line, Matrix, Multiples, Panel
from pruneproof.shift.figures import Figures
from pruneproof.shift.shown import CONFIDENCE, Shown, bounds, number
from pruneproof.suite import BINARY, CLASSIFICATION, Member


def by_severity(shown: Shown) -> Iterator[Exhibit]:
    """Accuracy of every model against the severity of each corruption."""
    panels = []
    for entry in shown.inputs:
        lines = []
        for figures in shown.able:
            clean = float(metrics.correct(figures.context.examples, figures.context.predictions).mean())
            points = [Band(x=0.0, y=clean)]
            for level in shown.options.severities_of(entry):
                made = shown.value(figures, "accuracy_at", Member(entry.called, str(level)))
                low, high = bounds(made.estimate)
                points.append(Band(x=float(level), y=float(number(made) or 0.0), lower=low, upper=high))
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


def by_ratio(shown: Shown) -> Iterator[Exhibit]:
    """Accuracy against the ratio, recipe by recipe."""
    panels = []

    for recipe in dict.fromkeys(one.own.recipe for one in shown.able if one.own.recipe is not None):
        every = [one for one in shown.able if one.own.recipe == recipe]
        if len(every) < 2:
            continue
        points = [(0.0, shown.dense), *((float(one.own.ratio or 0.0), one) for one in every)]
        lines = [
            Line(
                name="(clean)",
                points=[
                    Band(x=x, y=float(metrics.correct(one.context.examples, one.context.predictions).mean()))
                    for x, one in points
                ],
            )
        ]
        if shown.inputs and len(shown.inputs) == len(shown.options.inputs):
            lines.append(_line(shown, "(corrupted)", points, "corruption_accuracy", None))
        named = [name for name in shown.sets if name in shown.facts.shifted or name in shown.options.windows]
        lines += [_line(shown, name, points, "accuracy", Member("shift", name)) for name in named[:5]]
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


def _line(shown: Shown, name: str, points: list[tuple[float, Figures]], metric: str, member: Member | None) -> Line:
    bands = []
    for x, one in points:
        made = shown.value(one, metric, member)
        value = number(made)
        if value is not None:
            low, high = bounds(made.estimate)
            bands.append(Band(x=x, y=value, lower=low, upper=high))
    return Line(name=name, points=bands)


def excess(shown: Shown) -> Iterator[Exhibit]:
    """Excess error by corruption and variant."""
    shifts, variants = shown.excess_shifts(), [one for one in shown.able if one is not shown.dense]
    if not shifts or not variants:
        return
    values = [
        [number(shown.value(one, "excess_error", Member("shift", shift))) for one in variants] for shift in shifts
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


def periods(shown: Shown) -> Iterator[Exhibit]:
    """Drift over the periods of the test set."""
    if shown.options.period is None or shown.facts.task not in CLASSIFICATION:
        return
    names, codes = shown.record["periods"], shown.dense.world.given["periods"]
    wanted = [("accuracy", "accuracy")] + ([("fpr", "false-positive rate")] if shown.facts.task in BINARY else [])
    panels = []
    for metric, title in wanted:
        lines = []
        for one in shown.able:
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
        title=f"Drift, {shown.options.period} by {shown.options.period}",
        about=f"Period 0 is {names[0]}, {len(names) - 1} is {names[-1]}; times from column {shown.options.by_time}.",
        x=shown.options.period,
        y="share",
        panels=panels,
    )


def noise(shown: Shown) -> Iterator[Exhibit]:
    """How alike variants and dense are, as functions."""
    others = [one for one in shown.able if one is not shown.dense]
    if not shown.options.noise or not others:
        return
    panels = []
    for metric, title in (("label_match", "same class"), ("softmax_distance", "distance of the probabilities")):
        lines = []
        for one in others:
            points = []
            for level in shown.options.noise:
                made = shown.value(one, metric, Member("noise", f"{level:g}"))
                low, high = bounds(made.estimate)
                points.append(Band(x=float(level), y=float(number(made) or 0.0), lower=low, upper=high))
            lines.append(Line(name=one.context.variant, points=points))
        panels.append(Panel(title=title, lines=lines))
    yield Multiples(
        title="Agreement with the dense model under noise",
        about="Uniform noise, in shares of the inputs' range: whether the variant is still the same function.",
        x="noise",
        y="",
        panels=panels,
    )
