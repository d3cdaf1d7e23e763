"""timm's vision transformers: the MLPs and the attention layers that most of them are built of.

Blocks need no rule: they lie in a ``Sequential``.
"""

from __future__ import annotations

from typing import Any

import torch

from pruneproof.families._tensors import Tensors, spread
from pruneproof.families._transformers import is_of, unlike
from pruneproof.units import Found, Group, Kept, Setting, Slices

NETWORK = ("VisionTransformer", "timm.models.vision_transformer")
ATTENTION = ("Attention", "timm.layers.attention")
MLP = ("Mlp", "timm.layers.mlp")
ALONE = {
    *("GELU", "GELUTanh", "QuickGELU", "ReLU", "ReLU6", "LeakyReLU", "ELU", "SiLU", "Swish", "Mish"),
    *("Hardswish", "HardSwish", "Hardsigmoid", "Sigmoid", "Tanh", "Identity", "SquaredReLU"),
}
"""Activations that act on each unit alone."""


def matches(model: torch.nn.Module) -> bool:
    """Whether there is a ``timm`` attention layer or vision transformer in ``model``."""
    return any(_is(module, NETWORK) or _is(module, ATTENTION) or _other(module) for module in model.modules())


def hosts(model: torch.nn.Module) -> list[str]:
    """Vision transformers; the attention layers of other networks stand for themselves."""
    return [name for name, module in model.named_modules() if _is(module, NETWORK)]


def channels(model: torch.nn.Module) -> Found | None:
    """Hidden units of the MLPs of a ``VisionTransformer``; other networks are traced."""
    hosts = [(name, module) for name, module in model.named_modules() if _is(module, NETWORK)]
    if not hosts:
        return None
    tensors, groups = Tensors(model), []
    whole = [(name or NETWORK[0], "outside of its MLPs' hidden units it keeps its width") for name, _ in hosts]
    inside = tuple(name for name, _ in hosts)
    for name, module in model.named_modules():
        if not name.startswith(inside) or not type(module).__name__.lower().endswith(("mlp", "swiglu")):
            continue
        group = None if (reason := _opaque(module)) else _hidden(name, module)
        if group is None or (reason := tensors.refused(group)):
            whole.append((name, reason))
        else:
            groups.append(group)
    return Found(tuple(groups), tuple(whole))


def heads(model: torch.nn.Module) -> Found:
    """Heads of ``timm.layers.Attention``: rows of ``qkv`` (and ``gate``), columns of ``proj``."""
    tensors, groups, whole = Tensors(model), [], []
    for name, module in model.named_modules():
        if not _is(module, ATTENTION) and not _other(module):
            continue
        group = None if (reason := _special(module)) else _attended(name, module)
        if group is None or (reason := tensors.refused(group)):
            whole.append((name, reason))
        else:
            groups.append(group)
    return Found(tuple(groups), tuple(whole))


def blocks(model: torch.nn.Module) -> None:
    """No rule of its own."""
    return


def _is(module: torch.nn.Module, what: tuple[str, str]) -> bool:
    return is_of(module, what[:1], what[1])


def _other(module: torch.nn.Module) -> bool:
    """An attention layer of timm's for which there is no rule."""
    return "Attention" in type(module).__name__ and type(module).__module__.startswith("timm.")


def _opaque(mlp: torch.nn.Module) -> str:
    if not _is(mlp, MLP):
        return f"it is a {type(mlp).__module__}.{type(mlp).__name__}, not timm's Mlp"
    if not isinstance(mlp.norm, torch.nn.Identity):
        return "it has a norm over its hidden units"
    if type(mlp.act).__name__ not in ALONE:
        return f"nothing says that its activation {type(mlp.act).__name__} acts on each unit alone"
    return unlike(mlp, ("fc1", "fc2"))


def _hidden(name: str, mlp: Any) -> Group:
    size = len(mlp.fc1.weight)
    slices = [spread(f"{name}.fc1.weight", 0, "produces", size), spread(f"{name}.fc2.weight", 1, "reads", size)]
    if mlp.fc1.bias is not None:
        slices.append(spread(f"{name}.fc1.bias", 0, "follows", size))
    return Group(name, size, tuple(slices))


def _special(attention: Any) -> str:
    if not _is(attention, ATTENTION):
        return f"there is no rule for timm's {type(attention).__name__}"
    if "attn_dim" not in attention.__dict__:
        return "this version of timm takes its output to be as wide as its input"
    if not isinstance(attention.norm, torch.nn.Identity):
        return "it has a norm over all heads"
    return unlike(attention, ("qkv", "proj", *(["gate"] if attention.gate is not None else [])))


def _attended(name: str, attention: Any) -> Group:
    units, width = attention.num_heads, attention.head_dim
    path = f"{name}." if name else ""
    slices: list[Slices] = [spread(f"{path}proj.weight", 1, "reads", units, width)]
    for layer, parts in (("qkv", 3), ("gate", 1)):
        module = getattr(attention, layer, None)
        if module is not None:
            slices.append(spread(f"{path}{layer}.weight", 0, "produces", units, width, parts))
            if module.bias is not None:
                slices.append(spread(f"{path}{layer}.bias", 0, "follows", units, width, parts))

    def settings(kept: Kept) -> list[Setting]:
        return [Setting(name, "num_heads", len(kept)), Setting(name, "attn_dim", width * len(kept))]

    return Group(name, units, tuple(slices), settings=settings)
