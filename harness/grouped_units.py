"""Whole units: granularity ``channel``, ``head`` and ``block``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from pruneproof import counting, criteria, inference, profile, selection, signals, structure, surgery
from pruneproof.choice import Choice, Showing, Whole, excluded, floor
from pruneproof.errors import PruningError
from pruneproof.plan import PrunePlan, Removal
from pruneproof.recipe import Prune
from pruneproof.signals import Signals
from pruneproof.single_weights import told
from pruneproof.subject import Inputs
from pruneproof.units import Group, Kept, Setting

Lost = dict[str, torch.Tensor]
"""Group → booleans, true where a unit goes."""


class GroupedUnits:
    """The units that a recipe may remove.

    Args:
        model: the dense network.
        inputs: a batch of one or two examples to trace with.

    Raises:
        PruningError: there are none, or the recipe does not suit them.
    """

    def __init__(self, recipe: Prune, model: torch.nn.Module, inputs: Inputs, showing: Showing) -> None:
        self.recipe, self.showing, self.dense, self.inputs = recipe, showing, model, inputs
        self.shapes = counting.Shapes(model)
        found = structure.find(model, inputs, recipe.granularity, recipe.graph_timeout_s)
        self.whole: Whole = dict(found.whole)
        self.shared = [group.uniform for group in found.groups if group.uniform]
        self.groups = self._not_excluded(found.groups)
        self._first_scores: Lost | None = None
        if not self.groups:
            why = f"no {recipe.granularity}s can be removed: {told(self.whole)}"
            raise PruningError(why, "use granularity = 'element'")
        self._uniform_allowed()

    def _not_excluded(self, groups: Sequence[Group]) -> list[Group]:
        if not self.recipe.exclude:
            return list(groups)
        if self.recipe.granularity == "block":
            blocks = {path: () for group in groups for path in group.blocks}
            out = excluded(self.recipe.exclude, blocks, self.dense)
            self.whole |= out
            return [small for group in groups if (small := _without(group, out)).size]
        tensors, names = surgery.named_tensors(self.dense), surgery.aliases(self.dense)

        def known_as(group: Group) -> list[str]:
            made = [entry.tensor for entry in group.slices if entry.role != "reads"]
            return [name.rpartition(".")[0] for tensor in made for name in names[id(tensors[tensor])]]

        out = excluded(self.recipe.exclude, {group.name: known_as(group) for group in groups}, self.dense)
        for group in groups:
            if group.name in out:
                self.whole |= dict.fromkeys(_layers_of(group), out[group.name])
        return [group for group in groups if group.name not in out]

    def _uniform_allowed(self) -> None:
        several = sorted({group.uniform for group in self.groups if self.shared.count(group.uniform) > 1})
        if several and self.recipe.scope == "global":
            raise PruningError(
                f"{several[0]} is one number for all layers of this network, so that all have to shrink alike",
                "use scope = 'layer'",
            )
        sizes = {key: {group.size for group in self.groups if group.uniform == key} for key in several}
        self._all_of_each()
        uneven = [key for key, found in sizes.items() if len(found) > 1]
        if uneven:
            raise PruningError(f"{uneven[0]} stands for layers of different sizes", "use granularity = 'element'")

    def only(self, group: Group) -> GroupedUnits:
        """The same, with the units of one group."""
        known = self._first_scores is not None and len(self._first_scores.get(group.name, ())) == group.size
        one = copy.copy(self)
        one.groups, one.whole, one.shared = [group], dict(self.whole), []
        one._first_scores = {group.name: self._first_scores[group.name]} if known and self._first_scores else None
        return one

    def without_all(self) -> Choice:
        """Every unit gone, whatever a floor says."""
        return self._choice({group.name: torch.ones(group.size, dtype=torch.bool) for group in self.groups}, None)

    def _all_of_each(self) -> None:
        """One number stands for several layers: none of them may stay behind."""
        for key in sorted({group.uniform for group in self.groups if group.uniform}):
            left = sum(group.uniform == key for group in self.groups)
            if left < self.shared.count(key):
                raise PruningError(
                    f"{key} is one number for {self.shared.count(key)} layers of this network, and only {left} of them "
                    f"may be pruned: {told(self.whole)}",
                    "exclude all of them or none, or use another criterion",
                )

    def choose(
        self,
        model: torch.nn.Module,
        ratio: float,
        before: Choice | None,
        movement: Mapping[str, torch.Tensor] | None = None,
    ) -> Choice:
        """What is gone at ``ratio``, scored on ``model``; what went ``before`` stays gone."""
        first = before is None and movement is None
        if not first or self._first_scores is None:
            scores = self._scores(model, before, movement)
            if first:
                self._first_scores = scores
        else:
            scores = self._first_scores
        return self._choice(*self._lost(scores, ratio))

    def _scores(
        self, model: torch.nn.Module, before: Choice | None, movement: Mapping[str, torch.Tensor] | None
    ) -> Lost:
        shown = self.showing.signals(model, self.groups, (), movement)
        tensors = surgery.named_tensors(model)
        self._leave_unseen({**shown.unseen, **self._unscaled(tensors)})
        return {
            group.name: self._score(model, group, tensors, shown, None if before is None else ~before.gone[group.name])
            for group in self.groups
        }

    def _unscaled(self, tensors: Mapping[str, torch.Tensor]) -> Whole:
        if criteria.SCALE not in self.showing.needs:
            return {}
        reason = "no batch norm with a scale follows it"
        return {group.name: reason for group in self.groups if signals.scale_of(group, tensors) is None}

    def _leave_unseen(self, unseen: Mapping[str, str]) -> None:
        for group in [group for group in self.groups if group.name in unseen]:
            self.whole[group.name] = unseen[group.name]
            self.groups.remove(group)
        self._all_of_each()
        if not self.groups:
            why = f"criterion '{self.recipe.criterion}' sees none of the units: {told(self.whole)}"
            raise PruningError(why, "use criterion = 'magnitude'")

    def _score(
        self,
        model: torch.nn.Module,
        group: Group,
        tensors: Mapping[str, torch.Tensor],
        shown: Signals,
        alive: torch.Tensor | None,
    ) -> torch.Tensor:
        """Scores ``(size,)``; what is gone already has ``-inf``."""
        stay = torch.ones(group.size, dtype=torch.bool) if alive is None else alive
        if group.blocks:
            each = [
                self.showing.units(signals.block_units(model, group, index, shown, self.showing.seed))
                for index in stay.nonzero()[:, 0].tolist()
            ]
            found = torch.cat(each) if each else torch.empty(0)
        else:
            found = self.showing.units(signals.units_of(group, tensors, shown, self.showing.seed, alive))
        scores = torch.full((group.size,), -torch.inf, dtype=torch.promote_types(found.dtype, torch.float32))
        scores[stay] = found.to(scores.dtype)
        return scores

    def _lost(self, scores: Lost, ratio: float) -> tuple[Lost, float | None]:
        """The units that go; and, where the ratio is of something else than units, how finely it can be met."""
        recipe, flat = self.recipe, list(scores.values())
        floors = [floor(g.size, recipe.layer_floor, 0 if self._others_stay(g) else 1) for g in self.groups]
        if recipe.denominator == "units":
            return self._named(selection.select(flat, ratio, recipe.scope, floors)), None
        chosen, resolution = self._solved(flat, floors, ratio)
        return self._named(chosen), resolution

    def _others_stay(self, group: Group) -> bool:
        """Whether a container of blocks keeps some when all of the group are gone."""
        return bool(group.blocks) and len(self.dense.get_submodule(group.name)._modules) > group.size

    def _solved(self, flat: selection.Scores, floors: Sequence[int], ratio: float) -> tuple[selection.Gone, float]:
        """The units that go when the ratio is a share of parameters or MACs: by bisection on the real count."""
        uniform = [group.uniform for group in self.groups]
        steps = selection.order_of_removal(flat, self.recipe.scope, floors, uniform)
        sizes = [group.size for group in self.groups]

        def gone(count: int) -> selection.Gone:
            lost = torch.zeros(sum(sizes), dtype=torch.bool)
            lost[[unit for step in steps[:count] for unit in step]] = True
            return list(torch.split(lost, sizes))

        def share(count: int) -> float:
            return self._achieved(self._named(gone(count)))

        count = selection.solve(len(steps), share, ratio)
        if count == 0:
            raise PruningError(f"ratio {ratio!r} of {self.recipe.denominator} removes nothing", "raise the ratio")
        around = [share(near) for near in range(max(count - 1, 0), min(count + 1, len(steps)) + 1)]
        return gone(count), max(b - a for a, b in pairwise(around))

    def _named(self, gone: selection.Gone) -> Lost:
        return {group.name: lost for group, lost in zip(self.groups, gone, strict=True)}

    def _achieved(self, lost: Lost) -> float:
        """Share that is gone of what the recipe's denominator names."""
        if self.recipe.denominator == "units":
            return sum(int(part.sum()) for part in lost.values()) / sum(map(len, lost.values()))
        removals, blocks = self._slices(lost)
        if self.recipe.denominator == "macs":
            return self._macs_gone(removals, blocks, self._settings(lost, strict=False))
        return self.shapes.shares(self.shapes.gone(removals, blocks, {}))[self.recipe.denominator]

    def _macs_gone(
        self, removals: tuple[Removal, ...], blocks: tuple[str, ...], settings: tuple[Setting, ...]
    ) -> float:
        bare = PrunePlan({}, 0.5, 0, "", 0, 0, 0.0, removals=removals, blocks=blocks, settings=settings)
        small = surgery.shrunk(bare, self.dense)
        before, now = profile.macs(self.dense, self._one()), profile.macs(small, self._one())
        if not before or now is None:
            raise PruningError("the network's MACs cannot be counted", "use denominator = 'all_parameters'")
        return 1 - now / before

    def _one(self) -> Inputs:
        return inference.cut(self.inputs, slice(0, 1))

    def _slices(self, lost: Lost) -> tuple[tuple[Removal, ...], tuple[str, ...]]:
        some = [group for group in self.groups if bool(lost[group.name].any())]
        blocks = tuple(
            path for group in some for path, gone in zip(group.blocks, lost[group.name], strict=False) if gone
        )
        return tuple(_removals(some, lost)), blocks

    def _settings(self, lost: Lost, strict: bool = True) -> tuple[Setting, ...]:
        """What changes with the tensors; unless ``strict``, without what a configuration cannot express."""
        found: dict[tuple[str, str], Setting] = {}
        for group in self.groups:
            if bool(lost[group.name].any()):
                try:
                    settings = group.settings((~lost[group.name]).nonzero()[:, 0].tolist())
                except PruningError:
                    if strict:
                        raise
                    continue
                found |= {(entry.module, entry.attribute): entry for entry in settings}
        return tuple(found.values())

    def _choice(self, lost: Lost, resolution: float | None) -> Choice:
        removals, blocks = self._slices(lost)
        return Choice(
            removed=sum(int(part.sum()) for part in lost.values()),
            units=sum(map(len, lost.values())),
            achieved=self._achieved(lost),
            resolution=resolution,
            layers={name: (int((~part).sum()), len(part)) for name, part in lost.items()},
            removals=removals,
            blocks=blocks,
            settings=self._settings(lost),
            gone=lost,
        )


def _removals(groups: Sequence[Group], lost: Lost) -> list[Removal]:
    merged: dict[tuple[str, int], list[torch.Tensor]] = {}
    roles = {}
    for group in groups:
        for entry in group.slices:
            picked = entry.positions[lost[group.name][entry.units]]
            if len(picked):
                merged.setdefault((entry.tensor, entry.dim), []).append(picked)
                roles[entry.tensor, entry.dim] = entry.role
    return [
        Removal(tensor, dim, roles[tensor, dim], torch.unique(torch.cat(found)))
        for (tensor, dim), found in merged.items()
    ]


def _layers_of(group: Group) -> tuple[str, ...]:
    """Layers that produce the group's units."""
    return tuple(dict.fromkeys(entry.tensor.rpartition(".")[0] for entry in group.slices if entry.role == "produces"))


def _without(group: Group, out: Mapping[str, str]) -> Group:
    """The group without the blocks in ``out``, which always stay."""
    places = [position for position, path in enumerate(group.blocks) if path not in out]
    fixed = [position for position, path in enumerate(group.blocks) if path in out]
    original: Callable[[Kept], list[Setting]] = group.settings

    def settings(kept: Kept) -> list[Setting]:
        return original(sorted([*fixed, *(places[unit] for unit in kept)]))

    return replace(group, size=len(places), blocks=tuple(group.blocks[i] for i in places), settings=settings)
