"""``audit.toml`` as typed records: what to audit, and the limits that were fixed beforehand.

Reading needs neither torch nor the subject. Every mistake is one :class:`~pruneproof.errors.PolicyError`
that names file, line, key, what was expected and the nearest valid key.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pruneproof import registry, toml_source
from pruneproof.errors import PolicyError
from pruneproof.suite import Metric, Suite

LIMIT_KEYS = ("min", "max", "max_drop", "max_rise", "max_ratio")
COMPARING_KEYS = ("max_drop", "max_rise", "max_ratio")
DENSE = "dense"
PREVIOUS = "previous"
RESERVED = (DENSE, PREVIOUS, "segment")
"""Names that no imported variant may have: the comparators', and that of the segments in ``outcomes.parquet``."""

WORDS = {
    "Input should be": "expected",
    "String should": "expected a text to",
    "Tuple should": "expected an array to",
    "a valid tuple": "an array",
    "a valid string": "a text",
    "a valid integer": "an integer",
    "a valid ": "a ",
}
"""pydantic's words, and ours: those of :func:`_kind`."""

T = TypeVar("T", bound=BaseModel)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
REFERENCE = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
Reference = Annotated[str, Field(pattern=f"^{REFERENCE}$")]


class Record(BaseModel):
    """A frozen table of the policy; unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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


class SubjectTable(Record):
    """``[subject]``"""

    load: Reference
    """``module:function``, called without arguments, returns a ``pruneproof.Subject``."""


class Prune(Record):
    """``[[prune]]``: one recipe, at several ratios."""

    name: Name
    ratios: Annotated[tuple[Ratio, ...], Field(strict=False, min_length=1)]
    granularity: Literal["element", "channel"] = "element"
    criterion: Text = "magnitude"
    scope: Literal["global", "layer"] = "global"
    schedule: Literal["one_shot"] = "one_shot"
    steps: Annotated[int, Field(ge=1, le=1)] = 1
    fine_tune: bool = False

    @field_validator("criterion")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of(value, registry.names("pruneproof.criteria"), "criterion")

    @field_validator("fine_tune")
    @classmethod
    def _off(cls, value: bool) -> bool:
        if value:
            raise ValueError("expected false: one-shot pruning does not fine-tune")
        return value

    @field_validator("ratios")
    @classmethod
    def _distinct(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expected distinct ratios")
        return value


class Imported(Record):
    """``[[variant]]``: a pruned model that another tool made."""

    name: Name
    load: Reference | None = None
    """``module:function``, called without arguments, returns a ``torch.nn.Module``."""
    checkpoint: Annotated[str, Field(pattern=r"\.safetensors$")] | None = None
    """A safetensors state dict on the subject's own architecture, relative to the policy."""

    @model_validator(mode="after")
    def _one_source(self) -> Imported:
        if (self.load is None) == (self.checkpoint is None):
            raise ValueError("expected exactly one of 'load' and 'checkpoint'")
        if self.name in RESERVED:
            raise ValueError(f"expected another name: '{self.name}' is taken by PruneProof")
        return self


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


class Waiver(Record):
    """``[[waivers]]``: a looser limit for one gate of one variant, until a date."""

    gate: Text
    variant: Text
    observed_max: float
    """The worst value that is still accepted (the smallest, for a ``min`` gate)."""
    reason: Text
    approved_by: Text
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
    taken = (VariantSpec(entry.name, None, None, entry) for entry in policy.imported)
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


def read(path: str | Path) -> Policy:
    """The policy in ``path``: an ``audit.toml``, or a ``pyproject.toml`` with ``[tool.pruneproof]``.

    Raises:
        PolicyError: no such file, TOML syntax, or a policy that cannot be carried out.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PolicyError(f"{path}: no such file", "name an audit.toml, or write one with `pruneproof init`") from None
    except IsADirectoryError:
        raise PolicyError(f"{path} is a folder", f"name the policy in it: {path / 'audit.toml'}") from None
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not UTF-8 text (byte {error.start})", "save the file as UTF-8") from None
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}", "make the file readable") from None
    return parse(text, path)


def parse(text: str, path: str | Path = "audit.toml") -> Policy:
    """The policy that ``text`` spells; ``path`` names it in errors and anchors relative paths.

    Raises:
        PolicyError: TOML syntax, or a policy that cannot be carried out.
    """
    return _Reader(text, Path(path)).policy()


def holds_policy(path: Path) -> bool:
    """Whether a ``pyproject.toml`` has a ``[tool.pruneproof]`` table."""
    try:
        tools = tomllib.loads(path.read_text("utf-8-sig")).get("tool")
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(tools, dict) and "pruneproof" in tools


class _Reader:
    """Reads one file; keeps what error messages need."""

    TABLES = ("audit", "subject", "prune", "variant", "comparators", "suites", "waivers", "tests")

    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self.path = path
        self.prefix: tuple[str, ...] = ("tool", "pruneproof") if path.name == "pyproject.toml" else ()

    def policy(self) -> Policy:
        table = self._table()
        self._known_keys((), table, self.TABLES)
        for required in ("audit", "subject", "suites"):
            if required not in table:
                self._fail((), f"no [{required}] table", f"add [{required}]; `pruneproof init` writes a starter")
        audit = self._record(Audit, ("audit",), table["audit"])
        policy = Policy(
            path=self.path,
            text=self.text,
            sha256="",
            audit=audit,
            subject=self._record(SubjectTable, ("subject",), table["subject"]),
            prune=self._records(Prune, "prune", table),
            imported=self._records(Imported, "variant", table),
            comparators=self._record(Comparators, ("comparators",), table.get("comparators", {})),
            suites=self._suites(table["suites"], audit),
            waivers=self._records(Waiver, "waivers", table),
            tests=self._record(Tests, ("tests",), table.get("tests", {})),
        )
        self._coherent(policy)
        digest = hashlib.sha256(canonical(as_table(policy)).encode()).hexdigest()
        return Policy(**{**policy.__dict__, "sha256": digest})

    def _table(self) -> dict[str, Any]:
        try:
            table: Any = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(f"{self.path}: TOML syntax: {error}", "mend the syntax at that place") from None
        except ValueError:
            raise PolicyError(f"{self.path}: an integer of thousands of digits", "write a smaller number") from None
        except RecursionError:
            raise PolicyError(f"{self.path}: TOML nested too deeply", "flatten the tables") from None
        for key in self.prefix:
            table = table.get(key) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            raise PolicyError(f"{self.path}: no [tool.pruneproof] table", "add one, or name an audit.toml")
        return table

    def _suites(self, table: Any, audit: Audit) -> dict[str, SuitePolicy]:
        if not isinstance(table, dict):
            self._fail(("suites",), "expected a table", "write [suites.accuracy.gates] and the like")
        known = registry.names("pruneproof.suites")
        self._known_keys(("suites",), table, known, "suite")
        return {name: self._suite(name, entry, audit) for name, entry in table.items()}

    def _suite(self, name: str, table: Any, audit: Audit) -> SuitePolicy:
        where = ("suites", name)
        if not isinstance(table, dict) or not isinstance(table.get("gates", {}), dict):
            self._fail(where, "expected a table", f"write [suites.{name}.gates]")
        found = suite(name)
        options = {key: value for key, value in table.items() if key != "gates"}
        self._known_keys(where, table, (*found.options.model_fields, "gates"))
        metrics = {metric.name: metric for metric in found.metrics}
        self._known_keys((*where, "gates"), table.get("gates", {}), tuple(metrics), "metric")
        gates = {
            metric: self._record(Limit, (*where, "gates", metric), entry)
            for metric, entry in table.get("gates", {}).items()
        }
        for metric, limit in gates.items():
            for key in LIMIT_KEYS:
                self._possible((*where, "gates", metric, key), metrics[metric], key, getattr(limit, key))
        return SuitePolicy(self._record(found.options, where, options), gates)

    def _possible(self, where: tuple[str | int, ...], metric: Metric, key: str, value: float | None) -> None:
        if value is None:
            return
        if key not in metric.limits:
            direction = "higher" if metric.higher_is_better else "lower"
            self._fail(
                where,
                f"'{key}' is no limit for {metric.name}, which is better when {direction}",
                f"use {' or '.join(metric.limits)}",
            )
        if metric.unit == "share" and key != "max_ratio":
            low = metric.low if key in ("min", "max") else -1.0
            if not low <= value <= 1.0:
                self._fail(where, f"expected a share in [{low:g}, 1], got {value:g}", "write 90 % as 0.90")

    def _coherent(self, policy: Policy) -> None:
        self._unique_names(policy)
        every = {variant.name: variant for variant in variants(policy)}
        if not every:
            self._fail((), "nothing to audit: no [[prune]] and no [[variant]]", "add a [[prune]] with ratios")
        for position, name in enumerate(policy.audit.release or ()):
            if name not in every:
                self._fail(("audit", "release", position), f"no variant {name!r}", _offer(name, every))
        specs = gate_specs(policy)
        if not specs:
            self._fail(("suites",), "no gates: nothing could ever fail", "add a limit, e.g. [suites.accuracy.gates]")
        for name in candidates(policy):
            if not any(applies(spec, every[name]) for spec in specs):
                self._fail(
                    ("suites",),
                    f"variant '{name}' is up for release without any gate",
                    "raise 'up_to', add a gate, or leave the variant out of [audit] release",
                )
        if policy.comparators.previous is None:
            for spec in specs:
                if spec.comparator == PREVIOUS:
                    where = ("suites", spec.suite, "gates", spec.metric.name, "comparator")
                    self._fail(where, "no previous model is named", "add [comparators] previous = …")
        self._waivers(policy, every, specs)

    def _unique_names(self, policy: Policy) -> None:
        seen: dict[str, str] = {}
        kinds: dict[str, Sequence[Prune | Imported]] = {"prune": policy.prune, "variant": policy.imported}
        for kind, entries in kinds.items():
            for position, entry in enumerate(entries):
                if entry.name in seen:
                    self._fail(
                        (kind, position, "name"),
                        f"the name '{entry.name}' is taken by a [[{seen[entry.name]}]]",
                        "give each recipe and variant a name of its own",
                    )
                seen[entry.name] = kind

    def _waivers(self, policy: Policy, every: Mapping[str, VariantSpec], specs: tuple[GateSpec, ...]) -> None:
        stems = {spec.stem: spec for spec in specs}
        seen: set[tuple[str, str]] = set()
        for position, waiver in enumerate(policy.waivers):
            stem, member = waiver.gate.partition("[")[::2]
            if stem not in stems:
                self._fail(("waivers", position, "gate"), f"no gate {stem!r}", _offer(stem, stems))
            family = stems[stem].metric.family
            if bool(member) != bool(family):
                form = f"{stem}[column=value]" if family else stem
                self._fail(("waivers", position, "gate"), f"no gate {waiver.gate!r}", f"write {form}")
            if waiver.variant not in every:
                self._fail(
                    ("waivers", position, "variant"), f"no variant {waiver.variant!r}", _offer(waiver.variant, every)
                )
            if (waiver.gate, waiver.variant) in seen:
                self._fail(("waivers", position), "this gate of this variant is waived twice", "keep one of them")
            seen.add((waiver.gate, waiver.variant))

    def _records(self, record: type[T], key: str, table: dict[str, Any]) -> tuple[T, ...]:
        entries = table.get(key, [])
        if not isinstance(entries, list):
            self._fail((key,), "expected an array of tables", f"write [[{key}]], with two brackets")
        return tuple(self._record(record, (key, position), entry) for position, entry in enumerate(entries))

    def _record(self, record: type[T], where: tuple[str | int, ...], table: Any) -> T:
        if not isinstance(table, dict):
            self._fail(where, f"expected a table, got {_kind(table)}", "see the reference of audit.toml in docs/")
        self._known_keys(where, table, tuple(record.model_fields))
        try:
            return record.model_validate(table)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            # A location may go on beyond the document, with the name of a validator.
            held = next(end for end in range(len(first["loc"]), -1, -1) if toml_source.holds(table, first["loc"][:end]))
            path = (*where, *first["loc"][:held])
            if first["type"] == "missing":
                key = first["loc"][-1]
                self._fail(where, f"'{key}' is missing", f"add {key} = …")
            message = first["msg"].removeprefix("Value error, ")
            got = first.get("input")
            shown = "" if isinstance(got, dict | BaseModel) else f", got {_kind(got)} {_shown(got)}"
            for words, ours in WORDS.items():
                message = message.replace(words, ours)
            self._fail(path, f"{message}{shown}", "correct the value")

    def _known_keys(
        self, where: tuple[str | int, ...], table: Mapping[str, Any], known: tuple[str, ...], what: str = "key"
    ) -> None:
        for key in table:
            if key not in known:
                self._fail((*where, key), f"unknown {what} {key!r}", _offer(key, known))

    def _fail(self, where: tuple[str | int, ...], problem: str, remedy: str) -> NoReturn:
        line = toml_source.line_of(self.text, (*self.prefix, *where)) if where else None
        place = f"{self.path}" + (f", line {line}" if line else "")
        key = _spell((*self.prefix, *where))
        raise PolicyError(f"{place}: {key + ': ' if key else ''}{problem}", remedy)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no white space; dates in ISO 8601."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str, allow_nan=False)


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


def _one_of(value: str, known: tuple[str, ...], what: str) -> str:
    if value not in known:
        raise ValueError(f"expected a known {what} ({_offer(value, known)})")
    return value


def _offer(given: object, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(str(given), list(known), n=1, cutoff=0.5)
    every = ", ".join(list(known)[:20]) or "none"
    return f"did you mean '{nearest[0]}'? known: {every}" if nearest else f"known: {every}"


def _kind(value: object) -> str:
    names = {str: "text", bool: "boolean", int: "integer", float: "float", list: "array", dict: "table"}
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    try:
        spelled = repr(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, arrays of thousands of levels
        return "…"
    return spelled if len(spelled) <= 80 else f"{spelled[:80]}…"


def _spell(path: tuple[str | int, ...]) -> str:
    spelled = ""
    for part in path:
        if isinstance(part, int):
            spelled += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else repr(part)
            spelled += f".{key}" if spelled else key
    return spelled
