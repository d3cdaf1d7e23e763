"""Tokens said twice; what follows moves down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions._tokens import OnTokens, Padded, movable, padding

if TYPE_CHECKING:
    import torch

    from pruneproof.domain import Tokens
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground


class TokenRepeat(OnTokens):
    """A share of the tokens stands twice. To keep the length, padding makes room first, then the last tokens that are
    not frozen are cut off, as a tokenizer truncates."""

    name = "token_repeat"
    options: type[BaseModel] = Padded

    def unfit(self, tokens: Tokens, ground: Ground, options: BaseModel) -> str | None:
        """A padding token that is none."""
        assert isinstance(options, Padded)
        if options.padding is not None and options.padding >= tokens.size:
            return f"padding = {options.padding}, and the vocabulary has {tokens.size} tokens"
        return None

    def changed(
        self, clean: torch.Tensor, tokens: Tokens, ground: Ground, share: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        n, length = clean.shape
        filler = padding(tokens, ground, options)
        free = movable(clean, tokens, None if filler is None else filler[0])
        twice = (draws.uniform(length) < share) & free
        said = torch.stack([clean, clean], dim=2).reshape(n, 2 * length)
        there = torch.stack([torch.ones_like(twice), twice], dim=2).reshape(n, 2 * length)
        loose = torch.stack([free, free], dim=2).reshape(n, 2 * length)
        pads = said == filler[0] if filler is not None else torch.zeros_like(loose)
        # Cut first: what isn't there at all, then padding, then tokens; each from the end.
        rank = torch.where(there, torch.where(pads, 1, torch.where(loose, 2, 3)), 0)
        cut = (rank * 2 * length - torch.arange(2 * length)).argsort(dim=1)[:, :length]
        kept = torch.ones_like(there).scatter_(1, cut, False)
        return said[kept].reshape(n, length)


CORRUPTION = TokenRepeat()
