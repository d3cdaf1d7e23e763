"""What a suite is: it measures one concern of one variant, and never judges.

A suite is one file in ``suites/`` with a module-level ``SUITE``. Importing it must be cheap (the policy
is read with it), so numpy and the like are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from pruneproof.checking import Loaded
    from pruneproof.estimates import Estimate
    from pruneproof.exhibits import Chapter
    from pruneproof.observed import Observed
    from pruneproof.outcomes import Examples, Predictions
    from pruneproof.policy import GateSpec

Family = Literal[
    "class",
    "segment",
    "by",
    "attack",
    "budget",
    "goal",
    "source",
    "shift",
    "corruption",
    "severity",
    "noise",
    "detector",
]
Task = Literal["binary", "multiclass", "regression"]
CLASSIFICATION: frozenset[Task] = frozenset({"binary", "multiclass"})
BINARY: frozenset[Task] = frozenset({"binary"})
REGRESSION: frozenset[Task] = frozenset({"regression"})


@dataclass(frozen=True)
class Metric:
    """A number that a suite measures, as the policy and the gates know it.

    Args:
        name: as in ``audit.toml`` and in gate ids.
        higher_is_better: decides which limit keys make sense.
        tasks: kinds of task that it is defined for.
        family: what one measurement stands for: the whole test set (``None``), one ``"class"``,
            one ``"segment"``, one segment column (``"by"``), one ``"attack"``, one ``"budget"`` of an attack, one
            ``"goal"`` of an attacker, one ``"source"`` of points made for another model, one ``"shift"`` of the data,
            one ``"corruption"`` at all its severities, or at one ``"severity"``, one level of ``"noise"``, one
            ``"detector"`` of data that the model was not made for.
        unit: ``"share"`` for numbers in [0, 1]; otherwise as printed.
        compares: whether it can be held against a comparator's value.
        low: smallest possible value.
    """

    name: str
    higher_is_better: bool
    tasks: frozenset[Task]
    family: Family | None = None
    unit: str = "share"
    compares: bool = True
    low: float = 0.0

    @property
    def limits(self) -> tuple[str, ...]:
        """Limit keys that a gate on this metric may use."""
        if self.higher_is_better:
            return ("min", "max_drop") if self.compares else ("min",)
        if not self.compares:
            return ("max",)
        # A number that may be negative has no ratio to another one that says anything.
        return ("max", "max_rise") if self.low < 0 else ("max", "max_rise", "max_ratio")


class Member(NamedTuple):
    """One member of a family: a segment (``band``, ``>80k``), a class (``class``, ``fraud``)."""

    column: str
    value: str

    @property
    def suffix(self) -> str:
        """``[column=value]`` with ``[ ] = : / %`` and control characters percent-encoded."""
        return f"[{_encode(self.column)}={_encode(self.value)}]"


def _encode(text: str) -> str:
    return "".join(
        "".join(f"%{byte:02X}" for byte in char.encode()) if char in "[]=:/%" or not char.isprintable() else char
        for char in text
    )


@dataclass(frozen=True)
class Facts:
    """What is known of the test set once the subject is loaded, before anything is measured.

    Args:
        task: kind of task.
        n: number of test examples.
        classes: class names in index order; empty for regression.
        segments: column → value → number of test examples.
        shifted: further test set → number of its examples.
        foreign: set of inputs that the model was not made for → number of its examples.
    """

    task: Task
    n: int
    classes: tuple[str, ...]
    segments: Mapping[str, Mapping[str, int]]
    shifted: Mapping[str, int] = field(default_factory=dict)
    foreign: Mapping[str, int] = field(default_factory=dict)

    @property
    def every(self) -> int:
        """Number of examples that an estimate can rest on: those of the test set, then of each other set in order."""
        return self.n + sum(self.shifted.values()) + sum(self.foreign.values())


Found: TypeAlias = "Estimate | str"
"""An estimate, or why there is nothing to measure."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """A named number of one variant.

    Args:
        estimate: the value together with the per-example data that its uncertainty comes from;
            ``None`` when there was nothing to measure, ``note`` says why; otherwise ``note`` says what the value
            stands for, where that is not plain.
        n: number of examples that the value rests on.
        small: fewer examples than the policy's ``min_n``: shown, but no basis for a verdict.
        doubt: why a PASS must not rest on it (an attack that did not show that it works); a FAIL may.
        failed: it should have been measured, and something broke: ``note`` says what. An ERROR, where there being
            nothing to measure is no verdict.
    """

    metric: str
    member: Member | None
    estimate: Estimate | None
    n: int
    unit: str
    note: str = ""
    small: bool = False
    doubt: str = ""
    failed: bool = False


def measurement(
    metric: Metric, member: Member | None, found: Found, n: int, small: bool = False, note: str = ""
) -> Measurement:
    """A measurement of what was found on ``n`` examples; ``n`` is narrowed to those that the value rests on."""
    if isinstance(found, str):
        return Measurement(metric.name, member, None, 0, metric.unit, found, small)
    return Measurement(metric.name, member, found, getattr(found, "n", n), metric.unit, note, small)


@dataclass(frozen=True, eq=False)
class Context:
    """What a suite may look at to measure one variant.

    Args:
        variant: the variant's name.
        examples: the test set.
        predictions: of the variant.
        dense: predictions of the dense model on the same examples.
        observed: what the suite saw with the model at hand; ``None`` for suites that need no model.
        siblings: all models of the audit that were predicted, this one and dense included: some metrics are about a
            variant among them.
        asked: the variants of the policy that have a ratio: name → what its name starts with, and the ratio; those that
            could not be built are among them.
    """

    variant: str
    facts: Facts
    examples: Examples
    predictions: Predictions
    dense: Predictions
    observed: Observed | None = None
    siblings: Mapping[str, Sibling] = field(default_factory=dict)
    asked: Mapping[str, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sibling:
    """One model of an audit, as suites that look at several see it.

    Args:
        recipe: what its name starts with; variants of one recipe differ in their ratio alone; ``None``: a comparator.
        ratio: requested.
        predictions: on the test set.
        seen: reads what the suite saw of it.
    """

    recipe: str | None
    ratio: float | None
    predictions: Predictions
    seen: Callable[[], Observed | None]

    @cached_property
    def observed(self) -> Observed | None:
        """What the suite saw of it; ``None``: nothing, or nothing that could be observed."""
        found = self.seen()
        return None if found is None or found.error is not None else found


@dataclass(frozen=True, eq=False)
class Models:
    """What a suite may look at that needs the models themselves, all variants of the audit at once.

    Args:
        loaded: the checked subject.
        examples: the test set, with the threshold.
        models: name → a function that gives the model, a copy that the suite may keep; dense first, then the previous
            one, then the variants by ratio and name, whatever their order in the policy.
        ratios: name → ratio, where it has one.
        predictions: of each of them on the test set.
        gates: the suite's own.
        folder: that relative paths of the policy start from.
        seed: of the audit.
        progress: told in one line what is being done.
    """

    loaded: Loaded
    examples: Examples
    models: Mapping[str, Callable[[], torch.nn.Module]]
    ratios: Mapping[str, float | None]
    predictions: Mapping[str, Predictions]
    gates: Sequence[GateSpec]
    folder: Path
    seed: int
    progress: Callable[[str], None]


class Suite(Protocol):
    """Contract of the ``SUITE`` object of a file in ``suites/``."""

    name: str
    options: type[BaseModel]
    """The suite's own keys in ``[suites.<name>]``, beside ``gates``."""
    metrics: tuple[Metric, ...]

    def columns(self, options: BaseModel) -> tuple[str, ...] | None:
        """Segment columns that it needs; ``None``: all there are."""

    def members(self, metric: Metric, facts: Facts, options: BaseModel) -> tuple[Member, ...]:
        """The members of ``metric``'s family, in a stable order."""

    def measure(self, context: Context, options: BaseModel) -> list[Measurement]:
        """Every metric that is defined for the task, for every member."""


@runtime_checkable
class ObservingSuite(Suite, Protocol):
    """A suite that needs the models: it observes all of them first, and measures what it observed."""

    def check(self, loaded: Loaded, options: BaseModel) -> None:
        """Refuses, before anything is measured, what cannot be carried out on this subject.

        Raises:
            PruneProofError: with what can.
        """

    def missing(self, metric: Metric, options: BaseModel) -> str | None:
        """What to add to the options, where by them there is nothing to measure ``metric`` on; ``None``: there is, or
        it depends on the subject."""

    def cautions(self, options: BaseModel, gates: Sequence[GateSpec]) -> list[str]:
        """What a reader of the verdicts should know of the way in which it was asked to measure."""

    def tasks(self, options: BaseModel) -> int:
        """How many times ``timeout_s`` observing one model may take."""

    def observe(self, models: Models, options: BaseModel) -> Mapping[str, Observed]:
        """What it saw of each model; one that could not be observed has an error of its own."""

    def contradictions(self, context: Context, options: BaseModel) -> list[str]:
        """Where what it observed of one model contradicts itself, the policy or what the model said; one line each."""

    def chapter(self, contexts: Sequence[Context], options: BaseModel) -> Chapter:
        """What reports show of it, from the same contexts as the measurements, dense first."""
