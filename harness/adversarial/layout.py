"""A table's columns by what can happen to them: numbers, choices, totals that follow; and which rows are valid."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from pruneproof.domain import Column, Table
from pruneproof.errors import SubjectError

DERIVED = 1e-5
"""How far, of its size (at least 1), a derived column may be from ``derive(row)``: a few roundings of float32."""
ROUNDING = 4
"""Units in the last place of the rows' dtype that an integer or a sum may be off."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Columns that take one of several settings together: a category, or a one-hot group.

    Args:
        columns: ``(w,)`` positions in the row.
        options: ``(k, w)`` float64 settings.
        cost: of a change from one setting to another.
        column: of a category: what its bounds and direction are read from.
        labels: the settings for people.
    """

    name: str
    columns: torch.Tensor
    options: torch.Tensor
    cost: float
    column: Column | None
    labels: tuple[str, ...]

    def nearest(self, rows: torch.Tensor) -> torch.Tensor:
        """``(n,)`` the setting that each of ``rows (n, columns)`` is nearest to; of a one-hot group the largest."""
        seen = rows[:, self.columns].double()
        if self.column is not None:
            return (seen - self.options[:, 0]).abs().argmin(dim=1)
        largest = seen.max(dim=1)
        none = (len(self.options) > seen.shape[1]) & (largest.values < 0.5)
        return torch.where(none, seen.shape[1], largest.indices)

    def allowed(self, clean: torch.Tensor) -> torch.Tensor:
        """``(n, k)`` booleans: settings that bounds and direction grant; the clean one always is."""
        found = torch.ones(len(clean), len(self.options), dtype=torch.bool)
        if self.column is None:
            return found
        codes, own = self.options[:, 0], clean[:, self.columns].double()
        found &= (codes >= self.column.low) & (codes <= self.column.high)
        if self.column.direction == "up":
            found &= codes >= own
        if self.column.direction == "down":
            found &= codes <= own
        return found | (torch.arange(len(self.options)) == self.nearest(clean)[:, None])


@dataclass(frozen=True, eq=False)
class Total:
    """One sum by position.

    Args:
        parts: columns whose sum it is.
        leaves: numbers that can be moved to change it, through totals that follow.
        follows: the total is set to the sum; otherwise the sum must stay.
    """

    column: int
    parts: torch.Tensor
    leaves: tuple[int, ...]
    follows: bool
    tolerance: float


class Bounds(NamedTuple):
    """Of the numbers of a row, ``(n, numbers)`` float64 each."""

    low: torch.Tensor
    high: torch.Tensor


class Broken(NamedTuple):
    """One thing that every valid row holds.

    Args:
        what: the constraint, and the column or group.
        rows: ``(n,)`` booleans of those that break it.
        column: whose value tells most, a position; ``None``: no single one does.
    """

    what: str
    rows: torch.Tensor
    column: int | None


class Layout:
    """A checked :class:`~pruneproof.domain.Table` by position; see :func:`pruneproof.adversarial.stated.check`.

    Attributes:
        numbers: ``(m,)`` real and integer columns that can be moved by themselves.
        steps: ``(m,)`` float64, 0 for real ones.
        costs: ``(m,)`` float64
        choices: categories and groups that can be changed.
        totals: sums, parts before the totals that they are part of.
        fixed: columns that stay as they are, bit for bit.
        derived: columns that ``derive`` computes.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.columns = tuple(table.columns)
        self.names = tuple(column.name for column in self.columns)
        self.place = {name: place for place, name in enumerate(self.names)}
        self.grouped = {self.place[name] for group in table.one_hot for name in group.columns}
        followers = {one.total for one in table.sums if self._moves(self.place[one.total])}
        free = [
            place
            for place, column in enumerate(self.columns)
            if self._moves(place) and column.kind != "category" and column.name not in followers
        ]
        self.numbers = torch.tensor(free, dtype=torch.int64)
        self.steps = self._of("step") * torch.tensor([self.columns[place].kind == "integer" for place in free])
        self.costs = self._of("cost")
        self.choices = tuple(self._choices())
        self.totals = self._totals()
        self.derived = torch.tensor([p for p, c in enumerate(self.columns) if c.kind == "derived"], dtype=torch.int64)
        moving = {*free, *self.derived.tolist(), *(one.column for one in self.totals if one.follows)}
        moving |= {place for choice in self.choices for place in choice.columns.tolist()}
        self.fixed = torch.tensor([p for p in range(len(self.columns)) if p not in moving], dtype=torch.int64)

    def _moves(self, place: int) -> bool:
        column = self.columns[place]
        return column.mutable and column.kind != "derived" and place not in self.grouped

    def _of(self, field: str) -> torch.Tensor:
        return torch.tensor([getattr(self.columns[p], field) for p in self.numbers.tolist()], dtype=torch.float64)

    def _choices(self) -> Iterator[Choice]:
        for place, column in enumerate(self.columns):
            if column.kind == "category" and self._moves(place):
                options = torch.tensor(column.values, dtype=torch.float64)[:, None]
                labels = tuple(number(value) for value in column.values)
                yield Choice(column.name, torch.tensor([place]), options, column.cost, column, labels)
        for group in self.table.one_hot:
            if group.mutable:
                size = len(group.columns)
                options = torch.eye(size, dtype=torch.float64)
                if group.may_be_none:
                    options = torch.cat([options, torch.zeros(1, size, dtype=torch.float64)])
                places = torch.tensor([self.place[name] for name in group.columns])
                yield Choice(group.name, places, options, group.cost, None, (*group.columns, "none"))

    def _totals(self) -> tuple[Total, ...]:
        stated = {one.total: one for one in self.table.sums}
        found: dict[str, Total] = {}

        def add(name: str) -> None:
            if name in found:
                return
            parts = [self.place[part] for part in stated[name].parts]
            leaves: list[int] = []
            for part in stated[name].parts:
                if part in stated:
                    add(part)
                    leaves += found[part].leaves if found[part].follows else ()
                elif self._moves(self.place[part]):
                    leaves.append(self.place[part])
            follows = self._moves(self.place[name])
            found[name] = Total(self.place[name], torch.tensor(parts), tuple(leaves), follows, stated[name].tolerance)

        for name in stated:
            add(name)
        return tuple(found.values())

    @functools.cached_property
    def paid(self) -> tuple[tuple[int, float, float], ...]:
        """Numbers that are paid for by how far they move: ``(column, cost, step)``, followers included."""
        places = [*self.numbers.tolist(), *(one.column for one in self.totals if one.follows)]
        chosen = [self.columns[place] for place in places]
        return tuple((p, c.cost, c.step if c.kind == "integer" else 0.0) for p, c in zip(places, chosen, strict=True))

    @functools.cached_property
    def row_of(self) -> dict[int, int]:
        """Column → its position among :attr:`numbers`."""
        return {place: position for position, place in enumerate(self.numbers.tolist())}

    def bounds(self, clean: torch.Tensor, places: torch.Tensor | None = None) -> Bounds:
        """What bounds and direction grant the numbers (or the columns at ``places``) of ``clean (n, columns)``."""
        places = self.numbers if places is None else places
        own = clean[:, places].double()
        low, high = torch.empty_like(own), torch.empty_like(own)
        for position, place in enumerate(places.tolist()):
            column = self.columns[place]
            low[:, position], high[:, position] = column.low, column.high
            if not column.mutable:
                low[:, position] = high[:, position] = own[:, position]
            if column.direction == "up":
                low[:, position] = own[:, position].clamp(min=column.low)
            if column.direction == "down":
                high[:, position] = own[:, position].clamp(max=column.high)
        # A bound that rounding in the rows' dtype put a hair inside the clean value does not exclude it.
        return Bounds(torch.minimum(low, own), torch.maximum(high, own))

    def on_steps(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """``values (n, numbers)`` float64, those a rounding in ``dtype`` away from a multiple of their step put on it.

        0.7 in float32 is not seven steps of 0.1: without this the seventh step down would be out of reach.
        """
        step = self.steps.clamp(min=1e-300)
        near = (values / step).round() * step
        slack = ROUNDING * _eps(dtype) * values.abs().clamp(min=self.steps)
        return torch.where((self.steps > 0) & values.isfinite() & ((values - near).abs() <= slack), near, values)

    def amounts(self, clean: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """``(n, things)`` float64: what each number, follower and choice pays for its change."""
        before, after = clean.double(), rows.double()
        found = [torch.zeros(len(rows), 0, dtype=torch.float64)]
        for place, cost, step in self.paid:
            change = after[:, place] - before[:, place]
            if step:
                change = ((after[:, place] / step).round() - (before[:, place] / step).round()) * step
            found.append((cost * change.abs())[:, None])
        for choice in self.choices:
            differs = (rows[:, choice.columns] != clean[:, choice.columns]).any(dim=1)
            found.append(choice.cost * differs[:, None].double())
        return torch.cat(found, dim=1)

    def derive(self, rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """``rows`` with their derived columns computed anew, in their dtype; differentiable.

        Raises:
            SubjectError: the subject's function raised, or did not give back rows.
        """
        if not len(self.derived):
            return rows
        return rows.index_copy(1, self.derived, self.computed(rows, clean).to(rows.dtype))

    def computed(self, rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """``(n, derived)``: the derived columns alone, as the subject's function gives them.

        Raises:
            SubjectError: it raised, or did not give back rows.
        """
        assert self.table.derive is not None
        try:
            found = self.table.derive(rows.clone(), clean.clone())
        except Exception as error:
            raise SubjectError(
                f"Table(derive=…) raised {type(error).__name__}: {error}", "derive(rows, clean) -> rows, in torch"
            ) from error
        if not isinstance(found, torch.Tensor) or found.shape != rows.shape:
            got = f"shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise SubjectError(f"Table(derive=…) gave {got} for rows {tuple(rows.shape)}", "return all columns of rows")
        return found[:, self.derived]

    def broken(self, rows: torch.Tensor, clean: torch.Tensor, every: bool = False) -> Iterator[Broken]:
        """Every constraint, and which of ``rows (n, columns)`` break it when they were ``clean`` before.

        Args:
            every: also of columns that stay as they are, which hold what the clean rows hold.

        Raises:
            SubjectError: a function of the subject's raised, or gave something else.
        """
        sound = torch.ones(len(rows), dtype=torch.bool)
        for one in self._plainly(rows, clean, every):
            sound &= ~one.rows
            yield one
        # Functions of the subject's see rows that make sense only.
        for one in self._by_subject(rows[sound], clean[sound]):
            wrong = torch.zeros_like(sound)
            wrong[sound] = one.rows
            yield one._replace(rows=wrong)

    def _plainly(self, rows: torch.Tensor, clean: torch.Tensor, every: bool) -> Iterator[Broken]:
        wide, still = rows.double(), set() if every else set(self.fixed.tolist())
        yield Broken("every number is finite", ~wide.isfinite().all(dim=1), None)
        if len(self.fixed):
            changed = (rows[:, self.fixed] != clean[:, self.fixed]).any(dim=1)
            yield Broken("columns that are not mutable stay", changed, None)
        for place, column in enumerate(self.columns):
            if place not in self.grouped and place not in still:
                yield from _by_itself(column, place, rows[:, place], clean[:, place])
        for group in self.table.one_hot:
            if not group.mutable and not every:
                continue
            places = [self.place[name] for name in group.columns]
            ones, zeros = (rows[:, places] == 1).sum(dim=1), (rows[:, places] == 0).sum(dim=1)
            spelled = (ones + zeros == len(places)) & ((ones == 1) | ((ones == 0) & group.may_be_none))
            yield Broken(f"exactly one column of group '{group.name}' is 1, the others 0", ~spelled, None)
        for one in self.totals:
            parts = wide[:, one.parts]
            slack = one.tolerance + ROUNDING * _eps(rows.dtype) * parts.abs().sum(dim=1)
            off = (parts.sum(dim=1) - wide[:, one.column]).abs() > slack
            names = " + ".join(self.names[place] for place in one.parts.tolist())
            yield Broken(f"{names} = {self.names[one.column]}", off, one.column)

    def _by_subject(self, rows: torch.Tensor, clean: torch.Tensor) -> Iterator[Broken]:
        if not len(rows):
            return
        with torch.no_grad():
            wanted = self.derive(rows, clean).double()
        for place in self.derived.tolist():
            value = rows[:, place].double()
            near = (value - wanted[:, place]).abs() <= DERIVED * wanted[:, place].abs().clamp(min=1)
            yield Broken(f"'{self.names[place]}' is what derive computes", ~near, place)
        if self.table.valid is not None:
            yield Broken("Table(valid=…)", ~self._valid(rows, clean), None)

    def _valid(self, rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        assert self.table.valid is not None
        try:
            with torch.no_grad():
                found = self.table.valid(rows.clone(), clean.clone())
        except Exception as error:
            raise SubjectError(
                f"Table(valid=…) raised {type(error).__name__}: {error}", "valid(rows, clean) -> (n,) booleans"
            ) from error
        if not isinstance(found, torch.Tensor) or found.shape != (len(rows),) or found.dtype != torch.bool:
            got = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise SubjectError(f"Table(valid=…) gave {got} for {len(rows)} rows", "return (n,) booleans")
        return found


def _by_itself(column: Column, place: int, rows: torch.Tensor, clean: torch.Tensor) -> Iterator[Broken]:
    """What one column says of its values ``(n,)``."""
    value, own, hair = rows.double(), clean.double(), _eps(rows.dtype)
    if column.low > -math.inf or column.high < math.inf:
        slack = hair * value.abs()  # a bound such as 0.1 is no number of the rows' dtype
        outside = (value < column.low - slack) | (value > column.high + slack)
        yield Broken(f"{column.low:g} <= '{column.name}' <= {column.high:g}", outside, place)
    if column.direction != "any":
        wrong = value < own if column.direction == "up" else value > own
        yield Broken(f"'{column.name}' only goes {column.direction}", wrong, place)
    if column.kind == "integer":
        off = (value - (value / column.step).round() * column.step).abs()
        slack = ROUNDING * hair * value.abs().clamp(min=column.step)
        yield Broken(f"'{column.name}' is a multiple of {column.step:g}", off > slack, place)
    if column.kind == "category":
        codes = torch.tensor(column.values, dtype=torch.float64).to(rows.dtype)
        yield Broken(f"'{column.name}' is one of its values", ~(rows[:, None] == codes).any(dim=1), place)


def _eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if dtype.is_floating_point else 0.0


def number(value: float) -> str:
    """A number as people write it: ``1 010``, ``0.25``."""
    if abs(value) < 1e15 and value == round(value):
        return f"{int(value):,}".replace(",", " ")
    return f"{value:.6g}"
