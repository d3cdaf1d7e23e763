"""Square Attack's random moves: a square of a picture is changed at a time.

Source: Andriushchenko, Croce, Flammarion & Hein 2020 (Square Attack, arXiv 1912.00049).
"""

from __future__ import annotations

import math
from functools import cache

import torch

from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.draws import Draws, State, reached
from pruneproof.adversarial.pictures import Pictures

AREA = 0.8
"""Share of a picture that a square covers at first, as in AutoAttack."""


class Corners(Pictures):
    """In Linf: every element at one of its two limits, squares of them set anew (algorithm 2)."""

    def __init__(self, ball: Ball, clean: torch.Tensor) -> None:
        super().__init__(ball, clean)
        self.lower, self.upper = (self.pictures(bound) for bound in ball.limits(clean))

    def first(self, draws: Draws) -> State:
        """Vertical stripes of one element."""
        channels, _, width = self.shape
        return (self._set(draws.signs(channels, 1, width).to(self.clean.device), draws.rows),)

    def next(self, state: State, draws: Draws, progress: float) -> State:
        """A square of one sign a channel. Where that would change nothing, of the opposite signs."""
        signs = draws.signs(self.shape[0], 1, 1).to(self.clean.device)
        lines, columns = self.places(*self.window(AREA * shrunk(progress)), draws)
        down, along = torch.arange(self.shape[1])[:, None], torch.arange(self.shape[2])
        inside = (lines[:, :1] <= down) & (down <= lines[:, -1:])
        inside = inside & (columns[..., :1] <= along) & (along <= columns[..., -1:])
        inside = inside[:, None].to(self.clean.device)
        (now,) = state
        moved = torch.where(inside, self._set(signs, draws.rows), now)
        idle = (moved == now).flatten(1).all(dim=1)[:, None, None, None]
        return (torch.where(idle & inside, self._set(-signs, draws.rows), moved),)

    def points(self, state: State, rows: torch.Tensor) -> torch.Tensor:
        return self.examples(state[0])

    def _set(self, signs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.where(signs > 0, self.upper[rows], self.lower[rows])


class Heaps(Pictures):
    """In L2: heaps of change, of which one is taken away and heaped up elsewhere (algorithm 3).

    The state is the change, in units and in float64.
    """

    def __init__(self, ball: Ball, clean: torch.Tensor) -> None:
        super().__init__(ball, clean)
        self.unit = torch.as_tensor(ball.unit, dtype=torch.float64, device=clean.device)
        lower, upper = ball.limits(clean)
        self.down = self.pictures((lower.double() - clean.double()) / self.unit)
        self.up = self.pictures((upper.double() - clean.double()) / self.unit)
        """How far each element can go, in units: at most 0, at least 0."""

    def first(self, draws: Draws) -> State:
        """About five by five heaps of random signs."""
        channels, height, width = self.shape
        tall, wide = max(1, height // 5), max(1, width // 5)
        found = torch.zeros(len(draws.rows), *self.shape, dtype=torch.float64)
        for top in range((height % tall) // 2, height - tall + 1, tall):
            for left in range((width % wide) // 2, width - wide + 1, wide):
                heap = self._heap(tall, wide, draws)
                found[:, :, top : top + tall, left : left + wide] = heap * draws.signs(channels, 1, 1)
        return (self._inside(self._full(found.to(self.clean.device)), draws.rows),)

    def next(self, state: State, draws: Draws, progress: float) -> State:
        """Takes one window's change away and adds as much to another's, in the direction it has there.

        Rows of numbers have few windows: every second time, at random, the whole change is turned a little instead.
        """
        heaped = self._heaped(state[0], draws, progress)
        if self.shape[1] > 1:
            return (heaped,)
        turned = self._turned(state[0], draws, progress)
        heads = draws.uniform(1, 1, 1).to(self.clean.device) < 0.5
        return (torch.where(heads, heaped, turned),)

    def _heaped(self, now: torch.Tensor, draws: Draws, progress: float) -> torch.Tensor:
        tall, wide = (_odd(side) for side in self.window(AREA * shrunk(progress), least=3))
        device = self.clean.device
        to, away = ([part.to(device) for part in self.places(tall, wide, draws)] for _ in range(2))
        heap = self._heap(tall, wide, draws) * draws.signs(self.shape[0], 1, 1)
        every = torch.arange(len(now), device=device)[:, None, None]
        lasting = now.clone()
        lasting[every, :, to[0], to[1]] = 0
        lasting[every, :, away[0], away[1]] = 0
        before = now[every, :, to[0], to[1]].permute(0, 3, 1, 2)
        heap = heap.to(device) + before / _lengths(before).clamp_min(1e-12)
        unused = (self.ball.eps**2 - now.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0) / self.shape[0]
        taken = (_lengths(now).square() - _lengths(lasting).square()).clamp_min(0)
        heap = heap / _lengths(heap).clamp_min(1e-12) * (unused + taken).sqrt()
        lasting[every, :, to[0], to[1]] = heap.permute(0, 2, 3, 1)
        return self._inside(self._full(lasting), draws.rows)

    def _turned(self, now: torch.Tensor, draws: Draws, progress: float) -> torch.Tensor:
        """A step of an evolution strategy on the sphere, (1 + 1)-ES."""
        way = torch.special.ndtri(draws.uniform(*self.shape).double().clamp(2**-26, 1 - 2**-26)).to(now.device)
        step = way / math.sqrt(math.prod(self.shape)) * self.ball.eps * math.sqrt(shrunk(progress))
        return self._inside(self._full(now + step), draws.rows)

    def points(self, state: State, rows: torch.Tensor) -> torch.Tensor:
        clean = self.clean[rows]
        return self.ball.project(clean, clean.double() + self.examples(state[0]) * self.unit)

    def _full(self, change: torch.Tensor) -> torch.Tensor:
        """With the whole budget spent."""
        length = change.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
        return change / length.clamp_min(1e-12) * self.ball.eps

    def _inside(self, change: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Without what leads out of the box."""
        return torch.clamp(change, self.down[rows], self.up[rows])

    def _heap(self, tall: int, wide: int, draws: Draws) -> torch.Tensor:
        """``(n, 1, tall, wide)``: two pyramids side by side or on top of each other, of opposite signs, of length 1."""
        upright = draws.uniform() < 0.5
        if tall == 1 or wide == 1:  # there is only one way to halve it
            upright = torch.full_like(upright, wide == 1)
        both = torch.where(upright[:, None, None], _halves(tall, wide), _halves(wide, tall).T)
        return both[:, None]


def shrunk(progress: float) -> float:
    """Square Attack's schedule of areas, halved nine times on the way."""
    return 0.5 ** reached(progress)


def _odd(side: int) -> int:
    """Squares with a middle; one of two sides that cannot be enlarged stays as it is."""
    return side if side % 2 or side <= 2 else side - 1


def _lengths(windows: torch.Tensor) -> torch.Tensor:
    """``(n, channels, 1, 1)``"""
    return windows.square().sum(dim=(2, 3), keepdim=True).sqrt()


@cache
def _halves(tall: int, wide: int) -> torch.Tensor:
    """``(tall, wide)``: a pyramid above, one upside down below, as long as each other and together of length 1."""
    above = tall // 2
    halves = [_pyramid(above, wide), -_pyramid(tall - above, wide)] if above else [_pyramid(tall, wide)]
    lengths = [half.square().sum().sqrt() for half in halves]
    return torch.cat([half / length for half, length in zip(halves, lengths, strict=True)]) / math.sqrt(len(halves))


def _pyramid(tall: int, wide: int) -> torch.Tensor:
    """Of rings around the middle, each higher by 1/k² than the one around it (k = 1 for the innermost)."""
    lines, columns = (torch.arange(tall) - tall // 2).abs(), (torch.arange(wide) - wide // 2).abs()
    ring = torch.maximum(lines[:, None], columns[None])
    steps = 1.0 / torch.arange(1, max(tall, wide) // 2 + 2, dtype=torch.float64).square()
    return torch.flip(torch.flip(steps, (0,)).cumsum(0), (0,))[ring]
