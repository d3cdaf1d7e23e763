"""``torch.nn.MultiheadAttention`` with fewer heads than its width has room for.

torch's own forward takes the width of a head to be ``embed_dim // num_heads`` and its output to be as wide as its
input, so that an attention layer from which heads were cut needs a forward of its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from pruneproof.errors import PruningError
from pruneproof.families import _tensors
from pruneproof.units import Found, Group, Slices

QKV = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
Attended = tuple[torch.Tensor, torch.Tensor | None]


class HeadPrunedMultiheadAttention(torch.nn.MultiheadAttention):
    """As its base class, with ``num_heads * head_dim`` smaller than ``embed_dim``; made by :func:`narrow`.

    Of what the base class can do, ``add_bias_kv`` and ``add_zero_attn`` are not supported.
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Attended:
        """Arguments and shapes are those of :class:`torch.nn.MultiheadAttention`, whose ``num_heads`` are those that
        stayed; ``is_causal`` is a hint about ``attn_mask``, which is followed with or without it.

        Raises:
            RuntimeError: ``is_causal`` without ``attn_mask``, or shapes that do not fit.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint about attn_mask: give attn_mask too")
        if query.is_nested:
            return self._of_nested(query, key, value, need_weights)
        batched = query.dim() == 3
        if not batched:
            query, key, value = (part.unsqueeze(0) for part in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        q, k, v = (self._heads(part) for part in self._projected(query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, q, k)
        mixed, weights = self._attended(q, k, v, mask, need_weights)
        output = functional.linear(mixed.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _projected(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        packed = self.in_proj_weight is not None
        weights = self.in_proj_weight.chunk(3) if packed else [getattr(self, name) for name in QKV]
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(part, weight, bias)
            for part, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        return q, k, v

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        """``(batch, length, heads * head_dim)`` → ``(batch, heads, length, head_dim)``."""
        return projected.view(*projected.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self,
        attn_mask: torch.Tensor | None,
        key_padding_mask: torch.Tensor | None,
        q: torch.Tensor,
        k: torch.Tensor,
    ) -> torch.Tensor | None:
        """Both masks as one that is added to the scores, ``(batch or 1, heads or 1, target or 1, source)``."""
        batch, heads, target, source = *q.shape[:3], k.shape[2]
        found: torch.Tensor | None = None
        if attn_mask is not None:
            expected = (target, source) if attn_mask.dim() == 2 else (batch * heads, target, source)
            if tuple(attn_mask.shape) != expected:
                raise RuntimeError(f"attn_mask has shape {tuple(attn_mask.shape)}, expected {expected}")
            found = _added(attn_mask, q.dtype).view(-1, heads if attn_mask.dim() == 3 else 1, target, source)
        if key_padding_mask is not None:
            if tuple(key_padding_mask.shape) != (batch, source):
                raise RuntimeError(
                    f"key_padding_mask has shape {tuple(key_padding_mask.shape)}, expected {(batch, source)}"
                )
            padding = _added(key_padding_mask, q.dtype).view(batch, 1, 1, source)
            found = padding if found is None else found + padding
        return found

    def _attended(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, need_weights: bool
    ) -> Attended:
        """``softmax(q kᵀ / √head_dim + mask) v`` and, where they are needed, the softmax's weights."""
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return functional.scaled_dot_product_attention(q, k, v, mask, dropout), None
        scores = q * math.sqrt(1 / self.head_dim) @ k.transpose(-2, -1)
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        weights = functional.dropout(weights, dropout) if dropout > 0 else weights
        return weights @ v, weights

    def _of_nested(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, need_weights: bool) -> Attended:
        """Self-attention of a nested tensor, which ``torch.nn.TransformerEncoder`` makes of padded batches."""
        if query is not key or key is not value or need_weights:
            raise RuntimeError("nested tensors: expected self-attention with need_weights=False")
        lengths = [len(part) for part in query.unbind()]
        padded = query.to_padded_tensor(0.0)
        positions = torch.arange(padded.shape[1], device=padded.device)
        padding = positions >= torch.tensor(lengths, device=padded.device)[:, None]
        if not self.batch_first:
            padded = padded.transpose(0, 1)
        output, _ = self(padded, padded, padded, key_padding_mask=padding, need_weights=False)
        rows = output if self.batch_first else output.transpose(0, 1)
        return torch.nested.as_nested_tensor([row[:length] for row, length in zip(rows, lengths, strict=True)]), None


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -torch.inf)
    return mask.to(dtype)


def narrow(module: torch.nn.MultiheadAttention) -> None:
    """Makes ``module``, from whose tensors heads were cut, compute with those that stay, in place.

    Its tensors are then ``in_proj_weight`` ``(3 * heads * head_dim, embed_dim)`` (or the three weights apart),
    ``in_proj_bias`` ``(3 * heads * head_dim,)`` and ``out_proj.weight`` ``(embed_dim, heads * head_dim)``.

    Raises:
        PruningError: what was cut are not whole heads, or not the same ones everywhere.
    """
    kept = module.out_proj.weight.shape[1]
    weights = [module.in_proj_weight] if module.in_proj_weight is not None else [getattr(module, name) for name in QKV]
    rows = sum(len(weight) for weight in weights)
    fits = all(len(weight) == rows // len(weights) for weight in weights) and rows == 3 * kept
    fits &= module.in_proj_bias is None or len(module.in_proj_bias) == rows
    fits &= weights[0].shape[1] == len(module.out_proj.weight) == module.embed_dim
    if reason := _unlike(module):
        raise PruningError(f"heads of a {type(module).__name__} cannot be removed: {reason}", "leave it whole")
    if not fits or kept == 0 or kept % module.head_dim:
        raise PruningError(
            f"an attention layer with heads of {module.head_dim} was left with {rows} rows and {kept} columns",
            "remove whole heads: query, key and value rows, biases and output columns",
        )
    if kept == module.num_heads * module.head_dim:
        return
    module.num_heads = kept // module.head_dim
    # TransformerEncoderLayer reads this to decide on its fused kernel, which takes heads to fill the width.
    module._qkv_same_embed_dim = False
    module.__class__ = HeadPrunedMultiheadAttention


def _unlike(module: torch.nn.MultiheadAttention) -> str:
    """Why what the module computes is not known."""
    if type(module) not in (torch.nn.MultiheadAttention, HeadPrunedMultiheadAttention):
        return f"{type(module).__name__} is a MultiheadAttention with code of its own"
    if module.bias_k is not None or module.bias_v is not None:
        return "it has add_bias_kv, a key and value of all heads"
    return "it has add_zero_attn" if module.add_zero_attn else ""


def heads(model: torch.nn.Module) -> Found:
    """The heads of every :class:`torch.nn.MultiheadAttention` in ``model``."""
    tensors = _tensors.Tensors(model)
    groups: list[Group] = []
    whole: list[tuple[str, str]] = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.MultiheadAttention):
            continue
        group = Group(name, module.num_heads, _slices(name, module))
        if reason := _unlike(module) or tensors.refused(group):
            whole.append((name, reason))
        else:
            groups.append(group)
    return Found(tuple(groups), tuple(whole))


def _slices(name: str, module: torch.nn.MultiheadAttention) -> tuple[Slices, ...]:
    path = f"{name}." if name else ""
    sizes: dict[str, Any] = {"units": module.num_heads, "width": module.head_dim}
    found = []
    if module.in_proj_weight is not None:
        found.append(_tensors.spread(f"{path}in_proj_weight", 0, "produces", parts=3, **sizes))
    else:
        found += [_tensors.spread(f"{path}{weight}", 0, "produces", **sizes) for weight in QKV]
    if module.in_proj_bias is not None:
        found.append(_tensors.spread(f"{path}in_proj_bias", 0, "follows", parts=3, **sizes))
    return (*found, _tensors.spread(f"{path}out_proj.weight", 1, "reads", **sizes))
