"""Signals: what a criterion is shown beside the weights, collected on the calibration examples.

:func:`collect` looks; :func:`layer_of`, :func:`units_of` and :func:`block_units` lay out what it saw for one weight
tensor, group or block, as :mod:`pruneproof.criteria` has it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pruneproof import criteria, gradients, inference, observations, prunable
from pruneproof.criteria import Layer, Units
from pruneproof.errors import PruningError, SubjectError
from pruneproof.losses import Loss
from pruneproof.losses import loss_of as loss_of
from pruneproof.observations import hessian as hessian
from pruneproof.subject import Data
from pruneproof.units import Group, Slices

NO_GRADIENT = "no gradient reaches it on the calibration examples"


@dataclass
class Signals:
    """What was seen.

    Args:
        gradients, squared_gradients, input_norms, movement: by parameter name, in the shape of the parameter; see
            :class:`pruneproof.criteria.Layer`.
        example_products: by group name, ``(examples, size)``; so are
        zeros, activity: ``(size,)``; see :class:`pruneproof.criteria.Units`.
        unseen: parameter or group → why nothing was seen of it.
    """

    gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    squared_gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    input_norms: Mapping[str, torch.Tensor] = field(default_factory=dict)
    movement: Mapping[str, torch.Tensor] = field(default_factory=dict)
    example_products: Mapping[str, torch.Tensor] = field(default_factory=dict)
    zeros: Mapping[str, torch.Tensor] = field(default_factory=dict)
    activity: Mapping[str, torch.Tensor] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)


def collect(
    model: torch.nn.Module,
    needs: Iterable[str],
    examples: Data,
    groups: Sequence[Group],
    names: Sequence[str],
    loss: Loss | None,
    batch_size: int,
) -> Signals:
    """Shows ``model`` the examples, in eval mode, and takes down what the criterion ``needs``.

    Frozen parameters get gradients all the same. The model is left as it was, also when it raises. Movement comes from
    training and Hessians from :func:`hessian`; neither is collected here.

    Args:
        model: a private copy; its parameters' ``requires_grad`` and ``grad`` change while this runs.
        names: parameters whose single weights are scored, or else
        groups: whose units are.
        loss: ``loss(output, targets)``, for gradients.

    Raises:
        PruningError: the model raises on the examples, no gradient reaches any weight, or something is not finite.
        SubjectError: gradients are needed and the examples have no targets.
    """
    needs = set(needs)
    if not needs & {criteria.GRADIENTS, criteria.EXAMPLE_GRADIENTS, criteria.INPUTS, criteria.READINGS}:
        return Signals()
    if inference.size(examples) == 0:
        raise SubjectError("there are no calibration examples", "give Subject(calibration=Data(...)) some")
    signals, unseen = Signals(), dict[str, str]()
    if needs & {criteria.GRADIENTS, criteria.EXAMPLE_GRADIENTS}:
        if loss is None:
            raise SubjectError("the criterion needs a loss", "give Subject(loss=...)")
        unseen |= _gradients(signals, model, needs, examples, groups, names, loss, batch_size)
    if criteria.INPUTS in needs:
        signals.input_norms, blind = observations.input_norms(model, names, examples, batch_size)
        unseen |= blind
    if criteria.READINGS in needs:
        signals.zeros, signals.activity, blind = observations.readings(model, groups, examples, batch_size)
        unseen |= blind
    signals.unseen = unseen
    return signals


def _gradients(
    signals: Signals,
    model: torch.nn.Module,
    needs: set[str],
    examples: Data,
    groups: Sequence[Group],
    names: Sequence[str],
    loss: Loss,
    batch_size: int,
) -> dict[str, str]:
    """Fills in what takes a backward pass; returns what no gradient reaches."""
    parts = {group.name: _parts(model, group) for group in groups}
    wanted = list(dict.fromkeys([*names, *(name for found in parts.values() for name, _ in found)]))
    named = dict(model.named_parameters(remove_duplicate=False))
    stored = [name for name in wanted if name in named]
    reached = set(stored)
    if criteria.GRADIENTS in needs:
        signals.gradients = gradients.mean(model, stored, examples, loss, batch_size)
        reached &= set(signals.gradients)
    if criteria.EXAMPLE_GRADIENTS in needs:
        squared, products, ever = _of_each_example(model, stored, parts, groups, examples, loss)
        signals.squared_gradients, signals.example_products = squared, products
        reached &= ever
    unseen = {name: NO_GRADIENT for name in names if name not in reached}
    for group in groups:
        if _out_of_sight(group, [name for name, _ in parts[group.name]], reached):
            unseen[group.name] = NO_GRADIENT
    return unseen


Parts = list[tuple[str, Slices]]
"""The weights of a group's units: parameter, and which of its positions belong to which unit."""


def _parts(model: torch.nn.Module, group: Group) -> Parts:
    if not group.blocks:
        return [(entry.tensor, entry) for entry in group.slices if entry.role == "produces"]
    found = []
    for unit, path in enumerate(group.blocks):
        for name in block_weights(model, path):
            positions = torch.arange(model.get_parameter(name).shape[0])
            found.append((name, Slices(name, 0, "produces", positions, torch.full_like(positions, unit))))
    return found


def _out_of_sight(group: Group, tensors: Sequence[str], reached: set[str]) -> bool:
    """Of a channel every coupled layer has to be reached; of blocks some, since those that were left out are not."""
    return not reached & set(tensors) if group.blocks else not set(tensors) <= reached


def _of_each_example(
    model: torch.nn.Module,
    names: Sequence[str],
    parts: Mapping[str, Parts],
    groups: Sequence[Group],
    examples: Data,
    loss: Loss,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], set[str]]:
    """Mean squared gradients; each group's ``Σ_s w_s·g_ns``; and what a gradient reached."""
    n = inference.size(examples)
    squared: dict[str, torch.Tensor] = {}
    products = {group.name: torch.zeros(n, group.size, dtype=torch.float64) for group in groups}
    entries: dict[str, list[tuple[str, Slices]]] = defaultdict(list)
    for group_name, found in parts.items():
        for name, entry in found:
            entries[name].append((group_name, entry))
    position = -1

    def numbered(output: Any, targets: torch.Tensor) -> torch.Tensor:
        nonlocal position
        position += 1
        return loss(output, targets)

    def take(name: str, weight: torch.Tensor, gradient: torch.Tensor) -> None:
        gradients.finite(name, gradient)
        if name not in squared:
            squared[name] = torch.zeros_like(gradient)
        squared[name].addcmul_(gradient, gradient, value=1 / n)
        for group_name, entry in entries[name]:
            product = _along(weight * gradient, entry.dim).sum(dim=1, dtype=torch.float64).cpu()
            products[group_name][position].index_add_(0, entry.units, product[entry.positions])

    reached = gradients.each(model, names, examples, numbered, take)
    return {name: total.cpu() for name, total in squared.items()}, products, reached


def _along(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """``(positions along dim, everything else)``."""
    moved = tensor.movedim(dim, 0)
    return moved.reshape(len(moved), -1)


def layer_of(name: str, weight: torch.Tensor, signals: Signals, seed: int) -> Layer:
    """One weight tensor as a criterion is shown it, on the CPU."""
    return Layer(
        name=name,
        weight=weight.detach().cpu(),
        gradient=signals.gradients.get(name),
        squared_gradient=signals.squared_gradients.get(name),
        input_norm=signals.input_norms.get(name),
        movement=signals.movement.get(name),
        generator=_generator(seed, name),
    )


def units_of(
    group: Group, tensors: Mapping[str, torch.Tensor], signals: Signals, seed: int, alive: torch.Tensor | None = None
) -> Units:
    """The units of a group of channels or heads as a criterion is shown them.

    Args:
        tensors: parameters and buffers of the network, by name.
        alive: ``(size,)`` booleans: units that were removed earlier are left out, so that everything here has a row for
            each of the others, in order.

    Raises:
        PruningError: the group's units are of different size.
    """
    entries = [entry for entry in group.slices if entry.role == "produces"]

    def rows(shown: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        if not all(entry.tensor in shown for entry in entries):
            return None
        found = [_rows(group, shown[entry.tensor], entry) for entry in entries]
        return _picked(found[0] if len(found) == 1 else torch.cat(found, dim=1), alive)

    weights = rows(tensors)
    if weights is None:
        raise PruningError(f"{group.name}: the network does not store its weights", f"exclude {group.name}")
    products = signals.example_products.get(group.name)
    return Units(
        name=group.name,
        weights=weights,
        gradients=rows(signals.gradients),
        squared_gradients=rows(signals.squared_gradients),
        movement=rows(signals.movement),
        example_products=products if products is None or alive is None else products[:, alive],
        scale=_picked(scale_of(group, tensors), alive),
        zeros=_picked(signals.zeros.get(group.name), alive),
        activity=_picked(signals.activity.get(group.name), alive),
        generator=_generator(seed, group.name),
    )


def _rows(group: Group, tensor: torch.Tensor, entry: Slices) -> torch.Tensor:
    """``(size, k)`` of one tensor: the positions of each unit, in order."""
    counts = torch.bincount(entry.units, minlength=group.size)
    if len(counts) != group.size or int(counts.min()) != int(counts.max()):
        raise PruningError(
            f"{group.name}: its units have different numbers of weights in {entry.tensor}", f"exclude {group.name}"
        )
    order = entry.positions[torch.argsort(entry.units, stable=True)]
    found = _along(tensor.detach().cpu(), entry.dim)
    if len(order) != len(found) or bool((order != torch.arange(len(order))).any()):
        found = found[order]
    found = found.reshape(group.size, -1)
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _picked(values: torch.Tensor | None, alive: torch.Tensor | None) -> torch.Tensor | None:
    return values if values is None or alive is None else values[alive]


def scale_of(group: Group, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """``|γ|`` ``(size,)`` of the batch norms that follow, on average over them; ``None`` without one.

    Only batch norms keep a running mean.
    """
    stems = {entry.tensor.removesuffix("running_mean") for entry in group.slices if entry.role == "follows"}
    total, counts = torch.zeros(group.size, dtype=torch.float64), torch.zeros(group.size)
    for entry in group.slices:
        stem = entry.tensor.removesuffix("weight")
        if entry.role == "follows" and entry.tensor.endswith("weight") and stem in stems:
            scale = tensors[entry.tensor].detach().cpu().double().abs()
            total.index_add_(0, entry.units, scale[entry.positions])
            counts += torch.bincount(entry.units, minlength=group.size)
    return total / counts if bool((counts > 0).all()) else None


def block_weights(model: torch.nn.Module, path: str) -> tuple[str, ...]:
    """Names of the weights that a block is scored by: those of its layers; without such layers, every parameter."""
    block = model.get_submodule(path)
    layers = prunable.weights(block) or dict(block.named_parameters())
    return tuple(f"{path}.{name}" for name in layers)


def block_units(model: torch.nn.Module, group: Group, index: int, signals: Signals, seed: int) -> Units:
    """Block ``index`` of ``group`` as a criterion is shown it: one row of all its weights.

    A weight of it that no gradient reaches while it reaches others takes no part in the loss: its gradient is zero. A
    block that no gradient reaches at all is shown without gradients.
    """
    names = block_weights(model, group.blocks[index])

    def row(shown: Mapping[str, torch.Tensor], lookup: Callable[[str], torch.Tensor | None]) -> torch.Tensor | None:
        if not any(name in shown for name in names):
            return None
        parts = []
        for name in names:
            part = lookup(name)
            part = torch.zeros_like(model.get_parameter(name)) if part is None else part
            parts.append(part.detach().cpu().reshape(-1).to(torch.promote_types(part.dtype, torch.float32)))
        return torch.cat(parts)[None]

    weights = {name: model.get_parameter(name) for name in names}
    if not weights:
        raise PruningError(f"{group.blocks[index]} has no weights to be scored by", f"exclude {group.blocks[index]}")
    seen = any(name in signals.squared_gradients for name in names)
    products = signals.example_products.get(group.name) if seen else None
    shown = row(weights, weights.get)
    assert shown is not None
    return Units(
        name=group.blocks[index],
        weights=shown,
        gradients=row(signals.gradients, signals.gradients.get),
        squared_gradients=row(signals.squared_gradients, signals.squared_gradients.get),
        movement=row(signals.movement, signals.movement.get),
        example_products=None if products is None else products[:, index : index + 1],
        generator=_generator(seed, group.blocks[index]),
    )


def _generator(seed: int, name: str) -> torch.Generator:
    """Whatever the order in which layers are scored."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
