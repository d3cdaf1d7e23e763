"""AutoAttack's stages at the steps that it was published with (Croce & Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from pruneproof.adversarial import shapes
from pruneproof.adversarial.apgd import UNTARGETED, AutoPGD, Climbs
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.space import Space
from pruneproof.adversarial.victim import Victim, lead
from pruneproof.errors import MeasurementError

GROUPS = {"FAB": 10, "Square": 25}
"""Standing examples that these stages are tried on at a time, the nearest to falling first; the next as many only where
one of these falls."""
QUERIES = 5000
TARGETS = 9
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


def run(arena: Arena, steps: int, checked: float) -> None:
    """APGD-CE and targeted APGD on who stands, then FAB-T and Square on the nearest.

    Every victim's points are tried on the next one before it is attacked. FAB-T and Square are four fifths of
    AutoAttack's time and seldom find what the others did not. They go on through the examples, by what was left of
    their way, as long as some of them fall; FAB-T on the first and the last victim, which differ most, and on those
    between only where somebody fell by it.

    Args:
        steps: of APGD and FAB-T.
        checked: share of the examples whose climbs do not end early, however far behind they are.
    """
    drawn = torch.rand(len(arena.clean), generator=arena.generator("checked"), dtype=torch.float64)
    left: dict[str, torch.Tensor] = {}
    for victim in arena.victims:
        arena.replay("pool", [victim])
        with victim.attacked():
            way = left[victim.name] = torch.full((len(arena.clean),), math.inf, dtype=torch.float64)
            _climb(arena, victim, "APGD", steps, _anywhere(arena, victim), drawn < checked, way)
            _climb(arena, victim, "APGDT", steps, _targeted(arena, victim), drawn < checked, way)
            _nearest(arena, victim, "Square", {"n_queries": QUERIES}, way)
    ends = list(dict.fromkeys([*arena.victims[:1], *arena.victims[-1:]]))
    between = [victim for victim in arena.victims if victim not in ends]
    for victims in (ends, between):
        fell = 0
        for victim in victims:
            with victim.attacked():
                targets = min(TARGETS + 1, _classes(arena, victim))
                own = {"steps": steps, "multi_targeted": True, "n_classes": targets}
                fell += _nearest(arena, victim, "FAB", own, left[victim.name])
        if not fell:
            return


def _anywhere(arena: Arena, victim: Victim) -> Climbs:
    rows = arena.rows(victim)
    return Climbs(rows, _start(arena, "APGD", 0)[rows], torch.full((len(rows),), UNTARGETED))


def _targeted(arena: Arena, victim: Victim) -> Climbs:
    """A climb towards each of the strongest wrong classes at the clean example, strongest first."""
    rows = arena.rows(victim)
    if not len(rows):
        return _anywhere(arena, victim)
    scores = victim.gradient(arena.clean[rows], rows, lambda scores, targets: lead(scores, targets)).scores
    assert scores is not None  # check() refuses criteria
    targets = victim.targets[rows].cpu().long()
    others = scores.cpu().scatter(1, targets[:, None], -math.inf)
    goals = others.topk(min(TARGETS, scores.shape[1] - 1), dim=1).indices
    starts = [_start(arena, "APGDT", number)[rows] for number in range(goals.shape[1])]
    return Climbs(rows.repeat(goals.shape[1]), torch.cat(starts), goals.T.reshape(-1))


def _start(arena: Arena, name: str, number: int) -> torch.Tensor:
    return arena.space.start(arena.clean, arena.generator(name, number))


def _climb(
    arena: Arena, victim: Victim, name: str, steps: int, climbs: Climbs, patient: torch.Tensor, left: torch.Tensor
) -> None:
    """One stage; where one of the ``patient`` fell by a climb that would have ended early, the others' are finished."""
    if not len(climbs.rows):
        return
    with arena.stage(name, victim, len(set(climbs.rows.tolist()))) as stage:
        AutoPGD(arena, victim, stage, steps).run(climbs, patient)
    left.scatter_reduce_(0, climbs.rows, climbs.left, "amin")
    if bool((climbs.won & climbs.early).any()):
        standing = torch.isin(climbs.rows, arena.rows(victim))
        again = climbs.those(climbs.early & standing & ~patient[climbs.rows])
        _climb(arena, victim, f"{name} to the end", steps, again, torch.ones_like(patient), left)


def _nearest(arena: Arena, victim: Victim, name: str, own: Mapping[str, object], left: torch.Tensor) -> int:
    """A stage of torchattacks, group after group, until nobody of a group falls; how many did."""
    from pruneproof.adversarial import published
    from pruneproof.adversarial.bout import Bout

    rows, fell = arena.rows(victim), 0
    for group in torch.split(rows[left[rows].argsort(stable=True)], GROUPS[name]):
        with arena.stage(name, victim, len(group)) as stage:
            Bout(name, published.options(name, own), arena, victim).fight(stage, group.sort().values)
        fell += stage.fell
        if not stage.fell:
            break
    return fell


def _classes(arena: Arena, victim: Victim) -> int:
    with torch.no_grad(), victim.attacked():
        victim.work.forwards += 1
        return victim.scores(arena.clean[:1].clone(), torch.zeros(1, dtype=torch.int64)).shape[1]
