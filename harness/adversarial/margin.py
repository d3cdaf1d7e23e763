"""Losses that an attack on an answer raises: by how much the wrong one leads, and how unlikely the right one is."""

from __future__ import annotations

import torch
from torch.nn import functional

from pruneproof.adversarial.victim import Loss, lead


def margin(aim: int | None = None) -> Loss:
    """The lead of the best wrong class over the target, or of class ``aim`` over the best other one.

    Above 0 the answer is fooled. Unlike cross-entropy it does not go flat where a model is sure of itself (Carlini &
    Wagner 2017, arXiv 1608.04644, f6).
    """

    def loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return lead(scores, targets, aim)

    return loss


def cross_entropy(aim: int | None = None) -> Loss:
    """Of the target, or minus that of class ``aim``."""

    def loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if aim is None:
            return functional.cross_entropy(scores, targets.long(), reduction="none")
        return -functional.cross_entropy(scores, torch.full_like(targets, aim, dtype=torch.int64), reduction="none")

    return loss
