"""Which channels and neurons of a network hang together.

A *group* is a set of units (channels of a convolution, neurons of a linear layer) with every tensor
slice that has to go when one of them goes: the rows that produce it, what follows it, the columns that
read it. Torch-Pruning's dependency graph finds them by tracing; its pruners are not used.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pruneproof import inference
from pruneproof.errors import PruningError
from pruneproof.plan import Role, copied
from pruneproof.subject import Inputs


@dataclass(frozen=True, eq=False)
class Slices:
    """Positions in one tensor along one dimension, and the unit that each belongs to.

    Args:
        positions: ``(p,)``; several of them belong to one unit where a convolution is flattened.
        units: ``(p,)`` unit of each position.
    """

    tensor: str
    dim: int
    role: Role
    positions: torch.Tensor
    units: torch.Tensor


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one, named by the layer that produces them."""

    name: str
    size: int
    slices: tuple[Slices, ...]


OUTPUT = "its channels are the network's output"
"""Why the last layer stays whole: the one reason that nobody needs to be told."""

Found = tuple[list[Group], list[tuple[str, str]]]


def groups(model: torch.nn.Module, inputs: Inputs) -> Found:
    """The groups of ``model``, and the layers that must stay whole, each with the reason.

    Args:
        inputs: a batch of one or two examples to trace with.

    Raises:
        PruningError: the network cannot be traced.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise PruningError(
            "channels cannot be removed from a TorchScript module: its code is compiled for these shapes",
            "prune the eager model, or use granularity = 'element'",
        )
    graph, traced = _graph(model, inputs)
    found: list[Group] = []
    whole: dict[str, str] = {}
    covered: set[str] = set()
    for name, layer in traced.named_modules():
        if not _produces(layer) or f"{name}.weight" in covered:
            continue
        group, reason, produced = _group(graph, traced, name, layer)
        covered.update(produced)
        if reason and reason != OUTPUT:
            for weight in produced:
                whole.setdefault(weight.removesuffix(".weight"), reason)
        elif group is not None:
            found.append(group)
    return found, list(whole.items())


def _produces(layer: torch.nn.Module) -> bool:
    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    depthwise = isinstance(layer, torch.nn.modules.conv._ConvNd) and layer.groups > 1
    return isinstance(layer, kinds) and not depthwise and not isinstance(layer, torch.nn.modules.lazy.LazyModuleMixin)


def _graph(model: torch.nn.Module, inputs: Inputs) -> tuple[Any, torch.nn.Module]:
    import torch_pruning

    traced = copied(model).eval()
    for parameter in traced.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)  # the trace follows gradients; frozen layers would be invisible
    _without_scalars(traced)
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph().build_dependency(
                traced,
                inputs,
                forward_fn=inference.call,
                output_transform=lambda output: list(_differentiable(output)),
                verbose=False,
            )
    except Exception as error:
        raise PruningError(
            f"channels: the network cannot be traced: {type(error).__name__}: {error}",
            "use granularity = 'element', or remove no_grad and detach from its forward pass",
        ) from error
    return graph, traced


def _without_scalars(model: torch.nn.Module) -> None:
    """A PReLU with one weight for all channels acts on elements; the trace would take it for a layer of one channel."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.PReLU) and child.num_parameters == 1:
                setattr(parent, name, torch.nn.ReLU())


def _differentiable(output: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a model's output that a gradient flows to: each of them ends the graph."""
    if isinstance(output, torch.Tensor):
        if output.grad_fn is not None:
            yield output
    elif isinstance(output, Mapping | tuple | list):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _differentiable(part)
    elif hasattr(output, "logits"):
        yield from _differentiable(output.logits)


def _group(
    graph: Any, model: torch.nn.Module, name: str, layer: torch.nn.Module
) -> tuple[Group | None, str, dict[str, None]]:
    """The group that ``layer`` produces, or why it must stay whole; and the producing weights it holds, in order."""
    import torch_pruning as tp

    produced = {f"{name}.weight": None}
    if isinstance(layer, torch.nn.modules.linear.NonDynamicallyQuantizableLinear):
        return None, "it is part of a MultiheadAttention, which this version cannot shrink", produced
    if layer not in graph.module2node:
        return None, "it takes no part in the forward pass that was traced", produced
    size = int(layer.weight.shape[1 if _transposed(layer) else 0])  # type: ignore[index]
    prune = tp.prune_linear_out_channels if isinstance(layer, torch.nn.Linear) else tp.prune_conv_out_channels
    try:
        items = graph.get_pruning_group(layer, prune, list(range(size)))
    except Exception as error:
        return None, f"its dependencies cannot be followed ({type(error).__name__}: {error})", produced
    names = {module: module_name for module_name, module in model.named_modules()}
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    slices: list[Slices] = []
    for item in items:
        module = item.dep.target.module
        is_output = bool(graph.is_out_channel_pruning_fn(item.dep.handler))
        reason, entries = _entries(module, names.get(module, ""), is_output)
        if reason:
            return None, reason, produced
        positions = torch.tensor(item.idxs, dtype=torch.int64)
        units = torch.tensor(item.root_idxs, dtype=torch.int64)
        for tensor, dim, role in entries:
            slices.append(Slices(tensor, dim, role, positions, units))
            if role == "produces":
                produced[tensor] = None
    if not any(entry.role == "reads" for entry in slices):
        return None, OUTPUT, produced
    for entry in slices:
        if reason := _fixed(entry, tensors):
            return None, reason, produced
    return Group(name, size, tuple(slices)), "", produced


def _fixed(entry: Slices, tensors: Mapping[str, torch.Tensor]) -> str:
    """Why the tensor of ``entry`` cannot be replaced by a smaller one."""
    if entry.tensor not in tensors:
        return f"{entry.tensor} is computed from other tensors, not stored"
    tensor = tensors[entry.tensor]
    others = [name for name, other in tensors.items() if other is tensor and name != entry.tensor]
    if others:
        return f"{entry.tensor} and {others[0]} are one tensor"
    if len(entry.positions) and int(entry.positions.max()) >= tensor.shape[entry.dim]:
        return f"its channels reach {entry.tensor} by an operation that this version cannot follow"
    return ""


def _transposed(layer: torch.nn.Module) -> bool:
    return isinstance(layer, torch.nn.modules.conv._ConvTransposeNd)


def _entries(module: Any, name: str, is_output: bool) -> tuple[str, list[tuple[str, int, Role]]]:
    """What of ``module`` goes with a unit: (tensor, dimension, role); or why the group must stay whole."""
    import torch_pruning.ops as ops

    kind = ops.module2type(module)
    passive = {ops.OPTYPE.ELEMENTWISE, ops.OPTYPE.CONCAT, ops.OPTYPE.SPLIT, ops.OPTYPE.RESHAPE, ops.OPTYPE.SLICE}
    if kind == ops.OPTYPE.OUTPUT:
        return OUTPUT, []
    if kind in passive:
        return "", []
    if isinstance(module, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
        return _layer_entries(module, name, is_output)
    if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        follow: list[tuple[str, int, Role]] = [
            (f"{name}.{tensor}", 0, "follows")
            for tensor in ("weight", "bias", "running_mean", "running_var")
            if getattr(module, tensor, None) is not None
        ]
        return ("", follow) if follow else (f"batch norm {name} has no per-channel tensors", [])
    if isinstance(module, torch.nn.PReLU):
        return "", [(f"{name}.weight", 0, "follows")] if module.num_parameters > 1 else []
    what = type(module).__name__.strip("_")
    return f"its channels pass through {name or what} ({what}), which this version cannot shrink", []


def _layer_entries(module: Any, name: str, is_output: bool) -> tuple[str, list[tuple[str, int, Role]]]:
    grouped = isinstance(module, torch.nn.modules.conv._ConvNd) and module.groups > 1
    if grouped and not (module.groups == module.in_channels == module.out_channels):
        return f"its channels pass through {name}, a grouped convolution, which this version cannot shrink", []
    bias: list[tuple[str, int, Role]] = [(f"{name}.bias", 0, "follows")] if module.bias is not None else []
    if grouped:
        return "", [(f"{name}.weight", 0, "follows"), *bias]
    out_dim, in_dim = (1, 0) if _transposed(module) else (0, 1)
    if is_output:
        return "", [(f"{name}.weight", out_dim, "produces"), *bias]
    return "", [(f"{name}.weight", in_dim, "reads")]
