"""Evidence: everything that an audit measured and judged, as one versioned record.

Every report is rendered from it alone. Floats that are not finite are written as ``null``.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pruneproof.errors import EvidenceError
from pruneproof.exhibits import Chapter
from pruneproof.tables import canonical
from pruneproof.verdicts import Verdict

SCHEMA = "https://pruneproof.dev/schema/evidence-1.json"
FILE = "evidence.json"
OUTCOMES = "outcomes.parquet"
PLANS = "plans"
OBSERVED = "observed"


class Row(BaseModel):
    """A frozen part of the record."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_nan(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in data.items()}
        return data


class AuditRow(Row):
    """Which run this was."""

    name: str
    id: str
    """Random; different in every run."""
    seed: int
    started: str
    """UTC, ISO 8601."""
    finished: str


class PolicyRow(Row):
    """The limits, as they were fixed before the run."""

    path: str
    """As it was named on the command line."""
    sha256: str
    """Of the canonical form of the policy."""
    text: str
    candidates: list[str]
    """Variants up for release."""
    inconclusive: Literal["fail", "warn"]


class SubjectRow(Row):
    """What was audited."""

    load: str
    task: Literal["binary", "multiclass", "regression"] | None
    """``None`` when the subject could not be loaded."""
    classes: list[str]
    threshold: float | None
    """Operating point of a binary classifier, the same for every variant."""
    segments: dict[str, dict[str, int]]
    """Column → value → number of test examples."""
    model_sha256: str | None
    data_sha256: dict[str, str]
    data_sizes: dict[str, int]
    error: str | None = None


class EnvironmentRow(Row):
    """Where it ran."""

    packages: dict[str, str]
    python: str
    platform: str
    cpu: str
    cpu_count: int
    threads: int
    """That torch computed with."""
    git_commit: str | None
    git_dirty: bool | None
    """Whether tracked files differ from that commit."""


class SelfCheck(Row):
    """Whether a variant is the network that its plan claims."""

    id: str
    claim: str
    passed: bool
    detail: str
    decides: bool = True
    """Whether the variant is an ERROR when it fails; otherwise it is only reported."""


class VariantRow(Row):
    """A model under audit."""

    name: str
    kind: Literal["dense", "pruned", "imported", "previous"]
    recipe: dict[str, str] | None = None
    requested_ratio: float | None = None
    units_removed: int | None = None
    units: int | None = None
    """Weights, channels, heads or blocks that may go."""
    achieved_ratio: float | None = None
    """Of what the recipe's ``denominator`` names."""
    claimed_ratio: float | None = None
    """What the tool says that made an imported model."""
    claimed_of: str | None = None
    shape_changes: list[tuple[str, list[int] | None, list[int] | None]] = Field(default_factory=list)
    """Of an imported model: tensor, its shape in the dense one and its own; ``null``: not there."""
    sparsity: dict[str, float] = Field(default_factory=dict)
    """Achieved share of the dense network's elements gone: of the pruned tensors, of all layer weights,
    of all parameters. Counted on the variant's tensors."""
    parameters: int | None = None
    nonzero_parameters: int | None = None
    macs: int | None = None
    """Multiply-accumulates of one example, zeros included; ``None`` where they could not be counted."""
    bytes: int | None = None
    """Size of the variant's safetensors file."""
    plan_sha256: str | None = None
    model_sha256: str | None = None
    self_checks: list[SelfCheck] = Field(default_factory=list)
    left_whole: list[tuple[str, str]] = Field(default_factory=list)
    """Layers that the recipe could not prune, each with the reason."""
    candidate: bool = False
    """Up for release."""
    verdict: Verdict = Verdict.NOT_RUN
    released: bool = False
    """A candidate whose verdict is PASS or WAIVED."""
    error: str | None = None


class SensitivityRow(Row):
    """What it costs to prune one layer alone, on the calibration examples."""

    recipe: str
    layer: str | None
    """``None``: the dense network."""
    ratio: float | None
    metric: Literal["accuracy", "mae"]
    value: float | None
    n: int
    note: str = ""
    """Why there is no value."""


class MeasurementRow(Row):
    """A named number."""

    variant: str
    suite: str
    metric: str
    segment: dict[str, str] | None
    """``{column: value}``; ``None`` for the whole test set."""
    value: float | None
    unit: str
    n: int
    interval: tuple[float, float] | None
    """Both one-sided bounds at the audit's confidence; ``None`` where only a bootstrap would give it and no
    gate needs it."""
    method: str
    small: bool = False
    note: str = ""
    doubt: str = ""
    """Why a PASS must not rest on it."""


class LimitRow(Row):
    """What the policy demands."""

    key: str
    value: float


class Example(Row):
    """A test example that the variant gets wrong."""

    id: str
    target: str
    comparator: str
    """What the comparator said."""
    variant: str
    """What the variant said."""
    segments: dict[str, str]


class Hurt(Row):
    """Where it hurts most."""

    examples: list[Example]
    """Right before, wrong now; the largest loss of probability for the truth first."""
    lost: int
    """How many there are."""
    segment: str | None
    """The segment that lost most accuracy."""


class GateRow(Row):
    """One limit on one measurement of one variant."""

    id: str
    variant: str
    suite: str
    metric: str
    segment: dict[str, str] | None
    limit: LimitRow
    comparator: str | None
    value: float | None
    """What the limit is about: the metric, or its change against the comparator."""
    variant_value: float | None
    comparator_value: float | None
    interval: tuple[float, float] | None
    """Both one-sided bounds at ``confidence``: a two-sided interval at 2·confidence - 1."""
    confidence: float
    n: int
    method: str
    basis: Literal["absolute", "paired", "test code", "none"]
    verdict: Verdict
    reason: str
    needed: int | None = None
    """About how many more examples would decide an INCONCLUSIVE."""
    rationale: str | None = None
    candidate: bool = True
    hurt: Hurt | None = None


class WaiverRow(Row):
    """A waiver of the policy, and what came of it."""

    gate: str
    variant: str
    observed_max: float
    reason: str
    approved_by: str
    expires: str
    state: Literal["used", "unused", "expired", "exceeded"]


class LedgerRow(Row):
    """An earlier audit of the same model and data."""

    id: str
    started: str
    policy_sha256: str
    verdict: Verdict


class Evidence(Row):
    """The record."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    audit: AuditRow
    policy: PolicyRow
    subject: SubjectRow
    environment: EnvironmentRow
    variants: list[VariantRow]
    measurements: list[MeasurementRow]
    sensitivity: list[SensitivityRow] = Field(default_factory=list)
    """Empty where the policy does not ask for it, or it could not be measured."""
    sensitivity_error: str | None = None
    chapters: list[Chapter] = Field(default_factory=list)
    """What the suites show beside their numbers."""
    gates: list[GateRow]
    waivers: list[WaiverRow]
    ledger: list[LedgerRow]
    limitations: list[str]
    """What was not tested, or could not be decided."""
    digests: dict[str, str]
    """SHA-256 of the files beside the record."""
    verdict: Verdict

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
    )


def dumps(evidence: Evidence) -> str:
    """Canonical JSON text, for people: sorted keys, indented."""
    table = evidence.model_dump(mode="json", by_alias=True)
    return json.dumps(table, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(evidence: Evidence) -> str:
    """Digest of the record's canonical form."""
    return hashlib.sha256(canonical(evidence.model_dump(mode="json", by_alias=True)).encode()).hexdigest()


def read(path: Path) -> Evidence:
    """The record in ``path``, a file or the folder that holds it.

    Raises:
        EvidenceError: missing, not JSON, or not of this schema.
    """
    file = path / FILE if path.is_dir() else path
    try:
        table = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise EvidenceError(f"{file}: no such file", "name an evidence.json, or the folder that holds it") from None
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{file}: not readable as JSON: {error}", "run the audit again") from None
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        raise EvidenceError(f"{file}: not evidence of schema {SCHEMA}", "use the version that wrote it")
    try:
        return Evidence.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise EvidenceError(f"{file}: {where}: {first['msg']}", "the record is damaged; run the audit again") from None


def schema() -> dict[str, Any]:
    """JSON Schema of the record."""
    found = Evidence.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **found}
