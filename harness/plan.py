"""A prune plan: what exactly a recipe removes at a ratio, as plain data.

The masked and the shrunk network both derive from the same plan. It is saved as safetensors plus JSON
and read back without executing anything.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pruneproof import digests
from pruneproof.errors import EvidenceError, PruningError
from pruneproof.policy import canonical

SCHEMA = "pruneproof-plan/1"

Role = Literal["produces", "follows", "reads"]


@dataclass(frozen=True, eq=False)
class Removal:
    """Slices that go from one tensor along one dimension.

    A unit (a channel, a neuron) is *produced* by rows of some weights, *followed* by what acts on it
    alone (bias, batch norm, depthwise weights) and *read* by columns of the next weights::

        conv1.weight dim 0 ──▶ bn.weight dim 0 ──▶ conv2.weight dim 1
         produces               follows              reads

    Args:
        tensor: name of a parameter or buffer.
        indices: ``(k,)`` positions along ``dim``, ascending.
    """

    tensor: str
    dim: int
    role: Role
    indices: torch.Tensor


@dataclass(frozen=True, eq=False)
class PrunePlan:
    """What a recipe removes.

    Args:
        recipe: granularity, criterion and scope.
        ratio: as requested.
        seed: of the criterion, where it draws.
        model: digest of the network that the plan was made for.
        removed: units (elements or channels) that go, and ``units`` the number that there were.
        masks: element granularity: tensor name → booleans of its shape, true where a weight stays.
        removals: channel granularity.
        left_whole: layers that the recipe could not prune, each with the reason.
    """

    recipe: Mapping[str, str]
    ratio: float
    seed: int
    model: str
    removed: int
    units: int
    masks: Mapping[str, torch.Tensor]
    removals: tuple[Removal, ...]
    left_whole: tuple[tuple[str, str], ...] = ()

    @property
    def tensors(self) -> set[str]:
        """Names of the tensors that it touches."""
        return set(self.masks) | {removal.tensor for removal in self.removals}


def digest(plan: PrunePlan) -> str:
    """SHA-256 of the plan's content."""
    found = hashlib.sha256(_header(plan).encode())
    for name, tensor in sorted(_tensors(plan).items()):
        found.update(name.encode())
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def apply(plan: PrunePlan, model: torch.nn.Module) -> torch.nn.Module:
    """A copy of ``model`` with the plan carried out: weights zeroed, or channels physically removed.

    Raises:
        PruningError: the plan was made for another model, or names what the model does not have.
    """
    if digests.of_model(model) != plan.model:
        raise PruningError("the plan was made for another model", "use the model that it was made for")
    variant = copied(model)
    for name, mask in plan.masks.items():
        parameter = _named(variant, name)
        if parameter.shape != mask.shape:
            raise PruningError(f"the plan's mask of {name} does not fit its shape", "use the plan's own model")
        with torch.no_grad():
            parameter.masked_fill_(~mask.to(parameter.device), 0)
    for removal in plan.removals:
        _remove(variant, removal)
    if plan.removals:
        for prefix, module in variant.named_modules():
            if any(removal.tensor.rpartition(".")[0] == prefix for removal in plan.removals):
                _update_sizes(module)
    return variant


def masked(plan: PrunePlan, model: torch.nn.Module) -> torch.nn.Module:
    """A copy of ``model``, full size, that computes what :func:`apply` gives.

    For channels only the weights that *read* a removed unit are zeroed. Zeroing the rows that produce it
    would be another network: a bias or batch norm after them still gives a constant.
    """
    variant = copied(model)
    with torch.no_grad():
        for name, mask in plan.masks.items():
            tensor = _named(variant, name)
            tensor.masked_fill_(~mask.to(tensor.device), 0)
        for removal in plan.removals:
            if removal.role == "reads":
                tensor = _named(variant, removal.tensor)
                tensor.index_fill_(removal.dim, removal.indices.to(tensor.device), 0)
    return variant


def copied(model: torch.nn.Module) -> torch.nn.Module:
    """A deep copy.

    Raises:
        PruningError: the model does not support it.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise PruningError(
            f"the model cannot be copied: {type(error).__name__}: {error}",
            "make it work with copy.deepcopy (remove parametrizations of torch.nn.utils.prune first)",
        ) from error


def _named(model: torch.nn.Module, name: str) -> torch.Tensor:
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    if name not in tensors:
        raise PruningError(f"the model has no tensor {name}", "use the plan's own model")
    return tensors[name]


def _remove(model: torch.nn.Module, removal: Removal) -> None:
    tensor = _named(model, removal.tensor)
    size = tensor.shape[removal.dim]
    if len(removal.indices) and int(removal.indices.max()) >= size:
        raise PruningError(
            f"the plan removes positions that {removal.tensor} does not have", "use the plan's own model"
        )
    keep = torch.ones(size, dtype=torch.bool)
    keep[removal.indices] = False
    kept = tensor.detach().index_select(removal.dim, keep.nonzero()[:, 0].to(tensor.device)).contiguous()
    owner, _, attribute = removal.tensor.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(tensor, torch.nn.Parameter):
        kept = torch.nn.Parameter(kept, requires_grad=tensor.requires_grad)
    setattr(module, attribute, kept)


def _update_sizes(module: torch.nn.Module) -> None:
    """The layer's own record of its sizes, from its tensors."""
    if isinstance(module, torch.nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, torch.nn.modules.conv._ConvNd) and module.groups > 1:  # depthwise: one group a channel
        module.in_channels = module.out_channels = module.groups = len(module.weight)
    elif isinstance(module, torch.nn.modules.conv._ConvTransposeNd):
        module.in_channels, module.out_channels = module.weight.shape[:2]
    elif isinstance(module, torch.nn.modules.conv._ConvNd):
        module.out_channels, module.in_channels = module.weight.shape[:2]
    elif isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
        statistics = module.weight if module.affine else module.running_mean
        assert statistics is not None
        module.num_features = len(statistics)
    elif isinstance(module, torch.nn.PReLU):
        module.num_parameters = len(module.weight)
    else:
        raise PruningError(
            f"cannot shrink a layer of type {digests.class_name(module)}", "exclude it, or prune single weights"
        )


def save(plan: PrunePlan, stem: Path) -> None:
    """Writes ``<stem>.safetensors`` and ``<stem>.json``."""
    save_file(_tensors(plan), f"{stem}.safetensors")
    Path(f"{stem}.json").write_text(_header(plan) + "\n", "utf-8")


def load(stem: Path) -> PrunePlan:
    """What :func:`save` wrote.

    Raises:
        EvidenceError: missing or damaged.
    """
    try:
        head: dict[str, Any] = json.loads(Path(f"{stem}.json").read_text("utf-8"))
        tensors = load_file(f"{stem}.safetensors")
        if head["schema"] != SCHEMA:
            raise ValueError(f"expected a plan of schema {SCHEMA}, got {head['schema']!r}")
        return PrunePlan(
            recipe=head["recipe"],
            ratio=head["ratio"],
            seed=head["seed"],
            model=head["model"],
            removed=head["removed"],
            units=head["units"],
            masks={name.removeprefix("mask:"): t for name, t in tensors.items() if name.startswith("mask:")},
            removals=tuple(
                Removal(entry["tensor"], entry["dim"], entry["role"], tensors[f"removal:{position}"])
                for position, entry in enumerate(head["removals"])
            ),
            left_whole=tuple((layer, reason) for layer, reason in head["left_whole"]),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"plan {stem}: {error}", "run the audit again") from None


def _tensors(plan: PrunePlan) -> dict[str, torch.Tensor]:
    found = {f"mask:{name}": mask.contiguous() for name, mask in plan.masks.items()}
    found |= {f"removal:{i}": removal.indices.contiguous() for i, removal in enumerate(plan.removals)}
    return found


def _header(plan: PrunePlan) -> str:
    return canonical(
        {
            "schema": SCHEMA,
            "recipe": dict(plan.recipe),
            "ratio": plan.ratio,
            "seed": plan.seed,
            "model": plan.model,
            "removed": plan.removed,
            "units": plan.units,
            "removals": [{"tensor": r.tensor, "dim": r.dim, "role": r.role} for r in plan.removals],
            "left_whole": [list(entry) for entry in plan.left_whole],
        }
    )
