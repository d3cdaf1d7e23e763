"""Observations: what layers are given while a network looks at the calibration examples.

All of it by forward pre-hooks on a network in eval mode, without gradients. Layers that are called several times
are observed every time.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from pruneproof import columns, inference, uses
from pruneproof.digests import class_name
from pruneproof.errors import PruneProofError, PruningError
from pruneproof.isolation import evaluating
from pruneproof.subject import Data
from pruneproof.units import Group, Slices

Unseen = dict[str, str]
"""Parameter or group → why nothing was seen of it."""
Observe = Callable[[torch.nn.Module, torch.Tensor], None]

NOT_REACHED = "its layer is not called on the calibration examples"


@contextlib.contextmanager
def quiet(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode, no fused attention, which calls none of its layers; the global random state is left as it was."""
    devices = {tensor.device.index for tensor in model.parameters() if tensor.device.type == "cuda"}
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(devices=sorted(index for index in devices if index is not None)), evaluating(model):
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Errors of the user's code as ours.

    Raises:
        PruningError: the block raised anything else.
    """
    try:
        yield
    except PruneProofError:
        raise
    except Exception as error:
        raise PruningError(
            f"{what}: {type(error).__name__}: {error}", "make the model accept every calibration example"
        ) from error


def input_norms(
    model: torch.nn.Module, names: Iterable[str], examples: Data, batch_size: int
) -> tuple[dict[str, torch.Tensor], Unseen]:
    """``‖X_j‖₂`` of what each weight of ``names`` is multiplied with, over all examples and positions.

    Returns:
        norms in the shape of each parameter, and why some have none: a weight has to be multiplied with its layer's
        input, and with nothing else. Of a weight that several layers share the norm is that over all of them.
    """
    owners, unseen = _owners(model, names)
    sums: dict[str, torch.Tensor] = {}
    of_module = {module: name for name, modules in owners.items() for module in modules}

    def add(module: torch.nn.Module, inputs: torch.Tensor) -> None:
        name = of_module[module]
        found = columns.squares(module, inputs).double().cpu()
        sums[name] = sums[name] + found if name in sums else found

    with uses.elsewhere(model, owners) as elsewhere, _observed(of_module, add):
        _look(model, examples, batch_size)
    for name, total in sums.items():
        _finite(total, name)
    unseen |= elsewhere
    unseen |= {name: NOT_REACHED for name in owners if name not in sums and name not in unseen}
    return {
        name: columns.spread(owners[name][0], total.sqrt().float())
        for name, total in sums.items()
        if name not in unseen
    }, unseen


def hessian(model: torch.nn.Module, module_name: str, examples: Data, batch_size: int) -> torch.Tensor:
    """Mean of X Xᵀ over examples and positions, ``(groups, in, in)`` float32 or wider; ``in`` counts the columns of the
    flattened weight, kernel positions of a convolution included.

    Raises:
        PruningError: what the layer multiplies its weight with is not known, or it is not called, or the weight is
            used elsewhere.
    """
    found, unseen = _owners(model, [f"{module_name}.weight"])
    if unseen:
        raise PruningError(f"{module_name}: {next(iter(unseen.values()))}", f"exclude {module_name}")
    total: list[torch.Tensor] = []
    count = 0

    def add(layer: torch.nn.Module, inputs: torch.Tensor) -> None:
        nonlocal count
        shown = columns.matrix(layer, inputs)
        count += shown.shape[2]
        product = shown @ shown.mT
        total[:] = [total[0].add_(product) if total else product]

    with uses.elsewhere(model, found) as elsewhere, _observed(found[f"{module_name}.weight"], add):
        _look(model, examples, batch_size)
    for reason in elsewhere.values():
        raise PruningError(f"{module_name}: {reason}", f"exclude {module_name}")
    if not count:
        raise PruningError(f"{module_name}: {NOT_REACHED}", f"exclude {module_name}")
    _finite(total[0], module_name)
    return (total[0] / count).cpu()


def unseen_inputs(model: torch.nn.Module, names: Iterable[str], examples: Data | None = None) -> Unseen:
    """The weights of ``names`` whose layers' inputs cannot be observed, each with the reason; with ``examples``, those
    that are used outside of their layers' calls as well."""
    owners, unseen = _owners(model, names)
    if examples is not None:
        with uses.elsewhere(model, owners) as elsewhere:
            _look(model, inference.head(examples, 2), 2)
        unseen |= elsewhere
    return unseen


def call_order(model: torch.nn.Module, names: Sequence[str], examples: Data) -> list[str]:
    """The weights of ``names`` in the order in which their layers are first called; those never called are left out."""
    owners, _ = _owners(model, names)
    of_module = {module: name for name, modules in owners.items() for module in modules}
    called: dict[str, None] = {}
    with _observed(of_module, lambda module, inputs: called.setdefault(of_module[module])):
        _look(model, inference.head(examples, 2), 2)
    return list(called)


def readings(
    model: torch.nn.Module, groups: Sequence[Group], examples: Data, batch_size: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], Unseen]:
    """How the layers that read a group's units find them: each reader's mean over examples and positions, and the
    mean of the readers that can be observed.

    Returns:
        the share of values that are not above zero, ``(size,)`` by group; the mean absolute value; and the
        groups that no layer is seen to read.
    """
    readers: dict[torch.nn.Module, list[tuple[Group, Slices]]] = defaultdict(list)
    unseen: Unseen = {}
    for group in groups:
        entries = [entry for entry in group.slices if entry.role == "reads"]
        known = [(entry, owner) for entry in entries if (owner := _reader(model, entry)) is not None]
        for entry, owner in known:
            readers[owner].append((group, entry))
        if not known:
            unseen[group.name] = _unread(model, group, entries)
    totals: dict[torch.nn.Module, torch.Tensor] = {}
    counts: dict[torch.nn.Module, int] = defaultdict(int)

    def add(module: torch.nn.Module, inputs: torch.Tensor) -> None:
        channel = inputs.ndim - 1 - columns.dimensions(module)
        flat = inputs.movedim(channel, 0).flatten(1)
        found = torch.stack([(flat <= 0).sum(1).double().cpu(), flat.abs().sum(1).double().cpu()])
        totals[module] = totals[module] + found if module in totals else found
        counts[module] += flat.shape[1]

    with _observed(readers, add):
        _look(model, examples, batch_size)
    for module, total in totals.items():
        _finite(total, f"a {class_name(module)} that reads {readers[module][0][0].name}")
    means: dict[str, list[torch.Tensor]] = defaultdict(list)
    for module, entries_read in readers.items():
        if module in totals:
            for group, entry in entries_read:
                # Of a grouped convolution position p of the weight reads channel p of every group.
                channels = (totals[module] / counts[module]).reshape(2, _groups(module), -1).mean(dim=1)
                means[group.name].append(_per_unit(channels, group.size, entry))
    unseen |= {g.name: "no layer that reads it is called" for g in groups if g.name not in means | unseen}
    average = {name: torch.stack(found).nanmean(dim=0) for name, found in means.items()}
    for name in [name for name, found in average.items() if found.isnan().any()]:
        unseen[name] = "some of its units are read by no layer that is called"
        del average[name]
    return {n: found[0] for n, found in average.items()}, {n: found[1] for n, found in average.items()}, unseen


def _finite(total: torch.Tensor, what: str) -> None:
    if not torch.isfinite(total).all():
        raise PruningError(f"{what}: its inputs hold NaN or infinity", "mend the dense model first")


def _owners(model: torch.nn.Module, names: Iterable[str]) -> tuple[dict[str, list[torch.nn.Module]], Unseen]:
    """The layers that hold each weight, all of known columns; or why not."""
    named = dict(model.named_parameters(remove_duplicate=False))
    holders: dict[int, dict[str, torch.nn.Module]] = defaultdict(dict)
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            holders[id(parameter)][f"{path}.{key}".lstrip(".")] = module
    found: dict[str, list[torch.nn.Module]] = {}
    unseen: Unseen = {}
    for name in names:
        owned = holders[id(named[name])]
        reasons = [_no_column(key, module) for key, module in owned.items()]
        kinds = {(_groups(module), columns.dimensions(module)) for module in owned.values()}
        shared = [key for key, reason in zip(owned, reasons, strict=True) if reason and key != name]
        if not any(reasons) and len(kinds) == 1:
            found[name] = list(owned.values())
        else:
            own = _no_column(name, owned[name]) if name in owned else "its layer does not hold it"
            unseen[name] = own or f"it is shared with {', '.join(shared) or 'a layer of another kind'}"
    return found, unseen


def _groups(module: torch.nn.Module) -> int:
    return int(module.groups) if columns.dimensions(module) else 1  # type: ignore[arg-type]


def _no_column(name: str, module: torch.nn.Module) -> str:
    if isinstance(module, torch.nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "nn.MultiheadAttention uses it without a call of its layer"
    if name.rpartition(".")[2] != "weight":
        return f"what {class_name(module)} multiplies its weights with is not known"
    return columns.unsupported(module)


def _reader(model: torch.nn.Module, entry: Slices) -> torch.nn.Module | None:
    """The layer whose input holds the units at the positions of ``entry``, where it is one that can be observed."""
    path, _, key = entry.tensor.rpartition(".")
    module = model.get_submodule(path)
    return None if _no_column(key, module) else module


def _unread(model: torch.nn.Module, group: Group, entries: Sequence[Slices]) -> str:
    if group.blocks:
        return "its units are blocks, which no single layer reads"
    kinds = {class_name(model.get_submodule(entry.tensor.rpartition(".")[0])) for entry in entries}
    return f"what reads it cannot be observed: {', '.join(sorted(kinds)) or 'nothing'}"


def _per_unit(values: torch.Tensor, size: int, entry: Slices) -> torch.Tensor:
    """``(2, channels)`` averaged over the positions of each unit: ``(2, size)``; NaN of a unit that has none."""
    total = torch.zeros(2, size, dtype=values.dtype).index_add_(1, entry.units, values[:, entry.positions])
    return total / torch.bincount(entry.units, minlength=size)


@contextlib.contextmanager
def _observed(modules: Iterable[torch.nn.Module], observe: Observe) -> Iterator[None]:
    def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        observe(module, columns.given(args, kwargs))

    with contextlib.ExitStack() as handles:
        for module in modules:
            handles.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _look(model: torch.nn.Module, examples: Data, batch_size: int) -> None:
    with quiet(model), torch.no_grad(), telling("the model failed on the calibration examples"):
        for inputs, _ in inference.batches(examples, batch_size):
            inference.call(model, inputs)
