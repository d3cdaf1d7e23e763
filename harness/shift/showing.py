"""The shift suite's chapter of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pruneproof import metrics
from pruneproof.corruptions import SEVERITIES
from pruneproof.exhibits import Chapter, Exhibit, Gallery, Shot, Table
from pruneproof.policy import DENSE
from pruneproof.shift import drawings
from pruneproof.shift.figures import Figures
from pruneproof.shift.naming import CORRUPTED, NOMINAL
from pruneproof.shift.shown import Shown, bounds, number
from pruneproof.suite import CLASSIFICATION, Context, Member

if TYPE_CHECKING:
    from pruneproof.suites.shift import Options

Row = list[str | int | float | None]


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
        exhibits += _exhibits(Shown(able, options))
    return Chapter(suite="shift", title="Shifted data", exhibits=exhibits)


def _exhibits(shown: Shown) -> Iterator[Exhibit]:
    """All of them, in the order to be read."""
    yield from _sets(shown)
    yield from _corruptions(shown)
    if shown.facts.task in CLASSIFICATION:
        yield from _potentials(shown)
        yield from drawings.by_severity(shown)
        yield from drawings.excess(shown)
        yield from drawings.by_ratio(shown)
    yield from drawings.periods(shown)
    yield from _breaking(shown)
    yield from drawings.noise(shown)
    yield from _foreign(shown)
    yield from _counterexamples(shown)
    yield from _configuration(shown)


def _sets(shown: Shown) -> Iterator[Exhibit]:
    """Every set of examples that were not changed."""
    if not shown.sets:
        return
    right = shown.facts.task in CLASSIFICATION
    name, drop = ("accuracy", "excess_error") if right else ("mae", "")
    rows: list[Row] = []
    for shift in shown.sets:
        for figures in shown.able:
            made = shown.value(figures, name, Member("shift", shift))
            row: Row = [shift, figures.context.variant, made.n, number(made), *bounds(made.estimate)]
            if right:
                excess = None
                if figures is not shown.dense and shift in shown.excess_shifts():
                    excess = number(shown.value(figures, drop, Member("shift", shift)))
                balanced = shown.value(figures, "balanced_accuracy", Member("shift", shift))
                row += [number(balanced), excess]
            rows.append(row)
    further = ["balanced accuracy", "excess error"] if right else []
    yield Table(
        title="Accuracy on shifted sets" if right else "Mean absolute error on shifted sets",
        about="Excess error: what the shift costs the variant beyond what it costs the dense model." if right else "",
        columns=["shift", "variant", "examples", name, "from", "to", *further],
        rows=rows,
    )


def _corruptions(shown: Shown) -> Iterator[Exhibit]:
    """What all corruptions together cost."""
    if not shown.inputs or shown.facts.task not in CLASSIFICATION:
        return
    whole = len(shown.inputs) == len(shown.options.inputs)
    rows: list[Row] = []
    for figures in shown.able:
        clean = metrics.correct(figures.context.examples, figures.context.predictions)
        row: Row = [figures.context.variant, float(clean.mean())]
        if whole:
            made = shown.value(figures, "corruption_accuracy", None)
            shift = CORRUPTED if len(shown.inputs) > 1 else shown.inputs[0].called
            row += [number(made), *bounds(made.estimate)]
            row += [number(shown.value(figures, name, None)) for name in ("mce", "relative_mce")]
            row.append(number(shown.value(figures, "excess_error", Member("shift", shift))))
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


def _potentials(shown: Shown) -> Iterator[Exhibit]:
    """How far each recipe can go."""
    recipes = {
        figures.own.recipe: figures for figures in shown.able if figures.own.recipe is not None
    }  # the last of each recipe: all of one recipe give the same
    shifts = [NOMINAL, *shown.excess_shifts()]
    rows: list[Row] = []
    for recipe, figures in recipes.items():
        if len(figures.world.family()) < 2:
            continue
        for shift in shifts:
            member = Member("shift", shift)
            published, unbroken = (
                shown.value(figures, name, member) for name in ("prune_potential", "unbroken_potential")
            )
            if published.estimate is None:
                continue
            low, high = bounds(published.estimate)
            rows.append([recipe, shift, number(published), low, high, number(unbroken)])
    if rows:
        yield Table(
            title="How far can it be pruned?",
            about=f"Prune potential: the largest of the audit's ratios at which the error is at most "
            f"{shown.options.delta:g} above the dense model's on the same examples; beside it the largest one "
            "before the first that is not.",
            columns=["recipe", "on", "prune potential", "from", "to", "before the first failure"],
            rows=rows,
        )


def _breaking(shown: Shown) -> Iterator[Exhibit]:
    """From which severity on a limit is broken."""
    from pruneproof.shift import probes

    rows: list[Row] = []
    for asked in shown.options.breaking:
        limit = f"at least {asked.min_accuracy:g}" if asked.min_accuracy else f"{asked.max_drop:g} under dense, clean"
        for one in shown.able:
            key = probes.BREAKING + asked.corruption
            kept = one.seen.record.get(key)
            if kept is None:
                continue
            made = shown.value(one, "breaking_severity", Member("corruption", asked.corruption))
            low, high = bounds(made.estimate, 0.0, float(SEVERITIES[-1]))
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


def _foreign(shown: Shown) -> Iterator[Exhibit]:
    """Whether it still knows what it does not know."""
    rows: list[Row] = []
    for name in shown.facts.foreign:
        for detector in shown.options.detectors:
            for one in shown.able:
                made = shown.value(one, "ood_auroc", Member(name, detector))
                low, high = bounds(made.estimate)
                missed = number(shown.value(one, "ood_fpr95", Member(name, detector)))
                rows.append([name, detector, one.context.variant, number(made), low, high, missed, made.note])
    if rows:
        yield Table(
            title="Inputs that the model was not made for",
            about="AUROC: how well a score tells them from the test set; 0.5 is chance. FPR at 95 % TPR: the share "
            "of the test set that is taken for foreign where 95 % of the foreign inputs are found.",
            columns=["foreign set", "score", "variant", "AUROC", "from", "to", "FPR at 95 % TPR", "note"],
            rows=rows,
        )


def _counterexamples(shown: Shown) -> Iterator[Exhibit]:
    """Inputs that dense and a variant decide differently."""
    if shown.options.counterexamples is None:
        return
    shots, rows = [], []
    for one in shown.able:
        if one is shown.dense:
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


def _configuration(shown: Shown) -> Iterator[Exhibit]:
    """Parameters of the corruptions."""
    rows: list[Row] = []
    for note in shown.record.get("corruptions", []):
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


def _spelled(parameters: dict[str, Any] | None) -> str:
    if not parameters:
        return ""
    said = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in parameters.items()}
    return ", ".join(f"{name} {value}" for name, value in said.items())
