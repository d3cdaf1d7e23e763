"""How new rows come of old ones in a search: one thing changed at a time, the best changes joined, mutation."""

from __future__ import annotations

import torch

from pruneproof.adversarial.repair import Proposal
from pruneproof.adversarial.rows import RowSpace, drawn

FINEST = 4.0
"""Powers of ten between the largest and the smallest step of a mutation."""


class Breeding:
    """Makes rows that are valid.

    Args:
        examples: of the arena: random numbers are drawn for all of them, so that what one gets does not depend on which
            others still stand.
    """

    def __init__(self, space: RowSpace, examples: int) -> None:
        self.space, self.repairs, self.layout = space, space.repairs, space.layout
        self.examples = examples
        self.numbers, self.choices = len(self.layout.numbers), len(self.layout.choices)

    def singles(self, clean: torch.Tensor) -> torch.Tensor:
        """``(m, k, columns)``: one thing changed: a number as far as it goes either way, a choice to each setting."""
        low, high = self.repairs.reach(clean)
        own = self.repairs.own(clean)
        still = torch.zeros_like(low)
        found = []
        for position in range(self.numbers):
            for end in (low, high):
                moves = still.clone()
                moves[:, position] = end[:, position]
                found.append(self.repairs.settle(Proposal(clean, moves, own)))
        for place, choice in enumerate(self.layout.choices):
            for setting in range(len(choice.options)):
                picks = own.clone()
                picks[:, place] = setting
                found.append(self.repairs.settle(Proposal(clean, still.clone(), picks)))
        return torch.stack(found, dim=1)

    def joined(self, clean: torch.Tensor, tried: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """``(m, 2, columns)``: the best single changes together, by their value and by their value for the price.

        Args:
            tried: ``(m, k, columns)`` from :meth:`singles`, or the first of them.
            values: ``(m, k)`` their losses.
        """
        m, k = values.shape
        many = clean[:, None].expand(-1, k, -1).reshape(m * k, -1)
        prices = self.space.distance(many, tried.reshape(m * k, -1)).reshape(m, k)
        base = torch.where(prices > 0, torch.inf, values).amin(dim=1)
        base = torch.where(base.isfinite(), base, values.amin(dim=1))
        gain = torch.where(prices > 0, (values - base[:, None]).clamp(min=0), 0.0)
        both = [gain, gain / prices.clamp(min=1e-12)]
        return torch.stack([self._greedy(clean, tried, one, prices) for one in both], dim=1)

    def _greedy(
        self, clean: torch.Tensor, tried: torch.Tensor, worth: torch.Tensor, prices: torch.Tensor
    ) -> torch.Tensor:
        m, k = worth.shape
        order = torch.argsort(worth, dim=1, descending=True, stable=True)
        moves = torch.zeros(m, self.numbers, dtype=torch.float64)
        picks = self.repairs.own(clean)
        rest = torch.full((m,), self.space.eps, dtype=torch.float64)
        every = torch.arange(m)
        for rank in range(k):
            which = order[:, rank]
            asked = self.repairs.proposal(clean, tried[every, which])
            left = self.repairs.left(rest, prices[every, which])
            fits = (left >= 0) & (worth[every, which] > 0)
            moved = (asked.moves != 0) & (moves == 0) & fits[:, None]
            changed = (asked.picks != self.repairs.own(clean)) & (picks == self.repairs.own(clean)) & fits[:, None]
            moves, picks = torch.where(moved, asked.moves, moves), torch.where(changed, asked.picks, picks)
            rest = torch.where(moved.any(dim=1) | changed.any(dim=1), left, rest)
        return self.repairs.settle(Proposal(clean, moves, picks))

    def children(
        self, clean: torch.Tensor, rows: torch.Tensor, parents: torch.Tensor, count: int, generator: torch.Generator
    ) -> torch.Tensor:
        """``(m, count, columns)`` of ``parents (m, p, columns)``, the best first.

        A child has the genes of one parent, or of two mixed; about two of them are drawn anew: a number at an end of
        its reach, anywhere in it, or a small step away (of size 1 to 10⁻⁴ of its reach), a choice at another setting;
        or back at the clean value. In every second child the other numbers make room for the new ones.
        """
        m, size = len(rows), parents.shape[1]
        genes = self.numbers + self.choices
        shape = (self.examples, count, 4 + 5 * genes)
        draws = torch.rand(shape, generator=generator, dtype=torch.float64)[rows].reshape(m * count, -1)
        many = clean[:, None].expand(-1, count, -1).reshape(m * count, -1)
        one, other = (self._parent(parents, draws[:, place], size, count) for place in (0, 1))
        head, rest = draws[:, :4], draws[:, 4:].reshape(m * count, 5, genes)
        mixed = (rest[:, 0] < 0.5) & (head[:, 2, None] < 0.3)
        first, second = self.repairs.proposal(many, one), self.repairs.proposal(many, other)
        moves = torch.where(mixed[:, : self.numbers], second.moves, first.moves)
        picks = torch.where(mixed[:, self.numbers :], second.picks, first.picks)
        new = rest[:, 1] < min(1.0, 2.0 / genes)
        new |= torch.arange(genes) == (rest[:, 1].argmin(dim=1)[:, None])
        back = rest[:, 2] < 0.2
        moves = self._moved(many, moves, new[:, : self.numbers], back[:, : self.numbers], rest[:, 2:, : self.numbers])
        picks = self._picked(many, picks, new[:, self.numbers :], back[:, self.numbers :], rest[:, 3, self.numbers :])
        moves = self._room(moves, new[:, : self.numbers] & (head[:, 3, None] < 0.5))
        return self.repairs.settle(Proposal(many, moves, picks)).reshape(m, count, -1)

    def _parent(self, parents: torch.Tensor, draw: torch.Tensor, size: int, count: int) -> torch.Tensor:
        """One of the parents of each child, better ones more often."""
        rank = (draw.square() * size).long().clamp(max=size - 1).reshape(-1, count)
        width = parents.shape[2]
        return parents.gather(1, rank[:, :, None].expand(-1, -1, width)).reshape(-1, width)

    def _moved(
        self, clean: torch.Tensor, moves: torch.Tensor, new: torch.Tensor, back: torch.Tensor, draws: torch.Tensor
    ) -> torch.Tensor:
        """Changes of the numbers, those at ``new`` drawn from ``draws (c, 3, numbers)``."""
        low, high = self.repairs.reach(clean)
        kind, where, size = draws[:, 0], draws[:, 1], draws[:, 2]
        end = torch.where(where < 0.5, low, high)
        anywhere = low + where * (high - low)
        away = torch.where(where < 0.5, -1.0, 1.0) * (high - low) * 10 ** (-FINEST * size)
        least = torch.where(self.layout.steps > 0, self.layout.steps, 0.0)
        near = moves + torch.where(away.abs() < least, away.sign() * least, away)
        found = torch.where(kind < 0.4, end, torch.where(kind < 0.65, anywhere, near))
        found = torch.where(back, 0.0, found)
        return torch.where(new, found, moves)

    def _picked(
        self, clean: torch.Tensor, picks: torch.Tensor, new: torch.Tensor, back: torch.Tensor, draw: torch.Tensor
    ) -> torch.Tensor:
        own = self.repairs.own(clean)
        found = picks.clone()
        for place, choice in enumerate(self.layout.choices):
            other = drawn(choice.allowed(clean), picks[:, place], draw[:, place])
            wanted = torch.where(back[:, place], own[:, place], other)
            found[:, place] = torch.where(new[:, place], wanted, picks[:, place])
        return found

    def _room(self, moves: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """The other numbers moved less, so that those at ``first`` are paid for in full; Linf has room for all."""
        if self.space.norm == "Linf" or not self.numbers:
            return moves
        power = 1.0 if self.space.norm == "L1" else 2.0
        costs = (moves * self.layout.costs).abs() ** power
        taken = torch.where(first, costs, 0.0).sum(dim=1)
        others = torch.where(first, 0.0, costs).sum(dim=1)
        left = (self.space.eps**power - taken).clamp(min=0)
        share = (left / others.clamp(min=1e-300)).clamp(max=1) ** (1 / power)
        return torch.where(first | ~first.any(dim=1, keepdim=True), moves, moves * share[:, None])


def kept(
    pool: torch.Tensor, best: torch.Tensor, born: torch.Tensor, values: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``most`` best of each example, of ``pool (m, p, columns)`` and ``born (m, k, columns)``, each row once.

    Of equal ones the newer come first, so that a plateau is walked on.
    """
    every = torch.cat([born, pool], dim=1)
    score = torch.cat([values, best], dim=1)
    # Rows are compared by one sum of theirs with odd weights; where two differ and it does not, one of them is lost.
    odd = torch.arange(1, every.shape[2] + 1, dtype=torch.float64).sqrt()
    sums = (every.double() * odd).sum(dim=2)
    same = sums[:, :, None] == sums[:, None]
    earlier = torch.ones(same.shape[1], same.shape[1], dtype=torch.bool).tril(-1)
    again = (same & earlier).any(dim=2)
    rank = torch.where(again, -torch.inf, score)
    order = torch.argsort(rank, dim=1, descending=True, stable=True)[:, :most]
    chosen = torch.where(again.gather(1, order), -torch.inf, score.gather(1, order))
    return every.gather(1, order[:, :, None].expand(-1, -1, every.shape[2])), chosen
