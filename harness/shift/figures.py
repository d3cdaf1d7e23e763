"""The shift suite's numbers, from what a survey observed."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruneproof import metrics
from pruneproof.errors import MeasurementError
from pruneproof.estimates import (
    Combination,
    Difference,
    Exact,
    Extreme,
    Ladder,
    MeanDifference,
    Proportion,
    Rows,
    Statistic,
    mean,
)
from pruneproof.metric_names import SHARED
from pruneproof.outcomes import Predictions
from pruneproof.policy import DENSE
from pruneproof.shift import calibration, formulas
from pruneproof.shift.formulas import Errors, Weighted
from pruneproof.shift.naming import CORRUPTED, after
from pruneproof.shift.world import World
from pruneproof.suite import Context, Found, Measurement, Member, Metric, Sibling, measurement

if TYPE_CHECKING:
    from pruneproof.suites.shift import Options

SHARED_NAMES = frozenset(metric.name for metric in SHARED)
RATIO_LEAST = 1e-9
FOREIGN_LEAST = 59
"""Foreign inputs that a threshold for 95 % of them needs: of fewer all may lie on one side of it by chance, at 95 %
(0.95⁵⁹ < 0.05)."""


class Figures:
    """Every metric of one variant.

    Args:
        context: of the variant; ``observed`` is what the survey saw of it.
        options: of the suite.
    """

    def __init__(self, context: Context, options: Options) -> None:
        assert context.observed is not None
        self.context, self.options, self.facts = context, options, context.facts
        self.seen = context.observed

    @cached_property
    def world(self) -> World:
        """What there is, by shift."""
        return World(self.context, self.options)

    @cached_property
    def own(self) -> Sibling:
        """The variant."""
        return self.context.siblings[self.context.variant]

    @cached_property
    def dense(self) -> Sibling:
        """The dense model."""
        return self.context.siblings[DENSE]

    @cached_property
    def said(self) -> Predictions:
        """The variant's answers to every example that was not changed."""
        return self.world.said(self.own)

    @cached_property
    def said_by_dense(self) -> Predictions:
        """The dense model's."""
        return self.world.said(self.dense)

    def asked(self, metric: Metric) -> bool:
        """Whether the policy asks for what a metric without members is measured on."""
        if metric.name == "worst_period_accuracy":
            return self.options.period is not None
        if metric.name == "counterexamples":
            return self.options.counterexamples is not None and self.context.variant != DENSE
        return bool(self.options.inputs)

    def measured(self, metric: Metric, member: Member | None) -> Measurement:
        """One metric of one member of its family."""
        try:
            found, n, small, note = self._found(metric, member)
        except MeasurementError as error:
            why = error.cause if error.cause.endswith(")") else f"{error.cause} ({error.remedy})"
            return Measurement(metric.name, member, None, 0, metric.unit, why, failed=True)
        made = measurement(metric, member, found, n, small, note)
        return made if made.estimate is None else replace(made, doubt=self._doubt(metric.name, member))

    def _doubt(self, name: str, member: Member | None) -> str:
        """Why the worst of several may not be the worst: some are too small to be looked at."""
        if name == "worst_group_accuracy" and member is not None:
            rows = self.world.rows(member.value)
            names, counts = np.unique(self._groups(member.value, rows), return_counts=True)
            left = [str(one) for one, count in zip(names, counts, strict=True) if count < self.options.min_n]
        elif name == "worst_period_accuracy":
            counts = np.bincount(self.world.given["periods"], minlength=len(self.world.dense.record["periods"]))
            # The first and the last one are cut off by where the data begin and end.
            inner = zip(self.world.dense.record["periods"][1:-1], counts[1:-1], strict=True)
            left = [str(one) for one, count in inner if count < self.options.min_n]
        elif name == "counterexamples":
            found, most = len(self.seen.record["search"]["found"]), self.options.counterexamples
            full = most is not None and found >= most.most
            return f"the search ended with the {found} that it was asked for: there may be more" if full else ""
        else:
            return self._unchanged(name, member)
        return f"under {self.options.min_n} examples, and left out: {', '.join(left[:5])}" if left else ""

    def _unchanged(self, name: str, member: Member | None) -> str:
        """Corruptions that changed nothing, of those that a number rests on."""
        notes = self.world.dense.record.get("corruptions", ())
        idle = [one["label"] for one in notes if not any(one.get("changed", [1]))]
        if member is None:
            rests = idle if name in ("corruption_accuracy", "mce", "relative_mce") else []
        elif member.column in ("shift", "corruption"):
            rests = idle if member.value == CORRUPTED else [label for label in idle if label == member.value]
        else:
            rests = [label for label in idle if label == member.column]
        return f"{', '.join(rests)} changed no example at any severity" if rests else ""

    def _found(self, metric: Metric, member: Member | None) -> tuple[Found, int, bool, str]:
        if metric.family == "shift":
            assert member is not None
            return self._of_shift(metric.name, member.value)
        if metric.family == "severity":
            assert member is not None
            return self._at(metric.name, member)
        if metric.family == "noise":
            assert member is not None
            return self._noise(metric.name, [f"{level:g}" for level in self.options.noise].index(member.value))
        if metric.family == "detector":
            assert member is not None
            return self._detected(metric.name, member)
        if metric.name == "worst_period_accuracy":
            return self._periods()
        if metric.name == "counterexamples":
            return self._counterexample()
        if metric.name == "breaking_severity":
            assert member is not None
            return self._broken(member.value)
        return self._corrupted(metric.name, member)

    def _of_shift(self, name: str, shift: str) -> tuple[Found, int, bool, str]:
        if name in ("prune_potential", "unbroken_potential", "excess_error_slope"):
            return self._of_recipe(name, shift)
        corrupted = self._corrupts(shift)
        rows = self.world.corrupted if corrupted else self.world.rows(shift)
        small = len(rows) < self.options.min_n
        if not len(rows):
            return "no examples", 0, True, ""
        if name in ("excess_error", "effective_robustness"):
            found: Found = self._excess(shift) if name == "excess_error" else self._effective(shift)
            return found, len(rows), small or self._few(shift, corrupted), ""
        if name in ("accuracy_drop", "fpr_rise", "fnr_rise"):
            return self._against(name, shift), len(rows), small or self._few(shift, False), self._base(shift)
        if name == "worst_group_accuracy":
            return self._worst_group(shift, rows)
        if name == "adaptive_ece":
            chances = self.said.probabilities
            right = chances.argmax(axis=1) == self.world.examples.targets
            made = calibration.adaptive_ece(chances.max(axis=1), right)
            return self._statistic(made, rows, len(rows), several=False), len(rows), small, ""
        return metrics.on_rows(name, self.world.examples, self.said, self.said_by_dense, rows), len(rows), small, ""

    def _corrupts(self, shift: str) -> bool:
        """Whether a shift changes inputs."""
        return shift == CORRUPTED or shift in self.world.labels

    def _few(self, shift: str, corrupted: bool) -> bool:
        """Whether what a shift is held against is too small."""
        return not corrupted and len(self.world.base(shift)[0]) < self.options.min_n

    def _base(self, shift: str) -> str:
        if shift in self.facts.shifted:
            return "against the test set"
        if not self.world.timed(shift):
            return "against the whole test set"
        start = next(ends[0] for window, ends in self.options.windows.items() if shift in (window, after(window)))
        return "against what came before" if start else "against the other part of the test set"

    def _against(self, name: str, shift: str) -> Found:
        """How much worse it is than without the shift: other examples, or the rest of them."""
        before, weight = self.world.base(shift)
        one = {"accuracy_drop": "accuracy", "fpr_rise": "fpr", "fnr_rise": "fnr"}[name]
        parts: list[Proportion] = []
        for rows in (before, self.world.rows(shift)):
            if not len(rows):
                return f"there is nothing to hold {shift} against"
            found = metrics.on_rows(one, self.world.examples, self.said, self.said_by_dense, rows)
            if isinstance(found, str):
                if rows is before and weight < 1:
                    held = self.facts.classes[0 if name == "fpr_rise" else 1]
                    return f"{shift} holds every example of class {held}: there is nothing to hold it against"
                return found
            assert isinstance(found, Proportion)
            parts.append(found)
        sign = 1.0 if name == "accuracy_drop" else -1.0
        if weight < 1 and name != "accuracy_drop":
            # Of the examples of one class the part is another share than of all.
            weight = parts[0].n / (parts[0].n + parts[1].n)
        return Combination((sign * weight, -sign * weight), tuple(parts))

    def _excess(self, shift: str) -> Found:
        world = self.world
        if self._corrupts(shift):
            now, dense_now, before_now, dense_before = (one.shares(world.corrupted) for one in self._four(shift))
            return MeanDifference(world.corrupted, (now - before_now) - (dense_now - dense_before), 2.0)
        before, weight = world.base(shift)
        if not len(before):
            return f"there is nothing to hold {shift} against"
        parts = tuple(self._lost(rows) for rows in (world.rows(shift), before))
        return Combination((weight, -weight), parts)

    def _lost(self, rows: Rows) -> Difference:
        """Error of the variant above the dense model's, paired."""
        return metrics.drop(self.world.examples, self.said, self.said_by_dense, rows)

    def _effective(self, shift: str) -> Found:
        four = self._four(shift)
        rows = np.flatnonzero(_counted(four[0]) | _counted(four[2]))
        support = min(int(_counted(one).sum()) for one in four)
        return self._statistic(formulas.effective_robustness(*four), rows, support)

    def _four(self, shift: str) -> tuple[Errors, Errors, Errors, Errors]:
        """Errors of the variant and of dense under a shift, then without it."""
        world = self.world
        return (
            world.errors(self.own, shift),
            world.errors(self.dense, shift),
            world.errors_before(self.own, shift),
            world.errors_before(self.dense, shift),
        )

    def _of_recipe(self, name: str, shift: str) -> tuple[Found, int, bool, str]:
        """Numbers of all ratios of the variant's recipe together."""
        world, family = self.world, self.world.family()
        if not family:
            return "it is about the ratios of a recipe, and this model has none", 0, False, ""
        ratios = [ratio for ratio, _ in family]
        note, lost = f"of ratios {', '.join(f'{ratio:g}' for ratio in ratios)}", world.lost()
        if lost:
            note += f"; not measured: {', '.join(f'{ratio:g}' for ratio in lost)}"
        held = [world.errors(one, shift) for _, one in family]
        dense = world.errors(self.dense, shift)
        rows = np.flatnonzero(_counted(dense))
        if not len(rows):
            return "no examples", 0, True, note
        if name == "excess_error_slope":
            if len(family) < 2:
                return "a slope needs two ratios", 0, False, note
            before = world.errors_before(self.dense, shift)
            each = [
                formulas.excess_error(one, dense, world.errors_before(sibling, shift), before)
                for one, (_, sibling) in zip(held, family, strict=True)
            ]
            both = np.flatnonzero(_counted(dense) | _counted(before))
            support = min(int(_counted(dense).sum()), int(_counted(before).sum()))
            made = formulas.excess_slope(ratios, each)
            found = self._statistic(made, both, support, spread=2.0 / ratios[-1])
            return found, len(rows), support < self.options.min_n, note
        parts = tuple(self._lost_by(one, held_by, shift, dense) for held_by, (_, one) in zip(held, family, strict=True))
        unbroken = name == "unbroken_potential"
        # A ratio at which the variant cannot answer is one that fails.
        counted = len([ratio for ratio in ratios if ratio < min(lost)]) if unbroken and lost else len(ratios)
        if not counted:
            return Exact(0.0), len(rows), len(rows) < self.options.min_n, note
        ladder = Ladder(tuple(ratios[:counted]), parts[:counted], self.options.delta, unbroken)
        return ladder, len(rows), len(rows) < self.options.min_n, note

    def _lost_by(self, one: Sibling, held: Errors, shift: str, dense: Errors) -> Difference | MeanDifference:
        """Error of a variant above the dense model's under a shift, paired."""
        if self._corrupts(shift):
            rows = self.world.corrupted
            return MeanDifference(rows, held.shares(rows) - dense.shares(rows))
        world = self.world
        return metrics.drop(world.examples, world.said(one), self.said_by_dense, world.rows(shift))

    def _worst_group(self, shift: str, rows: Rows) -> tuple[Found, int, bool, str]:
        if not self.options.by:
            return "no columns to tell groups by: [suites.shift] by = […]", 0, False, ""
        groups = self._groups(shift, rows)
        right = metrics.correct(self.world.examples, self.said)
        parts: list[tuple[str, Rows]] = []
        left: list[tuple[str, Rows]] = []
        for name in np.unique(groups):
            own = rows[groups == name]
            (parts if len(own) >= self.options.min_n else left).append((str(name), own))
        if not parts:
            return f"no group has {self.options.min_n} examples", 0, True, ""
        found = Extreme("lowest", tuple(Proportion(own, right[own]) for _, own in parts))
        worst = min(parts, key=lambda pair: float(right[pair[1]].mean()))
        note = f"worst of {len(parts)} groups: {worst[0]} ({len(worst[1])})"
        if left:
            note += f"; {len(left)} groups under {self.options.min_n} examples left out"
        return found, sum(len(own) for _, own in parts), False, note

    def _groups(self, shift: str, rows: Rows) -> NDArray[np.str_]:
        if shift in self.facts.shifted:
            place = list(self.facts.shifted).index(shift)
            return np.asarray(self.world.given[f"groups/{place}"], dtype=np.str_)
        frame = self.context.examples.segments[list(self.options.by)].iloc[rows]
        return np.array([" · ".join(row) for row in frame.itertuples(index=False)], dtype=np.str_)

    def _periods(self) -> tuple[Found, int, bool, str]:
        names, codes = self.world.dense.record["periods"], self.world.given["periods"]
        right = metrics.correct(self.context.examples, self.context.predictions)
        every = [(name, np.flatnonzero(codes == code)) for code, name in enumerate(names)]
        enough = [(name, rows) for name, rows in every if len(rows) >= self.options.min_n]
        if not enough:
            return f"no period has {self.options.min_n} examples", 0, True, ""
        worst = min(enough, key=lambda pair: float(right[pair[1]].mean()))
        note = f"worst of {len(enough)} periods: {worst[0]}"
        if len(enough) < len(every):
            note += f"; {len(every) - len(enough)} under {self.options.min_n} examples left out"
        found = Extreme("lowest", tuple(Proportion(rows, right[rows]) for _, rows in enough))
        return found, sum(len(rows) for _, rows in enough), False, note

    def _at(self, name: str, member: Member) -> tuple[Found, int, bool, str]:
        """One corruption at one severity."""
        world = self.world
        entry = next(entry for entry in self.options.inputs if entry.called == member.column)
        place = self.options.severities_of(entry).index(int(member.value))
        mine = {key: kept[place] for key, kept in world.cells(self.seen, member.column).items()}
        rows = world.corrupted
        small = len(rows) < self.options.min_n
        targets = self.context.examples.targets[rows]
        found: Found
        if name == "accuracy_at":
            found = Proportion(rows, mine["answers"] == targets)
        elif name == "agreement_at":
            found = Proportion(rows, mine["answers"] == world.cells(world.dense, member.column)["answers"][place])
        elif name == "brier_at":
            found = self._local(calibration.brier(mine["brier"]), rows)
        elif name == "ece_at":
            found = self._local(calibration.ece(mine["confidence"], mine["top"]), rows)
        else:
            found = self._local(calibration.brier(np.abs(mine["answers"] - targets)), rows, spread=0.0)
        return found, len(rows), small, ""

    def _corrupted(self, name: str, member: Member | None) -> tuple[Found, int, bool, str]:
        """All severities of one corruption, or all corruptions."""
        world, rows = self.world, self.world.corrupted
        small = len(rows) < self.options.min_n
        labels = [entry.called for entry in self.options.inputs] if member is None else [member.value]
        mine = [world.errors(self.own, label) for label in labels]
        dense = [world.errors(self.dense, label) for label in labels]
        if name == "corruption_accuracy":
            every = mine[0] if len(mine) == 1 else world.errors(self.own, CORRUPTED)
            return mean(rows, 1 - every.shares(rows), world.size), len(rows), small, ""
        weights = np.ones(world.size, dtype=np.int64)
        if name == "relative_mce":
            own_clean, clean = (world.errors_before(one, CORRUPTED) for one in (self.own, self.dense))
            reasons = [formulas.relative_ce_undefined(one, clean, weights) for one in dense]
            made = formulas.relative_mce(mine, dense, own_clean, clean)
            least = min(one.total(weights) - one.cells * clean.rate(weights) for one in dense)
        else:
            reasons = [formulas.corruption_error_undefined(one, weights) for one in dense]
            made = formulas.mce(mine, dense)
            least = min(one.total(weights) for one in dense)
        for label, reason in zip(labels, reasons, strict=True):
            if reason is not None:
                return f"{label}: {reason}", 0, False, ""
        cells = max(one.cells for one in dense)
        spread = cells / max(least, RATIO_LEAST)
        return self._statistic(made, rows, len(rows), spread), len(rows), small, ""

    def _noise(self, name: str, place: int) -> tuple[Found, int, bool, str]:
        rows = self.world.corrupted
        if self.context.variant == DENSE:
            return "it is the dense model itself", 0, False, ""
        kept = self.seen.arrays["noise/match" if name == "label_match" else "noise/distance"][place]
        spread = 1.0 if name == "label_match" else float(np.sqrt(2))
        return self._local(calibration.brier(kept), rows, spread), len(rows), len(rows) < self.options.min_n, ""

    def _detected(self, name: str, member: Member) -> tuple[Found, int, bool, str]:
        from pruneproof.shift import detectors

        foreign, detector = member.column, member.value
        start, size = self.world.offset[f"foreign/{foreign}"], self.facts.foreign[foreign]
        at = start - self.world.size
        problem = self.seen.record["detectors"].get(detector)
        if problem is not None:
            return f"{detector}: {problem}", 0, False, ""
        scores = self.seen.arrays[f"ood/{detector}"]
        n = self.facts.n
        both = np.concatenate([scores[:n], scores[n + at : n + at + size]])
        outside = np.arange(n + size) >= n
        formula = detectors.auroc if name == "ood_auroc" else detectors.fpr_at_tpr
        rows = np.concatenate([np.arange(n), np.arange(start, start + size)]).astype(np.int64)
        local = formula(both, outside)
        made = Statistic(rows, lambda weights: local(weights[rows]), min(n, size), self.facts.every)
        # Of fewer examples none may lie beyond the threshold that 95 % of such inputs do not reach.
        least = FOREIGN_LEAST if name == "ood_fpr95" else self.options.min_n
        return made, size, n < self.options.min_n or size < max(least, self.options.min_n), ""

    def _broken(self, label: str) -> tuple[Found, int, bool, str]:
        from pruneproof.shift import probes

        found = probes.broken(self.world, self.seen, self.options, label)
        rows = self.world.corrupted
        if self.context.variant == DENSE and found.bracket is not None and found.bracket[1] == 0:
            return "it breaks the limit without any shift", 0, False, ""
        made = self._local(found.severity, rows, spread=found.last, several=False)
        return made, len(rows), len(rows) < self.options.min_n, found.says()

    def _counterexample(self) -> tuple[Found, int, bool, str]:
        kept: dict[str, Any] = dict(self.seen.record["search"])
        if kept["error"] is not None:
            raise MeasurementError(f"the search for counterexamples: {kept['error']}", "mend that, or leave it out")
        started = int(kept["started"])
        if not started or not kept["tried"]:
            return f"there is no example to start from that both decide alike: {kept['says']}", 0, True, ""
        return Exact(float(len(kept["found"]))), started, started < self.options.min_n, str(kept["says"])

    def _statistic(
        self, weighted: Weighted, rows: Rows, support: int, spread: float = 1.0, several: bool = True
    ) -> Statistic:
        """Of a formula; ``several``: it takes many resamples at once."""
        many = (lambda weights: np.asarray(weighted(weights))) if several else None
        return Statistic(rows, weighted, support, self.world.size, spread, many=many)

    def _local(self, weighted: Weighted, rows: Rows, spread: float = 1.0, several: bool = True) -> Statistic:
        """Of a formula that knows the examples ``rows`` alone."""
        return self._statistic(lambda weights: weighted(weights[..., rows]), rows, len(rows), spread, several)


def _counted(one: Errors) -> NDArray[np.bool_]:
    assert one.counted is not None
    return np.asarray(one.counted.any(axis=0))
