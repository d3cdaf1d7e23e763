"""The gate matrix and the reasons, as text for a terminal or a CI log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pruneproof.evidence import Evidence, GateRow, VariantRow
from pruneproof.verdicts import GLYPHS, Verdict, releases, worst

HEADLINES = {
    Verdict.PASS: "RELEASED: every gate of every candidate passes",
    Verdict.WAIVED: "RELEASED, with waivers",
    Verdict.INCONCLUSIVE: "NOT RELEASED: some gates are inconclusive",
    Verdict.NOT_RUN: "NOT RELEASED: some gates did not run",
    Verdict.FAIL: "BLOCKED: some gates fail",
    Verdict.ERROR: "BLOCKED: some gates could not be judged",
}


def headline(evidence: Evidence) -> str:
    """One line: the verdict on the variants up for release."""
    candidates = [row for row in evidence.variants if row.candidate]
    released = sum(row.released for row in candidates)
    return f"{HEADLINES[evidence.verdict]} ({released} of {len(candidates)} candidates released)"


def stem(row: GateRow) -> str:
    """A gate id without its member."""
    return row.id.split("[", 1)[0]


def member(row: GateRow) -> str:
    """``column=value``, or nothing."""
    return ", ".join(f"{column}={value}" for column, value in (row.segment or {}).items())


def matrix(evidence: Evidence) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a gate, its family summed up by the worst member; one column a variant."""
    variants = [row for row in evidence.variants if row.kind in ("pruned", "imported")]
    stems = list(dict.fromkeys(stem(row) for row in evidence.gates))
    cells = {(name, variant.name): _cell(evidence, name, variant) for name in stems for variant in variants}
    header = ["gate", *(variant.name for variant in variants)]
    rows = [[_limit(evidence, name), *(cells[name, variant.name] for variant in variants)] for name in stems]
    verdicts = [f"{GLYPHS[variant.verdict]} {variant.verdict}" for variant in variants]
    rows.append(["verdict", *verdicts])
    return header, rows


def _limit(evidence: Evidence, name: str) -> str:
    first = next(row for row in evidence.gates if stem(row) == name)
    return f"{name} {first.limit.value:g}"


def _cell(evidence: Evidence, name: str, variant: VariantRow) -> str:
    rows = [row for row in evidence.gates if row.variant == variant.name and stem(row) == name]
    if not rows:
        return "not gated"
    verdict = worst(row.verdict for row in rows)
    shown = f"{GLYPHS[verdict]} {verdict}"
    if len(rows) == 1:
        return f"{shown} {_value(rows[0])}"
    hit = [row for row in rows if row.verdict is verdict]
    if verdict is Verdict.PASS:
        return f"{shown} all {len(rows)}"
    return f"{shown} {len(hit)} of {len(rows)}: {member(_farthest(hit))}"


def _value(row: GateRow) -> str:
    return "" if row.value is None else f"{row.value:.4g}"


def _farthest(rows: Sequence[GateRow]) -> GateRow:
    """The row farthest on the wrong side of its limit."""
    sign = -1 if rows[0].limit.key == "min" else 1
    return max(rows, key=lambda row: sign * (row.value if row.value is not None else 0.0))


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
