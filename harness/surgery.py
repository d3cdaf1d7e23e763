"""Carrying a plan out: the pruned network, and the masked network of full size that has to equal it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional

from pruneproof import attention, digests
from pruneproof.errors import PruningError
from pruneproof.plan import PrunePlan, Removal
from pruneproof.units import Setting

NORMS = (torch.nn.LayerNorm, torch.nn.RMSNorm, torch.nn.GroupNorm)
"""Norms whose statistics run over channels: fewer channels are other statistics."""


def apply(plan: PrunePlan, model: torch.nn.Module) -> torch.nn.Module:
    """A copy of ``model`` with the plan carried out: weights zeroed, or units physically removed.

    Raises:
        PruningError: the plan was made for another model, or names what the model does not have.
    """
    if digests.of_model(model) != plan.model:
        raise PruningError("the plan was made for another model", "use the model that it was made for")
    return shrunk(plan, model)


def shrunk(plan: PrunePlan, model: torch.nn.Module) -> torch.nn.Module:
    """As :func:`apply`, for any model with the tensors that the plan names: what it computes is not checked."""
    variant = copied(model)
    zero(variant, plan.masks)
    for removal in plan.removals:
        _remove(variant, removal)
    touched = {removal.tensor.rpartition(".")[0] for removal in plan.removals}
    for name, module in variant.named_modules():
        if name in touched:
            _update_sizes(module)
    _drop(variant, plan.blocks)
    for setting in plan.settings:
        _set(variant, setting)
    overwrite(variant, plan.weights)
    return variant


def masked(plan: PrunePlan, model: torch.nn.Module) -> torch.nn.Module:
    """A copy of ``model``, full size, that computes what :func:`apply` gives.

    Of a unit only the weights that *read* it are zeroed. Zeroing the rows that produce it would be another
    network: a bias or batch norm after them still gives a constant. Norms that run over channels take their
    statistics from those that stay, and a block that is left out hands on what it was given.
    """
    variant = copied(model)
    overwrite(variant, _scattered(plan, variant))
    zero(variant, plan.masks)
    zero(variant, reading_masks(plan, variant))
    for removal in plan.removals:
        owner = variant.get_submodule(removal.tensor.rpartition(".")[0])
        if isinstance(owner, NORMS) and removal.tensor.endswith("weight"):
            size = owner.weight.shape[0]
            keep_aware(owner, _kept(size, removal.indices))
    for path in plan.blocks:
        bypass(variant.get_submodule(path))
    return variant


def copied(model: torch.nn.Module, known: dict[int, Any] | None = None) -> torch.nn.Module:
    """A deep copy; with ``known``, id of an object → what stands for it in the copy.

    Raises:
        PruningError: the model does not support it.
    """
    try:
        return copy.deepcopy(model, known)
    except Exception as error:
        raise PruningError(
            f"the model cannot be copied: {type(error).__name__}: {error}",
            "make it work with copy.deepcopy (remove parametrizations of torch.nn.utils.prune first)",
        ) from error


def sharing(model: torch.nn.Module) -> torch.nn.Module:
    """A deep copy whose parameters are its own and lie in the same memory: for what takes gradients and changes no
    weight.

    Raises:
        PruningError: the model does not support it.
    """
    own: dict[int, Any] = {
        id(parameter): torch.nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copied(model, own)


def zero(model: torch.nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Sets to zero, in place, what ``masks`` (true where a weight stays) leave out.

    Raises:
        PruningError: a mask names a tensor that the model does not have, or does not fit its shape.
    """
    tensors = named_tensors(model)
    for name, mask in masks.items():
        tensor = _named(tensors, name)
        if tensor.shape != mask.shape:
            raise PruningError(f"the plan's mask of {name} does not fit its shape", "use the plan's own model")
        with torch.no_grad():
            tensor.masked_fill_(~mask.to(tensor.device), 0)


def reading_masks(plan: PrunePlan, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Of units: the weights of the dense network that read them, as masks, true where a weight stays."""
    tensors = named_tensors(model)
    found: dict[str, torch.Tensor] = {}
    for removal in plan.removals:
        if removal.role == "reads":
            shape = _named(tensors, removal.tensor).shape
            mask = found.setdefault(removal.tensor, torch.ones(shape, dtype=torch.bool))
            mask.index_fill_(removal.dim, removal.indices, False)
    return found


def named_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under every name that they have."""
    found: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    return found | dict(model.named_buffers(remove_duplicate=False))


def aliases(model: torch.nn.Module) -> dict[int, list[str]]:
    """``id`` of a parameter or buffer → every name that it has."""
    found: dict[int, list[str]] = {}
    for name, tensor in named_tensors(model).items():
        found.setdefault(id(tensor), []).append(name)
    return found


def _named(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in tensors:
        raise PruningError(f"the model has no tensor {name}", "use the plan's own model")
    return tensors[name]


def _kept(size: int, removed: torch.Tensor) -> torch.Tensor:
    """``(k,)`` positions that stay, ascending."""
    keep = torch.ones(size, dtype=torch.bool)
    keep[removed] = False
    return keep.nonzero()[:, 0]


def _remove(model: torch.nn.Module, removal: Removal) -> None:
    owner, _, attribute = removal.tensor.rpartition(".")
    try:
        tensor = getattr(model.get_submodule(owner), attribute)
    except AttributeError:
        raise PruningError(f"the model has no tensor {removal.tensor}", "use the plan's own model") from None
    size = tensor.shape[removal.dim]
    if len(removal.indices) and int(removal.indices.max()) >= size:
        raise PruningError(
            f"the plan removes positions that {removal.tensor} does not have", "use the plan's own model"
        )
    keep = _kept(size, removal.indices).to(tensor.device)
    kept = tensor.detach().index_select(removal.dim, keep).contiguous()
    if isinstance(tensor, torch.nn.Parameter):
        kept = torch.nn.Parameter(kept, requires_grad=tensor.requires_grad)
    setattr(model.get_submodule(owner), attribute, kept)


def _update_sizes(module: torch.nn.Module) -> None:
    """The layer's own record of its sizes, from its tensors. A module that keeps none is left as it is: what it
    computes is held against the masked network."""
    if isinstance(module, torch.nn.MultiheadAttention):
        attention.narrow(module)
    elif isinstance(module, torch.nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, torch.nn.modules.conv._ConvNd):
        _update_convolution(module)
    elif isinstance(module, torch.nn.modules.batchnorm._NormBase):
        statistics = module.weight if module.affine else module.running_mean
        assert statistics is not None
        module.num_features = len(statistics)
    elif isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, torch.nn.GroupNorm):
        each_its_own = module.num_groups == module.num_channels
        module.num_channels = len(module.weight)
        module.num_groups = module.num_channels if each_its_own else module.num_groups
    elif isinstance(module, torch.nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, torch.nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif digests.class_name(module) == "Conv1D":  # transformers: a linear layer with its weight transposed
        sizes: Any = module
        sizes.nx, sizes.nf = sizes.weight.shape


def _update_convolution(module: torch.nn.modules.conv._ConvNd) -> None:
    depthwise = module.groups == module.in_channels == module.out_channels and module.groups > 1
    if depthwise:
        module.in_channels = module.out_channels = module.groups = len(module.weight)
    elif isinstance(module, torch.nn.modules.conv._ConvTransposeNd):
        module.in_channels, module.out_channels = len(module.weight), module.weight.shape[1] * module.groups
    else:
        module.out_channels, module.in_channels = len(module.weight), module.weight.shape[1] * module.groups


def _set(model: torch.nn.Module, setting: Setting) -> None:
    owner: Any = model.get_submodule(setting.module)
    *path, last = setting.attribute.split(".")
    try:
        for part in path:
            owner = getattr(owner, part)
        if not path:  # a configuration may have to say what it left to a default before
            getattr(owner, last)
    except AttributeError:
        where = f"{setting.module}.{setting.attribute}".lstrip(".")
        raise PruningError(f"the model has no {where}", "use the plan's own model") from None
    setattr(owner, last, setting.value)


def overwrite(model: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Copies ``values`` into the tensors of these names, in place.

    Raises:
        PruningError: the model has none of that name, or of another shape.
    """
    tensors = named_tensors(model)
    for name, value in values.items():
        tensor = _named(tensors, name)
        if tensor.shape != value.shape:
            raise PruningError(f"the plan's values of {name} do not fit its shape", "use the plan's own model")
        with torch.no_grad():
            tensor.copy_(value)


def _scattered(plan: PrunePlan, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """``plan.weights`` at their places in the network of full size."""
    names = {new: old for old, new in renamed(model, plan.blocks).items()}
    tensors = named_tensors(model)
    found = {}
    for new, value in plan.weights.items():
        name = names.get(new, new)
        full = _named(tensors, name).detach().clone()
        places = [torch.arange(size) for size in full.shape]
        for removal in plan.removals:
            if removal.tensor == name:
                places[removal.dim] = _kept(full.shape[removal.dim], removal.indices)
        index = torch.meshgrid(*places, indexing="ij") if places else ()
        full[index] = value.to(full.device, full.dtype)
        found[name] = full
    return found


def _drop(model: torch.nn.Module, blocks: Iterable[str]) -> None:
    """Takes modules out of their containers. A list is numbered anew, since models index it; a sequence keeps the
    names of what stays."""
    containers: dict[str, list[str]] = {}
    for block in blocks:
        parent, _, key = block.rpartition(".")
        containers.setdefault(parent, []).append(key)
    for path, keys in containers.items():
        container = model.get_submodule(path)
        for key in keys:
            if key not in container._modules:
                raise PruningError(f"the model has no block {path}.{key}", "use the plan's own model")
            del container._modules[key]
        if isinstance(container, torch.nn.ModuleList):
            stay = list(container._modules.values())
            container._modules.clear()
            container.extend(module for module in stay if module is not None)


def renamed(model: torch.nn.Module, blocks: Iterable[str]) -> dict[str, str]:
    """Tensors of the dense ``model`` that stay when ``blocks`` go, by the names that they have afterwards."""
    gone = set(blocks)
    prefixes: dict[str, str] = {}
    for container in {path.rpartition(".")[0] for path in gone}:
        owner = model.get_submodule(container)
        stay = [key for key in owner._modules if f"{container}.{key}".lstrip(".") not in gone]
        if isinstance(owner, torch.nn.ModuleList):
            dotted = f"{container}." if container else ""
            prefixes |= {f"{dotted}{key}.": f"{dotted}{position}." for position, key in enumerate(stay)}
    found = {}
    for name in named_tensors(model):
        if any(name.startswith(f"{path}.") for path in gone):
            continue
        old = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        found[name] = prefixes.get(old, "") + name.removeprefix(old)
    return found


def touched(plan: PrunePlan, dense: torch.nn.Module) -> tuple[set[str], set[str]]:
    """Names of the tensors from which the plan removes something, in the dense and in the pruned network."""
    inside = tuple(f"{path}." for path in plan.blocks)
    before = plan.tensors | {name for name in named_tensors(dense) if inside and name.startswith(inside)}
    names = renamed(dense, plan.blocks)
    return before, {names[name] for name in before if name in names}


class _KeepAware:
    """A forward hook: the norm as it is when only the channels ``keep`` are there; zero elsewhere."""

    def __init__(self, keep: torch.Tensor, dim: int) -> None:
        self.keep, self.dim = keep, dim

    def __call__(self, module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        keep = self.keep.to(output.device)
        part = args[0].index_select(self.dim, keep)
        scale: torch.Tensor = module.weight[keep]  # type: ignore[index]
        offset = None if getattr(module, "bias", None) is None else module.bias[keep]  # type: ignore[index]
        if isinstance(module, torch.nn.GroupNorm):
            groups = len(keep) if module.num_groups == module.num_channels else module.num_groups
            found = functional.group_norm(part, groups, scale, offset, module.eps)
        else:
            last = part.movedim(self.dim, -1)
            if isinstance(module, torch.nn.LayerNorm):
                found = functional.layer_norm(last, (len(keep),), scale, offset, module.eps)
            else:
                found = functional.rms_norm(last, (len(keep),), scale, module.eps)  # type: ignore[arg-type]
            found = found.movedim(-1, self.dim)
        return torch.zeros_like(output).index_copy(self.dim, keep, found)


def keep_aware(norm: torch.nn.Module, keep: torch.Tensor) -> None:
    """Makes ``norm`` take its statistics from the channels ``keep`` alone."""
    norm.register_forward_hook(_KeepAware(keep, channel_dim(norm)))


def channel_dim(norm: torch.nn.Module) -> int:
    """The dimension of a norm's input that holds its channels: LayerNorm2d of torchvision and timm has them second."""
    second = isinstance(norm, torch.nn.GroupNorm) or digests.class_name(norm).endswith("2d")
    return 1 if second else -1


def _passed_through(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
    given = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
    return (given, *output[1:]) if isinstance(output, tuple) else given


def bypass(block: torch.nn.Module) -> None:
    """Makes ``block`` hand on its first input."""
    block.register_forward_hook(_passed_through, with_kwargs=True)
