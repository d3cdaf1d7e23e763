"""Tokens go missing; what follows moves up, and padding fills the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions._tokens import OnTokens, Padded, movable, padding, unpadded

if TYPE_CHECKING:
    import torch

    from pruneproof.domain import Tokens
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground


class TokenDrop(OnTokens):
    """A share of the tokens is left out; at least one of each sequence stays. Frozen tokens keep their order, and move
    up with the others."""

    name = "token_drop"
    options: type[BaseModel] = Padded

    def unfit(self, tokens: Tokens, ground: Ground, options: BaseModel) -> str | None:
        """No padding."""
        return unpadded(tokens, ground, options)

    def changed(
        self, clean: torch.Tensor, tokens: Tokens, ground: Ground, share: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        filler = padding(tokens, ground, options)
        assert filler is not None
        token, side = filler
        drawn = draws.uniform(clean.shape[1])
        free = movable(clean, tokens, token)
        safest = torch.where(free, drawn, -1.0).argmax(dim=1, keepdim=True)
        kept = ~(free & (drawn < share)).scatter(1, safest, False)
        missing = (~kept).sum(dim=1, keepdim=True)
        place = torch.arange(clean.shape[1])
        if side == "right":
            order = (~kept).long().argsort(dim=1, stable=True)
            return clean.gather(1, order).masked_fill(place >= clean.shape[1] - missing, token)
        order = kept.long().argsort(dim=1, stable=True)
        return clean.gather(1, order).masked_fill(place < missing, token)


CORRUPTION = TokenDrop()
