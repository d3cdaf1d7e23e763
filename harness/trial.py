"""A trial removal: whether a network without some units of its groups computes what it does with them masked.

A trace cannot see everything: a view with a hard-coded width, a mean over channels, a shuffle. Such a network fails
here, before anything is planned on it, and the groups at fault are found by halving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from pruneproof import inference, isolation, surgery
from pruneproof.plan import PrunePlan, Removal
from pruneproof.subject import Inputs
from pruneproof.units import Group

TOLERANCE = 1e-5
"""Largest relative difference, as self-check V3 allows the finished variant."""
PART = 3
"""One unit in so many goes."""


def refused(groups: Sequence[Group], model: torch.nn.Module, inputs: Inputs) -> dict[str, str]:
    """Groups of ``model`` whose units cannot be removed, each with the reason.

    Args:
        inputs: one batch.
    """
    found: dict[str, str] = {}
    rest = list(groups)
    while why := _difference(rest, model, inputs):
        found |= _at_fault(rest, why, model, inputs)
        rest = [group for group in rest if group.name not in found]
    return found


def shapes(groups: Sequence[Group], model: torch.nn.Module, inputs: Inputs) -> list[torch.Size] | None:
    """Shapes of the outputs of ``model`` without some of the units of ``groups``; ``None`` if it does not run."""
    try:
        return [output.shape for output in _outputs(surgery.shrunk(_plan(groups), model), inputs)]
    except Exception:
        return None


def _plan(groups: Sequence[Group]) -> PrunePlan:
    """A scattered part of each group's units: what goes at regular distances can hide what belongs together."""
    generator = torch.Generator().manual_seed(0)
    lost: dict[str, torch.Tensor] = {}
    for group in groups:
        lost[group.name] = torch.zeros(group.size, dtype=torch.bool)
        if group.size > 1:
            lost[group.name][torch.randperm(group.size, generator=generator)[: max(group.size // PART, 1)]] = True
    settings = tuple(
        entry for group in groups for entry in group.settings((~lost[group.name]).nonzero()[:, 0].tolist())
    )
    return PrunePlan({}, 0.5, 0, "", 0, 0, 0.0, removals=tuple(_removals(groups, lost)), settings=settings)


def _at_fault(groups: Sequence[Group], why: str, model: torch.nn.Module, inputs: Inputs) -> dict[str, str]:
    if len(groups) == 1:
        return {groups[0].name: why}
    middle = len(groups) // 2
    found: dict[str, str] = {}
    for half in (groups[:middle], groups[middle:]):
        if reason := _difference(half, model, inputs):
            found |= _at_fault(half, reason, model, inputs)
    return found or {group.name: why for group in groups}  # each half by itself is right: it is how they meet


def _difference(groups: Sequence[Group], model: torch.nn.Module, inputs: Inputs) -> str:
    """What is wrong with the network without some of the units of ``groups``; empty if nothing is."""
    trial = _plan(groups)
    if not trial.removals:
        return ""
    with isolation.untouched_globals(torch.get_num_threads(), 0):
        try:
            want = _outputs(surgery.masked(trial, model), inputs)
        except Exception as error:
            return f"its channels cannot be masked ({type(error).__name__}: {error})"
    with isolation.untouched_globals(torch.get_num_threads(), 0):
        try:
            have = _outputs(surgery.shrunk(trial, model), inputs)
        except Exception as error:
            return f"the network does not run without some of its channels ({type(error).__name__}: {error})"
    if len(want) == len(have) and all(_same(*pair, _tolerance(model)) for pair in zip(want, have, strict=True)):
        return ""
    return "without some of its channels the network does not compute what it does with them masked"


def _removals(groups: Sequence[Group], lost: Mapping[str, torch.Tensor]) -> Iterator[Removal]:
    merged: dict[tuple[str, int, Any], list[torch.Tensor]] = {}
    for group in groups:
        for entry in group.slices:
            picked = entry.positions[lost[group.name][entry.units]]
            if len(picked):
                merged.setdefault((entry.tensor, entry.dim, entry.role), []).append(picked)
    for (tensor, dim, role), picked_parts in merged.items():
        yield Removal(tensor, dim, role, torch.unique(torch.cat(picked_parts)))


def _outputs(model: torch.nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(tensors(inference.call(model.eval(), inference.cut(inputs, slice(None)))))


def tensors(output: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a model's output."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping | tuple | list):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from tensors(part)
    elif hasattr(output, "logits"):
        yield from tensors(output.logits)


def _same(want: torch.Tensor, have: torch.Tensor, tolerance: float) -> bool:
    if want.shape != have.shape:
        return False
    scale = float(torch.nan_to_num(want, 0, 0, 0).abs().max()) if want.numel() else 0.0
    return torch.allclose(have.double(), want.double(), rtol=0, atol=tolerance * (scale or 1.0), equal_nan=True)


def _tolerance(model: torch.nn.Module) -> float:
    narrowest = [torch.finfo(tensor.dtype).eps for tensor in model.parameters() if tensor.is_floating_point()]
    return max([TOLERANCE, *(32 * eps for eps in narrowest if eps > 1e-6)])
