"""First-order Taylor, absolute values summed: ``Σ|w·g|``.

LLM-Pruner's ``param_first`` (Ma et al. 2023, arXiv 2305.11627) and Torch-Pruning's default. Two weights of a
unit whose effects cancel count both.
"""

from __future__ import annotations

import torch

from pruneproof.criteria import GRADIENTS, Layer, Units, given

NEEDS = (GRADIENTS,)


def elements(layer: Layer) -> torch.Tensor:
    """``|w·g|``, g the gradient of the mean loss."""
    return (layer.weight * given(layer.gradient, "a gradient", layer.name)).abs()


def units(group: Units) -> torch.Tensor:
    """``Σ|w·g|`` over the weights that produce a unit."""
    gradients = given(group.gradients, "gradients", group.name)
    scores: torch.Tensor = torch.linalg.vector_norm(group.weights * gradients, 1, dim=1, dtype=torch.float64)
    return scores
