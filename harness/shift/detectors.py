"""Out-of-distribution detection: scores that are higher the less an example looks like the training distribution.

Scores of answers need logits alone; scores of features are fitted to clean examples, the calibration set's, of the same
model. In all numbers out-of-distribution examples are the positive class, as OpenOOD's code has it (Yang et al. 2022,
``evaluators/metrics.py``). AUROC would be the same the other way round; FPR at 95 % TPR would not, and the classic
papers take it the other way round, so numbers of different tools cannot be compared without saying which.

=============== ===================================================================== =============================
score           formula                                                               source
=============== ===================================================================== =============================
``msp``         ``-max_k softmax(f)_k``                                               Hendrycks and Gimpel 2017
``max_logit``   ``-max_k f_k``                                                        Hendrycks et al. 2022
``energy``      ``-T log Σ_k exp(f_k / T)``                                           Liu et al. 2020
``mahalanobis`` ``min_k (z - μ_k)ᵀ Σ⁻¹ (z - μ_k)``, Σ shared by the classes           Lee et al. 2018
``knn``         distance to the k-th nearest neighbour on features of length 1        Sun et al. 2022
=============== ===================================================================== =============================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruneproof.errors import MeasurementError
from pruneproof.metrics import auroc as _auroc
from pruneproof.shift.formulas import Weighted, Weights

Floats = NDArray[np.floating]
Scores = NDArray[np.float64]
NEIGHBOURS = 50
"""The k of ``knn``, as Sun et al. for CIFAR-10 and OpenOOD by default."""
TPR = 0.95


def two_logits(outputs: Floats) -> Scores:
    """``(n, classes)`` logits; of one logit ``z (n, 1)`` the two ``(-z/2, z/2)``.

    One logit fixes only the difference of two. Of all pairs with that difference this one treats both classes alike:
    with ``(0, z)`` the energy of every sure negative would be that of an unknown example. Max-logit, energy and MSP
    then rank examples alike, by ``|z|``: a single logit holds no more than that.
    """
    logits = np.asarray(outputs, dtype=np.float64)
    return np.concatenate([-logits / 2, logits / 2], axis=1) if logits.shape[1] == 1 else logits


def msp(outputs: Floats) -> Scores:
    """``(n,)`` from logits ``(n, classes)`` or ``(n, 1)``: minus the largest softmax probability."""
    logits = two_logits(outputs)
    highest = logits.max(axis=1, keepdims=True)
    return np.asarray(-1 / np.exp(logits - highest).sum(axis=1))


def max_logit(outputs: Floats) -> Scores:
    """``(n,)`` from logits: minus the largest."""
    return np.asarray(-two_logits(outputs).max(axis=1))


def energy(outputs: Floats, temperature: float = 1.0) -> Scores:
    """``(n,)`` from logits: the free energy ``-T log Σ exp(f / T)``."""
    from scipy.special import logsumexp

    return np.asarray(-temperature * logsumexp(two_logits(outputs) / temperature, axis=1), dtype=np.float64)


class Mahalanobis:
    """Class-conditional Gaussians with one covariance, fitted to features.

    The covariance is the maximum-likelihood one around the class means, its inverse the pseudo-inverse: as the authors'
    code has it, so directions in which no calibration example varies (units that pruning killed) play no part.

    Args:
        features: ``(n, width)`` of clean examples.
        labels: ``(n,)`` their true classes.

    Raises:
        MeasurementError: a feature is not finite, or there are no more examples than features and classes together, so
            that the covariance cannot be estimated.
    """

    def __init__(self, features: Floats, labels: NDArray[np.generic]) -> None:
        from scipy.linalg import pinvh
        from sklearn.covariance import empirical_covariance

        known = _finite(features, "mahalanobis")
        classes, own = np.unique(labels, return_inverse=True)
        n, width = known.shape
        if n <= width + len(classes):
            raise MeasurementError(
                f"mahalanobis: {n} calibration examples do not determine the covariance of {width} features in"
                f" {len(classes)} classes",
                f"give more than {width + len(classes)} calibration examples, or leave mahalanobis out",
            )
        counts = np.bincount(own)
        self.means = np.zeros((len(classes), width))
        np.add.at(self.means, own, known)
        self.means /= counts[:, None]
        self.covariance = empirical_covariance(known - self.means[own], assume_centered=True)
        # Directions with no more variance than the rounding of the model's own arithmetic have none.
        precision = np.finfo(features.dtype).eps if np.issubdtype(features.dtype, np.floating) else 0.0
        self.precision = pinvh(self.covariance, rtol=width * max(np.finfo(np.float64).eps, (4 * precision) ** 2))

    def __call__(self, features: Floats) -> Scores:
        """``(n,)`` squared distance to the nearest class."""
        seen = _finite(features, "mahalanobis")
        nearest = np.full(len(seen), math.inf)
        for mean in self.means:
            off = seen - mean
            nearest = np.minimum(nearest, ((off @ self.precision) * off).sum(axis=1))
        return nearest


class Neighbours:
    """Distance to the ``k``-th nearest of the clean examples, all features scaled to length 1.

    Raises:
        MeasurementError: a feature is not finite, or there are fewer than ``k`` examples.
    """

    def __init__(self, features: Floats, k: int = NEIGHBOURS) -> None:
        from sklearn.neighbors import NearestNeighbors

        known = _finite(features, "knn")
        if len(known) < k:
            raise MeasurementError(
                f"knn: {len(known)} calibration examples, and the {k}-th nearest is asked for",
                "give more calibration examples, or leave knn out",
            )
        self._found: Any = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=1).fit(_unit(known))

    def __call__(self, features: Floats) -> Scores:
        """``(n,)`` distances in [0, 2]."""
        distances, _ = self._found.kneighbors(_unit(_finite(features, "knn")))
        return np.asarray(distances[:, -1], dtype=np.float64)


def auroc(scores: Scores, outside: NDArray[np.bool_]) -> Weighted:
    """Area under the ROC curve: ``P(score outside > score inside) + ½ P(=)``.

    Args:
        scores: ``(n,)`` of examples of both kinds.
        outside: ``(n,)`` whether they are out of distribution.
    """
    return _auroc(_ranked(scores), outside)


def fpr_at_tpr(scores: Scores, outside: NDArray[np.bool_], tpr: float = TPR) -> Weighted:
    """The share of examples of the distribution that is flagged where ``tpr`` of those outside of it are.

    The threshold is the highest score at and above which at least ``tpr`` of the outside examples lie: the first such
    point of scikit-learn's ``roc_curve``, as in OpenOOD; equal scores are flagged together. (OpenOOD lets
    ``roc_curve`` drop points between equal slanted steps, which only ties make; here none is dropped.)
    """
    ranked = _ranked(scores)
    order = np.argsort(-ranked, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(ranked[order]) < 0])
    positive = outside[order]

    def weighted(weights: Weights) -> float:
        drawn = weights[order].astype(np.float64)
        flagged = np.cumsum(np.add.reduceat(drawn * positive, starts))
        false = np.cumsum(np.add.reduceat(drawn * ~positive, starts))
        if not flagged[-1] or not false[-1]:
            return math.nan
        first = int(np.argmax(flagged / flagged[-1] >= tpr))
        return float(false[first] / false[-1])

    return weighted


def _ranked(scores: Scores) -> Scores:
    if not np.isfinite(scores).all():
        raise MeasurementError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite",
            "find the layer that overflows",
        )
    return np.asarray(scores, dtype=np.float64)


def _finite(features: Floats, name: str) -> Scores:
    if features.ndim != 2 or not np.isfinite(features).all():
        raise MeasurementError(
            f"{name}: the features are not finite numbers (n, width)", "find the layer that overflows"
        )
    return np.asarray(features, dtype=np.float64)


def _unit(features: Scores) -> Scores:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12))
