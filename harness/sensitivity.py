"""Sensitivity: what it costs to prune each layer alone.

Measured on the calibration examples, not on the test set, since people choose by it what to leave whole. (Li et al.
2017, arXiv 1608.08710, section 3.2, plot the same curves.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from pruneproof import inference, outcomes, surgery
from pruneproof.errors import PruneProofError, PruningError, SubjectError
from pruneproof.evidence import SensitivityRow
from pruneproof.grouped_units import GroupedUnits
from pruneproof.outcomes import Floats
from pruneproof.planners import Planners
from pruneproof.policy import Sensitivity
from pruneproof.pruning import Planner
from pruneproof.recipe import Prune
from pruneproof.single_weights import SingleWeights
from pruneproof.subject import Data
from pruneproof.units import Group


def table(asked: Sensitivity, recipe: Prune, planners: Planners, threshold: float | None) -> list[SensitivityRow]:
    """One row a layer and ratio, and one of the dense network; in the order of the layers.

    Of blocks, each is left out alone, and the ratio is its share of the blocks. Of an N:M pattern there is one ratio.

    Args:
        threshold: operating point of a binary classifier.

    Raises:
        SubjectError: the subject has no calibration data.
        PruningError: nothing can be pruned.
    """
    subject = planners.loaded.subject
    if subject.calibration is None:
        raise SubjectError(
            "sensitivity is measured on calibration data, and the subject has none",
            "give Subject(calibration=Data(…)), or leave [sensitivity] out",
        )
    shots = recipe.model_copy(
        update={"schedule": "one_shot", "steps": 1, "fine_tune": False, "rewind": None, "recovery": None,
                "scope": "row" if recipe.scope == "row" else "layer", "layer_floor": 0.0, "denominator": "units"}
    )  # fmt: skip
    planner = planners.of(shots)
    measured = _Measured(planners, subject.calibration, threshold)
    rows = [measured.row(recipe, None, None, subject.model)]
    for layer, ratio, part in _alone(planner, asked.ratios):
        try:
            model = _pruned(planner, part, ratio)
        except PruningError as error:  # so few units that this ratio is none of them, or all
            rows.append(measured.empty(recipe, layer, ratio, error.cause))
        else:
            rows.append(measured.row(recipe, layer, ratio, model))
    if all(row.value is None for row in rows[1:]):
        why = next((row.note for row in rows[1:]), "there is no layer to prune")
        raise PruningError(f"no layer could be pruned alone: {why}", "name a recipe that fits the network")
    return rows


def _alone(planner: Planner, ratios: tuple[float, ...]) -> Iterator[tuple[str, float, SingleWeights | GroupedUnits]]:
    units, recipe = planner.units, planner.recipe
    if recipe.granularity == "n_of_m":
        ratios = recipe.ratios
    if isinstance(units, SingleWeights):
        for name in list(units.names):
            yield from ((name, ratio, units.only(name)) for ratio in ratios)
        return
    for group in list(units.groups):
        if group.blocks:
            for position, path in enumerate(group.blocks):
                yield path, 1 / group.size, units.only(_single(group, position))
        else:
            yield from ((group.name, ratio, units.only(group)) for ratio in ratios)


def _single(group: Group, position: int) -> Group:
    """The one block at ``position``; the others always stay."""
    others = [place for place in range(group.size) if place != position]
    return replace(
        group,
        size=1,
        blocks=(group.blocks[position],),
        settings=lambda kept: group.settings(sorted([*others, *([position] if kept else [])])),
    )


def _pruned(planner: Planner, part: SingleWeights | GroupedUnits, ratio: float) -> torch.nn.Module:
    dense = planner.subject.model
    if isinstance(part, GroupedUnits) and part.groups[0].blocks:
        choice = part.without_all()
    else:
        work = surgery.copied(dense) if planner.showing.compensates else dense
        choice = part.choose(work, ratio, None)
    bare = planner.bare(choice, ratio)
    model = surgery.shrunk(bare, dense)
    surgery.overwrite(model, choice.updated)
    return model


class _Measured:
    """Accuracy, or mean absolute error, on the calibration examples."""

    def __init__(self, planners: Planners, examples: Data, threshold: float | None) -> None:
        self.subject, self.examples, self.threshold = planners.loaded.subject, examples, threshold
        self.facts = planners.loaded.examples.facts
        self.targets = inference.targets_of(examples, self.subject.batch_size)
        self.metric = "mae" if self.facts.task == "regression" else "accuracy"

    def row(self, recipe: Prune, layer: str | None, ratio: float | None, model: torch.nn.Module) -> SensitivityRow:
        try:
            outputs = inference.finite(
                inference.forward(model, self.examples, self.subject.batch_size), layer or "dense"
            )
            value = self._score(outputs)
            note = ""
        except PruneProofError as error:
            value, note = None, error.cause
        return SensitivityRow(
            recipe=recipe.name,
            layer=layer,
            ratio=ratio,
            metric=self.metric,
            value=value,
            n=len(self.targets),
            note=note,
        )

    def empty(self, recipe: Prune, layer: str, ratio: float, note: str) -> SensitivityRow:
        """A row without a value."""
        return SensitivityRow(
            recipe=recipe.name, layer=layer, ratio=ratio, metric=self.metric, value=None, n=len(self.targets), note=note
        )

    def _score(self, outputs: Floats) -> float:
        if self.facts.task == "regression":
            return float(np.mean(np.abs(outputs[:, 0] - self.targets)))
        said = outcomes.Predictions(outputs, self.facts, self.threshold)
        return float(np.mean(said.labels == self.targets))
