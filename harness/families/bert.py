"""BERT: post-norm blocks, the hidden layer in two modules (``intermediate.dense``, ``output.dense``)."""

from __future__ import annotations

import torch

from pruneproof.families import _rules, _transformers
from pruneproof.families._transformers import Base
from pruneproof.units import Found

FAMILY, NAMES = "bert", ("BertModel",)
LAYERS = "encoder.layer"
HEADS = (
    "BertSelfAttention takes the width of a head to be config.hidden_size / config.num_attention_heads, so that no "
    "configuration says that there are fewer heads of the same width"
)
ACTIVATION = "config.hidden_act is a function, of which nothing says that it acts on each unit alone"


CONFIGURED = True


def matches(model: torch.nn.Module) -> bool:
    """Whether ``model`` is or holds a ``BertModel``."""
    return _transformers.contains(model, NAMES, FAMILY)


def channels(model: torch.nn.Module) -> Found:
    """Hidden units: ``intermediate.dense`` produces, ``output.dense`` reads; ``config.intermediate_size``."""
    kinds = {"intermediate": "BertIntermediate", "output": "BertOutput"}

    def each(base: Base) -> Found:
        if not isinstance(base.config.hidden_act, str):
            return _rules.unexpressed(base, LAYERS, "intermediate", ACTIVATION)
        return _rules.hidden(model, base, LAYERS, kinds, ("intermediate.dense",), "output.dense", "intermediate_size")

    return _transformers.collected(model, NAMES, FAMILY, each)


def heads(model: torch.nn.Module) -> Found:
    """None: the configuration cannot express the result."""
    return _transformers.collected(
        model, NAMES, FAMILY, lambda base: _rules.unexpressed(base, LAYERS, "attention.self", HEADS)
    )


def blocks(model: torch.nn.Module) -> Found:
    """Layers of the encoder."""
    return _transformers.collected(model, NAMES, FAMILY, lambda base: _rules.depth(base, LAYERS, "BertLayer"))
