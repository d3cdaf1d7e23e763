"""Why a variant is not released: its gates that do not pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruneproof import summary, wording
from pruneproof.evidence import Evidence, GateRow
from pruneproof.reports import _matrix
from pruneproof.verdicts import Verdict

DETAILED = 4
"""Members of a family that are shown in full; the others are listed in a table."""


@dataclass(frozen=True)
class Card:
    """One gate in full.

    Args:
        others: ids of gates that got the same verdict for the same reason without a value.
        decides: what would decide it, or turn it.
        same_examples: id of the gate above that shows the same examples.
    """

    gate: GateRow
    others: tuple[str, ...]
    decides: str
    same_examples: str | None


@dataclass(frozen=True)
class Reasons:
    """The gates of one variant that do not pass, worst first."""

    variant: str
    candidate: bool
    verdict: Verdict
    total: int
    cards: tuple[Card, ...]
    rest: tuple[GateRow, ...]
    """Further members of families, in short."""

    @property
    def number(self) -> int:
        """How many gates do not pass."""
        return sum(1 + len(card.others) for card in self.cards) + len(self.rest)


def reasons(evidence: Evidence) -> list[Reasons]:
    """One for each variant with a gate that does not pass."""
    found = []
    for column in _matrix.columns(evidence):
        gates = [gate for gate in evidence.gates if gate.variant == column.name]
        other = summary.worst_first([gate for gate in gates if gate.verdict is not Verdict.PASS])
        if other:
            cards, rest = _cards(evidence, other)
            found.append(Reasons(column.name, column.candidate, column.verdict, len(gates), cards, rest))
    return found


def _cards(evidence: Evidence, gates: Sequence[GateRow]) -> tuple[tuple[Card, ...], tuple[GateRow, ...]]:
    cards: list[Card] = []
    rest: list[GateRow] = []
    shown: dict[tuple[str, ...], str] = {}
    alike: dict[tuple[Verdict, str], list[GateRow]] = {}
    per_stem: dict[str, int] = {}
    for gate in gates:
        if gate.value is None:
            alike.setdefault((gate.verdict, gate.reason), []).append(gate)
    for gate in gates:
        others: tuple[str, ...] = ()
        if gate.value is None:
            group = alike[gate.verdict, gate.reason]
            if gate is not group[0]:
                continue
            others = tuple(row.id for row in group[1:])
        stem = wording.stem(gate)
        per_stem[stem] = per_stem.get(stem, 0) + 1
        if per_stem[stem] > DETAILED:
            rest.append(gate)
            continue
        examples = tuple(example.id for example in gate.hurt.examples) if gate.hurt else ()
        same = shown.setdefault(examples, gate.id) if examples else gate.id
        cards.append(Card(gate, others, _decides(evidence, gate), same if same != gate.id else None))
    return tuple(cards), tuple(rest)


def _decides(evidence: Evidence, gate: GateRow) -> str:
    if gate.verdict is Verdict.WAIVED:
        return "The waiver covers it until it expires; the limit itself is not shown to hold."
    if gate.verdict is Verdict.ERROR:
        return "Nothing was judged. Remove the cause of the error and run the audit again."
    if gate.verdict is Verdict.NOT_RUN:
        return "Nothing was judged. Run the whole audit."
    if gate.verdict is Verdict.INCONCLUSIVE:
        if gate.needed:
            of = f" of {wording.member(gate.segment)}" if gate.segment and "by" not in gate.segment else ""
            return f"About {gate.needed:,} more test examples{of}, if the rates stay as they are."
        return "More test examples, or a variant that keeps a clearer distance from the limit."
    passing = _passing(evidence, gate)
    if passing:
        return f"Decided: the limit is broken. The same gate passes for {', '.join(passing)}."
    return "Decided: the limit is broken, and more examples of the same kind would not mend it."


def _passing(evidence: Evidence, gate: GateRow) -> list[str]:
    """Variants of the same recipe for which the gate passes."""
    recipe = gate.variant.rsplit("@", 1)[0]
    return [
        row.variant
        for row in evidence.gates
        if row.id == gate.id and row.verdict is Verdict.PASS and row.variant.rsplit("@", 1)[0] == recipe
    ]
