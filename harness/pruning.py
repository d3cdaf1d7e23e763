"""From a recipe and a ratio to a plan: score, select, train where the recipe says so, step by step.

Between steps the *masked network of full size* is trained, so that names and shapes stay, and what has gone is held
at zero. The plan then holds what training changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from pruneproof import digests, inference, recovery, schedule, surgery, training
from pruneproof.choice import Choice, Showing
from pruneproof.errors import PruningError, SubjectError
from pruneproof.grouped_units import GroupedUnits
from pruneproof.plan import PrunePlan
from pruneproof.recipe import Prune, words
from pruneproof.single_weights import SingleWeights
from pruneproof.subject import Subject

SINGLE = ("element", "n_of_m")
"""Granularities that zero weights; the others remove units physically."""


@dataclass(frozen=True, eq=False)
class Made:
    """A plan, and what was seen while it was made.

    Args:
        revived: weights that were gone and were not zero when training ended; ``None``: nothing was trained.
    """

    plan: PrunePlan
    revived: int | None


class Planner:
    """Makes the plans of one recipe; what does not depend on the ratio is found out once.

    Args:
        recipe: what to do.
        subject: the dense model, which is left as it was, with calibration and training data.
        seed: everything random is drawn from it.
        model: digest of the dense model, where it is known.

    Raises:
        PruningError: nothing can be pruned, or the recipe does not suit the network.
        SubjectError: the subject lacks what the recipe needs.
    """

    def __init__(self, recipe: Prune, subject: Subject, seed: int, model: str | None = None) -> None:
        self.recipe, self.subject, self.seed = recipe, subject, seed
        self.model = model or digests.of_model(subject.model)
        self.trainer()
        self.showing = Showing(recipe, subject, seed)
        self.units: SingleWeights | GroupedUnits
        if recipe.granularity in SINGLE:
            self.units = SingleWeights(recipe, subject.model, self.showing)
        else:
            traced, _ = next(inference.batches(subject.test, 2))
            self.units = GroupedUnits(recipe, subject.model, traced, self.showing)

    def plan(self, ratio: float) -> Made:
        """What the recipe removes at ``ratio``, a share in (0, 1) of what its ``denominator`` names.

        Raises:
            PruningError: not that much can go, or training went wrong.
            SubjectError: the subject's own functions went wrong.
        """
        run = _Run(self, ratio)
        return run.finished()

    def bare(self, choice: Choice, ratio: float) -> PrunePlan:
        """The plan of ``choice``, without what training changed."""
        return PrunePlan(
            recipe=words(self.recipe),
            ratio=ratio,
            seed=self.seed,
            model=self.model,
            removed=choice.removed,
            units=choice.units,
            achieved=choice.achieved,
            resolution=choice.resolution,
            layers=choice.layers,
            calibration=self.showing.digest,
            masks=choice.masks,
            removals=choice.removals,
            blocks=choice.blocks,
            settings=choice.settings,
            left_whole=tuple(self.units.whole.items()),
        )

    def trainer(self) -> Callable[..., None] | None:
        """A fine-tuning function for one plan: what it keeps between steps is not handed on to another.

        Raises:
            SubjectError: the subject lacks what it needs.
        """
        if not self.recipe.fine_tune:
            return None
        if self.recipe.rewind == "initial" and not isinstance(self.subject.initial, Mapping):
            raise SubjectError(
                "rewind = 'initial', and the subject has no initial weights", "give Subject(initial=…), a state dict"
            )
        if self.recipe.recovery is not None:
            if self.subject.train is None:
                raise SubjectError("recovery, and the subject has no training data", "give Subject(train=Data(…))")
            return recovery.function(self.recipe.recovery, self.subject, surgery.copied(self.subject.model))
        if self.subject.fine_tune is None:
            raise SubjectError(
                "fine_tune = true, and the subject has no fine-tuning function",
                "give Subject(fine_tune=…), or Subject(train=Data(…)) and a recovery table",
            )
        return self.subject.fine_tune


class _Run:
    """One plan in the making."""

    def __init__(self, planner: Planner, ratio: float) -> None:
        self.planner, self.recipe, self.ratio = planner, planner.recipe, ratio
        self.fine_tune = planner.trainer()
        changes = self.fine_tune is not None or planner.showing.compensates
        dense = planner.subject.model
        private = surgery.copied if changes else surgery.sharing
        self.plain = private(dense).eval() if changes or planner.showing.looks_at_data else dense
        """Full size, without hooks: the dense network's weights, or what training has made of them."""
        self.choice: Choice | None = None
        self.revived: int | None = None
        self.movement: dict[str, torch.Tensor] | None = None

    def finished(self) -> Made:
        recipe = self.recipe
        steps = schedule.ratios(self.ratio, recipe.schedule, recipe.steps)
        if recipe.criterion == "movement":
            self._train(0, recipe.steps)
        for step, ratio in enumerate(steps, start=1):
            self.choice = self.planner.units.choose(self._so_far(), ratio, self.choice, self.movement)
            if self.choice.updated:
                surgery.overwrite(self.plain, self.choice.updated)
            if self.fine_tune is not None:
                self._train(step, recipe.steps)
        assert self.choice is not None
        bare = self.planner.bare(self.choice, self.ratio)
        return Made(replace(bare, weights=self._changed(bare)), self.revived)

    def _so_far(self) -> torch.nn.Module:
        """The network as pruned up to now, of full size: what the criterion looks at."""
        if self.choice is None:
            return self.plain
        return surgery.masked(self.planner.bare(self.choice, self.ratio), self.plain)

    def _train(self, step: int, steps: int) -> None:
        """Trains the masked network; ``step`` 0 is before anything went."""
        assert self.fine_tune is not None
        subject = self.planner.subject
        work, masks = surgery.copied(self.plain), {}
        if self.choice is not None:
            bare = self.planner.bare(self.choice, self.ratio)
            work = surgery.masked(bare, self.plain)
            masks = {**bare.masks, **surgery.reading_masks(bare, self.plain)}
        if self.recipe.rewind is not None and step:
            values = subject.initial if self.recipe.rewind == "initial" else surgery.named_tensors(subject.model)
            training.rewind(work, values or {}, masks)
        records = self.recipe.criterion == "movement"
        trained = training.train(
            work, masks, self.fine_tune, step=step, steps=steps, seed=self._seed(step), movement=records
        )
        self.revived = (self.revived or 0) + trained.revived
        if records:
            before = self.movement or {}
            self.movement = {name: moved + before.get(name, 0) for name, moved in trained.movement.items()}
        surgery.overwrite(self.plain, surgery.named_tensors(work))

    def _seed(self, step: int) -> int:
        """Distinct for each step, whatever was drawn before."""
        return digests.of_text(f"{self.planner.seed}:{self.ratio!r}:{step}")

    def _changed(self, bare: PrunePlan) -> dict[str, torch.Tensor]:
        """Tensors of the pruned network that are not those of the dense one."""
        dense = self.planner.subject.model
        if self.plain is dense or (self.revived is None and not self.planner.showing.compensates):
            return {}
        untrained = surgery.named_tensors(surgery.shrunk(bare, dense))
        trained = surgery.named_tensors(surgery.shrunk(bare, self.plain))
        return {name: t.detach() for name, t in trained.items() if not torch.equal(t, untrained[name])}


def plan(recipe: Prune, ratio: float, subject: Subject, seed: int) -> PrunePlan:
    """What ``recipe`` removes from the subject's model at ``ratio``.

    Raises:
        PruningError, SubjectError: see :class:`Planner`.
    """
    made = Planner(recipe, subject, seed).plan(ratio)
    if made.revived:
        raise PruningError(
            f"self-check V5: {made.revived} weights that were gone are not zero after training",
            "train with an optimizer of torch.optim, and change weights through it alone",
        )
    return made.plan
