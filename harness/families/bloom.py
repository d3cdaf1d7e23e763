"""Bloom: only blocks, since every width in it follows from ``hidden_size``."""

from __future__ import annotations

import torch

from pruneproof.families import _rules, _transformers
from pruneproof.units import Found

FAMILY, NAMES = "bloom", ("BloomModel",)
MLP = "BloomMLP is always 4 * config.hidden_size wide: no configuration says that it is narrower"
HEADS = (
    "BloomAttention takes the width of a head to be config.hidden_size // config.n_head, so that no configuration "
    "says that there are fewer heads of the same width"
)


CONFIGURED = True


def matches(model: torch.nn.Module) -> bool:
    """Whether ``model`` is or holds a ``BloomModel``."""
    return _transformers.contains(model, NAMES, FAMILY)


def channels(model: torch.nn.Module) -> Found:
    """None: the configuration cannot express the result."""
    return _transformers.collected(model, NAMES, FAMILY, lambda base: _rules.unexpressed(base, "h", "mlp", MLP))


def heads(model: torch.nn.Module) -> Found:
    """None: the configuration cannot express the result."""
    return _transformers.collected(
        model, NAMES, FAMILY, lambda base: _rules.unexpressed(base, "h", "self_attention", HEADS)
    )


def blocks(model: torch.nn.Module) -> Found:
    """Blocks."""
    return _transformers.collected(model, NAMES, FAMILY, lambda base: _rules.depth(base, "h", "BloomBlock"))
