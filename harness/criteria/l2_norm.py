"""L2 norm of a unit (He et al. 2018, arXiv 1808.06866), with the root that some tools leave out."""

from __future__ import annotations

import torch

from pruneproof.criteria import Units


def units(group: Units) -> torch.Tensor:
    """``sqrt(Σw²)`` over the weights that produce a unit."""
    scores: torch.Tensor = torch.linalg.vector_norm(group.weights, dim=1, dtype=torch.float64)
    return scores
