"""A table as corruptions see it: what of it can be changed, and what its clean rows look like."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from pruneproof.adversarial.layout import Layout
from pruneproof.adversarial.repair import Repairs
from pruneproof.corruptions import _once
from pruneproof.corruptions._table import Touches
from pruneproof.domain import Table
from pruneproof.shift.ground import Ground
from pruneproof.tables import offer

BLOCK = 256
"""Rows that the subject's functions get at once, always as many: kernels may add up in another order for others."""
NORMAL_IQR = 1.349
"""Interquartile range of the standard normal distribution."""


def of(ground: Ground) -> Sheet:
    """The sheet of a ground; made once."""
    if not isinstance(ground.domain, Table):
        raise TypeError(f"a {type(ground.domain).__name__} is no table")
    table, reference = ground.domain, ground.reference
    return _once.of(ground, "sheet", lambda: Sheet(table, reference))


def free(table: Table) -> Table:
    """The same table for accidents: no column has a direction, and its functions see blocks of :data:`BLOCK` rows."""
    return dataclasses.replace(
        table,
        columns=[dataclasses.replace(column, direction="any") for column in table.columns],
        derive=table.derive and _blocked(table.derive),
        valid=table.valid and _blocked(table.valid),
    )


def _blocked(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def called(rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        found = []
        for first in range(0, len(rows), BLOCK):
            some, before = rows[first : first + BLOCK], clean[first : first + BLOCK]
            padding = BLOCK - len(some)
            out = function(
                torch.cat([some, some[-1:].expand(padding, -1)]), torch.cat([before, before[-1:].expand(padding, -1)])
            )
            if not isinstance(out, torch.Tensor) or out.ndim == 0 or len(out) != BLOCK:
                return out  # the layout says what is wrong with it
            found.append(out[: len(some)])
        return torch.cat(found) if found else function(rows, clean)

    return called


class Sheet:
    """What can be changed in a table, and what its reference looks like.

    Args:
        table: of the subject.
        reference: ``(m, columns)`` clean rows; NaN in them is passed over.

    Attributes:
        layout: of the table without directions.
        repairs: make rows valid, at any cost.
    """

    def __init__(self, table: Table, reference: torch.Tensor) -> None:
        self.layout = Layout(free(table))
        self.repairs = Repairs(self.layout, "Linf", math.inf, self.sound)
        self._reference = reference

    def sound(self, clean: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """``(n,)`` booleans: rows that are valid after ``clean``."""
        found = torch.ones(len(rows), dtype=torch.bool)
        for broken in self.layout.broken(rows, clean):
            found &= ~broken.rows
        return found

    def broken(self, clean: torch.Tensor, rows: torch.Tensor) -> str | None:
        """A constraint that a row breaks, in words; ``None``: none does.

        Where ``rows`` have NaN, the clean value stands for it, or a typical one, and what follows is derived anew. What
        a clean row does not hold when it's completed in that way, nothing can break.
        """
        layout, before = self.layout, self.filled(clean)
        after = torch.where(rows.isnan(), before, rows)
        derived = layout.derive(after, before).detach()
        after = torch.where(rows.isnan(), derived, after)
        judged = self.sound(before, before) | ~clean.isnan().any(dim=1)
        return next((one.what for one in layout.broken(after, before) if bool((one.rows & judged).any())), None)

    def filled(self, rows: torch.Tensor) -> torch.Tensor:
        """``rows`` with :attr:`typical` values where they hold NaN."""
        return torch.where(rows.isnan(), self.typical.to(rows.dtype), rows)

    @cached_property
    def typical(self) -> torch.Tensor:
        """``(columns,)`` the lower median of each column of the reference, a value of it; of groups the commonest
        setting; 0 for a column without values."""
        ordered = self._reference.double().sort(dim=0).values  # NaN last
        counts = (~ordered.isnan()).sum(dim=0)
        found = ordered.gather(0, ((counts - 1).clamp(min=0) // 2)[None])[0].nan_to_num(nan=0.0)
        for group in self.layout.table.one_hot:
            places = torch.tensor([self.layout.place[name] for name in group.columns])
            rows = self._reference[:, places].double().nan_to_num(nan=0.0)
            counts = rows.sum(dim=0)
            found[places] = 0.0
            if not (group.may_be_none and len(rows) - counts.sum() > counts.max()):
                found[places[counts.argmax()]] = 1.0
        return found

    @cached_property
    def numbers(self) -> torch.Tensor:
        """``(m, numbers)`` float64: the reference's."""
        return self._reference[:, self.layout.numbers].double()

    @cached_property
    def median(self) -> torch.Tensor:
        """``(numbers,)`` float64"""
        return self.typical[self.layout.numbers]

    @cached_property
    def mean(self) -> torch.Tensor:
        """``(numbers,)`` float64"""
        return self.numbers.nanmean(dim=0).nan_to_num(nan=0.0)

    @cached_property
    def spread(self) -> torch.Tensor:
        """``(numbers,)`` float64: interquartile range over that of the standard normal; where it is 0 the standard
        deviation, 0 for a column that is constant in the reference."""
        if not self.numbers.numel():
            return torch.zeros(self.numbers.shape[1], dtype=torch.float64)
        wide = np.where(np.isnan(self.numbers.numpy()).all(axis=0), 0.0, self.numbers.numpy())
        low, high = np.nanquantile(wide, [0.25, 0.75], axis=0)
        constant = np.nanmax(wide, axis=0) == np.nanmin(wide, axis=0)  # rounding leaves such a column a deviation
        found = np.where(high > low, (high - low) / NORMAL_IQR, np.nanstd(wide, axis=0))
        return torch.from_numpy(np.where(constant, 0.0, found))

    @cached_property
    def least(self) -> torch.Tensor:
        """``(numbers,)`` float64: the smallest value of the reference."""
        return torch.where(self.numbers.isnan(), math.inf, self.numbers).amin(dim=0)

    @cached_property
    def most(self) -> torch.Tensor:
        """``(numbers,)`` float64: the largest value of the reference."""
        return torch.where(self.numbers.isnan(), -math.inf, self.numbers).amax(dim=0)

    @cached_property
    def seen(self) -> tuple[torch.Tensor, ...]:
        """``(settings,)`` of each choice: how often the reference has it; rows with NaN there are not counted."""
        found = []
        for choice in self.layout.choices:
            whole = self._reference[~self._reference[:, choice.columns].isnan().any(dim=1)]
            found.append(torch.bincount(choice.nearest(whole), minlength=len(choice.options)))
        return tuple(found)

    @cached_property
    def kept(self) -> torch.Tensor:
        """Columns that are not derived."""
        derived = set(self.layout.derived.tolist())
        return torch.tensor([place for place in range(len(self.layout.columns)) if place not in derived])

    def selected(self, names: tuple[str, ...] | None, touches: Touches) -> tuple[list[int], list[int]]:
        """Positions among the layout's numbers and among its choices."""
        layout = self.layout
        numbers = [
            position
            for position, place in enumerate(layout.numbers.tolist())
            if touches != "choices" and (names is None or layout.names[place] in names)
        ]
        choices = [
            position
            for position, choice in enumerate(layout.choices)
            if touches != "numbers" and (names is None or choice.name in names)
        ]
        return numbers, choices

    def refuses(self, names: tuple[str, ...] | None, touches: Touches) -> str | None:
        """Why columns of these names cannot be changed, or that none can."""
        if names is None:
            numbers, choices = self.selected(None, touches)
            what = {"numbers": "number", "choices": "category or one-hot group", "cells": "column"}[touches]
            return None if numbers or choices else f"the table has no {what} that is mutable"
        return next((reason for name in names for reason in [self._unfit(name, touches)] if reason), None)

    def _unfit(self, name: str, touches: Touches) -> str | None:
        layout = self.layout
        if any(self.selected((name,), touches)):
            return None
        if any(self.selected((name,), "cells")):
            return f"'{name}' is a {'category' if touches == 'numbers' else 'number'}, and this changes {touches}"
        group = next((group for group in layout.table.one_hot if name in (group.name, *group.columns)), None)
        if group is not None:
            return f"'{name}' is of group '{group.name}', " + (
                "whose columns move as one: name the group" if group.mutable else "which is not mutable"
            )
        if name not in layout.place:
            groups = tuple(group.name for group in layout.table.one_hot)
            return f"there is no column '{name}' ({offer(name, (*layout.names, *groups))})"
        if layout.columns[layout.place[name]].kind == "derived":
            return f"column '{name}' is derived: name a column that it follows from"
        if any(one.column == layout.place[name] and one.follows for one in layout.totals):
            return f"column '{name}' follows its parts: name one of them"
        return f"column '{name}' is not mutable"
