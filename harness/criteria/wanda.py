"""Wanda: weights by activations (Sun et al. 2023, arXiv 2306.11695).

The paper ranks within each output, which is scope ``"row"``.
"""

from __future__ import annotations

import torch

from pruneproof.criteria import INPUTS, Layer, given

NEEDS = (INPUTS,)


def elements(layer: Layer) -> torch.Tensor:
    """``|W_ij| · ‖X_j‖₂``, X_j all that weight column j was multiplied with."""
    return layer.weight.abs() * given(layer.input_norm, "what its weights are multiplied with", layer.name)
