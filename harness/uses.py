"""Uses: whether a network uses a weight in its own layer's call alone.

What a layer is given says nothing about a weight that the network also reads by itself (a tied decoder, attention that
hands its projections to one function).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def elsewhere(model: torch.nn.Module, owners: Mapping[str, Iterable[torch.nn.Module]]) -> Iterator[dict[str, str]]:
    """Weights that are used while none of their own layers is being called, each with where that is; known
    when the block is left.

    Args:
        owners: parameter → the layers that hold it.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    uses = _Uses({id(named[name]): name for name in owners})
    found: dict[str, str] = {}
    with uses.inside({module: name for name, modules in owners.items() for module in modules}), uses:
        yield found
    found |= {name: f"it is used outside of its layer's call, by {where}" for name, where in uses.found.items()}


class _Uses(TorchFunctionMode):
    """Notes which weights are used while their own layer is not being called."""

    def __init__(self, watched: Mapping[int, str]) -> None:
        super().__init__()
        self.watched = watched
        self.found: dict[str, str] = {}
        self._open: list[str] = []

    @contextlib.contextmanager
    def inside(self, layers: Mapping[torch.nn.Module, str]) -> Iterator[None]:
        """Takes note of when each of ``layers`` is being called."""
        with contextlib.ExitStack() as handles:
            for layer, name in layers.items():

                def enter(module: torch.nn.Module, args: Any, name: str = name) -> None:
                    self._open.append(name)

                def leave(module: torch.nn.Module, args: Any, output: Any) -> None:
                    self._open.pop()

                handles.callback(layer.register_forward_pre_hook(enter).remove)
                handles.callback(layer.register_forward_hook(leave, always_call=True).remove)
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if any(True for _ in _tensors([output])):  # looking at a shape, dtype or device is no use
            for value in _tensors([*args, *(kwargs or {}).values()]):
                name = self.watched.get(id(value))
                if name is not None and name not in self._open:
                    self.found.setdefault(name, getattr(func, "__name__", str(func)))
        return output


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value) in (list, tuple):
            yield from _tensors(value)
