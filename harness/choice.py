"""A choice: what goes in one step of a recipe, and what the criterion has to be shown to make it."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import torch

from pruneproof import criteria, digests, inference, registry, signals
from pruneproof.criteria import Layer, Units
from pruneproof.errors import PruningError, SubjectError
from pruneproof.plan import Removal
from pruneproof.recipe import Prune
from pruneproof.signals import Signals
from pruneproof.subject import Data, Subject
from pruneproof.units import Group, Setting

Whole = dict[str, str]
"""Layers that stay whole, each with the reason."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What is gone after a step; the fields are those of :class:`pruneproof.plan.PrunePlan`.

    Args:
        gone: granularity ``channel``, ``head`` and ``block``: group → booleans, true where a unit goes.
        updated: full-size tensors that a weight-updating criterion changed.
    """

    removed: int
    units: int
    achieved: float
    layers: Mapping[str, tuple[int, int]]
    resolution: float | None = None
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    removals: tuple[Removal, ...] = ()
    blocks: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    gone: Mapping[str, torch.Tensor] = field(default_factory=dict)
    updated: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Showing:
    """A recipe's criterion, and the calibration examples that it is shown.

    Raises:
        PruningError: the criterion cannot rank units of this granularity.
        SubjectError: it needs calibration data, and the subject has none.
    """

    def __init__(self, recipe: Prune, subject: Subject, seed: int) -> None:
        self.recipe, self.subject, self.seed = recipe, subject, seed
        self.criterion: ModuleType = registry.member("pruneproof.criteria", recipe.criterion)
        self.needs = criteria.needs(self.criterion)
        self.compensates = hasattr(self.criterion, "compensate")
        self._can_rank()
        self.examples = self._calibration() if self.looks_at_data else None

    @property
    def looks_at_data(self) -> bool:
        """Whether calibration examples are needed; movement is seen while training, scales without data."""
        return self.compensates or bool(self.needs - {criteria.MOVEMENT, criteria.SCALE})

    @property
    def digest(self) -> str | None:
        """SHA-256 of the examples."""
        return None if self.examples is None else digests.of_data(self.examples, self.subject.batch_size)

    def signals(
        self,
        model: torch.nn.Module,
        groups: Sequence[Group],
        names: Sequence[str],
        movement: Mapping[str, torch.Tensor] | None,
    ) -> Signals:
        """What the criterion is shown of ``model``, a private copy."""
        found = Signals()
        if self.examples is not None and not self.compensates:
            loss = signals.loss_of(self.subject)
            size = self.subject.batch_size
            found = signals.collect(model, self.needs, self.examples, groups, names, loss, size)
        return found if movement is None else replace(found, movement=movement)

    def elements(self, layer: Layer) -> torch.Tensor:
        """Scores of single weights, finite."""
        return sound(layer.name, layer.weight, self.criterion.elements(layer))

    def units(self, group: Units) -> torch.Tensor:
        """Scores of units, finite."""
        return sound(group.name, group.weights, self.criterion.units(group))

    def _can_rank(self) -> None:
        recipe, single = self.recipe, self.recipe.granularity in ("element", "n_of_m")
        able = hasattr(self.criterion, "elements" if single else "units") or (single and self.compensates)
        allowed = getattr(self.criterion, "GRANULARITIES", None)
        if not able or (allowed is not None and recipe.granularity not in allowed):
            what = {"element": "single weights", "n_of_m": "single weights"}.get(recipe.granularity, "units")
            reason = f"criterion '{recipe.criterion}' cannot rank {what} of granularity '{recipe.granularity}'"
            raise PruningError(reason, f"use {' or '.join(_granularities(self.criterion))}, or another criterion")
        if self.compensates and recipe.granularity == "element" and recipe.scope != "layer":
            why = f"criterion '{recipe.criterion}' works layer by layer, not in scope '{recipe.scope}'"
            raise PruningError(why, "use scope = 'layer'")

    def _calibration(self) -> Data:
        if self.subject.calibration is None:
            raise SubjectError(
                f"criterion '{self.recipe.criterion}' looks at calibration examples, and the subject has none",
                "give Subject(calibration=Data(…)), disjoint from the test set",
            )
        return inference.head(self.subject.calibration, self.recipe.samples)


def _granularities(criterion: ModuleType) -> tuple[str, ...]:
    allowed: tuple[str, ...] | None = getattr(criterion, "GRANULARITIES", None)
    if allowed is None:
        single = hasattr(criterion, "elements")
        allowed = ("element", "n_of_m") if single else ("channel", "head", "block")
    return tuple(f"granularity = '{name}'" for name in allowed)


def sound(name: str, weights: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """``scores``, on the CPU.

    Raises:
        PruningError: some of them, or of the weights that they are of, are NaN or infinite.
    """
    found = scores.detach().cpu()
    if not torch.isfinite(found).all():
        if not torch.isfinite(weights).all():
            raise PruningError(f"{name} holds NaN or infinity", "mend the dense model first")
        raise PruningError(f"{name}: the criterion gives NaN or infinity", "mend the dense model first")
    return found


def excluded(patterns: Iterable[str], layers: Mapping[str, Iterable[str]], model: torch.nn.Module) -> Whole:
    """Layers that ``patterns`` name, by the layer itself or by one of the names that go with it.

    A pattern may name what stays whole anyway, such as the last layer.

    Raises:
        PruningError: a pattern matches nothing in the network.
    """
    found: Whole = {}
    others = [name for name, _ in (*model.named_modules(), *model.named_parameters())]
    for wanted in patterns:
        hits = [
            layer for layer, names in layers.items() if any(fnmatch.fnmatchcase(n, wanted) for n in (layer, *names))
        ]
        if not hits and not any(fnmatch.fnmatchcase(name, wanted) for name in others):
            known = ", ".join(list(layers)[:20])
            raise PruningError(f"exclude = '{wanted}' matches no layer", f"layers that could be pruned: {known}")
        found |= dict.fromkeys(hits, "excluded by the policy")
    return found


def floor(size: int, share: float, least: int) -> int:
    """Units that a layer of ``size`` keeps."""
    return min(size, max(least, math.ceil(round(share * size, 9))))
