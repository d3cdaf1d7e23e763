"""Losses: what a subject is trained for, and what gradients are taken of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from pruneproof import inference
from pruneproof.errors import SubjectError
from pruneproof.subject import Subject

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
"""``loss(output, targets) -> scalar tensor``, of what a model returns for a batch."""


def loss_of(subject: Subject) -> Loss:
    """The mean loss of a batch: the subject's own, or by its task cross-entropy, binary cross-entropy of one logit, or
    mean squared error, of :func:`pruneproof.inference.output_tensor`, in float32 or wider.

    Raises:
        SubjectError: when called, for outputs that the task does not know.
    """
    if subject.loss is not None:
        return subject.loss
    task = _regression if subject.task == "regression" else _classification

    def loss(output: Any, targets: torch.Tensor) -> torch.Tensor:
        found = inference.output_tensor(output)
        if found.ndim not in (1, 2) or len(found) != len(targets):
            raise SubjectError(
                f"the model returned shape {tuple(found.shape)} for {len(targets)} targets, for which there is no "
                "loss of its own",
                "give Subject(loss=...)",
            )
        return task(found.to(torch.promote_types(found.dtype, torch.float32)), targets)

    return loss


def _classification(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if output.ndim == 1 or output.shape[1] == 1:
        wanted = targets.reshape(-1).to(output.dtype)
        return functional.binary_cross_entropy_with_logits(output.reshape(-1), wanted)
    return functional.cross_entropy(output, targets.reshape(-1).long())


def _regression(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(output, targets.reshape(output.shape).to(output.dtype))
