"""APoZ: units with the highest average percentage of zeros go first (Hu et al. 2016, arXiv 1607.03250)."""

from __future__ import annotations

import torch

from pruneproof.criteria import READINGS, Units, given

NEEDS = (READINGS,)
GRANULARITIES = ("channel", "head")


def units(group: Units) -> torch.Tensor:
    """Minus the share of values that are not above zero, in [-1, 0], as the layers that read the unit find them."""
    return -given(group.zeros, "how often its units are zero", group.name).double()
