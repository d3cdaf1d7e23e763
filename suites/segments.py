"""The segments suite: whether pruning hurts some of the people, products or places more than the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pruneproof.metric_names import SHARED
from pruneproof.suite import CLASSIFICATION, Context, Facts, Found, Measurement, Member, Metric, measurement

if TYPE_CHECKING:
    from pruneproof.estimates import Rows

POOLED = "other"


class Options(BaseModel):
    """``[suites.segments]``"""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    by: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """Segment columns; ``None``: all that the data have."""
    min_n: Annotated[int, Field(ge=1, le=10**9)] = 30
    """Smaller segments are no basis for a verdict."""
    small: Literal["inconclusive", "pool"] = "inconclusive"
    """What becomes of them: judged INCONCLUSIVE, or joined as ``other``."""

    @field_validator("by")
    @classmethod
    def _sound(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and ("by" in value or len(set(value)) != len(value)):
            raise ValueError("expected distinct columns, none of them called 'by'")
        return value


class Segments:
    """The accuracy suite's metrics on each segment; excess accuracy gap; worst segment; range."""

    name = "segments"
    options: type[BaseModel] = Options
    metrics = (
        *(replace(metric, family="segment") for metric in SHARED),
        Metric("excess_accuracy_gap", False, CLASSIFICATION, "segment", compares=False, low=-1.0),
        Metric("worst", True, CLASSIFICATION, "by"),
        Metric("gap", False, CLASSIFICATION, "by"),
    )

    def columns(self, options: BaseModel) -> tuple[str, ...] | None:
        assert isinstance(options, Options)
        return options.by

    def members(self, metric: Metric, facts: Facts, options: BaseModel) -> tuple[Member, ...]:
        assert isinstance(options, Options)
        columns = options.by or tuple(facts.segments)
        if metric.family == "by":
            return tuple(Member("by", column) for column in columns)
        return tuple(Member(column, value) for column in columns for value in _sizes(facts, column, options))

    def measure(self, context: Context, options: BaseModel) -> list[Measurement]:
        assert isinstance(options, Options)
        defined = [metric for metric in self.metrics if context.facts.task in metric.tasks]
        found = []
        for column in options.by or tuple(context.facts.segments):
            segments = dict(_rows(context, column, options))
            for metric in defined:
                if metric.family == "by":
                    found.append(self._by(metric, column, segments, context, options))
                else:
                    for value, rows in segments.items():
                        small = len(rows) < options.min_n
                        note = _joined(context.facts, column, options) if value == POOLED else ""
                        one = self._one(metric, context, rows)
                        found.append(measurement(metric, Member(column, value), one, len(rows), small, note))
        return found

    def _one(self, metric: Metric, context: Context, rows: Rows) -> Found:
        from pruneproof import metrics

        if metric.name == "excess_accuracy_gap":
            return metrics.excess_gap(context.examples, context.predictions, context.dense, rows)
        return metrics.on_rows(metric.name, context.examples, context.predictions, context.dense, rows)

    def _by(
        self, metric: Metric, column: str, segments: dict[str, Rows], context: Context, options: Options
    ) -> Measurement:
        from pruneproof import metrics
        from pruneproof.estimates import Extreme, Proportion

        right = metrics.correct(context.examples, context.predictions)
        parts = tuple(Proportion(rows, right[rows]) for rows in segments.values())
        small = any(len(rows) < options.min_n for rows in segments.values())
        member = Member("by", column)
        if metric.name == "gap" and len(parts) < 2:
            return measurement(metric, member, f"{column} has one segment only", context.facts.n, small)
        kind: Literal["lowest", "range"] = "lowest" if metric.name == "worst" else "range"
        return measurement(metric, member, Extreme(kind, parts), context.facts.n, small)


def _sizes(facts: Facts, column: str, options: Options) -> dict[str, int]:
    """Segment → number of examples, small ones pooled where the policy says so, the pool last."""
    sizes = dict(facts.segments[column])
    if options.small == "inconclusive":
        return sizes
    kept = {value: n for value, n in sizes.items() if n >= options.min_n and value != POOLED}
    pooled = sum(sizes.values()) - sum(kept.values())
    return {**kept, POOLED: pooled} if pooled else kept


def _joined(facts: Facts, column: str, options: Options) -> str:
    """What the pool stands for."""
    if options.small == "inconclusive":
        return ""
    small = [f"{value} ({n})" for value, n in facts.segments[column].items() if n < options.min_n or value == POOLED]
    return f"stands for segments under {options.min_n} examples: {', '.join(small)}"


def _rows(context: Context, column: str, options: Options) -> Iterator[tuple[str, Rows]]:
    import numpy as np
    import pandas as pd

    codes, names = pd.factorize(context.examples.segments[column].to_numpy(dtype=object))
    code = {name: position for position, name in enumerate(names)}
    sizes = _sizes(context.facts, column, options)
    named = [value for value in sizes if value != POOLED or options.small == "inconclusive"]
    for value in named:
        yield value, np.flatnonzero(codes == code[value])
    if len(named) < len(sizes):
        yield POOLED, np.flatnonzero(~np.isin(codes, [code[value] for value in named]))


SUITE = Segments()
