"""Whether what is kept of a campaign agrees with itself, with the policy, and with what the models said.

It shows no forgery that is made with care, as nothing does without a signature; it shows that nothing is missing,
doubled or of another audit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pruneproof.adversarial import checks, entries
from pruneproof.adversarial.entries import Entry
from pruneproof.adversarial.results import Result, goal, results
from pruneproof.errors import PolicyError
from pruneproof.suite import Context

if TYPE_CHECKING:
    from pruneproof.suites.adversarial import Options

CLOSE = 1e-2
"""Share of the size of the outputs within which an answer may differ by the size of a batch, or by half precision."""
ROUNDING = 1e-6


def contradictions(context: Context, options: Options) -> Iterator[str]:
    """Each contradiction in what was observed of one variant, one line."""
    assert context.observed is not None
    record = context.observed.record
    found = results(context.observed)
    if [result.label for result in found] != [entry.called for entry in options.attacks]:
        yield "its attacks are not those of the policy"
        return
    if bool(record["sequential"]) != options.sequential:
        yield "whether its sample grew is not what the policy says"
    for entry, result in zip(options.attacks, found, strict=True):
        for problem in (*_policy(entry, result, options), *_examples(result, context, options), *_points(result)):
            yield f"{entry.called}: {problem}"
    for place, wanted in enumerate(options.goals):
        rows, hits = goal(context.observed, place)
        every = np.flatnonzero(context.examples.targets == context.facts.classes.index(wanted.source))
        due = min(len(every), options.most)
        if len(np.unique(rows)) != due or len(hits) != due or not np.isin(rows, every).all():
            yield f"goal {wanted.called}: its examples are not {due} of the class"


def _policy(entry: Entry, result: Result, options: Options) -> Iterator[str]:
    record = result.record
    try:
        own: Any = entries.own(entry, record["kind"]).model_dump(mode="json")
        norm: Any = entries.norm_of(entry, record["kind"])
    except PolicyError as error:
        yield error.cause
        return
    stands = (record["attack"], record["norm"], record["eps"], record["budgets"], record["batch"], record["own"])
    if stands != (entry.name, norm, entry.eps, list(entry.budgets), options.batch, own):
        yield "the attack, its budget or its parameters are not those of the policy"
    space = record["space"]
    if space.get("eps", entry.eps) != entry.eps or space.get("norm", norm) != norm:
        yield "the space that it attacked in is not of the policy's budget"
    if options.bounds is not None and (space["low"], space["high"]) != options.bounds:
        yield "the bounds that it attacked in are not those of the policy"
    names = tuple(check["name"] for check in record["checks"])
    if names != checks.NAMES and not (not names and record["unchecked"]):
        yield "its strength checks are not all there"


def _examples(result: Result, context: Context, options: Options) -> Iterator[str]:
    rows, n = result.rows, context.facts.n
    due = min(n, options.most)
    if len(np.unique(rows)) != len(rows) or not ((rows >= 0) & (rows < n)).all():
        yield "some examples are there twice, or are none of the test set"
        return
    if len(rows) > due or (len(rows) < due and not options.sequential):
        yield f"{len(rows)} examples were attacked, {due} were due"
    names = ("clean", "budget", "stage", "distance", "queries", "answers")
    if any(len(result.arrays[name]) != len(rows) for name in names):
        yield "what is kept of its examples is of another number than they are"
        return
    levels = result.arrays["budget"]
    if not ((levels >= -1) & (levels < len(result.record["budgets"]))).all() or (~result.clean & (levels != 0)).any():
        yield "some examples fell at no budget of the attack"
    if context.facts.task != "regression" and not result.record["criterion"] and result.record["draws"] == 1:
        said = context.predictions
        right = said.labels[rows] == context.examples.targets[rows]
        if ((right != result.clean) & ~_close(said.outputs[rows].astype(np.float64))).any():
            yield "which examples were right without an attack is not what the model said of them"


def _close(outputs: Any) -> Any:
    """``(n,)``: whether the two largest outputs are too near to each other for rounding to leave the answer alone."""
    size = 1 + np.abs(outputs).max(axis=1)
    if outputs.shape[1] < 3:
        return np.ones(len(outputs), dtype=bool)  # at whose threshold the answer turns is not known here
    ordered = np.sort(outputs, axis=1)
    return ordered[:, -1] - ordered[:, -2] <= CLOSE * size


def _points(result: Result) -> Iterator[str]:
    arrays = result.arrays
    fell = result.clean & (arrays["budget"] >= 0)
    points = arrays["points"]
    if not np.array_equal(np.sort(arrays["point_rows"]), np.sort(result.rows[fell])) or len(points) != fell.sum():
        yield "the points that fooled it are not one for each example that fell"
        return
    if points.dtype.kind == "f" and not np.isfinite(points).all():
        yield "some of its points are not finite"
    most = np.array(result.record["budgets"])[arrays["budget"][fell]]
    distance = arrays["distance"][fell]
    if not (distance <= most * (1 + ROUNDING) + ROUNDING).all() or not np.isnan(arrays["distance"][~fell]).all():
        yield "some points lie beyond the budget at which their example fell"
    for source, (hits, n) in result.record["transfer"].items():
        if not 0 <= hits <= n <= result.clean.sum():
            yield f"{hits} of {n} points of {source} cannot have fooled it"
