"""Changes of images and signals: brighter, flatter, moved, noisier."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pruneproof.errors import SubjectError
from pruneproof.shift.changes import Change
from pruneproof.shift.draws import Draws
from pruneproof.shift.ground import Ground

FARTHEST = {"brightness": 0.5, "offset": 0.5, "contrast": 0.75, "gain": 0.75, "noise": 0.5}
"""At 1: in shares of the box's range; of contrast and gain, by how much the factor is off 1."""
FARTHEST_MOVE = 0.25
"""At 1: share of the width, height or length."""
WAYS = {"right": ("right", "left"), "down": ("down", "up"), "later": ("later", "earlier")}


class _Thing(NamedTuple):
    """Something that can be changed, by degrees in both directions.

    Args:
        steps: of a move, how many elements it is at most; else 0.
        axis: of a move, of the example.
    """

    name: str
    steps: int = 0
    axis: int = 0


class BoxChanges:
    """A small family of what a camera or a sensor does; see :class:`~pruneproof.shift.changes.Changes`.

    Applied in the order move, contrast, brightness, noise; what leaves the box is cut off. Noise is Gaussian, drawn
    once for each example; asking for less of it scales the same noise.

    Raises:
        SubjectError: a bound of the box is not finite.
    """

    unit = "spreads"

    def __init__(self, ground: Ground, clean: torch.Tensor, positions: list[int], seed: int) -> None:
        if not (ground.low.isfinite().all() and ground.high.isfinite().all()):
            raise SubjectError("a bound of Box(…) is not finite", "state the range that inputs have")
        self.ground, self.clean, self.positions, self.seed = ground, clean, positions, seed
        self.things = _things(ground.kind, ground.shape)
        self.spread = float(ground.to_unit(ground.reference).double().std(correction=0))

    def starts(self) -> torch.Tensor:
        """Examples within the box."""
        wide = self.clean.double()
        inside = (wide >= self.ground.low) & (wide <= self.ground.high)
        return inside.reshape(len(wide), -1).all(dim=1)

    @property
    def most(self) -> int:
        """None has settings."""
        return 0

    def settings(self, row: int) -> list[int]:
        """Everything goes by degrees."""
        return [0] * len(self.things)

    def built(self, row: int, asked: torch.Tensor) -> torch.Tensor:
        """In the box, in the dtype of the examples."""
        clean = self.clean[row].expand(len(asked), *self.clean.shape[1:])
        unit = self.ground.to_unit(clean)
        for place, thing in enumerate(self.things):
            share = asked[:, place]
            if bool((share != 0).any()):
                unit = self._changed(unit, thing, share, row)
        return self.ground.from_unit(unit, clean)

    def _changed(self, unit: torch.Tensor, thing: _Thing, share: torch.Tensor, row: int) -> torch.Tensor:
        if thing.steps:
            return torch.stack(
                [_moved(one, thing.axis, _steps(thing, float(by))) for one, by in zip(unit, share, strict=True)]
            )
        by = (share * FARTHEST[thing.name]).to(unit.dtype).reshape(-1, *([1] * (unit.ndim - 1)))
        if thing.name in ("contrast", "gain"):
            middle = unit.mean(dim=tuple(range(1, unit.ndim)), keepdim=True)
            return torch.where(by == 0, unit, middle + (1 + by) * (unit - middle))
        if thing.name == "noise":
            drawn = Draws(self.seed, "counterexample", [self.positions[row]]).normal(*unit.shape[1:])
            return unit + by * drawn.to(unit.dtype)
        return unit + by

    def sizes(self, row: int, points: torch.Tensor) -> torch.Tensor:
        """Root mean square of the change, in standard deviations of the reference's elements."""
        off = self.ground.to_unit(points).double() - self.ground.to_unit(self.clean[row, None]).double()
        return off.reshape(len(points), -1).square().mean(dim=1).sqrt() / (self.spread or 1.0)

    def rounder(self, row: int, asked: torch.Tensor, thing: int) -> list[float]:
        """Numbers of few digits in the units that are shown."""
        if self.things[thing].steps:
            return []
        whole = float(asked[thing]) * FARTHEST[self.things[thing].name]
        found = []
        for digits in (1, 2, 3, 4):
            ceiling = -(-abs(whole) * 10**digits // 1) / 10**digits
            found.append(min(ceiling / FARTHEST[self.things[thing].name], 1.0) * (1 if whole > 0 else -1))
        return found

    def told(self, row: int, asked: torch.Tensor, point: torch.Tensor) -> list[Change]:
        """In shares of the range, factors, and pixels or samples."""
        found = []
        for thing, share in zip(self.things, asked.tolist(), strict=True):
            steps = _steps(thing, share)
            if thing.steps and steps:
                ways, what = WAYS[thing.name], "px" if self.ground.kind == "image" else "samples"
                found.append(Change("place", "as it was", f"{abs(steps)} {what} {ways[steps < 0]}"))
            elif not thing.steps and share:
                by = share * FARTHEST[thing.name]
                if thing.name in ("contrast", "gain"):
                    found.append(Change(thing.name, "× 1", f"× {1 + by:.4g}"))
                elif thing.name == "noise":
                    found.append(Change("noise", "none", f"σ = {abs(by):.4g} of the range"))
                else:
                    found.append(Change(thing.name, "0", f"{by:+.4g} of the range"))
        return found

    def shown(self, row: int, asked: torch.Tensor, point: torch.Tensor) -> str:
        """``brightness +0.08 of the range; 2 px right``"""
        told = self.told(row, asked, point)
        return "; ".join(one.after if one.name == "place" else f"{one.name} {one.after}" for one in told)


def _things(kind: str, shape: tuple[int, ...]) -> tuple[_Thing, ...]:
    most = [max(1, int(FARTHEST_MOVE * size)) for size in shape]
    if kind == "image":
        moves = (_Thing("right", most[-1], len(shape) - 1), _Thing("down", most[-2], len(shape) - 2))
        return (*moves, _Thing("contrast"), _Thing("brightness"), _Thing("noise"))
    return (_Thing("later", most[-1], len(shape) - 1), _Thing("gain"), _Thing("offset"), _Thing("noise"))


def _steps(thing: _Thing, share: float) -> int:
    return round(share * thing.steps)


def _moved(example: torch.Tensor, axis: int, steps: int) -> torch.Tensor:
    """Moved along an axis; what comes in repeats the edge."""
    size = example.shape[axis]
    return example.index_select(axis, (torch.arange(size) - steps).clamp(0, size - 1))
