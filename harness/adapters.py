"""Low-rank adapters: trained in place of a network's own weights, then merged into them."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from pruneproof import digests, training
from pruneproof.errors import PruneProofError, PruningError

SCALE = 2.0
"""α / r, as LLM-Pruner's post-training has it (r = 8, α = 16)."""


@contextlib.contextmanager
def adapted(model: torch.nn.Module, rank: int, generator: torch.Generator) -> Iterator[list[torch.nn.Parameter]]:
    """Inside, ``W x`` is ``(W + α/r · B A) x`` in every linear layer; afterwards ``W + α/r · B A`` is its weight (Hu et
    al. 2021, arXiv 2106.09685) and modules, names, hooks and ``requires_grad`` are as they were. Where the block
    raises, nothing is merged.

    An input for which a layer has no weight but zero is one that was pruned: columns of A for it are zero and are
    held there. The adapters so never read a removed unit, neither while they train nor when they are merged.
    """
    layers = _adaptable(model)
    if not layers:
        raise PruningError(
            "recovery: there is no linear layer that low-rank adapters fit",
            "leave lora_rank out: every weight is trained then",
        )
    if any(hasattr(module, "lora_A") for module in model.modules()):
        raise PruningError(
            "recovery: the network has low-rank adapters already", "merge them first (merge_and_unload of peft)"
        )
    read = {name: _read(layer) for name, layer in layers.items()}
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    attributes, fast = set(vars(model)), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it reads the weights of linear layers without calling them
    try:
        _inject(model, list(layers), rank)
        wrapped = {name: model.get_submodule(name) for name in layers}
        if not all(hasattr(layer, "lora_A") for layer in wrapped.values()):
            raise PruningError("recovery: peft adapted other layers than it was asked to", "leave lora_rank out")
        for layer in wrapped.values():
            _draw(layer.lora_A["default"].weight, generator)  # type: ignore[index,union-attr]
        masks = {f"{name}.lora_A.default.weight": read[name].expand(rank, -1) for name in layers}
        with training.held(model, masks):
            yield [parameter for parameter in model.parameters() if parameter.requires_grad]
        for layer in wrapped.values():
            layer.merge()  # type: ignore[operator]
    finally:
        for name, layer in layers.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
        for attribute in set(vars(model)) - attributes:
            delattr(model, attribute)
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
        torch.backends.mha.set_fastpath_enabled(fast)


def _adaptable(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Linear layers whose weight is theirs alone, is not frozen, and acts by their own forward and nothing else."""
    names: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)] = names.get(id(parameter), 0) + 1
    found = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if not name or weight is None or not weight.requires_grad or names[id(weight)] > 1:
            continue
        if not module._forward_hooks and not module._forward_pre_hooks and (_is_linear(module) or _transposed(module)):
            found[name] = module
    return found


def _is_linear(module: torch.nn.Module) -> bool:
    """Attention reads its ``out_proj``, of a class of its own, without calling it."""
    reads_itself = type(module).forward is torch.nn.Linear.forward
    return reads_itself and not isinstance(module, torch.nn.modules.linear.NonDynamicallyQuantizableLinear)


def _transposed(module: torch.nn.Module) -> bool:
    return digests.class_name(module) == "Conv1D" and type(module).__module__.startswith("transformers.")


def _read(layer: torch.nn.Module) -> torch.Tensor:
    """``(inputs,)``, true for inputs that have some weight other than zero."""
    weight: torch.Tensor = layer.weight.detach()  # type: ignore[operator]
    return (weight != 0).any(dim=1 if _transposed(layer) else 0)


def _inject(model: torch.nn.Module, names: list[str], rank: int) -> None:
    peft = library()
    exactly = "|".join(re.escape(name) for name in names)
    asked = peft.LoraConfig(r=rank, lora_alpha=SCALE * rank, lora_dropout=0.0, target_modules=exactly)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that GPT-2's layers are transposed, which peft then heeds
        try:
            peft.inject_adapter_in_model(asked, model)
        except Exception as error:
            raise PruningError(
                f"recovery: peft raised {type(error).__name__}: {error}", "leave lora_rank out"
            ) from error


def _draw(weight: torch.nn.Parameter, generator: torch.Generator) -> None:
    """As peft initialises A, from a generator of our own; B starts at zero."""
    drawn = torch.empty(weight.shape)
    torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
    with torch.no_grad():
        weight.copy_(drawn)


def library() -> Any:
    try:
        import peft
    except ImportError as error:
        raise PruneProofError(f"lora_rank needs peft: {error}", "pip install 'pruneproof[llm]'") from None
    return peft
