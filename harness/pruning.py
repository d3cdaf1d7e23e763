"""From a recipe and a ratio to a plan: score, select, done.

Selection is exact: k = round-half-up(n · ratio) units go, the lowest scores first, ties by position.
"""

from __future__ import annotations

import math
from types import ModuleType

import torch

from pruneproof import digests, prunable, registry, structure
from pruneproof.errors import PruningError
from pruneproof.plan import PrunePlan, Removal
from pruneproof.policy import Prune
from pruneproof.structure import Group
from pruneproof.subject import Inputs


def plan(recipe: Prune, ratio: float, model: torch.nn.Module, inputs: Inputs, seed: int) -> PrunePlan:
    """What ``recipe`` removes from ``model`` at ``ratio``.

    Args:
        ratio: share of units in (0, 1); a unit is a weight or a channel, as the recipe's granularity says.
        inputs: one or two examples, to trace with.

    Raises:
        PruningError: nothing can be pruned, or not that much.
    """
    criterion = registry.member("pruneproof.criteria", recipe.criterion)
    make = _channels if recipe.granularity == "channel" else _elements
    return make(recipe, ratio, model, inputs, seed, criterion)


def _elements(
    recipe: Prune, ratio: float, model: torch.nn.Module, inputs: Inputs, seed: int, criterion: ModuleType
) -> PrunePlan:
    weights = prunable.weights(model)
    if not weights:
        raise PruningError("no linear, convolutional, recurrent or attention weights to prune", "audit another model")
    scores = {name: _sound(name, criterion.elements(weight.detach().cpu())) for name, weight in weights.items()}
    gone = select([score.reshape(-1) for score in scores.values()], ratio, recipe.scope)
    masks = {name: ~lost.reshape(scores[name].shape) for name, lost in zip(scores, gone, strict=True)}
    return PrunePlan(
        recipe=_words(recipe),
        ratio=ratio,
        seed=seed,
        model=digests.of_model(model),
        removed=sum(int(lost.sum()) for lost in gone),
        units=sum(len(lost) for lost in gone),
        masks=masks,
        removals=(),
        left_whole=prunable.out_of_reach(model),
    )


def _channels(
    recipe: Prune, ratio: float, model: torch.nn.Module, inputs: Inputs, seed: int, criterion: ModuleType
) -> PrunePlan:
    groups, whole = structure.groups(model, inputs)
    if not groups:
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in whole) or "no such layers"
        raise PruningError(f"no channels can be removed: {reasons}", "use granularity = 'element'")
    tensors = dict(model.named_parameters(remove_duplicate=False))
    scores = [_sound(group.name, criterion.channels(_produced(group, tensors))) for group in groups]
    gone = select(scores, ratio, recipe.scope, floor=1)
    return PrunePlan(
        recipe=_words(recipe),
        ratio=ratio,
        seed=seed,
        model=digests.of_model(model),
        removed=sum(int(lost.sum()) for lost in gone),
        units=sum(len(lost) for lost in gone),
        masks={},
        removals=_removals(groups, gone),
        left_whole=tuple(whole),
    )


def _words(recipe: Prune) -> dict[str, str]:
    return {key: str(getattr(recipe, key)) for key in ("granularity", "criterion", "scope", "schedule")}


def _sound(name: str, scores: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(scores).all():
        raise PruningError(f"{name} holds NaN or infinity", "mend the dense model first")
    return scores


def _produced(group: Group, tensors: dict[str, torch.nn.Parameter]) -> torch.Tensor:
    """``(units, weights a unit)``: every weight that produces a unit, over all coupled layers."""
    rows = []
    for entry in group.slices:
        if entry.role == "produces":
            weight = tensors[entry.tensor].detach().cpu().movedim(entry.dim, 0)
            picked = torch.empty((group.size, weight[0].numel()), dtype=weight.dtype)
            picked[entry.units] = weight[entry.positions].reshape(len(entry.positions), -1)
            rows.append(picked)
    return torch.cat(rows, dim=1)


def _removals(groups: list[Group], gone: list[torch.Tensor]) -> tuple[Removal, ...]:
    merged: dict[tuple[str, int], list[torch.Tensor]] = {}
    roles = {}
    for group, lost in zip(groups, gone, strict=True):
        for entry in group.slices:
            picked = entry.positions[lost[entry.units]]
            if len(picked):
                merged.setdefault((entry.tensor, entry.dim), []).append(picked)
                roles[entry.tensor, entry.dim] = entry.role
    return tuple(
        Removal(tensor, dim, roles[tensor, dim], torch.unique(torch.cat(found)))
        for (tensor, dim), found in merged.items()
    )


def select(scores: list[torch.Tensor], ratio: float, scope: str, floor: int = 0) -> list[torch.Tensor]:
    """Which units go: booleans like ``scores``, exactly round-half-up(n · ratio) of them true.

    The lowest scores go first; equal scores in the order of their positions. ``scope`` is ``"global"``
    (n counts all layers) or ``"layer"`` (each layer by itself). Every layer keeps at least ``floor``
    units; what the floor saves in one layer is taken from the next lowest scores elsewhere.

    Raises:
        PruningError: nothing would go, or the floor forbids that much.
    """
    if scope == "layer":
        gone = [_lowest([score], prunable.round_half_up(len(score), ratio), floor, ratio)[0] for score in scores]
    else:
        k = prunable.round_half_up(sum(map(len, scores)), ratio)
        gone = _lowest(scores, k, floor, ratio)
    if not any(bool(lost.any()) for lost in gone):
        total = sum(map(len, scores))
        raise PruningError(f"ratio {ratio!r} of {total} units removes nothing", "raise the ratio")
    return gone


def _lowest(scores: list[torch.Tensor], k: int, floor: int, ratio: float) -> list[torch.Tensor]:
    sizes = [len(score) for score in scores]
    flat = torch.cat(scores)
    order = torch.sort(flat, stable=True).indices
    layers = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    if floor:
        order = order[~_saved(order, layers, len(sizes), floor)]
    if k > len(order):
        raise PruningError(
            f"ratio {ratio!r} asks for {k} of {len(flat)} units, but {floor} must stay in each of {len(sizes)} layers",
            f"ask for at most {math.floor(1e4 * len(order) / len(flat)) / 1e4}"
            if len(order)
            else "use scope = 'global'",
        )
    gone = torch.zeros(len(flat), dtype=torch.bool)
    gone[order[:k]] = True
    return list(torch.split(gone, sizes))


def _saved(order: torch.Tensor, layers: torch.Tensor, count: int, floor: int) -> torch.Tensor:
    """Places in ``order`` of each layer's ``floor`` highest scores."""
    saved = torch.zeros(len(order), dtype=torch.bool)
    for layer in range(count):
        places = (layers[order] == layer).nonzero()[:, 0]
        saved[places[-floor:]] = True
    return saved
