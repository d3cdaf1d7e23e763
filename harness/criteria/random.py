"""Random: the control that every other criterion has to beat."""

from __future__ import annotations

import torch

from pruneproof.criteria import Layer, Units
from pruneproof.errors import PruningError


def elements(layer: Layer) -> torch.Tensor:
    """Uniform in [0, 1)."""
    return torch.rand(layer.weight.shape, generator=_generator(layer))


def units(group: Units) -> torch.Tensor:
    """Uniform in [0, 1)."""
    return torch.rand(group.size, generator=_generator(group), dtype=torch.float64)


def _generator(shown: Layer | Units) -> torch.Generator:
    if shown.generator is None:
        raise PruningError(f"{shown.name}: the criterion was not given a generator", "seed the recipe")
    return shown.generator
