"""The gate matrix and the reasons, as text for a terminal or a CI log."""

from __future__ import annotations

from collections.abc import Iterator

from pruneproof import summary, wording
from pruneproof.evidence import Evidence, GateRow, VariantRow
from pruneproof.verdicts import Verdict, releases, worst


def headline(evidence: Evidence) -> str:
    """One line: the verdict on the variants up for release."""
    return f"{summary.headline(evidence)}: {summary.subline(evidence)}"


def broke_first(evidence: Evidence) -> Iterator[str]:
    """Which segment broke first, recipe by recipe."""
    for found in summary.first_breaks(evidence):
        gate = found.gate
        overall = ", while overall accuracy still passes" if found.overall_passes else ""
        where = f"{wording.member(gate.segment)} breaks first, at {found.variant.name}{overall}"
        yield f"{where}: {gate.metric} {summary.against(gate)}"


def findings(evidence: Evidence) -> Iterator[str]:
    """What the matrix does not show: a line for each, nothing where there is nothing to tell."""
    yield from broke_first(evidence)
    for found in summary.not_so(evidence):
        if not found.check.decides or found.variants[0].error is None:  # else the variant's error says it
            yield found.text
    for cost in summary.most_sensitive(evidence):
        yield cost.text


def matrix(evidence: Evidence) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a gate, its family summed up by the worst member; one column a variant."""
    variants = [row for row in evidence.variants if row.kind in ("pruned", "imported")]
    stems = list(dict.fromkeys(wording.stem(row) for row in evidence.gates))
    cells = {(name, variant.name): _cell(evidence, name, variant) for name in stems for variant in variants}
    header = ["gate", *(variant.name for variant in variants)]
    rows = [[_limit(evidence, name), *(cells[name, variant.name] for variant in variants)] for name in stems]
    verdicts = [wording.mark(variant.verdict) for variant in variants]
    rows.append(["verdict", *verdicts])
    return header, rows


def _limit(evidence: Evidence, name: str) -> str:
    first = next(row for row in evidence.gates if wording.stem(row) == name)
    return f"{name} {first.limit.value:g}"


def _cell(evidence: Evidence, name: str, variant: VariantRow) -> str:
    rows = [row for row in evidence.gates if row.variant == variant.name and wording.stem(row) == name]
    if not rows:
        return "not gated"
    verdict = worst(row.verdict for row in rows)
    shown = wording.mark(verdict)
    if len(rows) == 1:
        return f"{shown} {_value(rows[0])}"
    hit = [row for row in rows if row.verdict is verdict]
    if verdict is Verdict.PASS:
        return f"{shown} all {len(rows)}"
    return f"{shown} {len(hit)} of {len(rows)}: {wording.member(max(hit, key=wording.beyond).segment)}"


def _value(row: GateRow) -> str:
    return "" if row.value is None else f"{row.value:.4g}"


def text_matrix(evidence: Evidence) -> Iterator[str]:
    """The matrix as aligned lines."""
    header, rows = matrix(evidence)
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def explanation(row: GateRow, reproduce: str) -> Iterator[str]:
    """Why a gate did not pass, line by line."""
    against = f" against {row.comparator}" if row.comparator else ""
    yield f"{row.variant}  {row.id}: {row.verdict}"
    yield f"  limit      {row.limit.key} {row.limit.value:g}{against}" + (
        f" ({row.rationale})" if row.rationale else ""
    )
    if row.value is not None:
        level = f" ({100 * (2 * row.confidence - 1):g} % interval)"
        shown = f"{row.interval[0]:.4f} to {row.interval[1]:.4f}{level}" if row.interval else "exact"
        yield f"  value      {row.value:.4f}, {shown}, n = {row.n:,}"
    if row.comparator_value is not None and row.variant_value is not None:
        yield f"  {row.comparator:<10} {row.comparator_value:.4f} → {row.variant_value:.4f}"
    yield f"  reason     {row.reason}"
    if row.hurt is not None and row.hurt.lost:
        yield f"  hurt most  {row.hurt.segment or 'no segment'}; {row.hurt.lost} examples lost, first:"
        for example in row.hurt.examples:
            where = " ".join(f"{name}={value}" for name, value in example.segments.items())
            said = f"truth {example.target}, before {example.comparator}, now {example.variant}"
            yield f"             {example.id}: {said}  {where}"
    yield f"  reproduce  {reproduce}"


def colour(verdict: Verdict) -> str:
    """Name of a terminal colour; the word says the same."""
    if releases(verdict):
        return "green"
    return "yellow" if verdict is Verdict.INCONCLUSIVE else "red"
