"""Penultimate features: what a classifier's last linear layer is given, which detectors of the unknown look at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruneproof import inference
from pruneproof.errors import MeasurementError
from pruneproof.isolation import evaluating
from pruneproof.subject import Inputs

INSTEAD = "name the layer whose output shall serve as features, or leave mahalanobis and knn out"
TOLERANCE = 1e-4
"""Of the outputs' size: how far a head computed again by another kernel may be from the model's own output."""


@dataclass(eq=False)
class Tap:
    """Features of the forward passes that were made while it was open; see :func:`tapped`."""

    name: str
    _seen: list[torch.Tensor] = field(default_factory=list)

    def take(self) -> NDArray[np.float32]:
        """``(n, width)`` of the last forward pass, each example's flattened; the tap holds nothing afterwards.

        Raises:
            MeasurementError: there was no pass, or it did not call the layer exactly once.
        """
        seen, self._seen = self._seen, []
        if len(seen) != 1:
            raise MeasurementError(f"layer '{self.name}' was called {len(seen)} times in one forward pass", INSTEAD)
        flat = seen[0].detach().reshape(len(seen[0]), -1)
        return np.asarray(flat.to("cpu", torch.float32).numpy())

    def put(self, value: Any) -> None:
        """One call of the layer."""
        if not isinstance(value, torch.Tensor) or value.ndim < 2:
            got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise MeasurementError(f"layer '{self.name}' deals in {got}, not in features (n, …)", INSTEAD)
        self._seen.append(value)


def head(model: torch.nn.Module, inputs: Inputs) -> str:
    """The name of the last ``Linear`` whose output is the model's output, found by one forward pass of ``inputs``.

    It is held against the output twice: what the layer returned is what the model returned, and its weight and bias
    applied to what it was given come to the same. The model is left as it was.

    Args:
        inputs: one batch, of at least one example.

    Raises:
        MeasurementError: the model has none, or raised.
    """
    linear: dict[torch.nn.Module, str] = {module: name for name, module in model.named_modules() if _is_linear(module)}
    calls: list[tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]] = []

    def note(module: Any, given: tuple[Any, ...], returned: Any) -> None:
        if given and isinstance(given[0], torch.Tensor) and isinstance(returned, torch.Tensor):
            calls.append((module, given[0].detach().clone(), returned.detach().clone()))

    with _hooked(linear, note):
        output = _passed(model, inputs)
    for module, given, returned in reversed(calls):
        if returned.numel() != output.numel() or not torch.equal(_flat(returned), _flat(output)):
            continue
        with torch.no_grad():
            again = torch.nn.functional.linear(given, module.weight, module.bias)
        if not _near(_flat(again), _flat(output)):
            raise MeasurementError(
                f"layer '{linear[module]}' does more than its weight and bias say: its features are not known", INSTEAD
            )
        return linear[module]
    if not calls:
        raise MeasurementError("the model's forward pass calls no Linear layer that can be listened to", INSTEAD)
    raise MeasurementError("what the model returns is not the output of a Linear layer of its own", INSTEAD)


@contextlib.contextmanager
def tapped(model: torch.nn.Module, name: str, *, output: bool = False) -> Iterator[Tap]:
    """Listens to layer ``name``: every forward pass inside can be followed by ``tap.take()``. No hook stays.

    Args:
        name: from :func:`head`, or the policy's own.
        output: the features are what the layer returns, not what it is given: of a layer that the policy names.

    Raises:
        MeasurementError: there is no such layer; its passes do not yield features.
    """
    modules = dict(model.named_modules())
    if name not in modules or not name:
        raise MeasurementError(f"the model has no layer '{name}'", INSTEAD)
    tap = Tap(name)

    def note(module: Any, given: tuple[Any, ...], returned: Any) -> None:
        if output or given:
            tap.put(returned if output else given[0])
        else:
            raise MeasurementError(f"layer '{name}' is called with keyword arguments alone", INSTEAD)

    with _hooked({modules[name]: name}, note):
        yield tap


def tap_of(model: torch.nn.Module, inputs: Inputs, layer: str | None = None) -> contextlib.AbstractContextManager[Tap]:
    """:func:`tapped` at the model's own :func:`head`, or at the output of ``layer`` where the policy names one.

    To be asked of every variant again: a pruned one may be narrower, and its head may have another name.

    Raises:
        MeasurementError: as :func:`head` and :func:`tapped`.
    """
    if layer is not None:
        return tapped(model, layer, output=True)
    return tapped(model, head(model, inputs))


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def _passed(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    with evaluating(model), torch.no_grad():
        try:
            return inference.output_tensor(inference.call(model, inputs)).detach().clone()
        except MeasurementError:
            raise
        except Exception as error:
            raise MeasurementError(
                f"the model raised {type(error).__name__}: {error}", "make the model accept every example"
            ) from error


@contextlib.contextmanager
def _hooked(modules: Any, note: Any) -> Iterator[None]:
    handles = []
    try:
        for module in modules:
            try:
                handles.append(module.register_forward_hook(note))
            except RuntimeError as error:  # a TorchScript module
                raise MeasurementError(f"the model cannot be listened to: {error}", INSTEAD) from error
        yield
    finally:
        for handle in handles:
            handle.remove()


def _flat(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1)


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = float(other.double().abs().max()) if other.numel() else 0.0
    off = float((one.double() - other.double()).abs().max()) if other.numel() else 0.0
    coarse = torch.finfo(other.dtype).eps if other.is_floating_point() else 0.0
    return off <= max(TOLERANCE, 8 * coarse) * max(scale, 1e-30)
