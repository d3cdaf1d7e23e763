"""First and second order of the loss together: ``Σ|w·g - ½·w²·E_n[g_n²]|``.

LLM-Pruner's ``param_mix`` (Ma et al. 2023, arXiv 2305.11627): the change of the loss when a weight goes, with
the diagonal of the empirical Fisher for the Hessian.
"""

from __future__ import annotations

import torch

from pruneproof.criteria import EXAMPLE_GRADIENTS, GRADIENTS, Layer, Units, given

NEEDS = (GRADIENTS, EXAMPLE_GRADIENTS)


def elements(layer: Layer) -> torch.Tensor:
    """``|w·g - ½·w²·E_n[g_n²]|``."""
    gradient = given(layer.gradient, "a gradient", layer.name)
    return _change(layer.weight, gradient, given(layer.squared_gradient, "squared gradients", layer.name))


def units(group: Units) -> torch.Tensor:
    """The same, summed over the weights that produce a unit."""
    gradients = given(group.gradients, "gradients", group.name)
    squared = given(group.squared_gradients, "squared gradients", group.name)
    return _change(group.weights, gradients, squared).sum(dim=1)


def _change(weight: torch.Tensor, gradient: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
    wide = weight.double()
    return (wide * gradient - 0.5 * wide.square() * squared).abs()
