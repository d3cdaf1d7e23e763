"""GPT-2: its linear layers are ``Conv1D``, whose weight ``(in, out)`` lies the other way round."""

from __future__ import annotations

import torch

from pruneproof.families import _rules, _transformers
from pruneproof.families._transformers import Base
from pruneproof.units import Found

FAMILY, NAMES = "gpt2", ("GPT2Model",)
HEADS = (
    "GPT2Attention takes the width of a head to be config.n_embd // config.n_head, so that no configuration says "
    "that there are fewer heads of the same width"
)
INDEXED = "config.scale_attn_by_inverse_layer_idx scales each block by its place, which would change"


CONFIGURED = True


def matches(model: torch.nn.Module) -> bool:
    """Whether ``model`` is or holds a ``GPT2Model``."""
    return _transformers.contains(model, NAMES, FAMILY)


def channels(model: torch.nn.Module) -> Found:
    """Hidden units: ``mlp.c_fc`` produces, ``mlp.c_proj`` reads; ``config.n_inner``."""

    def each(base: Base) -> Found:
        return _rules.hidden(model, base, "h", {"mlp": "GPT2MLP"}, ("mlp.c_fc",), "mlp.c_proj", "n_inner")

    return _transformers.collected(model, NAMES, FAMILY, each)


def heads(model: torch.nn.Module) -> Found:
    """None: the configuration cannot express the result."""
    return _transformers.collected(model, NAMES, FAMILY, lambda base: _rules.unexpressed(base, "h", "attn", HEADS))


def blocks(model: torch.nn.Module) -> Found:
    """Blocks, but where attention depends on a block's place in the list."""

    def each(base: Base) -> Found:
        if base.config.scale_attn_by_inverse_layer_idx:
            return Found((), ((base.at("h"), INDEXED),))
        return _rules.depth(base, "h", "GPT2Block")

    return _transformers.collected(model, NAMES, FAMILY, each)
