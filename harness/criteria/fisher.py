"""Fisher: the second-order term of the loss, with the empirical Fisher for the Hessian.

Single weights: Optimal Brain Damage (LeCun et al. 1990), ``½·h·w²``. Units: Theis et al. 2018, arXiv 1801.05787,
with the unit's own weights in place of its activation: removing the unit moves along all of them at once.
"""

from __future__ import annotations

import torch

from pruneproof.criteria import EXAMPLE_GRADIENTS, Layer, Units, given

NEEDS = (EXAMPLE_GRADIENTS,)


def elements(layer: Layer) -> torch.Tensor:
    """``½·w²·E_n[g_n²]``, g_n the gradient of example n's loss."""
    squared = given(layer.squared_gradient, "squared gradients", layer.name)
    return 0.5 * layer.weight.double().square() * squared


def units(group: Units) -> torch.Tensor:
    """``½·E_n[(Σ_s w_s·g_ns)²]`` over the weights s that produce a unit."""
    products = given(group.example_products, "gradients of single examples", group.name)
    return 0.5 * products.double().square().mean(dim=0)
