"""What a network costs: parameters, multiply-accumulates, bytes on disk."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pruneproof import inference, prunable
from pruneproof.isolation import evaluating
from pruneproof.subject import Inputs


def parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Number of parameters, and of elements that are not zero; of a masked or reparametrized one what it stands for."""
    shown = {id(tensor): tensor for tensor in prunable.tensors_of(model).values()}
    stored = sum(parameter.numel() for parameter in model.parameters())
    return stored, sum(int(torch.count_nonzero(tensor)) for tensor in shown.values())


def serialised(model: torch.nn.Module) -> bytes:
    """The state dict as a safetensors file; a tensor that several names share is written once."""
    seen: set[tuple[int, int, tuple[int, ...]]] = set()
    tensors = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            continue  # extra state
        place = (tensor.data_ptr(), tensor.numel(), tuple(tensor.stride()))
        if place in seen and tensor.numel():
            continue
        seen.add(place)
        tensors[name] = tensor.detach().cpu().contiguous().clone()
    return bytes(save(tensors))


def versioned(state: Mapping[str, torch.Tensor], model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    """``state``, read from a file of tensors, with the versions that ``model``'s modules write beside theirs.

    A file of tensors does not hold them, and some modules refuse a state without.
    """
    found = OrderedDict(state)
    found._metadata = getattr(model.state_dict(), "_metadata", OrderedDict())  # type: ignore[attr-defined]
    return found


def macs(model: torch.nn.Module, inputs: Inputs) -> int | None:
    """Multiply-accumulates of matrix products and convolutions for one example; ``None`` if it cannot be traced.

    Zeros count: a masked network computes as much as a dense one. Fused kernels (recurrent layers,
    transformer fast path, attention) are switched off while counting, since the counter cannot see into them.

    Args:
        inputs: a batch of one example.
    """
    counted = _counted(model, inputs)
    return None if counted is None else int(counted.get_total_flops()) // 2


def layer_macs(model: torch.nn.Module, inputs: Inputs) -> dict[str, int] | None:
    """As :func:`macs`, of each linear and convolutional layer by its name."""
    counted = _counted(model, inputs)
    if counted is None:
        return None
    flops = counted.get_flop_counts()
    root = type(model).__name__
    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    return {name: sum(flops.get(f"{root}.{name}", {}).values()) // 2 for name in names}


def _counted(model: torch.nn.Module, inputs: Inputs) -> FlopCounterMode | None:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with (
            warnings.catch_warnings(action="ignore"),
            evaluating(model),
            torch.no_grad(),
            torch.backends.mkldnn.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as mode,
        ):
            inference.call(model, inputs)
        counter: FlopCounterMode = mode
        return counter
    except Exception:
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
