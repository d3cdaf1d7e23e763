"""``report.md``: about one screen, for the summary page of a CI job."""

from __future__ import annotations

import re

from pruneproof import summary, wording
from pruneproof.evidence import Evidence, GateRow
from pruneproof.reports import _listing, _matrix
from pruneproof.verdicts import GLYPHS, WORST_FIRST, Verdict

FILE = "report.md"
VARIANTS = 12
GATES = 10
FINDINGS = 4
"""Rows of each table, and self-checks that do not hold; what is left out is counted."""


def render(evidence: Evidence) -> str:
    """The verdict, the counts of each variant, the worst gates that do not pass; folded up, what suites show."""
    lines = [
        f"## {GLYPHS[evidence.verdict]} {summary.headline(evidence)}: {_code(evidence.audit.name)}",
        "",
        _prose(summary.subline(evidence)),
    ]
    if evidence.subject.error:
        lines += ["", f"Error: {_code(evidence.subject.error)}"]
    for found in summary.first_breaks(evidence):
        passes = "; overall accuracy still passes its gates there" if found.overall_passes else ""
        worst = f"{_code(found.gate.id)} {summary.against(found.gate)}"
        lines += ["", f"Segments break first at {_code(found.variant.name)}: {worst}{passes}."]
    lines += _findings(evidence)
    lines += ["", *_variants(evidence)]
    lines += ["", *_gates(evidence)]
    lines += _listing.chapters(evidence.chapters)
    lines += [
        "",
        f"Policy {_code(evidence.policy.sha256[:12])}, "
        f"dense model {_code((evidence.subject.model_sha256 or 'not loaded')[:12])}, "
        f"{wording.plural(len(evidence.ledger), 'earlier audit')}, "
        f"{wording.plural(len(evidence.limitations), 'limitation')}. "
        "Intervals, reasons and curves: report.html.",
        "",
    ]
    return "\n".join(lines)


def _findings(evidence: Evidence) -> list[str]:
    """Self-checks that do not hold, and the most sensitive layers."""
    failed = summary.not_so(evidence)
    lines = [
        f"- {', '.join(_code(row.name) for row in found.variants)}: {_prose(found.outcome)}: {_code(found.detail)}"
        for found in failed[:FINDINGS]
    ]
    if len(failed) > FINDINGS:
        lines.append(f"- … and {wording.plural(len(failed) - FINDINGS, 'more self-check')} that do not hold.")
    lines += [
        f"- Most sensitive layer under {_code(cost.recipe)}: {_code(cost.layer)}; {cost.loss}"
        for cost in summary.most_sensitive(evidence)
    ]
    return ["", *lines] if lines else []


def _variants(evidence: Evidence) -> list[str]:
    columns = sorted(_matrix.columns(evidence), key=lambda column: not column.candidate)
    shown = [verdict for verdict in WORST_FIRST if any(gate.verdict is verdict for gate in evidence.gates)]
    head = "".join(f" {wording.WORDS[verdict]} |" for verdict in shown)
    lines = [f"| Variant | | Verdict |{head}", f"|---|---|---|{'--:|' * len(shown)}"]
    for column in columns[:VARIANTS]:
        own = [gate.verdict for gate in evidence.gates if gate.variant == column.name]
        status = "up for release" if column.candidate else "explored"
        numbers = "".join(f" {own.count(verdict)} |" for verdict in shown)
        lines.append(f"| {_code(column.name)} | {status} | {wording.mark(column.verdict)} |{numbers}")
    if not columns:
        return ["No variant was audited."]
    return [*lines, *_more(len(columns) - VARIANTS, "variant")]


def _gates(evidence: Evidence) -> list[str]:
    other = [gate for gate in evidence.gates if gate.verdict is not Verdict.PASS]
    if not other:
        return ["Every gate passes."] if evidence.gates else ["No gate was judged."]
    rows = sorted(summary.worst_first(other), key=lambda gate: not gate.candidate)
    lines = ["| Gate that does not pass | Variant | Verdict | Value | Limit |", "|---|---|---|---|---|"]
    lines += [_gate(gate) for gate in rows[:GATES]]
    return [*lines, *_more(len(rows) - GATES, "gate")]


def _gate(gate: GateRow) -> str:
    value = wording.measured(gate) if gate.value is not None else "no value"
    explored = "" if gate.candidate else " (explored)"
    limit = " ".join(wording.limit(gate)).strip()
    return f"| {_code(gate.id)} | {_code(gate.variant)}{explored} | {wording.mark(gate.verdict)} | {value} | {limit} |"


def _more(left: int, noun: str) -> list[str]:
    return ["", f"… and {wording.plural(left, f'more {noun}')}."] if left > 0 else []


def _code(text: str) -> str:
    """A code span that no text of users can leave: as HTML where a span of Markdown would not hold it."""
    line = " ".join(wording.clean(text).split())
    if re.search(r"[`|<&\\]", line) or not line:
        return (
            "<code>"
            + "".join(char if char.isalnum() or char in " .,-" else f"&#{ord(char)};" for char in line)
            + "</code>"
        )
    return f"`{line}`"


def _prose(text: str) -> str:
    return " ".join(text.split())
