"""The accuracy suite: how well a variant does on the test set as a whole, and class by class."""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from pruneproof.metric_names import SHARED
from pruneproof.suite import Context, Facts, Measurement, Member, Metric, measurement

BY_CLASS = ("recall", "precision")


class Options(BaseModel):
    """``[suites.accuracy]`` has no options of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Accuracy:
    """Metrics of the whole test set; recall and precision class by class."""

    name = "accuracy"
    options: type[BaseModel] = Options
    metrics = tuple(replace(metric, family="class") if metric.name in BY_CLASS else metric for metric in SHARED)

    def columns(self, options: BaseModel) -> tuple[str, ...]:
        return ()

    def members(self, metric: Metric, facts: Facts, options: BaseModel) -> tuple[Member, ...]:
        return tuple(Member("class", name) for name in facts.classes)

    def measure(self, context: Context, options: BaseModel) -> list[Measurement]:
        import numpy as np

        from pruneproof import metrics

        examples, said, dense = context.examples, context.predictions, context.dense
        rows = np.arange(context.facts.n)
        found = []
        for metric in self.metrics:
            if context.facts.task not in metric.tasks:
                continue
            if metric.family == "class":
                one = metrics.recall if metric.name == "recall" else metrics.precision
                for label, member in enumerate(self.members(metric, context.facts, options)):
                    found.append(measurement(metric, member, one(examples, said, rows, label), len(rows)))
            else:
                value = metrics.on_rows(metric.name, examples, said, dense, rows)
                found.append(measurement(metric, None, value, len(rows)))
        return found


SUITE = Accuracy()
