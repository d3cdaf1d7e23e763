"""The adversarial suite's chapter of a report."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruneproof.adversarial.entries import WORST
from pruneproof.adversarial.figures import worst
from pruneproof.adversarial.results import Result, goal, results
from pruneproof.estimates import Proportion, Sequential
from pruneproof.exhibits import Band, Chapter, Curves, Exhibit, Gallery, Line, Matrix, Picture, Shot, Table
from pruneproof.policy import DENSE
from pruneproof.suite import Context

if TYPE_CHECKING:
    from pruneproof.suites.adversarial import Options

CONFIDENCE = 0.95
WIDEST = 96
"""Pixels along a picture's longer side."""
SHOWN = 8
"""Examples in a gallery."""
STATES = {"held": "pass", "failed": "fail", "not applicable": None}


def chapter(contexts: Sequence[Context], options: Options) -> Chapter:
    """Everything that reports show of the campaign, dense first."""
    able = {one.variant: results(one.observed) for one in contexts if one.observed and one.observed.error is None}
    broken = [[one.variant, one.observed.error] for one in contexts if one.observed is not None and one.observed.error]
    exhibits: list[Exhibit] = []
    if broken:
        exhibits.append(Table(title="Variants that could not be attacked", columns=["variant", "why"], rows=broken))
    if able:
        exhibits += [
            _configuration(able),
            _accuracy(able),
            *_against_ratio(able, contexts),
            *_against_budget(able),
            _checks(able),
            _stages(able),
            *_transfer(able),
            *_goals(contexts, options),
            *_galleries(able, contexts),
        ]
    return Chapter(suite="adversarial", title="Adversarial inputs", exhibits=exhibits)


def _configuration(able: dict[str, list[Result]]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for result in next(iter(able.values())):
        record = result.record
        said = {
            "method": record["attack"],
            **{key: _said(value) for key, value in record["space"].items()},
            **{key: _said(value) for key, value in record["own"].items() if value is not None},
            "examples a pass": str(record["batch"]),
            "passes an answer": str(record["draws"])
            + (", since the model draws random numbers" if record["draws"] > 1 else ""),
            "examples": str(len(result.rows)),
        }
        rows += [[result.label, key, value] for key, value in said.items()]
    return Table(
        title="What was attempted",
        about="Robust accuracy is an upper bound: it holds for these attacks within these budgets, not for others.",
        columns=["attack", "parameter", "value"],
        rows=rows,
    )


def _said(value: Any) -> str:
    """A parameter as a reader would have it: ``amount: kind integer, cost 100; channel: …``."""
    if isinstance(value, dict):
        parts = [
            f"{key}: {_said(part)}" if isinstance(part, dict) else f"{key} {_said(part)}" for key, part in value.items()
        ]
        return ("; " if any(isinstance(part, dict) for part in value.values()) else ", ").join(parts)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return (", ".join(map(_said, value)) or "none") if isinstance(value, list) else str(value)


def _accuracy(able: dict[str, list[Result]]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for variant, found in able.items():
        for result in found:
            n, stood = len(result.rows), result.stood()
            failed = [check.name for check in result.checks if check.state == "failed"]
            rows.append(
                [
                    variant, result.label, n, _rate(result.clean), _rate(stood),
                    *_bounds(result.share(result.rows, stood)),
                    ", ".join(failed) or "all held",
                ]
            )  # fmt: skip
        if len(found) > 1:
            rows_of, stood = worst(found)
            clean = np.isin(rows_of, found[0].rows[found[0].clean])
            bounds = _bounds(found[0].share(rows_of, stood))
            rows.append([variant, WORST, len(rows_of), _rate(clean), _rate(stood), *bounds, ""])
    return Table(
        title="Accuracy under attack",
        about=f"The share of examples that are right and stay right. Interval: {_method(able)}.",
        columns=["variant", "attack", "examples", "without attack", "under attack", "from", "to", "strength checks"],
        rows=rows,
    )


def _rate(hits: NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _bounds(share: Proportion | Sequential) -> tuple[float | None, float | None]:
    if not share.n:
        return None, None
    found = share.bounds(CONFIDENCE)
    return found.lower, found.upper


def _method(able: dict[str, list[Result]]) -> str:
    """What the bands are, in a reader's words."""
    sequential = next(iter(able.values()))[0].sequential
    return "90 %, holding however long the sample grew" if sequential else "exact binomial, 90 %"


def _against_ratio(able: dict[str, list[Result]], contexts: Sequence[Context]) -> Iterator[Curves]:
    """One line a recipe, dense at 0."""
    recipes: dict[str, list[tuple[float, str]]] = {}
    for variant in able:
        name, at, ratio = variant.rpartition("@")
        if at and _number(ratio) is not None:
            recipes.setdefault(name, []).append((float(ratio), variant))
    labels = [result.label for result in next(iter(able.values()))]
    for place, label in enumerate(labels):
        lines = []
        for name, entries in recipes.items():
            points = [(0.0, DENSE)] * (DENSE in able) + sorted(entries)
            if len(points) > 1:
                lines.append(Line(name=name, points=[_band(ratio, able[one][place]) for ratio, one in points]))
        if lines:
            yield Curves(
                title=f"Robust accuracy against ratio: {label}",
                about=f"Bands: {_method(able)}.",
                x="ratio (share removed)",
                y="robust accuracy",
                lines=lines,
            )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _band(x: float, result: Result, budget: float | None = None) -> Band:
    stood = result.stood(budget)
    lower, upper = _bounds(result.share(result.rows, stood))
    return Band(x=x, y=_rate(stood) or 0.0, lower=lower, upper=upper)


def _against_budget(able: dict[str, list[Result]]) -> Iterator[Curves]:
    for place, first in enumerate(next(iter(able.values()))):
        budgets = first.record["budgets"]
        if len(budgets) < 2:
            continue
        lines = []
        for variant, found in able.items():
            result = found[place]
            lower, upper = _bounds(result.share(result.rows, result.clean))
            start = Band(x=0.0, y=_rate(result.clean) or 0.0, lower=lower, upper=upper)
            lines.append(Line(name=variant, points=[start, *(_band(one, result, one) for one in budgets)]))
        norm = first.record["space"].get("norm", "")
        yield Curves(
            title=f"Robust accuracy against ε: {first.label}",
            about=f"At 0: without an attack. Bands: {_method(able)}.",
            x=f"ε ({norm})" if norm else "ε",
            y="robust accuracy",
            lines=lines,
        )


def _checks(able: dict[str, list[Result]]) -> Table:
    rows: list[list[str | int | float | None]] = []
    marks: list[str | None] = []
    for variant, found in able.items():
        for result in found:
            for check in result.checks:
                rows.append([variant, result.label, check.name, check.state, check.says])
                marks.append(STATES[check.state])
    return Table(
        title="Strength checks",
        about="Whether the attack showed that it works. A PASS does not rest on an attack that failed one; a FAIL may, "
        "since its points are certificates.",
        columns=["variant", "attack", "check", "state", "what was seen"],
        rows=rows,
        marks=marks,
    )


def _stages(able: dict[str, list[Result]]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for variant, found in able.items():
        for result in found:
            for name, cost in result.record["stages"].items():
                rows.append(
                    [variant, result.label, name]
                    + [int(cost[key]) for key in ("tried", "fell", "refused", "gradients", "forwards")]
                )
    return Table(
        title="Stages: cost and yield",
        about="Cost in example-passes, which do not depend on the machine. Refused: points outside what the attacker "
        "may do, which do not count.",
        columns=["variant", "attack", "stage", "tried", "fell", "refused", "backward passes", "forward passes"],
        rows=rows,
    )


def _transfer(able: dict[str, list[Result]]) -> Iterator[Matrix]:
    names = list(able)
    if len(names) < 2:
        return
    for place, first in enumerate(next(iter(able.values()))):
        values = [[_transferred(able[target][place], source) for target in names] for source in names]
        yield Matrix(
            title=f"Transfer: {first.label}",
            about="The share of points that fool the model of the row which fool the model of the column too, of "
            "examples that both get right.",
            rows=names,
            columns=names,
            across="tried on",
            down="points that fool",
            values=values,
        )


def _transferred(result: Result, source: str) -> float | None:
    hits, n = result.record["transfer"].get(source, (0, 0))
    return hits / n if n else None


def _goals(contexts: Sequence[Context], options: Options) -> Iterator[Table]:
    if not options.goals:
        return
    rows: list[list[str | int | float | None]] = []
    for one in contexts:
        if one.observed is None or one.observed.error is not None:
            continue
        for place, wanted in enumerate(options.goals):
            of, hits = goal(one.observed, place)
            rows.append([one.variant, wanted.called, len(of), _rate(hits), *_bounds(Proportion(of, hits))])
    yield Table(
        title="Answers that must not be produced",
        about="The share of examples of the first class that an attacker can turn into the second.",
        columns=["variant", "goal", "examples", "brought there", "from", "to"],
        rows=rows,
    )


def _galleries(able: dict[str, list[Result]], contexts: Sequence[Context]) -> Iterator[Gallery]:
    examples, classes = contexts[0].examples, contexts[0].facts.classes
    for place, first in enumerate(next(iter(able.values()))):
        shots: list[Shot] = []
        each = max(1, SHOWN // len(able))
        for variant, found in able.items():
            result = found[place]
            for number, shot in enumerate(result.record["shots"][:each]):
                truth = classes[int(examples.targets[shot["row"]])] if classes else str(examples.targets[shot["row"]])
                says = _answer(classes, shot["answer"])
                title = f"{variant}, example {examples.ids[shot['row']]}: {truth} → {says}"
                pictures, captions = _pictures(result, number, truth, says, _answer(classes, shot["dense"]))
                shots.append(Shot(title=title, pictures=pictures, captions=captions, text=shot["text"]))
        if shots:
            yield Gallery(
                title=f"What fooled them: {first.label}",
                about="Each point was confirmed by a forward pass of its own, and is kept beside the record.",
                shots=shots[: 2 * SHOWN],
            )


def _answer(classes: Sequence[str], answer: int | None) -> str:
    return classes[answer] if answer is not None and 0 <= answer < len(classes) else "wrong"


def _pictures(result: Result, number: int, truth: str, says: str, dense: str) -> tuple[list[Picture], list[str]]:
    """Clean, adversarial, difference; none for what is no picture."""
    clean, points = result.arrays.get("shot_clean"), result.arrays.get("shot_points")
    if clean is None or points is None or clean[number].ndim not in (2, 3):
        return [], []
    before, after = (np.asarray(part[number], dtype=np.float64) for part in (clean, points))
    if before.ndim == 2:
        before, after = before[None], after[None]
    if before.shape[0] not in (1, 3):
        return [], []
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    difference = after - before
    widest = np.abs(difference).max() or 1.0
    captions = [f"clean: {truth}", f"adversarial: {says} (dense says {dense})", f"difference, largest {widest:.3g}"]
    return [
        _picture((before - low) / ((high - low) or 1.0) * 255),
        _picture((after - low) / ((high - low) or 1.0) * 255),
        _picture(128 + difference / widest * 127, signed=True),
    ], captions


def _picture(values: NDArray[np.float64], signed: bool = False) -> Picture:
    """Bytes of a picture; a large one is averaged over squares of pixels, so that reports stay small."""
    every = -(-max(values.shape[1:]) // WIDEST)
    if every > 1:
        height, width = (size // every * every for size in values.shape[1:])
        parts = values[:, :height, :width].reshape(len(values), height // every, every, width // every, every)
        values = parts.mean(axis=(2, 4))
    array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return Picture(shape=list(array.shape), pixels=base64.b64encode(array.tobytes()).decode(), signed=signed)
