"""LAMP: layer-adaptive magnitude, made for global scope (Lee et al. 2021, arXiv 2010.07611)."""

from __future__ import annotations

import torch

from pruneproof.criteria import Layer


def elements(layer: Layer) -> torch.Tensor:
    """``w² / Σ w_u²`` over the weights u of the layer that are not smaller, in [0, 1]; of equals, the later positions.

    The largest weight of every layer scores 1. A layer of zeros scores 0 throughout.
    """
    squares = layer.weight.double().square().reshape(-1)
    order = torch.sort(squares, stable=True).indices
    ascending = squares[order]
    remaining = ascending.flip(0).cumsum(0).flip(0)
    ratio = torch.where(remaining > 0, ascending / remaining, 0.0)
    return torch.empty_like(squares).scatter_(0, order, ratio).reshape(layer.weight.shape)
