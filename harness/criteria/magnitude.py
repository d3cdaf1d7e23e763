"""Magnitude: small weights matter least (Janowsky 1989; Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

import torch


def elements(weight: torch.Tensor) -> torch.Tensor:
    """``|w|``."""
    return weight.abs()


def channels(rows: torch.Tensor) -> torch.Tensor:
    """Root mean square of the weights that produce a unit, ``sqrt(mean(w²))``.

    Within a layer this ranks as the L2 norm of the filter does (Li et al. 2017, arXiv 1608.08710, use
    L1); dividing by the number of weights makes layers of different width comparable.

    Args:
        rows: ``(units, weights a unit)``.
    """
    return rows.double().square().mean(dim=1).sqrt()
