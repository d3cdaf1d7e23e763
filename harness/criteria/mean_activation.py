"""Mean activation: units that are weakly active go first (Molchanov et al. 2017, arXiv 1611.06440)."""

from __future__ import annotations

import torch

from pruneproof.criteria import READINGS, Units, given

NEEDS = (READINGS,)
GRANULARITIES = ("channel", "head")


def units(group: Units) -> torch.Tensor:
    """``mean|a|`` over positions and examples, as the layers that read the unit find it.

    The absolute value, since activations other than ReLU have signs that would cancel.
    """
    return given(group.activity, "how active its units are", group.name).double()
