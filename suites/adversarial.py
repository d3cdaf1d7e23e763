"""The adversarial suite: what an attacker can do to a variant, within a budget that the policy states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pruneproof.adversarial.entries import WORST, Entry, attack, spelled
from pruneproof.suite import CLASSIFICATION, REGRESSION, Context, Facts, Measurement, Member, Metric
from pruneproof.tables import Record, Text

if TYPE_CHECKING:
    from pruneproof.checking import Loaded
    from pruneproof.exhibits import Chapter
    from pruneproof.observed import Observed
    from pruneproof.policy import GateSpec
    from pruneproof.suite import Models

EVERY = CLASSIFICATION | REGRESSION
"""A regression subject can bring a criterion of its own."""
ONE_START = 0.01
"""Up to 3 % of the examples fall or stand by the random start alone: a smaller margin says nothing."""


class Goal(BaseModel):
    """An answer that must not be produced: ``{ from = "pedestrian", to = "road" }``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_by_name=True, validate_by_alias=True)

    source: Annotated[Text, Field(alias="from")]
    to: Text

    @property
    def called(self) -> str:
        """As gates name it."""
        return f"{self.source}->{self.to}"


class Options(Record):
    """``[suites.adversarial]``"""

    attacks: Annotated[tuple[Entry, ...], Field(strict=False, min_length=1)]
    """Each with its budget; ``name = "audit"`` is the default."""
    bounds: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """Range of the inputs, for a subject that states no domain."""
    attacked: Text | None = None
    """Which of several inputs is attacked: a key of a mapping, a position in a tuple."""
    most: Annotated[int, Field(ge=1)] = 10**9
    """Attack a random sample of at most so many test examples."""
    sequential: bool = False
    """Attack a growing random sample, and stop when the gates are decided."""
    shard: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Examples that are attacked together; memory grows with it, not with the test set."""
    batch: Annotated[int, Field(ge=1, le=100_000)] = 250
    """Examples a pass; results depend on it in the last digits, so it is part of the policy."""
    goals: Annotated[tuple[Goal, ...], Field(strict=False)] = ()
    """Answers that must not be produced, tried with the first attack."""
    by: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Segment columns."""
    min_n: Annotated[int, Field(ge=1, le=10**9)] = 30
    """Smaller segments and classes are no basis for a verdict."""
    strength_examples: Annotated[int, Field(ge=20, le=100_000)] = 100
    """Examples a strength check looks at."""
    replay: Text | None = None
    """Folder of earlier evidence of the same test set, whose points are tried first."""

    @field_validator("attacks")
    @classmethod
    def _distinct(cls, value: tuple[Entry, ...]) -> tuple[Entry, ...]:
        labels = [entry.called for entry in value]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"expected distinct labels: give the attacks called '{label}' a label = … each")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Options:
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError("expected bounds = [low, high] with low < high")
        if len({goal.called for goal in self.goals}) < len(self.goals):
            raise ValueError("expected distinct goals")
        if any(goal.source == goal.to for goal in self.goals):
            raise ValueError("expected a goal from one class to another")
        if self.shard < self.strength_examples:
            raise ValueError(f"expected a shard of at least the {self.strength_examples} strength_examples")
        if len(set(self.by)) != len(self.by) or {"class", "attack", "goal", "source"} & set(self.by):
            raise ValueError("expected distinct columns in 'by', none of them called class, attack, goal or source")
        return self


class Adversarial:
    """Robust accuracy and what goes with it, for each attack and for all of them together."""

    name = "adversarial"
    options: type[BaseModel] = Options
    metrics = (
        Metric("robust_accuracy", True, EVERY, "attack"),
        Metric("attack_success_rate", False, EVERY, "attack"),
        Metric("median_perturbation", True, EVERY, "attack", unit="budget"),
        Metric("median_queries", True, EVERY, "attack", unit="queries"),
        Metric("robust_accuracy_at", True, EVERY, "budget"),
        Metric("class_robust_accuracy", True, CLASSIFICATION, "class"),
        Metric("segment_robust_accuracy", True, EVERY, "segment"),
        Metric("targeted_success_rate", False, CLASSIFICATION, "goal"),
        Metric("transfer_success_rate", False, EVERY, "source", compares=False),
    )

    def columns(self, options: BaseModel) -> tuple[str, ...]:
        assert isinstance(options, Options)
        return options.by

    def members(self, metric: Metric, facts: Facts, options: BaseModel) -> tuple[Member, ...]:
        assert isinstance(options, Options)
        labels = [entry.called for entry in options.attacks]
        if metric.family == "attack":
            # A growing sample ends where each attack by itself is decided, not all of them together.
            several = len(labels) > 1 and not options.sequential
            together = [WORST] if metric.name == "robust_accuracy" and several else []
            return tuple(Member("attack", label) for label in (*labels, *together))
        if metric.family == "budget":
            return tuple(Member(entry.called, spelled(budget)) for entry in options.attacks for budget in entry.budgets)
        if metric.family == "class":
            return tuple(Member("class", name) for name in facts.classes)
        if metric.family == "segment":
            return tuple(Member(column, value) for column in options.by for value in facts.segments[column])
        if metric.family == "goal":
            return tuple(Member("goal", goal.called) for goal in options.goals)
        return (Member("source", "dense"),)

    def check(self, loaded: Loaded, options: BaseModel) -> None:
        from pruneproof.adversarial import charges

        assert isinstance(options, Options)
        charges.check(loaded, options)

    def missing(self, metric: Metric, options: BaseModel) -> str | None:
        assert isinstance(options, Options)
        if metric.family == "goal" and not options.goals:
            return 'name goals = [{ from = "…", to = "…" }]'
        return "name segment columns: by = […]" if metric.family == "segment" and not options.by else None

    def cautions(self, options: BaseModel, gates: Sequence[GateSpec]) -> list[str]:
        assert isinstance(options, Options)
        ours = [entry.called for entry in options.attacks if _starts(entry) == 1]
        narrow = sorted({f"{gate.stem} {gate.limit:g}" for gate in gates if _narrow(gate)})
        if not ours or not narrow:
            return []
        return [
            f"{'; '.join(narrow)}: with one random start ({', '.join(ours)}) up to 3 % of the examples fall or stand "
            "by chance, so a margin under a point says nothing; ask for restarts"
        ]

    def tasks(self, options: BaseModel) -> int:
        assert isinstance(options, Options)
        return sum(len(entry.budgets) for entry in options.attacks) + len(options.goals)

    def observe(self, models: Models, options: BaseModel) -> Mapping[str, Observed]:
        from pruneproof.adversarial.campaign import Campaign

        assert isinstance(options, Options)
        return Campaign(models, options).run()

    def measure(self, context: Context, options: BaseModel) -> list[Measurement]:
        from pruneproof.adversarial import figures

        assert isinstance(options, Options)
        return [
            figures.measured(metric, member, context, options)
            for metric in self.metrics
            if context.facts.task in metric.tasks
            for member in self.members(metric, context.facts, options)
        ]

    def contradictions(self, context: Context, options: BaseModel) -> list[str]:
        from pruneproof.adversarial import consistency

        assert isinstance(options, Options)
        return list(consistency.contradictions(context, options))

    def chapter(self, contexts: Sequence[Context], options: BaseModel) -> Chapter:
        from pruneproof.adversarial import showing

        assert isinstance(options, Options)
        return showing.chapter(contexts, options)


def _starts(entry: Entry) -> int:
    """Random starts that it asks for; an attack without such a parameter has one."""
    field = attack(entry.name).options.model_fields.get("restarts")
    found = entry.own.get("restarts", 1 if field is None else field.default)
    return found if isinstance(found, int) else 1


def _narrow(gate: GateSpec) -> bool:
    return gate.key == "max_drop" and gate.metric.name.endswith("robust_accuracy") and gate.limit < ONE_START


SUITE = Adversarial()
