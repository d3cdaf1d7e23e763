"""Uniform noise, which "Lost in Pruning" found pruned networks to fear (Liebenwein et al. 2021, arXiv 2103.03014)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from pruneproof.corruptions._image import OnImages, Options, Values

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground


class Width(Options):
    """``epsilon``: the most that a number moves at severity 5, as a share of its range. There are no published
    severities; ``constants`` has no effect."""

    epsilon: Annotated[float, Field(gt=0, le=1)] = 0.5


class UniformNoise(OnImages):
    """``x + 2ε(u - 0.5)``, u uniform in [0, 1), each number by itself; ε is ``epsilon · severity / 5``."""

    name = "uniform_noise"
    options: type[BaseModel] = Width

    def values(self, ground: Ground, severity: float, options: BaseModel) -> Values:
        assert isinstance(options, Width)
        return {"epsilon": options.epsilon * severity / 5}

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.uniform(*shape),)

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        (noise,) = drawn
        return noise.sub_(0.5).mul_(2 * at["epsilon"]).add_(images)


CORRUPTION = UniformNoise()
