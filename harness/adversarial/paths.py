"""Where the attack goes: its gradients, what they lead to, and what became of what it found."""

from __future__ import annotations

import math

import torch

from pruneproof.adversarial import embeddings
from pruneproof.adversarial.arena import CLEAN
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.case import NEAREST, Case, budget, without
from pruneproof.adversarial.checks import FULL, Observation
from pruneproof.adversarial.margin import margin
from pruneproof.adversarial.published import Published
from pruneproof.adversarial.sequences import EditSpace
from pruneproof.adversarial.victim import Loss, Victim
from pruneproof.adversarial.watching import useless
from pruneproof.errors import MeasurementError, SubjectError

NOISE = 1e-4
"""Relative: how much two passes at one point may differ by the order of sums alone."""
NOTHING = "the model gets no example right without an attack"


def gradients(case: Case) -> Observation:
    """Gradients at the clean examples by cross-entropy and by the margin, and those that the attack took.

    An example is *blind* where neither has a direction at the clean point, or no gradient that the attack took of it
    had one. Those that fell all the same are no reason for doubt, so only those that stand are counted.
    """
    if not case.attack.gradients:
        return without("gradients", f"{case.attack.name} uses no gradients")
    every = torch.arange(len(case.rows))
    if not len(every):
        return without("gradients", NOTHING)
    victim = case.afresh(case.rows).victims[0]
    try:
        first, second, third = (
            _slopes(case, victim, every, loss)
            for loss in (_cross_entropy(case), _cross_entropy(case), margin(case.arena.aim))
        )
    except (SubjectError, MeasurementError) as error:
        return without("gradients", f"{error.cause}: the attack goes without gradients there")
    blind = useless(first) & useless(third)
    seen = case.seen
    if seen.asked:
        unled = torch.tensor([row in seen.asked and row not in seen.led for row in every.tolist()])
        blind |= unled
    broken = ~(
        first.reshape(len(first), -1).isfinite().all(dim=1) & third.reshape(len(third), -1).isfinite().all(dim=1)
    )
    zero = useless(first) & ~broken
    return Observation(
        "gradients",
        {
            "examples": len(every),
            "zero_ce": int(zero.sum()),
            "zero": int((zero & useless(third)).sum()),
            "non_finite": int((broken & case.stood).sum()),
            "blind": int((blind & case.stood).sum()),
            "random": int(differ(first, second).sum()),
            "draws": victim.draws,
            "agreement": _agreement(first, second),
            "taken": seen.taken,
            "empty": seen.empty,
        },
    )


def _slopes(case: Case, victim: Victim, rows: torch.Tensor, loss: Loss) -> torch.Tensor:
    """``(n, …)`` gradients at the clean examples; of tokens in their vectors."""
    clean, space = case.base.clean, case.space
    if not isinstance(space, EditSpace):
        return victim.gradient(clean, rows, loss, case.arena.aim).value
    opened = embeddings.lifted(victim, space.tokens)
    width = embeddings.table(embeddings.embedding(victim, space.tokens), space.tokens.size).shape[1]
    return embeddings.gradients(opened, clean, rows, loss, width, case.arena.aim)


def _cross_entropy(case: Case) -> Loss:
    aim = case.arena.aim

    def loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        wanted = targets.long() if aim is None else torch.full_like(targets, aim, dtype=torch.int64)
        found = torch.nn.functional.cross_entropy(scores, wanted, reduction="none")
        return found if aim is None else -found

    return loss


def _agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean cosine of two gradients at the same points, in [-1, 1]; 0 where one is zero or broken."""
    a, b = (part.reshape(len(part), -1).double() for part in (first, second))
    found = torch.nn.functional.cosine_similarity(a, b, dim=1).nan_to_num(0, 0, 0)
    return float(found.mean())


def differ(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """``(n,)`` booleans: which of ``(n, …)`` differ by more than the rounding of sums."""
    a, b = (part.reshape(len(part), -1).double() for part in (first, second))
    size = torch.maximum(a.abs(), b.abs()).nan_to_num(0, 0, 0).amax(dim=1, keepdim=True)
    same = (a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= NOISE * size)
    return ~same.all(dim=1)


def _ends(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the base trial, and the last point of each that the attack looked at.

    A class of torchattacks is seen by what it returns alone; some return the clean example where nothing fooled, which
    says nothing of where they looked.
    """
    rows = sorted(case.seen.last)
    if isinstance(case.attack, Published):
        rows = [row for row in rows if not torch.equal(case.seen.last[row].cpu(), case.base.clean[row].cpu())]
    if not rows:
        return torch.zeros(0, dtype=torch.int64), case.base.clean[:0]
    return torch.tensor(rows), torch.stack([case.seen.last[row] for row in rows]).to(case.base.clean.device)


def loss_rises(case: Case) -> Observation:
    """The margin at the last point that the attack looked at, against the margin at a random point of the space."""
    if not case.attack.gradients:
        return without("loss_rises", f"{case.attack.name} follows no gradient")
    if not len(case.rows):
        return without("loss_rises", NOTHING)
    rows, points = _ends(case)
    if not len(rows):
        return without("loss_rises", f"{case.attack.name} does not show the points that it looks at")
    generator = case.arena.generator("strength", case.seed, case.victim.name, "random points")
    somewhere = case.space.start(case.base.clean, generator)[rows]
    loss, aim = margin(case.arena.aim), case.arena.aim
    end, _ = case.watched.losses(points.to(somewhere.dtype), rows, loss, aim)
    start, _ = case.watched.losses(somewhere, rows, loss, aim)
    return Observation("loss_rises", {"examples": len(rows), "rose": int((end > start).sum())})


def boundary(case: Case) -> Observation:
    """How much of the budget the attack spends where it does not succeed; in a corner of the box less can be spent."""
    space = case.space
    if not isinstance(space, Ball):
        return without("boundary", "changes come in whole steps of unlike cost, so that a budget is seldom used up")
    if case.attack.name in NEAREST or not getattr(case.attack, "bounded", True):
        return without("boundary", f"{case.attack.name} looks for the nearest point, or one of a size of its own")
    if not case.attack.gradients:
        return without("boundary", f"{case.attack.name} uses no gradients that would lead to the boundary")
    rows, points = _ends(case)
    kept = case.stood[rows]
    rows, points = rows[kept], points[kept]
    clean = case.base.clean[rows]
    most = torch.full((len(rows),), budget(space), dtype=torch.float64)
    if len(rows) and all(math.isfinite(float(torch.as_tensor(part).abs().max())) for part in (space.low, space.high)):
        most = torch.minimum(most, space.distance(clean, _corner(space, clean)).cpu())
    at = space.distance(clean, points).cpu() >= FULL * most
    return Observation("boundary", {"examples": len(rows), "at": int(at.sum())})


def _corner(ball: Ball, clean: torch.Tensor) -> torch.Tensor:
    """The point of the box that is farthest from each clean one."""
    low, high = (torch.as_tensor(part, dtype=torch.float64, device=clean.device) for part in (ball.low, ball.high))
    wide = clean.double()
    return torch.where(high - wide > wide - low, high, low).expand_as(wide)


def outside(case: Case) -> Observation:
    """Points that the arena refused, of the attack itself and of its repetition."""
    if case.attack.name in NEAREST or not getattr(case.attack, "bounded", True):
        return without(
            "outside", f"{case.attack.name} may end outside the ball, since its points have a size of their own"
        )
    stages = [one for arena in (case.arena, case.base) for one in arena.stages if one.victim == case.victim.name]
    tried = [one for one in stages if one.name != CLEAN]
    return Observation(
        "outside", {"tried": sum(one.tried for one in tried), "refused": sum(one.refused for one in tried)}
    )


def unconfirmed(case: Case) -> Observation:
    """Points inside the space that fooled by the scores that the attack saw, of examples that stand nevertheless."""
    if case.victim.draws > 1:
        return without("unconfirmed", "the model draws random numbers, so that answers near the limit come and go")
    if not case.seen.asked:
        return without("unconfirmed", f"{case.attack.name} does not show the points that it looks at")
    standing = [row for row in sorted(case.seen.fooled) if bool(case.stood[row])]
    lost = 0
    if standing:
        points = torch.stack([case.seen.fooled[row] for row in standing]).to(case.base.clean)
        lost = int(case.space.contains(case.base.clean[standing], points).sum())
    return Observation("unconfirmed", {"examples": len(case.rows), "lost": lost})
