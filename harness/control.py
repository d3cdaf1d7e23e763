"""V10: the random control, the same recipe with random scores.

A criterion that does no better than chance has not found what matters. In LLM-Pruner's own table ranking by L2 gives
a perplexity thirty times that of random pruning.
"""

from __future__ import annotations

import numpy as np
import torch

from pruneproof import inference, surgery
from pruneproof.errors import PruneProofError
from pruneproof.evidence import SelfCheck
from pruneproof.outcomes import Examples, Floats, Predictions
from pruneproof.planners import Planners
from pruneproof.policy import VariantSpec

CLAIM = "it does better than random pruning at the same ratio (reported only)"


def check(spec: VariantSpec, planners: Planners, examples: Examples, outputs: Floats) -> SelfCheck:
    """V10 of a pruned variant with these ``outputs`` ``(n, width)`` on the test set; never decides anything."""
    assert spec.recipe is not None
    assert spec.ratio is not None
    own = _score(outputs, examples)
    name = "mean absolute error" if examples.facts.task == "regression" else "accuracy"
    try:
        model = control(spec, planners)
        subject = planners.loaded.subject
        other = _score(inference.forward(model, subject.test, subject.batch_size), examples)
    except PruneProofError as error:
        return failed(error.cause)
    better = own < other if examples.facts.task == "regression" else own > other
    detail = f"{name} {own:.4f}, of the random control {other:.4f}"
    return SelfCheck(id="V10", claim=CLAIM, passed=bool(better), detail=detail, decides=False)


def failed(cause: str) -> SelfCheck:
    """V10 where there is no control to compare with."""
    detail = f"the control could not be measured: {cause}"
    return SelfCheck(id="V10", claim=CLAIM, passed=False, detail=detail, decides=False)


def control(spec: VariantSpec, planners: Planners) -> torch.nn.Module:
    """The variant's random control.

    Raises:
        PruningError, SubjectError: it cannot be built.
    """
    assert spec.recipe is not None
    assert spec.ratio is not None
    recipe = spec.recipe.model_copy(update={"criterion": "random"})
    made = planners.made(recipe, spec.ratio)
    return surgery.shrunk(made.plan, planners.loaded.subject.model)


def _score(outputs: Floats, examples: Examples) -> float:
    if examples.facts.task == "regression":
        return float(np.mean(np.abs(outputs[:, 0] - examples.targets)))
    said = Predictions(outputs, examples.facts, examples.threshold)
    return float(np.mean(said.labels == examples.targets))
