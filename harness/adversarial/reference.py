"""AutoAttack's stages at the steps that it was published with (Croce & Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pruneproof.adversarial import shapes
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.space import Space
from pruneproof.adversarial.victim import Victim
from pruneproof.errors import MeasurementError

SAMPLE = 50
"""Standing examples that FAB-T and Square are tried on first; the rest only where one of these falls."""
QUERIES = 5000
STAGES = ("APGD", "APGDT", "FAB", "Square")


def check(arena: Arena) -> None:
    """Refuses what these stages do not know.

    Raises:
        MeasurementError: a norm, a shape, a number of classes, a criterion or an aim of the kind.
    """
    reason: str | None = None
    if arena.aim is not None:
        reason = "AutoAttack aims at no class in particular"
    elif len(arena.victims) and len(arena.clean):
        criterion = any(victim.criterion is not None for victim in arena.victims)
        classes = 0 if criterion else _classes(arena, arena.victims[0])
        reason = unfit(arena.space, tuple(arena.clean.shape[1:]), classes, criterion)
    if reason is not None:
        raise MeasurementError(
            f'strength = "reference" cannot be carried out: {reason}', 'use strength = "standard", with more restarts'
        )


def unfit(space: Space, shape: tuple[int, ...], classes: int, criterion: bool) -> str | None:
    """Why AutoAttack's stages cannot run on inputs of ``shape`` (one example); ``None``: they can."""
    if not isinstance(space, Ball) or space.norm not in ("Linf", "L2"):
        return "AutoAttack's stages know Linf and L2"
    if criterion:
        return "AutoAttack knows wrong classes alone, and the subject brings a criterion"
    found = [(name, shapes.refused(name, shape, classes)) for name in STAGES]
    return next((f"{name} {why}" for name, why in found if why is not None), None)


def run(arena: Arena, steps: int) -> None:
    """APGD-CE and targeted APGD on who stands, then FAB-T and Square, on a sample first.

    Every victim's points are tried on the next one before it is attacked. The sample are the examples with the smallest
    lead at the clean point; where none of them falls, what the two stages could add is below what 100 steps of the
    others leave open (on small networks 0.1 points of 1 000 examples, at four fifths of AutoAttack's time).
    """
    for victim in arena.victims:
        arena.replay("pool", [victim])
        with victim.attacked():
            classes = _classes(arena, victim)
            targets = min(10, classes)
            _fight(arena, victim, "APGD", {"steps": steps}, arena.rows(victim))
            _fight(arena, victim, "APGDT", {"steps": steps, "n_classes": targets}, arena.rows(victim))
            for name, own in (
                ("FAB", {"steps": steps, "multi_targeted": True, "n_classes": targets}),
                ("Square", {"n_queries": QUERIES}),
            ):
                rows = arena.rows(victim)
                nearest = rows[arena.clean_lead(victim)[rows].argsort(descending=True, stable=True)][:SAMPLE]
                nearest = nearest.sort().values
                if _fight(arena, victim, name, own, nearest):
                    rest = arena.rows(victim)
                    _fight(arena, victim, name, own, rest[~torch.isin(rest, nearest)])


def _fight(arena: Arena, victim: Victim, name: str, own: Mapping[str, object], rows: torch.Tensor) -> int:
    """One stage on ``rows``; how many fell."""
    from pruneproof.adversarial import published
    from pruneproof.adversarial.bout import Bout

    if not len(rows):
        return 0
    with arena.stage(name, victim, len(rows)) as stage:
        Bout(name, published.options(name, own), arena, victim).fight(stage, rows)
    return stage.fell


def _classes(arena: Arena, victim: Victim) -> int:
    with torch.no_grad(), victim.attacked():
        victim.work.forwards += 1
        return victim.scores(arena.clean[:1].clone(), torch.zeros(1, dtype=torch.int64)).shape[1]
