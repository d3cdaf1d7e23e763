"""Pruning criteria, one file each: which weights, or which units, matter least.

A criterion is a module. It says in ``NEEDS`` what it has to be shown beside the weights, and defines one or both of

::

    def elements(layer: Layer) -> torch.Tensor   # scores in the shape of layer.weight
    def units(group: Units) -> torch.Tensor      # scores (group.size,)

Lower scores are removed first. A criterion without ``elements`` cannot rank single weights (granularity
``element`` and ``n_of_m``), one without ``units`` cannot rank channels, heads or blocks; ``GRANULARITIES``,
where it is defined, narrows that further. The engine selects, breaks ties and counts; a criterion that also changes
the weights that stay defines ``compensate`` instead (:mod:`pruneproof.criteria.sparsegpt`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pruneproof.errors import PruningError

if TYPE_CHECKING:
    import torch

GRADIENTS = "gradients"
"""Gradient of the mean loss over the calibration examples."""
EXAMPLE_GRADIENTS = "example_gradients"
"""What takes one backward pass an example: mean squared gradients, and each unit's Σ w·g for each example."""
INPUTS = "inputs"
"""L2 norm of what each weight column is multiplied with, over all calibration examples and positions."""
READINGS = "readings"
"""How often and how strongly the layers that read a unit find it active."""
MOVEMENT = "movement"
"""``-Σ_t w_t · ∂L/∂w_t`` over the optimizer steps of fine-tuning."""
SCALE = "scale"
"""The scale of the batch norm that follows; groups without one stay whole."""
HESSIAN = "hessian"
"""``mean X Xᵀ`` of what a layer is given; looked at layer by layer, since it is as wide as the layer squared."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight tensor, and what the criterion asked to be shown of it.

    Every tensor has the shape of ``weight``.

    Args:
        name: of the parameter.
        gradient: ``∂L/∂w``, L the mean loss over the calibration examples.
        squared_gradient: mean over the examples of ``(∂L_n/∂w)²``.
        input_norm: ``‖X_j‖₂`` of the input that each weight is multiplied with.
        movement: see :data:`MOVEMENT`.
        generator: seeded by the recipe's seed and ``name``.
    """

    name: str
    weight: torch.Tensor
    gradient: torch.Tensor | None = None
    squared_gradient: torch.Tensor | None = None
    input_norm: torch.Tensor | None = None
    movement: torch.Tensor | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one group, and what the criterion asked to be shown of them.

    Args:
        name: of the group.
        weights: ``(size, k)`` float32 or wider: every weight that produces a unit, over all coupled layers; of a
            block, all of its weights.
        gradients, squared_gradients, movement: ``(size, k)`` alike.
        example_products: ``(examples, size)``: ``Σ_s w_s · ∂L_n/∂w_s`` over the weights of a unit.
        scale: ``(size,)`` absolute scale of the batch norm that follows the units, or ``None`` without one.
        zeros: ``(size,)`` share in [0, 1] of the values of the unit that are not above zero, as read.
        activity: ``(size,)`` mean absolute value of the unit, as read.
        generator: seeded by the recipe's seed and ``name``.
    """

    name: str
    weights: torch.Tensor
    gradients: torch.Tensor | None = None
    squared_gradients: torch.Tensor | None = None
    movement: torch.Tensor | None = None
    example_products: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    zeros: torch.Tensor | None = None
    activity: torch.Tensor | None = None
    generator: torch.Generator | None = None

    @property
    def size(self) -> int:
        return len(self.weights)


def needs(criterion: object) -> frozenset[str]:
    """What ``criterion`` has to be shown beside the weights."""
    return frozenset(getattr(criterion, "NEEDS", ()))


def given(value: torch.Tensor | None, what: str, name: str) -> torch.Tensor:
    """``value``, which a criterion cannot do without.

    Raises:
        PruningError: it was not shown for the layer or group ``name``.
    """
    if value is None:
        raise PruningError(f"{name}: the criterion was not shown {what}", "exclude the layer, or use another criterion")
    return value
