"""Forward passes: batches of any input form in, one array of outputs out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from pruneproof.errors import MeasurementError
from pruneproof.isolation import evaluating
from pruneproof.outcomes import Floats
from pruneproof.subject import Data, Inputs


def size(data: Data) -> int:
    """Number of examples.

    Raises:
        TypeError, ValueError: the inputs have no length, or parts of different lengths.
    """
    inputs = data.inputs
    if isinstance(inputs, torch.Tensor):
        return len(inputs)
    parts = _parts(inputs)
    if parts is not None:
        lengths = {len(part) for part in parts}
        if len(lengths) != 1:
            raise ValueError(f"its parts have different lengths: {sorted(lengths)}")
        return lengths.pop()
    return len(inputs)


def _parts(inputs: Inputs) -> list[torch.Tensor] | None:
    if isinstance(inputs, Mapping):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, tuple | list) else None


def head(data: Data, n: int) -> Data:
    """The first ``n`` examples, without segments and ids."""
    parted = isinstance(data.inputs, torch.Tensor) or _parts(data.inputs) is not None
    last = min(n, size(data))
    inputs = cut(data.inputs, slice(0, last)) if parted else torch.utils.data.Subset(data.inputs, range(last))
    targets = data.targets
    if targets is not None:
        targets = targets[:last] if isinstance(targets, torch.Tensor) else np.asarray(targets)[:last]
    return Data(inputs, targets)


def batches(data: Data, batch_size: int) -> Iterator[tuple[Inputs, Any]]:
    """``(inputs, targets)`` in order; ``targets`` is ``None`` unless a ``Dataset`` yields them."""
    if isinstance(data.inputs, torch.Tensor) or _parts(data.inputs) is not None:
        for start in range(0, size(data), batch_size):
            yield cut(data.inputs, slice(start, start + batch_size)), None
        return
    for start in range(0, size(data), batch_size):
        items = [data.inputs[i] for i in range(start, min(start + batch_size, size(data)))]
        collated = torch.utils.data.default_collate(items)
        if isinstance(items[0], tuple | list) and len(items[0]) == 2:
            yield collated[0], collated[1]
        else:
            yield collated, None


def cut(inputs: Inputs, rows: slice) -> Inputs:
    """Some examples of a batch, or of a whole set of tensors; copies, since a model may work on its inputs in place."""
    if isinstance(inputs, Mapping):
        return {name: _copy(part[rows]) for name, part in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(_copy(part[rows]) for part in inputs)
    return _copy(inputs[rows])


def _copy(part: Any) -> Any:
    return part.detach().clone() if isinstance(part, torch.Tensor) else part


def each(inputs: Inputs, change: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
    """``inputs`` with every tensor changed."""
    if isinstance(inputs, Mapping):
        return {name: change(part) for name, part in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(change(part) for part in inputs)
    return change(inputs)


def tensors(inputs: Inputs) -> list[torch.Tensor]:
    """The tensors of one batch, in a stable order."""
    parts = _parts(inputs)
    found = [inputs] if parts is None else parts
    return [part for part in found if isinstance(part, torch.Tensor)]


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model's first parameter or buffer lies; the CPU for a model without any."""
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


def call(model: torch.nn.Module, inputs: Inputs) -> Any:
    """``model(inputs)``: mappings as keyword arguments, tuples as positional ones, on the model's device."""
    device = device_of(model)
    if isinstance(inputs, Mapping):
        return model(**{name: part.to(device) for name, part in inputs.items()})
    if isinstance(inputs, tuple | list):
        return model(*(part.to(device) for part in inputs))
    return model(inputs.to(device))


def output_tensor(output: Any) -> torch.Tensor:
    """The tensor in a model's output: itself, ``.logits``, ``["logits"]``, the only or the first entry.

    Raises:
        MeasurementError: there is none.
    """
    found = output
    if not isinstance(found, torch.Tensor) and hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, Mapping):
        found = found["logits"] if "logits" in found else next(iter(found.values()), None)
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, torch.Tensor):
        raise MeasurementError(
            f"the model returned {type(output).__name__}, in which there is no tensor",
            "return a tensor, a tuple or mapping that starts with it, or an object with .logits",
        )
    return found


def forward(model: torch.nn.Module, data: Data, batch_size: int) -> Floats:
    """Outputs ``(n, width)`` of ``model`` in eval mode, without gradients; the model is left as it was.

    Raises:
        MeasurementError: the model raised, or its output is not one row of numbers an example.
    """
    rows: list[Floats] = []
    with evaluating(model), torch.no_grad():
        for inputs, _ in batches(data, batch_size):
            n = len(tensors(inputs)[0])
            try:
                output = output_tensor(call(model, inputs))
            except MeasurementError:
                raise
            except Exception as error:
                at = sum(map(len, rows))
                raise MeasurementError(
                    f"the model raised {type(error).__name__} on examples {at} to {at + n - 1}: {error}",
                    "make the model accept every example of its test set",
                ) from error
            rows.append(_as_rows(output, n))
    return np.concatenate(rows) if rows else np.empty((0, 1), dtype=np.float32)


def targets_of(data: Data, batch_size: int) -> np.ndarray[Any, Any]:
    """Targets ``(n,)``, those that a ``Dataset`` yields included.

    Raises:
        MeasurementError: there are none.
    """
    if data.targets is not None:
        given = data.targets
        return np.asarray(given.detach().cpu() if isinstance(given, torch.Tensor) else given).reshape(-1)
    found = [np.asarray(targets) for _, targets in batches(data, batch_size) if targets is not None]
    if not found:
        raise MeasurementError("the examples have no targets", "give Data(inputs, targets)")
    return np.concatenate(found).reshape(-1)


def _as_rows(output: torch.Tensor, n: int) -> Floats:
    if not output.is_floating_point():
        raise MeasurementError(
            f"the model returned {output.dtype}, not logits or numbers", "return floating point outputs"
        )
    if output.ndim == 1 and len(output) == n:
        output = output[:, None]
    if output.ndim != 2 or len(output) != n or output.shape[1] == 0:
        raise MeasurementError(
            f"the model returned shape {tuple(output.shape)} for a batch of {n}",
            "return logits (batch, classes), or one number an example: (batch,) or (batch, 1)",
        )
    wide = output.dtype == torch.float64
    return np.asarray(output.detach().to("cpu", torch.float64 if wide else torch.float32).numpy())


def logits(outputs: Floats) -> Floats:
    """``outputs`` of a classifier, which are not probabilities: a sigmoid or softmax on top of them would be
    a second one, and every threshold, ranking and calibration figure wrong.

    Raises:
        MeasurementError: all lie in [0, 1], and every row sums to 1 or, with one output an example, they span it.
    """
    inside = bool((outputs >= 0).all() and (outputs <= 1).all())
    spans = outputs.shape[1] == 1 and outputs.min() < 0.05 and outputs.max() > 0.95
    sums = outputs.shape[1] > 1 and np.allclose(outputs.sum(axis=1, dtype=np.float64), 1, atol=1e-3)
    if inside and (spans or sums):
        raise MeasurementError(
            f"the model returns probabilities: all {len(outputs)} examples have outputs in [0, 1]",
            "return logits: wrap a model that ends in a sigmoid or softmax and return torch.logit(p) or torch.log(p)",
        )
    return outputs


def finite(outputs: Floats, who: str) -> Floats:
    """``outputs``, all finite.

    Raises:
        MeasurementError: some are NaN or infinite.
    """
    bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if len(bad):
        raise MeasurementError(
            f"{who} returned NaN or infinity for {len(bad)} of {len(outputs)} examples, first at example {bad[0]}",
            "find the layer that overflows; a model that answers NaN is not released",
        )
    return outputs
