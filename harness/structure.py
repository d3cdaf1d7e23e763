"""Which units a network has: by the rule of its family where there is one, else by what its layers show."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pruneproof import attention, blocks, graph, registry
from pruneproof.errors import PruningError
from pruneproof.families import _transformers
from pruneproof.subject import Inputs
from pruneproof.units import Found, Group

FAMILIES = "pruneproof.families"
RULES = {"channel": "channels", "head": "heads", "block": "blocks"}


def find(model: torch.nn.Module, inputs: Inputs, granularity: str, timeout_s: float) -> Found:
    """The groups of ``model``, and the layers that must stay whole, each with the reason.

    Args:
        inputs: a batch of one or two examples to trace with.
        granularity: ``channel``, ``head`` or ``block``.
        timeout_s: seconds after which the search for channels is given up.

    Raises:
        PruningError: TorchScript, or the network cannot be traced.
        GraphTimeout: the search for channels took longer than ``timeout_s``.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise PruningError(
            f"{granularity}s cannot be removed from a TorchScript module: its code is compiled for these shapes",
            "prune the eager model, or use granularity = 'element'",
        )
    if unknown := _transformers.unsupported(model):
        return Found((), unknown)
    ruled = [found for rule in _rules(model, granularity) if (found := rule(model)) is not None]
    if granularity == "head":
        return _told(_transformers.joined([*ruled, attention.heads(model)]), model, "no attention layer that is known")
    if ruled:
        return _told(_transformers.joined(ruled), model, f"no {granularity}s")
    if granularity == "channel":
        return _kept_true(model, graph.groups(model, inputs, timeout_s))
    return _told(blocks.find(model, inputs), model, "no residual blocks in a Sequential or ModuleList")


def _kept_true(model: torch.nn.Module, found: Found) -> Found:
    """``found`` without what lies in a network whose sizes stand in a configuration that there is no rule for."""
    configured = _transformers.configured(model)
    if configured is None:
        return found
    path, kind = configured
    inside = f"{path}." if path else ""
    reason = f"its width stands in the configuration of a network ({kind}) that there is no rule for"

    def lies_inside(group: Group) -> bool:
        return any(entry.tensor.startswith(inside) for entry in group.slices)

    whole = tuple((group.name, reason) for group in found.groups if lies_inside(group))
    return Found(tuple(group for group in found.groups if not lies_inside(group)), (*found.whole, *whole))


def _rules(model: torch.nn.Module, granularity: str) -> list[Callable[[torch.nn.Module], Found | None]]:
    members = [registry.member(FAMILIES, name) for name in registry.names(FAMILIES)]
    return [getattr(member, RULES[granularity]) for member in members if member.matches(model)]


def _told(found: Found, model: torch.nn.Module, nothing: str) -> Found:
    """Nothing found, and nothing left whole, is a reason too."""
    return found if found.groups or found.whole else Found((), ((type(model).__name__, f"it has {nothing}"),))
