"""How drops of water shine: brighter away from their outline, and on one side."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FAR = 20
"""Pixels; distances are cut off there."""
LIT = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def sheen(liquid: torch.Tensor) -> torch.Tensor:
    """``(n, height, width)`` float32 in [0, 1], 1 at each image's brightest point, 0 where nothing is wet: as the water
    of ImageNet-C's spatter, with the outlines of its drops for the edges.

    Args:
        liquid: ``(n, height, width)``, 0 where it is dry.
    """
    import torch

    levels = (liquid.clamp(0, 1) * 255).floor_()
    distance = _mean3(_distance(_outline(levels > 0))).round_()
    bright = levels * _mean3(_filtered(_equalized(distance), LIT).clamp_(0, 255)).round_()
    most = bright.amax(dim=(1, 2), keepdim=True)
    return torch.where(most > 0, bright / most.clamp_min(1), bright)


def _outline(wet: torch.Tensor) -> torch.Tensor:
    """Wet pixels beside a dry one."""
    import torch

    dry = torch.nn.functional.pad(~wet, (1, 1, 1, 1))
    beside = dry[:, :-2, 1:-1] | dry[:, 2:, 1:-1] | dry[:, 1:-1, :-2] | dry[:, 1:-1, 2:]
    return wet & beside


def _distance(edges: torch.Tensor) -> torch.Tensor:
    """To the nearest edge, Euclidean, in pixels, 20 where there is none so near; first along rows, then columns."""
    import torch

    found = torch.where(edges, 0.0, float(FAR**2))
    for axis in (-1, -2):
        reach, size = min(FAR, found.shape[axis] - 1), found.shape[axis]
        nearest = found.clone()
        for step in range(1, reach + 1):
            for here, there in ((0, step), (step, 0)):
                part = nearest.narrow(axis, here, size - step)
                torch.minimum(part, found.narrow(axis, there, size - step) + float(step**2), out=part)
        found = nearest
    return found.clamp_(max=float(FAR**2)).sqrt_()


def _mean3(images: torch.Tensor) -> torch.Tensor:
    """Over 3 × 3 pixels, mirrored at the border."""
    return _filtered(images, ((1, 1, 1),) * 3).div_(9)


def _filtered(images: torch.Tensor, kernel: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    import torch

    from pruneproof.corruptions._image_linear import padded

    height, width = images.shape[-2:]
    wide, found = padded(images, 1, "reflect"), torch.zeros_like(images)
    for down, weights in enumerate(kernel):
        for right, weight in enumerate(weights):
            if weight:
                found.add_(wide[:, down : down + height, right : right + width], alpha=weight)
    return found


def _equalized(levels: torch.Tensor) -> torch.Tensor:
    """Histogram equalisation, image by image, of whole numbers up to 255: the lowest level there is becomes 0."""
    import torch

    flat = levels.reshape(len(levels), -1).long()
    counts = torch.zeros(len(flat), 256, dtype=torch.int64).scatter_add_(1, flat, torch.ones_like(flat))
    upto = counts.cumsum(1)
    lowest = flat.amin(dim=1, keepdim=True)
    first = counts.gather(1, lowest)
    rest = (flat.shape[1] - first).clamp(min=1)
    equal = ((upto - first).clamp(min=0).double() * 255 / rest).round_()
    equal = torch.where(first == flat.shape[1], lowest.double(), equal)
    return equal.gather(1, flat).float().reshape(levels.shape)
