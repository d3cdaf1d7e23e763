"""Deriving every verdict again, from the outcomes and the policy's text alone.

What is found is not repaired: each contradiction is one line. Without a signature this shows that a
record is whole and consistent, not who made it.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pruneproof import (
    auditing,
    checking,
    digests,
    gates,
    imported,
    observing,
    outcomes,
    plan,
    policy,
    policy_file,
    selfcheck,
)
from pruneproof import evidence as records
from pruneproof.errors import EvidenceError, PolicyError, PruneProofError
from pruneproof.estimates import Proportion
from pruneproof.evidence import Evidence, GateRow, Row, VariantRow
from pruneproof.measuring import Family, Taken, measurement_rows
from pruneproof.outcomes import Examples
from pruneproof.policy import Policy
from pruneproof.recipe import words
from pruneproof.suite import Facts
from pruneproof.verdicts import Verdict

TOLERANCE = 1e-9
NOT_WHOLE = (LookupError, ValueError, TypeError, AttributeError, StopIteration)
"""What reading observations raises that somebody shortened or mixed up."""


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
    stands = (found.audit.name, found.audit.seed, found.policy.inconclusive, found.subject.load)
    if stands != (asked.audit.name, asked.audit.seed, asked.audit.inconclusive, asked.subject.load):
        yield "name, seed, subject or the treatment of inconclusive gates are not those of the policy"
    if against is not None:
        other = policy_file.read(against)
        if other.sha256 != found.policy.sha256:
            yield f"{against} is another policy: {other.sha256[:12]}…, recorded is {found.policy.sha256[:12]}…"


def _files(found: Evidence, folder: Path) -> Iterator[str]:
    if found.measurements and records.OUTCOMES not in found.digests:
        yield f"the digest of {records.OUTCOMES} is not recorded"
    for name, digest in found.digests.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            yield f"{name} lies outside the evidence"
        elif not path.exists():
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
        if stored.model != found.subject.model_sha256:
            yield f"the plan of {row.name} is for another model than the subject's"
        plans = (
            dict(stored.recipe), stored.ratio, stored.achieved, stored.removed, stored.units, list(stored.left_whole),
        )  # fmt: skip
        recorded = (
            row.recipe, row.requested_ratio, row.achieved_ratio, row.units_removed, row.units, row.left_whole,
        )  # fmt: skip
        if plans != recorded:
            yield f"{row.name}: what is recorded of its plan is not what the plan says"


def _derived(found: Evidence, asked: Policy, folder: Path) -> list[str]:
    if found.subject.error is not None or found.subject.task is None:
        expected: dict[tuple[str, str], GateRow] = {}
        return _compared(found, expected, asked, gates.unexpanded(asked))
    row = found.subject
    facts = checking.facts_of(found.subject.task, tuple(row.classes), row.segments, row.data_sizes)
    try:
        examples, said = outcomes.read(folder / records.OUTCOMES, facts, found.subject.threshold)
    except PruneProofError as error:
        return [error.cause]
    problems = list(_examples(examples, facts))
    if problems:
        return problems
    family = Family(asked, examples, said, partial(observing.kept, folder))
    try:
        problems += _observations(family)
    except EvidenceError as error:
        return [error.cause]
    names = [row.name for row in found.variants if row.error is None and row.name in said]
    try:
        taken = {name: family.measure(name) for name in said}
        shown = observing.chapters(family, names)
    except NOT_WHOLE:
        if not problems:
            raise
        return problems
    problems += _measurements(found, asked, taken)
    if shown != found.chapters:
        problems.append("what the suites show is not what follows from their observations")
    expansion = gates.expand(asked, facts)
    return problems + _compared(found, _judged(asked, expansion, examples, taken), asked, expansion)


def _examples(examples: Examples, facts: Facts) -> Iterator[str]:
    if len(examples.targets) != facts.n:
        yield f"outcomes hold {len(examples.targets)} examples, the evidence {facts.n}"
        return
    for column, values in facts.segments.items():
        counted = examples.segments[column].value_counts().to_dict() if column in examples.segments else {}
        if counted != dict(values):
            yield f"outcomes and evidence disagree about segment column '{column}'"


def _observations(family: Family) -> Iterator[str]:
    """What suites kept that needed the models, as far as it can be held against anything."""
    for name in family.said:
        for suite, observing_suite in observing.suites(family.asked).items():
            given = family.context(name, suite)
            if given.observed is None or given.observed.error is not None:
                continue
            try:
                found = observing_suite.contradictions(given, family.asked.suites[suite].options)
            except NOT_WHOLE as error:
                found = [f"what was observed is not whole ({type(error).__name__}: {error})"]
            yield from (f"{name}: {suite}: {line}" for line in found)


def _measurements(found: Evidence, asked: Policy, taken: Mapping[str, Taken]) -> Iterator[str]:
    recorded = {(r.variant, r.suite, r.metric, str(r.segment)): r for r in found.measurements}
    if len(recorded) < len(found.measurements):
        yield "a measurement is recorded twice"
    for name, made in taken.items():
        if name not in {row.name for row in found.variants}:
            yield f"outcomes hold '{name}', which the evidence does not name"
            continue
        for row in measurement_rows(asked, name, made.measured):
            other = recorded.pop((row.variant, row.suite, row.metric, str(row.segment)), None)
            what = f"{name}: {row.suite}/{row.metric} {row.segment or ''}".rstrip()
            yield from _differences(what, row, other)
    for key in recorded:
        yield f"{key[0]}: {key[1]}/{key[2]} is recorded, but does not follow from the outcomes"


def _judged(
    asked: Policy, expansion: gates.Expansion, examples: Examples, taken: Mapping[str, Taken]
) -> dict[tuple[str, str], GateRow]:
    """What the gates of every variant with outcomes come to, before waivers."""
    rows = {}
    others = {name: taken[name].measured for name in (policy.DENSE, policy.PREVIOUS) if name in taken}
    for spec in policy.variants(asked):
        if spec.name not in taken:
            continue
        own = taken[spec.name]
        for row in gates.judge(asked, expansion, spec, own.measured, others, examples.facts.every, own.failures):
            rows[row.variant, row.id] = row
    return rows


def _compared(
    found: Evidence, expected: Mapping[tuple[str, str], GateRow], asked: Policy, expansion: gates.Expansion
) -> list[str]:
    """Recorded gates, variants and the verdict, held against what follows."""
    problems = []
    rows = []
    recorded = {(row.variant, row.id): row for row in found.gates}
    if len(recorded) < len(found.gates):
        problems.append("a gate is recorded twice")
    candidates = policy.candidates(asked)
    for spec in policy.variants(asked):
        for gate in gates.for_variant(expansion, spec):
            row = recorded.pop((spec.name, gate.id), None)
            derived = expected.get((spec.name, gate.id))
            if row is None:
                problems.append(f"{spec.name}: gate {gate.id} of the policy is not in the evidence")
            elif derived is not None and row.verdict is not Verdict.NOT_RUN:
                rows.append(derived)
            elif row.verdict in (Verdict.ERROR, Verdict.NOT_RUN):
                bare = gates.row(gate, spec.name, spec.name in candidates, row.verdict, row.reason)
                rows.append(derived.model_copy(update=_not_run(row)) if derived else bare)
            else:
                problems.append(f"{spec.name}: {gate.id} is recorded {row.verdict}, but there are no outcomes for it")
                rows.append(row)
    made = [_from_test(row) for row in recorded.values() if row.suite == "tests"]
    problems += [
        f"{variant}: gate {gate} is recorded, but the policy has none such"
        for (variant, gate), row in recorded.items()
        if row.suite != "tests"
    ]
    day = datetime.datetime.fromisoformat(found.audit.started).date()
    judged, waivers = gates.waive([*rows, *auditing.test_rows(asked, made)], asked.waivers, day)
    by_gate = {(row.variant, row.id): row for row in found.gates}
    for row in judged:
        problems += _differences(f"{row.variant}: {row.id}", row, by_gate.get((row.variant, row.id)), {"hurt"})
    problems += _variants(found, judged, asked)
    problems += _sensitivity(found, asked)
    if [row.model_dump() for row in waivers] != [row.model_dump() for row in found.waivers]:
        problems.append("the waivers, or what came of them, are not those of the policy")
    if auditing.overall(judged) is not found.verdict:
        problems.append(f"the verdict is recorded {found.verdict}, the gates come to {auditing.overall(judged)}")
    if found.limitations != auditing.limitations(
        asked, judged, found.variants, found.measurements, found.sensitivity_error
    ):
        problems.append("the limitations are not those that follow")
    return problems


def _not_run(row: GateRow) -> dict[str, object]:
    return {"verdict": row.verdict, "reason": row.reason, "needed": row.needed}


def _variants(found: Evidence, judged: list[GateRow], asked: Policy) -> Iterator[str]:
    """Contradictions between the variants' rows and the policy, the gates, the plans."""
    specs = {spec.name: spec for spec in policy.variants(asked)}
    names = [row.name for row in found.variants if row.kind in ("pruned", "imported")]
    if sorted(names) != sorted(specs):
        yield f"the variants are {', '.join(names)}; the policy's are {', '.join(specs)}"
    for row in found.variants:
        if row.kind in ("dense", "previous"):
            if row.name != row.kind or row.released or row.candidate:
                yield f"{row.name} is recorded as {row.kind}, which is never up for release"
            continue
        again = auditing.judged(row, judged, asked)
        if (again.verdict, again.candidate, again.released) != (row.verdict, row.candidate, row.released):
            yield f"{row.name} is recorded {row.verdict}, its gates come to {again.verdict}"
        spec = specs.get(row.name)
        if spec is not None and row.error is None:
            failed = [check.id for check in row.self_checks if check.decides and not check.passed]
            yield from _claims(row, spec)
            if failed:
                yield f"{row.name} has a verdict, but its self-check {failed[0]} failed"
            if spec.ratio != row.requested_ratio or (row.kind == "pruned") != (row.plan_sha256 is not None):
                yield f"{row.name}: its recipe, ratio or plan are not those of the policy"


def _claims(row: VariantRow, spec: policy.VariantSpec) -> Iterator[str]:
    """Contradictions between the policy and what stands in a variant's row about its recipe, claims and checks."""
    stands = {check.id: check.decides for check in row.self_checks}
    if spec.recipe is not None:
        expected = selfcheck.expected(spec.recipe)
        claimed: tuple[float | None, str | None] = (None, None)
        if row.recipe != words(spec.recipe):
            yield f"{row.name}: its recipe is not that of the policy"
    else:
        expected, claimed = imported.decides(spec), imported.claim(spec)
        if (row.recipe, row.achieved_ratio, row.units, row.units_removed) != (None, None, None, None):
            yield f"{row.name} is imported, but has what only a recipe gives"
    if stands != expected or len(stands) < len(row.self_checks):
        yield f"{row.name}: its self-checks, or which of them decide, are not those that were due"
    if (row.claimed_ratio, row.claimed_of) != claimed:
        yield f"{row.name}: what was claimed of it is not what the policy says"


def _sensitivity(found: Evidence, asked: Policy) -> Iterator[str]:
    """Contradictions between the policy and the table of sensitivity, whose values outcomes do not give."""
    if asked.sensitivity is None:
        if found.sensitivity or found.sensitivity_error is not None:
            yield "sensitivity is recorded, and the policy does not ask for it"
        return
    if found.sensitivity_error is not None or found.subject.error is not None:
        return
    (recipe,) = (entry for entry in asked.prune if entry.name == asked.sensitivity.recipe)
    free = recipe.granularity in ("n_of_m", "block")
    ratios = {row.ratio for row in found.sensitivity if row.layer is not None}
    names = {row.recipe for row in found.sensitivity}
    measured = any(row.verdict is not Verdict.NOT_RUN for row in found.variants if row.kind in ("pruned", "imported"))
    if measured and (names != {recipe.name} or not (free or ratios == set(asked.sensitivity.ratios))):
        yield "the table of sensitivity is not that which the policy asks for"


def _from_test(row: GateRow) -> GateRow:
    """A gate that test code made, judged again from its count and n; kept as it is where it had none."""
    if row.verdict in (Verdict.NOT_RUN, Verdict.ERROR) or row.value is None or row.method != Proportion.method:
        return row
    return gates.from_test(
        row.metric, row.variant, row.candidate, row.limit.key, row.limit.value,
        gates.counted(round(row.value * row.n), row.n), row.n, row.confidence,
    )  # fmt: skip


def _differences(what: str, derived: Row, recorded: Row | None, leaving: Collection[str] = ()) -> Iterator[str]:
    """Each field in which a recorded row is not what follows; ``leaving`` out those that outcomes do not give."""
    if recorded is None:
        yield f"{what} is not in the evidence"
        return
    for field in sorted(set(type(derived).model_fields) - set(leaving)):
        follows, stands = (row.model_dump(mode="json")[field] for row in (derived, recorded))
        if not _same(follows, stands):
            yield f"{what}: {field} is recorded as {stands}, what was measured gives {follows}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(a == b)
