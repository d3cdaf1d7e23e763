"""Rows of a table that a person could bring about: what an attacker may do where a subject states a Table."""

from __future__ import annotations

import math
from typing import Any

import torch

from pruneproof.adversarial.layout import Layout, number
from pruneproof.adversarial.repair import GRACE, Proposal, Repairs, used
from pruneproof.adversarial.stated import check
from pruneproof.domain import Table
from pruneproof.errors import SubjectError

NORMS = ("L1", "L2", "Linf")


class RowSpace:
    """Valid rows within ``eps`` of a clean one; a :class:`~pruneproof.adversarial.space.Space`.

    Args:
        table: of the subject; numbers are those of the input.
        norm: of what all changes cost, see :class:`~pruneproof.domain.Table`.
        eps: at least 0, in units of cost.

    Raises:
        SubjectError: the table contradicts itself, or the norm or ``eps`` is none.
    """

    def __init__(self, table: Table, norm: str, eps: float) -> None:
        if norm not in NORMS:
            raise SubjectError(f"a table's budget in {norm!r}", f"name one of {', '.join(NORMS)}")
        if not (math.isfinite(eps) and eps >= 0):
            raise SubjectError(f"a budget of {eps}", "give a finite eps of at least 0")
        check(table)
        self.table, self.norm, self.eps = table, norm, float(eps)
        self.layout = Layout(table)
        self.repairs = Repairs(self.layout, norm, self.eps, self.contains)

    def contains(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` booleans: every constraint holds, and the budget is kept, within 1e-9 of it.

        Values are compared bit for bit where a column is not mutable, a category or a group, integers and sums to
        within a few units in the last place of the dtype, derived columns within 1e-5 of their size.

        Raises:
            SubjectError: a function of the table's raised.
        """
        if points.shape != clean.shape:
            raise SubjectError(f"points {tuple(points.shape)} for rows {tuple(clean.shape)}", "give one point a row")
        points = points.to(clean.dtype)
        found = self.distance(clean, points) <= self.eps * (1 + GRACE)
        for broken in self.layout.broken(points, clean):
            found &= ~broken.rows
        return found

    def distance(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """``(n,)`` float64: the norm of what the changes cost; what is derived costs nothing."""
        return used(self.norm, self.layout.amounts(clean, points))

    def start(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Random valid rows: every number anywhere within its reach, every second choice another one, then repaired."""
        low, high = self.repairs.reach(clean)
        n, choices = len(clean), self.layout.choices
        draws = torch.rand(n, low.shape[1] + 2 * len(choices), generator=generator, dtype=torch.float64)
        moves = low + draws[:, : low.shape[1]] * (high - low)
        picks = self.repairs.own(clean)
        for place, choice in enumerate(choices):
            changed, which = draws[:, low.shape[1] + 2 * place], draws[:, low.shape[1] + 2 * place + 1]
            other = drawn(choice.allowed(clean), picks[:, place], which)
            picks[:, place] = torch.where(changed < 0.5, other, picks[:, place])
        return self.repairs.settle(Proposal(clean, moves, picks))

    def repair(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Valid rows within the budget, near to ``points``; what is valid and within it is not touched.

        What is not mutable goes back, integers are rounded, groups and categories take the nearest setting, bounds and
        directions are kept, sums restored, derived columns computed again, and all is shrunk toward the clean row
        until it is inside. In the worst case it is the clean row.
        """
        points = points.detach().to(clean.dtype)
        wrong = (~self.contains(clean, points)).nonzero().flatten()
        found = points.clone()
        if len(wrong):
            found[wrong] = self.repairs.settle(self.repairs.proposal(clean[wrong], points[wrong]))
        return found

    def at(self, eps: float) -> RowSpace:
        """The same table with another budget."""
        return RowSpace(self.table, self.norm, eps)

    def describe(self) -> dict[str, Any]:
        """Norm, budget, and what can be changed at what cost."""
        layout = self.layout
        changed: dict[str, dict[str, Any]] = {
            column.name: {
                "kind": column.kind,
                "cost": column.cost,
                "low": _bound(column.low),
                "high": _bound(column.high),
                "direction": column.direction,
            }
            for place in sorted(place for place, _, _ in layout.paid)
            for column in (layout.columns[place],)
        }
        changed |= {c.name: {"kind": "choice", "cost": c.cost, "settings": len(c.options)} for c in layout.choices}
        return {
            "domain": "table",
            "norm": self.norm,
            "eps": self.eps,
            "mutable": changed,
            "derived": [layout.names[place] for place in layout.derived.tolist()],
            "sums": [f"{' + '.join(one.parts)} = {one.total}" for one in self.table.sums],
            "valid": self.table.valid is not None,
        }

    def shown(self, clean: torch.Tensor, point: torch.Tensor) -> str:
        """What differs between two rows ``(columns,)``: ``amount 940 → 1 010; country NA → GB``; "": nothing.

        Raises:
            SubjectError: the table's ``decode`` raised, or gave no mapping.
        """
        before, after = self.decoded(clean), self.decoded(point)
        names = [*before, *(name for name in after if name not in before)]
        differs = [name for name in names if before.get(name) != after.get(name)]
        return "; ".join(f"{name} {before.get(name, 'none')} → {after.get(name, 'none')}" for name in differs)

    def decoded(self, row: torch.Tensor) -> dict[str, str]:
        """A row ``(columns,)`` as a person would read it.

        Raises:
            SubjectError: the table's ``decode`` raised, or gave no mapping.
        """
        if self.table.decode is None:
            return self._plain(row)
        try:
            return {str(name): str(text) for name, text in self.table.decode(row.detach().clone()).items()}
        except Exception as error:
            raise SubjectError(
                f"Table(decode=…) raised {type(error).__name__}: {error}", "decode(row) -> {name: text}"
            ) from error

    def _plain(self, row: torch.Tensor) -> dict[str, str]:
        """Columns that are neither derived nor of a group, and the groups."""
        layout = self.layout
        found = {
            column.name: number(
                _snapped(float(row[place]), column.step) if column.kind == "integer" else float(row[place])
            )
            for place, column in enumerate(layout.columns)
            if place not in layout.grouped and column.kind != "derived"
        }
        for group in self.table.one_hot:
            ones = [name for name in group.columns if float(row[layout.place[name]]) == 1]
            found[group.name] = ", ".join(ones) or "none"
        return found


def drawn(allowed: torch.Tensor, own: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """``(n,)`` one of the ``allowed (n, k)`` settings but the own one, by ``which`` in [0, 1); own if there is none."""
    others = allowed & (torch.arange(allowed.shape[1]) != own[:, None])
    count = others.sum(dim=1)
    wanted = (which * count).floor().long().clamp(max=(count - 1).clamp(min=0)) + 1
    place = (others.cumsum(dim=1) >= wanted[:, None]).to(torch.int8).argmax(dim=1)
    return torch.where(count > 0, place, own)


def _bound(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _snapped(value: float, step: float) -> float:
    return round(value / step) * step
