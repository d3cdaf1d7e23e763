"""Reading ``audit.toml``.

Every mistake is one :class:`~pruneproof.errors.PolicyError` that names file, line, key, what was expected
and the nearest valid key.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from pruneproof import registry, toml_source
from pruneproof.errors import PolicyError
from pruneproof.policy import (
    LIMIT_KEYS,
    PREVIOUS,
    Audit,
    Comparators,
    GateSpec,
    Imported,
    Limit,
    Policy,
    Sensitivity,
    SubjectTable,
    SuitePolicy,
    Tests,
    VariantSpec,
    Waiver,
    applies,
    as_table,
    candidates,
    gate_specs,
    suite,
    variants,
)
from pruneproof.recipe import Prune
from pruneproof.suite import Metric, ObservingSuite
from pruneproof.tables import canonical, offer

T = TypeVar("T", bound=BaseModel)

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


class _Reader:
    """Reads one file; keeps what error messages need."""

    TABLES = ("audit", "subject", "prune", "variant", "comparators", "sensitivity", "suites", "waivers", "tests")

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
            sensitivity=self._record(Sensitivity, ("sensitivity",), table["sensitivity"])
            if "sensitivity" in table
            else None,
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
        made = self._record(found.options, where, options)
        for metric in gates:
            missing = found.missing(metrics[metric], made) if isinstance(found, ObservingSuite) else None
            if missing is not None:
                self._fail((*where, "gates", metric), f"a limit on {metric}, and nothing to measure it on", missing)
        return SuitePolicy(made, gates)

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
            if value == (low if key == "min" else 1.0):
                self._fail(where, f"{key} = {value:g} could never fail", "set a limit that means something")

    def _coherent(self, policy: Policy) -> None:
        self._unique_names(policy)
        if policy.sensitivity is not None and policy.sensitivity.recipe not in {entry.name for entry in policy.prune}:
            recipes = tuple(entry.name for entry in policy.prune)
            wrong = policy.sensitivity.recipe
            self._fail(("sensitivity", "recipe"), f"no [[prune]] is called {wrong!r}", offer(wrong, recipes))
        for recipe in policy.prune:
            if policy.sensitivity and recipe.name == policy.sensitivity.recipe and recipe.criterion == "movement":
                why = "movement is seen while training, and sensitivity trains nothing"
                self._fail(("sensitivity", "recipe"), why, "name a recipe of another criterion")
        every = {variant.name: variant for variant in variants(policy)}
        if not every:
            self._fail((), "nothing to audit: no [[prune]] and no [[variant]]", "add a [[prune]] with ratios")
        for position, name in enumerate(policy.audit.release or ()):
            if name not in every:
                self._fail(("audit", "release", position), f"no variant {name!r}", offer(name, every))
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
        families = {spec.stem: spec.metric.family for spec in specs}
        shares = {spec.stem for spec in specs if spec.metric.unit == "share" and spec.key != "max_ratio"}
        families |= {f"tests/{name}:{key}": None for name in policy.tests.required for key in ("min", "max")}
        seen: set[tuple[str, str]] = set()
        for position, waiver in enumerate(policy.waivers):
            stem, member = waiver.gate.partition("[")[::2]
            if stem not in families:
                self._fail(("waivers", position, "gate"), f"no gate {stem!r}", offer(stem, families))
            if bool(member) != bool(families[stem]):
                form = f"{stem}[column=value]" if families[stem] else stem
                self._fail(("waivers", position, "gate"), f"no gate {waiver.gate!r}", f"write {form}")
            if stem in shares and not -1 < waiver.observed_max < 1:
                where = ("waivers", position, "observed_max")
                self._fail(where, f"{waiver.observed_max:g} is no limit for a share", "name the worst value you accept")
            if waiver.variant not in every:
                self._fail(
                    ("waivers", position, "variant"), f"no variant {waiver.variant!r}", offer(waiver.variant, every)
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
        for key, inner in _tables_in(record).items():
            if isinstance(table.get(key), dict):
                self._known_keys((*where, key), table[key], tuple(inner.model_fields))
        try:
            return record.model_validate(table)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            # A location may go on beyond the document, with the name of a validator.
            held = next(end for end in range(len(first["loc"]), -1, -1) if toml_source.holds(table, first["loc"][:end]))
            path = (*where, *first["loc"][:held])
            if first["type"] == "missing":
                missing = first["loc"][-1]
                self._fail(where, f"'{missing}' is missing", f"add {missing} = …")
            message = first["msg"].removeprefix("Value error, ")
            got = first.get("input")
            shown = "" if isinstance(got, dict | BaseModel) else f", got {_kind(got)} {_shown(got)}"
            for words, ours in WORDS.items():
                message = message.replace(words, ours)
            message = re.sub(r"a dictionary or instance of \w+", "a table", message)
            self._fail(path, f"{message}{shown}", "correct the value")

    def _known_keys(
        self, where: tuple[str | int, ...], table: Mapping[str, Any], known: tuple[str, ...], what: str = "key"
    ) -> None:
        for key in table:
            if key not in known:
                self._fail((*where, key), f"unknown {what} {key!r}", offer(key, known))

    def _fail(self, where: tuple[str | int, ...], problem: str, remedy: str) -> NoReturn:
        line = toml_source.line_of(self.text, (*self.prefix, *where)) if where else None
        place = f"{self.path}" + (f", line {line}" if line else "")
        key = _spell((*self.prefix, *where))
        raise PolicyError(f"{place}: {key + ': ' if key else ''}{problem}", remedy)


def _tables_in(record: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Keys of a table that are tables themselves."""
    parts = {key: get_args(field.annotation) for key, field in record.model_fields.items()}
    return {
        key: part
        for key, found in parts.items()
        for part in found
        if isinstance(part, type) and issubclass(part, BaseModel)
    }


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
