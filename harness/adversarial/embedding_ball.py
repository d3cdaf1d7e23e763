"""Balls around the vectors of tokens: what an attacker may do in the space of embeddings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pruneproof.domain import Tokens
from pruneproof.errors import SubjectError

TOLERANCE = 1e-9
"""Relative, of L2 norms: their sums of squares are rounded in float64."""


@dataclass(frozen=True, eq=False)
class EmbeddingBall:
    """Sequences whose tokens' vectors are moved by at most ``eps`` each, in at most ``positions`` places.

    Points and clean examples are those of a lifted victim (:func:`pruneproof.adversarial.embeddings.lift`). Vectors of
    frozen tokens stay where they are.

    Args:
        norm: of one token's move.
        eps: above 0, in the units of the embedding.
        positions: tokens that may be moved at the same time; ``None``: all.

    Raises:
        SubjectError: a budget that is none.
    """

    tokens: Tokens
    norm: Literal["Linf", "L2"]
    eps: float
    positions: int | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("Linf", "L2"):
            raise SubjectError(f"unknown norm {self.norm!r} of a token's move", "name one of Linf, L2")
        if not 0 < self.eps < float("inf"):
            raise SubjectError(f"an embedding ball of eps {self.eps}", "give a finite eps above 0")
        if self.positions is not None and self.positions < 1:
            raise SubjectError(f"a limit of {self.positions} positions", "allow at least 1, or leave it out")

    def contains(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` booleans; exact for Linf, within 1e-9 of ``eps`` for L2."""
        if points.shape != clean.shape or not points.is_floating_point():
            return torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        sizes = self._sizes(points)
        allowed = self.eps if self.norm == "Linf" else self.eps * (1 + TOLERANCE)
        fair = (points[..., 0] == clean[..., 0]) & (sizes <= allowed) & ((sizes == 0) | self.movable(clean))
        return fair.all(dim=1) & ((sizes > 0).sum(dim=1) <= self._most(clean))

    def distance(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` float64: the longest move of one token, in the units of the embedding."""
        return self._sizes(points).amax(dim=1)

    def start(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Random moves of random tokens, uniform in the cube that the ball lies in, then projected."""
        drawn = torch.rand(clean.shape, generator=generator, dtype=torch.float64).to(clean.device)
        order = torch.where(self.movable(clean), drawn[..., 0], -1.0)
        moves = (2 * drawn[..., 1:] - 1) * self.eps
        return self.project(clean, moves, chosen(order, self._most(clean)))

    def project(self, clean: torch.Tensor, moves: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The points of the space nearest to ``moves (n, length, width)`` that move ``places (n, length)`` alone.

        Rounded towards the clean example, so that rounding leads out of no ball. The caller keeps the places few.
        """
        wide = moves.double() * (places & self.movable(clean))[..., None]
        if self.norm == "Linf":
            bound = torch.tensor(self.eps, dtype=clean.dtype)
            if bound.double() > self.eps:
                bound = torch.nextafter(bound, torch.zeros_like(bound))
            moved = wide.to(clean.dtype).clamp(-bound.item(), bound.item())
        else:
            norms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            inside = self.eps * (1 - 4 * torch.finfo(clean.dtype).eps)
            moved = (wide * (inside / norms.clamp_min(inside))).to(clean.dtype)
        return torch.cat([clean[..., :1], moved], dim=-1)

    def gain(self, gradients: torch.Tensor) -> torch.Tensor:
        """``(n, length)`` how much the loss can rise by moving each token, to first order: the dual norm."""
        order = 1 if self.norm == "Linf" else 2
        length: torch.Tensor = torch.linalg.vector_norm(gradients.double(), ord=order, dim=-1)
        return length * self.eps

    def step(self, gradients: torch.Tensor, size: float) -> torch.Tensor:
        """The moves ``(n, length, width)`` of that size along which the loss rises most; none where it is flat."""
        if self.norm == "Linf":
            return gradients.sign() * size
        norms = torch.linalg.vector_norm(gradients, dim=-1, keepdim=True)
        moves: torch.Tensor = gradients / norms.clamp_min(torch.finfo(gradients.dtype).tiny) * size
        return moves

    def movable(self, clean: torch.Tensor) -> torch.Tensor:
        """``(n, length)`` booleans: tokens that are not frozen."""
        frozen = torch.tensor(sorted(self.tokens.frozen), dtype=torch.int64, device=clean.device)
        return ~torch.isin(clean[..., 0].long(), frozen)

    def at(self, eps: float) -> EmbeddingBall:
        """The same tokens with another budget for each."""
        return dataclasses.replace(self, eps=eps)

    def describe(self) -> dict[str, Any]:
        """The threat model in plain values."""
        return {
            "norm": self.norm,
            "eps": self.eps,
            "unit": "of the embedding, for each token",
            "positions": self.positions,
            "frozen": sorted(self.tokens.frozen),
        }

    def shown(self, clean: torch.Tensor, point: torch.Tensor) -> str:
        """Which tokens were moved, and how far."""
        sizes = self._sizes(point[None])[0].tolist()
        text = self.tokens.text or (lambda token: f"token {token}")
        moved = [(place, size) for place, size in enumerate(sizes) if size > 0]
        return "; ".join(f"{text(int(clean[place, 0]))} moved by {size:.3g} ({self.norm})" for place, size in moved)

    def _sizes(self, points: torch.Tensor) -> torch.Tensor:
        order = float("inf") if self.norm == "Linf" else 2
        sizes: torch.Tensor = torch.linalg.vector_norm(points[..., 1:].double(), ord=order, dim=-1)
        return sizes

    def _most(self, clean: torch.Tensor) -> int:
        return clean.shape[1] if self.positions is None else min(self.positions, clean.shape[1])


def chosen(order: torch.Tensor, most: int) -> torch.Tensor:
    """Booleans of the ``most`` largest of each row of ``order (n, length)``, negative ones excluded."""
    best = order.topk(most, dim=1)
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, best.indices, best.values >= 0)
