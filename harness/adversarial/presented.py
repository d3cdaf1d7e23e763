"""A variant as the classes of torchattacks want a model: images in [0, 1] in, one row of logits an image out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pruneproof import inference
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.shapes import as_image
from pruneproof.adversarial.victim import Victim
from pruneproof.errors import MeasurementError

ROUNDING = 4 * torch.finfo(torch.float32).eps
"""How far, relative to the size of the numbers, float32 arithmetic may have led out of the ball without intent."""


@dataclass(frozen=True, eq=False)
class Chart:
    """The box of the data as the unit cube, element by element: ``point = low + width · image``.

    Args:
        ball: with a finite box.
        shape: of one example.
        dtype: of the images, float32 or float64.
        device: of the images.
    """

    ball: Ball
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def images(self, clean: torch.Tensor) -> torch.Tensor:
        """``(n, channels, height, width)`` in [0, 1]; an element without any width is 0."""
        low, width = self._box(clean)
        wide = (clean.double() - low) / torch.where(width > 0, width, 1)
        return wide.clamp(0, 1).reshape(len(clean), *as_image(self.shape)).to(self.device, self.dtype)

    def points(self, images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """``(n, …)`` points, differentiable in the images, in the dtype of ``like``."""
        if images.shape[1:] != as_image(self.shape):
            raise MeasurementError(
                f"the attack shows the model images of {tuple(images.shape[1:])} instead of {as_image(self.shape)}",
                "give it a resize_rate below 1, or use another attack",
            )
        flat = images.reshape(len(images), *self.shape)
        if self._unit_cube:
            return flat.to(like.dtype)
        low, width = self._box(flat)
        return (low + width * flat.double()).to(like.dtype)

    def returned(self, clean: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """What an attack made of ``clean``: its elements where it left them alone, and inside the ball where only
        the rounding of its arithmetic led out of that. A point that truly left the ball stays outside."""
        found = self.points(after.detach(), clean.double()).to(clean.device)
        same = (before == after.to(before.dtype)).reshape(clean.shape).to(clean.device)
        found = torch.where(same, clean.double(), found)
        size = torch.maximum(torch.maximum(clean.double().abs(), found.abs()), self._box(clean)[1])
        near = (self.ball.project(clean.double(), found) - found).abs() <= ROUNDING * size
        near = near.reshape(len(clean), math.prod(self.shape)).all(dim=1).reshape(-1, *([1] * len(self.shape)))
        return torch.where(near, self.ball.project(clean, found), found.to(clean.dtype))

    @property
    def _unit_cube(self) -> bool:
        bounds = (self.ball.low, self.ball.high)
        return all(not isinstance(bound, torch.Tensor) for bound in bounds) and bounds == (0, 1)

    def _box(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = torch.as_tensor(self.ball.low, dtype=torch.float64, device=like.device)
        high = torch.as_tensor(self.ball.high, dtype=torch.float64, device=like.device)
        return low, high - low


class Presented(torch.nn.Module):
    """Calls a victim through a chart, and counts what that costs.

    The victim is no submodule: classes that switch modes, zero gradients or walk the parameters find nothing of the
    user's here, and what refers to this object after an attack (each of torchattacks' is a cycle) holds no model once
    :meth:`release` was called.

    Args:
        row: the only example that is shown, where the variant's other inputs depend on which it is.
        lifted: logits are moved, row by row, so that the smallest is 1: classes that multiply logits with one-hot
            labels and take the maximum see no logit below 0 otherwise.
    """

    def __init__(self, victim: Victim, chart: Chart, like: torch.Tensor, *, row: int = 0, lifted: bool = False) -> None:
        super().__init__()
        # torchattacks runs on the device of a model's first parameter
        self.place = torch.nn.Parameter(torch.zeros((), device=chart.device), requires_grad=False)
        self.lifted, self.row = lifted, row
        self._shown: tuple[Victim, Chart, torch.Tensor] | None = (victim, chart, like)

    def release(self) -> None:
        """Forgets the victim."""
        self._shown = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``(n, classes)``, in the images' dtype and on their device; never a tensor that the model holds on to."""
        if self._shown is None:
            raise RuntimeError("the attack on this model is over")
        victim, chart, like = self._shown
        points = chart.points(images, like)
        rows = torch.full((len(images),), self.row)
        scores = torch.stack([victim.scores(points, rows) for _ in range(victim.draws)]).mean(dim=0)
        cost = len(images) * victim.draws
        if scores.requires_grad:
            scores.register_hook(_Counted(victim, cost))  # type: ignore[no-untyped-call]
        victim.work.forwards += cost
        found = scores.to(images.device, images.dtype)
        if self.lifted:
            found = found - found.detach().amin(dim=1, keepdim=True) + 1
        return _untied(found) if found.shape[1] == 2 else found + 0  # a copy, since Square writes into it


def _untied(scores: torch.Tensor) -> torch.Tensor:
    """Of two equal logits the second a trace larger: that is the audit's answer, and torchattacks would take the first
    for a success already and leave the example alone."""
    first, second = scores.detach().unbind(dim=1)
    trace = torch.nextafter(second, torch.full_like(second, torch.inf)) - second
    return scores + torch.stack([torch.zeros_like(trace), torch.where(first == second, trace, 0)], dim=1)


class _Counted:
    """Books a pass as a gradient once it is taken back through; every further way back is one more."""

    def __init__(self, victim: Victim, cost: int) -> None:
        self._work, self._cost, self._taken = victim.work, cost, False

    def __call__(self, gradient: torch.Tensor) -> None:
        if not self._taken:
            self._work.forwards -= self._cost
        self._work.gradients += self._cost
        self._taken = True


def rows_matter(victim: Victim, points: torch.Tensor) -> bool:
    """Whether what the model is called with depends on which examples ``points`` are of, as far as can be told."""
    built = victim.inputs(points, torch.zeros(len(points), dtype=torch.int64))
    return any(part is not points for part in inference.tensors(built))
