"""Gradients of a network's loss on the calibration examples, none of which is kept longer than it is needed.

They are taken up one parameter at a time while a backward pass goes on, so that beside what is accumulated never more
than one gradient exists.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pruneproof import inference
from pruneproof.errors import PruningError, SubjectError
from pruneproof.losses import Loss
from pruneproof.observations import quiet, telling
from pruneproof.subject import Data

Take = Callable[[str, torch.Tensor, torch.Tensor], None]
"""Called with a parameter's name, itself and its gradient."""


def mean(
    model: torch.nn.Module, names: Iterable[str], examples: Data, loss: Loss, batch_size: int
) -> dict[str, torch.Tensor]:
    """``∂L/∂w`` of each of ``names`` that a gradient reaches, float32 or wider; L is the mean loss over all examples.

    Raises:
        PruningError: no gradient reaches any of them, or loss or gradients are not finite.
        SubjectError: the examples have no targets.
    """
    total = inference.size(examples)
    found: dict[str, torch.Tensor] = {}

    def take(name: str, weight: torch.Tensor, gradient: torch.Tensor) -> None:
        found[name] = found[name].add_(gradient) if name in found else gradient.clone()

    with _taking(model, names, take):
        for inputs, targets in labelled(examples, batch_size):
            _backward(model, inputs, targets, loss, share=len(inference.tensors(inputs)[0]) / total)
    return {name: gradient.cpu() for name, gradient in _sound(found).items()}


def each(model: torch.nn.Module, names: Iterable[str], examples: Data, loss: Loss, take: Take) -> set[str]:
    """Takes up the gradients of every single example's loss, one backward pass an example.

    Args:
        take: called for each example, in order, and each of ``names`` that its gradient reaches.

    Returns:
        those of ``names`` that a gradient reached.

    Raises:
        PruningError, SubjectError: as :func:`mean`.
    """
    names = list(names)
    ever: set[str] = set()
    now: set[str] = set()

    def once(name: str, weight: torch.Tensor, gradient: torch.Tensor) -> None:
        if name in now:
            raise PruningError(
                f"the gradient of {name} comes in several parts, whose squares are not its square",
                "turn checkpointing off, or use torch.utils.checkpoint with use_reentrant=False",
            )
        now.add(name)
        take(name, weight, gradient)

    with _taking(model, names, once):
        for inputs, targets in labelled(examples, 1):
            now.clear()
            _backward(model, inputs, targets, loss)
            ever |= now
    if not ever:
        raise _no_gradient()
    return ever


def labelled(examples: Data, batch_size: int) -> Iterator[tuple[Any, torch.Tensor]]:
    """Batches with their targets.

    Raises:
        SubjectError: there are none, or not as many as examples.
    """
    given = None if examples.targets is None else _tensor(examples.targets)
    if given is not None and len(given) != inference.size(examples):
        raise SubjectError(
            f"the calibration data has {inference.size(examples)} examples and {len(given)} targets",
            "give one target an example",
        )
    start = 0
    for inputs, yielded in inference.batches(examples, batch_size):
        n = len(inference.tensors(inputs)[0])
        targets = yielded if given is None else given[start : start + n]
        if targets is None:
            raise SubjectError(
                "the calibration examples have no targets, and the criterion needs the gradient of the loss",
                "give Data(inputs, targets), or use a criterion that needs none",
            )
        yield inputs, targets
        start += n


def _tensor(targets: Any) -> torch.Tensor:
    return targets if isinstance(targets, torch.Tensor) else torch.as_tensor(np.asarray(targets))


def _backward(model: torch.nn.Module, inputs: Any, targets: Any, loss: Loss, share: float = 1.0) -> None:
    """``share``: of these examples among all that the mean is taken over."""
    device = inference.device_of(model)
    wanted = targets.to(device) if isinstance(targets, torch.Tensor) else targets
    with telling("the gradient on the calibration examples failed"):
        value = loss(inference.call(model, inputs), wanted)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise SubjectError("the loss is no single number", "return a scalar tensor from Subject.loss")
        if not torch.isfinite(value).all():
            raise PruningError("the loss on the calibration examples is NaN or infinite", "mend model, loss or data")
        if not value.requires_grad:
            raise _no_gradient()
        (value * share).backward()  # type: ignore[no-untyped-call]


def _no_gradient() -> PruningError:
    return PruningError(
        "no gradient reaches any weight that could be pruned: the forward pass runs under no_grad, or detaches",
        "remove no_grad and detach from it, or use a criterion that needs no gradient",
    )


def _sound(found: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    if not found:
        raise _no_gradient()
    for name, gradient in found.items():
        finite(name, gradient)
    return found


def finite(name: str, gradient: torch.Tensor) -> torch.Tensor:
    """``gradient``.

    Raises:
        PruningError: it holds NaN or infinity.
    """
    if not torch.isfinite(gradient).all():
        raise PruningError(f"the gradient of {name} holds NaN or infinity", "mend model, loss or data")
    return gradient


@contextlib.contextmanager
def _taking(model: torch.nn.Module, names: Iterable[str], take: Take) -> Iterator[None]:
    """Gradients go to ``take``, of every parameter, frozen or not; the model is left as it was."""
    parameters = list(model.parameters())
    named = dict(model.named_parameters(remove_duplicate=False))
    aliases: dict[int, list[str]] = defaultdict(list)
    for name in names:
        aliases[id(named[name])].append(name)
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters]

    def hook(parameter: torch.Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None and id(parameter) in aliases:
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            wide = dense.detach().to(torch.promote_types(dense.dtype, torch.float32))
            for name in aliases[id(parameter)]:
                take(name, parameter.detach(), wide)

    with contextlib.ExitStack() as undo:
        undo.callback(_restore, before)
        for parameter in parameters:
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
                parameter.grad = None
                handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
                undo.callback(handle.remove)
        undo.enter_context(quiet(model))
        undo.enter_context(torch.inference_mode(False))
        undo.enter_context(torch.enable_grad())
        undo.enter_context(_backward_of_recurrent_layers(model))
        yield


def _restore(before: Sequence[tuple[torch.nn.Parameter, bool, torch.Tensor | None]]) -> None:
    for parameter, requires_grad, gradient in before:
        parameter.requires_grad_(requires_grad)
        parameter.grad = gradient


@contextlib.contextmanager
def _backward_of_recurrent_layers(model: torch.nn.Module) -> Iterator[None]:
    """cuDNN has none for recurrent layers in eval mode."""
    enabled = torch.backends.cudnn.enabled
    recurrent = any(isinstance(module, torch.nn.RNNBase) for module in model.modules())
    try:
        torch.backends.cudnn.enabled = enabled and not recurrent
        yield
    finally:
        torch.backends.cudnn.enabled = enabled
