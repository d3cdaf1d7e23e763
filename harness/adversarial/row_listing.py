"""All valid rows around a clean one, where there are finitely many."""

from __future__ import annotations

import math

import torch

from pruneproof.adversarial.repair import GRACE, Proposal
from pruneproof.adversarial.rows import RowSpace

GROWTH = 2
"""How many more combinations than wanted are looked at, where constraints may leave few of them."""


def listed(space: RowSpace, clean: torch.Tensor, most: int) -> torch.Tensor | None:
    """Every valid row ``(k, columns)`` within the budget but the clean one; ``None``: more than ``most``, or endless.

    Args:
        clean: ``(columns,)``
    """
    layout, repairs = space.layout, space.repairs
    one = clean[None]
    low, high = repairs.reach(one)
    table = space.table
    ends = any(c.kind == "derived" and (c.low > -math.inf or c.high < math.inf) for c in table.columns)
    culled = bool(table.sums) or table.valid is not None or ends
    found = _Grid(space, GROWTH * (most + 1) if culled else most + 1)
    for position in range(len(layout.numbers)):
        step = float(layout.steps[position])
        least, top = float(low[0, position]), float(high[0, position])
        if not step:
            if least < 0 or top > 0:
                return None
            found.add(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
            continue
        first, last = -int(-least / step + GRACE), int(top / step + GRACE)
        if last - first > found.most:
            return None
        moves = torch.arange(first, last + 1, dtype=torch.float64) * step
        found.add(moves, moves.abs() * float(layout.costs[position]))
    own = repairs.own(one)[0]
    for place, choice in enumerate(layout.choices):
        settings = choice.allowed(one)[0].nonzero().flatten()
        found.add(settings.double(), choice.cost * (settings != own[place]).double())
    if len(found.rows) > found.most:
        return None
    m = len(layout.numbers)
    many = one.expand(len(found.rows), -1)
    points = repairs.built(Proposal(many, found.rows[:, :m].clone(), found.rows[:, m:].long()), nearest=True)
    changed = points[space.contains(many, points) & (points != many).any(dim=1)]
    points = torch.unique(changed, dim=0)
    return None if len(points) > most else points


class _Grid:
    """Combinations of values, each with what it costs; those beyond the budget are dropped as they arise."""

    def __init__(self, space: RowSpace, most: int) -> None:
        self.norm, self.eps, self.most = space.norm, space.eps, most
        self.rows = torch.zeros(1, 0, dtype=torch.float64)
        self.spent = torch.zeros(1, dtype=torch.float64)

    def add(self, values: torch.Tensor, prices: torch.Tensor) -> None:
        """Every combination so far with every one of ``values (k,)``; given up once there are too many."""
        if len(self.rows) > self.most:
            return
        if self.norm == "L1":
            spent = self.spent[:, None] + prices
        elif self.norm == "L2":
            spent = (self.spent[:, None].square() + prices.square()).sqrt()
        else:
            spent = torch.maximum(self.spent[:, None], prices)
        first, which = (spent <= self.eps * (1 + GRACE)).nonzero(as_tuple=True)
        self.rows = torch.cat([self.rows[first], values[which, None]], dim=1)
        self.spent = spent[first, which]
