"""A variant as an attack sees it: scores with gradients, and the forward pass that confirms a success."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from pruneproof import inference
from pruneproof.domain import Criterion
from pruneproof.errors import MeasurementError, PruneProofError, SubjectError
from pruneproof.isolation import evaluating

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``loss(scores (n, classes), targets (n,)) -> (n,)``; an attack raises it."""


def lead(scores: torch.Tensor, targets: torch.Tensor, aim: int | None = None) -> torch.Tensor:
    """``(n,)``: by how much the strongest wrong class leads the right one; with ``aim``, class ``aim`` all others."""
    own = (targets.long() if aim is None else torch.full_like(targets, aim, dtype=torch.int64))[:, None]
    mine = scores.gather(1, own).squeeze(1)
    others = scores.scatter(1, own, -torch.inf).amax(dim=1)
    return others - mine if aim is None else mine - others


@dataclass
class Work:
    """What an attack cost: example-passes, the unit that does not depend on the machine."""

    forwards: int = 0
    gradients: int = 0


class Gradient(NamedTuple):
    """Of a batch of points.

    Args:
        value: ``(n, …)`` gradient of each example's loss, in the points' dtype.
        loss: ``(n,)``
        fooled: ``(n,)`` booleans by these scores; a proposal, no success yet.
        scores: ``(n, classes)``, or ``None`` with a criterion of the subject's.
    """

    value: torch.Tensor
    loss: torch.Tensor
    fooled: torch.Tensor
    scores: torch.Tensor | None


@dataclass(eq=False)
class Victim:
    """One variant under attack.

    Passes run in batches of exactly ``batch`` examples, the last one padded, since float results change with the
    size of a batch. The model is put into evaluation mode by :meth:`attacked` and left as it was.

    Args:
        name: the variant's.
        model: a copy of the audit's own; it may be moved, never trained.
        targets: ``(n, …)`` of the arena's examples.
        inputs: ``inputs(points, rows) -> what the model is called with``; default: the points.
        logit_threshold: of a one-logit or two-class model, the logit at and above which it says the second class.
        criterion: what hurts, where it is not a wrong class.
        batch: examples a pass.
        draws: forward passes that one answer is averaged over; more than 1 where the model draws random numbers.
        approximate: a cheaper copy of the model for gradients alone (bfloat16, channels last).
    """

    name: str
    model: torch.nn.Module
    targets: torch.Tensor
    inputs: Callable[[torch.Tensor, torch.Tensor], Any] = lambda points, rows: points
    logit_threshold: float = 0.0
    criterion: Criterion | None = None
    batch: int = 128
    draws: int = 1
    approximate: Callable[[torch.Tensor, torch.Tensor], Any] | None = None
    work: Work = field(default_factory=Work)

    def attacked(self) -> Any:
        """A context in which the model is in evaluation mode, its parameters collect no gradients."""
        return _attacked(self.model)

    def scores(self, points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """``(n, classes)`` of one batch, differentiable in the points; the largest one is the model's answer.

        A one-logit model gives two columns, and the threshold of a two-class model is taken off the second, so that
        the largest score is always the class that the audit reads from the model.
        """
        return self.read(inference.call(self.model, self.inputs(points, rows)))

    def read(self, output: Any) -> torch.Tensor:
        """A model's output as scores ``(n, classes)``; what cannot be read is an error.

        Raises:
            MeasurementError: there are no logits in it.
        """
        found = inference.output_tensor(output)
        if found.ndim == 1:
            found = found[:, None]
        if found.ndim != 2 or not found.is_floating_point():
            raise MeasurementError(
                f"{self.name} returned shape {tuple(found.shape)} of {found.dtype} under attack",
                "return logits (batch, classes), or give Subject(criterion=…)",
            )
        if found.shape[1] == 1:
            return torch.cat([torch.zeros_like(found), found - self.logit_threshold], dim=1)
        if found.shape[1] == 2 and self.logit_threshold:
            return found - found.new_tensor([0.0, self.logit_threshold])
        return found

    def fooled(self, points: torch.Tensor, rows: torch.Tensor, aim: int | None = None) -> torch.Tensor:
        """``(n,)`` booleans from a forward pass of the model itself, in its own precision, without gradients.

        ``aim``: only the answer ``aim`` counts. Scores that are not finite never count.
        """
        return self.judged(points, rows, aim)[0]

    def judged(
        self, points: torch.Tensor, rows: torch.Tensor, aim: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What :meth:`fooled` says, and from the same forward pass ``(n,)`` float64 leads of the wrong answer.

        The lead of the strongest wrong class over the right one (``aim``: of that class over all others), above 0 where
        the answer is wrong; NaN with a criterion of the subject's.
        """
        found = torch.zeros(len(rows), dtype=torch.bool)
        leads = torch.full((len(rows),), float("nan"), dtype=torch.float64)
        with torch.no_grad():
            for part, one, these in self._padded(points, rows):
                self.work.forwards += len(part) * self.draws
                wrong, led = self._wrong(one, these, aim)
                found[part] = wrong[: len(part)].cpu()
                if led is not None:
                    leads[part] = led[: len(part)].cpu()
        return found, leads

    def answers(self, points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """``(n,)`` classes that the model says of the points, as the audit reads them from it."""
        found = []
        with torch.no_grad():
            for part, one, these in self._padded(points, rows):
                self.work.forwards += len(part) * self.draws
                scores = torch.stack([self.scores(one, these) for _ in range(self.draws)]).double().mean(dim=0)
                found.append(self._said(scores)[: len(part)].cpu())
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)

    @staticmethod
    def _said(scores: torch.Tensor) -> torch.Tensor:
        return (scores[:, 1] >= scores[:, 0]).long() if scores.shape[1] == 2 else scores.argmax(dim=1)

    def _mean(
        self,
        scores: Callable[[torch.Tensor, torch.Tensor], Any],
        points: torch.Tensor,
        rows: torch.Tensor,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Scores averaged over the draws."""
        found: torch.Tensor = scores(points, rows)
        if self.draws > 1:
            found = torch.stack([found, *(scores(points, rows) for _ in range(self.draws - 1))])
            return (found if dtype is None else found.to(dtype)).mean(dim=0)
        return found if dtype is None else found.to(dtype)

    def _wrong(
        self, points: torch.Tensor, rows: torch.Tensor, aim: int | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.criterion is not None:
            return self._hurt(self.criterion, points, rows, aim)[1], None
        scores = self._mean(self.scores, points, rows, torch.float64)
        targets = self.targets[rows].to(scores.device)
        known = bool(((targets >= 0) & (targets < scores.shape[1])).all())
        return self.wrong(scores, targets, aim), lead(scores, targets, aim) if known else None

    def _hurt(
        self, criterion: Criterion, points: torch.Tensor, rows: torch.Tensor, aim: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``(n,)`` losses and booleans by the subject's criterion, of one batch.

        Losses are averaged over the draws, more than half of them have to be fooled. Where the loss is NaN nothing is.

        Raises:
            SubjectError: the criterion does not give one number and one boolean an example, or cannot be aimed.
        """
        if aim is not None:
            raise SubjectError("a criterion of the subject's own has no classes to aim at", "ask for no target class")
        targets = self.targets[rows].to(inference.device_of(self.model))
        losses, hits = [], []
        for _ in range(self.draws):
            output = inference.call(self.model, self.inputs(points, rows))
            losses.append(_one_each("loss", criterion.loss(output, targets), len(rows)))
            hits.append(_one_each("fooled", criterion.fooled(output, targets), len(rows)).double())
        loss = torch.stack(losses).mean(dim=0)
        return loss, (torch.stack(hits).mean(dim=0) > 0.5) & ~loss.detach().isnan()

    def losses(
        self, points: torch.Tensor, rows: torch.Tensor, loss: Loss, aim: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``(n,)`` losses and ``(n,)`` booleans of who is fooled by these scores, without gradients, on the CPU.

        For searches that compare points; a proposal, no success yet. With a criterion its own loss is taken.
        """
        found = torch.full((len(rows),), float("nan"), dtype=torch.float64)
        hit = torch.zeros(len(rows), dtype=torch.bool)
        with torch.no_grad():
            for part, one, these in self._padded(points, rows):
                self.work.forwards += len(part) * self.draws
                each, wrong = self._judged(one, these, loss, aim)
                found[part], hit[part] = each[: len(part)].double().cpu(), wrong[: len(part)].cpu()
        return found, hit

    def _judged(
        self, points: torch.Tensor, rows: torch.Tensor, loss: Loss, aim: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.criterion is not None:
            return self._hurt(self.criterion, points, rows, aim)
        scores = self._mean(self.scores, points, rows)
        targets = self.targets[rows].to(scores.device)
        return loss(scores, targets), self.wrong(scores, targets, aim)

    @staticmethod
    def wrong(scores: torch.Tensor, targets: torch.Tensor, aim: int | None = None) -> torch.Tensor:
        """``(n,)`` booleans: whether the answer in ``scores`` is wrong, or the one aimed at.

        Ties go to the class that the audit would read: of two classes the second, of more the first.
        """
        answers = Victim._said(scores)
        hit = answers != targets if aim is None else answers == aim
        return hit & torch.isfinite(scores).all(dim=1)

    def gradient(self, points: torch.Tensor, rows: torch.Tensor, loss: Loss, aim: int | None = None) -> Gradient:
        """The gradient of ``loss`` at each point, batch by batch.

        Raises:
            MeasurementError: the model's backward pass raised.
        """
        values, losses, wrongs, scored = [], [], [], []
        for part, one, these in self._padded(points, rows):
            self.work.gradients += len(part) * self.draws
            found = self._gradient(one, these, loss, aim)
            n = len(part)
            values.append(found.value[:n])
            losses.append(found.loss[:n])
            wrongs.append(found.fooled[:n])
            if found.scores is not None:
                scored.append(found.scores[:n])
        if not values:
            empty = points.new_zeros(0)
            return Gradient(points, empty, empty.bool(), None)
        return Gradient(torch.cat(values), torch.cat(losses), torch.cat(wrongs), torch.cat(scored) if scored else None)

    def _gradient(self, points: torch.Tensor, rows: torch.Tensor, loss: Loss, aim: int | None) -> Gradient:
        leaf = points.detach().requires_grad_()
        targets = self.targets[rows]
        scores: torch.Tensor | None = None
        try:
            with torch.enable_grad():
                if self.criterion is not None:
                    each, wrong = self._hurt(self.criterion, leaf, rows, aim)
                else:
                    scores = self._mean(self.approximate or self.scores, leaf, rows)
                    each = loss(scores, targets.to(scores.device))
                    wrong = self.wrong(scores.detach(), targets.to(scores.device), aim)
                (value,) = torch.autograd.grad(each.sum(), leaf)
        except PruneProofError:
            raise
        except Exception as error:
            raise MeasurementError(
                f"{self.name}: its backward pass raised {type(error).__name__}: {error}",
                "make the model differentiable in its inputs, or ask for attacks without gradients",
            ) from error
        return Gradient(value, each.detach(), wrong, None if scores is None else scores.detach())

    def _padded(self, points: torch.Tensor, rows: torch.Tensor) -> Iterator[tuple[range, torch.Tensor, torch.Tensor]]:
        """Positions, and their points and rows filled up to a whole batch by repeating the last one."""
        for start in range(0, len(rows), self.batch):
            part = range(start, min(start + self.batch, len(rows)))
            one, these = points[part.start : part.stop], rows[part.start : part.stop]
            short = self.batch - len(part)
            if short:
                one = torch.cat([one, one[-1:].expand(short, *one.shape[1:])])
                these = torch.cat([these, these[-1:].expand(short)])
            yield part, one, these


def _one_each(name: str, found: object, n: int) -> torch.Tensor:
    """What a criterion's function gave, one value an example."""
    if not isinstance(found, torch.Tensor) or found.shape != (n,):
        shape = f"shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise SubjectError(
            f"Criterion({name}=…) gave {shape} for a batch of {n}", f"return one value an example: ({n},)"
        )
    return found


class _attacked:
    """Evaluation mode, no gradients of parameters; everything as before afterwards, whatever happened."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.mode = evaluating(self.model)
        self.mode.__enter__()
        self.wanted = [(parameter, parameter.requires_grad) for parameter in self.model.parameters()]
        for parameter, _ in self.wanted:
            parameter.requires_grad_(False)

    def __exit__(self, *error: Any) -> None:
        for parameter, wanted in self.wanted:
            parameter.requires_grad_(wanted)
        self.mode.__exit__(*error)
