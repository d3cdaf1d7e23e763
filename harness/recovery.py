"""Recovery: a fine-tuning loop for subjects that bring training examples and, if they like, a loss.

AdamW on shuffled mini-batches; a tenth of the examples is held out, and the weights of the epoch that did best on it
are kept. On top, as the policy asks: distillation from the dense model, or low-rank adapters in place of all weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pruneproof import adapters, inference, losses, surgery, training
from pruneproof.errors import MeasurementError, PruneProofError, PruningError, SubjectError
from pruneproof.isolation import Interrupt, evaluating
from pruneproof.recipe import Recovery
from pruneproof.subject import Data, Subject


def function(options: Recovery, subject: Subject, dense: torch.nn.Module) -> training.FineTune:
    """``fine_tune(model, *, step, steps, generator)`` as :class:`pruneproof.subject.Subject` describes it.

    It trains what requires gradients, and keeps the weights of the best of its epochs: the one with the lowest loss
    on the held-out examples. Which these are is drawn at step 1 and stays for the steps that follow. With
    ``lora_rank`` every weight but the adapters' is frozen; normalisation statistics follow the examples in any case.

    Args:
        dense: the teacher of distillation; run in eval mode without gradients, and left as it was.

    Raises:
        SubjectError: no training examples, fewer than two, or without as many targets.
        PruneProofError: ``lora_rank`` without peft.

    The function raises :class:`PruningError` where nothing can be trained or the loss is NaN or infinite, and
    :class:`SubjectError` where the model or the loss do not take the examples.
    """
    if subject.train is None:
        raise SubjectError("recovery has no examples to train with", "give pruneproof.Subject(train=Data(…))")
    if options.lora_rank is not None:
        adapters.library()
    objective = Objective(options, subject, dense, Examples(subject.train, subject.task))
    split: list[tuple[torch.Tensor, torch.Tensor]] = []

    def fine_tune(model: torch.nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
        if step == 1 or not split:
            split[:] = [_split(objective.examples.size, generator)]
        run = _Run(model, objective, options, *split[0], generator)
        with evaluating(dense) if options.distill else contextlib.nullcontext():
            if options.lora_rank is None:
                _fit(run, [parameter for parameter in model.parameters() if parameter.requires_grad])
            else:
                _fit_adapters(run, options.lora_rank)

    return fine_tune


class Examples:
    """Training examples by their positions.

    Raises:
        SubjectError: fewer than two, or another number of targets.
    """

    def __init__(self, data: Data, task: str) -> None:
        try:
            self.size = inference.size(data)
        except (TypeError, ValueError) as error:
            raise SubjectError(f"train: {error}", "give inputs that have one length") from None
        self._inputs, self._task = data.inputs, task
        self._targets = None if data.targets is None else self._as_targets(data.targets)
        if self._targets is not None and len(self._targets) != self.size:
            raise SubjectError(f"train has {self.size} inputs and {len(self._targets)} targets", "give one target each")
        if self.size < 2:
            raise SubjectError(f"train has {self.size} examples", "give two at least: one of them is held out")

    def take(self, rows: torch.Tensor) -> tuple[Any, torch.Tensor | None]:
        """Inputs and targets at ``rows`` ``(batch,)``, as copies, since a model may work on its inputs in place."""
        inputs, targets = self._inputs, None
        if isinstance(inputs, torch.Tensor):
            inputs = inputs.detach()[rows]
        elif isinstance(inputs, Mapping):
            inputs = {name: part.detach()[rows] for name, part in inputs.items()}
        elif isinstance(inputs, tuple | list):
            inputs = tuple(part.detach()[rows] for part in inputs)
        else:
            items = [inputs[int(row)] for row in rows]
            inputs = torch.utils.data.default_collate(items)
            if isinstance(items[0], tuple | list) and len(items[0]) == 2:
                inputs, targets = inputs[0], self._as_targets(inputs[1])
        return inputs, targets if self._targets is None else self._targets[rows]

    def _as_targets(self, targets: Any) -> torch.Tensor:
        found = targets.detach() if isinstance(targets, torch.Tensor) else torch.as_tensor(np.asarray(targets))
        if found.is_floating_point():
            return found.to(torch.get_default_dtype())
        return found.long() if self._task == "classification" else found.to(torch.get_default_dtype())


@dataclass(frozen=True, eq=False)
class Objective:
    """``(1 - α) · task loss + α · distillation loss``, α being ``distill``."""

    options: Recovery
    subject: Subject
    dense: torch.nn.Module
    examples: Examples

    def __call__(self, model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """The mean over the examples at ``rows``, a scalar."""
        inputs, targets = self.examples.take(rows)
        share, loss = self.options.distill, torch.zeros(())
        if share:
            with torch.no_grad():
                taught = inference.output_tensor(inference.call(self.dense, _copied(inputs)))
        output = inference.call(model, inputs)
        if share < 1:
            if targets is None:
                raise SubjectError("train has no targets", "give Data(inputs, targets), or recovery with distill = 1")
            task = losses.loss_of(self.subject)(output, targets.to(inference.device_of(model)))
            loss = (1 - share) * task
        if share:
            logits = inference.output_tensor(output)
            taught = taught.to(logits.device, logits.dtype)
            if self.subject.task == "classification":
                learned = distillation(logits, taught, self.options.temperature)
            else:
                learned = functional.mse_loss(logits, taught)
            loss = loss.to(learned.device) + share * learned
        return loss


def distillation(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """``T² · KL(softmax(taught / T) ‖ softmax(logits / T))``, mean over the examples (Hinton, Vinyals and Dean 2015,
    arXiv 1503.02531, section 2).

    Args:
        logits, taught: ``(..., classes)``; or ``(batch,)`` or ``(..., 1)``: one logit z of two classes, which are
            then those of the logits (0, z).
    """
    if logits.ndim == 1 or logits.shape[-1] == 1:
        logits, taught = (torch.stack([torch.zeros_like(z), z], -1) for z in (logits.flatten(), taught.flatten()))
    student, teacher = (
        functional.log_softmax(
            z.flatten(0, -2) / temperature, dim=-1, dtype=torch.promote_types(z.dtype, torch.float32)
        )
        for z in (logits, taught)
    )
    return temperature**2 * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _copied(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {name: part.clone() for name, part in inputs.items()}
    return tuple(part.clone() for part in inputs) if isinstance(inputs, tuple | list) else inputs.clone()


def _split(size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions to train with, and those held out: a tenth, rounded down, one at least."""
    order = torch.randperm(size, generator=generator)
    held_out = max(1, size // 10)
    return order[held_out:], order[:held_out]


@dataclass(frozen=True, eq=False)
class _Run:
    model: torch.nn.Module
    objective: Objective
    options: Recovery
    rows: torch.Tensor
    held_out: torch.Tensor
    generator: torch.Generator

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        try:
            loss = self.objective(self.model, rows)
        except (PruneProofError, Interrupt) as error:
            if isinstance(error, MeasurementError):
                raise SubjectError(error.cause, error.remedy) from error
            raise
        except Exception as error:
            cause = f"recovery: model or loss raised {type(error).__name__} on {len(rows)} examples of train: {error}"
            raise SubjectError(cause, "make both accept batches of the training set") from error
        if loss.numel() != 1:
            raise SubjectError(f"the loss has shape {tuple(loss.shape)}", "return the mean over the batch, a scalar")
        if not bool(torch.isfinite(loss)):
            raise PruningError(f"recovery: the loss is {loss.item()}", "lower its learning_rate, or look at the loss")
        return loss

    def held_out_loss(self) -> float:
        """Mean over the held-out examples, in eval mode."""
        with evaluating(self.model), torch.no_grad():
            parts = torch.split(self.held_out, self.options.batch_size)
            return sum(self.loss(part).item() * len(part) for part in parts) / len(self.held_out)


def _fit(run: _Run, parameters: list[torch.nn.Parameter]) -> float:
    """Trains ``parameters``, and gives the held-out loss of the epoch whose weights are kept."""
    if not parameters:
        raise PruningError("recovery has nothing to train: every parameter is frozen", "set requires_grad, or leave it")
    optimizer = torch.optim.AdamW(parameters, lr=run.options.learning_rate)
    best, lowest, since = _state(run.model, parameters), math.inf, 0
    for _ in range(run.options.epochs):
        for rows in _shuffled(run.rows, run.options.batch_size, run.generator):
            optimizer.zero_grad()
            loss = run.loss(rows)
            if not loss.requires_grad:
                raise PruningError(
                    "recovery: the loss depends on no parameter that requires gradients",
                    "let forward compute gradients, or leave recovery out",
                )
            torch.autograd.backward(loss)
            optimizer.step()
        now = run.held_out_loss()
        since = 0 if now < lowest else since + 1
        if since == 0:
            best, lowest = _state(run.model, parameters), now
        if since >= run.options.patience:
            break
    tensors = surgery.named_tensors(run.model)
    with torch.no_grad():
        for name, value in best.items():
            tensors[name].copy_(value)
    return lowest


def _state(model: torch.nn.Module, parameters: list[torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    trained = {id(parameter) for parameter in parameters}
    found = {name: p.detach().clone() for name, p in model.named_parameters() if id(p) in trained}
    return found | {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def _shuffled(rows: torch.Tensor, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Mini-batches. A last one of a single example joins the one before, since batch norm cannot train on it."""
    batches = list(torch.split(rows[torch.randperm(len(rows), generator=generator)], batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 < batch_size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _fit_adapters(run: _Run, rank: int) -> None:
    with adapters.adapted(run.model, rank, run.generator) as parameters:
        trained = _fit(run, parameters)
    merged = run.held_out_loss()
    precise = all(p.dtype in (torch.float32, torch.float64) for p in run.model.parameters() if p.is_floating_point())
    if not math.isclose(merged, trained, rel_tol=1e-3 if precise else 5e-2, abs_tol=1e-5 if precise else 1e-2):
        raise PruningError(
            f"recovery: with the adapters merged the held-out loss is {merged:.6g}, with them in place {trained:.6g}",
            "leave lora_rank out: the model uses a linear layer's weight other than by calling that layer",
        )
