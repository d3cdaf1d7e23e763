"""Variants: the models under audit, each with what is known of it without any data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pruneproof import digests, imported, inference, loading, plan, profile, prunable, selfcheck, surgery
from pruneproof.checking import Loaded
from pruneproof.errors import PruningError
from pruneproof.evidence import SelfCheck, VariantRow
from pruneproof.planners import Planners
from pruneproof.policy import Policy, VariantSpec
from pruneproof.subject import Data, Inputs, Subject

SAMPLE = 32
"""Real examples that self-checks run on."""


@dataclass(frozen=True, eq=False)
class Built:
    """A variant and its row of the evidence; without a plan it is dense or imported."""

    model: torch.nn.Module
    row: VariantRow
    plan: plan.PrunePlan | None = None


def dense(loaded: Loaded) -> Built:
    """A copy of the subject's model: even a forward pass may change a model's state."""
    model = surgery.copied(loaded.subject.model)
    return Built(model, _row("dense", "dense", loaded, model, None))


def previous(loaded: Loaded, asked: Policy, source: str) -> Built:
    """The last accepted model, where the policy names one."""
    found = loading.model(source, loaded.subject, asked.folder)
    return Built(found, _row("previous", "previous", loaded, found, None))


def build(spec: VariantSpec, planners: Planners, asked: Policy) -> Built:
    """The variant that ``spec`` asks for; the self-checks that concern it alone are in its row.

    Raises:
        PruningError, SubjectError: it cannot be built.
    """
    loaded = planners.loaded
    if digests.of_model(loaded.subject.model) != loaded.model_digest:
        raise PruningError(
            "the dense model was changed since it was loaded, by the subject's own code",
            "let every function that loads a model build a model of its own",
        )
    return _imported(spec, loaded, asked) if spec.imported is not None else _pruned(spec, planners)


def _pruned(spec: VariantSpec, planners: Planners) -> Built:
    assert spec.recipe is not None
    assert spec.ratio is not None
    loaded, subject = planners.loaded, planners.loaded.subject
    made = planners.made(spec.recipe, spec.ratio)
    found = made.plan
    variant = surgery.apply(found, subject.model)
    checks = selfcheck.checks(
        made, surgery.copied(subject.model), variant, Data(_first(subject, SAMPLE)), planners.seed
    )
    row = _row(spec.name, "pruned", loaded, variant, surgery.touched(found, subject.model)).model_copy(
        update={
            "recipe": dict(found.recipe),
            "requested_ratio": spec.ratio,
            "achieved_ratio": found.achieved,
            "units_removed": found.removed,
            "units": found.units,
            "plan_sha256": plan.digest(found),
            "self_checks": checks,
            "left_whole": list(found.left_whole),
        }
    )
    return Built(variant, row, found)


def _imported(spec: VariantSpec, loaded: Loaded, asked: Policy) -> Built:
    found = imported.load(spec, loaded.subject, asked.folder)
    row = _row(spec.name, "imported", loaded, found, None)
    return Built(found, imported.described(spec, row, loaded.subject.model, found, _first(loaded.subject, 1)))


def verified(row: VariantRow) -> None:
    """Raises where a self-check failed.

    Raises:
        PruningError: naming the check and what it saw.
    """
    failed: list[SelfCheck] = [check for check in row.self_checks if check.decides and not check.passed]
    if failed:
        first = failed[0]
        raise PruningError(
            f"self-check {first.id} failed: {first.claim}: {first.detail}",
            "correct the claim, or import the model that was meant" if row.kind == "imported" else _remedy(first),
        )


REMEDIES = {
    "V5": "train with an optimizer of torch.optim, and change weights through it alone",
    "V6": "let the subject and its fine_tune draw from seeded generators, and depend on nothing that differs between "
    "processes",
    "V8": "raise the ratio, or leave the recipe out where there is nothing left to prune",
    "V9": "raise the recipe's graph_timeout_s, or use another granularity",
}


def _remedy(check: SelfCheck) -> str:
    usual = "this network is not the one that its plan claims; prune single weights, or exclude the layer"
    return REMEDIES.get(check.id, usual)


def _row(
    name: str,
    kind: Literal["dense", "pruned", "imported", "previous"],
    loaded: Loaded,
    model: torch.nn.Module,
    touched: tuple[set[str], set[str]] | None,
) -> VariantRow:
    total, nonzero = profile.parameters(model)
    subject = loaded.subject
    return VariantRow(
        name=name,
        kind=kind,
        sparsity=prunable.sparsity(subject.model, model, touched),
        parameters=total,
        nonzero_parameters=nonzero,
        macs=profile.macs(model, _first(subject, 1)),
        bytes=len(profile.serialised(model)),
        model_sha256=digests.of_model(model),
    )


def _first(subject: Subject, n: int) -> Inputs:
    inputs, _ = next(inference.batches(subject.test, n))
    return inputs
