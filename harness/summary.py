"""What an audit came to, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pruneproof import wording
from pruneproof.evidence import Evidence, GateRow, VariantRow
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
    ladder = [row for row in evidence.variants if row.kind == "pruned" and row.requested_ratio is not None]
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
