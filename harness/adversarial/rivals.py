"""What should not do better than the attack, and what it has to break: searches, other variants, a control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pruneproof import registry
from pruneproof.adversarial import control_model
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.case import ODD, Case, class_count, share, without
from pruneproof.adversarial.checks import LEAST, Observation
from pruneproof.adversarial.embedding_ball import EmbeddingBall
from pruneproof.adversarial.rows import RowSpace
from pruneproof.adversarial.sequences import EditSpace
from pruneproof.adversarial.space import Space
from pruneproof.attacks import Attack

QUERIES = 300
"""Of the gradient-free search, an example: enough to see through saturated logits and rounded inputs."""
SEARCHES: Mapping[str, Mapping[str, Any]] = {
    "black_box": {"queries": QUERIES},
    "table_search": {"queries": QUERIES},
    "token_swap": {"search": "loss"},
}
"""Attacks without gradients, with the options that make them so."""
SHARE = 4
"""One in that many of the examples is searched where it stood,"""
SEARCHED = 20
"""and at least that many."""


def gradient_free(case: Case) -> Observation:
    """A search without gradients on some of what the attack leaves standing."""
    if not case.attack.gradients:
        return without("gradient_free", f"{case.attack.name} uses no gradients itself")
    stood = case.stood.nonzero().flatten()
    if case.arena.space.describe() == case.space.describe():
        place = [one.name for one in case.arena.victims].index(case.victim.name)
        stood = stood[case.arena.standing[place, case.rows[stood]]]
    some = case.drawn(stood, max(SEARCHED, len(case.rows) // SHARE), "gradient_free")

    def fallen(places: torch.Tensor) -> int:
        arena = case.afresh(case.rows[places])
        if len(places):
            _search(arena)
        return len(places) - len(arena.rows(arena.victims[0]))

    tested, fell = len(some), fallen(some)
    if share(fell, tested, len(stood), len(case.rows)) > ODD and tested < len(stood):
        fell += fallen(stood[~torch.isin(stood, some)])
        tested = len(stood)
    numbers = {"examples": len(case.rows), "stood": len(stood), "tested": tested, "fell": fell}
    return Observation("gradient_free", numbers)


def _search(arena: Arena) -> None:
    """The strongest search without gradients that there is for such inputs, within :data:`QUERIES` an example."""
    norm, kind = arena.space.describe().get("norm"), _kind(arena.space)
    for name, given in SEARCHES.items():
        if name in registry.names("pruneproof.attacks"):
            attack: Attack = registry.member("pruneproof.attacks", name).ATTACK
            if kind in attack.domains and norm in attack.norms:
                attack.run(arena, attack.options.model_validate(given))
                return
    _scatter(arena)


def _scatter(arena: Arena) -> None:
    """Random points of the space, where no search knows it."""
    victim = arena.victims[0]
    with arena.stage("random points", victim, len(arena.rows(victim))) as stage:
        for number in range(QUERIES):
            rows = arena.rows(victim)
            points = arena.space.start(arena.clean, arena.generator("scatter", number))
            arena.submit(victim, stage, rows, points[rows])


def _kind(space: Space) -> str | None:
    """The domain whose searches know the space; ``None``: none does."""
    if isinstance(space, Ball):
        return "box"
    if isinstance(space, EditSpace):
        return "tokens"
    return "table" if isinstance(space, RowSpace) else None


def transfer(case: Case, place: int) -> Observation:
    """Of the attack itself: what fell by a point of another variant after its own gradients were done."""
    arena, victim = case.arena, case.victim
    if len(arena.victims) == 1:
        return without("transfer", "there is no other variant to take points from")
    if not case.attack.gradients:
        return without("transfer", f"{case.attack.name} uses no gradients, so that there is no white box to compare")
    own = [number for number, stage in enumerate(arena.stages) if stage.victim == victim.name and stage.gradients]
    if not own:
        return without("transfer", "every example fell before the variant's own gradients were taken")
    at, by = arena.fell_at[place], arena.fell_by[place]
    others = [one for one in range(len(arena.victims)) if one != place]
    borrowed = torch.zeros_like(at, dtype=torch.bool)
    for other in others:
        borrowed |= (arena.fell_by[other] == by) & (by >= 0) & (arena.fell_at[other] < at)
    fell = int((borrowed & (at > own[-1])).sum())
    right = int((arena.standing[place] | (by >= 0)).sum())
    stood = int((arena.standing[place] | (borrowed & (at > own[-1]))).sum())
    return Observation("transfer", {"examples": right, "stood": stood, "fell": fell})


def control(case: Case, examples: int) -> Observation:
    """The attack on a linear model of which it is known what breaks."""
    if isinstance(case.space, EmbeddingBall):
        return without("control", "a linear model has no embedding in which vectors could be moved")
    classes = 2 if case.victim.criterion is not None else class_count(case)
    made = control_model.control(case.arena, case.victim, case.space, classes, examples, case.seed)
    breakable = int(made.breakable.sum())
    if breakable < LEAST:
        reason = f"even of a linear model without defence only {breakable} examples are known to break within this ε"
        return Observation("control", {"breakable": breakable}, reason)
    case.attack.run(made.arena, case.options)
    fallen = ~made.arena.standing[0]
    return Observation(
        "control",
        {
            "breakable": breakable,
            "fell": int((fallen & made.breakable).sum()),
            "unbreakable": int(made.unbreakable.sum()),
            "impossible": int((fallen & made.unbreakable).sum()),
        },
    )
