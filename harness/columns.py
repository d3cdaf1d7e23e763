"""Columns: what each weight of a layer is multiplied with.

A linear layer multiplies weight ``(o, j)`` with feature j of every position; a convolution multiplies weight
``(o, c, *kernel)`` with what its window shows of channel c. Laid out as a matrix, the layer is ``W X``, and row j of X
belongs to column j of W.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from pruneproof.digests import class_name

_CONVOLUTIONS: dict[type[torch.nn.Module], int] = {torch.nn.Conv1d: 1, torch.nn.Conv2d: 2, torch.nn.Conv3d: 3}


def unsupported(module: torch.nn.Module) -> str:
    """Why the columns of ``module`` are not known; ``""`` where they are."""
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript runs it without its hooks"
    if is_transposed_linear(module):
        return ""
    kinds: tuple[type[torch.nn.Module], ...] = (torch.nn.Linear, *_CONVOLUTIONS)
    for kind in kinds:
        if isinstance(module, kind):
            own = type(module).forward is not kind.forward or "forward" in vars(module)
            return f"{class_name(module)} has a forward of its own, which may change its input first" if own else ""
    return f"what {class_name(module)} multiplies its weights with is not known"


def is_transposed_linear(module: torch.nn.Module) -> bool:
    """transformers' ``Conv1D``: a linear layer with its weight transposed, ``(in, out)``."""
    return class_name(module) == "Conv1D" and hasattr(module, "nf") and hasattr(module, "nx")


def dimensions(module: torch.nn.Module) -> int:
    """Spatial dimensions of a convolution; 0 for a linear layer."""
    return next((count for kind, count in _CONVOLUTIONS.items() if isinstance(module, kind)), 0)


def given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """The input in a layer's arguments, detached, in float32 or wider."""
    found: torch.Tensor = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
    return found.detach().to(torch.promote_types(found.dtype, torch.float32))


def squares(module: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Sum of the squares of each column's inputs, over examples and positions: ``(groups, in, *kernel)``."""
    if not dimensions(module):
        return inputs.square().reshape(-1, inputs.shape[-1]).sum(dim=0)[None]
    # Squared before the windows are cut, which are views: nothing of the size of the unfolded input is made.
    windows = _windows(module, inputs, squared=True)
    spatial = dimensions(module)
    found = windows.sum(dim=(0, *range(2, 2 + spatial)))
    groups: int = module.groups  # type: ignore[assignment]
    return found.reshape(groups, -1, *found.shape[1:])


def matrix(module: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """X, unfolded: ``(groups, in · kernel, examples · positions)``, in the order of the flattened weight's columns."""
    if not dimensions(module):
        return inputs.reshape(-1, inputs.shape[-1]).T[None]
    windows = _windows(module, inputs)
    spatial = dimensions(module)
    groups: int = module.groups  # type: ignore[assignment]
    columns = windows.permute(1, *range(2 + spatial, 2 + 2 * spatial), 0, *range(2, 2 + spatial))
    positions = columns.shape[1 + spatial :].numel()
    return columns.reshape(groups, -1, positions)


def spread(module: torch.nn.Module, columns: torch.Tensor) -> torch.Tensor:
    """One value a column, ``(groups, in, *kernel)``, in the shape of the layer's weight."""
    shape: torch.Size = module.weight.shape  # type: ignore[assignment]
    if is_transposed_linear(module):
        return columns[0][:, None].expand(shape)
    if len(columns) == 1:
        return columns.expand(shape)
    return columns.repeat_interleave(shape[0] // len(columns), dim=0)


def _windows(module: Any, inputs: torch.Tensor, squared: bool = False) -> torch.Tensor:
    """``(examples, channels, *positions, *kernel)``, a view of the padded input."""
    spatial = dimensions(module)
    batched = inputs if inputs.ndim == spatial + 2 else inputs[None]
    amounts = module._reversed_padding_repeated_twice  # of any padding, 'same' included, as torch's own layers pad
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    windows = functional.pad(batched, amounts, mode=mode) if any(amounts) else batched
    windows = windows.square() if squared else windows
    for axis in range(spatial):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        windows = windows.unfold(2 + axis, reach, module.stride[axis])[..., :: module.dilation[axis]]
    return windows
