"""First-order Taylor, squares summed: ``Σ(w·g)²``.

Molchanov et al. 2019, arXiv 1906.10771, and NNI. Ranks single weights as the other two formulas do.
"""

from __future__ import annotations

import torch

from pruneproof.criteria import GRADIENTS, Layer, Units, given

NEEDS = (GRADIENTS,)
_ROWS = 256
"""Units whose squares are held in double precision at a time."""


def elements(layer: Layer) -> torch.Tensor:
    """``(w·g)²``, g the gradient of the mean loss."""
    gradient = given(layer.gradient, "a gradient", layer.name)
    return (layer.weight.double() * gradient).square()  # in double, where small squares do not vanish


def units(group: Units) -> torch.Tensor:
    """``Σ(w·g)²`` over the weights that produce a unit."""
    gradients = given(group.gradients, "gradients", group.name)
    products = group.weights * gradients
    return torch.cat(
        [products[start : start + _ROWS].double().square().sum(dim=1) for start in range(0, len(products), _ROWS)]
    )
