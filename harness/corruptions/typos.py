"""Slips of the finger: a character, or another token, by one that stands for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pruneproof.corruptions import _once
from pruneproof.corruptions._tokens import OnTokens, movable

if TYPE_CHECKING:
    import torch

    from pruneproof.domain import Tokens
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground


class Typos(OnTokens):
    """One of the domain's ``alternatives``, all as often; without them, of a vocabulary with characters, a key that
    touches the one meant (US keyboard)."""

    name = "typos"

    def unfit(self, tokens: Tokens, ground: Ground, options: BaseModel) -> str | None:
        """Nothing known to stand in the place of a token."""
        if any(set(others) - {token} for token, others in _slips(tokens).items()):
            return None
        if tokens.alternatives is None and tokens.text is None:
            return "the domain states neither alternatives nor the text of a token: Tokens(alternatives=…, text=…)"
        return "no token has an alternative that is not frozen: Tokens(alternatives=…)"

    def changed(
        self, clean: torch.Tensor, tokens: Tokens, ground: Ground, share: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        from pruneproof.corruptions._tokens_table import Substitutes

        length = clean.shape[1]
        hit, which = draws.uniform(length) < share, draws.uniform(length)
        slipped = _once.of(ground, "typos", lambda: Substitutes(_slips(tokens), tokens.size)).drawn(clean, which)
        return torch.where(hit & movable(clean, tokens), slipped, clean)


def _slips(tokens: Tokens) -> dict[int, list[int]]:
    """Token → what may come in its place."""
    from pruneproof import keyboard

    stated: Mapping[int, Sequence[int]] = tokens.alternatives or {}
    if tokens.alternatives is None and tokens.text is not None:
        stated = keyboard.typos([tokens.text(token) for token in range(tokens.size)])
    return {token: [other for other in others if other not in tokens.frozen] for token, others in stated.items()}


CORRUPTION = Typos()
