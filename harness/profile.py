"""What a network costs: parameters, multiply-accumulates, bytes on disk."""

from __future__ import annotations

import warnings

import torch
from safetensors.torch import save
from torch.utils.flop_counter import FlopCounterMode

from pruneproof import inference
from pruneproof.isolation import evaluating
from pruneproof.subject import Inputs


def parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Number of parameters, and how many of them are not zero."""
    every = list(model.parameters())
    return sum(p.numel() for p in every), sum(int(torch.count_nonzero(p)) for p in every)


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


def macs(model: torch.nn.Module, inputs: Inputs) -> int | None:
    """Multiply-accumulates of matrix products and convolutions for one example; ``None`` if it cannot be traced.

    Zeros count: a masked network computes as much as a dense one. Fused kernels (recurrent layers,
    transformer fast path) are switched off while counting, since the counter cannot see into them.

    Args:
        inputs: a batch of one example.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with (
            warnings.catch_warnings(action="ignore"),
            evaluating(model),
            torch.no_grad(),
            torch.backends.mkldnn.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False),
            FlopCounterMode(display=False) as counter,
        ):
            inference.call(model, inputs)
        return int(counter.get_total_flops()) // 2
    except Exception:
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
