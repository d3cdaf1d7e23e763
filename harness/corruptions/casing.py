"""Letters in the other case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from pruneproof.corruptions import _once
from pruneproof.corruptions._tokens import OnTokens, movable
from pruneproof.tables import Record

if TYPE_CHECKING:
    import torch

    from pruneproof.domain import Tokens
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground


class Options(Record):
    """Which case."""

    to: Literal["swapped", "upper", "lower"] = "swapped"


class Casing(OnTokens):
    """The token whose text is the same in the other case; a token without one stays."""

    name = "casing"
    options: type[BaseModel] = Options

    def unfit(self, tokens: Tokens, ground: Ground, options: BaseModel) -> str | None:
        """A vocabulary without text, or with one case."""
        if tokens.text is None:
            return "the domain does not state the text of a token: Tokens(text=…)"
        assert isinstance(options, Options)
        if _turned(tokens, options.to) != list(range(tokens.size)):
            return None
        return "no two tokens of the vocabulary differ in case alone"

    def changed(
        self, clean: torch.Tensor, tokens: Tokens, ground: Ground, share: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        import torch

        assert isinstance(options, Options)
        to = options.to
        other = _once.of(ground, ("casing", to), lambda: torch.tensor(_turned(tokens, to)))
        hit = draws.uniform(clean.shape[1]) < share
        return torch.where(hit & movable(clean, tokens), other[clean], clean)


def _turned(tokens: Tokens, to: str) -> list[int]:
    """Each token of the vocabulary in the other case."""
    assert tokens.text is not None
    texts = [tokens.text(token) for token in range(tokens.size)]
    known = {text: token for token, text in reversed(list(enumerate(texts))) if token not in tokens.frozen}
    turn = {"swapped": str.swapcase, "upper": str.upper, "lower": str.lower}[to]
    # A token whose text is another's already stays itself.
    return [token if turn(text) == text else known.get(turn(text), token) for token, text in enumerate(texts)]


CORRUPTION = Casing()
