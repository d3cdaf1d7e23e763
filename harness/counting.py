"""What a plan claims to remove, counted on shapes alone, independently of how it is carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from pruneproof import prunable
from pruneproof.plan import PrunePlan, Removal


class Shapes:
    """Shapes of the dense network, kept so that many removals can be counted quickly.

    A tensor that several layers share counts once, under its first name.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.parameters = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
        every = {id(tensor): name for name, tensor in model.named_parameters()}
        self.layer_weights = {every[id(tensor)] for tensor in prunable.weights(model).values()}
        self.first_name = {name: every[id(tensor)] for name, tensor in model.named_parameters(remove_duplicate=False)}
        self.sizes = {name: _product(shape) for name, shape in self.parameters.items()}

    def total(self, denominator: str) -> int:
        """Elements of ``layer_weights`` or ``all_parameters``."""
        names = self.layer_weights if denominator == "layer_weights" else self.sizes
        return sum(self.sizes[name] for name in names)

    def gone(
        self, removals: Iterable[Removal], blocks: Iterable[str], masks: Mapping[str, torch.Tensor]
    ) -> dict[str, int]:
        """Parameter → how many of its elements go; parameters that lose none are left out."""
        lost: dict[str, int] = {self.first_name[name]: int((~mask).sum()) for name, mask in masks.items()}
        kept: dict[str, dict[int, int]] = {}
        for removal in removals:
            if removal.tensor in self.first_name:  # not a buffer
                name = self.first_name[removal.tensor]
                dims = kept.setdefault(name, dict(enumerate(self.parameters[name])))
                dims[removal.dim] -= len(removal.indices)
        lost |= {name: self.sizes[name] - _product(tuple(dims.values())) for name, dims in kept.items()}
        inside = tuple(f"{path}." for path in blocks)
        if inside:
            lost |= {name: size for name, size in self.sizes.items() if name.startswith(inside)}
        return lost

    def shares(self, lost: Mapping[str, int]) -> dict[str, float]:
        """Share of elements gone under each denominator."""
        touched = sum(self.sizes[name] for name in lost)
        of_layers = sum(n for name, n in lost.items() if name in self.layer_weights)
        every = sum(lost.values())
        return {
            "pruned_tensors": every / touched if touched else 0.0,
            "layer_weights": of_layers / max(self.total("layer_weights"), 1),
            "all_parameters": every / max(self.total("all_parameters"), 1),
        }


def claimed(plan: PrunePlan, dense: torch.nn.Module) -> dict[str, float]:
    """Share of the dense network's elements that ``plan`` says goes, under each denominator."""
    shapes = Shapes(dense)
    return shapes.shares(shapes.gone(plan.removals, plan.blocks, plan.masks))


def _product(shape: tuple[int, ...]) -> int:
    found = 1
    for size in shape:
        found *= size
    return found
