"""Poisson variates from given draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MANY = 10.0
"""From this mean on the expansion is used; below, the sum of the probabilities."""
MOST = 48
"""A variate of mean 10 is larger with a probability of less than 1e-15."""
TOGETHER = 2**15
"""Numbers worked on at a time, so that they stay in the cache; results do not depend on it."""


def quantile(mean: torch.Tensor, normal: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """``mean``'s shape, float32, whole numbers: of means below 10 the exact quantile at ``uniform``, else the
    asymptotic one at ``normal``, which is off by one with a probability of less than 1 in 1,000.

    The expansion, with its continuity correction, is that of Giles (2016), "Algorithm 955: approximation of the inverse
    Poisson cumulative distribution function", ACM TOMS 42(1), to the second order.
    """
    found = _expanded(mean, normal)
    small = (mean.flatten() < MANY).nonzero()[:, 0]
    few = _summed(mean.flatten().index_select(0, small), uniform.flatten().index_select(0, small))
    return found.flatten().index_copy_(0, small, few).reshape(mean.shape)


def _expanded(mean: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """``⌊λ + √λ w + 1/3 + w²/6 - (w³/2 + w)/(36 √λ) + (w⁴/270 + 7w²/810 - 8/405)/λ⌋``."""
    safe = mean.clamp_min(MANY)
    root = safe.sqrt()
    square = normal * normal
    found = square / 6 + normal * root + (safe + 1 / 3)
    found.sub_((square * 0.5 + 1).mul_(normal).div_(root.mul_(36)))
    found.add_((square * (1 / 270) + 7 / 810).mul_(square).sub_(8 / 405).div_(safe))
    return found.floor_().clamp_(min=0)


def _summed(mean: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Counts how many partial sums of the probabilities ``uniform`` has passed; ``(n,)``."""
    import torch

    if not len(mean):
        return mean
    blocks = [slice(start, start + TOGETHER) for start in range(0, len(mean), TOGETHER)]
    return torch.cat([_passed(mean[some], uniform[some]) for some in blocks])


def _passed(mean: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    import torch

    term = _exp(-mean)
    total, found = term.clone(), torch.zeros_like(mean, dtype=torch.uint8)
    for count in range(1, MOST):
        passed = uniform >= total
        if count % 4 == 0 and not bool(passed.any()):
            break  # nor would any later one
        found += passed.view(torch.uint8)
        term.mul_(mean).mul_(1 / count)
        total += term
    return found.float()


def _exp(exponent: torch.Tensor) -> torch.Tensor:
    """The exponential function on [-10, 0], to 1e-5 of it, by multiplications and additions alone."""
    small = exponent / 32
    found = small / 6 + 1
    for divisor in (5, 4, 3, 2, 1):
        found.mul_(small).mul_(1 / divisor).add_(1)
    for _ in range(5):
        found.mul_(found)
    return found
