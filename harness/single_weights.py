"""Single weights as units: granularity ``element`` and ``n_of_m``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from fractions import Fraction

import torch

from pruneproof import compensating, counting, prunable, selection, signals, surgery
from pruneproof.choice import Choice, Showing, Whole, excluded, floor
from pruneproof.errors import PruningError
from pruneproof.recipe import Prune

Masks = dict[str, torch.Tensor]


class SingleWeights:
    """The weights that a recipe may zero.

    Args:
        model: the dense network.

    Raises:
        PruningError: there are none.
    """

    def __init__(self, recipe: Prune, model: torch.nn.Module, showing: Showing) -> None:
        self.recipe, self.showing = recipe, showing
        self.shapes = counting.Shapes(model)
        weights = prunable.weights(model)
        self.whole: Whole = dict(prunable.out_of_reach(model))
        names = surgery.aliases(model)
        self.whole |= excluded(recipe.exclude, {n: _layers(names[id(w)]) for n, w in weights.items()}, model)
        self.names = [name for name in weights if name not in self.whole]
        self.reduction = {name: prunable.reduction_dim(model, name) for name in self.names}
        if recipe.granularity == "n_of_m":
            self._leave_unfitting(weights)
        if not self.names:
            what = "no linear, convolutional, recurrent or attention weights to prune"
            raise PruningError(f"{what}: {told(self.whole)}", "audit another model, or by another recipe")
        self._first_scores: Masks | None = None

    def _leave_unfitting(self, weights: Mapping[str, torch.Tensor]) -> None:
        of_m = self.recipe.of_m or 0
        for name in list(self.names):
            length = weights[name].shape[self.reduction[name]]
            if length % of_m:
                self.whole[name] = f"its {length} inputs are no multiple of {of_m}"
                self.names.remove(name)

    def only(self, name: str) -> SingleWeights:
        """The same, with the weights of one layer."""
        if self._first_scores is not None and name in self._first_scores:
            scores = {name: self._first_scores[name]}
        else:
            scores = None
        one = copy.copy(self)
        one.names, one.whole, one._first_scores = [name], dict(self.whole), scores
        return one

    def choose(
        self,
        model: torch.nn.Module,
        ratio: float,
        before: Choice | None,
        movement: Mapping[str, torch.Tensor] | None = None,
    ) -> Choice:
        """What is gone at ``ratio``, scored on ``model``; what went ``before`` stays gone."""
        if self.showing.compensates:
            return self._compensated(model, ratio, before)
        first = before is None and movement is None
        if not first or self._first_scores is None:
            scores = self._scores(model, movement)
            if first:
                self._first_scores = scores
        else:
            scores = self._first_scores
        if before is not None:
            scores = {name: score.masked_fill(~before.masks[name], -torch.inf) for name, score in scores.items()}
        return self._choice(self._masks(scores, ratio))

    def _scores(self, model: torch.nn.Module, movement: Mapping[str, torch.Tensor] | None) -> Masks:
        shown = self.showing.signals(model, (), self.names, movement)
        self._leave_unseen(shown.unseen)
        tensors = dict(model.named_parameters(remove_duplicate=False))
        return {
            name: self.showing.elements(signals.layer_of(name, tensors[name].detach(), shown, self.showing.seed))
            for name in self.names
        }

    def _leave_unseen(self, unseen: Mapping[str, str]) -> None:
        for name in [name for name in self.names if name in unseen]:
            self.whole[name] = unseen[name]
            self.names.remove(name)
        if not self.names:
            why = f"criterion '{self.recipe.criterion}' sees none of the weights: {told(self.whole)}"
            raise PruningError(why, "use criterion = 'magnitude'")

    def _masks(self, scores: Masks, ratio: float) -> Masks:
        recipe = self.recipe
        if recipe.granularity == "n_of_m":
            assert recipe.keep_n is not None
            assert recipe.of_m is not None
            gone = {n: self._in_pattern(n, s, recipe.keep_n, recipe.of_m) for n, s in scores.items()}
        elif recipe.scope == "row":
            gone = {name: self._in_rows(name, score, ratio) for name, score in scores.items()}
        else:
            flat = [score.reshape(-1) for score in scores.values()]
            floors = [floor(len(score), recipe.layer_floor, 0) for score in flat]
            chosen = selection.select(flat, ratio, recipe.scope, floors, self._count(ratio))
            gone = {name: lost.reshape(scores[name].shape) for name, lost in zip(scores, chosen, strict=True)}
        return {name: ~lost for name, lost in gone.items()}

    def _count(self, ratio: float) -> int | None:
        """How many weights go, where the ratio is a share of something other than the weights that may go."""
        if self.recipe.denominator == "units":
            return None
        k = prunable.round_half_up(self.shapes.total(self.recipe.denominator), ratio)
        available = self._available
        if k >= available:
            most = float(Fraction(available - 1, self.shapes.total(self.recipe.denominator)))
            raise PruningError(
                f"ratio {ratio!r} of {self.recipe.denominator} is {k} weights, and {available} may be pruned",
                f"ask for at most {int(most * 1e4) / 1e4}",
            )
        return k

    @property
    def _available(self) -> int:
        return sum(self.shapes.sizes[self.shapes.first_name[name]] for name in self.names)

    def _in_pattern(self, name: str, score: torch.Tensor, keep_n: int, of_m: int) -> torch.Tensor:
        dim = self.reduction[name]
        last = score.movedim(dim, -1)
        return selection.pattern(last, keep_n, of_m).movedim(-1, dim)

    def _in_rows(self, name: str, score: torch.Tensor, ratio: float) -> torch.Tensor:
        """A row is one output: all weights that are summed up into it."""
        by_output = score if self.reduction[name] else score.transpose(0, 1)
        rows = by_output.reshape(len(by_output), -1)
        least = floor(rows.shape[1], self.recipe.layer_floor, 0)
        if rows.shape[1] - prunable.round_half_up(rows.shape[1], ratio) < least:
            raise PruningError(f"{name}: ratio {ratio!r} leaves less than layer_floor", "lower the ratio")
        gone = selection.rows(rows, ratio, name).reshape(by_output.shape)
        return gone if self.reduction[name] else gone.transpose(0, 1)

    def _compensated(self, model: torch.nn.Module, ratio: float, before: Choice | None) -> Choice:
        assert self.showing.examples is not None
        counts = None
        if self.recipe.granularity == "element":
            sizes = [self.shapes.sizes[self.shapes.first_name[name]] for name in self.names]
            k = self._count(ratio)
            each = (
                selection.apportioned(sizes, k)
                if k is not None
                else [prunable.round_half_up(size, ratio) for size in sizes]
            )
            counts = dict(zip(self.names, each, strict=True))
        solved = compensating.solve(
            model, self.showing.criterion, self.names, self.reduction, self.recipe, counts,
            self.showing.examples, self.showing.subject.batch_size, {} if before is None else before.masks,
        )  # fmt: skip
        self._leave_unseen(solved.unseen)
        return self._choice(solved.masks, solved.weights)

    def _choice(self, masks: Masks, updated: Mapping[str, torch.Tensor] | None = None) -> Choice:
        removed = sum(int((~mask).sum()) for mask in masks.values())
        units = sum(mask.numel() for mask in masks.values())
        if removed == 0:
            raise PruningError(f"of {units} weights none goes", "raise the ratio")
        shares = self.shapes.shares(self.shapes.gone((), (), masks))
        return Choice(
            removed=removed,
            units=units,
            achieved=removed / units if self.recipe.denominator == "units" else shares[self.recipe.denominator],
            layers={name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()},
            masks=masks,
            updated=updated or {},
        )


def _layers(names: list[str]) -> tuple[str, ...]:
    """Every name of a tensor, and the layers that it is of."""
    return (*names, *(name.rpartition(".")[0] for name in names))


def told(whole: Mapping[str, str]) -> str:
    """Layers and reasons in one line."""
    return "; ".join(f"{layer}: {reason}" for layer, reason in whole.items()) or "no such layers"
