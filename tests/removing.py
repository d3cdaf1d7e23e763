"""Removals by hand of any units, blocks and settings included, and the two networks that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import removals
import torch

from pruneproof import surgery
from pruneproof.plan import PrunePlan
from pruneproof.units import Found, Setting


def removing(model: torch.nn.Module, found: Found, units: Mapping[str, Sequence[int]]) -> PrunePlan:
    """The plan that removes ``units``, group → positions, and nothing else."""
    settings: dict[tuple[str, str], Setting] = {}
    blocks: list[str] = []
    for group in found.groups:
        gone = set(units.get(group.name, ()))
        blocks += [path for unit, path in enumerate(group.blocks) if unit in gone]
        kept = [unit for unit in range(group.size) if unit not in gone]
        settings |= {(entry.module, entry.attribute): entry for entry in (group.settings(kept) if gone else ())}
    bare = removals.plan(found, model, {name: list(some) for name, some in units.items()})
    return replace(bare, blocks=tuple(blocks), settings=tuple(settings.values()))


def both(plan: PrunePlan, model: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The shrunk and the masked network, in eval mode."""
    return surgery.apply(plan, model).eval(), surgery.masked(plan, model).eval()
