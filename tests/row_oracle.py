"""Random tables, and a plain account of what a valid row is, one number at a time: what the tests hold rows against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from pruneproof.domain import Column, OneHot, Sum, Table

DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Case:
    """A table, rows that keep it, a budget."""

    table: Table
    clean: torch.Tensor
    norm: str
    eps: float


def problems(case: Case, clean: torch.Tensor, point: torch.Tensor) -> list[str]:
    """What is wrong with one point ``(columns,)``, from the words of the documentation; empty: nothing."""
    before, after = clean.double().tolist(), point.double().tolist()
    at = {column.name: place for place, column in enumerate(case.table.columns)}
    grouped = {name for group in case.table.one_hot for name in group.columns}
    hair = torch.finfo(point.dtype).eps
    if not all(map(math.isfinite, after)):
        return ["a number is not finite"]
    found, paid = [], []
    for place, column in enumerate(case.table.columns):
        old, new = before[place], after[place]
        if column.name in grouped or column.kind == "derived":
            continue
        if not column.mutable and old != new:
            found.append(f"{column.name} changed")
        if new < column.low - hair * abs(new) or new > column.high + hair * abs(new):
            found.append(f"{column.name} out of bounds: {new}")
        if (column.direction == "up" and new < old) or (column.direction == "down" and new > old):
            found.append(f"{column.name} goes the wrong way")
        change = abs(new - old)
        if column.kind == "integer":
            count = round(new / column.step)
            if abs(new - count * column.step) > 4 * hair * max(abs(new), column.step):
                found.append(f"{column.name} is no multiple: {new}")
            change = abs(count - round(old / column.step)) * column.step
        if column.kind == "category":
            codes = torch.tensor(column.values, dtype=torch.float64).to(point.dtype).tolist()
            if new not in codes:
                found.append(f"{column.name} is {new}")
            change = float(new != old)
        paid.append(column.cost * change)
    for group in case.table.one_hot:
        old_ones, ones = ([r[at[name]] for name in group.columns] for r in (before, after))
        if (
            any(value not in (0.0, 1.0) for value in ones)
            or sum(ones) > 1
            or (sum(ones) == 0 and not group.may_be_none)
        ):
            found.append(f"{group.name} is {ones}")
        if not group.mutable and ones != old_ones:
            found.append(f"{group.name} changed")
        paid.append(group.cost * float(ones != old_ones))
    for one in case.table.sums:
        parts = [after[at[name]] for name in one.parts]
        if abs(sum(parts) - after[at[one.total]]) > one.tolerance + 4 * hair * sum(map(abs, parts)):
            found.append(f"{one.total} is not its parts' sum")
    if "product" in at:
        wanted = after[at["x0"]] * after[at["x1"]]
        if abs(after[at["product"]] - wanted) > 1e-5 * max(1.0, abs(wanted)):
            found.append("product is stale")
    if "limit" in at and after[at["x0"]] > after[at["limit"]]:
        found.append("x0 is above the limit")
    spent = {"L1": sum(paid), "L2": math.sqrt(sum(p * p for p in paid)), "Linf": max(paid, default=0.0)}[case.norm]
    if spent > case.eps * (1 + 1e-8):
        found.append(f"it costs {spent} of {case.eps}")
    return found


def product(rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """The derived column of the random tables, the last one: the product of the first two."""
    return torch.cat([rows[:, :-1], (rows[:, 0] * rows[:, 1])[:, None]], dim=1)


@st.composite
def cases(draw: Any, rows: int = 4) -> Case:
    """Tables of every kind of column, groups, sums, a derived column, a constraint of the subject's own."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    columns: list[Column] = []
    values: list[torch.Tensor] = []

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(rows, generator=generator, dtype=torch.float64)

    def add(column: Column, value: torch.Tensor) -> None:
        columns.append(column)
        values.append(value)

    costs = st.sampled_from([0.25, 1.0, 3.0])
    ways = st.sampled_from(["any", "any", "up", "down"])
    for number in range(2):
        low, high = draw(st.sampled_from([(-1.0, 1.0), (-math.inf, math.inf), (-5.0, math.inf), (0.0, 100.0)]))
        inside = uniform(max(low, -50.0), min(high, 50.0))
        mutable = number == 0 or draw(st.booleans())
        add(Column(f"x{number}", "real", mutable, low, high, draw(ways), draw(costs)), inside)
    for number in range(draw(st.integers(0, 2))):
        step = draw(st.sampled_from([1.0, 0.5, 1e-2, 1e-5]))
        whole = torch.randint(-20, 21, (rows,), generator=generator).double() * step
        add(Column(f"k{number}", "integer", True, -30 * step, 30 * step, draw(ways), draw(costs), step=step), whole)
    for number in range(draw(st.integers(0, 2))):
        codes = draw(st.sampled_from([(0.0, 1.0), (1.0, 2.0, 5.0), (0.1, 0.2, 0.7)]))
        picked = torch.tensor(codes, dtype=torch.float64)[torch.randint(len(codes), (rows,), generator=generator)]
        add(Column(f"c{number}", "category", draw(st.booleans()), cost=draw(costs), values=codes), picked)
    groups = []
    for number in range(draw(st.integers(0, 2))):
        size, none = draw(st.integers(2, 4)), draw(st.booleans())
        which = torch.randint(size + none, (rows,), generator=generator)
        names = tuple(f"g{number}.{place}" for place in range(size))
        for place, name in enumerate(names):
            add(Column(name), (which == place).double())
        groups.append(OneHot(f"g{number}", names, draw(st.booleans()), draw(costs), none))
    sums = []
    if draw(st.booleans()):
        whole, step = draw(st.booleans()), 0.5
        parts = torch.randint(-8, 9, (3, rows), generator=generator).double() * step
        kind: Any = "integer" if whole else "real"
        for place in range(3):
            add(Column(f"p{place}", kind, place < 2, -5, 5, draw(ways), draw(costs), step=step), parts[place])
        moves = draw(st.booleans())
        add(Column("sum", kind, moves, -14, 14, draw(ways), draw(costs), step=step), parts.sum(dim=0))
        sums.append(Sum(("p0", "p1", "p2"), "sum"))
    valid = None
    if draw(st.booleans()):
        place = len(columns)
        add(Column("limit", mutable=False), values[0] + uniform(0.0, 1.0))

        def valid(rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
            return rows[:, 0] <= rows[:, place]

    derive = None
    if draw(st.booleans()):
        add(Column("product", "derived"), values[0] * values[1])
        derive = product
    clean = torch.stack(values, dim=1).to(draw(st.sampled_from(DTYPES)))
    if derive is not None:
        clean = derive(clean, clean)
    norm, eps = draw(st.sampled_from(["L1", "L2", "Linf"])), draw(st.sampled_from([0.0, 0.3, 1.0, 4.0]))
    return Case(Table(columns, groups, sums, derive, valid), clean, norm, eps)
