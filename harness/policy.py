"""The policy as typed records: what to audit, and the limits that were fixed beforehand.

Neither torch nor the subject is needed for it. :mod:`pruneproof.policy_file` reads it from ``audit.toml``.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from pruneproof import registry
from pruneproof.recipe import Prune
from pruneproof.suite import Metric, Suite
from pruneproof.tables import REFERENCE, Confidence, Name, Ratio, Record, Reference, Text, Words, one_of

LIMIT_KEYS = ("min", "max", "max_drop", "max_rise", "max_ratio")
COMPARING_KEYS = ("max_drop", "max_rise", "max_ratio")
DENSE = "dense"
PREVIOUS = "previous"
RESERVED = (DENSE, PREVIOUS, "segment")
"""Names that no imported variant may have: the comparators', and that of the segments in ``outcomes.parquet``."""


class Audit(Record):
    """``[audit]``"""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    confidence: Confidence = 0.95
    """One-sided confidence of each bound that a verdict rests on."""
    inconclusive: Literal["fail", "warn"] = "fail"
    release: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = None
    """Variants whose gates decide; ``None``: all."""
    timeout_s: Annotated[float, Field(gt=0, le=1e7)] = 600.0
    """Seconds that one task (loading, building, predicting or measuring a variant) may take."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads torch computes with; float results depend on it, so it is part of the policy."""
    resamples: Annotated[int, Field(ge=200, le=1_000_000)] = 2000
    """Bootstrap resamples, where a gate needs a bootstrap."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if value in (".", ".."):
            raise ValueError("expected a name that a folder can have")
        return value


class SubjectTable(Record):
    """``[subject]``"""

    load: Reference
    """``module:function``, called without arguments, returns a ``pruneproof.Subject``."""


class Imported(Record):
    """``[[variant]]``: a pruned model that another tool made, or another tool's function that makes it."""

    name: Name
    load: Reference | None = None
    """``module:function``, called without arguments, returns a ``torch.nn.Module``."""
    prune: Reference | None = None
    """``module:function``, called with a copy of the dense model and a ratio, returns a ``torch.nn.Module``."""
    ratios: Annotated[tuple[Ratio, ...], Field(strict=False, min_length=1)] | None = None
    """For ``prune``: one variant each, ``<name>@<ratio>``."""
    checkpoint: Text | None = None
    """A file, relative to the policy; its ending says what it is (:mod:`pruneproof.formats`)."""
    unpickle: bool = False
    """Allow a checkpoint that runs code of its own when it is read."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of the checkpoint file."""
    claimed_ratio: Ratio | None = None
    """What the other tool says is gone; held against what is."""
    claimed_of: Literal["layer_weights", "all_parameters", "macs"] | None = None
    """Left out: the layer weights; with ``prune``, whose ratios it is about, what its tool means by a ratio."""

    @model_validator(mode="after")
    def _one_source(self) -> Imported:
        if sum(source is not None for source in (self.load, self.prune, self.checkpoint)) != 1:
            raise ValueError("expected exactly one of 'load', 'prune' and 'checkpoint'")
        if self.name in RESERVED:
            raise ValueError(f"expected another name: '{self.name}' is taken by PruneProof")
        if (self.prune is None) != (self.ratios is None):
            raise ValueError("expected 'prune' and 'ratios' together")
        if self.ratios is not None and len(set(self.ratios)) != len(self.ratios):
            raise ValueError("expected distinct ratios")
        if self.checkpoint is None and (self.unpickle or self.sha256 is not None):
            raise ValueError("expected 'checkpoint' with 'unpickle' and 'sha256'")
        if self.prune is not None and self.claimed_ratio is not None:
            raise ValueError("expected no 'claimed_ratio' with 'prune': each of its ratios is a claim")
        if self.unpickle and self.checkpoint is not None and suffix(self.checkpoint) in ("safetensors", "onnx"):
            raise ValueError("expected no 'unpickle': reading this checkpoint runs nothing")
        if self.claimed_of is not None and self.claimed_ratio is None and self.prune is None:
            raise ValueError("expected 'claimed_ratio' with 'claimed_of'")
        if self.checkpoint is not None:
            one_of(suffix(self.checkpoint), registry.names("pruneproof.formats"), "ending of a checkpoint")
        return self


def suffix(path: str) -> str:
    """The ending of a file's name, without its point."""
    return path.rpartition(".")[2].lower()


class Comparators(Record):
    """``[comparators]``: what variants are compared with, beside dense."""

    previous: Text | None = None
    """The last accepted pruned model: ``module:function`` or a ``.safetensors`` file."""

    @field_validator("previous")
    @classmethod
    def _loadable(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(".safetensors") and not re.fullmatch(REFERENCE, value):
            raise ValueError("expected 'module:function' or a .safetensors file")
        return value


class Limit(Record):
    """One metric's entry in a suite's ``gates`` table: every limit key in it makes one gate."""

    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    max_rise: float | None = None
    max_ratio: Annotated[float, Field(gt=0)] | None = None
    comparator: Literal["dense", "previous"] = "dense"
    up_to: Ratio | None = None
    """Ratios above it are measured and reported, not gated."""
    rationale: Text | None = None
    confidence: Confidence | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> Limit:
        if all(getattr(self, key) is None for key in LIMIT_KEYS):
            raise ValueError(f"expected at least one limit: {', '.join(LIMIT_KEYS)}")
        return self


class Sensitivity(Record):
    """``[sensitivity]``: how much each layer alone costs when it is pruned."""

    recipe: Name
    """One of ``[[prune]]``: its granularity and criterion are used, in one shot."""
    ratios: Annotated[tuple[Ratio, ...], Field(strict=False, min_length=1)] = (0.3, 0.5, 0.7, 0.9)

    @field_validator("ratios")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("expected distinct ratios, ascending")
        return value


class Waiver(Record):
    """``[[waivers]]``: a looser limit for one gate of one variant, until a date."""

    gate: Text
    variant: Text
    observed_max: float
    """The worst value that is still accepted (the smallest, for a ``min`` gate)."""
    reason: Words
    approved_by: Words
    expires: datetime.date


class Tests(Record):
    """``[tests]``: gates made in test code that the verdict needs."""

    required: Annotated[tuple[Name, ...], Field(strict=False)] = ()


@dataclass(frozen=True)
class SuitePolicy:
    """``[suites.<name>]``: the suite's own options, and its gates."""

    options: BaseModel
    gates: Mapping[str, Limit]


@dataclass(frozen=True)
class GateSpec:
    """One limit on one metric, before it is expanded over segments or classes."""

    suite: str
    metric: Metric
    key: str
    limit: float
    comparator: str | None
    """``"dense"`` or ``"previous"``; ``None`` for an absolute limit."""
    up_to: float | None
    rationale: str | None
    confidence: float

    @property
    def stem(self) -> str:
        """The gate id without its member: ``suite/metric:key``."""
        return f"{self.suite}/{self.metric.name}:{self.key}"


@dataclass(frozen=True)
class VariantSpec:
    """A variant that the policy asks for."""

    name: str
    recipe: Prune | None
    ratio: float | None
    imported: Imported | None


@dataclass(frozen=True)
class Policy:
    """A valid ``audit.toml``."""

    path: Path
    """The file as it was named."""
    text: str
    """The file's text, as it stands in the evidence."""
    sha256: str
    """SHA-256 of the canonical form: comments and key order do not count, defaults do."""
    audit: Audit
    subject: SubjectTable
    prune: tuple[Prune, ...]
    imported: tuple[Imported, ...]
    comparators: Comparators
    sensitivity: Sensitivity | None
    suites: Mapping[str, SuitePolicy]
    waivers: tuple[Waiver, ...]
    tests: Tests

    @property
    def folder(self) -> Path:
        """Relative paths and imports start here."""
        return self.path.resolve().parent


def variants(policy: Policy) -> tuple[VariantSpec, ...]:
    """The variants under audit, in the policy's order; comparators are not among them."""
    pruned = (
        VariantSpec(f"{recipe.name}@{ratio!r}", recipe, ratio, None)
        for recipe in policy.prune
        for ratio in recipe.ratios
    )
    taken = (
        VariantSpec(entry.name if ratio is None else f"{entry.name}@{ratio!r}", None, ratio, entry)
        for entry in policy.imported
        for ratio in entry.ratios or (None,)
    )
    return (*pruned, *taken)


def candidates(policy: Policy) -> tuple[str, ...]:
    """Names of the variants up for release."""
    every = tuple(variant.name for variant in variants(policy))
    if policy.audit.release is None:
        return every
    return tuple(name for name in every if name in policy.audit.release)


def gate_specs(policy: Policy) -> tuple[GateSpec, ...]:
    """Every gate of the policy, suite by suite, in the policy's order."""
    return tuple(_specs(policy.suites, policy.audit.confidence))


def applies(spec: GateSpec, variant: VariantSpec) -> bool:
    """Whether ``spec`` gates ``variant``: ``up_to`` leaves higher ratios out."""
    return spec.up_to is None or variant.ratio is None or variant.ratio <= spec.up_to


def suite(name: str) -> Suite:
    """The suite called ``name``."""
    found: Suite = registry.member("pruneproof.suites", name).SUITE
    return found


def as_table(policy: Policy) -> dict[str, Any]:
    """The policy as the plain table that it was read from, defaults written out."""
    table: dict[str, Any] = {
        "audit": _dump(policy.audit),
        "subject": _dump(policy.subject),
        "prune": [_dump(entry) for entry in policy.prune],
        "variant": [_dump(entry) for entry in policy.imported],
        "comparators": _dump(policy.comparators),
        **({"sensitivity": _dump(policy.sensitivity)} if policy.sensitivity else {}),
        "suites": {
            name: {
                **_dump(entry.options),
                "gates": {metric: _dump(limit) for metric, limit in entry.gates.items()},
            }
            for name, entry in policy.suites.items()
        },
        "waivers": [_dump(entry) for entry in policy.waivers],
        "tests": _dump(policy.tests),
    }
    return table


def _dump(record: BaseModel) -> dict[str, Any]:
    return record.model_dump(exclude_none=True)


def _specs(suites: Mapping[str, SuitePolicy], confidence: float) -> Iterator[GateSpec]:
    for name, entry in suites.items():
        metrics = {metric.name: metric for metric in suite(name).metrics}
        for metric, limit in entry.gates.items():
            for key in LIMIT_KEYS:
                value = getattr(limit, key)
                if value is not None:
                    yield GateSpec(
                        suite=name,
                        metric=metrics[metric],
                        key=key,
                        limit=float(value),
                        comparator=limit.comparator if key in COMPARING_KEYS else None,
                        up_to=limit.up_to,
                        rationale=limit.rationale,
                        confidence=limit.confidence or confidence,
                    )
