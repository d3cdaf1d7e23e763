"""Pruning criteria, one file each: which weights, or which channels, matter least.

A criterion is a module with two functions, lower scores are removed first::

    def elements(weight: torch.Tensor) -> torch.Tensor        # same shape as weight
    def channels(rows: torch.Tensor) -> torch.Tensor          # (units, weights a unit) -> (units,)
"""
