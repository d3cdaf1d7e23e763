"""Criteria that change the weights that stay, layer by layer in the order of the forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch

from pruneproof import observations, selection
from pruneproof.recipe import Prune
from pruneproof.subject import Data


@dataclass(frozen=True, eq=False)
class Solved:
    """Masks (true where a weight stays) and new weights by parameter name; and the weights without inputs to see."""

    masks: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    unseen: dict[str, str]


def solve(
    model: torch.nn.Module,
    criterion: ModuleType,
    names: Sequence[str],
    reduction: Mapping[str, int],
    recipe: Prune,
    counts: Mapping[str, int] | None,
    examples: Data,
    batch_size: int,
    before: Mapping[str, torch.Tensor],
) -> Solved:
    """Prunes ``model``, a private copy, in place: each layer sees the outputs of those pruned before it.

    Args:
        reduction: parameter → the dimension of its input features.
        counts: parameter → how many weights go; ``None`` for an N:M pattern.
        before: masks of an earlier step; what they leave out stays out.
    """
    unseen = observations.unseen_inputs(model, names, examples)
    order = observations.call_order(model, [name for name in names if name not in unseen], examples)
    unseen |= {name: observations.NOT_REACHED for name in names if name not in order and name not in unseen}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = Solved({}, {}, unseen)
    for name in order:
        weight, dim = parameters[name], reduction[name]
        hessian = observations.hessian(model, name.rpartition(".")[0], examples, batch_size)
        gone = ~before[name] if name in before else torch.zeros(weight.shape, dtype=torch.bool)
        groups = len(hessian)
        parts, lost = _matrices(weight.detach(), dim, groups), _matrices(gone, dim, groups)
        asked: list[dict[str, int | None]] = [{"keep_n": recipe.keep_n, "of_m": recipe.of_m}] * groups
        if counts is not None:
            asked = [{"k": k} for k in _spread(counts[name], lost)]
        columns = _columns(weight, dim, pattern=counts is None)
        back = torch.argsort(columns)
        pairs = [
            criterion.compensate(part[:, columns].float(), h[columns][:, columns], gone=out[:, columns], **options)
            for part, out, h, options in zip(parts, lost, hessian, asked, strict=True)
        ]
        found.masks[name] = _tensor([mask[:, back] for mask, _ in pairs], weight, dim)
        found.weights[name] = _tensor([new[:, back] for _, new in pairs], weight, dim).to(weight.dtype)
        with torch.no_grad():
            weight.copy_(found.weights[name])
    return found


def _spread(k: int, gone: Sequence[torch.Tensor]) -> list[int]:
    """``k`` over the groups of a convolution: what goes now in proportion to what each group still has."""
    already = [int(part.sum()) for part in gone]
    now = selection.apportioned(
        [part.numel() - lost for part, lost in zip(gone, already, strict=True)], k - sum(already)
    )
    return [lost + more for lost, more in zip(already, now, strict=True)]


def _matrices(weight: torch.Tensor, dim: int, groups: int) -> list[torch.Tensor]:
    """``(outputs, inputs)`` for each group of a convolution; one for a linear layer."""
    rows = weight if dim else weight.transpose(0, 1)
    flat = rows.reshape(len(rows), -1)
    return list(flat.chunk(groups, 0))


def _columns(weight: torch.Tensor, dim: int, pattern: bool) -> torch.Tensor:
    """The order in which columns are pruned: for a pattern, input channels side by side at each kernel position."""
    inputs = weight.shape[dim]
    size = weight.numel() // len(weight) if dim else inputs
    order = torch.arange(size)
    return order.reshape(inputs, -1).transpose(0, 1).reshape(-1) if pattern else order


def _tensor(parts: Sequence[torch.Tensor], weight: torch.Tensor, dim: int) -> torch.Tensor:
    rows = torch.cat(list(parts), 0)
    return rows.reshape(weight.shape) if dim else rows.transpose(0, 1).reshape(weight.shape).contiguous()
