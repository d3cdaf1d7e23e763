"""Which units a network has: by the rule of its family where there is one, else by what its layers show.

A network of a family may lie inside a user's own. Then its rule speaks for what lies in it, and the general way for
the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

import torch

from pruneproof import attention, blocks, graph, isolation, registry, trial
from pruneproof.errors import GraphTimeout, PruningError, TaskTimeout
from pruneproof.families import _transformers
from pruneproof.subject import Inputs
from pruneproof.units import Found, Group

FAMILIES = "pruneproof.families"
RULES = {"channel": "channels", "head": "heads", "block": "blocks"}
NOTHING = {
    "channel": "no channels",
    "head": "no attention layer that is known",
    "block": "no residual blocks in a Sequential or ModuleList",
}
UNRULED = "its sizes stand in the configuration of a network ({kind}) that there is no rule for"


def find(model: torch.nn.Module, inputs: Inputs, granularity: str, timeout_s: float) -> Found:
    """The groups of ``model``, and the layers that must stay whole, each with the reason.

    Args:
        inputs: a batch of one or two examples to trace with.
        granularity: ``channel``, ``head`` or ``block``.
        timeout_s: seconds after which the search is given up.

    Raises:
        PruningError: TorchScript, or the network cannot be traced.
        GraphTimeout: the search took longer than ``timeout_s``.
    """
    if granularity == "channel":  # its search has a limit of its own
        return _found(model, inputs, granularity, timeout_s)
    what = f"finding out which {granularity}s can go"
    try:
        with isolation.deadline(timeout_s, what):
            return _found(model, inputs, granularity, timeout_s)
    except TaskTimeout:
        raise GraphTimeout(
            f"self-check V9: {what} took longer than {timeout_s:g} s",
            "raise the recipe's graph_timeout_s, or use another granularity",
        ) from None


def _found(model: torch.nn.Module, inputs: Inputs, granularity: str, timeout_s: float) -> Found:
    if isinstance(model, torch.jit.ScriptModule):
        raise PruningError(
            f"{granularity}s cannot be removed from a TorchScript module: its code is compiled for these shapes",
            "prune the eager model, or use granularity = 'element'",
        )
    if unknown := _transformers.unsupported(model):
        return Found((), unknown)
    if granularity == "block" and (numbered := _transformers.numbered_adapters(model)):
        return Found((), numbered)
    members = [registry.member(FAMILIES, name) for name in registry.names(FAMILIES)]
    said = [(member, getattr(member, RULES[granularity])(model)) for member in members if member.matches(model)]
    ruled = [found if _is_configured(m) else _unconfigured(model, found) for m, found in said if found is not None]
    hosts = [path for path, _ in _transformers.configured(model)]
    hosts += [path for m, found in said if found is not None and not _is_configured(m) for path in m.hosts(model)]
    parts = [*ruled, _general(model, inputs, granularity, timeout_s, hosts, bool(ruled))]
    found = _disjoint(model, _transformers.joined(parts))
    if granularity == "block":
        found = blocks.tried(model, inputs, found)
    return (
        found if found.groups or found.whole else Found((), ((type(model).__name__, f"it has {NOTHING[granularity]}"),))
    )


def _is_configured(family: ModuleType) -> bool:
    """Whether its networks carry a configuration of transformers, which its rules keep true."""
    return bool(getattr(family, "CONFIGURED", False))


def _general(
    model: torch.nn.Module, inputs: Inputs, granularity: str, timeout_s: float, hosts: list[str], ruled: bool
) -> Found:
    """What lies outside of the networks at ``hosts``, which have rules or configurations of their own."""
    if granularity == "head":
        return _tried(model, inputs, _unconfigured(model, attention.heads(model)))
    if "" in hosts:  # nothing lies outside
        return Found((), ()) if ruled else Found((), _unruled(model))
    try:
        found = graph.groups(model, inputs, timeout_s) if granularity == "channel" else blocks.find(model, inputs)
    except PruningError as error:
        if not ruled:
            raise
        return Found((), ((type(model).__name__, f"outside of {', '.join(hosts)}: {error.cause}"),))
    inside = tuple(f"{path}." for path in hosts)
    groups = tuple(group for group in found.groups if not any(name.startswith(inside) for name in _names(group)))
    whole = tuple(entry for entry in found.whole if not f"{entry[0]}.".startswith(inside))
    return Found(groups, whole if ruled else (*whole, *_unruled(model)))


def _names(group: Group) -> Iterable[str]:
    return (*(entry.tensor for entry in group.slices), *(f"{path}." for path in group.blocks))


def _unruled(model: torch.nn.Module) -> tuple[tuple[str, str], ...]:
    return tuple(
        (path or type(model).__name__, UNRULED.format(kind=kind)) for path, kind in _transformers.configured(model)
    )


def _unconfigured(model: torch.nn.Module, found: Found) -> Found:
    """``found`` without what lies in a network of transformers, whose configuration it would make untrue."""
    stays = {f"{path}." if path else "": kind for path, kind in _transformers.configured(model)}

    def kind_of(group: Group) -> str | None:
        names = list(_names(group))
        return next((kind for inside, kind in stays.items() if any(n.startswith(inside) for n in names)), None)

    kinds = {group.name: kind_of(group) for group in found.groups}
    whole = tuple((name, UNRULED.format(kind=kind)) for name, kind in kinds.items() if kind is not None)
    return Found(tuple(group for group in found.groups if kinds[group.name] is None), (*found.whole, *whole))


def _tried(model: torch.nn.Module, inputs: Inputs, found: Found) -> Found:
    """``found`` without the groups of which a trial shows that the network counts their units."""
    reasons = trial.refused(found.groups, model, inputs)
    stay = tuple(group for group in found.groups if group.name not in reasons)
    return Found(stay, (*found.whole, *reasons.items()))


def _disjoint(model: torch.nn.Module, found: Found) -> Found:
    """``found`` without groups that produce units in the same rows of a tensor: a layer that stands in two places."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    first: dict[tuple[int, int, int], str] = {}
    clashes: dict[str, str] = {}
    for group in found.groups:
        for entry in group.slices:
            if entry.role != "produces" or entry.tensor not in tensors or not len(entry.positions):
                continue
            other = first.setdefault((id(tensors[entry.tensor]), entry.dim, int(entry.positions[0])), group.name)
            if other != group.name:
                clashes |= {group.name: other, other: group.name}
    reasons = {name: f"its layers are also those of {other}" for name, other in clashes.items()}
    numbers = {group.uniform: group.name for group in found.groups if group.uniform and group.name in clashes}
    for group in found.groups:
        if group.uniform in numbers:  # the one number of a configuration stands for all
            reasons.setdefault(group.name, f"{group.uniform} stands for it and for {numbers[group.uniform]}")
    return Found(tuple(group for group in found.groups if group.name not in reasons), (*found.whole, *reasons.items()))
