"""The gate matrix: gates × variants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pruneproof import summary, wording
from pruneproof.evidence import Evidence, GateRow
from pruneproof.verdicts import Verdict, worst

COLUMNS = 5
"""Variants side by side that still fit on paper; more go into a further table."""


@dataclass(frozen=True)
class Column:
    """A variant under audit."""

    name: str
    candidate: bool
    verdict: Verdict


@dataclass(frozen=True)
class Line:
    """One gate: a cell for each variant, ``None`` where the policy does not gate it."""

    id: str
    gate: GateRow
    cells: tuple[GateRow | None, ...]


@dataclass(frozen=True)
class Family:
    """The gates of one stem; more than one, or a named member, where it is a family."""

    stem: str
    is_family: bool
    lines: tuple[Line, ...]
    summaries: tuple[tuple[Verdict, str] | None, ...]
    """Per variant: the worst verdict of the family, and the counts."""


@dataclass(frozen=True)
class Matrix:
    """One table of at most :data:`COLUMNS` variants."""

    columns: tuple[Column, ...]
    suites: tuple[tuple[str, tuple[Family, ...]], ...]
    first: int
    total: int


def columns(evidence: Evidence) -> list[Column]:
    """The variants that have gates or an own row, in the evidence's order; comparators are left out."""
    found = [
        Column(row.name, row.name in evidence.policy.candidates, row.verdict)
        for row in evidence.variants
        if row.kind not in ("dense", "previous")
    ]
    known = {column.name for column in found}
    missing = [name for name in dict.fromkeys(gate.variant for gate in evidence.gates) if name not in known]
    for name in missing:
        verdict = worst(gate.verdict for gate in evidence.gates if gate.variant == name)
        found.append(Column(name, name in evidence.policy.candidates, verdict))
    return found


def matrices(evidence: Evidence) -> Iterator[Matrix]:
    """The matrix, in tables that fit on paper."""
    every = columns(evidence)
    for start in range(0, len(every), COLUMNS):
        part = tuple(every[start : start + COLUMNS])
        yield Matrix(part, _suites(evidence.gates, part), start + 1, len(every))


def _suites(gates: Sequence[GateRow], part: Sequence[Column]) -> tuple[tuple[str, tuple[Family, ...]], ...]:
    lines: dict[str, dict[str, dict[str, dict[str, GateRow]]]] = {}
    for gate in gates:
        family = lines.setdefault(gate.suite, {}).setdefault(wording.stem(gate), {})
        family.setdefault(gate.id, {})[gate.variant] = gate
    return tuple(
        (suite, tuple(_family(stem, members, part) for stem, members in stems.items()))
        for suite, stems in lines.items()
    )


def _family(stem: str, members: dict[str, dict[str, GateRow]], part: Sequence[Column]) -> Family:
    lines = tuple(
        Line(id, next(iter(cells.values())), tuple(cells.get(column.name) for column in part))
        for id, cells in members.items()
    )
    is_family = len(lines) > 1 or lines[0].gate.segment is not None
    summaries = []
    for position in range(len(part)):
        own = [cell for line in lines if (cell := line.cells[position]) is not None]
        summaries.append((worst(cell.verdict for cell in own), summary.tally(own)) if own else None)
    return Family(stem, is_family, lines, tuple(summaries))
