"""Tokens by random others, as of a bad transcript or scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions._tokens import OnTokens, movable

if TYPE_CHECKING:
    import torch

    from pruneproof.domain import Tokens
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground


class TokenNoise(OnTokens):
    """Any other token that is not frozen, all as often, whatever the domain's ``alternatives``."""

    name = "token_noise"

    def unfit(self, tokens: Tokens, ground: Ground, options: BaseModel) -> str | None:
        """A vocabulary of one."""
        allowed = tokens.size - len([token for token in tokens.frozen if 0 <= token < tokens.size])
        return None if allowed > 1 else "fewer than two tokens of the vocabulary are not frozen"

    def changed(
        self, clean: torch.Tensor, tokens: Tokens, ground: Ground, share: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        allowed = torch.tensor([token for token in range(tokens.size) if token not in tokens.frozen])
        length = clean.shape[1]
        hit, which = draws.uniform(length) < share, draws.integers(len(allowed) - 1, length)
        own = torch.searchsorted(allowed, clean)
        other = allowed[which + (which >= own).long()]
        return torch.where(hit & movable(clean, tokens), other, clean)


CORRUPTION = TokenNoise()
