"""The attack once more, only stronger: everything within reach, more steps, a larger budget, another start."""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel

from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.case import ODD, Case, budget, class_count, share, widest, without
from pruneproof.adversarial.checks import LEAST, Observation
from pruneproof.adversarial.sequences import EditSpace
from pruneproof.adversarial.space import Space

STEPS = ("steps", "n_queries", "queries", "nb_iter", "max_iterations")
"""What attacks call the number of their steps."""
RESTARTS = ("restarts", "n_restarts")
"""What they call the number of their random starts."""
SHARE = 6
"""One in that many of the examples is attacked again where it stood, which costs the whole attack,"""
AGAIN = 16
"""and at least that many."""


def range_(case: Case, examples: int) -> Observation:
    """The attack within a budget that reaches everything, on a sample with as many examples of each class as can be.

    A model that is right no more often than by one constant answer has nothing to fall from: any attack, and none,
    would hold there.
    """
    space = case.space
    if not isinstance(space, Ball):
        return without("range", "the space has no budget within which every input can be reached")
    if case.victim.criterion is not None or case.arena.aim is not None:
        return without("range", "what has to happen is not that any wrong class is answered: there is no chance level")
    eps = widest(space, case.arena.clean)
    if not math.isfinite(eps):
        return without("range", "the data has no bounds, so no ε reaches everything")
    rows = _balanced(case, examples)
    arena = case.afresh(rows, space=space.at(eps))
    targets, classes = case.victim.targets[rows].cpu(), class_count(case)
    level, right = chance(targets, classes), len(arena.rows(arena.victims[0]))
    numbers = {"examples": len(rows), "right": right, "chance": level, "eps": eps}
    if right <= level * len(rows):
        reason = (
            f"{right} of {len(rows)} examples are right without an attack, no more than by always answering one class"
        )
        return Observation("range", numbers, reason)
    case.attack.run(arena, _scaled(case.options, eps / budget(space)))
    return Observation("range", {**numbers, "stood": len(arena.rows(arena.victims[0]))})


def _balanced(case: Case, examples: int) -> torch.Tensor:
    """Rows, ascending, with as many examples of each class as there are of the rarest, or at least :data:`LEAST`.

    Otherwise one class of nearly all examples would make any accuracy one of chance.
    """
    targets = case.victim.targets.cpu()
    generator = case.arena.generator("strength", case.seed, case.victim.name, "range")
    order = torch.randperm(len(targets), generator=generator)
    of = [order[targets[order] == one] for one in sorted(set(targets.tolist()))]
    most = min(max(1, examples // len(of)), max(LEAST, min(len(rows) for rows in of)))
    found = torch.cat([rows[:most] for rows in of])
    return found[torch.randperm(len(found), generator=generator)[: max(examples, LEAST)]].sort().values


def chance(targets: torch.Tensor, classes: int) -> float:
    """The accuracy, in [0, 1], of always answering the class that is most frequent in ``targets (n,)``.

    Raises:
        ValueError: no targets, or some are no classes.
    """
    if not len(targets) or bool(((targets < 0) | (targets >= classes)).any()):
        raise ValueError(f"targets must be classes from 0 to {classes - 1}, and some are needed")
    return float(torch.bincount(targets.long().flatten(), minlength=classes).max()) / len(targets)


def _scaled(options: BaseModel, ratio: float) -> BaseModel:
    """Options with a step size that was given in the unit of ε scaled with it; others follow ε by themselves."""
    alpha = getattr(options, "alpha", None) if "alpha" in options.model_fields_set else None
    return options.model_copy(update={"alpha": alpha * ratio}) if isinstance(alpha, int | float) else options


def more_steps(case: Case) -> Observation:
    """The attack with twice the steps."""
    for name in STEPS:
        steps = getattr(case.options, name, None)
        if isinstance(steps, int) and not isinstance(steps, bool):
            more = case.options.model_copy(update={name: 2 * steps})
            return Observation("more_steps", _compared(case, "more_steps", more))
    return without("more_steps", f"{case.attack.name} takes no number of steps")


def more_restarts(case: Case) -> Observation:
    """The attack from other random starts, and from more of them where it takes a number of starts."""
    options = case.options
    for name in RESTARTS:
        starts = getattr(options, name, None)
        if isinstance(starts, int) and not isinstance(starts, bool):
            options = options.model_copy(update={name: starts + max(1, starts)})
            break
    other = int(torch.randint(2**31, (1,), generator=case.arena.generator("strength", case.seed, "restart")))
    return Observation("more_restarts", _compared(case, "more_restarts", options, seed=other))


def more_eps(case: Case) -> Observation:
    """The attack within twice the budget."""
    space, eps = case.space, budget(case.space)
    most = widest(space, case.arena.clean) if isinstance(space, Ball) else math.inf
    if isinstance(space, EditSpace):
        most = float(case.arena.clean.shape[1])
    wide = min(2 * eps, most)
    if wide <= eps:
        return without("more_eps", "the budget is as large as the range of the data already")
    numbers = _compared(case, "more_eps", _scaled(case.options, wide / eps), space=space.at(wide), factor=wide / eps)
    return Observation("more_eps", numbers)


def _compared(
    case: Case,
    name: str,
    options: BaseModel,
    space: Space | None = None,
    seed: int | None = None,
    factor: float = 1.0,
) -> dict[str, float]:
    """The attack, stronger, on what fell and on some of what stood; on all of that where the first look is odd.

    What fell falls again within a few steps. What stood costs the whole attack, so it is tried in full only where it
    might decide something; what is concluded then rests on all of it, so that looking twice raises no more alarms.
    """
    fell, stood = (~case.stood).nonzero().flatten(), case.stood.nonzero().flatten()
    some = case.drawn(stood, max(AGAIN, len(case.rows) // SHARE), name)
    stands = case.again(torch.cat([fell, some]), options, space, seed)
    raised, tested, lowered = int(stands[: len(fell)].sum()), len(some), int((~stands[len(fell) :]).sum())
    odd = raised / max(1, len(case.rows)) > ODD
    if name != "more_eps":  # within a larger budget more is meant to fall
        odd |= share(lowered, tested, len(stood), len(case.rows)) > ODD
    if odd and tested < len(stood):
        rest = stood[~torch.isin(stood, some)]
        lowered += int((~case.again(rest, options, space, seed)).sum())
        tested = len(stood)
    return {
        "examples": len(case.rows),
        "fell": len(fell),
        "stood": len(stood),
        "factor": factor,
        "raised": raised,
        "tested": tested,
        "lowered": lowered,
    }
