"""Removals from the groups of a network, without a recipe: which units go is said, or drawn."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pruneproof import digests, selection, surgery
from pruneproof.plan import PrunePlan, Removal
from pruneproof.units import Found

Lost = Mapping[str, list[int]]
"""Group → units that go."""


def plan(found: Found, model: nn.Module, lost: Lost) -> PrunePlan:
    """The plan that removes ``lost``."""
    places: dict[tuple[str, int], set[int]] = {}
    roles = {}
    for group in found.groups:
        gone = set(lost.get(group.name, ()))
        for entry in group.slices:
            pairs = zip(entry.positions.tolist(), entry.units.tolist(), strict=True)
            picked = {position for position, unit in pairs if unit in gone}
            if picked:
                places.setdefault((entry.tensor, entry.dim), set()).update(picked)
                roles[entry.tensor, entry.dim] = entry.role
    removals = tuple(
        Removal(tensor, dim, roles[tensor, dim], torch.tensor(sorted(picked)))
        for (tensor, dim), picked in places.items()
    )
    total, gone_ = sum(group.size for group in found.groups), sum(map(len, lost.values()))
    return PrunePlan({}, 0.5, 0, digests.of_model(model), gone_, total, gone_ / total, removals=removals)


def drawn(found: Found, ratio: float = 0.5, scope: str = "layer", seed: int = 0) -> Lost:
    """Random units, in the same number as a recipe would take; every group keeps one."""
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(group.size, generator=generator) for group in found.groups]
    gone = selection.select(scores, ratio, scope, 1)
    return {group.name: part.nonzero()[:, 0].tolist() for group, part in zip(found.groups, gone, strict=True)}


def halves(found: Found, model: nn.Module, lost: Lost) -> tuple[nn.Module, nn.Module]:
    """The shrunk and the masked network without ``lost``."""
    made = plan(found, model, lost)
    return surgery.apply(made, model), surgery.masked(made, model)


def answer(model: nn.Module, *x: torch.Tensor) -> torch.Tensor:
    """What ``model`` answers, the first of it."""
    with torch.no_grad():
        found = model(*x)
    return found[0] if isinstance(found, tuple) else found


def relative(have: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference, as a share of the largest value wanted."""
    assert have.shape == want.shape
    return float((have - want).abs().max() / want.abs().max())


def unexplained(found: Found, model: nn.Module) -> set[str]:
    """Linear and convolutional layers that are in no group and not left whole with a reason."""
    held = {
        entry.tensor.rpartition(".")[0] for group in found.groups for entry in group.slices if entry.role != "reads"
    }
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    layers = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    return layers - held - dict(found.whole).keys()
