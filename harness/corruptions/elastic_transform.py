"""Elastic transform: the image stretched as on rubber."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneproof.corruptions._image import Knob, OnImages, Values
from pruneproof.corruptions._image_linear import blurred

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._image import Drawn
    from pruneproof.shift.draws import Draws


class ElasticTransform(OnImages):
    """Three points, a third of the shorter side from the centre, move by up to ``affine`` pixels, and the image with
    them; then every pixel moves by ``alpha`` times uniform noise in [-1, 1] smoothed with a Gaussian of ``sigma``
    pixels (Simard et al. 2003). Both are linear between pixels, and mirror the image beyond its border.

    The published severities trade one for the other: distances to the clean image do not rise from each to the next.
    """

    name = "elastic_transform"
    knobs = (
        Knob("alpha", (0, 1.6, 2.56, 3.2, 3.2), (488, 488, 12.2, 17.08, 29.28), share=True),
        Knob("sigma", (6.4, 6.4, 1.92, 1.28, 0.96), (170.8, 19.52, 2.44, 2.44, 2.44), none=None, share=True),
        Knob("affine", (2.56, 2.24, 1.92, 1.6, 0.96), (24.4, 48.8, 4.88, 4.88, 4.88), share=True),
    )

    def drawn(self, shape: tuple[int, ...], at: Values, draws: Draws) -> Drawn:
        return (draws.uniform(3, 2), draws.uniform(2, *shape[-2:]))

    def changed(self, images: torch.Tensor, at: Values, drawn: Drawn) -> torch.Tensor:
        import torch

        corners, noise = drawn
        across, down = _affine((corners.double() * 2 - 1) * at["affine"], *images.shape[-2:])
        found = sampled(images, across, down, aligned=True)
        if at["alpha"] == 0:
            return found
        fields = blurred(noise * 2 - 1, at["sigma"], truncate=3.0, edge="symmetric").mul_(at["alpha"])
        rows, columns = (torch.arange(size, dtype=torch.float32) for size in images.shape[-2:])
        return sampled(found, fields[:, 0] + columns, fields[:, 1] + rows[:, None], aligned=False)


def sampled(images: torch.Tensor, across: torch.Tensor, down: torch.Tensor, aligned: bool) -> torch.Tensor:
    """``images`` at ``(n, height, width)`` columns and rows, linear between pixels.

    Args:
        aligned: beyond the border the image is mirrored about its last pixels (OpenCV's ``BORDER_REFLECT_101``), else
            about their outer edge (scipy's ``reflect``).
    """
    import torch

    grid = torch.stack([across, down], dim=-1)
    size = torch.tensor([images.shape[-1], images.shape[-2]], dtype=grid.dtype)
    grid = grid * (2 / (size - 1)) - 1 if aligned else (grid * 2 + 1) / size - 1
    return torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=aligned)


def _affine(moves: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``(n, height, width)`` columns and rows that pixels come from when three points have made their ``moves (n, 3,
    2)``; points are (column, row) and, as there, counted from (height // 2, width // 2)."""
    import torch

    reach = min(height, width) // 3
    middle = torch.tensor([height // 2, width // 2], dtype=torch.float64)
    start = middle + torch.tensor([[reach, reach], [reach, -reach], [-reach, -reach]], dtype=torch.float64)
    end = start + moves
    # The map from end to start: linear on the edges between the points, and exact at the first point.
    edge, other = end[:, 0] - end[:, 1], end[:, 1] - end[:, 2]
    spanned = edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0]
    spanned = torch.where(spanned.abs() < 1e-6, torch.full_like(spanned, -1e-6), spanned)
    # start's edges are (0, 2 reach) and (2 reach, 0)
    column = torch.stack([-edge[:, 1], edge[:, 0]], dim=1) * (2 * reach / spanned)[:, None]
    row = torch.stack([other[:, 1], -other[:, 0]], dim=1) * (2 * reach / spanned)[:, None]
    columns = torch.arange(width, dtype=torch.float64) - end[:, 0, 0, None]
    rows = torch.arange(height, dtype=torch.float64) - end[:, 0, 1, None]

    def placed(part: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        return (
            columns[:, None, :] * part[:, 0, None, None] + rows[:, :, None] * part[:, 1, None, None] + origin
        ).float()

    return placed(column, start[0, 0]), placed(row, start[0, 1])


CORRUPTION = ElasticTransform()
