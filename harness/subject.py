"""The subject of an audit: the dense model with its task and its data.

What a user hands over is checked once, here (:func:`check`), so that later stages can rely on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pruneproof.domain import Criterion, Domain

if TYPE_CHECKING:
    import pandas as pd
    import torch

Inputs = Any
"""A tensor ``(n, ...)``, a mapping or tuple of such tensors, or a ``torch.utils.data.Dataset``."""


@dataclass(frozen=True, eq=False)
class Data:
    """One set of examples.

    Args:
        inputs: tensor ``(n, ...)``; a mapping of tensors, passed to the model as keyword arguments;
            a tuple of tensors, passed as positional arguments; or a map-style
            ``torch.utils.data.Dataset`` whose items are ``(inputs, target)`` or ``inputs``.
        targets: ``(n,)`` class indices for classification, numbers for regression.
            ``None`` when a ``Dataset`` yields them.
        segments: one row an example, one column a way to cut the data; ``None`` for no segments.
        ids: ``(n,)`` names of the examples for messages; default: their positions.
    """

    inputs: Inputs
    targets: Any = None
    segments: pd.DataFrame | None = None
    ids: Sequence[Any] | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """The dense model under audit.

    Args:
        model: any ``torch.nn.Module``; it is never changed, variants are made from copies.
        task: ``"classification"``: the model returns logits ``(batch, classes)``, or one logit
            ``(batch,)`` or ``(batch, 1)`` for two classes. ``"regression"``: ``(batch,)`` or ``(batch, 1)``.
        test: the examples that the verdict rests on.
        calibration: examples disjoint from ``test``, for thresholds and data-driven criteria.
        shifted: further test sets by name, drawn from other distributions.
        foreign: sets of inputs by name that are none of the classes, which the model should not be sure about; their
            targets are not read.
        train: examples to train with after pruning, disjoint from ``test``, for ``recovery`` and ``movement``.
        loss: ``loss(output, targets) -> scalar tensor``, of what the model returns for a batch. Default: cross-entropy
            for classification (of one logit: binary), mean squared error for regression.
        fine_tune: ``fine_tune(model, *, step, steps, generator) -> None``, trains in place; ``step`` runs from
            1 to ``steps``; with criterion ``movement`` it is called with 0 first, before anything is gone. While it
            runs, every optimizer step is followed by setting what was pruned to zero again.
        initial: the weights that training started from, as a state dict; lottery-ticket rewinding goes back to
            them.
        classes: class names in the order of the class indices; for two classes the second one is
            the positive class. Default: ``("0", "1", ...)``.
        threshold: the operating point of a binary classifier, a probability of the positive class in
            (0, 1), the same for every variant; or ``"f1"`` or ``"balanced_accuracy"``: chosen to
            maximise that on the calibration data with the dense model. Default: 0.5.
        allow_missing: inputs may hold NaN (the model deals with them).
        batch_size: examples a forward pass.
        domain: what inputs the subject can meet at all: ``Box``, ``Table`` or ``Tokens``. Attacks need it.
        criterion: what hurts, where it is not a wrong class (detection, segmentation): a ``Criterion`` for attacks.
    """

    model: torch.nn.Module
    task: Literal["classification", "regression"]
    test: Data
    calibration: Data | None = None
    shifted: Mapping[str, Data] = field(default_factory=dict)
    foreign: Mapping[str, Data] = field(default_factory=dict)
    train: Data | None = None
    loss: Callable[[Any, torch.Tensor], torch.Tensor] | None = None
    fine_tune: Callable[..., None] | None = None
    initial: Mapping[str, torch.Tensor] | None = None
    classes: Sequence[str] | None = None
    threshold: float | Literal["f1", "balanced_accuracy"] | None = None
    allow_missing: bool = False
    batch_size: int = 256
    domain: Domain | None = None
    criterion: Criterion | None = None
