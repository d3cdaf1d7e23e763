"""A program made visible: a tree of modules that computes nothing and holds the program's tensors by their names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch

from pruneproof import prunable
from pruneproof.errors import SubjectError

_KINDS = {"weight": "Linear", "in_proj_weight": "MultiheadAttention"}


class Place(torch.nn.Module):
    """One node of the tree. ``original_name`` stands for the layer that it was, as on TorchScript modules."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.original_name = name


class Program(Place):
    """A program that another tool runs. Its tensors are shown under its names; its mode cannot be changed.

    Args:
        identity: what the program is besides its tensors; it goes into :func:`pruneproof.digests.of_model`.
    """

    def __init__(self, identity: str) -> None:
        super().__init__(type(self).__name__)
        self.add_module("(program)", Place(identity))  # no tensor's name begins so


class Dense:
    """What a tensor is in the subject's model, by its name."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self.buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
        self.weights = set(prunable.weights(model))

    def knows(self, name: str) -> bool:
        """Whether the subject's model has a tensor of this name."""
        return name in self.parameters or name in self.buffers


def show(root: Place, tensors: Mapping[str, torch.Tensor], weights: set[str], buffers: set[str], dense: Dense) -> None:
    """Puts ``tensors`` into ``root`` as parameters and buffers, in their order.

    Args:
        weights: tensors that linear, convolutional or recurrent layers of the program multiply with. What the
            subject's model knows under the same name is what it is there, whatever the program does with it.
        buffers: tensors that are no parameters, whatever the program calls them.
        dense: of the subject's model.
    """
    for position, (name, tensor) in enumerate(tensors.items()):
        is_weight = name in dense.weights if dense.knows(name) else name in weights
        is_buffer = name in dense.buffers or (name in buffers and name not in dense.parameters)
        kind = _kind(name) if is_weight else None
        if is_weight and kind is None:
            name, kind = f"{name}.weight", "Linear"
        held = tensor if is_buffer else _parameter(tensor)
        if not _put(root, name, held, kind) and not _put(root, f"tensor_{position}.weight", held, kind):
            raise SubjectError(f"has a tensor {name}, for which there is no place", "rename it in the program")


def _parameter(tensor: torch.Tensor) -> torch.nn.Parameter:
    if isinstance(tensor, torch.nn.Parameter):
        return tensor
    return torch.nn.Parameter(tensor, requires_grad=False)


def _kind(name: str) -> str | None:
    """The kind of layer whose weight is called so; ``None``: a name that no layer gives its weight."""
    key = name.rpartition(".")[2]
    return "LSTM" if key.startswith(("weight_ih", "weight_hh")) else _KINDS.get(key)


def _put(root: Place, name: str, tensor: torch.Tensor, kind: str | None) -> bool:
    """Whether there was a place called ``name``: not where a tensor lies on the way, or torch needs the name itself."""
    *path, key = name.split(".")
    owner = root
    with contextlib.suppress(KeyError):  # torch's answer to a name that is empty or taken
        for part in path:
            below = owner._modules.get(part)
            if not isinstance(below, Place):
                below = Place("Module")
                owner.add_module(part, below)
            owner = below
        if isinstance(tensor, torch.nn.Parameter):
            owner.register_parameter(key, tensor)
        else:
            owner.register_buffer(key, tensor)
        if kind is not None:
            owner.original_name = kind
        return True
    return False
