"""What an audit came to, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pruneproof import wording
from pruneproof.evidence import Evidence, GateRow, SelfCheck, SensitivityRow, VariantRow
from pruneproof.verdicts import GLYPHS, RELEASING, WORST_FIRST, Verdict


@dataclass(frozen=True)
class Sentence:
    """What became of one variant.

    Args:
        outcome: ``released``, ``blocked`` or ``inconclusive``, with waivers named.
        detail: the rest of the sentence.
        gate: the worst gate that does not pass.
    """

    variant: str
    verdict: Verdict
    outcome: str
    detail: str
    gate: GateRow | None

    @property
    def text(self) -> str:
        """The whole sentence."""
        gate = f"; worst: {self.gate.id} {against(self.gate)}" if self.gate else ""
        return f"{self.variant} {self.outcome}: {self.detail}{gate}"


@dataclass(frozen=True)
class FirstBreak:
    """The lowest ratio of a recipe at which a segment gate fails."""

    recipe: str
    variant: VariantRow
    gate: GateRow
    also: int
    """How many more segment gates fail there."""
    overall_passes: bool
    """Overall accuracy passes its gates there."""


@dataclass(frozen=True)
class NotSo:
    """A self-check that does not hold.

    Args:
        variants: one, where the check decides; where it is only reported, all of which the same is reported.
        check: of the first of them.
    """

    variants: tuple[VariantRow, ...]
    check: SelfCheck

    @property
    def outcome(self) -> str:
        """Which check it is, and its claim."""
        failed = "failed" if self.check.decides else "does not hold (reported only)"
        return f"self-check {self.check.id} {failed}: {wording.claim(self.check)}"

    @property
    def text(self) -> str:
        """The variants, the claim, and what was seen of the first."""
        return f"{', '.join(row.name for row in self.variants)}: {self.outcome}: {self.detail}"

    @property
    def detail(self) -> str:
        """What was seen of the first variant."""
        first = f"{self.variants[0].name}: " if len(self.variants) > 1 else ""
        return f"{first}{self.check.detail}"


@dataclass(frozen=True)
class Cost:
    """What it costs to prune one layer alone.

    Args:
        rows: one a ratio, ascending.
        mean: of the harm over the rows with a value; ``None`` where there is none.
    """

    recipe: str
    layer: str
    rows: tuple[SensitivityRow, ...]
    dense: SensitivityRow | None
    mean: float | None

    @property
    def text(self) -> str:
        """The whole sentence, of the most sensitive layer."""
        return f"most sensitive layer under {self.recipe}: {self.layer}; {self.loss}"

    @property
    def loss(self) -> str:
        """What is lost, over how many ratios, and on how many examples."""
        own = [row for row in self.rows if row.value is not None]
        if self.mean is None or not own:
            return "it could not be measured"
        over = f"at {wording.percent(own[0].ratio)}" if len(own) == 1 else f"on average over {len(own)} ratios"
        lost = (
            f"accuracy {'falls' if self.mean >= 0 else 'rises'} by {wording.number(abs(self.mean))}"
            if own[0].metric == "accuracy"
            else f"mean absolute error {'rises' if self.mean >= 0 else 'falls'} by {wording.percent(abs(self.mean))}"
        )
        return f"pruned alone, {lost} {over} ({wording.plural(own[0].n, 'calibration example')})"


def headline(evidence: Evidence) -> str:
    """RELEASED, BLOCKED or INCONCLUSIVE."""
    verdict = evidence.verdict
    if verdict is Verdict.WAIVED:
        return "RELEASED WITH WAIVERS"
    if verdict is Verdict.PASS:
        return "RELEASED"
    return "INCONCLUSIVE" if verdict is Verdict.INCONCLUSIVE else "BLOCKED"


def subline(evidence: Evidence) -> str:
    """What the headline means for the candidates."""
    if evidence.subject.error:
        return "The subject could not be loaded, so nothing was measured."
    names = evidence.policy.candidates
    released = [variant.name for variant in evidence.variants if variant.released]
    if evidence.verdict in RELEASING:
        every = "the variant" if len(names) == 1 else f"all {len(names)} variants"
        holds = "passes" if evidence.verdict is Verdict.PASS else "passes or is waived"
        return f"Every gate {holds} for {every} up for release."
    what = {
        Verdict.ERROR: "A gate could not be judged.",
        Verdict.FAIL: "A limit is broken.",
        Verdict.NOT_RUN: "Part of the audit did not run.",
        Verdict.INCONCLUSIVE: "No limit is shown to be broken, but not every limit is shown to hold. Not released.",
    }[evidence.verdict]
    if len(names) < 2:
        return what
    are = "is" if len(released) == 1 else "are"
    return f"{what} Of {len(names)} variants up for release, {len(released)} {are} released."


def counts(gates: Sequence[GateRow]) -> list[tuple[Verdict, int]]:
    """Verdict → number of gates, worst first; verdicts that do not occur are left out."""
    found = Counter(gate.verdict for gate in gates)
    return [(verdict, found[verdict]) for verdict in WORST_FIRST if found[verdict]]


def tally(gates: Sequence[GateRow]) -> str:
    """``1 ✗ FAIL, 20 ✓ PASS``."""
    return ", ".join(f"{n} {GLYPHS[verdict]} {wording.WORDS[verdict]}" for verdict, n in counts(gates)) or "no gates"


def worst_first(gates: Sequence[GateRow]) -> list[GateRow]:
    """By verdict, then by how far the value lies outside the limit."""
    return sorted(gates, key=lambda row: (WORST_FIRST.index(row.verdict), -wording.beyond(row)))


def against(gate: GateRow) -> str:
    """Value, interval and limit."""
    if gate.value is None:
        return f"{wording.mark(gate.verdict)} ({gate.reason})"
    return f"{wording.measured(gate)} against {gate.limit.key} {gate.limit.value:g}"


def sentences(evidence: Evidence) -> list[Sentence]:
    """One for each variant up for release."""
    rows = {variant.name: variant for variant in evidence.variants}
    return [_sentence(name, rows.get(name), evidence) for name in evidence.policy.candidates]


def _sentence(name: str, variant: VariantRow | None, evidence: Evidence) -> Sentence:
    gates = [gate for gate in evidence.gates if gate.variant == name]
    verdict = variant.verdict if variant else Verdict.ERROR if evidence.subject.error else Verdict.NOT_RUN
    other = worst_first([gate for gate in gates if gate.verdict is not Verdict.PASS])
    total = wording.plural(len(gates), "gate")
    if verdict is Verdict.PASS and not other:
        return Sentence(name, verdict, "released", f"all {total} pass" if len(gates) != 1 else "its gate passes", None)
    if verdict is Verdict.WAIVED:
        return Sentence(name, verdict, "released with waivers", f"{tally(gates)}, of {total}", other[0])
    outcome = "inconclusive, not released" if verdict is Verdict.INCONCLUSIVE else "blocked"
    error = (variant.error if variant else None) or evidence.subject.error
    if error:
        return Sentence(name, verdict, outcome, f"could not be audited: {error}", None)
    if not other:
        return Sentence(name, verdict, outcome, "no gate of it was judged", None)
    do = "does" if len(other) == 1 else "do"
    return Sentence(name, verdict, outcome, f"{len(other)} of {total} {do} not pass", other[0])


def first_breaks(evidence: Evidence) -> list[FirstBreak]:
    """Where segments break first, recipe by recipe."""
    found: dict[str, FirstBreak] = {}
    ladder = [row for row in evidence.variants if row.requested_ratio is not None]
    for variant in sorted(ladder, key=lambda row: row.requested_ratio or 0.0):
        name = wording.recipe(variant)
        gates = [gate for gate in evidence.gates if gate.variant == variant.name]
        broken = [gate for gate in gates if gate.suite == "segments" and gate.verdict is Verdict.FAIL]
        if name in found or not broken:
            continue
        named = [gate for gate in broken if gate.segment and "by" not in gate.segment] or broken
        whole = [gate for gate in gates if (gate.suite, gate.metric) == ("accuracy", "accuracy")]
        passes = bool(whole) and all(gate.verdict is Verdict.PASS for gate in whole)
        worst = max(named, key=wording.beyond)
        found[name] = FirstBreak(name, variant, worst, len(broken) - 1, passes)
    return [found[name] for name in dict.fromkeys(map(wording.recipe, evidence.variants)) if name in found]


def not_so(evidence: Evidence) -> list[NotSo]:
    """The self-checks that do not hold, those that decide first."""
    every = [(row, check) for row in evidence.variants for check in row.self_checks if not check.passed]
    decided = [NotSo((row,), check) for row, check in every if check.decides]
    alike: dict[tuple[str, str], list[tuple[VariantRow, SelfCheck]]] = {}
    for row, check in every:
        if not check.decides:
            alike.setdefault((check.id, check.claim), []).append((row, check))
    return [*decided, *(NotSo(tuple(row for row, _ in same), same[0][1]) for same in alike.values())]


def harm(row: SensitivityRow, dense: SensitivityRow | None) -> float | None:
    """What was lost against dense, positive for worse: accuracy, or mean absolute error relative to dense's."""
    if row.value is None or dense is None or dense.value is None:
        return None
    if row.metric == "accuracy":
        return dense.value - row.value
    return (row.value - dense.value) / dense.value if dense.value else None


def costs(evidence: Evidence) -> list[Cost]:
    """One for each recipe and layer, in the network's order."""
    dense = {row.recipe: row for row in evidence.sensitivity if row.layer is None}
    layers: dict[tuple[str, str], list[SensitivityRow]] = {}
    for row in evidence.sensitivity:
        if row.layer is not None:
            layers.setdefault((row.recipe, row.layer), []).append(row)
    return [_cost(recipe, layer, rows, dense.get(recipe)) for (recipe, layer), rows in layers.items()]


def _cost(recipe: str, layer: str, rows: list[SensitivityRow], dense: SensitivityRow | None) -> Cost:
    known = [lost for row in rows if (lost := harm(row, dense)) is not None]
    mean = sum(known) / len(known) if known else None
    return Cost(recipe, layer, tuple(sorted(rows, key=lambda row: row.ratio or 0.0)), dense, mean)


def ranked(found: Sequence[Cost]) -> list[Cost]:
    """The most sensitive layer first: by the mean harm; those that could not be measured last."""
    return sorted(found, key=lambda cost: float("inf") if cost.mean is None else -cost.mean)


def most_sensitive(evidence: Evidence) -> list[Cost]:
    """The most sensitive layer of each recipe whose sensitivity was measured, where it loses anything."""
    first: dict[str, Cost] = {}
    for cost in ranked(costs(evidence)):
        if cost.mean is not None and cost.mean > 0:
            first.setdefault(cost.recipe, cost)
    return list(first.values())
