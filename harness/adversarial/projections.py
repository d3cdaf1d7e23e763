"""Projections onto norm balls cut by boxes, in terms of sizes: signs are the wish's own."""

from __future__ import annotations

import math

import torch


def l2_sizes(wish: torch.Tensor, room: torch.Tensor, eps: float) -> torch.Tensor:
    """``min(s·wish, room)`` with the largest ``s <= 1`` of Euclidean length at most ``eps``.

    From below: elements that reach the box's edge at one ``s`` reach it at every larger one, so each round fixes
    those and scales the others, until no more reach it.
    """
    fixed = torch.zeros_like(wish, dtype=torch.bool)
    found = torch.minimum(wish, room)
    over = norm(found, 2) > eps
    if not over.any():
        return found
    some_wish, some_room, fixed = wish[over], room[over], fixed[over]
    scale = torch.zeros_like(some_wish[:, :1])
    for _ in range(some_wish.shape[1] + 1):
        spent = torch.where(fixed, some_room, 0).square().sum(dim=1, keepdim=True)
        free = norm(torch.where(fixed, 0, some_wish), 2)[:, None]
        wanted = (eps**2 - spent).clamp_min(0).sqrt() / free.clamp_min(1e-300)
        scale = torch.maximum(scale, wanted.clamp_max(1))
        reached = fixed | (scale * some_wish >= some_room)
        if bool((reached == fixed).all()):
            break
        fixed = reached
    found[over] = _within(torch.minimum(scale * some_wish, some_room), 2, eps)
    return found


def l1_sizes(wish: torch.Tensor, room: torch.Tensor, eps: float) -> torch.Tensor:
    """``clamp(wish - t, 0, room)`` with the smallest ``t >= 0`` whose sum is at most ``eps``.

    As a function of ``t`` the sum is linear between the sorted ``wish`` and ``wish - room``: at ``wish`` an element
    begins to add to it, at ``wish - room`` it is full.
    """
    found = torch.minimum(wish, room)
    over = found.sum(dim=1) > eps
    if not over.any():
        return found
    some_wish, some_room = wish[over], room[over]
    knots = torch.cat([some_wish, (some_wish - some_room).clamp_min(0)], dim=1)
    slopes = torch.cat([torch.ones_like(some_wish), -torch.ones_like(some_wish)], dim=1)
    knots, order = knots.sort(dim=1, descending=True)
    slopes = slopes.gather(1, order)
    rate, height = slopes.cumsum(dim=1), (slopes * knots).cumsum(dim=1)
    full = height - rate * knots >= eps
    last = torch.where(full.any(dim=1), full.int().argmax(dim=1), knots.shape[1])[:, None].sub(1).clamp_min(0)
    threshold = (height.gather(1, last) - eps) / rate.gather(1, last).clamp_min(1)
    sizes = torch.minimum((some_wish - threshold.clamp_min(0)).clamp_min(0), some_room)
    found[over] = _within(sizes, 1, eps)
    return found


def l0_sizes(wish: torch.Tensor, room: torch.Tensor, eps: float) -> torch.Tensor:
    """``min(wish, room)`` where that shortens the way to the point most, 0 elsewhere."""
    found = torch.minimum(wish, room)
    gain = wish.square() - (wish - found).square()
    return found * largest(torch.where(gain.isnan(), torch.inf, gain), math.floor(eps))


def _within(sizes: torch.Tensor, order: int, eps: float) -> torch.Tensor:
    """``sizes`` scaled down where the rounding of their sums has left more than ``eps``."""
    return sizes * (eps / norm(sizes, order)[:, None].clamp_min(1e-300)).clamp_max(1)


def norm(rows: torch.Tensor, order: int) -> torch.Tensor:
    """``(n,)`` of each row."""
    found: torch.Tensor = torch.linalg.vector_norm(rows, ord=order, dim=1)
    return found


def largest(rows: torch.Tensor, count: int) -> torch.Tensor:
    """1 at the ``count`` largest of each row, 0 elsewhere."""
    count = min(count, rows.shape[1])
    return torch.zeros_like(rows).scatter(1, rows.topk(count, dim=1).indices, 1.0)
