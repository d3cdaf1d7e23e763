"""Curves: what each gate is about against the ratio that was achieved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pruneproof import wording
from pruneproof.evidence import Evidence, GateRow, VariantRow
from pruneproof.verdicts import Verdict

DRAWN = 24
"""Members of a family that are drawn one by one; the range of the others is shaded."""
NAMED = 6
"""Members of a family that are labelled."""
LONGEST = 60
"""Letters that fit under the axes."""


@dataclass(frozen=True)
class Point:
    """One variant.

    Args:
        ratio: achieved share.
        verdict: ``None`` where it is not gated: the dense model, or a ratio above ``up_to``.
    """

    ratio: float
    value: float
    interval: tuple[float, float] | None
    verdict: Verdict | None


@dataclass(frozen=True)
class Series:
    """One recipe, or one member of a family under one recipe."""

    label: str
    points: tuple[Point, ...]
    weight: Literal["main", "named", "rest"]


@dataclass(frozen=True)
class Panel:
    """One set of axes."""

    title: str
    ratio: str
    """What the horizontal axis counts."""
    series: tuple[Series, ...]
    shaded: tuple[tuple[float, float, float], ...] = ()
    """(ratio, smallest, largest) of the members that are not drawn."""


@dataclass(frozen=True)
class Chart:
    """A gate, or one column of a family of gates.

    Args:
        limit_key: empty where ``limit`` is no limit but dense's own value.
        across: what the ratio is, in words.
        wide: as wide as the page, with room for long names.
    """

    title: str
    quantity: str
    limit_key: str
    limit: float
    panels: tuple[Panel, ...]
    members: int
    hidden: int
    across: str = "the achieved ratio"
    wide: bool = False

    @property
    def line(self) -> str:
        """What the dashed line is."""
        return f"limit: {self.limit_key} {self.limit:g}" if self.limit_key else f"dense {wording.number(self.limit)}"

    @property
    def alt(self) -> str:
        """The chart in words."""
        lines = []
        for panel in self.panels:
            for series in panel.series:
                if series.weight != "rest":
                    points = ", ".join(
                        f"{wording.number(p.value)} at {wording.percent(p.ratio)}" for p in series.points
                    )
                    lines.append(f"{' '.join(dict.fromkeys(f'{panel.title} {series.label}'.split()))}: {points}")
        line = self.line[:1].upper() + self.line[1:]
        return f"{self.title}: {self.quantity} against {self.across}. {'; '.join(lines)}. {line}."


def charts(evidence: Evidence) -> Iterator[Chart]:
    """One for each gate on the whole test set, one for each column of a family."""
    places = {row.name: place for row in evidence.variants if (place := _ratio(row)) is not None}
    groups: dict[tuple[str, str | None], dict[str, list[GateRow]]] = {}
    for gate in evidence.gates:
        if gate.limit.key == "required":
            continue
        column = next(iter(gate.segment)) if gate.segment else None
        groups.setdefault((wording.stem(gate), column), {}).setdefault(gate.id, []).append(gate)
    values = {
        (row.variant, row.suite, row.metric, wording.member(row.segment)): row.value for row in evidence.measurements
    }
    for (stem, column), members in groups.items():
        recipes = _recipes(evidence, places)
        lines = {
            (name, gates[0].id): points
            for name, rows in recipes.items()
            for gates in members.values()
            if (points := _points(gates, rows, places, values))
        }
        if not lines:
            continue
        first = next(iter(members.values()))[0]
        panels: tuple[Panel, ...]
        if column is None:
            panels, hidden = (_together(lines, recipes),), 0
        else:
            panels, hidden = _apart(lines, members, recipes)
        title = stem + (f", by {'column' if column == 'by' else column}" if column else "")
        yield Chart(title, wording.quantity(first), first.limit.key, first.limit.value, panels, len(members), hidden)


def _ratio(row: VariantRow) -> float | None:
    if row.kind in ("dense", "previous"):
        return None
    if row.kind == "pruned" and row.achieved_ratio is not None:
        return row.achieved_ratio
    return row.sparsity.get("pruned_tensors")


def _axis(row: VariantRow) -> str:
    counted = wording.counted(row)
    if row.kind == "imported" or row.achieved_ratio is None:
        return "layer weights removed (share of all layer weights)"
    if counted == wording.units(row.recipe):
        return f"{counted} removed (share of {wording.count(row.units)} {counted})"
    return f"{counted} removed (share of all of the dense network)"


def _recipes(evidence: Evidence, places: dict[str, float]) -> dict[str, list[VariantRow]]:
    found: dict[str, list[VariantRow]] = {}
    for row in evidence.variants:
        if row.name in places:
            found.setdefault(wording.recipe(row), []).append(row)
    return {name: sorted(rows, key=lambda row: places[row.name]) for name, rows in found.items()}


Values = dict[tuple[str, str, str, str], float | None]
"""(variant, suite, metric, member) → measured value."""


def _points(
    gates: Sequence[GateRow], rows: Sequence[VariantRow], places: dict[str, float], values: Values
) -> tuple[Point, ...]:
    own = {gate.variant: gate for gate in gates}
    first = gates[0]
    found = []
    for row in rows:
        gate = own.get(row.name)
        if gate is not None:
            if gate.value is not None:
                found.append(Point(places[row.name], gate.value, gate.interval, gate.verdict))
        elif (value := _ungated(first, row.name, values)) is not None:
            found.append(Point(places[row.name], value, None, None))
    dense = _ungated(first, "dense", values)
    if found and rows[0].requested_ratio is not None and dense is not None:
        found.insert(0, Point(0.0, dense, None, None))
    return tuple(found)


def _ungated(gate: GateRow, variant: str, values: Values) -> float | None:
    """What the gate would have been about."""
    where = (gate.suite, gate.metric, wording.member(gate.segment))
    value, other = values.get((variant, *where)), values.get((gate.comparator or "", *where))
    if gate.comparator is None or value is None:
        return value
    if other is None:
        return None
    if gate.limit.key == "max_ratio":
        return value / other if other else None
    return other - value if gate.limit.key == "max_drop" else value - other


def _together(lines: dict[tuple[str, str], tuple[Point, ...]], recipes: dict[str, list[VariantRow]]) -> Panel:
    """All recipes on one set of axes."""
    axes = {name: _axis(recipes[name][0]) for name, _ in lines}
    ratio = next(iter(axes.values()))
    if len(set(axes.values())) > 1:
        ratio = "share removed: " + "; ".join(f"{name}, {axis.split(' removed', 1)[0]}" for name, axis in axes.items())
        if len(ratio) > LONGEST:
            ratio = "share removed, of each recipe's own units"
    return Panel("", ratio, tuple(Series(name, points, "main") for (name, _), points in lines.items()))


def _apart(
    lines: dict[tuple[str, str], tuple[Point, ...]],
    members: dict[str, list[GateRow]],
    recipes: dict[str, list[VariantRow]],
) -> tuple[tuple[Panel, ...], int]:
    """A panel for each recipe, the members on it; how many of them are not drawn."""
    panels, hidden = [], 0
    for name, rows in recipes.items():
        own = {id: points for (recipe, id), points in lines.items() if recipe == name}
        if not own:
            continue
        gates = {id: members[id][0] for id in own}
        ranked = sorted(own, key=lambda id: -max(_badness(gates[id], point) for point in own[id]))
        bad = sum(any(point.verdict is Verdict.FAIL for point in own[id]) for id in ranked)
        named = min(max(1, bad), NAMED)
        series = [
            Series(
                next(iter((gates[id].segment or {"": id}).values())),
                own[id],
                "main" if place == 0 else "named" if place < named else "rest",
            )
            for place, id in enumerate(ranked[:DRAWN])
        ]
        left = ranked[DRAWN:]
        hidden = max(hidden, len(left))
        panels.append(Panel(name, _axis(rows[0]), tuple(series), spread([own[id] for id in left])))
    return tuple(panels), hidden


def _badness(gate: GateRow, point: Point) -> float:
    return wording.beyond(gate.model_copy(update={"value": point.value}))


def spread(lines: Sequence[tuple[Point, ...]]) -> tuple[tuple[float, float, float], ...]:
    """(ratio, smallest, largest) of lines that are not drawn one by one."""
    at: dict[float, list[float]] = {}
    for points in lines:
        for point in points:
            at.setdefault(point.ratio, []).append(point.value)
    return tuple((ratio, min(found), max(found)) for ratio, found in sorted(at.items()))
