"""The shift suite: how a variant holds up away from the distribution that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pruneproof.corruptions import SEVERITIES
from pruneproof.metric_names import SHARED
from pruneproof.shift.entries import Breaking, Entries, Entry, Severities, resamples
from pruneproof.shift.naming import CORRUPTED, NOMINAL, moment, parts
from pruneproof.suite import BINARY, CLASSIFICATION, REGRESSION, Context, Facts, Measurement, Member, Metric
from pruneproof.tables import Name, Record, Text

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pruneproof.checking import Loaded
    from pruneproof.exhibits import Chapter
    from pruneproof.observed import Observed
    from pruneproof.policy import GateSpec
    from pruneproof.suite import Models

Detector = Literal["msp", "max_logit", "energy", "mahalanobis", "knn"]
EVERY = CLASSIFICATION | REGRESSION
LEVELS = frozenset({"accuracy", "balanced_accuracy", "recall", "corruption_accuracy", "accuracy_at", "mce", "ce"})
"""Metrics that a useless model does not do well in."""


class Counterexamples(Record):
    """``counterexamples = { tries = 200 }``: a search for inputs that dense and a variant decide differently."""

    tries: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Proposals for each; a proposal is tried at several sizes."""
    most: Annotated[int, Field(ge=1, le=50)] = 3
    """After so many the search ends."""
    within: Annotated[float, Field(gt=0)] | None = None
    """How large a change still counts; tables: in spreads of the columns, all changes together."""


class Options(Record):
    """``[suites.shift]``"""

    corruptions: Entries = ()
    """Each by its name, or with its own keys."""
    severities: Severities = SEVERITIES
    """Of the corruptions that do not state their own."""
    by: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Segment columns whose combinations are the groups of ``worst_group_accuracy``."""
    min_n: Annotated[int, Field(ge=1, le=10**9)] = 30
    """Smaller sets and groups are no basis for a verdict."""
    by_time: Text | None = None
    """Segment column that holds the time of each test example."""
    windows: dict[Name, Annotated[tuple[str, str], Field(strict=False)]] = Field(default_factory=dict)
    """Name → start and end of a time: the end is not in it. ``""``: it starts with the data, or ends with them."""
    period: Literal["day", "week", "month", "quarter", "year"] | None = None
    """Cut the test set into periods of equal length."""
    delta: Annotated[float, Field(ge=0, lt=1)] = 0.005
    """Error that prune potential allows above the dense model's."""
    noise: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False)] = ()
    """Levels of uniform noise, in shares of the inputs' range, at which dense and pruned are compared as functions."""
    noise_samples: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Noisy copies of each example."""
    detectors: Annotated[tuple[Detector, ...], Field(strict=False)] = ("msp", "energy", "max_logit")
    """Scores that tell the subject's ``foreign`` inputs from the test set."""
    layer: Text | None = None
    """The layer whose output ``mahalanobis`` and ``knn`` take for features; default: what the last linear layer is
    given."""
    neighbours: Annotated[int, Field(ge=1, le=100_000)] = 50
    """The k of detector ``"knn"``."""
    breaking: Annotated[tuple[Breaking, ...], Field(strict=False)] = ()
    """Corruptions of which the smallest severity is looked for that breaks a limit."""
    counterexamples: Counterexamples | None = None
    bounds: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """Range of the inputs, for a subject that states no domain."""
    corrupted: Text | None = None
    """Which of several inputs is corrupted: a key of a mapping, a position in a tuple."""
    most: Annotated[int, Field(ge=1)] = 10**9
    """Corrupt a random sample of at most so many test examples."""

    @field_validator("corruptions")
    @classmethod
    def _distinct(cls, value: tuple[Entry, ...]) -> tuple[Entry, ...]:
        labels = [entry.called for entry in value]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"expected distinct labels: give the corruptions called '{label}' a label = … each")
            if label in (NOMINAL, CORRUPTED):
                raise ValueError(f"expected another label: '{label}' is taken")
        return value

    @model_validator(mode="after")
    def _sound(self) -> Options:
        if list(self.severities) != sorted(set(self.severities)):
            raise ValueError("expected distinct severities, ascending")
        if list(self.noise) != sorted(set(self.noise)):
            raise ValueError("expected distinct levels of noise, ascending")
        for name in ("by", "detectors"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"expected distinct values in '{name}'")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError("expected bounds = [low, high] with low < high")
        if (self.by_time is not None) != bool(self.windows or self.period):
            raise ValueError("expected 'by_time' with 'windows' or a 'period', and neither without it")
        corruptions = [entry.called for entry in self.corruptions if not resamples(entry)]
        broken = [entry.corruption for entry in self.breaking]
        if len(set(broken)) != len(broken) or not set(broken) <= set(corruptions):
            raise ValueError("expected in 'breaking' labels of 'corruptions' that change inputs, each once")
        self._timed()
        return self

    def _timed(self) -> None:
        if not self.windows:
            return
        for name, (start, end) in self.windows.items():
            if not start and not end:
                raise ValueError(f"expected window '{name}' to start or to end somewhere")
            if start and end and not moment(start) < moment(end):
                raise ValueError(f"expected window '{name}' to end after it starts")
        cut = parts(self.windows)
        taken = [entry.called for entry in self.corruptions] + [NOMINAL, CORRUPTED]
        if len(set(cut)) != len(cut) or set(cut) & set(taken):
            raise ValueError("expected names of windows that no corruption and no other window has")

    def severities_of(self, entry: Entry) -> tuple[int, ...]:
        """The severities at which a corruption is measured."""
        return entry.severities or self.severities

    @property
    def inputs(self) -> tuple[Entry, ...]:
        """Corruptions that change inputs."""
        return tuple(entry for entry in self.corruptions if not resamples(entry))

    @property
    def samplings(self) -> tuple[Entry, ...]:
        """Those that change how often kinds of examples occur."""
        return tuple(entry for entry in self.corruptions if resamples(entry))


class Shift:
    """Metrics of every shifted set, corruption, window of time, and of what the model was not made for."""

    name = "shift"
    options: type[BaseModel] = Options
    metrics = (
        *(replace(metric, family="shift") for metric in SHARED),
        Metric("adaptive_ece", False, CLASSIFICATION, "shift"),
        Metric("accuracy_drop", False, CLASSIFICATION, "shift", low=-1.0),
        Metric("fpr_rise", False, BINARY, "shift", low=-1.0),
        Metric("fnr_rise", False, BINARY, "shift", low=-1.0),
        Metric("worst_group_accuracy", True, CLASSIFICATION, "shift"),
        Metric("effective_robustness", True, CLASSIFICATION, "shift", compares=False, low=-1.0),
        Metric("excess_error", False, CLASSIFICATION, "shift", compares=False, low=-2.0),
        Metric("excess_error_slope", False, CLASSIFICATION, "shift", unit="per ratio", compares=False, low=-10.0),
        Metric("prune_potential", True, CLASSIFICATION, "shift", unit="ratio", compares=False),
        Metric("unbroken_potential", True, CLASSIFICATION, "shift", unit="ratio", compares=False),
        Metric("worst_period_accuracy", True, CLASSIFICATION),
        Metric("corruption_accuracy", True, CLASSIFICATION),
        Metric("mce", False, CLASSIFICATION, unit="of dense", compares=False),
        Metric("relative_mce", False, CLASSIFICATION, unit="of dense", compares=False, low=float("-inf")),
        Metric("ce", False, CLASSIFICATION, "corruption", unit="of dense", compares=False),
        Metric("breaking_severity", True, CLASSIFICATION, "corruption", unit="severity"),
        Metric("accuracy_at", True, CLASSIFICATION, "severity"),
        Metric("agreement_at", True, CLASSIFICATION, "severity", compares=False),
        Metric("brier_at", False, CLASSIFICATION, "severity"),
        Metric("ece_at", False, CLASSIFICATION, "severity"),
        Metric("mae_at", False, REGRESSION, "severity", unit="target units"),
        Metric("label_match", True, CLASSIFICATION, "noise", compares=False),
        Metric("softmax_distance", False, CLASSIFICATION, "noise", unit="distance", compares=False),
        Metric("ood_auroc", True, CLASSIFICATION, "detector"),
        Metric("ood_fpr95", False, CLASSIFICATION, "detector"),
        Metric("counterexamples", False, CLASSIFICATION, unit="found", compares=False),
    )

    def columns(self, options: BaseModel) -> tuple[str, ...]:
        assert isinstance(options, Options)
        return options.by

    def members(self, metric: Metric, facts: Facts, options: BaseModel) -> tuple[Member, ...]:
        from pruneproof.shift import members

        assert isinstance(options, Options)
        return members.of(metric, facts, options)

    def check(self, loaded: Loaded, options: BaseModel) -> None:
        from pruneproof.shift import material

        assert isinstance(options, Options)
        material.check(loaded, options)

    def missing(self, metric: Metric, options: BaseModel) -> str | None:
        assert isinstance(options, Options)
        needs: dict[str | None, tuple[object, str]] = {
            "noise": (options.noise, "name levels of it: noise = […]"),
            "severity": (options.inputs, "name corruptions = […]"),
            "corruption": (options.inputs, "name corruptions = […]"),
            None: (options.inputs, "name corruptions = […]"),
        }
        by_name: dict[str, tuple[object, str]] = {
            "breaking_severity": (options.breaking, "name what breaks: breaking = [{ corruption = …, max_drop = … }]"),
            "worst_period_accuracy": (options.period, 'name by_time = … and period = "month"'),
            "counterexamples": (options.counterexamples, "ask for a search: counterexamples = { tries = 200 }"),
            "worst_group_accuracy": (options.by, "name segment columns: by = […]"),
        }
        there, remedy = by_name.get(metric.name) or needs.get(metric.family, (True, ""))
        return None if there else remedy

    def cautions(self, options: BaseModel, gates: Sequence[GateSpec]) -> list[str]:
        """Gates that a model passes which is as bad with the shift as without it."""
        names = {gate.metric.name for gate in gates}
        relative = sorted(names & {"excess_error", "relative_mce", "effective_robustness", "excess_error_slope"})
        if not relative or names & LEVELS:
            return []
        return [
            f"{', '.join(relative)}: about what a shift adds; a model that is useless without it passes. Limit "
            "accuracy, corruption_accuracy or mce as well"
        ]

    def tasks(self, options: BaseModel) -> int:
        assert isinstance(options, Options)
        parts = (options.inputs, options.breaking, options.noise, (options.counterexamples,))
        return 2 + sum(len([one for one in part if one is not None]) for part in parts)

    def observe(self, models: Models, options: BaseModel) -> Mapping[str, Observed]:
        from pruneproof.shift.survey import Survey

        assert isinstance(options, Options)
        return Survey(models, options).run()

    def measure(self, context: Context, options: BaseModel) -> list[Measurement]:
        from pruneproof.shift.figures import Figures

        assert isinstance(options, Options)
        figures = Figures(context, options)
        return [
            figures.measured(metric, member)
            for metric in self.metrics
            if context.facts.task in metric.tasks
            for member in (self.members(metric, context.facts, options) if metric.family else (None,))
            if member is not None or figures.asked(metric)
        ]

    def contradictions(self, context: Context, options: BaseModel) -> list[str]:
        from pruneproof.shift import consistency

        assert isinstance(options, Options)
        return list(consistency.contradictions(context, options))

    def chapter(self, contexts: Sequence[Context], options: BaseModel) -> Chapter:
        from pruneproof.shift import showing

        assert isinstance(options, Options)
        return showing.chapter(contexts, options)


SUITE = Shift()
