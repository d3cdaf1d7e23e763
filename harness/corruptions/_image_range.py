"""Images of any range and type in [0, 1], and back: what :class:`~pruneproof.shift.ground.Ground` does, with short cuts
that give the same numbers for the two ranges that most images have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pruneproof.shift.ground import Ground


def opened(clean: torch.Tensor, ground: Ground) -> torch.Tensor:
    """``clean`` in [0, 1], float32; it may be ``clean`` itself."""
    import torch

    if _is(ground, torch.float32, 1):
        return clean
    if _is(ground, torch.uint8, 255):
        return clean.float().div_(255)
    return ground.to_unit(clean).float()


def close(found: torch.Tensor, images: torch.Tensor, clean: torch.Tensor, ground: Ground, out: torch.Tensor) -> None:
    """Writes ``found``, float32, cut off at 0 and 1, to ``out`` as examples; ``found`` may change.

    What equals ``images``, which ``clean`` was opened to, is written as it is in ``clean``.
    """
    import torch

    if _is(ground, torch.float32, 1):
        torch.clamp(found, 0, 1, out=out)
        return
    found.clamp_(0, 1)
    if _is(ground, torch.uint8, 255):
        out.copy_(found.double().mul_(255).round_())
        return
    unit = ground.to_unit(clean)
    if unit.dtype != torch.float32:
        found = torch.where(found == images, unit, found.to(unit.dtype))
    out.copy_(ground.from_unit(found, clean))


def _is(ground: Ground, dtype: torch.dtype, high: int) -> bool:
    """Whether the images are of that type, and go from 0 to ``high`` everywhere."""
    return ground.dtype == dtype and bool((ground.low == 0).all()) and bool((ground.high == high).all())
