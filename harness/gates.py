"""Gates: limits that were fixed beforehand, held against measurements.

A gate is a one-sided claim. PASS: the bound on the dangerous side is inside the limit. FAIL: the other
bound is outside it. Neither: INCONCLUSIVE, with about how many more examples would decide. Over a family
(segments, classes) PASS needs every member to pass at the audit's confidence, uncorrected
(intersection-union, Berger 1982); calling a member FAIL is Holm-corrected over the family.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from pruneproof import policy as policies
from pruneproof.errors import PruneProofError
from pruneproof.estimates import Change, Estimate, Exact, Proportion, change, seeded
from pruneproof.evidence import GateRow, LimitRow, WaiverRow
from pruneproof.policy import GateSpec, Policy, VariantSpec, Waiver
from pruneproof.statistics import Bounds, examples_needed, holm, p_beyond
from pruneproof.suite import Facts, Measurement, Member
from pruneproof.verdicts import WAIVABLE, Verdict

Measured = Mapping[str, Sequence[Measurement]]
"""Suite → what it measured of one variant."""


@dataclass(frozen=True)
class Gate:
    """One member of a gate's family."""

    spec: GateSpec
    member: Member | None

    @property
    def id(self) -> str:
        """``suite/metric:key``, and ``[column=value]`` where it applies."""
        return self.spec.stem + (self.member.suffix if self.member else "")


@dataclass(frozen=True)
class Expansion:
    """The gates of an audit once the test set is known.

    Args:
        gates: in the policy's order, members in their suite's.
        undefined: gates that cannot be measured on this task, each with the reason.
    """

    gates: tuple[Gate, ...]
    undefined: Mapping[str, str]


def expand(asked: Policy, facts: Facts) -> Expansion:
    """Every gate of the policy, one for each member of its family."""
    gates: list[Gate] = []
    undefined = {}
    for spec in policies.gate_specs(asked):
        if facts.task not in spec.metric.tasks:
            undefined[spec.stem] = f"{spec.metric.name} is not defined for a {facts.task} task"
            gates.append(Gate(spec, None))
            continue
        members: Sequence[Member | None] = [None]
        if spec.metric.family is not None:
            options = asked.suites[spec.suite].options
            members = policies.suite(spec.suite).members(spec.metric, facts, options)
        if not members:
            what = "segment column" if spec.metric.family == "by" else spec.metric.family
            undefined[spec.stem] = f"there is no {what} to measure {spec.metric.name} on"
            members = [None]
        gates.extend(Gate(spec, member) for member in members)
    return Expansion(tuple(gates), undefined)


def unexpanded(asked: Policy) -> Expansion:
    """The gates of the policy where the test set could not be loaded."""
    specs = policies.gate_specs(asked)
    return Expansion(tuple(Gate(spec, None) for spec in specs), {})


def for_variant(expansion: Expansion, variant: VariantSpec) -> tuple[Gate, ...]:
    """The gates that apply to ``variant``."""
    return tuple(gate for gate in expansion.gates if policies.applies(gate.spec, variant))


def row(
    gate: Gate,
    variant: str,
    candidate: bool,
    verdict: Verdict,
    reason: str,
    claim: _Claim | None = None,
    needed: int | None = None,
) -> GateRow:
    """A gate's row; without a claim there was nothing to judge."""
    spec = gate.spec
    return GateRow(
        id=gate.id,
        variant=variant,
        suite=spec.suite,
        metric=spec.metric.name,
        segment={gate.member.column: gate.member.value} if gate.member else None,
        limit=LimitRow(key=spec.key, value=spec.limit),
        comparator=spec.comparator,
        value=claim.estimate.value if claim else None,
        variant_value=claim.variant_value if claim else None,
        comparator_value=claim.comparator_value if claim else None,
        interval=claim.interval(spec.confidence) if claim else None,
        confidence=spec.confidence,
        n=claim.n if claim else 0,
        method=claim.estimate.method if claim else "",
        basis=("paired" if spec.comparator else "absolute") if claim else "none",
        verdict=verdict,
        reason=reason,
        needed=needed,
        rationale=spec.rationale,
        candidate=candidate,
    )


def judge(
    asked: Policy,
    expansion: Expansion,
    variant: VariantSpec,
    measured: Measured,
    comparators: Mapping[str, Measured],
    size: int,
    failures: Mapping[str, str] | None = None,
) -> list[GateRow]:
    """The rows of every gate that applies to ``variant``, in the expansion's order.

    Args:
        measured: of the variant.
        comparators: ``"dense"`` and, where the policy names one, ``"previous"``.
        size: number of examples that an estimate can rest on, those of all sets.
        failures: suite → why it measured nothing of ``variant``.
    """
    candidate = variant.name in policies.candidates(asked)
    families: dict[str, list[Gate]] = {}
    for gate in for_variant(expansion, variant):
        families.setdefault(gate.spec.stem, []).append(gate)
    rows = []
    for stem, family in families.items():
        if stem in expansion.undefined:
            reason = expansion.undefined[stem]
            rows += [row(gate, variant.name, candidate, Verdict.ERROR, reason) for gate in family]
            continue
        failure = (failures or {}).get(family[0].spec.suite)
        if failure is not None:
            rows += [row(gate, variant.name, candidate, Verdict.ERROR, failure) for gate in family]
            continue
        claims = [_claim(gate, variant.name, asked, measured, comparators, size) for gate in family]
        verdicts = _family(family[0].spec, claims)
        for gate, claim, (verdict, reason, needed) in zip(family, claims, verdicts, strict=True):
            found = claim if isinstance(claim, _Claim) else None
            rows.append(row(gate, variant.name, candidate, verdict, reason, found, needed))
    return rows


@dataclass(frozen=True, eq=False)
class _Claim:
    """What a gate is about: an estimate that must lie on one side of the limit."""

    estimate: Estimate
    variant_value: float
    comparator_value: float | None
    n: int
    small: bool
    doubt: str = ""
    comparator_doubt: str = ""

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """What a report shows: ``None`` where the value is exact, or its examples give no bounds."""
        if isinstance(self.estimate, Exact):
            return None
        try:
            lower, upper = self.bounds(confidence)
        except ValueError:
            return None
        return (lower, upper) if math.isfinite(lower) and math.isfinite(upper) else None

    def bounds(self, confidence: float, scale: float = 1.0) -> Bounds:
        return self.estimate.bounds(confidence, scale)


Judged = tuple[Verdict, str, int | None]


def _claim(
    gate: Gate, variant: str, asked: Policy, measured: Measured, comparators: Mapping[str, Measured], size: int
) -> _Claim | Judged:
    """The claim, or the verdict where there is nothing to judge."""
    spec = gate.spec
    own = find(measured, spec.suite, spec.metric.name, gate.member)
    if own is None:
        return Verdict.ERROR, f"{spec.suite} did not measure {spec.metric.name}", None
    if own.failed:
        return Verdict.ERROR, own.note, None
    if own.estimate is None:
        return Verdict.INCONCLUSIVE, f"nothing to measure: {own.note}", None
    estimate, comparator_value, comparator_doubt = own.estimate, None, ""
    if spec.comparator is not None:
        other = find(comparators.get(spec.comparator, {}), spec.suite, spec.metric.name, gate.member)
        if other is None or other.estimate is None:
            note = other.note if other else "it was not measured"
            return Verdict.ERROR, f"no {spec.metric.name} of {spec.comparator} to compare with: {note}", None
        comparator_value, comparator_doubt = other.estimate.value, other.doubt
        try:
            estimate = change(own.estimate, other.estimate, cast(Change, spec.key), size)
        except PruneProofError as error:
            return Verdict.ERROR, f"{error.cause} ({error.remedy})", None
    estimate = seeded(estimate, _seed(asked.audit.seed, variant, gate.id), asked.audit.resamples)
    if spec.key == "max_ratio" and comparator_value == 0:
        return Verdict.ERROR, f"{spec.metric.name} of {spec.comparator} is 0: there is no ratio to it", None
    n = getattr(estimate, "n", own.n)
    return _Claim(estimate, own.estimate.value, comparator_value, n, own.small, own.doubt, comparator_doubt)


def find(measured: Measured, suite: str, metric: str, member: Member | None) -> Measurement | None:
    """What ``suite`` measured as ``metric`` of ``member``, if it did."""
    for measurement in measured.get(suite, ()):
        if measurement.metric == metric and measurement.member == member:
            return measurement
    return None


def _seed(seed: int, variant: str, gate: str) -> tuple[int, ...]:
    """Seed of one gate's bootstrap: independent of the order in which gates are judged."""
    digest = hashlib.sha256(f"{variant}\n{gate}".encode()).digest()
    return (seed, *(int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4)))


def _family(spec: GateSpec, claims: Sequence[_Claim | Judged]) -> list[Judged]:
    """Verdicts of one family's members."""
    judged: list[Judged | None] = [None if isinstance(claim, _Claim) else claim for claim in claims]
    p_values: dict[int, float] = {}
    for position, claim in enumerate(claims):
        if not isinstance(claim, _Claim):
            continue
        try:
            if not math.isfinite(claim.estimate.value):
                judged[position] = Verdict.ERROR, f"{spec.metric.name} is not a number", None
            elif claim.small:
                judged[position] = Verdict.INCONCLUSIVE, f"{claim.n} examples are under the policy's min_n", None
            elif _inside(spec, claim.bounds(spec.confidence)):
                judged[position] = _passed(spec, claim)
            else:
                p_values[position] = _p_outside(spec, claim)
        except ValueError as error:
            judged[position] = Verdict.ERROR, f"no interval: {error}", None
    tested = sum(isinstance(claim, _Claim) and not claim.small for claim in claims)
    # Members that pass count in the family too: their p-value is taken as 1.
    padded = [*p_values.values(), *([1.0] * (tested - len(p_values)))]
    rejected = holm(padded, 1 - spec.confidence) if p_values else []
    for position, fails in zip(p_values, rejected, strict=False):
        claim = claims[position]
        assert isinstance(claim, _Claim)
        judged[position] = _outside(spec, claim, fails, tested)
    return [found if found is not None else (Verdict.ERROR, "not judged", None) for found in judged]


def _passed(spec: GateSpec, claim: _Claim) -> Judged:
    """A PASS, unless what it rests on is in doubt."""
    says = _says(spec, claim, "inside")
    if claim.doubt:
        return Verdict.INCONCLUSIVE, f"{says}, but it cannot be trusted: {claim.doubt}", None
    return Verdict.PASS, says, None


def _inside(spec: GateSpec, bounds: Bounds) -> bool:
    return bounds.lower >= spec.limit if spec.key == "min" else bounds.upper <= spec.limit


def _beyond(spec: GateSpec, bounds: Bounds) -> bool:
    return bounds.upper < spec.limit if spec.key == "min" else bounds.lower > spec.limit


def _p_outside(spec: GateSpec, claim: _Claim) -> float:
    if isinstance(claim.estimate, Exact):
        return 0.0 if _beyond(spec, claim.bounds(spec.confidence)) else 1.0
    side: Literal["above", "below"] = "below" if spec.key == "min" else "above"
    found = p_beyond(claim.bounds, spec.limit, side)
    # It is rounded up: never beyond the level at which the bounds themselves are outside.
    return min(found, 1 - spec.confidence) if _beyond(spec, claim.bounds(spec.confidence)) else found


def _outside(spec: GateSpec, claim: _Claim, fails: bool, tested: int) -> Judged:
    corrected = f", Holm-corrected over {tested} members" if tested > 1 else ""
    if claim.comparator_doubt:
        corrected += f"; of {spec.comparator}: {claim.comparator_doubt}"
    if fails:
        return Verdict.FAIL, _says(spec, claim, "outside") + corrected, None
    if _beyond(spec, claim.bounds(spec.confidence)):
        reason = f"{_says(spec, claim, 'outside')} by itself, not after Holm's correction over {tested} members"
        return Verdict.INCONCLUSIVE, reason, None
    if claim.interval(spec.confidence) is None:
        reason = (
            f"{claim.estimate.value:.4f}, and its {claim.n} examples and resamples give no interval at this confidence"
        )
        return Verdict.INCONCLUSIVE, reason, None
    needed = _needed(spec, claim)
    more = f"about {needed:,} more examples would decide" if needed else "no number of examples would soon decide"
    return Verdict.INCONCLUSIVE, f"{_says(spec, claim, 'across')}; {more}", needed


def _needed(spec: GateSpec, claim: _Claim) -> int | None:
    """About how many more examples with the same rates would decide."""

    def decides(scale: float) -> bool:
        bounds = claim.bounds(spec.confidence, scale)
        return _inside(spec, bounds) or _beyond(spec, bounds)

    total = examples_needed(decides, max(claim.n, 1))
    return None if total is None else total - max(claim.n, 1)


def _says(spec: GateSpec, claim: _Claim, where: str) -> str:
    bounds = claim.bounds(spec.confidence)
    limit = f"{spec.key} {spec.limit:g}"
    if isinstance(claim.estimate, Exact):
        return f"{claim.estimate.value:g} is {where} {limit}"
    level = f"{100 * (2 * spec.confidence - 1):g} % interval"
    return f"{claim.estimate.value:.4f}, {level} {bounds.lower:.4f} to {bounds.upper:.4f}, is {where} {limit}"


def counted(count: int, n: int) -> Proportion:
    """``count`` of ``n`` as an estimate, for gates whose examples the audit does not know."""
    return Proportion(np.arange(n), np.arange(n) < count)


def from_test(
    name: str, variant: str, candidate: bool, key: str, limit: float, estimate: Estimate, n: int, confidence: float
) -> GateRow:
    """The row of a gate that test code made: one absolute limit on one estimate."""
    from pruneproof.suite import CLASSIFICATION, Metric

    metric = Metric(name, key == "min", CLASSIFICATION, unit="")
    spec = GateSpec("tests", metric, key, limit, None, None, None, confidence)
    claim = _Claim(estimate, estimate.value, None, n, small=False)
    ((verdict, reason, needed),) = _family(spec, [claim])
    made = row(Gate(spec, None), variant, candidate, verdict, reason, claim, needed)
    return made.model_copy(update={"basis": "test code"})


def waive(
    rows: Sequence[GateRow], waivers: Sequence[Waiver], today: datetime.date
) -> tuple[list[GateRow], list[WaiverRow]]:
    """Rows with the policy's waivers applied, and what came of each waiver.

    A waiver is a looser limit, no blank cheque: it covers a FAIL or INCONCLUSIVE whose value is within
    ``observed_max``, until it expires. It never covers ERROR or NOT_RUN.
    """
    by_gate = {(waiver.gate, waiver.variant): waiver for waiver in waivers}
    states: dict[tuple[str, str], str] = {}
    waived = []
    for found in rows:
        key = (found.id, found.variant)
        waiver = by_gate.get(key)
        if waiver is not None and found.verdict in WAIVABLE:
            states[key] = _state(waiver, found, today)
            found = found.model_copy(update=_waived(waiver, found, states[key]))
        waived.append(found)
    return waived, [_waiver_row(waiver, states.get((waiver.gate, waiver.variant), "unused")) for waiver in waivers]


def _state(waiver: Waiver, found: GateRow, today: datetime.date) -> str:
    if today > waiver.expires:
        return "expired"
    if found.value is None:
        return "exceeded"
    within = found.value >= waiver.observed_max if found.limit.key == "min" else found.value <= waiver.observed_max
    return "used" if within else "exceeded"


def _waived(waiver: Waiver, found: GateRow, state: str) -> dict[str, object]:
    if state == "used":
        reason = f"waived until {waiver.expires} by {waiver.approved_by}: {waiver.reason} ({found.reason})"
        return {"verdict": Verdict.WAIVED, "reason": reason}
    why = (
        f"its waiver expired on {waiver.expires}"
        if state == "expired"
        else f"beyond its waiver's {waiver.observed_max:g}"
    )
    return {"reason": f"{found.reason}; {why}"}


def _waiver_row(waiver: Waiver, state: str) -> WaiverRow:
    table = waiver.model_dump()
    return WaiverRow(**{**table, "expires": str(waiver.expires), "state": state})
