"""Metrics of predictions by name; how they are computed stands in :mod:`pruneproof.metrics`."""

from __future__ import annotations

from pruneproof.suite import BINARY, CLASSIFICATION, REGRESSION, Metric

SHARED = (
    Metric("accuracy", True, CLASSIFICATION),
    Metric("balanced_accuracy", True, CLASSIFICATION),
    Metric("recall", True, CLASSIFICATION),
    Metric("precision", True, CLASSIFICATION),
    Metric("fpr", False, BINARY),
    Metric("fnr", False, BINARY),
    Metric("auroc", True, CLASSIFICATION),
    Metric("average_precision", True, CLASSIFICATION),
    Metric("brier", False, CLASSIFICATION),
    Metric("ece", False, CLASSIFICATION),
    Metric("agreement", True, CLASSIFICATION, compares=False),
    Metric("mae", False, REGRESSION, unit="target units"),
    Metric("rmse", False, REGRESSION, unit="target units"),
    Metric("r2", True, REGRESSION, unit="r2", low=float("-inf")),
)
"""Metrics of the accuracy suite, which the segments suite measures on each segment as well."""
