"""Which tensors of a network are weights that can be pruned, and how much of them is zero."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import torch

from pruneproof.digests import class_name

_LINEAR = {"Linear", "NonDynamicallyQuantizableLinear", "Bilinear", "LazyLinear", "Conv1D"}
"""``Conv1D`` is transformers' name of a linear layer with its weight transposed; torch's convolution is ``Conv1d``."""
_CONV = {f"{kind}{d}d" for kind in ("Conv", "ConvTranspose", "LazyConv", "LazyConvTranspose") for d in (1, 2, 3)}
_RECURRENT = {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"}
_ATTENTION = {"MultiheadAttention"}
_OTHER = {"Embedding", "EmbeddingBag", "LayerNorm", "RMSNorm"}
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Weight tensors of linear, convolutional, recurrent and attention layers, by parameter name.

    Recurrent layers keep theirs under ``weight_ih_l0`` and the like, attention under
    ``in_proj_weight``; a walk over ``.weight`` would miss both. A tensor that several layers share
    appears once. Works on TorchScript modules, whose class is known by its original name. Subclasses
    count as what they are derived from.
    """
    found: dict[str, torch.nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=prefix, recurse=False):
            if _is_weight(module, name.rpartition(".")[2]) and id(parameter) not in seen:
                seen.add(id(parameter))
                found[name] = parameter
    return found


def out_of_reach(model: torch.nn.Module) -> tuple[tuple[str, str], ...]:
    """Layers with weights that :func:`weights` does not give, each with the reason."""
    found = []
    for name, module in model.named_modules():
        if "parametrizations" in name.split("."):
            continue
        own = {key: len(parameter.shape) for key, parameter in module.named_parameters(recurse=False)}
        if _kinds(module) & (_LINEAR | _CONV | _RECURRENT | _ATTENTION):
            if not any(_is_weight(module, key) for key in own):
                found.append((name, "its weights are no parameters of its own (parametrized, pruned or quantised)"))
        elif any(dimensions > 1 for dimensions in own.values()) and not _kinds(module) & _OTHER:
            found.append((name, f"{class_name(module)} is no known kind of layer"))
    return tuple(found)


def _is_weight(module: torch.nn.Module, name: str) -> bool:
    kinds = _kinds(module)
    if kinds & (_LINEAR | _CONV):
        return name == "weight"
    if kinds & _RECURRENT:
        return name.startswith("weight_")
    return bool(kinds & _ATTENTION) and name in _ATTENTION_WEIGHTS


def _kinds(module: torch.nn.Module) -> set[str]:
    return {kind.__name__ for kind in type(module).__mro__} | {class_name(module)}


def reduction_dim(model: torch.nn.Module, name: str) -> int:
    """The dimension of weight ``name`` that its layer sums over first: its input features or channels."""
    owner = model.get_submodule(name.rpartition(".")[0])
    kinds = _kinds(owner)
    if "Bilinear" in kinds:
        return 2
    return 0 if "Conv1D" in kinds or any(kind.startswith("ConvTranspose") for kind in kinds) else 1


def round_half_up(n: int, ratio: float) -> int:
    """⌊n·ratio + ½⌋, on the decimal number that ``ratio`` was written as: 0.29 of 100 is 29."""
    return int(Fraction(repr(ratio)) * n + Fraction(1, 2))


def sparsity(
    dense: torch.nn.Module, variant: torch.nn.Module, pruned: tuple[set[str], set[str]] | None
) -> dict[str, float]:
    """Share of the dense network's elements that are gone from ``variant``, zeroed or removed.

    Counted on the tensors themselves, whatever a plan claims: 1 - non-zeros(variant) / elements(dense),
    under three denominators.

    Args:
        pruned: names of the tensors that the plan touches, in the one and in the other; ``None`` for a variant
            without a plan, whose tensors may bear other names: all layer weights.
    """
    before, after = tensors_of(dense), tensors_of(variant)
    layers = [_of_layers(model, found) for model, found in ((dense, before), (variant, after))]
    touched = layers if pruned is None else [_picked(*pair) for pair in zip((before, after), pruned, strict=True)]
    return {
        "pruned_tensors": _gone(*touched),
        "layer_weights": _gone(*layers),
        "all_parameters": _gone(list(before.values()), list(after.values())),
    }


def tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters under every name; a reparametrized or masked one as the tensor that it stands for."""
    found: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    for name in [name for name in found if f"{name.removesuffix('_orig')}_mask" in buffers]:  # torch.nn.utils.prune
        stem = name.removesuffix("_orig")
        found[stem] = found.pop(name).detach() * buffers[f"{stem}_mask"]
    for prefix, module in model.named_modules():
        for key in getattr(module, "parametrizations", {}):
            dotted = f"{prefix}." if prefix else ""
            for name in [name for name in found if name.startswith(f"{dotted}parametrizations.{key}.")]:
                del found[name]
            with torch.no_grad():
                found[f"{dotted}{key}"] = getattr(module, key)
    return found


def _of_layers(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    owners = dict(model.named_modules(remove_duplicate=False))
    split = {name: name.rpartition(".") for name in tensors}
    return [tensors[name] for name, (owner, _, key) in split.items() if _is_weight(owners[owner], key)]


def _picked(tensors: Mapping[str, torch.Tensor], names: set[str]) -> list[torch.Tensor]:
    return [tensor for name, tensor in tensors.items() if name in names]


def _gone(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    total = sum(tensor.numel() for tensor in _distinct(before))
    return 1 - sum(int(torch.count_nonzero(tensor)) for tensor in _distinct(after)) / total if total else 0.0


def _distinct(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each tensor once, under however many names."""
    return list({id(tensor): tensor for tensor in tensors}.values())
