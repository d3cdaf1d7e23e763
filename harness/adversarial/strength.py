"""The experiments that show whether an attack worked: what each strength check rests on.

:func:`observe` runs them on a few examples of one shard and records plain numbers; :func:`judge` reads them. Nothing
here changes which examples count as fallen.
"""

from __future__ import annotations

import dataclasses

import torch
from pydantic import BaseModel

from pruneproof.adversarial import paths, repeats, rivals
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.case import Case, Trial, lean, trials
from pruneproof.adversarial.checks import NAMES, Check, Observation, judge
from pruneproof.adversarial.margin import margin
from pruneproof.adversarial.repeats import chance
from pruneproof.adversarial.victim import Victim
from pruneproof.adversarial.watching import watch
from pruneproof.attacks import Attack
from pruneproof.isolation import untouched_globals

__all__ = ["NAMES", "Check", "Observation", "Trial", "chance", "judge", "observe", "stochastic", "trials"]


def observe(
    attack: Attack,
    options: BaseModel,
    trial: Trial,
    arena: Arena,
    victim: Victim,
    seed: int,
    examples: int = 100,
) -> list[Observation]:
    """Everything that the strength checks need to know of one attack on one variant, in the order of ``NAMES``.

    The attack is repeated by the variant alone on up to ``examples`` random examples that it gets right, at one in four
    of those that stand twice more, and within other budgets. The user's random state is left as it was.

    Args:
        attack, options: as they ran.
        trial: builds an arena on some rows of the shard.
        arena: after the attack.
        victim: one of the arena's.
        seed: of the experiments.
        examples: at most; fewer cost less and can show less.
    """
    with untouched_globals(torch.get_num_threads(), seed), victim.attacked():
        place = [one.name for one in arena.victims].index(victim.name)
        right = (arena.standing[place] | (arena.fell_by[place] >= 0)).nonzero().flatten()
        generator = arena.generator("strength", seed, victim.name)
        rows = right[torch.randperm(len(right), generator=generator)[:examples]].sort().values
        base = lean(trial([victim], rows))
        seen = watch(base, victim.name)
        if len(rows):
            attack.run(base, options)
        case = Case(attack, options, trial, arena, victim, seed, rows, base, seen)
        found = (
            repeats.range_(case, examples),
            repeats.more_steps(case),
            repeats.more_eps(case),
            repeats.more_restarts(case),
            rivals.gradient_free(case),
            rivals.transfer(case, place),
            paths.gradients(case),
            paths.loss_rises(case),
            rivals.control(case, examples),
            paths.boundary(case),
            paths.outside(case),
            paths.unconfirmed(case),
        )
    return [_plain(one) for one in found]


def _plain(found: Observation) -> Observation:
    """The same with floats alone, ready to be written down."""
    return dataclasses.replace(found, numbers={key: float(number) for key, number in found.numbers.items()})


def stochastic(victim: Victim, points: torch.Tensor, rows: torch.Tensor) -> bool:
    """Whether two passes of the victim in evaluation mode differ by more than the rounding of sums.

    Global random numbers that the model draws are drawn from a seed, and their state is left as it was.
    """
    with untouched_globals(torch.get_num_threads(), 0), victim.attacked(), torch.no_grad():
        first, second = (_outputs(victim, points, rows) for _ in range(2))
    return any(bool(paths.differ(a, b).any()) for a, b in zip(first, second, strict=True))


def _outputs(victim: Victim, points: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
    """What decides, as floats: the scores, or by a criterion of the subject's the losses."""
    if victim.criterion is None:
        return [victim.scores(points, rows).double()]
    loss, hit = victim.losses(points, rows, margin())
    return [loss, hit.double()]
