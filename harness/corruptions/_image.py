"""What the corruptions of images have in common: the families of ImageNet-C and CIFAR-C (Hendrycks & Dietterich 2019,
arXiv 1903.12261).

They see ``(n, channels, height, width)`` float32 in [0, 1], and what they give back is put in the range and type of the
data. What becomes of an image is worked out element by element, in a fixed order of additions, or in sums that are
exact (:mod:`~pruneproof.corruptions._image_linear`), so that the bytes do not depend on the batch or on threads.
Element by element means one operation after the other, each rounded as IEEE 754 has it: no ``lerp``, ``addcmul``,
``exp`` or ``alpha=``, which torch may round otherwise in the last elements of a tensor than in the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import BaseModel

from pruneproof.corruptions import Kind, Parameters, _levels
from pruneproof.corruptions._image_range import close, opened
from pruneproof.tables import Record

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

CIFAR, IMAGENET = 32, 224
"""Sides of the images that the two published sets of constants are for."""
LEAST = 8
FINEST = 1e-9
"""Of a reciprocal; smaller lengths and amplitudes count as this where something is divided by them."""
Constants = Literal["by_size", "cifar", "imagenet"]
Values = Mapping[str, float]
Drawn: TypeAlias = "Sequence[torch.Tensor]"
TOGETHER = 2**17
"""Numbers worked on at a time, so that they stay in the cache; results do not depend on it."""


class Options(Record):
    """``constants``: which published constants apply (:class:`Knob`): those for the images' size, those of CIFAR-C, or
    those of ImageNet-C as they are, in its pixels, whatever the size."""

    constants: Constants = "by_size"


@dataclass(frozen=True)
class Knob:
    """One parameter of a corruption, over severities and sizes of image.

    Images of 32 × 32 get the constants of CIFAR-C and images of 224 × 224 those of ImageNet-C, as published; in
    between, values are interpolated linearly in the logarithm of the side (the shorter one). Beyond, the nearest
    constants hold. Lengths in pixels then grow with the side beyond 224, but do not shrink below 32, where a blur of
    a part of a pixel would change nothing; how far points move does shrink. Between severities values are interpolated
    linearly.

    Args:
        name: for reports.
        cifar, imagenet: at severities 1 to 5.
        none: at severity 0, where nothing changes. ``None``: as at severity 1.
        length: it is a length in pixels.
        share: it is a length in pixels that keeps its share of the side below 32, too.
        reciprocal: it is ``1 / value`` that is interpolated.
    """

    name: str
    cifar: tuple[float, float, float, float, float]
    imagenet: tuple[float, float, float, float, float]
    none: float | None = 0.0
    length: bool = False
    share: bool = False
    reciprocal: bool = False

    def at(self, severity: float, side: int, constants: Constants = "by_size") -> float:
        """The value at ``severity`` in [0, 5], of images whose shorter side is ``side`` pixels."""
        toward = {"by_size": _toward(side), "cifar": 0.0, "imagenet": 1.0}[constants]
        small, large = (self._level(levels, severity) for levels in (self.cifar, self.imagenet))
        found = (1 - toward) * small + toward * large if 0 < toward < 1 else (large if toward else small)
        if constants == "by_size" and (self.length or self.share):
            found *= max(side / IMAGENET, 1.0)
        if constants == "by_size" and self.share:
            found *= min(side / CIFAR, 1.0)
        if self.reciprocal:
            return 1 / max(found, FINEST)
        return found

    def _level(self, levels: tuple[float, ...], severity: float) -> float:
        none = levels[0] if self.none is None else self.none
        if self.reciprocal:
            return _levels.at([1 / level for level in levels], severity, none=1 / none)
        return _levels.at(levels, severity, none=none)


def _toward(side: int) -> float:
    """0: the constants of CIFAR-C; 1: those of ImageNet-C."""
    return min(max(math.log(side / CIFAR) / math.log(IMAGENET / CIFAR), 0.0), 1.0)


class OnImages:
    """Corrupts ``(channels, height, width)`` of a :class:`~pruneproof.domain.Box`."""

    name: str
    kinds: frozenset[Kind] = frozenset({"image"})
    options: type[BaseModel] = Options
    knobs: tuple[Knob, ...] = ()
    channels: frozenset[int] | None = None
    """Numbers of channels that the formula is for; ``None``: any, each channel by itself."""

    def refuses(self, ground: Ground, options: BaseModel) -> str | None:
        """Other shapes, fewer than 8 × 8 pixels, bounds that are not finite, numbers of channels without a formula."""
        import torch

        if len(ground.shape) != 3:
            return f"it changes images (channels, height, width), not inputs {ground.shape}"
        channels, height, width = ground.shape
        if min(height, width) < LEAST:
            return f"images of {height} × {width} pixels are smaller than {LEAST} × {LEAST}"
        if not bool(torch.isfinite(ground.high - ground.low).all() and (ground.high > ground.low).all()):
            return "the bounds of the images' box are not finite, or not apart"
        if self.channels is not None and channels not in self.channels:
            known = " or ".join(str(number) for number in sorted(self.channels))
            return f"its formula is for images of {known} channels (grey, RGB), not of {channels}"
        return None

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """Values of its knobs; lengths in pixels, amplitudes as shares of the range. At severity 0: none."""
        if severity == 0:
            return {}
        return {name: float(f"{value:.6g}") for name, value in self.values(ground, severity, options).items()}

    def values(self, ground: Ground, severity: float, options: BaseModel) -> Values:
        """Knobs by name, as they are used."""
        assert isinstance(options, Options)
        side = min(ground.shape[-2:])
        return {knob.name: knob.at(severity, side, options.constants) for knob in self.knobs}

    def apply(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        """``(n, channels, height, width)`` images."""
        import torch

        if severity == 0 or not len(clean):
            return clean.clone()
        at = self.values(ground, severity, options)
        drawn = self.drawn(tuple(clean.shape[1:]), at, draws)
        found = torch.empty_like(clean)
        step = max(1, TOGETHER // clean[0].numel())
        for start in range(0, len(clean), step):
            some = slice(start, start + step)
            images = opened(clean[some], ground)
            part = self.changed(images, at, [numbers[some] for numbers in drawn])
            close(part, images, clean[some], ground, out=found[some])
        return found

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        """What :meth:`changed` needs of random numbers, each ``(n, …)``; at every severity the same ones, in the same
        order, though there may be fewer. Default: none.

        Args:
            shape: of one image.
        """
        return ()

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        """``(n, channels, height, width)`` float32, a tensor of its own, of ``images``, which it leaves as they are;
        what leaves [0, 1] is cut off afterwards. What was drawn is its own to change."""
        raise NotImplementedError
