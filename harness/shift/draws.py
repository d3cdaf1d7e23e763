"""Random numbers that belong to an example: the same in any batch, order, process, or number of threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch


class Draws:
    """The random numbers of some examples, each from a generator of its own.

    They depend on the audit's seed, on what they are drawn for, on the position of the example in its data set, and on
    how many were drawn before. :meth:`rewound` starts again with the same numbers, which are kept, so that all
    severities of one corruption see the same noise, and pay for it once.

    Args:
        seed: of the audit.
        purpose: what they are drawn for: the label of a corruption.
        positions: of the examples, in their data set.
    """

    def __init__(self, seed: int, purpose: str, positions: Sequence[int]) -> None:
        self.positions = tuple(int(position) for position in positions)
        self._stem = f"{seed}\n{purpose}\n".encode()
        self._generators: list[torch.Generator] | None = None
        self._kept: list[tuple[object, torch.Tensor]] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self.positions)

    def rewound(self) -> Draws:
        """Itself, at the beginning."""
        self._next = 0
        return self

    def normal(self, *shape: int) -> torch.Tensor:
        """``(n, *shape)`` float32, standard normal."""
        return self._draw(("normal", shape), lambda out, generator: out.normal_(generator=generator))

    def uniform(self, *shape: int) -> torch.Tensor:
        """``(n, *shape)`` float32 in [0, 1)."""
        return self._draw(("uniform", shape), lambda out, generator: out.uniform_(generator=generator))

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """``(n, *shape)`` int64 in [0, ``high``)."""
        return (self._draw(("wide", shape), _wide, torch.float64) * high).long().clamp_(max=high - 1)

    def _draw(
        self,
        what: tuple[str, tuple[int, ...]],
        fill: Callable[[torch.Tensor, torch.Generator], object],
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        if self._next < len(self._kept):
            before, found = self._kept[self._next]
            if before != what:
                raise ValueError(f"drew {before} before, and now {what} in its place: rewind, or draw in one order")
        else:
            found = torch.empty(len(self.positions), *what[1], dtype=dtype)
            for row, generator in zip(found, self._seeded(), strict=True):
                fill(row, generator)
            self._kept.append((what, found))
        self._next += 1
        return found.clone()

    def _seeded(self) -> list[torch.Generator]:
        if self._generators is None:
            self._generators = [self._generator(position) for position in self.positions]
        return self._generators

    def _generator(self, position: int) -> torch.Generator:
        digest = hashlib.blake2b(self._stem + str(position).encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def _wide(out: torch.Tensor, generator: torch.Generator) -> None:
    out.uniform_(generator=generator)
