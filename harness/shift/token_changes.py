"""Changes of token sequences: one allowed token in the place of another."""

from __future__ import annotations

import torch

from pruneproof.adversarial.sequences import EditSpace
from pruneproof.domain import Tokens
from pruneproof.shift.changes import Change


class TokenChanges:
    """Every position whose token has alternatives; see :class:`~pruneproof.shift.changes.Changes`.

    Raises:
        SubjectError: the tokens contradict themselves or the examples, or none can be replaced.
    """

    unit = "edits"

    def __init__(self, tokens: Tokens, clean: torch.Tensor) -> None:
        self.clean = clean
        self.space = EditSpace(tokens, 1)
        self.space.check(clean)
        self._counts: dict[int, int] = {}

    def starts(self) -> torch.Tensor:
        """Sequences in which something can be replaced."""
        return self.space.replaceable(self.clean).any(dim=1)

    @property
    def most(self) -> int:
        """Of the token with the most alternatives."""
        return self.space.most

    def settings(self, row: int) -> list[int]:
        """The number of alternatives at each position."""
        return [self._count(token) or -1 for token in self.clean[row].tolist()]

    def built(self, row: int, asked: torch.Tensor) -> torch.Tensor:
        """Sequences of the same length."""
        found = self.clean[row].repeat(len(asked), 1)
        for one, place in asked.nonzero().tolist():
            options = self._alternatives(int(self.clean[row, place]))
            if len(options):
                found[one, place] = options[min(int(asked[one, place]), len(options)) - 1]
        return found

    def sizes(self, row: int, points: torch.Tensor) -> torch.Tensor:
        """Tokens that differ."""
        return self.space.distance(self.clean[row].expand(len(points), -1), points)

    def rounder(self, row: int, asked: torch.Tensor, thing: int) -> list[float]:
        """Nothing goes by degrees."""
        return []

    def told(self, row: int, asked: torch.Tensor, point: torch.Tensor) -> list[Change]:
        """Token by token, as text where there is any."""
        text = self.space.tokens.text or str
        pairs = enumerate(zip(self.clean[row].tolist(), point.tolist(), strict=True))
        return [Change(f"token {at}", text(old), text(new)) for at, (old, new) in pairs if old != new]

    def shown(self, row: int, asked: torch.Tensor, point: torch.Tensor) -> str:
        """Token by token; of characters, the words that they stand in."""
        return self.space.shown(self.clean[row], point)

    def _count(self, token: int) -> int:
        if token not in self._counts:
            self._counts[token] = len(self._alternatives(token))
        return self._counts[token]

    def _alternatives(self, token: int) -> torch.Tensor:
        options = self.space.options(self.clean.new_tensor([token]))[0]
        return options[options >= 0]
