"""What a severity between the published ones comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence


def at(levels: Sequence[float], severity: float, none: float = 0.0) -> float:
    """The value at ``severity`` in [0, 5]: ``levels`` at 1 to 5, ``none`` at 0, linear between."""
    known = (none, *levels)
    below = min(math.floor(severity), len(known) - 1)
    if below == severity:
        return float(known[below])
    return known[below] + (severity - below) * (known[below + 1] - known[below])
