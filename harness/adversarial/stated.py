"""What a subject says of its table, checked: against itself, and against the rows that it has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain

import torch

from pruneproof.adversarial.layout import Layout
from pruneproof.domain import Column, OneHot, Sum, Table
from pruneproof.errors import SubjectError

KINDS = ("real", "integer", "category", "derived")
DIRECTIONS = ("any", "up", "down")


def check(table: Table) -> None:
    """Whether the columns, groups and sums of a table fit together.

    Raises:
        SubjectError: they contradict each other; the message names the first column or group that does.
    """
    problem = next(_problems(table), None) or _unfit(Layout(table))
    if problem is not None:
        raise SubjectError(problem, "mend Subject(domain=Table(…))")


def validate(table: Table, clean: torch.Tensor, first: int = 0) -> None:
    """Whether a table fits the rows ``clean (n, columns)`` of a subject, and they keep its constraints.

    Args:
        first: the position of the first row in the test set, for messages.

    Raises:
        SubjectError: the table contradicts itself, has another number of columns, or a row breaks a constraint; the
            message names row, constraint and value.
    """
    check(table)
    if clean.ndim != 2 or clean.shape[1] != len(table.columns):
        raise SubjectError(
            f"the domain states {len(table.columns)} columns, and one example has shape {tuple(clean.shape[1:])}",
            "give one Column for each column of the input, in its order",
        )
    layout = Layout(table)
    for column in layout.columns:
        if column.kind == "real" and not clean.dtype.is_floating_point and column.name not in _members(table):
            raise SubjectError(
                f"column '{column.name}' is real, and the rows are {clean.dtype}",
                "state kind 'integer', or give rows of floats",
            )
    for broken in layout.broken(clean, clean, every=True):
        if bool(broken.rows.any()):
            row = int(broken.rows.nonzero()[0])
            raise SubjectError(
                f"test example {first + row} breaks the domain itself: {broken.what}"
                f"{_value(layout, clean[row], broken.column)}",
                "mend the row, or state what holds in every row",
            )
    _derives(layout, clean)


def _value(layout: Layout, row: torch.Tensor, column: int | None) -> str:
    if column is None:
        stray = (~row.double().isfinite()).nonzero().flatten().tolist()
        return f" ('{layout.names[stray[0]]}' is {float(row[stray[0]])})" if stray else ""
    return f" (it is {float(row[column]):.9g})"


def _derives(layout: Layout, clean: torch.Tensor) -> None:
    """Whether ``derive`` leaves alone what is not derived."""
    if layout.table.derive is None or not len(clean):
        return
    some = clean[:64]
    with torch.no_grad():
        found = layout.table.derive(some.clone(), some.clone())
    for place, column in enumerate(layout.columns):
        if column.kind != "derived" and bool((found[:, place] != some[:, place]).any()):
            raise SubjectError(
                f"Table(derive=…) changes '{column.name}', which is not of kind 'derived'",
                f"state Column('{column.name}', 'derived'), or leave it alone",
            )


def _problems(table: Table) -> Iterator[str]:
    names = [column.name for column in table.columns]
    if not names:
        yield "Table(columns=…) is empty"
    for name in names:
        if names.count(name) > 1:
            yield f"two columns are called '{name}'"
    yield from chain.from_iterable(map(_column, table.columns))
    yield from _groups(table)
    yield from _sums(table)
    derived = [column.name for column in table.columns if column.kind == "derived"]
    if derived and table.derive is None:
        yield f"column '{derived[0]}' is derived, and there is no Table(derive=…)"
    if table.derive is not None and not derived:
        yield "there is a Table(derive=…), and no column of kind 'derived'"


def _column(column: Column) -> Iterator[str]:
    who = f"column '{column.name}'"
    if column.kind not in KINDS:
        yield f"{who} is of kind {column.kind!r}, none of {', '.join(KINDS)}"
    if column.direction not in DIRECTIONS:
        yield f"{who} goes {column.direction!r}, none of {', '.join(DIRECTIONS)}"
    if math.isnan(column.low) or math.isnan(column.high) or column.low > column.high:
        yield f"{who} has low = {column.low:g} above high = {column.high:g}"
    if not (math.isfinite(column.cost) and column.cost >= 0):
        yield f"{who} costs {column.cost:g}: a cost is a number from 0"
    if column.kind == "integer" and not (math.isfinite(column.step) and column.step > 0):
        yield f"{who} has steps of {column.step:g}: they must be above 0"
    if column.kind == "category":
        if not column.values:
            yield f"{who} is a category without values"
        if len(set(column.values)) != len(column.values) or not all(map(math.isfinite, column.values)):
            yield f"{who} has values that repeat or are not finite"
    elif column.values:
        yield f"{who} has values and is of kind '{column.kind}', not 'category'"
    if column.kind == "derived" and column.direction != "any":
        yield f"{who} is derived: give a direction to what it follows from"


def _groups(table: Table) -> Iterator[str]:
    known = {column.name: column for column in table.columns}
    owner: dict[str, str] = {}
    names = [group.name for group in table.one_hot]
    for group in table.one_hot:
        if names.count(group.name) > 1 or group.name in known:
            yield f"group '{group.name}' has the name of another group or column"
        if len(group.columns) < (1 if group.may_be_none else 2):
            yield f"group '{group.name}' has {len(group.columns)} column{'s' * (len(group.columns) != 1)}"
        if not (math.isfinite(group.cost) and group.cost >= 0):
            yield f"group '{group.name}' costs {group.cost:g}: a cost is a number from 0"
        for name in group.columns:
            yield from _member(group, name, known, owner)


def _member(group: OneHot, name: str, known: dict[str, Column], owner: dict[str, str]) -> Iterator[str]:
    if name not in known:
        yield f"group '{group.name}' names '{name}', and there is no such column"
        return
    if name in owner:
        yield f"column '{name}' is in two groups, '{owner[name]}' and '{group.name}'"
    owner[name] = group.name
    if known[name].kind in ("category", "derived"):
        yield f"column '{name}' of group '{group.name}' is of kind '{known[name].kind}': its codes are 0 and 1"
    if group.mutable and not known[name].mutable:
        yield f"column '{name}' is not mutable, and its group '{group.name}' is"


def _sums(table: Table) -> Iterator[str]:
    known = {column.name: column for column in table.columns}
    grouped = _members(table)
    part_of: dict[str, str] = {}
    totals: dict[str, Sum] = {}
    for one in table.sums:
        if one.total in totals:
            yield f"'{one.total}' is the total of two sums"
        totals[one.total] = one
        if not one.parts:
            yield f"the sum of '{one.total}' has no parts"
        if not one.tolerance >= 0:
            yield f"the sum of '{one.total}' has a tolerance of {one.tolerance:g}"
        for name in (*one.parts, one.total):
            if name not in known:
                yield f"the sum of '{one.total}' names '{name}', and there is no such column"
                return
            if known[name].kind in ("category", "derived") or name in grouped:
                yield f"'{name}' is in the sum of '{one.total}', and is no real or integer column of its own"
        for name in one.parts:
            if name in part_of:
                yield f"'{name}' is a part of two sums, or twice of one"
            part_of[name] = one.total
    for name in totals:
        above = part_of.get(name)
        while above is not None:
            if above == name:
                yield f"'{name}' is a part of its own sum"
                return
            above = part_of.get(above)


def _members(table: Table) -> set[str]:
    return {name for group in table.one_hot for name in group.columns}


def _unfit(layout: Layout) -> str | None:
    """Nothing that can be changed, or a number that could go anywhere within any budget."""
    if not len(layout.numbers) and not layout.choices:
        return "no column and no group is mutable: there is nothing that an attacker could change"
    for place, cost in zip(layout.numbers.tolist(), layout.costs.tolist(), strict=True):
        column = layout.columns[place]
        ends = column.direction == "down" or math.isfinite(column.high)
        starts = column.direction == "up" or math.isfinite(column.low)
        if cost == 0 and not (ends and starts):
            return (
                f"column '{column.name}' costs nothing and has no bounds: low = {column.low:g}, high = {column.high:g}"
            )
    return None
