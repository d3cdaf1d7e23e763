"""Plasma: a cloudy height map by the diamond-square algorithm (Fournier, Fussell & Carpenter 1982)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def side_for(height: int, width: int) -> int:
    """Side of the map that images are cut from: a power of two."""
    return 1 << (max(height, width) - 1).bit_length()


def plasma(uniform: torch.Tensor, decay: float) -> torch.Tensor:
    """``(n, side, side)`` float32, each map from 0 to 1, on a torus: as in ImageNet-C's fog.

    Args:
        uniform: ``(n, side · side)`` in [0, 1); ``side`` is a power of two. All but the last are used, in the order in
            which ImageNet-C draws them.
        decay: by how much jitter shrinks from one step to the next.
    """
    import torch

    side = int(uniform.shape[1] ** 0.5)
    heights = uniform.new_zeros(len(uniform), side, side)
    jitter, used, step = 1e4, 0, side

    def moved(total: torch.Tensor) -> torch.Tensor:
        """The mean of four neighbours, jittered."""
        nonlocal used
        count = total.shape[1] * total.shape[2]
        drawn = uniform[:, used : used + count].reshape(total.shape)
        used += count
        return total * 0.25 + (drawn * (2 * jitter) - jitter)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + torch.roll(corners, -1, 1)
        heights[:, half::step, half::step] = moved(pairs + torch.roll(pairs, -1, 2))
        centres, corners = heights[:, half::step, half::step], heights[:, ::step, ::step]
        rows = corners + torch.roll(corners, -1, 2)  # the corners to the left and right
        heights[:, ::step, half::step] = moved(centres + torch.roll(centres, 1, 1) + rows)
        columns = corners + torch.roll(corners, -1, 1)
        heights[:, half::step, ::step] = moved(centres + torch.roll(centres, 1, 2) + columns)
        step, jitter = half, jitter / decay**2  # there, a factor and the range that it multiplies both shrink
    heights -= heights.amin(dim=(1, 2), keepdim=True)
    return heights / heights.amax(dim=(1, 2), keepdim=True).clamp_min(1e-20)
