"""Whether what is kept of a survey agrees with itself, with the policy, and with what the models said.

It shows no forgery that is made with care, as nothing does without a signature; it shows that nothing is missing,
doubled or of another audit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruneproof.observed import Observed
from pruneproof.policy import DENSE
from pruneproof.shift.cells import CELL, NAMES
from pruneproof.shift.naming import parts, sampled
from pruneproof.shift.probes import BREAKING
from pruneproof.suite import Context

if TYPE_CHECKING:
    from pruneproof.suites.shift import Options

SHARED = ("shifted", "kind", "corruptions", "periods", "times")
"""Keys of a record that are about the data: the same for every model."""
Due = tuple[str, tuple[int, ...], str]
"""Name and shape of an array, and the kinds of numbers that it may hold."""


def contradictions(context: Context, options: Options) -> Iterator[str]:
    """Each contradiction in what was observed of one variant, one line."""
    assert context.observed is not None
    record, arrays = context.observed.record, context.observed.arrays
    notes = record.get("corruptions", [])
    stands = [(note["label"], note["name"], tuple(note["severities"])) for note in notes]
    due = [(entry.called, entry.name, options.severities_of(entry)) for entry in options.corruptions]
    if stands != due:
        yield "its corruptions are not those of the policy"
        return
    given = context.siblings[DENSE].observed
    if given is None:
        return
    if record.get("shifted") != dict(context.facts.shifted):
        yield "its shifted sets are not those of the subject"
    yield from (
        f"its {key}: not those of the dense model" for key in SHARED if record.get(key) != given.record.get(key)
    )
    broken = list(_arrays(arrays, list(_due(context, options, given))))
    yield from broken
    if not broken:
        yield from _values(context, options)


def _arrays(arrays: Mapping[str, NDArray[Any]], due: list[Due]) -> Iterator[str]:
    for name in sorted(set(arrays) - {name for name, _, _ in due}):
        yield f"{name}: nothing that is kept of it"
    for name, shape, kinds in due:
        found = arrays.get(name)
        if found is None or found.shape != shape or found.dtype.kind not in kinds:
            yield f"{name}: there are no numbers of shape {shape}"
        elif found.dtype.kind == "f" and not np.isfinite(found).all():
            yield f"{name}: some numbers are not finite"


def _due(context: Context, options: Options, given: Observed) -> Iterator[Due]:
    """What has to be kept of a model; ``given``: of the dense one."""
    assert context.observed is not None
    facts, record = context.facts, context.observed.record
    failed = _failed(record)
    for place, size in enumerate(facts.shifted.values()):
        yield f"outputs/{place}", (size, context.predictions.outputs.shape[1]), "f"
    m = len(given.arrays.get("rows", ()))
    for entry in options.inputs:
        if entry.called not in failed:
            for name in NAMES:
                yield f"{CELL}{entry.called}/{name}", (len(options.severities_of(entry)), m), "bif"
    if options.noise and context.variant != DENSE:
        yield from ((f"noise/{name}", (len(options.noise), m), "f") for name in ("match", "distance"))
    for asked in options.breaking:
        if asked.corruption not in failed and record[BREAKING + asked.corruption]["error"] is None:
            severities = record[BREAKING + asked.corruption]["severities"]
            yield BREAKING + asked.corruption, (len(severities), m), "b"
    if facts.foreign:
        scored = (facts.n + sum(facts.foreign.values()),)
        yield from ((f"ood/{name}", scored, "f") for name in options.detectors if name not in record["detectors"])
    if context.variant == DENSE:
        yield from _due_of_data(context, options, failed)


def _due_of_data(context: Context, options: Options, failed: set[str]) -> Iterator[Due]:
    """What has to be kept of the data themselves."""
    facts = context.facts
    for place, size in enumerate(facts.shifted.values()):
        yield f"targets/{place}", (size,), "biuf"
        yield f"groups/{place}", (size,), "U"
    if options.corruptions or options.noise or options.counterexamples is not None:
        yield "rows", (min(facts.n, options.most),), "i"
    whole = [entry for entry in options.samplings if entry.called not in failed]
    cut = [sampled(entry.called, level) for entry in whole for level in options.severities_of(entry)]
    yield from ((f"part/{name}", (facts.n,), "b") for name in (*parts(options.windows), *cut))
    if options.period is not None:
        yield "periods", (facts.n,), "i"


def _failed(record: Mapping[str, Any]) -> set[str]:
    return {note["label"] for note in record.get("corruptions", []) if note["error"] is not None}


def _values(context: Context, options: Options) -> Iterator[str]:
    """Contradictions in arrays that are of the right form."""
    assert context.observed is not None
    record, arrays, facts = context.observed.record, context.observed.arrays, context.facts
    if context.variant == DENSE:
        yield from _data(context, options)
    failed = _failed(record)
    if facts.task != "regression":
        for entry in options.inputs:
            if entry.called not in failed:
                found = {name: arrays[f"{CELL}{entry.called}/{name}"] for name in NAMES}
                yield from _answers(entry.called, found, len(facts.classes))
                yield from _top(entry.called, found, context)
    yield from _breaks(context, options, failed)
    yield from _foreign(context, options)
    for name, most in (("noise/match", 1.0), ("noise/distance", 2**0.5)):
        if name in arrays and not _within(arrays[name], 0.0, most):
            yield f"{name}: some are outside [0, {most:g}]"
    for asked in options.breaking:
        severities = record.get(BREAKING + asked.corruption, {}).get("severities")
        if severities is not None and (severities[0] != 0 or (np.diff(severities) <= 0).any()):
            yield f"{BREAKING}{asked.corruption}: its severities do not rise from 0"
    if options.counterexamples is not None and context.variant != DENSE:
        for one in record["search"]["found"]:
            if not 0 <= one["example"] < facts.n or one["dense"] == one["variant"]:
                yield "a counterexample is none"


def _top(label: str, found: Mapping[str, NDArray[Any]], context: Context) -> Iterator[str]:
    """Of more than two classes the answer is the most probable one, whatever the threshold."""
    given = context.siblings[DENSE].observed
    if context.facts.task != "multiclass" or given is None:
        return
    right = found["answers"] == context.examples.targets[given.arrays["rows"]][None]
    if not np.array_equal(right, found["top"]):
        yield f"{label}: its answers are not those of its confidences"


def _breaks(context: Context, options: Options, failed: set[str]) -> Iterator[str]:
    """Where the search for a breaking severity passed severities that were measured, it saw the same."""
    assert context.observed is not None
    arrays, record, given = context.observed.arrays, context.observed.record, context.siblings[DENSE].observed
    for asked in options.breaking:
        key = BREAKING + asked.corruption
        if key not in arrays or asked.corruption in failed or given is None:
            continue
        rows = given.arrays["rows"]
        targets = context.examples.targets[rows]
        entry = next(one for one in options.inputs if one.called == asked.corruption)
        levels = options.severities_of(entry)
        answers = arrays[f"{CELL}{asked.corruption}/answers"]
        known = {0.0: context.predictions.labels[rows] == targets}
        known |= {float(level): answers[place] == targets for place, level in enumerate(levels)}
        for severity, hits in zip(record[key]["severities"], arrays[key], strict=True):
            if severity in known and not np.array_equal(hits, known[severity]):
                yield f"{key}: at severity {severity:g} it is right on others than its answers are"


def _foreign(context: Context, options: Options) -> Iterator[str]:
    """Scores of the test set that follow from the outputs."""
    from pruneproof.shift import detectors

    assert context.observed is not None
    simple = {"msp": detectors.msp, "max_logit": detectors.max_logit, "energy": detectors.energy}
    for name in options.detectors:
        found = context.observed.arrays.get(f"ood/{name}")
        if name in simple and found is not None:
            due = simple[name](context.predictions.outputs)
            if not np.allclose(found[: context.facts.n], due, rtol=1e-9, atol=1e-12):
                yield f"ood/{name}: the scores of the test set do not follow from the outputs"


def _data(context: Context, options: Options) -> Iterator[str]:
    assert context.observed is not None
    arrays, n = context.observed.arrays, context.facts.n
    for place, name in enumerate(context.facts.shifted):
        if (
            context.facts.task != "regression"
            and not np.isin(arrays[f"targets/{place}"], range(len(context.facts.classes))).all()
        ):
            yield f"{name}: some targets are no classes"
    for window, ends in options.windows.items():
        count: Any = sum(arrays[f"part/{name}"].astype(int) for name in parts({window: ends}))
        if (count != 1).any():
            yield f"window {window}: some examples are in none of its parts, or in two"
    if "rows" in arrays:
        rows = arrays["rows"]
        if (np.diff(rows) <= 0).any() or rows.min() < 0 or rows.max() >= n:
            yield f"the examples that were corrupted are not {min(n, options.most)} of the test set"
    if "periods" in arrays:
        named = len(context.observed.record["periods"])
        if not np.array_equal(np.unique(arrays["periods"]), np.arange(named)):
            yield f"the periods of the examples are not the {named} named ones"


def _answers(label: str, found: Mapping[str, NDArray[Any]], classes: int) -> Iterator[str]:
    if not _within(found["answers"], 0, classes - 1):
        yield f"{label}: some answers are no classes"
    if not _within(found["confidence"], 1 / classes - 1e-5, 1 + 1e-5):
        yield f"{label}: some confidences are none of {classes} classes"
    if not _within(found["brier"], -1e-5, 1 + 1e-5):
        yield f"{label}: some Brier losses are outside [0, 1]"


def _within(values: NDArray[Any], low: float, high: float) -> bool:
    return bool(((values >= low) & (values <= high)).all())
