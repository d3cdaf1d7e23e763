"""Operations of a traced network that treat every channel by itself, whatever their number.

Where a network consists of these and of plain layers alone, its trace says everything about its channels but the shapes
that its code spells out. Any other operation is in doubt, and so is a known one in an unknown form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from pruneproof.coupling import Batch, Conv

ELEMENTWISE = (
    *("Relu", "Hardtanh", "Hardswish", "Hardsigmoid", "Sigmoid", "Silu", "Gelu", "Tanh", "Elu", "LeakyRelu"),
    *("MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D"),
)
"""Names as autograd has them, before ``Backward0``."""
JOINING = ("Add", "Mul", "Cat")


def all_known(nodes: Iterable[Any], layers: Iterable[torch.nn.Module]) -> bool:
    """Whether every node of Torch-Pruning's graph is a plain layer or a known operation.

    Args:
        layers: modules of the network.
    """
    own = set(layers)
    return all(_plain(node) if node.module in own else _known(node) for node in nodes)


def _plain(node: Any) -> bool:
    if isinstance(node.module, torch.nn.Linear):  # of rows; of anything longer, its features need not be the channels
        return _name(node.grad_fn) in ("Addmm", "Mm")
    return isinstance(node.module, Conv | Batch | torch.nn.PReLU)


def _name(function: Any) -> str:
    named = getattr(function, "name", None)
    return str(named()).partition("Backward")[0] if named else ""


def _known(node: Any) -> bool:
    function = node.grad_fn
    name = _name(function)
    if name in ELEMENTWISE:
        return True
    if name == "T":  # of a linear layer's weight
        return not node.inputs
    if name in JOINING:
        # A part without a gradient is a number, or comes from the inputs, whose channels stay.
        traced = all(source is not None for source, _ in function.next_functions)
        return traced and (name != "Cat" or function._saved_dim == 1)
    sizes = getattr(function, "_saved_self_sym_sizes", ())
    if len(sizes) != 4:
        return False
    return name in ("View", "ReshapeAlias") or (name == "Mean" and _dims(function) == [2, 3])


def _dims(function: Any) -> list[int]:
    """Of an input ``(n, channels, height, width)``; autograd keeps a negative one modulo 2⁶⁴."""
    return sorted(dim if dim < 4 else dim - 2**64 + 4 for dim in getattr(function, "_saved_dim", ()))
