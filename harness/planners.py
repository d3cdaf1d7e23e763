"""The planners of an audit: one a recipe, so that its ratios share what they can."""

from __future__ import annotations

from pruneproof.checking import Loaded
from pruneproof.policy import Policy
from pruneproof.pruning import Made, Planner
from pruneproof.recipe import Prune


class Planners:
    """Makes the plans of an audit in one process.

    Args:
        loaded: the subject.
        asked: the policy, whose seed everything random is drawn from.
    """

    def __init__(self, loaded: Loaded, asked: Policy) -> None:
        self.loaded, self.seed = loaded, asked.audit.seed
        self._planners: dict[str, Planner] = {}

    def of(self, recipe: Prune) -> Planner:
        """The planner of ``recipe``.

        Raises:
            PruningError, SubjectError: see :class:`pruneproof.pruning.Planner`.
        """
        key = recipe.model_dump_json(exclude={"name", "ratios"})
        if key not in self._planners:
            self._planners[key] = Planner(recipe, self.loaded.subject, self.seed, self.loaded.model_digest)
        return self._planners[key]

    def made(self, recipe: Prune, ratio: float) -> Made:
        """The plan of ``recipe`` at ``ratio``.

        Raises:
            PruningError, SubjectError: see :meth:`pruneproof.pruning.Planner.plan`.
        """
        return self.of(recipe).plan(ratio)
