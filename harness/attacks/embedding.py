"""Projected gradient steps in the space of embeddings, of language models and others that read tokens.

A success is a move of vectors, not a text: it bounds what any text near by could do, and shows where a model is brittle
(Miyato et al. 2017, arXiv 1605.07725, perturb there; Schwinn et al. 2024, arXiv 2402.09063, attack there). It is
confirmed by a forward pass whose embedding layer's answer is moved by it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from pruneproof.attacks import Domain
from pruneproof.tables import Record

if TYPE_CHECKING:
    import torch

    from pruneproof.adversarial.arena import Arena
    from pruneproof.adversarial.embedding_ball import EmbeddingBall
    from pruneproof.adversarial.victim import Loss, Victim
    from pruneproof.domain import Tokens

ELEMENTS = 2**24
"""Numbers in the largest tensors: the memory does not grow with the number of examples."""


class Options(Record):
    """How hard to search, and how many tokens may be moved; the budget of each is the suite's ``eps``."""

    positions: int | None = Field(default=None, ge=1)
    """Tokens that may be moved at the same time; default: all."""
    steps: int = Field(default=20, ge=1)
    restarts: int = Field(default=2, ge=1)


class Embedding:
    """Moves tokens' vectors within a ball around each. Its arena is made of what :meth:`prepare` gives."""

    name = "embedding"
    options = Options
    domains: frozenset[Domain] = frozenset({"tokens"})
    norms = frozenset({"Linf", "L2"})
    gradients = True

    def refuses(self, shape: tuple[int, ...], classes: int) -> str | None:
        """Inputs that are no sequences."""
        return None if len(shape) == 1 else f"it moves the vectors of sequences (length,), not of inputs {shape}"

    def prepare(
        self,
        victims: Sequence[Victim],
        clean: torch.Tensor,
        tokens: Tokens,
        norm: str,
        eps: float,
        options: BaseModel,
    ) -> tuple[list[Victim], torch.Tensor, EmbeddingBall]:
        """Victims, clean examples and space of the arena that it attacks, of those of the tokens ``(n, length)``.

        Raises:
            SubjectError: the examples are no tokens, an embedding is not found, or the budget is none.
            MeasurementError: the variants embed in different widths.
        """
        from pruneproof.adversarial import embeddings
        from pruneproof.adversarial.embedding_ball import EmbeddingBall
        from pruneproof.errors import SubjectError

        own = Options.model_validate(options.model_dump())
        space = EmbeddingBall(tokens, norm, eps, own.positions)  # type: ignore[arg-type]  # others are refused there
        opened, points = embeddings.lift(victims, clean, tokens)
        if own.positions is not None and own.positions > points.shape[1]:
            raise SubjectError(
                f"{own.positions} positions may be moved in sequences of {points.shape[1]} tokens",
                f"allow at most {points.shape[1]} positions",
            )
        return opened, points, space

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena.

        Raises:
            SubjectError: the arena was not made of what :meth:`prepare` gives.
            MeasurementError: a victim's backward pass raised.
        """
        from pruneproof.adversarial.embedding_ball import EmbeddingBall
        from pruneproof.errors import SubjectError

        own = Options.model_validate(options.model_dump())
        space = arena.space
        if not isinstance(space, EmbeddingBall):
            raise SubjectError(
                f"the embedding attack moves vectors, and the space is a {type(space).__name__}",
                "make the arena of what ATTACK.prepare(victims, clean, tokens, …) gives",
            )
        arena.shared(lambda victim: _fight(arena, space, victim, own))


def _fight(arena: Arena, space: EmbeddingBall, victim: Victim, own: Options) -> None:
    for restart in range(own.restarts):
        _climb(arena, space, victim, restart, own.steps)


def _climb(arena: Arena, space: EmbeddingBall, victim: Victim, restart: int, steps: int) -> None:
    """Steps of one restart, smaller and smaller along a cosine; restarts climb cross-entropy and margin in turns."""
    import torch

    from pruneproof.adversarial.margin import cross_entropy, margin
    from pruneproof.adversarial.swaps import attended

    rows, loss = arena.rows(victim), (margin if restart % 2 else cross_entropy)(arena.aim)
    if not len(rows):
        return
    looked_at = attended(arena)
    with arena.stage(f"restart {restart + 1}", victim, len(rows)) as stage:
        for some in torch.split(rows, max(1, ELEMENTS // math.prod(arena.clean.shape[1:]))):
            start = _start(arena, space, restart, some)
            where = start if restart else arena.clean[some]
            places = _places(space, victim, where, some, loss, looked_at[some], arena.aim)
            points = space.project(arena.clean[some], start[..., 1:], places)
            for step in range(steps):
                found = victim.gradient(points, some, loss, arena.aim)
                if found.fooled.any():
                    arena.submit(victim, stage, some[found.fooled], points[found.fooled])
                slope = found.value[..., 1:].nan_to_num(0.0, 0.0, 0.0)
                size = space.eps * (1 + math.cos(math.pi * step / steps)) / 2
                points = space.project(arena.clean[some], points[..., 1:] + space.step(slope, size), places)
                left = _standing(arena, victim, some)
                some, points, places = some[left], points[left], places[left]
                if not len(some):
                    break
            else:
                arena.submit(victim, stage, some, points)


def _start(arena: Arena, space: EmbeddingBall, restart: int, rows: torch.Tensor) -> torch.Tensor:
    """A random point for each row, every token moved, the same for every victim."""
    import torch

    whole = dataclasses.replace(space, positions=None)
    return torch.cat(
        [whole.start(arena.clean[row : row + 1], arena.generator("embedding", restart, row)) for row in rows.tolist()]
    )


def _places(
    space: EmbeddingBall,
    victim: Victim,
    points: torch.Tensor,
    rows: torch.Tensor,
    loss: Loss,
    looked_at: torch.Tensor,
    aim: int | None,
) -> torch.Tensor:
    """``(n, length)`` booleans: the tokens to be moved, those by which the loss can rise most at ``points``."""
    from pruneproof.adversarial.embedding_ball import chosen

    able = looked_at & space.movable(points)
    if space.positions is None:
        return able
    gain = space.gain(victim.gradient(points, rows, loss, aim).value[..., 1:]).nan_to_num(0.0)
    return chosen(gain.masked_fill(~able, -1.0), space.positions)


def _standing(arena: Arena, victim: Victim, rows: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.isin(rows, arena.rows(victim))


ATTACK = Embedding()
