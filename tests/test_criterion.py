"""Subjects whose harm is no wrong class: segmentation, detection, and a criterion of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torchvision.ops import box_iou

from pruneproof.adversarial.arena import CLEAN, Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.victim import Victim
from pruneproof.domain import Criterion
from pruneproof.errors import MeasurementError, SubjectError


def climb(arena: Arena, eps: float, steps: int = 10) -> None:
    """Projected sign-gradient ascent within ``eps`` and [0, 1] on every victim, as any attack on numbers does it."""
    for victim in arena.victims:
        arena.replay("replay", [victim])
        with victim.attacked(), arena.stage("climb", victim, len(arena.rows(victim))) as stage:
            rows = arena.rows(victim)
            points = arena.clean[rows]
            for step in range(steps):
                found = victim.gradient(points, rows, lambda scores, targets: scores.sum(dim=1))
                size = 2 * eps * (1 + math.cos(math.pi * step / steps)) / 2
                points = arena.space.project(arena.clean[rows], points + size * found.value.sign())  # type: ignore[attr-defined]
                arena.submit(victim, stage, rows, points)
    arena.replay("closure")


def trained(model: nn.Module, loss: Callable[[], torch.Tensor], steps: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    model.zero_grad(set_to_none=True)
    return model.eval()


def fallen(arena: Arena, victim: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that fell by a point, and the points."""
    rows = (arena.fell_by[victim] >= 0).nonzero().flatten()
    return rows, torch.stack([arena.pool.points[number] for number in arena.fell_by[victim, rows].tolist()])


def images() -> torch.Tensor:
    """``(1797, 1, 8, 8)`` digits in [0, 1]."""
    return torch.from_numpy(load_digits().images).float()[:, None] / 16


@pytest.fixture(scope="module")
def segmenter() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    clean = images()
    noise = torch.rand(clean.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    inputs, strokes = (clean + 0.4 * noise).clamp(0, 1), (clean[:, 0] > 0.5).long()
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))
    trained(model, lambda: functional.cross_entropy(model(inputs[500:]), strokes[500:]), 60)
    return model, inputs[:90], strokes[:90]


class TestSegmentation:
    """Strokes of real digits, found again under noise: per pixel, ink or paper."""

    criterion = Criterion(
        loss=lambda output, strokes: functional.cross_entropy(output, strokes, reduction="none").mean(dim=(1, 2)),
        fooled=lambda output, strokes: (
            ((output.argmax(dim=1) == 1) & (strokes == 1)).sum(dim=(1, 2))
            < 0.5 * ((output.argmax(dim=1) == 1) | (strokes == 1)).sum(dim=(1, 2))
        ),
    )

    @staticmethod
    def overlap(model: nn.Module, inputs: torch.Tensor, strokes: torch.Tensor) -> list[float]:
        """Intersection over union of the ink, in numpy."""
        with torch.no_grad():
            said = (model(inputs)[:, 1] > model(inputs)[:, 0]).numpy()
        ink = strokes.numpy() == 1
        return [float((one & other).sum() / (one | other).sum()) for one, other in zip(said, ink, strict=True)]

    def test_the_strokes_are_lost_and_every_loss_is_real(self, segmenter: Any) -> None:
        model, inputs, strokes = segmenter
        victim = Victim("dense", model, strokes, criterion=self.criterion, batch=32)
        arena = Arena([victim], inputs, Ball("Linf", 0.3, 0.0, 1.0), seed=1)
        climb(arena, 0.3)
        clean = torch.tensor(self.overlap(model, inputs, strokes))
        assert (clean >= 0.5).float().mean() > 0.9
        assert torch.equal(arena.fell_at[0] == 0, clean < 0.5)
        rows, points = fallen(arena)
        assert len(rows) > 60
        assert max(self.overlap(model, points, strokes[rows])) < 0.5
        assert float((points - inputs[rows]).abs().max()) <= 0.3 + 1e-6
        assert float(points.min()) >= 0
        assert float(points.max()) <= 1

    def test_a_small_budget_loses_fewer(self, segmenter: Any) -> None:
        model, inputs, strokes = segmenter
        standing = []
        for eps in (0.1, 0.2, 0.3):
            victim = Victim("dense", model, strokes, criterion=self.criterion, batch=32)
            arena = Arena([victim], inputs, Ball("Linf", eps, 0.0, 1.0), seed=1)
            climb(arena, eps)
            standing.append(int(arena.standing.sum()))
        assert standing[0] > standing[1] > standing[2]


class Detector(nn.Module):
    """The box ``(x1, y1, x2, y2)`` of the only object on a canvas, as detectors return it: a mapping, no logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(8 * 100, 48), nn.ReLU(), nn.Linear(48, 4),
        )  # fmt: skip

    def forward(self, canvas: torch.Tensor) -> dict[str, torch.Tensor]:
        x, y, width, height = self.body(canvas).unbind(dim=1)
        width, height = functional.softplus(width), functional.softplus(height)
        return {"boxes": torch.stack([x, y, x + width, y + height], dim=1)}


def intersection_over_union(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """``(n,)``, box by box."""
    inner = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    both = inner.prod(dim=1)
    areas = [(one[:, 2:] - one[:, :2]).clamp(min=0).prod(dim=1) for one in (boxes, others)]
    return both / (areas[0] + areas[1] - both)


@pytest.fixture(scope="module")
def detector() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    digits, generator = images()[:, 0], torch.Generator().manual_seed(2)
    canvases, boxes = torch.zeros(len(digits), 1, 20, 20), torch.zeros(len(digits), 4)
    for row, digit in enumerate(digits):
        top, left = torch.randint(0, 13, (2,), generator=generator).tolist()
        canvases[row, 0, top : top + 8, left : left + 8] = digit
        ink = digit > 0
        ys, xs = ink.any(dim=1).nonzero().flatten().tolist(), ink.any(dim=0).nonzero().flatten().tolist()
        boxes[row] = torch.tensor([left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1]) / 20
    model = Detector()
    rows = torch.arange(100, len(digits))
    loss = lambda: functional.smooth_l1_loss(model(canvases[rows])["boxes"], boxes[rows], beta=0.05)  # noqa: E731
    trained(model, loss, 150)
    return model, canvases[:90], boxes[:90]


class TestDetection:
    """Synthetic canvases: real digits pasted at random places, and their boxes."""

    criterion = Criterion(
        loss=lambda output, boxes: (output["boxes"] - boxes).abs().sum(dim=1),
        fooled=lambda output, boxes: intersection_over_union(output["boxes"], boxes) < 0.5,
    )

    def test_objects_are_missed_and_every_miss_is_real(self, detector: Any) -> None:
        model, canvases, boxes = detector
        victim = Victim("dense", model, boxes, criterion=self.criterion, batch=32)
        arena = Arena([victim], canvases, Ball("Linf", 0.1, 0.0, 1.0), seed=1)
        climb(arena, 0.1)
        with torch.no_grad():
            clean = box_iou(model(canvases)["boxes"], boxes).diagonal()
        assert (clean >= 0.5).float().mean() > 0.8
        assert torch.equal(arena.fell_at[0] == 0, clean < 0.5)
        rows, points = fallen(arena)
        assert len(rows) > 30
        with torch.no_grad():
            assert float(box_iou(model(points)["boxes"], boxes[rows]).diagonal().max()) < 0.5

    def test_misses_of_one_variant_are_tried_on_the_next(self, detector: Any) -> None:
        model, canvases, boxes = detector
        victims = [Victim(name, model, boxes, criterion=self.criterion, batch=32) for name in ("dense", "same")]
        arena = Arena(victims, canvases, Ball("Linf", 0.1, 0.0, 1.0), seed=1)
        climb(arena, 0.1)
        assert torch.equal(arena.standing[0], arena.standing[1])
        again = [stage for stage in arena.stages if stage.victim == "same" and stage.name not in (CLEAN, "replay")]
        assert sum(stage.fell for stage in again) == 0


class Measure(nn.Module):
    """A linear regression of several numbers."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T


class TestClosedForm:
    def test_a_linear_regression_falls_exactly_where_its_error_can_pass_the_tolerance(self) -> None:
        """Under Linf the first number moves by at most eps · |w|₁, to the side where it is wrong already."""
        model, eps, tolerance = Measure(), 0.1, 1.0
        generator = torch.Generator().manual_seed(4)
        inputs = torch.randn(200, 6, generator=generator)
        targets = model(inputs).detach() + torch.rand(200, 3, generator=generator) * 2 - 1
        criterion = Criterion(
            loss=lambda output, wanted: (output - wanted)[:, 0].abs(),
            fooled=lambda output, wanted: (output - wanted)[:, 0].abs() > tolerance,
        )
        victim = Victim("dense", model, targets, criterion=criterion, batch=64)
        arena = Arena([victim], inputs, Ball("Linf", eps, -math.inf, math.inf), seed=1)
        climb(arena, eps, steps=1)
        error = (inputs.double() @ model.weight.detach().double().T - targets.double()).abs()[:, 0]
        reach = eps * model.weight.detach().double()[0].abs().sum()
        clear = (error + reach - tolerance).abs() > 1e-5
        assert torch.equal(~arena.standing[0][clear], (error + reach > tolerance)[clear])
        assert 0 < int((error + reach > tolerance).sum()) < 200


class TestWhatACriterionMustGive:
    INPUTS = torch.rand(10, 6, generator=torch.Generator().manual_seed(5))

    def arena(self, criterion: Criterion, model: nn.Module | None = None, **given: Any) -> Arena:
        draws = given.pop("draws", 1)
        victim = Victim("v", model or Measure(), torch.zeros(10, 3), criterion=criterion, batch=4, draws=draws)
        return Arena([victim], self.INPUTS, Ball("Linf", 0.1, 0.0, 1.0), seed=1, **given)

    @pytest.mark.parametrize(
        ("loss", "fooled", "message"),
        [
            (lambda out, _: out.mean(), lambda out, _: out[:, 0] > 99, r"loss=…\) gave shape \(\) for a batch of 4"),
            (lambda out, _: out, lambda out, _: out[:, 0] > 99, r"loss=…\) gave shape \(4, 3\)"),
            (lambda out, _: out[:, 0], lambda out, _: bool(out[0, 0] > 99), r"fooled=…\) gave bool for a batch of 4"),
        ],
    )
    def test_one_value_an_example(self, loss: Any, fooled: Any, message: str) -> None:
        with pytest.raises(SubjectError, match=message):
            self.arena(Criterion(loss, fooled))

    def test_a_class_cannot_be_aimed_at(self) -> None:
        with pytest.raises(SubjectError, match="no classes to aim at"):
            self.arena(Criterion(lambda out, _: out[:, 0], lambda out, _: out[:, 0] > 99), aim=1)

    def test_an_output_whose_loss_is_nan_fools_nobody(self) -> None:
        criterion = Criterion(lambda out, _: out[:, 0] * float("nan"), lambda out, _: out[:, 0] < 99)
        assert self.arena(criterion).standing.all()

    def test_a_criterion_without_a_gradient_is_an_error_of_the_measurement(self) -> None:
        arena = self.arena(Criterion(lambda out, _: out[:, 0].detach(), lambda out, _: out[:, 0] > 99))
        with pytest.raises(MeasurementError, match="backward pass raised"):
            climb(arena, 0.1)

    def test_of_a_random_model_more_than_half_of_the_draws_decide(self) -> None:
        class Flips(nn.Module):
            """Says 1 in two of three passes, then in one of three."""

            def __init__(self, hits: int) -> None:
                super().__init__()
                self.hits, self.calls = hits, 0

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                return x * 0 + float((self.calls - 1) % 3 < self.hits)

        criterion = Criterion(lambda out, _: out[:, 0], lambda out, _: out[:, 0] > 0.5)
        for hits, stands in ((2, False), (1, True)):
            arena = self.arena(criterion, Flips(hits), draws=3)
            assert bool(arena.standing.all()) is stands
            assert bool(arena.standing.any()) is stands

    def test_the_loss_of_points_is_the_users_own(self) -> None:
        criterion = Criterion(lambda out, _: out.square().sum(dim=1), lambda out, _: out[:, 0] > 0.5)
        victim = self.arena(criterion).victims[0]
        losses, fooled = victim.losses(self.INPUTS, torch.arange(10), lambda scores, targets: scores[:, 0])
        wanted = self.INPUTS.numpy() @ victim.model.weight.detach().numpy().T  # type: ignore[operator, union-attr]
        np.testing.assert_allclose(losses.numpy(), (wanted**2).sum(axis=1), rtol=1e-5)
        assert fooled.tolist() == (wanted[:, 0] > 0.5).tolist()
