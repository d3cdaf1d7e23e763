"""JPEGs of many images at once, to the bit those that Pillow makes of each.

A JPEG is made of blocks of 8 × 8 pixels that know nothing of each other but for lossless coding. So the planes of all
images, one below the other, are one grey JPEG, which Pillow's libjpeg transforms, quantises and codes far faster than
as many small files. What libjpeg does before and after that, to colours and to halved chroma, is done here in the same
whole numbers (ITU-T T.81, T.871; libjpeg's ``jccolor``, ``jcsample``, ``jdsample`` and ``jdcolor`` describe theirs).
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Tables = tuple[tuple[int, ...], tuple[int, ...]]
BLOCK = 8


def compressed(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    """``(n, 1 or 3, height, width)`` uint8 as they come out of JPEGs of ``quality``, chroma halved both ways; sides of
    at least 6 pixels."""
    import torch

    height, width = pixels.shape[-2:]
    luma_table, chroma_table = _tables(quality)
    wide = pixels.int()
    if pixels.shape[1] == 1:
        return _coded(wide[:, 0], luma_table)[:, None].to(torch.uint8)
    y, blue, red = _to_ycc(wide)
    y = _coded(y, luma_table)
    real = slice(0, (height + 1) // 2), slice(0, (width + 1) // 2)
    blue, red = (
        _doubled(_coded(_halved(plane), chroma_table)[:, *real])[:, :height, :width] - 128 for plane in (blue, red)
    )
    return _to_rgb(y, blue, red).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=100)
def _tables(quality: int) -> Tables:
    """Quantisation of luma and chroma, as Pillow has them."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (BLOCK, BLOCK)).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        luma, chroma = image.quantization[0], image.quantization[1]  # type: ignore[attr-defined]
    return tuple(luma), tuple(chroma)


def _coded(planes: torch.Tensor, table: tuple[int, ...]) -> torch.Tensor:
    """``(n, height, width)`` int32 in 0 to 255, transformed, quantised with ``table``, and back."""
    import numpy as np
    import torch
    from PIL import Image

    height, width = planes.shape[1:]
    full = _extended(planes, BLOCK, BLOCK).to(torch.uint8)
    stream = io.BytesIO()
    Image.fromarray(full.reshape(-1, full.shape[-1]).numpy()).save(stream, "JPEG", qtables=[list(table)])
    with Image.open(stream) as image:
        found = torch.from_numpy(np.array(image)).reshape(full.shape)
    return found[:, :height, :width].int()


def _extended(planes: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The last row and column repeated until the sides are multiples of these."""
    import torch

    for axis, multiple in ((1, down), (2, right)):
        if missing := -planes.shape[axis] % multiple:
            last = planes.narrow(axis, planes.shape[axis] - 1, 1)
            planes = torch.cat([planes, last.repeat_interleave(missing, axis)], axis)
    return planes


def _fixed(value: float) -> int:
    """In multiples of 2⁻¹⁶."""
    return int(value * 65536 + 0.5)


def _to_ycc(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    red, green, blue = pixels.unbind(1)
    half, middle = 32768, 128 << 16
    y = red * _fixed(0.299) + green * _fixed(0.587) + blue * _fixed(0.114) + half
    from_blue = blue * half - red * _fixed(0.16874) - green * _fixed(0.33126) + (middle + half - 1)
    from_red = red * half - green * _fixed(0.41869) - blue * _fixed(0.08131) + (middle + half - 1)
    return y >> 16, from_blue >> 16, from_red >> 16


def _to_rgb(y: torch.Tensor, blue: torch.Tensor, red: torch.Tensor) -> torch.Tensor:
    import torch

    half = 32768
    green = (half - blue * _fixed(0.34414) - red * _fixed(0.71414)) >> 16
    return torch.stack(
        [y + ((red * _fixed(1.402) + half) >> 16), y + green, y + ((blue * _fixed(1.772) + half) >> 16)], dim=1
    )


def _halved(planes: torch.Tensor) -> torch.Tensor:
    """Means of 2 × 2 pixels, rounded down and up in turn from column to column."""
    import torch

    pairs = _extended(planes, 2, 2 * BLOCK)
    rows = pairs[:, ::2] + pairs[:, 1::2]
    sums = rows[:, :, ::2] + rows[:, :, 1::2]
    return (sums + torch.tensor([1, 2], dtype=torch.int32).repeat(sums.shape[2] // 2)) >> 2


def _doubled(planes: torch.Tensor) -> torch.Tensor:
    """Twice as high and wide; each new pixel is 9/16 of the one that it is in, 3/16 of the two beside it, 1/16 of the
    one across the corner."""
    import torch

    number, height, width = planes.shape
    tall = torch.cat([planes[:, :1], planes, planes[:, -1:]], 1)
    rows = torch.stack([planes * 3 + tall[:, :-2], planes * 3 + tall[:, 2:]], 2).reshape(number, 2 * height, width)
    broad = torch.cat([rows[:, :, :1], rows, rows[:, :, -1:]], 2)
    left, right = (rows * 3 + broad[:, :, :-2] + 8) >> 4, (rows * 3 + broad[:, :, 2:] + 7) >> 4
    return torch.stack([left, right], 3).reshape(number, 2 * height, 2 * width)
