"""From any proposal for a row to a valid one within the budget, as near to the proposal as it comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pruneproof.adversarial.layout import Bounds, Layout, Total

HALVINGS = 60
"""Of the search for a projection's multiplier: past the precision of float64."""
GRACE = 1e-9
"""Share of a step, or of a budget, that is rounding in float64."""
SHRINKS = (
    (1.0, True),
    (0.5, True),
    (0.25, True),
    (0.0625, True),
    (0.0, True),
    (1.0, False),
    (0.5, False),
    (0.125, False),
)
"""What is tried on rows that are not valid: the share of the numbers' changes, and whether choices stay changed."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """Changes of clean rows, not yet valid.

    Args:
        clean: ``(n, columns)``
        moves: ``(n, numbers)`` float64 change of each number of the layout.
        picks: ``(n, choices)`` the setting of each choice.
    """

    clean: torch.Tensor
    moves: torch.Tensor
    picks: torch.Tensor

    def at(self, which: torch.Tensor) -> Proposal:
        """Some of the rows, by booleans or positions."""
        return Proposal(self.clean[which], self.moves[which], self.picks[which])


class Repairs:
    """Makes proposals valid.

    Args:
        norm: ``"L1"``, ``"L2"`` or ``"Linf"`` of what all changes cost.
        eps: the budget.
        judge: ``judge(clean, rows) -> (n,) booleans``: whether rows are valid and within the budget.
    """

    def __init__(
        self, layout: Layout, norm: str, eps: float, judge: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> None:
        self.layout, self.norm, self.eps, self.judge = layout, norm, eps, judge

    def proposal(self, clean: torch.Tensor, points: torch.Tensor) -> Proposal:
        """What ``points`` ask for; numbers that are not finite ask for nothing."""
        layout = self.layout
        before, after = clean.double(), points.double()
        after = torch.where(after.isfinite(), after, before)
        picks = [choice.nearest(after) for choice in layout.choices]
        chosen = torch.stack(picks, dim=1) if picks else torch.zeros(len(clean), 0, dtype=torch.int64)
        return Proposal(clean, (after - before)[:, layout.numbers], chosen)

    def own(self, clean: torch.Tensor) -> torch.Tensor:
        """``(n, choices)`` the clean settings."""
        return self.proposal(clean, clean).picks

    def reach(self, clean: torch.Tensor) -> Bounds:
        """``(n, numbers)`` changes that bounds and budget grant each number by itself, from at most 0 to at least 0."""
        own, low, high = (
            self.layout.on_steps(part, clean.dtype)
            for part in (clean[:, self.layout.numbers].double(), *self.layout.bounds(clean))
        )
        most = torch.where(self.layout.costs > 0, self.eps / self.layout.costs, math.inf)
        return Bounds(torch.maximum(low - own, -most), torch.minimum(high - own, most))

    def settle(self, asked: Proposal) -> torch.Tensor:
        """Valid rows ``(n, columns)`` within the budget, in the clean rows' dtype; in the worst case the clean ones."""
        picks, rest = self.afford(asked)
        moves = self.project(asked.clean, asked.moves, rest)
        paid = Proposal(asked.clean, moves, picks)
        found = self.built(paid, nearest=True)
        wrong = (~self.judge(asked.clean, found)).nonzero().flatten()
        for share, changed in SHRINKS:
            if not len(wrong):
                return found
            some = paid.at(wrong)
            settings = some.picks if changed else self.own(some.clean)
            scaled = Proposal(some.clean, some.moves * share, settings)
            built = self.built(self._shrunk(scaled, rest[wrong] if changed else self._all(some.clean)), nearest=False)
            found[wrong] = built
            wrong = wrong[~self.judge(some.clean, built)]
        found[wrong] = asked.clean[wrong]
        return found

    def afford(self, asked: Proposal) -> tuple[torch.Tensor, torch.Tensor]:
        """Settings that bounds and budget grant, cheap ones first, and the budget ``(n,)`` that is left for numbers."""
        own, picks = self.own(asked.clean), asked.picks.clone()
        rest = self._all(asked.clean)
        order = sorted(range(len(self.layout.choices)), key=lambda place: self.layout.choices[place].cost)
        for place in order:
            choice = self.layout.choices[place]
            allowed = choice.allowed(asked.clean).gather(1, picks[:, place, None])[:, 0]
            left = self.left(rest, choice.cost)
            taken = (picks[:, place] != own[:, place]) & allowed & (left >= 0)
            picks[:, place] = torch.where(taken, picks[:, place], own[:, place])
            rest = torch.where(taken, left, rest)
        return picks, rest

    def left(self, rest: torch.Tensor, cost: float | torch.Tensor) -> torch.Tensor:
        """The budget that is left after paying ``cost``; below 0: it is too dear."""
        grace = GRACE * self.eps
        if self.norm == "Linf":
            return torch.where(torch.as_tensor(cost) <= rest + grace, rest, -1.0)
        if self.norm == "L1":
            left = rest - cost
        else:
            squared = rest.square() - torch.as_tensor(cost).square()
            left = squared.clamp(min=0).sqrt().where(squared >= -grace * self.eps, torch.full_like(squared, -1.0))
        return torch.where((left < 0) & (left >= -grace), 0.0, left)

    def project(self, clean: torch.Tensor, moves: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        """The nearest changes ``(n, numbers)`` inside the bounds and the budget ``rest (n,)``, in units of cost.

        Minimises ``|cost · (x - moves)|²``; of L1 a soft threshold, of L2 a scaling, each cut to the bounds, with the
        multiplier found by bisection (Duchi et al. 2008; the budget used falls with it).
        """
        low, high = self.reach(clean)
        costs = self.layout.costs
        asked, moves = moves, torch.minimum(torch.maximum(moves, low), high)
        if self.norm == "Linf":
            # Choices leave the budget of the others alone.
            return moves
        over = (self._used(moves * costs) > rest).nonzero().flatten()
        if not len(over):
            return moves
        z, below, above = (asked * costs)[over], (low * costs)[over], (high * costs)[over]
        below, above = below.nan_to_num(nan=0.0), above.nan_to_num(nan=0.0)
        cut = self._threshold(z, below, above, rest[over])
        moves[over] = torch.where(costs > 0, cut / costs.clamp(min=1e-300), moves[over])
        return moves

    def _threshold(self, z: torch.Tensor, below: torch.Tensor, above: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        def at(multiplier: torch.Tensor) -> torch.Tensor:
            if self.norm == "L1":
                moved = z.sign() * (z.abs() - multiplier[:, None]).clamp(min=0)
            else:
                moved = z / (1 + multiplier[:, None])
            return torch.minimum(torch.maximum(moved, below), above)

        least = torch.zeros(len(z), dtype=torch.float64)
        size = z.abs().amax(dim=1)
        most = size if self.norm == "L1" else self._used(z) / rest.clamp(min=1e-300)
        for _ in range(HALVINGS):
            middle = (least + most) / 2
            fits = self._used(at(middle)) <= rest
            most, least = torch.where(fits, middle, most), torch.where(fits, least, middle)
        return torch.where((rest > 0)[:, None], at(most), 0.0)

    def _used(self, amounts: torch.Tensor) -> torch.Tensor:
        """``(n,)`` the norm of what changes cost ``(n, things)``."""
        return used(self.norm, amounts.abs())

    def _all(self, clean: torch.Tensor) -> torch.Tensor:
        return torch.full((len(clean),), self.eps, dtype=torch.float64)

    def _shrunk(self, asked: Proposal, rest: torch.Tensor) -> Proposal:
        """Moved less, so that what follows from the moves is paid for too: totals, restored sums."""
        built = self.built(asked, nearest=False)
        paid = len(self.layout.paid)
        spent = self._used(self.layout.amounts(asked.clean, built)[:, :paid])
        share = (rest / spent.clamp(min=1e-300)).clamp(max=1) * (1 - 1e-6)
        return Proposal(asked.clean, asked.moves * torch.where(spent > rest, share, 1.0)[:, None], asked.picks)

    def built(self, asked: Proposal, nearest: bool) -> torch.Tensor:
        """Rows with these changes, sums and derived columns restored.

        Args:
            nearest: integers are rounded to the nearest, otherwise toward the clean value.
        """
        layout, clean = self.layout, asked.clean
        wide = clean.double().clone()
        limits = self.reach(clean)
        for position, place in enumerate(layout.numbers.tolist()):
            moved = asked.moves[:, position]
            step = float(layout.steps[position])
            if step:
                moved = whole(moved, limits.low[:, position], limits.high[:, position], step, nearest)
            wide[:, place] = moved + clean[:, place].double()
        for place, choice in enumerate(layout.choices):
            wide[:, choice.columns] = choice.options[asked.picks[:, place]]
        for total in layout.totals:
            self._restore(total, wide, clean, limits)
        return layout.derive(self._rounded(wide, clean), clean).detach()

    def _restore(self, total: Total, wide: torch.Tensor, clean: torch.Tensor, limits: Bounds) -> None:
        """Makes a sum hold, in place; what its bounds do not grant is taken back from the parts."""
        layout = self.layout
        low, high = layout.bounds(clean, torch.tensor([total.column]))
        now = wide[:, total.parts].sum(dim=1)
        before = clean.double()[:, total.parts].sum(dim=1)
        own = clean[:, total.column].double()
        # The clean sum may be off by its tolerance: what counts is the change.
        wanted = torch.minimum(torch.maximum(own + now - before, low[:, 0]), high[:, 0])
        missing = wanted - (own + now - before)
        for place in sorted(total.leaves, key=lambda leaf: bool(layout.steps[layout.row_of[leaf]])):
            missing = self._handed(total, place, missing, wide, clean, limits)
        for other in layout.totals:  # totals on the way follow their leaves
            if other is total:
                break
            if other.follows:
                wide[:, other.column] = _followed(other, wide, clean)
        if total.follows:
            wide[:, total.column] = _followed(total, wide, clean)

    def _handed(
        self,
        total: Total,
        place: int,
        missing: torch.Tensor,
        wide: torch.Tensor,
        clean: torch.Tensor,
        limits: Bounds,
    ) -> torch.Tensor:
        """Has one part take its share of what is missing, in place; what is still missing ``(n,)``."""
        layout = self.layout
        position = layout.row_of[place]
        step = float(layout.steps[position])
        own = clean[:, place].double()
        room = torch.where(
            missing > 0,
            own + limits.high[:, position] - wide[:, place],
            own + limits.low[:, position] - wide[:, place],
        )
        room = torch.where(missing > 0, room.clamp(min=0), room.clamp(max=0))
        taken = torch.minimum(room.abs(), missing.abs()) * missing.sign()
        if step:
            taken = (taken / step + GRACE * taken.sign()).trunc() * step
        else:
            others = [leaf for leaf in total.leaves if not layout.steps[layout.row_of[leaf]]]
            later = len(others) - others.index(place)
            even = missing / later  # the last one takes what the others had no room for
            taken = torch.where(taken.abs() < even.abs(), taken, even)
        wide[:, place] += taken
        return missing - taken

    def _rounded(self, wide: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """In the clean rows' dtype: moved numbers rounded toward the clean value, so that no budget is overrun."""
        found = wide.to(clean.dtype)
        if not clean.dtype.is_floating_point:
            return wide.round().to(clean.dtype)
        for place, _, step in self.layout.paid:
            value, own = found[:, place], clean[:, place]
            if step:
                same = (wide[:, place] / step).round() == (own.double() / step).round()
                found[:, place] = torch.where(same, own, ((wide[:, place] / step).round() * step).to(clean.dtype))
            else:
                beyond = (value.double() - own.double()).abs() > (wide[:, place] - own.double()).abs()
                found[:, place] = torch.where(beyond, _toward(value, own), value)
        return found


def _toward(value: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The next number of the dtype; torch knows that of float16 not at all."""
    if value.dtype != torch.float16:
        return torch.nextafter(value, own)
    return torch.from_numpy(np.nextafter(value.numpy(), own.numpy()))


def _followed(total: Total, wide: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    change = wide[:, total.parts].sum(dim=1) - clean.double()[:, total.parts].sum(dim=1)
    return clean[:, total.column].double() + change


def whole(moved: torch.Tensor, low: torch.Tensor, high: torch.Tensor, step: float, nearest: bool) -> torch.Tensor:
    """``(n,)`` changes that lead from multiples of ``step`` to others, between ``low`` and ``high``."""
    counts = moved / step
    counts = counts.round() if nearest else (counts + GRACE * counts.sign()).trunc()
    least, most = (low / step - GRACE).ceil(), (high / step + GRACE).floor()
    return torch.minimum(torch.maximum(counts, least), most) * step


def used(norm: str, amounts: torch.Tensor) -> torch.Tensor:
    """``(n,)`` of the budget that ``amounts (n, things)``, at least 0, use together."""
    if amounts.shape[1] == 0:
        return torch.zeros(len(amounts), dtype=torch.float64)
    order = {"L1": 1.0, "L2": 2.0, "Linf": math.inf}[norm]
    found: torch.Tensor = torch.linalg.vector_norm(amounts, ord=order, dim=1)
    return found
