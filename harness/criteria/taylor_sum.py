"""First-order Taylor of the whole unit: ``|Σ w·g|``.

LLM-Pruner's ``vectorize`` (Ma et al. 2023, arXiv 2305.11627) and Torch-Pruning's ``multivariable``. Effects
that cancel within a unit do not count. Ranks single weights as the other two formulas do.
"""

from __future__ import annotations

import torch

from pruneproof.criteria import GRADIENTS, Layer, Units, given

NEEDS = (GRADIENTS,)


def elements(layer: Layer) -> torch.Tensor:
    """``|w·g|``, g the gradient of the mean loss."""
    return (layer.weight * given(layer.gradient, "a gradient", layer.name)).abs()


def units(group: Units) -> torch.Tensor:
    """``|Σ w·g|`` over the weights that produce a unit."""
    gradients = given(group.gradients, "gradients", group.name)
    return (group.weights * gradients).sum(dim=1, dtype=torch.float64).abs()
