"""Units: what can be removed from a network one by one, and everything that goes with each.

A *unit* is a channel, a neuron, an attention head (with its key and value) or a whole block. A *group* is a
set of units of one kind that hang together with every tensor slice that has to go when one of them goes::

    conv1.weight dim 0 ──▶ bn.weight dim 0 ──▶ conv2.weight dim 1
     produces               follows              reads

``produces``: rows that make the unit. ``follows``: what acts on it alone (bias, batch norm, depthwise weights,
a norm's scale). ``reads``: columns of the next weights. Groups are found by :mod:`pruneproof.structure`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Role = Literal["produces", "follows", "reads"]


@dataclass(frozen=True, eq=False)
class Slices:
    """Positions in one tensor along one dimension, and the unit that each belongs to.

    Args:
        tensor: name of a parameter or buffer.
        positions: ``(p,)`` int64; several of them may belong to one unit (a flattened channel, a head).
        units: ``(p,)`` int64, unit of each position. Positions that belong to no unit are left out and stay.
    """

    tensor: str
    dim: int
    role: Role
    positions: torch.Tensor
    units: torch.Tensor


@dataclass(frozen=True)
class Setting:
    """A number, or a list, that the network keeps beside its tensors and that has to stay true.

    Args:
        module: path of the module in the pruned network; ``""`` is the network itself.
        attribute: of that module; dotted for an attribute of an attribute (``config.num_attention_heads``).
        value: plain data, as JSON knows it.
    """

    module: str
    attribute: str
    value: Any


Kept = list[int]
"""Units that stay, ascending."""


def no_settings(kept: Kept) -> list[Setting]:
    """For groups whose layers derive every size from their tensors."""
    return []


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one.

    Args:
        name: the layer that produces them; of blocks, the container that holds them.
        size: how many there are.
        slices: what goes with each unit; empty for blocks.
        blocks: of granularity ``block``: the path of each unit's module, in order.
        settings: from the units that stay to the attributes that change with them.
        uniform: groups with the same text here must lose equally many units each, because one number of the
            network's configuration stands for all of them (``config.intermediate_size``).
    """

    name: str
    size: int
    slices: tuple[Slices, ...] = ()
    blocks: tuple[str, ...] = ()
    settings: Callable[[Kept], list[Setting]] = field(default=no_settings)
    uniform: str = ""


@dataclass(frozen=True)
class Found:
    """The groups of a network, and the layers that must stay whole, each with the reason."""

    groups: tuple[Group, ...]
    whole: tuple[tuple[str, str], ...] = ()
