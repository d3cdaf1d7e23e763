"""The best that a linear model lets an attacker do to rows: which numbers to move and which choices to change."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pruneproof.adversarial.layout import Layout
from pruneproof.adversarial.repair import GRACE, Proposal, Repairs
from pruneproof.errors import MeasurementError


def chained(layout: Layout, points: torch.Tensor, clean: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """``(n, columns)`` float64 gradient in what can be changed, of a gradient ``slope`` in all columns.

    By the chain rule through ``derive`` and through totals that follow their parts; where a sum must stay, what its
    parts share is taken out. Gradients that are not finite are 0.

    Raises:
        MeasurementError: the derived columns do not depend on the rows differentiably.
    """
    slope = slope.detach().to(points.dtype)
    if len(layout.derived):
        with torch.inference_mode(False), torch.enable_grad():
            leaf = points.detach().clone().requires_grad_()
            computed = layout.computed(leaf, clean)
            wanted = slope[:, layout.derived].to(computed.dtype)
            value = None
            if computed.requires_grad:
                (value,) = torch.autograd.grad(computed, leaf, wanted, allow_unused=True)
            if value is None:
                raise MeasurementError(
                    "Table(derive=…) computes columns without a gradient in the others",
                    "compute them with differentiable functions of torch, or ask for table_search",
                )
            value[:, layout.derived] = 0.0
            slope = slope.index_fill(1, layout.derived, 0.0) + value
    found = slope.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    for total in reversed(layout.totals):
        if total.follows:
            found[:, total.parts] += found[:, total.column, None]
    for total in layout.totals:
        if not total.follows and total.leaves:
            leaves = list(total.leaves)
            found[:, leaves] -= found[:, leaves].mean(dim=1, keepdim=True)
    return found


class _Item(NamedTuple):
    """One thing that the budget can be spent on.

    Args:
        gain: ``(n,)`` by first order, when all of it is bought; at most 0: not worth it.
        price: ``(n,)`` of all of it.
        number: its position among the numbers, or ``None``.
        choice: its position among the choices, or ``None``.
        to: ``(n,)`` the change of the number, or the setting of the choice.
    """

    gain: torch.Tensor
    price: torch.Tensor
    number: int | None
    choice: int | None
    to: torch.Tensor


def farthest(repairs: Repairs, points: torch.Tensor, clean: torch.Tensor, slope: torch.Tensor) -> Proposal:
    """The changes of clean rows that raise ``slope · change`` most, by first order, within bounds and budget.

    L1 is a knapsack: bought in the order of gain for the price, numbers in part, choices whole, which is exact for
    numbers alone (Dantzig 1957). In L2 numbers take what the multiplier gives them (exact as well), and a choice is
    bought where it gains more than the numbers lose. In Linf everything that gains is bought.

    Args:
        points: where the gradient was taken: what it says of a choice is said from its setting there.
        slope: ``(n, columns)`` from :func:`chained`.
    """
    items = [*_numbers(repairs, clean, slope), *_choices(repairs, points, clean, slope)]
    moves = torch.zeros(len(clean), len(repairs.layout.numbers), dtype=torch.float64)
    picks = repairs.own(clean)
    rest = torch.full((len(clean),), repairs.eps, dtype=torch.float64)
    if not items:
        return Proposal(clean, moves, picks)
    if repairs.norm == "L2":
        rest = _choices_in_l2(repairs, items, picks, rest, slope)
        return Proposal(clean, _numbers_in_l2(repairs, clean, slope, rest), picks)
    gains, prices = torch.stack([one.gain for one in items]), torch.stack([one.price for one in items])
    order = torch.argsort(gains / prices.clamp(min=1e-300), dim=0, descending=True, stable=True)
    for rank in range(len(items)):
        for place, item in enumerate(items):
            rest = _bought(repairs, item, (order[rank] == place) & (item.gain > 0), moves, picks, rest)
    return Proposal(clean, moves, picks)


def _bought(
    repairs: Repairs, item: _Item, wanted: torch.Tensor, moves: torch.Tensor, picks: torch.Tensor, rest: torch.Tensor
) -> torch.Tensor:
    """The budget that is left after buying ``item`` where it is wanted and what it costs is there."""
    if not bool(wanted.any()):
        return rest
    if item.choice is not None:
        left = repairs.left(rest, item.price)
        taken = wanted & (left >= 0)
        picks[:, item.choice] = torch.where(taken, item.to, picks[:, item.choice])
        return torch.where(taken, left, rest)
    assert item.number is not None
    share = torch.ones_like(rest)
    if repairs.norm == "L1":
        share = torch.where(item.price > rest, rest / item.price.clamp(min=1e-300), share)
    moves[:, item.number] = torch.where(wanted, item.to * share, moves[:, item.number])
    return torch.where(wanted, rest - item.price * share, rest).clamp(min=0) if repairs.norm == "L1" else rest


def _numbers(repairs: Repairs, clean: torch.Tensor, slope: torch.Tensor) -> list[_Item]:
    low, high = repairs.reach(clean)
    found = []
    for position, place in enumerate(repairs.layout.numbers.tolist()):
        rise = slope[:, place]
        to = torch.where(rise > 0, high[:, position], low[:, position])
        price = to.abs() * repairs.layout.costs[position]
        found.append(_Item(rise * to, price, position, None, to))
    return found


def _choices(repairs: Repairs, points: torch.Tensor, clean: torch.Tensor, slope: torch.Tensor) -> list[_Item]:
    """For each choice the setting that gains most against the clean one."""
    found = []
    own = repairs.own(clean)
    for place, choice in enumerate(repairs.layout.choices):
        value = slope[:, choice.columns] @ choice.options.T
        value = torch.where(choice.allowed(clean), value, -torch.inf)
        best = value.max(dim=1)
        gain = best.values - value.gather(1, own[:, place, None])[:, 0]
        price = torch.full_like(gain, choice.cost)
        found.append(_Item(gain, price, None, place, best.indices))
    return found


def _choices_in_l2(
    repairs: Repairs, items: list[_Item], picks: torch.Tensor, rest: torch.Tensor, slope: torch.Tensor
) -> torch.Tensor:
    layout = repairs.layout
    rates = slope[:, layout.numbers] / layout.costs.clamp(min=1e-300) * (layout.costs > 0)
    rate = torch.linalg.vector_norm(rates, dim=1)
    bought = [item for item in items if item.choice is not None]
    if not bought:
        return rest
    worth = torch.stack([item.gain / item.price.clamp(min=1e-300) for item in bought])
    order = torch.argsort(worth, dim=0, descending=True, stable=True)
    for rank in range(len(bought)):
        for place, item in enumerate(bought):
            assert item.choice is not None
            left = repairs.left(rest, item.price)
            taken = (order[rank] == place) & (left >= 0) & (item.gain > rate * (rest - left.clamp(min=0)))
            picks[:, item.choice] = torch.where(taken, item.to, picks[:, item.choice])
            rest = torch.where(taken, left, rest)
    return rest


def _numbers_in_l2(repairs: Repairs, clean: torch.Tensor, slope: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Far along the gradient, then back onto the set: the support point of a convex set."""
    layout = repairs.layout
    way = slope[:, layout.numbers] / layout.costs.clamp(min=1e-300)
    size = way.abs().amax(dim=1, keepdim=True).clamp(min=1e-300) if way.shape[1] else way
    far = way / size / layout.costs.clamp(min=1e-300) * rest[:, None] * 1e6
    low, high = repairs.reach(clean)
    free = torch.where(slope[:, layout.numbers] > 0, high, low).where(slope[:, layout.numbers] != 0, 0.0)
    return _support(repairs, torch.where(layout.costs > 0, far, free), low, high, rest)


def _support(
    repairs: Repairs, far: torch.Tensor, low: torch.Tensor, high: torch.Tensor, rest: torch.Tensor
) -> torch.Tensor:
    """``clip(t · far)`` with the largest ``t`` that the budget grants, by bisection on its logarithm."""
    costs = repairs.layout.costs
    least = torch.full((len(far),), -60.0, dtype=torch.float64)
    most = torch.zeros(len(far), dtype=torch.float64)

    def at(power: torch.Tensor) -> torch.Tensor:
        moved = torch.where(costs > 0, far * power.exp()[:, None], far)
        return torch.minimum(torch.maximum(moved, low), high)

    for _ in range(80):
        middle = (least + most) / 2
        fits = torch.linalg.vector_norm(at(middle) * costs, dim=1) <= rest * (1 + GRACE / 2)
        least, most = torch.where(fits, middle, least), torch.where(fits, most, middle)
    return at(least)
