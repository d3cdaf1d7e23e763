"""Which channels and neurons of a network hang together.

Torch-Pruning's dependency graph follows a layer's channels through the network by tracing; its pruners are not
used. What it finds is taken apart here: units that have to go together are merged, and where a network cannot lose
channels its layers are left whole, each with the reason.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.modules.lazy import LazyModuleMixin

from pruneproof import coupling, inference, isolation, operations, strands, trial
from pruneproof.coupling import Conv, Member, Part
from pruneproof.errors import GraphTimeout, PruningError, TaskTimeout
from pruneproof.strands import Strand
from pruneproof.subject import Inputs
from pruneproof.surgery import copied, named_tensors
from pruneproof.units import Found, Group

OUTPUT = "its channels are the network's output"
"""Why the last layer stays whole: the one reason that nobody needs to be told."""
UNREAD = "nothing that can be followed reads all of its channels"
UNENDING = "its channels are led around in a way that cannot be followed"
LOPSIDED = "its units would be made of different numbers of channels"
RECURRENT = "every gate and the state it hands on share its hidden units"
UNMADE = "no layer that can lose channels produces what it passes on"


def groups(model: torch.nn.Module, inputs: Inputs, timeout_s: float) -> Found:
    """The groups of ``model``, and the layers that must stay whole, each with the reason.

    Args:
        inputs: a batch of one or two examples to trace with.
        timeout_s: seconds after which the search is given up.

    Raises:
        PruningError: the network cannot be traced.
        GraphTimeout: the search took longer than ``timeout_s``.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise PruningError(
            "channels cannot be removed from a TorchScript module: its code is compiled for these shapes",
            "prune the eager model, or use granularity = 'element'",
        )
    try:
        with isolation.deadline(timeout_s, "the dependency graph of the network"):
            return _found(model, inputs)
    except TaskTimeout as error:
        raise GraphTimeout(
            f"self-check V9: {error.cause}",
            "use granularity = 'element', 'head' or 'block', or raise the recipe's graph_timeout_s",
        ) from None


def _found(model: torch.nn.Module, inputs: Inputs) -> Found:
    traced = _trace(model, inputs)
    found, whole = _followed_all(traced)
    if not traced.settles(found, inputs):
        del traced  # it may hold a copy of the weights
        for name, reason in trial.refused(found, model, inputs).items():
            group = next(group for group in found if group.name == name)
            whole |= dict.fromkeys(_producers(group), reason)
            found.remove(group)
    whole |= _forgotten(model, found, whole)
    told = {layer: why for layer, why in whole.items() if why != OUTPUT}
    # Why the last layer stays needs no words, unless there is nothing else to say.
    return Found(tuple(found), tuple((told or ({} if found else whole)).items()))


def _trace(model: torch.nn.Module, inputs: Inputs) -> _Traced:
    """Traced on shapes alone where the network allows it: without its weights, and without computing anything."""
    if not any(isinstance(module, torch.nn.RNNBase) for module in model.modules()):  # else traced as its inner steps
        with contextlib.suppress(Exception):
            return _Traced(_weightless(model), inputs)
    return _Traced(copied(model), inputs)


def _weightless(model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose tensors have shapes and no values."""
    shapes: dict[int, Any] = {}
    for parameter in model.parameters():
        shapes[id(parameter)] = torch.nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in model.buffers():
        shapes[id(buffer)] = torch.empty_like(buffer, device="meta")
    found = copy.deepcopy(model, shapes)
    for module in found.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not isinstance(module, LazyModuleMixin):
            module.forward = functools.partial(_batch_norm, module)  # type: ignore[method-assign]
    return found


def _batch_norm(module: torch.nn.modules.batchnorm._BatchNorm, x: torch.Tensor) -> torch.Tensor:
    """What batch norm does to shapes; on tensors without values torch's own takes most of a trace's time."""
    module._check_input_dim(x)  # type: ignore[no-untyped-call]
    own = module.weight if module.affine else module.running_mean
    if own is not None and x.shape[1] != len(own):
        raise PruningError(f"{x.shape[1]} channels reach a batch norm of {len(own)}", "leave them whole")
    return x * 1


def _followed_all(traced: _Traced) -> tuple[list[Group], dict[str, str]]:
    """What the trace shows."""
    found: list[Strand] = []
    whole: dict[str, str] = {}
    covered: set[str] = set()
    for name, layer in traced.model.named_modules():
        if not _produces(layer) or f"{name}.weight" in covered:
            continue
        strand = _followed(traced, name, layer)
        covered.update(strand.produced)
        if strand.reason:
            for weight in strand.produced:
                whole.setdefault(weight.removesuffix(".weight"), strand.reason)
        else:
            found.append(strand)
    found, refused = strands.even(found)
    whole |= refused
    merged = strands.merged(found)
    for group in merged:
        if strands.lopsided(group):
            whole |= dict.fromkeys(_producers(group), LOPSIDED)
    return [group for group in merged if not strands.lopsided(group)], whole


def _producers(group: Group) -> list[str]:
    """Layers that produce the group's units."""
    return list(dict.fromkeys(s.tensor.rpartition(".")[0] for s in group.slices if s.role == "produces"))


def _produces(layer: torch.nn.Module) -> bool:
    lazy = isinstance(layer, LazyModuleMixin)
    return isinstance(layer, torch.nn.Linear | Conv) and not coupling.is_depthwise(layer) and not lazy


Pairs = dict[tuple[int, int], None]
"""Positions, each with the channel that it belongs to, in the order in which they were reached."""


class _Traced:
    """A network with its dependency graph, and what is looked up for every group.

    Args:
        model: a copy that may be changed.
    """

    def __init__(self, model: torch.nn.Module, inputs: Inputs) -> None:
        self.model = model.eval()
        self.ends: set[Any] = set()
        self.shapes: list[torch.Size] = []
        for parameter in self.model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)  # the trace follows gradients; frozen layers would be invisible
        _without_scalars(self.model)
        self.graph = self._graph(inputs)
        self.modules = {module: name for name, module in self.model.named_modules()}
        self.tensors = named_tensors(self.model)
        self.recurrent = [
            f"{n} ({type(m).__name__})" for m, n in self.modules.items() if isinstance(m, torch.nn.RNNBase)
        ]
        self.limit = 4 * max((max(t.shape, default=1) for t in self.tensors.values()), default=1)
        """Positions above it are no channel's: more than any tensor has, also when it is flattened or concatenated."""
        self.names: dict[int, list[str]] = {}
        for name, tensor in self.tensors.items():
            self.names.setdefault(id(tensor), []).append(name)

    def _graph(self, inputs: Inputs) -> Any:
        import torch_pruning as tp

        # Its own entry for instance norms ends there, as if nothing read what they pass on.
        instance_norms = [torch.nn.InstanceNorm1d, torch.nn.InstanceNorm2d, torch.nn.InstanceNorm3d]
        try:
            # No gradient is ever taken: what autograd would keep for one is dropped.
            keep_nothing = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, _nothing)
            with torch.enable_grad(), warnings.catch_warnings(), keep_nothing:
                warnings.simplefilter("ignore")
                return tp.DependencyGraph().build_dependency(
                    self.model,
                    inputs,
                    forward_fn=inference.call,
                    output_transform=self._outputs,
                    customized_pruners={kind: tp.function.BatchnormPruner() for kind in instance_norms},
                    verbose=False,
                )
        except Exception as error:
            raise PruningError(
                f"channels: the network cannot be traced: {type(error).__name__}: {error}",
                "use granularity = 'element', or remove no_grad and detach from its forward pass",
            ) from error

    def _outputs(self, output: Any) -> list[torch.Tensor]:
        found = list(_differentiable(output))
        self.ends = {tensor.grad_fn for tensor in found}
        self.shapes = [tensor.shape for tensor in trial.tensors(output)]
        return found

    def settles(self, found: list[Group], inputs: Inputs) -> bool:
        """Whether the trace alone shows that units of the groups ``found`` can be removed."""
        known = operations.all_known(self.graph.module2node.values(), self.modules)
        return known and trial.shapes(found, self.model, inputs) == self.shapes

    def walk(self, layer: torch.nn.Module, size: int) -> dict[tuple[Any, Any], Pairs]:
        """Everything that the ``size`` channels of ``layer`` reach: node of the graph and what is pruned of it (a
        function of Torch-Pruning's) → pairs of a position there and the channel that it belongs to.

        ``DependencyGraph.get_pruning_group`` follows whole lists of positions until none is new, which need not end,
        and then keeps one channel a position. Here single positions are followed, so that this ends, and channels
        that meet at a position are seen to.
        """
        from torch_pruning._helpers import _HybridIndex

        start = (self.graph.module2node[layer], self.graph.get_pruner_of_module(layer).prune_out_channels)
        fresh = [_HybridIndex(idx=i, root_idx=i) for i in range(size)]
        reached = {start: dict.fromkeys(fresh)}
        stack = [(*start, fresh)]
        while stack:
            node, pruned, fresh = stack.pop()
            for dependency in node.dependencies:
                if not dependency.is_triggered_by(pruned):
                    continue
                found = fresh
                for mapping in dependency.index_mapping:
                    found = found if mapping is None else mapping(found)
                known = reached.setdefault((dependency.target, dependency.handler), {})
                new = [pair for pair in found if pair not in known] if known else found
                if new:
                    if found is not fresh and not all(self._possible(pair) for pair in new):
                        raise PruningError(UNENDING, "use granularity = 'element'")
                    known.update(dict.fromkeys(new))
                    stack.append((dependency.target, dependency.handler, new))
        return {place: pairs for place, pairs in reached.items() if pairs}

    def _possible(self, pair: Any) -> bool:
        return pair.root_idx is not None and 0 <= pair.idx < self.limit

    def member(self, node: Any, pruned: Any, channels: int) -> Member:
        """What of one node that ``channels`` channels reach goes along."""
        import torch_pruning.ops as ops

        module = node.module
        is_output = bool(self.graph.is_out_channel_pruning_fn(pruned))
        reads = isinstance(module, torch.nn.Linear | Conv) and not is_output
        if node.type == ops.OPTYPE.OUTPUT or (node.grad_fn in self.ends and not reads):
            return Member(reason=OUTPUT)
        if isinstance(module, torch.nn.Parameter):
            name = self.names[id(module)][0]
            owner = self.model.get_submodule(name.rpartition(".")[0])
            users = [_operation(user) for user in node.outputs]
            return coupling.of_parameter(module, name, owner, channels, users)
        if module not in self.modules:  # an operation, not a layer
            return Member()
        return coupling.of_layer(module, self.modules[module], is_output)

    def fixed(self, part: Part, positions: torch.Tensor) -> str:
        """Why the tensor of ``part`` cannot be replaced by a smaller one."""
        if part.tensor not in self.tensors:
            return f"{part.tensor} is computed from other tensors, not stored"
        tensor = self.tensors[part.tensor]
        others = [name for name in self.names[id(tensor)] if name != part.tensor]
        if others:
            return f"{part.tensor} and {others[0]} are one tensor"
        size = tensor.shape[part.dim]
        if len(positions) and (int(positions.max()) >= size or int(positions.min()) < 0):
            return f"its channels reach {part.tensor} by an operation that cannot be followed"
        return ""


def _nothing(kept: None) -> torch.Tensor:
    raise RuntimeError("the forward pass takes gradients of its own")


def _operation(node: Any) -> str:
    """Autograd's name, or the class of a layer."""
    named = getattr(node.grad_fn, "name", None)
    return str(named() if named else type(node.module).__name__)


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


def _followed(traced: _Traced, name: str, layer: torch.nn.Module) -> Strand:
    strand = Strand(name, produced={f"{name}.weight": None})
    if isinstance(layer, torch.nn.modules.linear.NonDynamicallyQuantizableLinear):
        strand.reason = "it is part of a MultiheadAttention, which loses heads, not channels"
    elif layer not in traced.graph.module2node:
        strand.reason = "it takes no part in the forward pass that was traced"
    elif isinstance(layer, Conv) and (reason := coupling.of_layer(layer, name, True).reason):
        strand.reason = reason
    if strand.reason:
        return strand
    assert isinstance(layer.weight, torch.Tensor)
    strand.size = layer.out_channels if isinstance(layer, Conv) else int(layer.weight.shape[0])
    try:
        reached = traced.walk(layer, strand.size)
    except PruningError as error:
        strand.reason = error.cause
    except Exception as error:
        through = ", ".join(traced.recurrent) or "an operation"
        strand.reason = f"its channels cannot be followed through {through} ({type(error).__name__}: {error})"
    else:
        strand.reason = _collected(traced, strand, reached)
    return strand


def _collected(traced: _Traced, strand: Strand, reached: Mapping[tuple[Any, Any], Pairs]) -> str:
    """Enters into ``strand`` what its channels reach; why it must stay whole, or nothing."""
    for (node, pruned), pairs in reached.items():
        positions, units = torch.tensor(list(pairs), dtype=torch.int64).T
        member = traced.member(node, pruned, len(torch.unique(positions)))
        if member.reason:
            return member.reason
        for part in member.parts:
            strand.entries.append((part, positions, units))
            if part.role == "produces":
                strand.produced[part.tensor] = None
        if member.alike:
            strand.alike.append((member.alike, positions, units))
    read = [units for part, _, units in strand.entries if part.role == "reads"]
    if len(torch.unique(torch.cat(read))) < strand.size if read else True:
        return UNREAD
    for part, positions, _ in strand.entries:
        if reason := traced.fixed(part, positions if part.modulo is None else positions % part.modulo):
            return reason
    return ""


def _forgotten(model: torch.nn.Module, found: list[Group], whole: Mapping[str, str]) -> dict[str, str]:
    """Depthwise layers that no group holds, and recurrent ones."""
    held = {entry.tensor for group in found for entry in group.slices if entry.role != "reads"}
    depthwise = (name for name, layer in model.named_modules() if coupling.is_depthwise(layer))
    found_whole = {name: UNMADE for name in depthwise if f"{name}.weight" not in held and name not in whole}
    kinds = (torch.nn.RNNBase, torch.nn.RNNCellBase)
    recurrent = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
    return found_whole | {name: f"{type(layer).__name__}: {RECURRENT}" for name, layer in recurrent}
