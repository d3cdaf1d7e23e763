"""Strands: what the channels of one layer reach, and how strands that hang together become groups of units.

Channels that meet at the same place of a tensor go together, and so do those that a grouped convolution or a group norm
counts by offset, of several layers where these are concatenated. Each set of channels that go together is a unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from pruneproof.coupling import Alike, Part
from pruneproof.units import Group, Role, Slices

Place = tuple[str, int, Role]
"""A tensor, a dimension of it, and what it is to the units."""
Held = tuple[torch.Tensor, torch.Tensor]
"""Positions, and the channel of a strand, numbered through all strands, that each belongs to."""


@dataclass(eq=False)
class Strand:
    """The channels of one layer, and all that they reach; or why it must stay whole.

    Args:
        entries: a part, its positions before ``modulo``, and the channel of the layer that each belongs to.
        produced: the producing weights among them, in order.
    """

    name: str
    size: int = 0
    reason: str = ""
    entries: list[tuple[Part, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    alike: list[tuple[Alike, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    produced: dict[str, None] = field(default_factory=dict)


def even(strands: Sequence[Strand]) -> tuple[list[Strand], dict[str, str]]:
    """Without the strands that bring some, but not all, of the channels that have to go at once; their layers, each
    with the reason."""
    stay, refused = list(strands), dict[str, str]()
    while uneven := {alike for alike, (positions, _) in _counted(stay).items() if not _complete(alike, positions)}:
        for strand in list(stay):
            hit = next((alike.layer for alike, _, _ in strand.alike if alike in uneven), None)
            if hit is not None:
                reason = f"some of the channels that the groups of {hit} are made of cannot be removed"
                refused |= {weight.removesuffix(".weight"): reason for weight in strand.produced}
                stay.remove(strand)
    return stay, refused


def _starts(strands: Sequence[Strand]) -> list[int]:
    """The number of each strand's first channel, counted through all strands."""
    return [0, *accumulate(strand.size for strand in strands)][: len(strands)]


def _counted(strands: Sequence[Strand]) -> dict[Alike, Held]:
    """Per layer that counts its channels by groups: all that reaches it."""
    found: dict[Alike, list[Held]] = {}
    for strand, start in zip(strands, _starts(strands), strict=True):
        for alike, positions, channels in strand.alike:
            found.setdefault(alike, []).append((positions, channels + start))
    return {alike: _joined(held) for alike, held in found.items()}


def _placed(strands: Sequence[Strand]) -> dict[Place, Held]:
    """Per tensor and dimension: all that reaches it."""
    found: dict[Place, list[Held]] = {}
    for strand, start in zip(strands, _starts(strands), strict=True):
        for part, positions, channels in strand.entries:
            place = positions if part.modulo is None else positions % part.modulo
            found.setdefault((part.tensor, part.dim, part.role), []).append((place, channels + start))
    return {place: _joined(held) for place, held in found.items()}


def _joined(held: Sequence[Held]) -> Held:
    return torch.cat([positions for positions, _ in held]), torch.cat([channels for _, channels in held])


def _complete(alike: Alike, positions: torch.Tensor) -> bool:
    places = torch.unique(positions)
    if int(places[-1]) >= alike.channels:
        return False
    counts = torch.bincount(places % alike.period)
    return bool(((counts == 0) | (counts == alike.groups)).all())


class _Union:
    """Disjoint sets of integers; each is known by its least member."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def of(self, member: int) -> int:
        while self.parent[member] != member:
            self.parent[member] = self.parent[self.parent[member]]
            member = self.parent[member]
        return member

    def join(self, one: int, other: int) -> None:
        least, most = sorted((self.of(one), self.of(other)))
        self.parent[most] = least

    def labels(self) -> torch.Tensor:
        """``(size,)``: the set of each member."""
        return torch.tensor([self.of(member) for member in range(len(self.parent))], dtype=torch.int64)

    def join_equal(self, keys: torch.Tensor, members: torch.Tensor) -> None:
        """Joins members that share a key."""
        order = torch.argsort(keys, stable=True)
        keys, members = keys[order], members[order]
        again = (keys[1:] == keys[:-1]) & (members[1:] != members[:-1])
        for one, other in zip(members[:-1][again].tolist(), members[1:][again].tolist(), strict=True):
            self.join(one, other)


def merged(strands: Sequence[Strand]) -> list[Group]:
    """Groups, each of the strands that hang together, whose units are the sets of channels that go together."""
    placed = _placed(strands)
    sizes = torch.tensor([strand.size for strand in strands], dtype=torch.int64)
    together = _Union(int(sizes.sum()))
    for alike, (positions, channels) in _counted(strands).items():
        together.join_equal(positions % alike.period, channels)
    for positions, channels in placed.values():
        together.join_equal(positions, channels)
    unit_of = together.labels()  # of each channel
    strand_of = torch.repeat_interleave(torch.arange(len(strands)), sizes)
    joined = _Union(len(strands))
    joined.join_equal(unit_of, strand_of)
    first_strand = joined.labels()  # of each strand's group
    group_of = first_strand[strand_of]
    units = {first: torch.unique(unit_of[group_of == first]) for first in torch.unique(first_strand).tolist()}
    slices: dict[int, list[Slices]] = {first: [] for first in units}
    for (tensor, dim, role), (positions, channels) in placed.items():
        of_group = group_of[channels]
        for first in torch.unique(of_group).tolist():
            mine = of_group == first
            place, index = _first_of_each(positions[mine])
            unit = torch.searchsorted(units[first], unit_of[channels[mine][index]])
            slices[first].append(Slices(tensor, dim, role, place, unit))
    return [Group(strands[first].name, len(found), tuple(slices[first])) for first, found in units.items()]


def lopsided(group: Group) -> bool:
    """Whether units of ``group`` are made of different numbers of rows, so that no score compares them."""
    made = [torch.bincount(entry.units, minlength=group.size) for entry in group.slices if entry.role == "produces"]
    return any(int(counts.min()) != int(counts.max()) for counts in made)


def _first_of_each(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct values, ascending, and where each stands first."""
    order = torch.argsort(positions, stable=True)
    values = positions[order]
    new = torch.ones(len(values), dtype=torch.bool)
    new[1:] = values[1:] != values[:-1]
    return values[new], order[new]
