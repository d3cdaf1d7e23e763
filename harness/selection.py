"""Which units go: exactly as many as asked for, the lowest scores first, equal scores in the order of their positions.

Selection is exact: a request for a ratio of n units is ⌊n · ratio + ½⌋ units, on the decimal number as it was written.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch

from pruneproof.errors import PruningError
from pruneproof.prunable import round_half_up

Scores = list[torch.Tensor]
"""One score a unit, ``(n,)``, layer by layer; ``-inf``: gone already."""
Gone = list[torch.Tensor]
"""Booleans like :data:`Scores`, true where a unit goes."""


def select(scores: Scores, ratio: float, scope: str, floors: Sequence[int] | int = 0, k: int | None = None) -> Gone:
    """The units that go.

    Args:
        scope: ``"global"``: n counts all layers; ``"layer"``: each layer by itself.
        floors: units that every layer keeps at least, one number or one a layer. What a floor saves in one layer is
            taken from the next lowest scores elsewhere.
        k: how many go, in place of the ratio; in scope ``"layer"`` spread over the layers in proportion to
            their sizes.

    Raises:
        PruningError: nothing would go, everything would, or a floor forbids that much.
    """
    scores = _alike(scores)
    sizes = [len(score) for score in scores]
    least = [floors] * len(sizes) if isinstance(floors, int) else list(floors)
    if scope == "layer":
        counts = [round_half_up(n, ratio) for n in sizes] if k is None else apportioned(sizes, k)
        gone = [_lowest([s], n, [f], ratio)[0] for s, n, f in zip(scores, counts, least, strict=True)]
    else:
        gone = _lowest(scores, round_half_up(sum(sizes), ratio) if k is None else k, least, ratio)
    _something_but_not_all(gone, ratio)
    return gone


def _alike(scores: Scores) -> Scores:
    """In one precision, since torch rounds a number to a tensor's own before it compares."""
    wide = any(score.dtype == torch.float64 for score in scores)
    return [score.to(torch.float64 if wide else torch.float32) for score in scores]


def _something_but_not_all(gone: Gone, ratio: float) -> None:
    total, lost = sum(map(len, gone)), sum(int(part.sum()) for part in gone)
    if lost == 0:
        raise PruningError(f"ratio {ratio!r} of {total} units removes nothing", "raise the ratio")
    if lost == total:
        raise PruningError(f"ratio {ratio!r} of {total} units leaves nothing", "lower the ratio")


def apportioned(sizes: Sequence[int], k: int) -> list[int]:
    """``k`` spread over ``sizes`` in proportion, by largest remainders (Hamilton); the sum is exactly ``k``."""
    total = sum(sizes)
    exact = [Fraction(n * k, total) for n in sizes]
    counts = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: k - sum(counts)]:
        counts[i] += 1
    return counts


def _lowest(scores: Scores, k: int, floors: Sequence[int], ratio: float) -> Gone:
    free = scores if not any(floors) else [_with_saved(s, f) for s, f in zip(scores, floors, strict=True)]
    total = sum(map(len, scores))
    available = total - sum(min(len(s), f) for s, f in zip(scores, floors, strict=True))
    if k > available:
        least = floors[0] if len(set(floors)) == 1 else f"up to {max(floors)}"
        raise PruningError(
            f"ratio {ratio!r} asks for {k} of {total} units, but {least} must stay in each of {len(scores)} layers",
            f"ask for at most {math.floor(1e4 * available / total) / 1e4}" if available else "use scope = 'global'",
        )
    if k == 0:
        return [torch.zeros(len(s), dtype=torch.bool) for s in scores]
    limit = _kth_lowest(free, k)
    lower = sum(int((s < limit).sum()) for s in free)
    return list(_up_to(free, limit, k - lower))


def _up_to(scores: Scores, limit: float, ties: int) -> Gone:
    """All below ``limit``, and the first ``ties`` that equal it."""
    found = []
    for score in scores:
        equal = score == limit
        here = int(equal.sum())
        if here > ties:
            equal &= torch.cumsum(equal, 0) <= ties
        found.append((score < limit) | equal)
        ties -= min(ties, here)
    return found


def _with_saved(score: torch.Tensor, floor: int) -> torch.Tensor:
    """``score`` with its ``floor`` highest, the later ones of equals, out of reach."""
    if not floor:
        return score
    order = torch.sort(score, stable=True).indices
    saved = score.clone()
    saved[order[-floor:]] = torch.inf
    return saved


def _kth_lowest(scores: Scores, k: int) -> float:
    """The k-th lowest value, found by bisection over the floating point numbers: no copy of the scores is made."""
    code, size = ("d", 8) if scores[0].dtype == torch.float64 else ("f", 4)
    top = 1 << (8 * size - 1)

    def value(key: int) -> float:
        """Numbers in ascending order: negative floats count downwards from zero."""
        bits = key if key >= 0 else -key - 1 + top
        found: float = struct.unpack(f"<{code}", bits.to_bytes(size, "little"))[0]
        return found

    infinity = int.from_bytes(struct.pack(f"<{code}", math.inf), "little")
    low, high = -infinity - 1, infinity
    while low < high:
        middle = (low + high) // 2
        if sum(int((score <= value(middle)).sum()) for score in scores) >= k:
            high = middle
        else:
            low = middle + 1
    return value(low)


def rows(score: torch.Tensor, ratio: float, name: str) -> torch.Tensor:
    """Scope ``"row"``: from each row of ``score`` ``(rows, n)`` the same number goes, the lowest first."""
    k = round_half_up(score.shape[1], ratio)
    if k >= score.shape[1]:
        raise PruningError(
            f"{name}: ratio {ratio!r} of {score.shape[1]} weights a row leaves nothing", "lower the ratio"
        )
    order = torch.sort(score, dim=1, stable=True).indices
    return torch.zeros(score.shape, dtype=torch.bool).scatter_(1, order[:, :k], True)


def pattern(score: torch.Tensor, keep_n: int, of_m: int) -> torch.Tensor:
    """N:M: in each run of ``of_m`` along the last dimension the ``of_m - keep_n`` lowest go."""
    runs = score.reshape(-1, of_m)
    order = torch.sort(runs, dim=1, stable=True).indices
    gone = torch.zeros(runs.shape, dtype=torch.bool).scatter_(1, order[:, : of_m - keep_n], True)
    return gone.reshape(score.shape)


def order_of_removal(scores: Scores, scope: str, floors: Sequence[int], uniform: Sequence[str]) -> list[list[int]]:
    """Steps in which units could go one after the other, each the flat positions of the units that go at once.

    In scope ``"layer"`` all layers shrink in proportion: the j-th lowest of n units goes at (j + ½) / n. Layers with
    the same text in ``uniform`` lose their j-th lowest at once.
    """
    offset, steps = 0, []
    for layer, (score, floor) in enumerate(zip(scores, floors, strict=True)):
        order = torch.sort(score, stable=True).indices.tolist()
        values = score.tolist()
        for rank, unit in enumerate(order[: len(order) - floor]):
            share = (rank + 0.5) / len(order)
            key = (values[unit], layer, unit) if scope == "global" else (share, layer, rank)
            steps.append((key, (uniform[layer], rank) if uniform[layer] else (layer, unit), offset + unit))
        offset += len(order)
    steps.sort(key=lambda step: step[0])
    together: dict[tuple[object, int], list[int]] = {}
    for _, label, unit in steps:
        together.setdefault(label, []).append(unit)
    return list(together.values())


def solve(steps: int, share: Callable[[int], float], ratio: float) -> int:
    """The number of steps after which ``share``, which rises with them, comes closest to ``ratio``; at a tie the fewer.

    Raises:
        PruningError: the ratio is out of reach.
    """
    if steps == 0 or share(steps) < ratio:
        most = share(steps) if steps else 0.0
        raise PruningError(
            f"ratio {ratio!r} is out of reach: with everything gone that may go it is {most:.4f}",
            f"ask for at most {math.floor(1e4 * most) / 1e4}",
        )
    low, high = 0, steps
    while low < high:
        middle = (low + high) // 2
        if share(middle) >= ratio:
            high = middle
        else:
            low = middle + 1
    below = low - 1
    return below if below > 0 and ratio - share(below) <= share(low) - ratio else low
