"""The three rules that transformers' families share: hidden units of an MLP, heads, blocks of a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from pruneproof.errors import PruningError
from pruneproof.families import _transformers
from pruneproof.families._tensors import Tensors, spread
from pruneproof.families._transformers import Base
from pruneproof.units import Found, Group, Kept, Setting, Slices


def hidden(
    model: torch.nn.Module,
    base: Base,
    blocks: str,
    kinds: Mapping[str, str],
    producers: Sequence[str],
    reader: str,
    key: str,
) -> Found:
    """The hidden units of every block's MLP.

    Args:
        blocks: path of the list of blocks in the network.
        kinds: part of a block → the class that its rule is about.
        producers, reader: paths of layers in a block.
        key: of the configuration, the number of hidden units of all blocks.
    """
    tensors, groups, whole = Tensors(model), [], []
    for path, block in _transformers.members(base, blocks):
        name = f"{path}.{producers[0].rpartition('.')[0] or producers[0]}"
        reason = _unlike(block, kinds) or _transformers.unlike(block, (*producers, reader))
        if reason:
            whole.append((name, reason))
            continue
        linear = not _is_transposed(block.get_submodule(reader))
        size = block.get_parameter(f"{reader}.weight").shape[1 if linear else 0]
        entries = [_rows(block, path, layer, size) for layer in producers]
        slices = (*(entry for rows in entries for entry in rows), _columns(block, path, reader, size))
        settings = _width(base, key, _holders(block, path, key))
        group = Group(name, size, slices, settings=settings, uniform=base.uniform(key))
        if reason := tensors.refused(group):
            whole.append((name, reason))
        else:
            groups.append(group)
    together = _together(groups, whole)
    return Found(together.groups, (*together.whole, _rest(base)))


def _rest(base: Base) -> tuple[str, str]:
    name = base.path or type(base.module).__name__
    return name, "outside of its MLPs' hidden units it keeps its width: the residual stream and its attention"


def _is_transposed(layer: torch.nn.Module) -> bool:
    return type(layer).__name__ == "Conv1D"


def _rows(block: torch.nn.Module, path: str, layer: str, units: int, width: int = 1, parts: int = 1) -> list[Slices]:
    """What a layer produces: rows of its weight, and its bias."""
    module = block.get_submodule(layer)
    dim = 1 if _is_transposed(module) else 0
    found = [spread(f"{path}.{layer}.weight", dim, "produces", units, width, parts)]
    if module.bias is not None:
        found.append(spread(f"{path}.{layer}.bias", 0, "follows", units, width, parts))
    return found


def _columns(block: torch.nn.Module, path: str, layer: str, units: int, width: int = 1) -> Slices:
    dim = 0 if _is_transposed(block.get_submodule(layer)) else 1
    return spread(f"{path}.{layer}.weight", dim, "reads", units, width)


def _unlike(block: torch.nn.Module, kinds: Mapping[str, str]) -> str:
    for part, kind in kinds.items():
        module = block.get_submodule(part)
        if not _transformers.is_of(module, (kind,), type(block).__module__):
            return f"its {part} is a {type(module).__module__}.{type(module).__name__}, not transformers' {kind}"
    return ""


def _holders(block: torch.nn.Module, path: str, key: str) -> list[str]:
    """Paths of the parts of a block that keep the number ``key`` beside the configuration."""
    return [f"{path}.{inner}".rstrip(".") for inner, part in block.named_modules() if key in part.__dict__]


def _width(base: Base, key: str, holders: Sequence[str]) -> Callable[[Kept], list[Setting]]:
    def settings(kept: Kept) -> list[Setting]:
        return [*base.settings({key: len(kept)}), *(Setting(path, key, len(kept)) for path in holders)]

    return settings


def heads(
    model: torch.nn.Module, base: Base, blocks: str, part: str, kind: str, keys: Mapping[str, str], grouped: bool
) -> Found:
    """Heads of every block's attention; with ``grouped`` queries a key and value head with all of its queries.

    Args:
        part: path of the attention in a block; ``kind`` is the class that the rule is about.
        keys: ``q``, ``k``, ``v``, ``o`` → the names of the projections.
    """
    tensors, groups, whole = Tensors(model), [], []
    config = base.config
    for parent, block in _transformers.members(base, blocks):
        path, attention = f"{parent}.{part}", block.get_submodule(part)
        if reason := _unlike(block, {part: kind}) or _transformers.unlike(attention, list(keys.values())):
            whole.append((path, reason))
            continue
        units = config.num_key_value_heads if grouped else config.num_attention_heads
        queries = config.num_attention_heads // units
        width = int(attention.head_dim)  # type: ignore[arg-type]
        slices = (
            *_rows(attention, path, keys["q"], units, queries * width),
            *_rows(attention, path, keys["k"], units, width),
            *_rows(attention, path, keys["v"], units, width),
            _columns(attention, path, keys["o"], units, queries * width),
        )
        settings = _count(base, path, attention, queries, width, grouped)
        group = Group(path, units, slices, settings=settings, uniform=base.uniform("num_attention_heads"))
        if reason := tensors.refused(group):
            whole.append((path, reason))
        else:
            groups.append(group)
    return _together(groups, whole)


def _together(groups: Sequence[Group], whole: Sequence[tuple[str, str]]) -> Found:
    """All or none: where a layer stays whole, the one number of the configuration keeps the others."""
    if not whole:
        return Found(tuple(groups))
    reason = f"one number of the configuration stands for it and for {whole[0][0]}, which stays whole"
    return Found((), (*whole, *((group.name, reason) for group in groups)))


def _count(
    base: Base, path: str, attention: torch.nn.Module, queries: int, width: int, grouped: bool
) -> Callable[[Kept], list[Setting]]:
    def values(count: int) -> dict[str, int]:
        key_value = {"num_key_value_heads": count} if grouped else {}
        # Written out, since it would otherwise be taken for hidden_size / num_attention_heads.
        return {"num_attention_heads": queries * count, **key_value, "head_dim": width}

    def accepted(count: int) -> bool:
        try:
            base.settings(values(count))
        except PruningError:
            return False
        return True

    def settings(kept: Kept) -> list[Setting]:
        new = values(len(kept))
        try:
            found = base.settings(new)
        except PruningError as error:
            total = base.config.num_attention_heads // queries
            fine = ", ".join(str(count) for count in range(1, total) if accepted(count)) or "no fewer"
            raise PruningError(error.cause, f"use a ratio that leaves {fine} of {total} in each layer") from None
        own = {**new, "num_heads": queries * len(kept)}
        return [*found, *_transformers.sizes(path, attention, own)]

    return settings


def unexpressed(base: Base, blocks: str, part: str, reason: str) -> Found:
    """The part ``part`` of every block, whole, because the configuration has no words for the result."""
    return Found((), tuple((f"{path}.{part}", reason) for path, _ in _transformers.members(base, blocks)))


def depth(base: Base, blocks: str, kind: str) -> Found:
    """The blocks of the list at ``blocks``, all of class ``kind``."""
    name = base.at(blocks)
    members = list(_transformers.members(base, blocks))
    for path, block in members:
        if not _transformers.is_of(block, (kind,), type(base.module).__module__):
            reason = f"it is a {type(block).__module__}.{type(block).__name__}, not transformers' {kind}"
            return Found((), ((path, reason),))
    if len(members) != base.config.num_hidden_layers:
        return Found((), ((name, f"it holds {len(members)} different blocks, not config.num_hidden_layers"),))
    if len(members) < 2:
        return Found((), ((name, "it has only one block"),))

    def settings(kept: Kept) -> list[Setting]:
        return _transformers.block_settings(base, blocks, kept)

    return Found((Group(name, len(members), blocks=tuple(path for path, _ in members), settings=settings),))
