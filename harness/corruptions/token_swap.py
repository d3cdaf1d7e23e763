"""Neighbouring tokens in each other's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels
from pruneproof.corruptions._tokens import SHARE, OnTokens, movable

if TYPE_CHECKING:
    import torch

    from pruneproof.domain import Tokens
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground


class TokenSwap(OnTokens):
    """From left to right, each pair of neighbours of which neither is frozen or swapped already changes places with
    probability ``share``; so a little under twice as large a share of the tokens is moved."""

    name = "token_swap"

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share``: the probability of a swap."""
        return {"share": _levels.at(SHARE, severity)}

    def changed(
        self, clean: torch.Tensor, tokens: Tokens, ground: Ground, share: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        length = clean.shape[1]
        if length < 2:
            return clean
        free = movable(clean, tokens)
        wanted = (draws.uniform(length - 1) < share) & free[:, :-1] & free[:, 1:]
        order = torch.arange(length).repeat(len(clean), 1)
        taken = torch.zeros(len(clean), dtype=torch.bool)
        for place in range(length - 1):
            taken = wanted[:, place] & ~taken
            order[:, place] += taken.long()
            order[:, place + 1] -= taken.long()
        return clean.gather(1, order)


CORRUPTION = TokenSwap()
