"""Cheaper copies of the models, for gradients alone: every success is confirmed by the model itself."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch

from pruneproof import inference
from pruneproof.adversarial.victim import Victim
from pruneproof.errors import MeasurementError


@contextlib.contextmanager
def approximated(
    victims: Sequence[Victim], precision: Literal["float32", "bfloat16"], channels_last: bool
) -> Iterator[None]:
    """Inside, the victims' gradients come from copies, each made when its victim's turn comes and dropped after it.

    Victims with a criterion of the subject's keep their own gradients: it reads the output of the model itself.
    """
    if precision == "float32" and not channels_last:
        yield
        return
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    copies = _Copies()
    before = [victim.approximate for victim in victims]
    try:
        for victim in victims:
            if victim.criterion is None:
                victim.approximate = _Copy(victim, dtype, channels_last, copies)
        yield
    finally:
        for victim, earlier in zip(victims, before, strict=True):
            victim.approximate = earlier


class _Copies:
    """The one copy that there is at a time."""

    def __init__(self) -> None:
        self.of: str | None = None
        self.model: torch.nn.Module | None = None


class _Copy:
    """Scores of a victim's copy.

    Args:
        dtype: ``None``: the model's own.
    """

    def __init__(self, victim: Victim, dtype: torch.dtype | None, channels_last: bool, copies: _Copies) -> None:
        self.victim, self.dtype, self.channels_last, self.copies = victim, dtype, channels_last, copies

    def __call__(self, points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        model = self._model()
        inputs = inference.each(self.victim.inputs(points, rows), self._converted)
        try:
            output = inference.call(model, inputs)
        except Exception as error:
            raise MeasurementError(
                f"{self.victim.name}: a copy of it for gradients raised {type(error).__name__}: {error}",
                'leave precision = "bfloat16" and channels_last out',
            ) from error
        return self.victim.read(output).float()

    def _model(self) -> torch.nn.Module:
        if self.copies.of != self.victim.name or self.copies.model is None:
            self.copies.model = None
            try:
                made = copy.deepcopy(self.victim.model).requires_grad_(False)
            except Exception as error:
                raise MeasurementError(
                    f"{self.victim.name} cannot be copied for gradients: {type(error).__name__}: {error}",
                    'leave precision = "bfloat16" and channels_last out',
                ) from error
            made = made.to(dtype=self.dtype) if self.dtype is not None else made
            made = made.to(memory_format=torch.channels_last) if self.channels_last else made
            self.copies.of, self.copies.model = self.victim.name, made
        return self.copies.model

    def _converted(self, part: Any) -> Any:
        if not isinstance(part, torch.Tensor) or not part.is_floating_point():
            return part
        part = part if self.dtype is None else part.to(self.dtype)
        return part.contiguous(memory_format=torch.channels_last) if self.channels_last and part.ndim == 4 else part
