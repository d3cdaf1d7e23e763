"""Deriving every verdict again, from the outcomes and the policy's text alone.

What is found is not repaired: each contradiction is one line. Without a signature this shows that a
record is whole and consistent, not who made it.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from pruneproof import auditing, digests, gates, outcomes, plan, policy, policy_file
from pruneproof import evidence as records
from pruneproof.engine import measure, measurement_rows
from pruneproof.errors import PolicyError, PruneProofError
from pruneproof.estimates import Proportion
from pruneproof.evidence import Evidence, GateRow
from pruneproof.outcomes import Examples, Predictions
from pruneproof.policy import DENSE, Policy
from pruneproof.suite import Facts
from pruneproof.verdicts import Verdict

TOLERANCE = 1e-9


def verify(folder: Path, against: Path | None = None) -> list[str]:
    """Contradictions in the evidence in ``folder``; empty when there are none.

    Args:
        folder: the folder that an audit wrote.
        against: a policy file that the evidence has to be of.

    Raises:
        EvidenceError: there is no readable evidence.
        PolicyError: ``against`` is no policy.
    """
    found = records.read(folder)
    if folder.is_file():
        folder = folder.parent
    try:
        asked = policy_file.parse(found.policy.text, found.policy.path)
    except PolicyError as error:
        return [f"the policy's text in the evidence is no policy: {error.cause}"]
    problems = list(_policy(found, asked, against))
    problems += _files(found, folder)
    problems += _derived(found, asked, folder)
    return problems


def _policy(found: Evidence, asked: Policy, against: Path | None) -> Iterator[str]:
    if asked.sha256 != found.policy.sha256:
        yield f"the policy's text has digest {asked.sha256[:12]}…, recorded is {found.policy.sha256[:12]}…"
    if list(policy.candidates(asked)) != found.policy.candidates:
        yield "the candidates are not those that the policy puts up for release"
    if against is not None:
        other = policy_file.read(against)
        if other.sha256 != found.policy.sha256:
            yield f"{against} is another policy: {other.sha256[:12]}…, recorded is {found.policy.sha256[:12]}…"


def _files(found: Evidence, folder: Path) -> Iterator[str]:
    for name, digest in found.digests.items():
        path = folder / Path(name).name
        if not path.exists():
            yield f"{name} is missing"
        elif digests.of_file(path) != digest:
            yield f"{name} was changed after the audit: its digest differs"
    for row in found.variants:
        if row.plan_sha256 is None:
            continue
        try:
            stored = plan.load(folder / records.PLANS / row.name)
        except PruneProofError as error:
            yield error.cause
            continue
        if plan.digest(stored) != row.plan_sha256:
            yield f"the plan of {row.name} was changed after the audit: its digest differs"


def _derived(found: Evidence, asked: Policy, folder: Path) -> list[str]:
    if found.subject.error is not None or found.subject.task is None:
        expected: dict[tuple[str, str], GateRow] = {}
        return _compared(found, expected, asked, gates.unexpanded(asked))
    facts = Facts(
        found.subject.task,
        found.subject.data_sizes["test"],
        tuple(found.subject.classes),
        found.subject.segments,
    )
    try:
        examples, said = outcomes.read(folder / records.OUTCOMES, facts, found.subject.threshold)
    except PruneProofError as error:
        return [error.cause]
    problems = list(_examples(examples, facts))
    if problems:
        return problems
    problems += _measurements(found, asked, examples, said)
    expansion = gates.expand(asked, facts)
    return problems + _compared(found, _judged(found, asked, expansion, examples, said), asked, expansion)


def _examples(examples: Examples, facts: Facts) -> Iterator[str]:
    if len(examples.targets) != facts.n:
        yield f"outcomes hold {len(examples.targets)} examples, the evidence {facts.n}"
        return
    for column, values in facts.segments.items():
        counted = examples.segments[column].value_counts().to_dict() if column in examples.segments else {}
        if counted != dict(values):
            yield f"outcomes and evidence disagree about segment column '{column}'"


def _measurements(found: Evidence, asked: Policy, examples: Examples, said: Mapping[str, Predictions]) -> Iterator[str]:
    recorded = {(r.variant, r.suite, r.metric, str(r.segment)): r for r in found.measurements}
    for name, predictions in said.items():
        if name not in {row.name for row in found.variants}:
            yield f"outcomes hold '{name}', which the evidence does not name"
            continue
        measured = measure(asked, name, examples, predictions, said[DENSE])
        for row in measurement_rows(asked, name, measured):
            key = (row.variant, row.suite, row.metric, str(row.segment))
            other = recorded.pop(key, None)
            if other is None:
                yield f"{name}: {row.suite}/{row.metric} {row.segment or ''} is not in the evidence"
            elif not _close(row.value, other.value) or row.n != other.n:
                yield f"{name}: {row.suite}/{row.metric} {row.segment or ''} is {row.value}, recorded {other.value}"
    for key in recorded:
        yield f"{key[0]}: {key[1]}/{key[2]} is recorded, but does not follow from the outcomes"


def _judged(
    found: Evidence,
    asked: Policy,
    expansion: gates.Expansion,
    examples: Examples,
    said: Mapping[str, Predictions],
) -> dict[tuple[str, str], GateRow]:
    """What the gates of every variant with outcomes come to, before waivers."""
    rows = {}
    for spec in policy.variants(asked):
        if spec.name not in said:
            continue
        measured = measure(asked, spec.name, examples, said[spec.name], said[DENSE])
        others = {
            name: measure(asked, name, examples, said[name], said[DENSE])
            for name in (policy.DENSE, policy.PREVIOUS)
            if name in said
        }
        for row in gates.judge(asked, expansion, spec, measured, others, examples.facts.n):
            rows[row.variant, row.id] = row
    return rows


def _compared(
    found: Evidence, expected: Mapping[tuple[str, str], GateRow], asked: Policy, expansion: gates.Expansion
) -> list[str]:
    """Recorded gates, variants and the verdict, held against what follows."""
    problems = []
    rows = []
    recorded = {(row.variant, row.id): row for row in found.gates}
    candidates = policy.candidates(asked)
    for spec in policy.variants(asked):
        for gate in gates.for_variant(expansion, spec):
            key = (spec.name, gate.id)
            row = recorded.pop(key, None)
            if row is None:
                problems.append(f"{key[0]}: gate {key[1]} of the policy is not in the evidence")
                continue
            derived = expected.get(key)
            if derived is None and row.verdict not in (Verdict.ERROR, Verdict.NOT_RUN):
                problems.append(f"{key[0]}: {key[1]} is recorded {row.verdict}, but there are no outcomes for it")
            if derived is None or row.verdict is Verdict.NOT_RUN:
                rows.append(row.model_copy(update={"candidate": spec.name in candidates}))
            else:
                rows.append(derived)
    for key, row in recorded.items():
        if row.suite != "tests":
            problems.append(f"{key[0]}: gate {key[1]} is recorded, but the policy has none such")
        else:
            rows.append(_from_test(row))
    day = datetime.datetime.fromisoformat(found.audit.started).date()
    made = [row for row in rows if row.suite == "tests"]
    policys = [row for row in rows if row.suite != "tests"]
    waived, _ = gates.waive([*policys, *auditing.test_rows(asked, made)], asked.waivers, day)
    for row in waived:
        problems += _difference(row, next((r for r in found.gates if (r.variant, r.id) == (row.variant, row.id)), None))
    for variant in found.variants:
        again = auditing.judged(variant, waived, asked)
        if (again.verdict, again.candidate, again.released) != (variant.verdict, variant.candidate, variant.released):
            problems.append(f"{variant.name} is recorded {variant.verdict}, its gates come to {again.verdict}")
    if auditing.overall(waived) is not found.verdict:
        problems.append(f"the verdict is recorded {found.verdict}, the gates come to {auditing.overall(waived)}")
    return problems


def _from_test(row: GateRow) -> GateRow:
    """A gate that test code made, judged again from its count and n; kept as it is where it had none."""
    if row.verdict in (Verdict.NOT_RUN, Verdict.ERROR) or row.value is None or row.method != Proportion.method:
        return row
    return gates.from_test(
        row.metric, row.variant, row.candidate, row.limit.key, row.limit.value,
        gates.counted(round(row.value * row.n), row.n), row.n, row.confidence,
    )  # fmt: skip


def _difference(row: GateRow, recorded: GateRow | None) -> Iterator[str]:
    if recorded is None:
        yield f"{row.variant}: gate {row.id} is not in the evidence"
    elif row.verdict is not recorded.verdict:
        yield f"{row.variant}: {row.id} is recorded {recorded.verdict}, its measurements come to {row.verdict}"
    elif not _close(row.value, recorded.value) or row.limit != recorded.limit or row.candidate != recorded.candidate:
        yield f"{row.variant}: {row.id} is recorded with value {recorded.value}, its measurements give {row.value}"
    elif not all(_close(a, b) for a, b in zip(row.interval or (), recorded.interval or (), strict=False)):
        yield f"{row.variant}: {row.id} is recorded with interval {recorded.interval}, measured {row.interval}"


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None or math.isnan(a) or math.isnan(b):
        return (a is None or math.isnan(a)) and (b is None or math.isnan(b))
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
