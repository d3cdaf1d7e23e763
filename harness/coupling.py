"""What of one layer goes with a unit whose channels reach it, and what of it must stay together.

Torch-Pruning's graph says *which* layers a unit's channels reach; this says what that means for the layer's tensors,
or why it cannot lose channels::

    Linear, Conv      rows produce, columns read; a bias follows
    grouped Conv      the same, and one channel of each group goes at once
    depthwise Conv    follows, one filter a channel
    norms             scale, offset and running statistics follow; of GroupNorm one channel of each group at once
    Embedding         its width produces
    bare parameters   follow, where they are added or multiplied
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from pruneproof.digests import class_name
from pruneproof.units import Role

Conv = torch.nn.modules.conv._ConvNd
Transposed = torch.nn.modules.conv._ConvTransposeNd
Batch = torch.nn.modules.batchnorm._BatchNorm
Instance = torch.nn.modules.instancenorm._InstanceNorm

MIXED_IN = ("Mul", "Add", "Sub", "Rsub", "Div", "Cat", "Expand", "Where", "Clone", "View", "Unsqueeze", "Repeat")
"""Operations, as autograd names them, that use a bare parameter element by element, or put it beside the channels."""


@dataclass(frozen=True)
class Part:
    """Positions of one tensor along one dimension, the channels' own, or modulo ``modulo`` where a dimension counts the
    channels of one group of channels only."""

    tensor: str
    dim: int
    role: Role
    modulo: int | None = None


@dataclass(frozen=True)
class Alike:
    """``channels`` that lie in ``groups`` of the same size, which must stay of the same size: what goes from one group
    goes from each, at the same offset."""

    layer: str
    side: str
    channels: int
    groups: int

    @property
    def period(self) -> int:
        return self.channels // self.groups


@dataclass(frozen=True)
class Member:
    """A layer that a unit's channels reach: its tensors that go along, or the reason why it cannot lose channels."""

    parts: tuple[Part, ...] = ()
    alike: Alike | None = None
    reason: str = ""


def of_layer(module: torch.nn.Module, name: str, is_output: bool) -> Member:
    """What of ``module`` goes with a channel that it makes (``is_output``), passes on, or takes in."""
    if isinstance(module, torch.nn.Linear):
        return _weighted(module, name, is_output)
    if isinstance(module, Conv):
        return _convolution(module, name, is_output)
    if isinstance(module, Batch | Instance):
        return _statistics(module, name)
    if isinstance(module, torch.nn.PReLU):
        return Member(_follow(module, name, ("weight",)) if module.num_parameters > 1 else ())
    if isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm | torch.nn.GroupNorm):
        return _norm(module, name)
    if isinstance(module, torch.nn.Embedding):
        return _embedding(module, name)
    return Member(reason=f"its channels pass through {_told(name, module)}, which cannot lose channels")


def _told(name: str, module: torch.nn.Module) -> str:
    kind = class_name(module).strip("_")
    return f"{name} ({kind})" if name else kind


def _follow(module: torch.nn.Module, name: str, tensors: Iterable[str]) -> tuple[Part, ...]:
    return tuple(Part(f"{name}.{key}", 0, "follows") for key in tensors if getattr(module, key, None) is not None)


def _weighted(module: torch.nn.Linear | Conv, name: str, is_output: bool) -> Member:
    out_dim, in_dim = (1, 0) if isinstance(module, Transposed) else (0, 1)
    if is_output:
        return Member((Part(f"{name}.weight", out_dim, "produces"), *_follow(module, name, ("bias",))))
    return Member((Part(f"{name}.weight", in_dim, "reads"),))


def is_depthwise(module: torch.nn.Module) -> bool:
    """One filter a channel: what goes in comes out."""
    return isinstance(module, Conv) and module.groups == module.in_channels == module.out_channels and module.groups > 1


def _convolution(module: Conv, name: str, is_output: bool) -> Member:
    if is_depthwise(module):
        return Member(_follow(module, name, ("weight", "bias")))
    if module.groups == 1:
        return _weighted(module, name, is_output)
    if module.groups in (module.in_channels, module.out_channels):
        return Member(
            reason=f"its channels pass through {name}, a depthwise convolution from {module.in_channels} to"
            f" {module.out_channels} channels, which cannot lose channels"
        )
    channels = module.out_channels if is_output else module.in_channels
    alike = Alike(name, "out" if is_output else "in", channels, module.groups)
    # A weight is (out, in / groups, ...), transposed (in, out / groups, ...): dimension 1 counts one group's channels.
    second = is_output == isinstance(module, Transposed)
    weight = Part(f"{name}.weight", int(second), "produces" if is_output else "reads", alike.period if second else None)
    return Member((weight, *(_follow(module, name, ("bias",)) if is_output else ())), alike)


def _statistics(module: Any, name: str) -> Member:
    parts = _follow(module, name, ("weight", "bias", "running_mean", "running_var"))
    if isinstance(module, Batch) and not parts:
        return Member(reason=f"batch norm {name} has no per-channel tensors")
    return Member(parts)  # an instance norm without any looks at each channel by itself, however many there are


def _norm(module: Any, name: str) -> Member:
    kinds = (torch.nn.LayerNorm, torch.nn.RMSNorm, torch.nn.GroupNorm)
    told = _told(name, module)
    known = type(module).forward in [kind.forward for kind in kinds] or _second_dimension(module)
    if not known:
        return Member(reason=f"its channels pass through {told}, whose forward pass is its own")
    if module.weight is None:
        return Member(reason=f"its channels pass through {told}, which has no weight for each channel")
    if module.weight.ndim != 1:
        return Member(reason=f"its channels pass through {told}, which takes its statistics over several dimensions")
    parts = _follow(module, name, ("weight", "bias"))
    if isinstance(module, torch.nn.GroupNorm) and 1 < module.num_groups < module.num_channels:
        return Member(parts, Alike(name, "norm", module.num_channels, module.num_groups))
    return Member(parts)


def _second_dimension(module: torch.nn.Module) -> bool:
    """torchvision's and timm's LayerNorm2d, and timm's own LayerNorm, which chooses between two implementations."""
    ours = type(module).__module__.partition(".")[0] in ("torchvision", "timm")
    return isinstance(module, torch.nn.LayerNorm) and (class_name(module).endswith("2d") or ours)


def _embedding(module: torch.nn.Embedding, name: str) -> Member:
    if module.max_norm is not None:
        return Member(reason=f"its channels pass through {_told(name, module)}, which rescales whole rows (max_norm)")
    return Member((Part(f"{name}.weight", 1, "produces"),))


def of_parameter(
    parameter: torch.Tensor, name: str, owner: torch.nn.Module, channels: int, users: Iterable[str]
) -> Member:
    """What of a parameter that the trace met outside of a known layer goes with a channel.

    Args:
        channels: how many of them reach it.
        users: autograd's names of the operations that use it.
    """
    layer = name.rpartition(".")[0]
    if isinstance(owner, torch.nn.RMSNorm):  # Torch-Pruning does not know it
        return _norm(owner, layer)
    if type(owner).__module__.startswith("torch.nn.modules") and not isinstance(owner, torch.nn.ParameterList):
        return Member(reason=f"its channels pass through {_told(layer, owner)}, which cannot lose channels")
    where = f"its channels pass through {name} (Parameter)"
    if foreign := sorted({user for user in users if not user.startswith(MIXED_IN)}):
        return Member(reason=f"{where}, which {foreign[0]} uses outside of a known layer")
    fitting = [dim for dim, size in enumerate(parameter.shape) if size == channels]
    if len(fitting) != 1:
        shape = tuple(parameter.shape)
        return Member(reason=f"{where}, where {channels} channels can be found in {len(fitting)} dimensions of {shape}")
    return Member((Part(name, fitting[0], "follows"),))
