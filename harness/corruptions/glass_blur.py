"""Glass blur: seen through frosted glass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_linear import blurred

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class GlassBlur(OnImages):
    """Blurred by a Gaussian of ``sigma`` pixels, scattered ``iterations`` times over up to ``reach`` pixels, blurred
    again.

    To scatter, every pixel, from the last to the first, takes the colour that stands at a place ``-reach`` to
    ``reach - 1`` rows and columns from it by then. Such are the published images: there, the two are meant to be
    swapped, but of a colour image only one of them changes. In the fraction of an iteration, so many of the pixels take
    part. The blurred image is not cut down to 8 bits in between.
    """

    name = "glass_blur"
    knobs = (
        Knob("sigma", (0.05, 0.25, 0.4, 0.25, 0.4), (0.7, 0.9, 1, 1.1, 1.5), length=True),
        Knob("reach", (1, 1, 1, 1, 1), (1, 2, 2, 3, 4), none=1, length=True),
        Knob("iterations", (1, 1, 1, 2, 2), (2, 1, 3, 2, 2)),
    )

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return tuple(draws.uniform(3, *shape[-2:]) for _ in range(math.ceil(at["iterations"])))

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        found, reach = blurred(images, at["sigma"]), max(round(at["reach"]), 1)
        for done, scattered in enumerate(drawn):
            share = min(at["iterations"] - done, 1)
            source = sources(scattered, reach, share)
            index = source.reshape(len(found), 1, -1).expand(-1, found.shape[1], -1)
            found = found.reshape(index.shape).gather(2, index).reshape(images.shape)
        return blurred(found, at["sigma"])


def sources(drawn: torch.Tensor, reach: int, share: float = 1.0) -> torch.Tensor:
    """``(n, height, width)`` int64: the pixel, counted along rows, whose colour each pixel has after one iteration.

    Args:
        drawn: ``(n, 3, height, width)`` in [0, 1): columns and rows to go, and whether the pixel takes part.
        reach: how far pixels go.
        share: of the pixels that take part.
    """
    import torch

    number, _, height, width = drawn.shape
    own = torch.arange(height * width).reshape(height, width)
    go = (drawn[:, :2] * (2 * reach)).long().clamp_(max=2 * reach - 1) - reach
    part = drawn[:, 2] < share
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    source = torch.where(part & inside, own + go[:, 1] * width + go[:, 0], own).reshape(number, -1)
    # A source that had its turn before has taken another's colour by then: its own source's, and so on.
    flat = own.reshape(1, -1)
    had_its_turn = source > flat
    while True:
        further = torch.where(had_its_turn, source.gather(1, source), source)
        if torch.equal(further, source):
            return source.reshape(number, height, width)
        had_its_turn = had_its_turn & had_its_turn.gather(1, source)
        source = further


CORRUPTION = GlassBlur()
