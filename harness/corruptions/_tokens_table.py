"""Which tokens may stand in the place of each: a table that is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


class Substitutes:
    """Drawn from by token.

    Args:
        others: token → tokens that may stand in its place.
        size: of the vocabulary.
    """

    def __init__(self, others: Mapping[int, Sequence[int]], size: int) -> None:
        lists = [sorted({int(other) for other in others.get(token, ()) if other != token}) for token in range(size)]
        self.counts = torch.tensor([len(one) for one in lists], dtype=torch.int64)
        self._first = self.counts.cumsum(0) - self.counts
        self._flat = torch.tensor([*(other for one in lists for other in one), 0], dtype=torch.int64)

    def drawn(self, tokens: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """In the place of each of ``tokens``, by ``which`` in [0, 1); a token that has none stays."""
        counts = self.counts[tokens]
        place = self._first[tokens] + (which.double() * counts).long()
        return torch.where(counts > 0, self._flat[place.clamp(max=len(self._flat) - 1)], tokens)
