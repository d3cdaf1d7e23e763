"""Which attack classes of torchattacks 3.5.1 run on which shapes and numbers of classes.

Found by running each on tiny random models; ``tests/test_published_attacks.py`` runs them again and compares. One
example is always shown as ``(channels, height, width)``, a row of a table as one line of pixels: that alone makes a
dozen of them work on tables (PGDL2, MIFGSM, NIFGSM, UPGD, Jitter, APGD, Square, OnePixel, …).
"""

from __future__ import annotations

import math

COLOURED = frozenset({"TIFGSM", "PIFGSM", "PIFGSMPP"})
"""Convolve with three groups, whatever the number of channels."""
RESIZING = frozenset({"DIFGSM", "TIFGSM"})
"""Resize to a square of the width, at random sizes between 0.9 of it and it: nothing is left of a width of 1."""
MANY_CLASSES = {"APGDT": 4, "AutoAttack": 4}
"""The targeted DLR loss divides by the third and fourth largest logits."""
PAIRED = {"JSMA": 8192}
"""Elements at most: it holds numbers for every pair of elements, 0.3 GB a table at 8192."""


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """``(channels, height, width)`` that one example is shown in: a row of numbers is one line of pixels."""
    if len(shape) >= 3:
        return shape[0], math.prod(shape[1:-1]), shape[-1]
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (1, 1, math.prod(shape))


def refused(name: str, shape: tuple[int, ...], classes: int, norm: str | None = None) -> str | None:
    """Why a class cannot run on one example of ``shape``; ``None``: it can. ``norm``: where that is known."""
    channels, height, width = as_image(shape)
    found = f"these have {channels} × {height} × {width}"
    elements = math.prod(shape)
    if elements == 0:
        return "needs examples with elements"
    if name in COLOURED and channels != 3:
        return f"needs images of 3 channels, and {found}"
    if name in RESIZING and (height != width or width < 2):
        return f"resizes square images, and {found}"
    if name == "Pixle" and (height != width or width < 2):
        return f"exchanges pixels of square images, and {found}"
    if name in PAIRED and elements > PAIRED[name]:
        return f"compares every pair of elements, at most {PAIRED[name]}, and these are {elements}"
    if max(2, classes) < MANY_CLASSES.get(name, 2):
        return f"needs {MANY_CLASSES[name]} classes, and there are {max(2, classes)}"
    if norm == "L2" and name in ("Square", "AutoAttack") and not _tiled(height, width):
        return f"tiles images with squares in L2, which does not come out for {height} × {width}"
    return None


def _tiled(height: int, width: int, share: float = 0.8) -> bool:
    """Whether the squares of Square's L2 version fit: ``height // 5`` wide at the start, one odd window later."""
    side = height // 5
    if side == 0:
        return False
    margin = (height - side * 5) // 2
    fits = side == 1 or all(margin + (length // side) * side <= length for length in (height, width))
    window = max(round(math.sqrt(share * height * width)), 3)
    return fits and window + (window % 2 == 0) <= min(height, width)
