"""Llama, Mistral, Qwen2 and Qwen3, dense: gated MLPs, rotary positions, grouped-query attention, pre-norm blocks."""

from __future__ import annotations

import torch

from pruneproof.families import _rules, _transformers
from pruneproof.families._transformers import Base
from pruneproof.units import Found

STEMS = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}


CONFIGURED = True


def matches(model: torch.nn.Module) -> bool:
    """Whether ``model`` is or holds a network of one of these four architectures."""
    return any(_transformers.contains(model, (f"{stem}Model",), family) for family, stem in STEMS.items())


def channels(model: torch.nn.Module) -> Found:
    """Hidden units: a row of ``gate_proj`` and ``up_proj``, a column of ``down_proj``; ``config.intermediate_size``."""

    def each(base: Base) -> Found:
        return _parallel(base) or _rules.hidden(
            model,
            base,
            "layers",
            {"mlp": f"{_stem(base)}MLP"},
            ("mlp.gate_proj", "mlp.up_proj"),
            "mlp.down_proj",
            "intermediate_size",
        )

    return _all(model, each)


def heads(model: torch.nn.Module) -> Found:
    """A key and value head with all query heads that share it, so that ``num_key_value_groups`` stays.

    ``LlamaConfig`` accepts only numbers of heads that divide ``hidden_size``; other numbers are refused when the
    settings are asked for.
    """

    def each(base: Base) -> Found:
        kind = f"{_stem(base)}Attention"
        return _parallel(base) or _rules.heads(model, base, "layers", "self_attn", kind, PROJECTIONS, grouped=True)

    return _all(model, each)


def blocks(model: torch.nn.Module) -> Found:
    """Decoder layers."""
    return _all(model, lambda base: _rules.depth(base, "layers", f"{_stem(base)}DecoderLayer"))


def _all(model: torch.nn.Module, each: _transformers.Rule) -> Found:
    parts = [_transformers.collected(model, (f"{stem}Model",), family, each) for family, stem in STEMS.items()]
    return _transformers.joined(parts)


def _stem(base: Base) -> str:
    return type(base.module).__name__.removesuffix("Model")


def _parallel(base: Base) -> Found | None:
    """Networks whose layers are computed in slices of their dense width."""
    ways = getattr(base.config, "pretraining_tp", None) or 1
    reason = f"config.pretraining_tp = {ways} computes its layers in slices of their dense width"
    return Found((), ((base.path or type(base.module).__name__, reason),)) if ways > 1 else None
