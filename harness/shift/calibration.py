"""Calibration from what is kept of an answer: its confidence, and whether it was right.

Confidence is the largest probability ``(n,)``, in [1/classes, 1]. Each number is a function of example weights
``(n,)``, as in :mod:`pruneproof.shift.formulas`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pruneproof.metrics import ECE_BINS
from pruneproof.shift.formulas import Weighted, Weights, ratio

Floats = NDArray[np.floating]


def ece(confidence: Floats, right: NDArray[np.generic], bins: int = ECE_BINS) -> Weighted:
    """Expected calibration error ``Σ_b n_b / n · |accuracy_b - confidence_b|`` of equally wide bins (Guo et al. 2017).

    Bins are open below and closed above; the first holds 0 as well.

    Args:
        right: ``(n,)`` whether the most probable class is the true one.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    gap = np.asarray(right, dtype=np.float64) - sure
    places = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], sure, side="left")
    held = np.eye(bins)[places] * gap[:, None]
    return lambda weights: ratio(np.abs(weights @ held).sum(axis=-1), weights.sum(axis=-1))


def adaptive_ece(confidence: Floats, right: NDArray[np.generic], bins: int = ECE_BINS) -> Weighted:
    """As :func:`ece`, of bins that hold the same number of examples each (Nguyen and O'Connor 2015; of the top label
    what Nixon et al. 2019 call adaptive calibration error).

    Equal-mass bins do not leave most of them empty where a model is nearly always sure. Under weights the bins are
    those of the resample. Examples of equal confidence that an edge lies between are shared between the bins, so the
    order of the examples plays no part.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    gap = np.asarray(right, dtype=np.float64) - sure
    order = np.argsort(sure, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(sure[order]) > 0])
    sorted_gap = gap[order]

    def weighted(weights: Weights) -> float:
        drawn = weights[order].astype(np.float64)
        mass = np.r_[0.0, np.cumsum(np.add.reduceat(drawn, starts))]
        if not mass[-1]:
            return math.nan
        sums = np.r_[0.0, np.cumsum(np.add.reduceat(drawn * sorted_gap, starts))]
        held = np.r_[True, np.diff(mass) > 0]  # np.interp wants ascending positions
        edges = np.linspace(0, mass[-1], bins + 1)
        return float(np.abs(np.diff(np.interp(edges, mass[held], sums[held]))).sum() / mass[-1])

    return weighted


def brier(losses: Floats) -> Weighted:
    """Mean of ``Σ_k (p_k - y_k)² / 2 (n,)``: the Brier score in [0, 1] (Brier 1950, halved)."""
    each = np.asarray(losses, dtype=np.float64)
    return lambda weights: ratio(weights @ each, weights.sum(axis=-1))


def brier_losses(probabilities: Floats, targets: NDArray[np.integer]) -> NDArray[np.float64]:
    """``(n,)`` what each example adds to :func:`brier`, of ``probabilities (n, classes)``."""
    wide = np.asarray(probabilities, dtype=np.float64)
    truth = np.eye(wide.shape[1])[np.asarray(targets, dtype=np.int64)]
    return np.asarray(((wide - truth) ** 2).sum(axis=1) / 2)
