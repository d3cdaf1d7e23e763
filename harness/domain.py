"""What inputs a subject can meet at all: the ground that attacks and corruptions may not leave.

The subject states its domain once (``Subject(domain=…)``), in the units of its data; a policy then says how far
an attacker may go on that ground. Nothing here is clamped or scaled behind the user's back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Box:
    """Every number of an input lies between two bounds: images, signals, spectra.

    Args:
        low, high: bounds in the units of the data, a number or a tensor that broadcasts to one example
            (of images normalised channel by channel: ``(channels, 1, 1)``).
        unit: what an attacker's budget is measured in, in the units of the data, a number or a tensor that
            broadcasts to one example. Of images normalised with ``std`` it is ``1 / std`` to state budgets in pixels.
    """

    low: Any
    high: Any
    unit: Any = 1.0


@dataclass(frozen=True)
class Column:
    """One column of a table, as a person could change it.

    Args:
        name: as people know it.
        kind: ``"integer"``: a multiple of ``step``; ``"category"``: one of ``values``; ``"derived"``: computed from
            other columns by the table's ``derive``; nobody changes it by itself, and it costs nothing.
        mutable: whether an attacker can change it at all; a derived column moves whatever this says.
        low, high: bounds in the numbers of the input; of a category, of its codes.
        direction: ``"up"`` or ``"down"``: it can only be raised or lowered; of a category, its code.
        cost: what it costs to change it by one in the numbers of the input (of a category: to change it at all), in
            the unit of the attacker's budget.
        values: the codes that a category can have.
        step: of an integer column, how far apart its values are in the numbers of the input: an amount in whole
            euros that is fed in as ``amount / 1000`` has a step of 0.001.
    """

    name: str
    kind: Literal["real", "integer", "category", "derived"] = "real"
    mutable: bool = True
    low: float = -math.inf
    high: float = math.inf
    direction: Literal["any", "up", "down"] = "any"
    cost: float = 1.0
    values: tuple[float, ...] = ()
    step: float = 1.0


@dataclass(frozen=True)
class OneHot:
    """Columns of which exactly one is 1 and the others are 0; they move as one.

    What their :class:`Column` says of kind, bounds, direction and cost is not read; one that is not ``mutable`` makes
    no sense in a group that is.

    Args:
        name: of the category that they spell.
        columns: names of the columns.
        mutable, cost: as in :class:`Column`, of a change of category.
        may_be_none: all of them may be 0.
    """

    name: str
    columns: tuple[str, ...]
    mutable: bool = True
    cost: float = 1.0
    may_be_none: bool = False


@dataclass(frozen=True)
class Sum:
    """``sum(parts) == total``, to within ``tolerance`` in the numbers of the input and the rounding of its dtype.

    A mutable total follows its parts, and its own cost is paid for that (0 where only the parts are to count). With a
    total that is not mutable the parts trade off against each other. A column is a part of one sum at most, and the
    total of one; a total may be a part of another sum. What else must add up is said with ``Table(valid=…)``.
    """

    parts: tuple[str, ...]
    total: str
    tolerance: float = 1e-6


@dataclass(frozen=True, eq=False)
class Table:
    """Rows ``(n, columns)`` of a table.

    An attacker's budget is the norm of what all changes cost: L1 their sum, L2 the root of their squares' sum, Linf
    the dearest one. A number costs ``cost`` times its change, a category or a one-hot group ``cost`` once.

    Args:
        columns: one for each column of the input, in its order.
        one_hot: groups of columns that move as one.
        sums: sums that hold in every valid row.
        derive: ``derive(rows (n, columns), clean (n, columns)) -> rows``: computes the columns of kind ``"derived"``
            (a logarithm, a share) again from the others; what they hold in ``rows`` is stale. ``clean`` are the rows
            before the change, where a derived column rests on what the table does not hold (an amount against the
            usual one: ``clean ratio · amount / clean amount``). In torch, row by row, in the rows' dtype,
            differentiable; of the clean rows it gives the clean rows.
        valid: ``valid(rows, clean) -> (n,) booleans``: anything else that holds in every valid row.
        decode: ``decode(row (columns,)) -> {name: text}``: a row as a person would read it. Default: the columns, and
            the groups by the name of the column that is 1.
    """

    columns: Sequence[Column]
    one_hot: Sequence[OneHot] = ()
    sums: Sequence[Sum] = ()
    derive: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    valid: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    decode: Callable[[torch.Tensor], Mapping[str, str]] | None = None


@dataclass(frozen=True, eq=False)
class Tokens:
    """Sequences ``(n, length)`` of integer tokens.

    Args:
        size: number of tokens in the vocabulary.
        embedding: ``embedding(model) -> torch.nn.Embedding``: where tokens become vectors; gradients are taken there.
            Default: ``model.get_input_embeddings()``, or the model's only ``torch.nn.Embedding`` of ``size`` rows.
        frozen: tokens that may be neither replaced nor put in place of another (padding, separators).
        alternatives: token → tokens that may stand in its place (synonyms, neighbours on a keyboard).
            ``None``: any that is not frozen. Of characters: :func:`pruneproof.keyboard.typos`.
        text: a token as text, for reports. With it, tokens that are single characters are shown as words.
    """

    size: int
    embedding: Callable[[torch.nn.Module], torch.nn.Embedding] | None = None
    frozen: frozenset[int] = frozenset()
    alternatives: Mapping[int, Sequence[int]] | None = None
    text: Callable[[int], str] | None = None


Domain = Box | Table | Tokens


@dataclass(frozen=True, eq=False)
class Criterion:
    """What hurts, where it is not a wrong class: detection, segmentation, anything else.

    Args:
        loss: ``loss(output, targets) -> (n,)``: rises as the output gets worse; differentiable in the output.
        fooled: ``fooled(output, targets) -> (n,) booleans``: whether an output is one that must not happen.

    ``output`` is what the model returns for a batch, ``targets`` the rows of the data's targets, of any shape
    ``(n, …)``, on the model's device. An output whose loss is NaN is never counted as one that must not happen.
    """

    loss: Callable[[Any, Any], torch.Tensor]
    fooled: Callable[[Any, Any], torch.Tensor]
