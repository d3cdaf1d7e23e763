"""What the families of Hugging Face's transformers have in common: their configuration, and blocks in a list.

Nothing is imported from transformers: classes are recognised by the name and module they were defined with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pruneproof.errors import PruningError
from pruneproof.units import Found, Kept, Setting

Whole = tuple[tuple[str, str], ...]
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
PER_LAYER = ("layer_types",)
"""Entries of a configuration that hold one value for each block."""


@dataclass(frozen=True, eq=False)
class Base:
    """The network proper of a family, without what stands on top of it (``LlamaModel`` in a ``LlamaForCausalLM``).

    Args:
        path: of the module in the model that is pruned.
        configs: paths of modules, one for each configuration object that has to stay true.
    """

    path: str
    module: torch.nn.Module
    configs: tuple[str, ...]

    @property
    def config(self) -> Any:
        return self.module.config

    def at(self, name: str) -> str:
        """The path, in the model that is pruned, of what has the path ``name`` here."""
        return f"{self.path}.{name}".lstrip(".")

    def uniform(self, key: str) -> str:
        """What stands for all layers of this network; another network may have a number of its own."""
        return f"{self.configs[0]}.config.{key}".lstrip(".")

    def settings(self, values: Mapping[str, Any]) -> list[Setting]:
        """The configuration with other values.

        Raises:
            PruningError: its class refuses them.
        """
        changed = copy.deepcopy(self.config)
        try:
            for key, value in values.items():
                setattr(changed, key, value)
            rebuilt = type(changed).from_dict(changed.to_dict())
            lost = [key for key, value in values.items() if getattr(rebuilt, key, None) != value]
        except Exception as error:
            told = ", ".join(f"{key} = {value!r}" for key, value in values.items())
            raise PruningError(
                f"{type(changed).__name__} refuses {told}: {error}",
                "use a ratio that leaves a number which it accepts",
            ) from error
        if lost:
            raise PruningError(
                f"{type(changed).__name__} does not keep {', '.join(lost)}", "use granularity = 'element'"
            )
        return [Setting(path, f"config.{key}", value) for path in self.configs for key, value in values.items()]


Rule = Callable[[Base], Found]


def is_of(module: torch.nn.Module, names: Sequence[str], source: str) -> bool:
    """Whether the class of ``module`` has one of ``names`` and was defined in the module ``source``."""
    return type(module).__name__ in names and type(module).__module__ == source


def source(family: str) -> str:
    """Where transformers defines the networks of a family."""
    return f"transformers.models.{family}.modeling_{family}"


def bases(model: torch.nn.Module, names: Sequence[str], family: str) -> tuple[list[Base], Whole]:
    """The networks of a family in ``model``, and those whose configuration could not be kept true."""
    found: list[Base] = []
    whole: list[tuple[str, str]] = []
    for path, module in model.named_modules():
        if not is_of(module, names, source(family)):
            continue
        configs: dict[int, str] = {}
        foreign = ""
        for outer, holder in _line(model, path):
            config = holder.__dict__.get("config")
            kind = getattr(config, "model_type", None)
            if kind is not None and kind != module.config.model_type:
                foreign = f"it is part of a {kind} network, whose own configuration would no longer be true"
            elif kind is not None:
                configs.setdefault(id(config), outer)
        for inner, part in module.named_modules():
            config = part.__dict__.get("config")
            if getattr(config, "model_type", None) == module.config.model_type:
                configs.setdefault(id(config), f"{path}.{inner}".strip("."))
        if foreign:
            whole.append((path or type(module).__name__, foreign))
        else:
            found.append(Base(path, module, tuple(configs.values())))
    return _apart(found, whole), tuple(whole)


def _apart(found: list[Base], whole: list[tuple[str, str]]) -> list[Base]:
    """Those of ``found`` whose configuration is no other network's; of the others ``whole`` gets the reason."""
    holders: dict[int, list[str]] = {}
    for base in found:
        holders.setdefault(id(base.config), []).append(base.path)
    for base in found:
        others = [path for path in holders[id(base.config)] if path != base.path]
        if others:
            whole.append((base.path, f"its configuration is one object with that of {', '.join(others)}"))
    return [base for base in found if len(holders[id(base.config)]) == 1]


def _line(model: torch.nn.Module, path: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """``model``, and every module on the way to ``path``, that one included."""
    parts = path.split(".") if path else []
    for count in range(len(parts) + 1):
        name = ".".join(parts[:count])
        yield name, model.get_submodule(name)


def collected(model: torch.nn.Module, names: Sequence[str], family: str, each: Rule) -> Found:
    """``each`` of the networks of a family in ``model``, together."""
    found, whole = bases(model, names, family)
    return joined([Found((), whole), *map(each, found)])


def joined(parts: Iterable[Found]) -> Found:
    """All groups and all layers left whole of ``parts``."""
    listed = list(parts)
    groups = tuple(group for part in listed for group in part.groups)
    return Found(groups, tuple(entry for part in listed for entry in part.whole))


def contains(model: torch.nn.Module, names: Sequence[str], family: str) -> bool:
    """Whether ``model`` is or holds one of these networks."""
    return any(is_of(module, names, source(family)) for module in model.modules())


def unlike(module: torch.nn.Module, linears: Sequence[str]) -> str:
    """Why the layers ``linears`` of ``module`` cannot be cut: a quantised layer, or an adapter around one."""
    for name in linears:
        layer = module.get_submodule(name)
        transposed = is_of(layer, ("Conv1D",), "transformers.pytorch_utils")
        if type(layer) is not torch.nn.Linear and not transposed:
            return f"{name} is a {type(layer).__module__}.{type(layer).__name__}, not a plain linear layer"
    return ""


def members(base: Base, list_path: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """``(path, block)`` of the list at ``list_path``, each module once."""
    for key, block in base.module.get_submodule(list_path).named_children():
        yield base.at(f"{list_path}.{key}"), block


def sizes(path: str, module: torch.nn.Module, values: Mapping[str, int]) -> list[Setting]:
    """Those of ``values`` that ``module`` keeps as attributes of its own."""
    return [Setting(path, key, value) for key, value in values.items() if key in module.__dict__]


def block_settings(base: Base, list_path: str, kept: Kept) -> list[Setting]:
    """Depth, lists with one entry a block, and the index that each block's cache goes by."""
    config = base.config
    values: dict[str, Any] = {"num_hidden_layers": len(kept)}
    for key in PER_LAYER:
        entries = getattr(config, key, None)
        if isinstance(entries, list | tuple):
            values[key] = [entries[index] for index in kept]
    window = getattr(config, "max_window_layers", None)
    if window is not None and window < config.num_hidden_layers:
        values["max_window_layers"] = sum(index < window for index in kept)
    found = base.settings(values)
    if "layer_types" in values and "has_sliding_layers" in base.module.__dict__:
        sliding = "sliding_attention" in values["layer_types"]
        found.append(Setting(base.path, "has_sliding_layers", sliding))
    container = base.module.get_submodule(list_path)
    for position, index in enumerate(kept):
        for inner, part in container.get_submodule(str(index)).named_modules():
            if "layer_idx" in part.__dict__:
                found.append(Setting(base.at(f"{list_path}.{position}.{inner}").rstrip("."), "layer_idx", position))
    return found


def unsupported(model: torch.nn.Module) -> Whole:
    """Networks that no rule can prune and that tracing would get wrong: mixtures of experts."""
    for path, module in model.named_modules():
        config = module.__dict__.get("config")
        if hasattr(config, "model_type") and any((getattr(config, key, None) or 0) > 0 for key in EXPERTS):
            reason = f"{config.model_type} is a mixture of experts, whose router chooses layers by example"
            return ((path or type(module).__name__, reason),)
    return ()


def configured(model: torch.nn.Module) -> list[tuple[str, str]]:
    """Path and kind of the outermost networks in ``model`` whose sizes stand in a transformers configuration."""
    found: list[tuple[str, str]] = []
    for path, module in model.named_modules():
        kind = getattr(module.__dict__.get("config"), "model_type", None)
        inside = any(not outer or path.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(kind, str) and kind and not inside:
            found.append((path, kind))
    return found


def numbered_adapters(model: torch.nn.Module) -> Whole:
    """Networks with peft adapters that name their layers by number, which removing one would change."""
    for path, module in model.named_modules():
        adapters = module.__dict__.get("peft_config")
        entries = adapters.values() if isinstance(adapters, Mapping) else ()
        if any(getattr(entry, "layers_to_transform", None) is not None for entry in entries):
            reason = "its adapters say by number which layers they are for (layers_to_transform)"
            return ((path or type(module).__name__, reason),)
    return ()
