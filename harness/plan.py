"""A prune plan: what exactly a recipe removes at a ratio, as plain data.

The masked and the shrunk network both derive from the same plan (:mod:`pruneproof.surgery`). It is saved as
safetensors plus JSON and read back without executing anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pruneproof.errors import EvidenceError
from pruneproof.tables import canonical
from pruneproof.units import Role, Setting

SCHEMA = "pruneproof-plan/2"


@dataclass(frozen=True, eq=False)
class Removal:
    """Slices that go from one tensor along one dimension.

    Args:
        tensor: name of a parameter or buffer.
        role: see :mod:`pruneproof.units`.
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
        recipe: every setting of the recipe but its name and ratios, spelled.
        ratio: as requested, of what the recipe's ``denominator`` names.
        seed: of everything that the recipe draws.
        model: digest of the network that the plan was made for.
        removed: units (weights, channels, heads, blocks) that go, and ``units`` the number that there were.
        achieved: the share that is gone, of what the recipe's ``denominator`` names.
        resolution: where the ratio is of parameters or MACs: the share of them that one more or one less unit is.
        layers: layer → (units that stay, units that there were).
        calibration: digest of the examples that the criterion or the training looked at.
        masks: single weights: tensor name → booleans of its shape, true where a weight stays.
        removals: channels and heads.
        blocks: paths of modules that are left out.
        settings: attributes that have to change with the tensors.
        weights: tensors of the pruned network, under its own names, that training or a weight-updating
            criterion changed.
        left_whole: layers that the recipe could not prune, each with the reason.
    """

    recipe: Mapping[str, str]
    ratio: float
    seed: int
    model: str
    removed: int
    units: int
    achieved: float
    resolution: float | None = None
    layers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    calibration: str | None = None
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    removals: tuple[Removal, ...] = ()
    blocks: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    left_whole: tuple[tuple[str, str], ...] = ()

    @property
    def granularity(self) -> str:
        """What a unit is."""
        return self.recipe["granularity"]

    @property
    def tensors(self) -> set[str]:
        """Names of the dense network's tensors from which something is removed; blocks are not among them."""
        return set(self.masks) | {removal.tensor for removal in self.removals}


def digest(plan: PrunePlan) -> str:
    """SHA-256 of the plan's content."""
    found = hashlib.sha256(canonical(_header(plan)).encode())
    for name, tensor in sorted(_tensors(plan).items()):
        found.update(f"{name}:{tensor.dtype}{tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def save(plan: PrunePlan, stem: Path) -> None:
    """Writes ``<stem>.safetensors`` and ``<stem>.json``; the digest in the latter holds the two together."""
    save_file(_tensors(plan), f"{stem}.safetensors")
    Path(f"{stem}.json").write_text(canonical({**_header(plan), "sha256": digest(plan)}) + "\n", "utf-8")


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
        found = PrunePlan(
            **{key: head[key] for key in PLAIN},
            layers={layer: (kept, units) for layer, (kept, units) in head["layers"].items()},
            masks=_under("mask:", tensors),
            removals=tuple(
                Removal(entry["tensor"], entry["dim"], entry["role"], tensors[f"removal:{position}"])
                for position, entry in enumerate(head["removals"])
            ),
            blocks=tuple(head["blocks"]),
            settings=tuple(Setting(**entry) for entry in head["settings"]),
            weights=_under("weight:", tensors),
            left_whole=tuple((layer, reason) for layer, reason in head["left_whole"]),
        )
        if digest(found) != head["sha256"]:
            raise ValueError("it was changed, or its two files are not of one plan: its digest differs")
        return found
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvidenceError(f"plan {stem}: {error}", "run the audit again") from None


PLAIN = ("recipe", "ratio", "seed", "model", "removed", "units", "achieved", "resolution", "calibration")
"""Fields that are JSON as they are."""


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _tensors(plan: PrunePlan) -> dict[str, torch.Tensor]:
    found = {f"mask:{name}": mask.cpu().contiguous() for name, mask in plan.masks.items()}
    found |= {f"removal:{i}": removal.indices.cpu().contiguous() for i, removal in enumerate(plan.removals)}
    # A clone, since safetensors refuses tensors that share memory.
    found |= {f"weight:{name}": weight.detach().cpu().contiguous().clone() for name, weight in plan.weights.items()}
    return found


def _header(plan: PrunePlan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        **{key: getattr(plan, key) for key in PLAIN},
        "recipe": dict(plan.recipe),
        "layers": {layer: list(counts) for layer, counts in plan.layers.items()},
        "removals": [{"tensor": r.tensor, "dim": r.dim, "role": r.role} for r in plan.removals],
        "blocks": list(plan.blocks),
        "settings": [{"module": s.module, "attribute": s.attribute, "value": s.value} for s in plan.settings],
        "left_whole": [list(entry) for entry in plan.left_whole],
    }
