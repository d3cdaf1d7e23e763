"""FPGM: units near the geometric median of their group can be replaced (He et al. 2019, arXiv 1811.00250)."""

from __future__ import annotations

import torch

from pruneproof.criteria import Units

GRANULARITIES = ("channel", "head")
"""Blocks have no common space to measure distances in."""
_CHUNK = 1024
"""Rows whose distances are held at a time."""


def units(group: Units) -> torch.Tensor:
    """``Σ_j ‖w_i - w_j‖₂``, the sum of distances to every other unit of the group."""
    rows = group.weights.double()
    # Not by way of a matrix product, whose cancellation makes equal rows lie apart.
    direct = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, rows, compute_mode=direct).sum(dim=1) for part in torch.split(rows, _CHUNK)])
