"""Changes of a table's rows: within the subject's constraints, and within what was observed."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from pruneproof.adversarial.layout import Layout
from pruneproof.adversarial.repair import Proposal
from pruneproof.adversarial.rows import RowSpace
from pruneproof.domain import Column, Table
from pruneproof.shift.changes import Change

UNLIMITED = 1e12
"""A budget in spreads that no change within the observed range needs."""
DIGITS = 6
"""Significant digits that a number is shown with."""


class RowChanges:
    """Numbers, and categories or one-hot groups; see :class:`~pruneproof.shift.changes.Changes`.

    Every column, derived ones and totals included, stays between its smallest and its largest value in ``reference``,
    every category takes a setting that occurs there. Constraints are kept by the repairs that attacks use. Rows that
    hold missing values, or lie outside of what was observed themselves, are no place to start.

    Args:
        reference: ``(m, columns)`` clean rows that ranges, settings and spreads are taken from.
        clean: ``(n, columns)``

    Raises:
        SubjectError: the table contradicts itself, or nothing of it can be changed.
    """

    unit = "spreads"

    def __init__(self, table: Table, reference: torch.Tensor, clean: torch.Tensor) -> None:
        self.clean = clean
        self.space = RowSpace(_observed(table, reference), "L1", UNLIMITED)
        self.layout = self.space.layout
        seen = reference[~reference.isnan().any(dim=1)] if reference.is_floating_point() else reference
        self._seen = [torch.bincount(c.nearest(seen), minlength=len(c.options)) > 0 for c in self.layout.choices]

    def starts(self) -> torch.Tensor:
        """Rows that keep every constraint within the observed ranges."""
        return self.space.contains(self.clean, self.clean)

    @property
    def most(self) -> int:
        """Of the choice with the most settings."""
        return max((len(choice.options) for choice in self.layout.choices), default=0)

    def settings(self, row: int) -> list[int]:
        """Numbers by degrees first, then the choices."""
        low, high = self.space.repairs.reach(self.clean[row, None])
        free = ((low < 0) | (high > 0))[0].tolist()
        others = [len(self._others(row, place)) for place in range(len(self._seen))]
        return [0 if one else -1 for one in free] + [count or -1 for count in others]

    def built(self, row: int, asked: torch.Tensor) -> torch.Tensor:
        """Rows with sums restored and derived columns computed anew."""
        numbers = len(self.layout.numbers)
        clean = self.clean[row].expand(len(asked), -1)
        low, high = self.space.repairs.reach(clean)
        share = asked[:, :numbers]
        moves = torch.where(share > 0, share * high, share.abs() * low)
        picks = self.space.repairs.own(clean)
        for place in range(len(self._seen)):
            wanted = asked[:, numbers + place].long()
            others = self._others(row, place)
            if len(others):
                picks[:, place] = torch.where(
                    wanted > 0, others[(wanted - 1).clamp(0, len(others) - 1)], picks[:, place]
                )
        return self.space.repairs.settle(Proposal(clean, moves, picks))

    def sizes(self, row: int, points: torch.Tensor) -> torch.Tensor:
        """Sum over the columns of the change in standard deviations of the reference; a changed choice counts 1."""
        return self.space.distance(self.clean[row].expand(len(points), -1), points)

    def rounder(self, row: int, asked: torch.Tensor, thing: int) -> list[float]:
        """Values of few significant digits, as the column itself is shown; none where the table decodes its rows."""
        if self.space.table.decode is not None or thing >= len(self.layout.numbers) or self.layout.steps[thing]:
            return []
        low, high = (float(bound[0, thing]) for bound in self.space.repairs.reach(self.clean[row, None]))
        own = float(self.clean[row, self.layout.numbers[thing]])
        share = float(asked[thing])
        reach = high if share > 0 else -low
        target = own + share * reach
        if not reach or not target:
            return []
        found = []
        for digits in range(1, DIGITS + 1):
            unit = 10.0 ** (math.floor(math.log10(abs(target))) - digits + 1)
            value = (math.ceil if share > 0 else math.floor)(target / unit) * unit
            moved = (float(f"{value:.{DIGITS}g}") - own) / reach
            if 0 < abs(moved) <= 1:
                found.append(moved)
        return found

    def told(self, row: int, asked: torch.Tensor, point: torch.Tensor) -> list[Change]:
        """As the table's ``decode`` has it; what it rounds away, in the numbers of the input."""
        before, after = self.space.decoded(self.clean[row]), self.space.decoded(point)
        names = [*before, *(name for name in after if name not in before)]
        pairs = [Change(name, before.get(name, "none"), after.get(name, "none")) for name in names]
        found = [one for one in pairs if one.before != one.after]
        return found or self._raw(self.clean[row], point)

    def _raw(self, clean: torch.Tensor, point: torch.Tensor) -> list[Change]:
        derived = set(self.layout.derived.tolist())
        places = [place for place in (clean != point).nonzero().flatten().tolist() if place not in derived]
        return [Change(self.layout.names[p], f"{float(clean[p]):.9g}", f"{float(point[p]):.9g}") for p in places]

    def shown(self, row: int, asked: torch.Tensor, point: torch.Tensor) -> str:
        """``amount 940 → 1 010; country NA → GB``"""
        return "; ".join(f"{one.name} {one.before} → {one.after}" for one in self.told(row, asked, point))

    def _others(self, row: int, place: int) -> torch.Tensor:
        """Settings of a choice that were observed and may be taken, but the own one."""
        choice = self.layout.choices[place]
        clean = self.clean[row, None]
        allowed = choice.allowed(clean)[0] & self._seen[place]
        allowed[choice.nearest(clean)] = False
        return allowed.nonzero().flatten()


def _observed(table: Table, reference: torch.Tensor) -> Table:
    """``table`` with bounds as observed, and a spread of each number for its cost."""
    layout = Layout(table)
    followers = {total.column for total in layout.totals if total.follows}
    columns = []
    for place, column in enumerate(layout.columns):
        values = reference[:, place].double()
        values = values[values.isfinite()]
        fixed = not column.mutable and column.kind != "derived"
        if place in layout.grouped or column.kind == "category" or fixed or not len(values):
            columns.append(replace(column, cost=1.0))
            continue
        columns.append(_narrowed(column, values, place in followers))
    groups = [replace(group, cost=1.0) for group in table.one_hot]
    return replace(table, columns=tuple(columns), one_hot=tuple(groups))


def _narrowed(column: Column, values: torch.Tensor, follower: bool) -> Column:
    spread = float(values.std(correction=0))
    low, high = max(column.low, float(values.min())), min(column.high, float(values.max()))
    if low > high:  # nothing observed keeps the stated bounds: no row is a place to start
        low, high = column.low, column.high
    cost = 0.0 if follower else 1 / spread if spread > 0 else 1.0
    return replace(column, low=low, high=high, cost=cost)
