"""SparseGPT: removes weights and lets those that stay make up for them (Frantar & Alistarh 2023, arXiv 2301.00774).

Weights are removed column by column; what a removal costs is spread over the columns that come later, by the inverse
Hessian of the layer's squared error, whose Cholesky factor holds the inverses of all remaining columns at once.
"""

from __future__ import annotations

import torch

from pruneproof.criteria import HESSIAN
from pruneproof.errors import PruningError
from pruneproof.selection import apportioned

NEEDS = (HESSIAN,)
GRANULARITIES = ("element", "n_of_m")
_ATTEMPTS = 4
"""Of the factorization, with ten times the damping each time."""


def compensate(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    *,
    gone: torch.Tensor | None = None,
    k: int | None = None,
    keep_n: int | None = None,
    of_m: int | None = None,
    block: int = 128,
    damping: float = 0.01,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which weights stay, and what they become.

    Each ``block`` of columns is ranked by ``w² / [H⁻¹]²`` when its turn comes, with what earlier blocks changed. Inputs
    that are always zero are dead: their weights rank lowest, as in the paper, but one that stays keeps its value,
    where the paper's code zeroes it unasked.

    Args:
        weight: ``(out, in)``.
        hessian: ``(in, in)``, mean of X Xᵀ; its scale does not matter.
        gone: ``(out, in)``, weights that were removed earlier. They stay removed and count towards ``k``.
        k: how many weights are gone in the end, of the whole matrix; spread over the blocks in proportion.
        keep_n, of_m: in place of ``k``: in each run of ``of_m`` columns ``keep_n`` stay. The pattern runs over the
            columns in their order here: those of a convolution's weight, flattened, have to be brought into it.
        damping: share of the mean diagonal that is added to the diagonal.

    Returns:
        mask, ``(out, in)`` booleans, true where a weight stays; the new weight, zero elsewhere, in the dtype of
        ``weight``.

    Raises:
        PruningError: shapes, ``k`` or pattern do not fit, or the Hessian cannot be inverted.
    """
    lost = torch.zeros(weight.shape, dtype=torch.bool) if gone is None else gone.clone()
    _check(weight, hessian, lost, k, keep_n, of_m)
    dead = hessian.diagonal() == 0
    factor = _inverse_factor(hessian.double(), dead, damping)
    remaining = weight.double().masked_fill(lost, 0)
    if of_m is not None:
        block = max(block - block % of_m, of_m)
    starts = range(0, weight.shape[1], block)
    counts = [0] * len(starts) if k is None else _counts(lost, starts, block, k)
    for start, count in zip(starts, counts, strict=True):
        columns = slice(start, min(start + block, weight.shape[1]))
        errors = _eliminate(remaining, lost, factor, columns, count, keep_n, of_m, dead)
        remaining[:, columns.stop :] -= errors @ factor[columns, columns.stop :]
    kept_dead = dead & ~lost
    remaining = torch.where(kept_dead, weight.double(), remaining).masked_fill(lost, 0)
    return ~lost, remaining.to(weight.dtype)


def _check(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    gone: torch.Tensor,
    k: int | None,
    keep_n: int | None,
    of_m: int | None,
) -> None:
    problem = ""
    if weight.ndim != 2 or hessian.shape != (weight.shape[1], weight.shape[1]) or gone.shape != weight.shape:
        problem = f"weight {tuple(weight.shape)}, Hessian {tuple(hessian.shape)}, gone {tuple(gone.shape)} do not fit"
    elif (k is None) == (of_m is None) or (keep_n is None) != (of_m is None):
        problem = "either a number of weights or a pattern has to be asked for"
    elif k is not None and not int(gone.sum()) <= k <= weight.numel():
        problem = f"{k} of {weight.numel()} weights cannot go where {int(gone.sum())} are gone already"
    elif of_m is not None and weight.shape[1] % of_m:
        problem = f"{weight.shape[1]} columns are no multiple of {of_m}"
    elif not (torch.isfinite(hessian).all() and torch.isfinite(weight).all()):
        problem = "weight or inputs hold NaN or infinity"
    if problem:
        raise PruningError(
            f"sparsegpt: {problem}", "change the recipe, exclude the layer, or mend the dense model first"
        )


def _inverse_factor(hessian: torch.Tensor, dead: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper Cholesky factor U of ``H⁻¹ = Uᵀ U``: ``U_ii²`` is ``[H⁻¹]_ii`` of columns i and later alone."""
    hessian = hessian.clone()
    hessian.diagonal()[dead] = 1
    mean = float(hessian.diagonal().mean())
    for attempt in range(_ATTEMPTS):
        damped = hessian.clone()
        damped.diagonal().add_(damping * 10**attempt * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and torch.isfinite(upper).all():
                found: torch.Tensor = upper
                return found
    raise PruningError(
        f"sparsegpt: the inputs' Hessian is not positive definite, with {damping * 10 ** (_ATTEMPTS - 1):g} of its "
        "mean diagonal added either",
        "show it more calibration examples (samples), or use criterion = 'wanda'",
    )


def _counts(gone: torch.Tensor, starts: range, block: int, k: int) -> list[int]:
    """How many more go from each block."""
    free = [int((~gone[:, start : start + block]).sum()) for start in starts]
    more = k - int(gone.sum())
    return apportioned(free, more) if more else [0] * len(free)


def _eliminate(
    remaining: torch.Tensor,
    lost: torch.Tensor,
    factor: torch.Tensor,
    columns: slice,
    count: int,
    keep_n: int | None,
    of_m: int | None,
    dead: torch.Tensor,
) -> torch.Tensor:
    """Removes weights of ``columns`` in place, one after the other; the errors ``(out, columns)`` still to spread."""
    part, away = remaining[:, columns], lost[:, columns]
    inner = factor[columns, columns]
    scale = inner.diagonal()
    errors = torch.zeros_like(part)
    if of_m is None:
        away |= _lowest(_cost(part, scale, dead[columns]), away, count)
    for column in range(part.shape[1]):
        if of_m is not None and keep_n is not None and column % of_m == 0:
            run = slice(column, column + of_m)
            cost = _cost(part[:, run], scale[run], dead[columns][run]).masked_fill(away[:, run], -1)
            order = torch.sort(cost, dim=1, stable=True).indices[:, : of_m - keep_n]
            away[:, run] = away[:, run].scatter(1, order, True)
        errors[:, column] = torch.where(away[:, column], part[:, column], 0) / scale[column]
        part[:, column:] -= errors[:, column : column + 1] * inner[column, column:]
        part[:, column].masked_fill_(away[:, column], 0)
    return errors


def _cost(weight: torch.Tensor, scale: torch.Tensor, dead: torch.Tensor) -> torch.Tensor:
    """The squared error that removing a weight leaves when all later ones make up for it."""
    return (weight / scale).square().masked_fill(dead, 0)


def _lowest(cost: torch.Tensor, gone: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` lowest of those that are not gone yet; equals in the order of their positions."""
    order = torch.sort(cost.masked_fill(gone, torch.inf).reshape(-1), stable=True).indices[:count]
    found = torch.zeros(cost.numel(), dtype=torch.bool)
    found[order] = True
    return found.reshape(cost.shape)
