"""Pictures inside the page: PNG, written into the document itself."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from pruneproof.exhibits import Picture

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NONE = 128
"""The byte of a signed picture that stands for no difference."""
LESS, NEUTRAL, MORE = (33, 82, 160), (247, 247, 247), (176, 74, 0)
"""Blue, white and orange: told apart under every colour-vision deficiency, and by their lightness from no change."""
PIXELS = 64
"""A picture with no longer side is shown in squares; a larger one is scaled smoothly."""


def data_uri(picture: Picture) -> str:
    """``data:image/png;base64,…``; the same for the same picture."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")


def png(picture: Picture) -> bytes:
    """The picture as a PNG file, without metadata."""
    import numpy as np
    from PIL import Image

    raw = np.frombuffer(base64.b64decode(picture.pixels), np.uint8).reshape(picture.shape)
    if picture.signed:
        image = Image.fromarray(_largest(raw)).convert("P")
        image.putpalette(_palette())
    else:
        image = Image.fromarray(raw[0] if picture.shape[0] == 1 else np.ascontiguousarray(raw.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def coarse(picture: Picture) -> bool:
    """Whether single pixels are to be seen."""
    return max(picture.shape[1:]) <= PIXELS


def _largest(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """``(channels, height, width)`` to ``(height, width)``: of each pixel the channel furthest from no difference."""
    import numpy as np

    place = np.abs(raw.astype(np.int16) - NONE).argmax(axis=0)
    found: npt.NDArray[np.uint8] = np.take_along_axis(raw, place[None], axis=0)[0]
    return found


def _palette() -> list[int]:
    """256 colours, linear from ``LESS`` at 1 over ``NEUTRAL`` at 128 to ``MORE`` at 255."""
    found: list[int] = []
    for value in range(256):
        far = max(-1.0, (value - NONE) / (255 - NONE))
        end = MORE if far > 0 else LESS
        found += [round(mid + (tip - mid) * abs(far)) for mid, tip in zip(NEUTRAL, end, strict=True)]
    return found
