"""L1 norm of a unit (Li et al. 2017, arXiv 1608.08710)."""

from __future__ import annotations

import torch

from pruneproof.criteria import Units


def units(group: Units) -> torch.Tensor:
    """``Σ|w|`` over the weights that produce a unit."""
    scores: torch.Tensor = torch.linalg.vector_norm(group.weights, 1, dim=1, dtype=torch.float64)
    return scores
