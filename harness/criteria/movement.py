"""Movement: weights that training moves towards zero go first (Sanh et al. 2020, arXiv 2005.07683).

The score is ``-Σ_t w_t · ∂L/∂w_t`` over the optimizer steps t; the learning rate, a constant factor, is left out.
"""

from __future__ import annotations

import torch

from pruneproof.criteria import MOVEMENT, Layer, Units, given

NEEDS = (MOVEMENT,)


def elements(layer: Layer) -> torch.Tensor:
    """What was accumulated for each weight."""
    return given(layer.movement, "movement", layer.name)


def units(group: Units) -> torch.Tensor:
    """Its sum over the weights that produce a unit."""
    return given(group.movement, "movement", group.name).double().sum(dim=1)
