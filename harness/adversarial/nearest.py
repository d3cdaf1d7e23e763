"""How near the point that fools can come to the clean example: the least change, as small as a search finds it."""

from __future__ import annotations

import torch

from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.margin import margin
from pruneproof.adversarial.victim import Victim

HALVINGS = 10
"""Bisections of the way from a clean example to a point that fools."""
TURNS = 3
"""How often the way is turned along the gradient at the point found last; on a linear model one is exact."""


def nearest(
    victim: Victim, ball: Ball, rows: torch.Tensor, clean: torch.Tensor, points: torch.Tensor, gradients: bool
) -> torch.Tensor:
    """``(n,)`` float64 distances of the nearest points found that fool, none farther than ``points``.

    The way from the clean example to the point is bisected to where it begins to fool. There the boundary is taken
    for a plane: the way is turned to the point of the ball that is farthest along the gradient (DeepFool's step,
    Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, in any norm), and bisected again. What comes of it is an upper bound
    of the least change.

    Args:
        points: ``(n, …)``, each fools.
        gradients: whether the attacker has them; without, the way to the point is bisected alone.
    """
    best = _bisected(victim, rows, clean, points)
    distance = ball.distance(clean, best)
    for _ in range(TURNS if gradients else 0):
        slope = victim.gradient(best, rows, margin()).value
        way = ball.extreme(clean, slope.nan_to_num(0, 0, 0)).to(points.dtype)
        fools = victim.fooled(way, rows).nonzero().flatten()
        if not len(fools):
            break
        found = _bisected(victim, rows[fools], clean[fools], way[fools])
        reached = ball.distance(clean[fools], found)
        nearer = reached < distance[fools]
        if not bool(nearer.any()):
            break
        best[fools[nearer]], distance[fools[nearer]] = found[nearer], reached[nearer]
    return distance


def _bisected(victim: Victim, rows: torch.Tensor, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The points nearest to the clean ones on the straight ways to ``points`` that fool."""
    low, high = torch.zeros(len(rows), dtype=torch.float64), torch.ones(len(rows), dtype=torch.float64)
    best = points.clone()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        share = middle.reshape(-1, *[1] * (clean.ndim - 1))
        tried = (clean.double() + share * (points.double() - clean.double())).to(points.dtype)
        fools = victim.fooled(tried, rows)
        high, low = torch.where(fools, middle, high), torch.where(fools, low, middle)
        best = torch.where(fools.reshape(share.shape), tried, best)
    return best
