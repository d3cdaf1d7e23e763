"""Schedules: how much is gone after each step."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal


def ratios(ratio: float, schedule: Literal["one_shot", "linear", "cubic"], steps: int) -> list[float]:
    """Ratio that is gone after step 1, 2, …, ``steps``; the last is ``ratio`` itself.

    ``linear``: ``s_t = s · t/T``. ``cubic``, automated gradual pruning (Zhu & Gupta 2017, arXiv 1710.01878, with
    nothing gone at the start): ``s_t = s · (1 - (1 - t/T)³)``. ``one_shot`` has one step.
    """
    target = Fraction(repr(ratio))
    done = [Fraction(step, steps) for step in range(1, steps)]
    grown = [1 - (1 - share) ** 3 if schedule == "cubic" else share for share in done]
    return [*(float(target * share) for share in grown), ratio]
