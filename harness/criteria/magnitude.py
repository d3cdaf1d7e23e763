"""Magnitude: small weights matter least (Janowsky 1989; Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

import torch

from pruneproof.criteria import Layer, Units


def elements(layer: Layer) -> torch.Tensor:
    """``|w|``."""
    return layer.weight.abs()


def units(group: Units) -> torch.Tensor:
    """Root mean square of the weights that produce a unit, ``sqrt(mean(w²))``.

    Within a layer this ranks as the L2 norm does; dividing by the number of weights makes layers of different width
    comparable, which :mod:`pruneproof.criteria.l2_norm` does not.
    """
    norms: torch.Tensor = torch.linalg.vector_norm(group.weights, dim=1, dtype=torch.float64)
    scores: torch.Tensor = norms / group.weights.shape[1] ** 0.5
    return scores
