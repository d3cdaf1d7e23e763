"""Edits of token sequences: what an attacker may do to a text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pruneproof.domain import Tokens
from pruneproof.errors import SubjectError


@dataclass(frozen=True, eq=False)
class EditSpace:
    """Sequences that differ from the clean one in at most ``edits`` positions; a space of attacks.

    A token is replaced by one of its alternatives as :class:`~pruneproof.domain.Tokens` states them; nothing is
    inserted or deleted. Points are integers ``(n, length)`` like the clean examples.

    Args:
        edits: a whole number from 1.

    Raises:
        SubjectError: ``edits`` is no whole number above 0, or the tokens' description contradicts itself.
    """

    tokens: Tokens
    edits: float

    def __post_init__(self) -> None:
        if not _is_count(self.edits):
            raise SubjectError(
                f"a limit of {self.edits!r} edits", "give the number of tokens that may be replaced: 1, 2, …"
            )
        object.__setattr__(self, "edits", int(self.edits))
        check_tokens(self.tokens)
        if self.most == 0:
            raise SubjectError(
                "no token may stand in the place of another: all are frozen or without alternatives",
                "freeze fewer tokens, or list alternatives",
            )

    def check(self, clean: torch.Tensor) -> None:
        """Examples ``(n, length)`` are sequences of these tokens, and something in them may be replaced.

        Raises:
            SubjectError: they are not, or the budget is longer than they are.
        """
        if clean.ndim != 2 or not is_integer(clean):
            raise SubjectError(
                f"the domain is Tokens, the inputs are {clean.dtype} of shape {tuple(clean.shape)}",
                "give integer tokens (n, length), or state the domain that the inputs have",
            )
        outside = (clean < 0) | (clean >= self.tokens.size)
        if bool(outside.any()):
            row, position = outside.nonzero()[0].tolist()
            raise SubjectError(
                f"token {int(clean[row, position])} at position {position} of example {row} is outside the vocabulary"
                f" of {self.tokens.size}",
                "give Tokens(size=…) the number of rows of the embedding, or correct the inputs",
            )
        if self.edits > clean.shape[1]:
            raise SubjectError(
                f"a limit of {self.edits} edits on sequences of {clean.shape[1]} tokens",
                f"allow at most {clean.shape[1]} edits",
            )
        if len(clean) and not bool(self.replaceable(clean).any()):
            raise SubjectError(
                "no token of these examples may be replaced: all are frozen or without alternatives",
                "freeze fewer tokens, or list alternatives for those that occur",
            )

    def contains(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` booleans: integers of the same shape, every replacement allowed, within the budget."""
        if points.shape != clean.shape or not is_integer(points):
            return torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        within = self.distance(clean, points) <= self.edits
        return within & ((points == clean) | self.allows(clean, points)).all(dim=1)

    def distance(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` float64: positions that differ."""
        return (points != clean).sum(dim=1).double()

    def start(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """As many random allowed edits as the budget and the example have room for."""
        drawn = torch.rand((len(clean), 2, clean.shape[1]), generator=generator, dtype=torch.float64).to(clean.device)
        order = torch.where(self.replaceable(clean), drawn[:, 0], -1.0)
        chosen = order.topk(min(int(self.edits), clean.shape[1]), dim=1)
        place = torch.zeros_like(order, dtype=torch.bool).scatter(1, chosen.indices, chosen.values >= 0)
        return torch.where(place, self._drawn(clean, drawn[:, 1]), clean)

    def at(self, eps: float) -> EditSpace:
        """The same alternatives with ``eps`` edits."""
        return EditSpace(self.tokens, eps)

    def describe(self) -> dict[str, Any]:
        """The threat model in plain values, the alternatives by their number and digest."""
        about: dict[str, Any] = {
            "norm": "edits",
            "eps": self.edits,
            "vocabulary": self.tokens.size,
            "frozen": sorted(self.tokens.frozen),
            "alternatives": "any token that is not frozen",
        }
        if self._pairs is not None:
            about["alternatives"] = f"{len(self._pairs)} listed replacements"
            about["alternatives_sha256"] = hashlib.sha256(self._pairs.numpy().astype("<i8").tobytes()).hexdigest()
        return about

    def shown(self, clean: torch.Tensor, point: torch.Tensor) -> str:
        """What was replaced, position by position; of characters, the words that they stand in."""
        before, after = clean.tolist(), point.tolist()
        changed = [position for position, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        text = self.tokens.text
        if text is None:
            return "; ".join(f"token {before[at]} → {after[at]} at position {at}" for at in changed)
        old, new = [text(token) for token in before], [text(token) for token in after]
        if all(len(piece) == 1 for token, piece in zip(before, old, strict=True) if token not in self.tokens.frozen):
            words = dict.fromkeys(_word(old, new, position) for position in changed)
            return "; ".join(f"{_plain(''.join(old[a:b]))} → {_plain(''.join(new[a:b]))}" for a, b in words)
        return "; ".join(f"{_plain(old[at])} → {_plain(new[at])}" for at in changed)

    def replaceable(self, tokens: torch.Tensor) -> torch.Tensor:
        """Booleans of ``tokens``'s shape: whether there is anything to put in a token's place."""
        return self._counts.to(tokens.device)[tokens] > 0

    def allows(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Booleans of their shape: whether ``new`` may stand in the place of ``old``."""
        known = (new >= 0) & (new < self.tokens.size)
        if self._pairs is not None:
            return known & torch.isin(old.long() * self.tokens.size + new.long(), self._pairs.to(old.device))
        free = self._free.to(old.device)
        return known & free[old] & free[new.clamp(0, self.tokens.size - 1)] & (old != new)

    @cached_property
    def most(self) -> int:
        """The largest number of alternatives that a token has."""
        return int(self._counts.max())

    def options(self, tokens: torch.Tensor) -> torch.Tensor:
        """``(…, most)`` alternatives of each token, filled up with -1."""
        place = torch.arange(self.most, device=tokens.device)
        counts = self._counts.to(tokens.device)[tokens][..., None]
        return torch.where(place < counts, self._nth(tokens[..., None], place.clamp(max=counts - 1)), -1)

    def _drawn(self, tokens: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """For each token one of its alternatives, by ``share`` in [0, 1)."""
        counts = self._counts.to(tokens.device)[tokens]
        return self._nth(tokens, (share * counts).long().clamp(max=counts - 1)).to(tokens.dtype)

    def _nth(self, tokens: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """The alternative at ``place`` of each token; of a token without any, anything."""
        if self._pairs is not None:
            first = self._counts.cumsum(0).sub(self._counts).to(tokens.device)[tokens]
            last = len(self._pairs) - 1
            return self._pairs.to(tokens.device)[(first + place).clamp(0, last)] % self.tokens.size
        # Every free token but itself: those at and after its own place among them move up by one.
        free = self._free.nonzero().flatten().to(tokens.device)
        own = self._free.cumsum(0).sub(1).to(tokens.device)[tokens]
        return free[(place + (place >= own)).clamp(0, len(free) - 1)]

    @cached_property
    def _free(self) -> torch.Tensor:
        free = torch.ones(self.tokens.size, dtype=torch.bool)
        free[sorted(self.tokens.frozen)] = False
        return free

    @cached_property
    def _pairs(self) -> torch.Tensor | None:
        """Allowed replacements as ``old · size + new``, ascending; ``None``: any free token for any other."""
        if self.tokens.alternatives is None:
            return None
        frozen, size = self.tokens.frozen, self.tokens.size
        found = {
            old * size + new
            for old, news in self.tokens.alternatives.items()
            for new in news
            if old != new and old not in frozen and new not in frozen
        }
        return torch.tensor(sorted(found), dtype=torch.int64)

    @cached_property
    def _counts(self) -> torch.Tensor:
        """``(size,)`` the number of alternatives of each token."""
        if self._pairs is not None:
            return torch.bincount(self._pairs // self.tokens.size, minlength=self.tokens.size)
        return self._free.long() * (int(self._free.sum()) - 1)


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 and value % 1 == 0


def is_integer(values: torch.Tensor) -> bool:
    """Whether they are whole numbers by their dtype; booleans are none."""
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def check_tokens(tokens: Tokens) -> None:
    """The description of a vocabulary does not contradict itself.

    Raises:
        SubjectError: it does.
    """
    if tokens.size < 2:
        raise SubjectError(f"a vocabulary of {tokens.size} tokens", "give Tokens(size=…) of at least 2")
    listed = tokens.alternatives or {}
    named = set(tokens.frozen) | set(listed) | {new for news in listed.values() for new in news}
    outside = sorted(token for token in named if not 0 <= token < tokens.size)
    if outside:
        raise SubjectError(
            f"Tokens names token {outside[0]}, outside its vocabulary of {tokens.size}",
            "correct frozen, alternatives or size",
        )


def _word(old: list[str], new: list[str], position: int) -> tuple[int, int]:
    """Where the word around ``position`` begins and stops: up to white space, or to what is no character."""
    blank = [len(a) != 1 or (a.isspace() and b.isspace()) for a, b in zip(old, new, strict=True)]
    first = last = position
    while first > 0 and not blank[first - 1]:
        first -= 1
    while last + 1 < len(blank) and not blank[last + 1]:
        last += 1
    return first, last + 1


def _plain(text: str) -> str:
    """``text`` in quotation marks, with what cannot be printed escaped."""
    return "“" + "".join(char if char.isprintable() else repr(char)[1:-1] for char in text) + "”"
