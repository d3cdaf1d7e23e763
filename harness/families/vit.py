"""transformers' ViT: pre-norm blocks, heads of a width that ``config.head_dim`` may say."""

from __future__ import annotations

import torch

from pruneproof.families import _rules, _transformers
from pruneproof.families._transformers import Base
from pruneproof.units import Found

FAMILY, NAMES = "vit", ("ViTModel",)
PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
OLDER = "only the ViT of transformers 5.24 or newer is known: this one has its layers elsewhere"


CONFIGURED = True


def matches(model: torch.nn.Module) -> bool:
    """Whether ``model`` is or holds a ``ViTModel``."""
    return _transformers.contains(model, NAMES, FAMILY)


def channels(model: torch.nn.Module) -> Found:
    """Hidden units: ``mlp.fc1`` produces, ``mlp.fc2`` reads; ``config.intermediate_size``."""

    def each(base: Base) -> Found:
        return _older(base) or _rules.hidden(
            model, base, "layers", {"mlp": "ViTMLP"}, ("mlp.fc1",), "mlp.fc2", "intermediate_size"
        )

    return _transformers.collected(model, NAMES, FAMILY, each)


def heads(model: torch.nn.Module) -> Found:
    """Heads; ``config.head_dim`` then says how wide those are that stay."""

    def each(base: Base) -> Found:
        return _older(base) or _rules.heads(
            model, base, "layers", "attention", "ViTAttention", PROJECTIONS, grouped=False
        )

    return _transformers.collected(model, NAMES, FAMILY, each)


def blocks(model: torch.nn.Module) -> Found:
    """Layers."""
    return _transformers.collected(
        model, NAMES, FAMILY, lambda base: _older(base) or _rules.depth(base, "layers", "ViTLayer")
    )


def _older(base: Base) -> Found | None:
    known = isinstance(getattr(base.module, "layers", None), torch.nn.ModuleList)
    return None if known else Found((), ((base.path or type(base.module).__name__, OLDER),))
