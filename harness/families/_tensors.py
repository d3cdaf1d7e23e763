"""Slices of tensors that belong to equally wide units, and why a tensor cannot lose any."""

from __future__ import annotations

import torch

from pruneproof.units import Group, Role, Slices


def spread(tensor: str, dim: int, role: Role, units: int, width: int = 1, parts: int = 1) -> Slices:
    """``width`` neighbouring positions for each of ``units`` units, ``parts`` times over (fused projections)."""
    positions = torch.arange(parts * units * width)
    return Slices(tensor, dim, role, positions, positions // width % units)


class Tensors:
    """The tensors of a network, by all of their names."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.tensors = dict(model.named_parameters(remove_duplicate=False))
        self._owners: dict[int, list[tuple[int, str]]] = {}
        for name, tensor in self.tensors.items():
            owner = model.get_submodule(name.rpartition(".")[0])
            self._owners.setdefault(id(tensor), []).append((id(owner), name))

    def refused(self, group: Group) -> str:
        """Why the group must stay whole; empty where nothing speaks against it."""
        if group.size < 2:
            return "it has only one unit"
        for entry in group.slices:
            if reason := self._fixed(entry):
                return reason
        return ""

    def _fixed(self, entry: Slices) -> str:
        tensor = self.tensors.get(entry.tensor)
        if tensor is None:
            return f"{entry.tensor} is computed from other tensors, or not there"
        if not tensor.is_floating_point():
            return f"{entry.tensor} is quantised ({tensor.dtype})"
        if entry.dim >= tensor.dim() or tensor.shape[entry.dim] != len(entry.positions):
            return f"{entry.tensor} has shape {tuple(tensor.shape)}, not {len(entry.positions)} along dim {entry.dim}"
        owners = self._owners[id(tensor)]
        other = next((name for owner, name in owners if owner != owners[0][0]), "")
        return f"{owners[0][1]} and {other} are one tensor" if other else ""
