"""Slim: units that batch norm scales down matter least (Liu et al. 2017, arXiv 1708.06519)."""

from __future__ import annotations

import torch

from pruneproof.criteria import SCALE, Units
from pruneproof.errors import PruningError

NEEDS = (SCALE,)
GRANULARITIES = ("channel",)


def units(group: Units) -> torch.Tensor:
    """``|γ|`` of the batch norm that follows; where several follow, their mean.

    Raises:
        PruningError: none follows.
    """
    if group.scale is None:
        raise PruningError(
            f"{group.name}: no batch norm with a scale follows it",
            f"exclude {group.name}, or use another criterion than batch_norm_scale",
        )
    return group.scale.double()
