"""What the corruptions of token sequences have in common: what may be changed, and what fills the place of a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from pruneproof.corruptions import Kind, Parameters, _levels
from pruneproof.tables import Record

if TYPE_CHECKING:
    import torch

    from pruneproof.domain import Tokens
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the tokens that may be changed."""


class Options(Record):
    """No keys of its own."""


class Padded(Record):
    """What sequences are padded with."""

    padding: int | None = Field(default=None, ge=0)
    """A token. Default: the frozen one that ends the reference sequences, or, repeated, begins them."""


class OnTokens:
    """Corrupts sequences ``(length,)`` of a :class:`~pruneproof.domain.Tokens`; frozen tokens are neither changed nor
    put in place of another."""

    kinds: frozenset[Kind] = frozenset({"tokens"})
    options: type[BaseModel] = Options

    def refuses(self, ground: Ground, options: BaseModel) -> str | None:
        """What :meth:`unfit` says."""
        if len(ground.shape) != 1:
            return f"it changes sequences (length,), not inputs {ground.shape}"
        return self.unfit(_domain(ground), ground, options)

    def unfit(self, tokens: Tokens, ground: Ground, options: BaseModel) -> str | None:
        """Why it cannot be applied; ``None``: it can."""
        return None

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of the tokens that are not frozen."""
        return {"share": _levels.at(SHARE, severity)}

    def apply(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        """``(n, length)`` tokens."""
        if severity == 0:
            return clean.clone()
        found = self.changed(clean.long(), _domain(ground), ground, _levels.at(SHARE, severity), draws, options)
        return found.to(clean.dtype)

    def changed(
        self, clean: torch.Tensor, tokens: Tokens, ground: Ground, share: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        """``(n, length)`` int64, of ``clean`` int64."""
        raise NotImplementedError


def _domain(ground: Ground) -> Tokens:
    from pruneproof.domain import Tokens

    assert isinstance(ground.domain, Tokens)
    return ground.domain


def movable(clean: torch.Tensor, tokens: Tokens, padding: int | None = None) -> torch.Tensor:
    """``(n, length)`` booleans: tokens that are neither frozen nor padding."""
    import torch

    return ~torch.isin(clean, torch.tensor(sorted({*tokens.frozen, *([] if padding is None else [padding])})).long())


Side = Literal["left", "right"]


def padding(tokens: Tokens, ground: Ground, options: BaseModel) -> tuple[int, Side] | None:
    """The padding token, and the side on which it stands; ``None``: there is none to be found.

    By itself it is a frozen token that the reference sequences have at their end, twice in a row before once; or at
    their beginning, twice in a row.
    """
    assert isinstance(options, Padded)
    sequences = ground.reference
    if options.padding is not None:
        begins, ends = (int((sequences[:, place] == options.padding).sum()) for place in (0, -1))
        return options.padding, "left" if begins > ends else "right"
    doubled = sequences[sequences[:, -1] == sequences[:, -2]] if sequences.shape[1] > 1 else sequences
    begun = sequences[sequences[:, 0] == sequences[:, 1]] if sequences.shape[1] > 1 else sequences[:0]
    for found, side in ((doubled[:, -1], "right"), (begun[:, 0], "left"), (sequences[:, -1], "right")):
        counts = {token: int((found == token).sum()) for token in sorted(tokens.frozen)}
        best = max(counts, key=lambda token: counts[token], default=None)
        if best is not None and counts[best]:
            return best, "left" if side == "left" else "right"
    return None


def unpadded(tokens: Tokens, ground: Ground, options: BaseModel) -> str | None:
    """Why sequences cannot be made shorter; ``None``: they can."""
    assert isinstance(options, Padded)
    if options.padding is not None and options.padding >= tokens.size:
        return f"padding = {options.padding}, and the vocabulary has {tokens.size} tokens"
    if padding(tokens, ground, options) is None:
        return "no frozen token ends the reference sequences, so it's not known what fills them up: give padding = …"
    return None
