"""Tiny random transformers, where the package is installed; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

TOKENS = 20


def load(name: str) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'llm'")
    return getattr(transformers, name)


def _seeded(kind: str, config: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = load(kind)(config)
        for parameter in model.parameters():  # distinct norms and offsets, not the identity
            if parameter.ndim == 1:
                nn.init.normal_(parameter, 1.0, 0.2)
    return model.eval()


def llama(heads: int = 4, keys: int = 2, layers: int = 2) -> nn.Module:
    """A classifier of three classes that reads tokens, with grouped-query attention."""
    config = load("LlamaConfig")(
        vocab_size=TOKENS, hidden_size=16, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=keys, num_labels=3, pad_token_id=0, use_cache=False,
    )  # fmt: skip
    return _seeded("LlamaForSequenceClassification", config)


def bert() -> nn.Module:
    config = load("BertConfig")(
        vocab_size=TOKENS, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_labels=3, max_position_embeddings=16,
    )  # fmt: skip
    return _seeded("BertForSequenceClassification", config)


def vit() -> nn.Module:
    config = load("ViTConfig")(
        image_size=8, patch_size=4, num_channels=3, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_labels=3,
    )  # fmt: skip
    return _seeded("ViTForImageClassification", config)


def tokens(n: int = 6, length: int = 5) -> dict[str, torch.Tensor]:
    drawn = torch.randint(1, TOKENS, (n, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": drawn, "attention_mask": torch.ones_like(drawn)}
