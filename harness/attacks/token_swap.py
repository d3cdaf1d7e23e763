"""HotFlip-style token substitutions (Ebrahimi et al. 2018, arXiv 1712.06751); of characters too.

Which tokens may stand in the place of which is the subject's to say (``Tokens(alternatives=…)``). Of vocabularies of
characters, :func:`pruneproof.keyboard.typos` gives those that a slip of the finger puts there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from pruneproof.attacks import Domain
from pruneproof.tables import Record

if TYPE_CHECKING:
    from pruneproof.adversarial.arena import Arena


class Options(Record):
    """How hard to search; the budget in edits is the suite's ``eps``."""

    beam: int = Field(default=4, ge=1)
    """Sequences kept an example after each substitution."""
    candidates: int = Field(default=32, ge=1)
    """Substitutions tried by a forward pass, of each sequence in the beam; with all that there are and one edit the
    search is exhaustive."""
    polish: int = Field(default=1, ge=0)
    """Rounds after the budget is used up, in which tokens that were replaced are replaced again."""
    tries: int = Field(default=32, ge=0)
    """Random points of the budget, without gradients, on what stands then."""
    search: Literal["gradient", "loss"] = "gradient"
    """``"loss"``: substitutions at random, kept by their loss; of models without gradients or an embedding."""


class TokenSwap:
    """Replaces tokens by their alternatives, within a number of edits."""

    name = "token_swap"
    options = Options
    domains: frozenset[Domain] = frozenset({"tokens"})
    norms = frozenset({"edits"})
    gradients = True

    def refuses(self, shape: tuple[int, ...], classes: int) -> str | None:
        """Inputs that are no sequences."""
        return None if len(shape) == 1 else f"it replaces tokens of sequences (length,), not of inputs {shape}"

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena.

        Raises:
            SubjectError: the examples are no tokens of the domain, the budget is longer than they are, or there is no
                embedding to take gradients at.
        """
        from pruneproof.adversarial.swaps import Effort, Swaps

        own = Options.model_validate(options.model_dump())
        edits = int(getattr(arena.space, "edits", 1))
        effort = Effort(own.beam, own.candidates, edits + own.polish, own.tries, own.search == "gradient")
        Swaps(arena, effort).run()


ATTACK = TokenSwap()
