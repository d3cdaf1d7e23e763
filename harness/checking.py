"""What an audit needs to hold of a subject, checked once, so that later stages can rely on it."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from pruneproof import digests, inference
from pruneproof.errors import MeasurementError, SubjectError
from pruneproof.outcomes import Examples, Floats
from pruneproof.subject import Data, Subject
from pruneproof.suite import Facts, Task
from pruneproof.surgery import copied

MISSING = "(missing)"
_FORMS = "give a tensor, a mapping or tuple of tensors, or a Dataset"
KNOWN_SETS = ("test", "calibration", "train")
FOREIGN = "foreign/"
"""Before the names of sets of inputs that the model was not made for, where they stand beside other sets."""
MOST_VALUES = 200
"""A segment column with more values than this is a number that was not put into bands."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A subject that was checked: data of the right form, finite, labels within the classes.

    Args:
        examples: the test set; its threshold is not chosen yet where calibration data choose it.
    """

    subject: Subject
    examples: Examples
    model_digest: str
    data_digests: dict[str, str]
    data_sizes: dict[str, int]


def check(subject: Subject, columns: Sequence[str] | None = None) -> Loaded:
    """Everything that an audit needs to hold of a subject; ``columns``: the segment columns needed, or all.

    Raises:
        SubjectError: some of it does not hold; the message says what and where.
    """
    if not isinstance(subject.model, torch.nn.Module):
        raise SubjectError(f"model is {type(subject.model).__name__}", "give a torch.nn.Module")
    if subject.task not in ("classification", "regression"):
        raise SubjectError(f"task '{subject.task}'", "use 'classification' or 'regression'")
    if not isinstance(subject.batch_size, int) or subject.batch_size < 1:
        raise SubjectError(f"batch_size {subject.batch_size!r}", "use a whole number from 1")
    sets = _sets(subject)
    targets = {name: _checked(name, data, subject) for name, data in sets.items()}
    for name in sets:
        if name not in KNOWN_SETS:
            _like_test(name, sets[name], subject)
    outputs = _probe(subject)
    classes = _classes(subject, outputs, targets)
    for name, found in targets.items():
        if subject.task == "classification" and not name.startswith(FOREIGN):
            _within(name, found, classes)
    segments = segment_frame(subject.test, len(targets["test"]), columns)
    ids = subject.test.ids if subject.test.ids is not None else range(len(targets["test"]))
    if len(ids) != len(targets["test"]):
        raise SubjectError(f"test has {len(targets['test'])} examples and {len(ids)} ids", "give one id an example")
    sizes = {name: len(found) for name, found in targets.items()}
    facts = facts_of(_task(subject, classes), classes, _counts(segments), sizes)
    _threshold(subject, facts)
    known = targets["test"]
    return Loaded(
        subject=subject,
        examples=Examples(
            ids=np.array([str(name) for name in ids]),
            targets=known.astype(np.int64) if subject.task == "classification" else known.astype(np.float64),
            segments=segments,
            facts=facts,
            threshold=float(subject.threshold) if isinstance(subject.threshold, numbers.Real) else None,
        ),
        model_digest=digests.of_model(subject.model),
        data_digests={name: digests.of_data(sets[name], subject.batch_size) for name in targets},
        data_sizes=sizes,
    )


def facts_of(
    task: Task, classes: tuple[str, ...], segments: Mapping[str, Mapping[str, int]], sizes: Mapping[str, int]
) -> Facts:
    """What is known of a subject's data, from the ``sizes`` of its sets; further sets in the order of the alphabet."""
    further = sorted(name for name in sizes if name not in KNOWN_SETS)
    return Facts(
        task,
        sizes["test"],
        classes,
        segments,
        {name: sizes[name] for name in further if not name.startswith(FOREIGN)},
        {name.removeprefix(FOREIGN): sizes[name] for name in further if name.startswith(FOREIGN)},
    )


def _sets(subject: Subject) -> dict[str, Data]:
    """The subject's data sets by name."""
    sets = {"test": subject.test}
    if subject.calibration is not None:
        sets["calibration"] = subject.calibration
    if subject.train is not None:
        sets["train"] = subject.train
    for kind in ("shifted", "foreign"):
        if not isinstance(getattr(subject, kind), Mapping):
            raise SubjectError(
                f"{kind} is {type(getattr(subject, kind)).__name__}", "give a mapping: {name: pruneproof.Data(…)}"
            )
    for name in subject.shifted:
        if name in KNOWN_SETS or name.startswith(FOREIGN):
            raise SubjectError(f"a shifted set is called '{name}'", "give it another name")
    sets |= subject.shifted
    sets |= {FOREIGN + name: data for name, data in subject.foreign.items()}
    for name, data in sets.items():
        if not isinstance(data, Data):
            raise SubjectError(f"{name} is {type(data).__name__}", "give pruneproof.Data(inputs, targets)")
    return sets


def _probe(subject: Subject) -> Floats:
    """The model's outputs for the first examples: shows what it returns."""
    first, _ = next(inference.batches(subject.test, min(4, subject.batch_size)))
    try:
        return inference.forward(copied(subject.model), replace_inputs(subject.test, first), 4)
    except MeasurementError as error:
        raise SubjectError(f"the dense model does not fit its test set: {error.cause}", error.remedy) from error


def replace_inputs(data: Data, inputs: Any) -> Data:
    """``data`` with other inputs and nothing else."""
    return replace(data, inputs=inputs, targets=None, segments=None, ids=None)


def _like_test(name: str, data: Data, subject: Subject) -> None:
    """Refuses inputs of another form than the test set's: other parts, other columns, other channels."""
    given, _ = next(_read(name, data, 1))
    known, _ = next(_read("test", subject.test, 1))
    if _keys(given) != _keys(known):
        raise SubjectError(
            f"{name} inputs are {_form(given)}, those of the test set {_form(known)}", "give every set the same inputs"
        )
    pairs = [(given[key], known[key]) for key in known] if isinstance(known, Mapping) else None
    for mine, theirs in pairs or zip(inference.tensors(given), inference.tensors(known), strict=True):
        floating = theirs.is_floating_point()
        if mine.dtype != theirs.dtype:
            raise SubjectError(
                f"{name} inputs are {mine.dtype}, those of the test set {theirs.dtype}", "give them the same dtype"
            )
        if mine.ndim != theirs.ndim or (floating and mine.ndim > 1 and mine.shape[1] != theirs.shape[1]):
            raise SubjectError(
                f"one example of the {name} set has shape {tuple(mine.shape[1:])}, of the test set "
                f"{tuple(theirs.shape[1:])}",
                "give it the columns, or channels, of the test set, in their order",
            )


def _keys(inputs: Any) -> frozenset[Any]:
    """Keys of a mapping, positions of a tuple."""
    if isinstance(inputs, Mapping):
        return frozenset(inputs)
    return frozenset(range(len(inference.tensors(inputs))))


def _form(inputs: Any) -> str:
    if isinstance(inputs, Mapping):
        return f"a mapping of {', '.join(map(str, inputs))}"
    return f"{len(inference.tensors(inputs))} tensors"


def _size(name: str, data: Data) -> int:
    try:
        return inference.size(data)
    except (TypeError, ValueError) as error:
        raise SubjectError(f"{name} inputs: {error}", _FORMS) from None


def _read(name: str, data: Data, batch_size: int) -> Iterator[tuple[Any, Any]]:
    try:
        yield from inference.batches(data, batch_size)
    except Exception as error:
        raise SubjectError(f"reading the {name} set raised {type(error).__name__}: {error}", _FORMS) from error


def _checked(name: str, data: Data, subject: Subject) -> np.ndarray[Any, Any]:
    """Targets ``(n,)`` of one data set, whose inputs are finite."""
    n = _size(name, data)
    if n == 0:
        raise SubjectError(f"the {name} set is empty", "give at least one example; a verdict needs hundreds")
    found, at = [], 0
    for inputs, targets in _read(name, data, max(subject.batch_size, 1024)):
        tensors = inference.tensors(inputs)
        if not tensors:
            raise SubjectError(f"{name} inputs hold no tensor", _FORMS)
        for tensor in tensors:
            _finite(name, tensor, at, subject.allow_missing)
        at += len(tensors[0])
        if targets is not None:
            found.append(targets)
    if name.startswith(FOREIGN) or (data.targets is None and not found and name == "train"):
        return np.zeros(n)  # neither reads them, but for training that is more than distillation
    if data.targets is None and not found:
        raise SubjectError(f"the {name} set has no targets", "give Data(inputs, targets)")
    try:
        array = _array(data.targets) if data.targets is not None else np.concatenate([_array(part) for part in found])
    except (TypeError, ValueError) as error:
        raise SubjectError(f"{name} targets are not numbers: {error}", "encode classes as 0, 1, 2, …") from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (n,):
        raise SubjectError(f"{name} has {n} examples and targets of shape {array.shape}", "give one target an example")
    if array.dtype.kind not in "iufb" or not np.isfinite(array.astype(np.float64)).all():
        raise SubjectError(f"{name} targets are not finite numbers ({array.dtype})", "encode classes as 0, 1, 2, …")
    return array


def _array(targets: Any) -> np.ndarray[Any, Any]:
    return np.asarray(targets.detach().cpu() if isinstance(targets, torch.Tensor) else targets)


def _finite(name: str, tensor: torch.Tensor, at: int, allow_missing: bool) -> None:
    if not tensor.is_floating_point():
        return
    bad = torch.isinf(tensor) if allow_missing else ~torch.isfinite(tensor)
    if bad.any():
        row = int(bad.reshape(len(tensor), -1).any(dim=1).nonzero()[0])
        missing = bool(tensor[row].isnan().any()) and not allow_missing
        raise SubjectError(
            f"{name} inputs hold {'NaN' if missing else 'infinity'}, first in example {at + row}",
            "clean them; a model that deals with missing values says so: Subject(allow_missing=True)"
            if missing
            else "clean them: find what overflowed or was divided by zero",
        )


def _classes(subject: Subject, outputs: Floats, targets: dict[str, np.ndarray[Any, Any]]) -> tuple[str, ...]:
    width = outputs.shape[1]
    if subject.task == "regression":
        if width != 1:
            raise SubjectError(
                f"the model returns {width} numbers an example", "regression audits one number an example"
            )
        return ()
    count = 2 if width == 1 else width
    if subject.classes is None:
        return tuple(str(index) for index in range(count))
    if isinstance(subject.classes, str) or not hasattr(subject.classes, "__len__"):
        raise SubjectError(f"classes is {type(subject.classes).__name__}", "give the class names as a list")
    names = tuple(str(name) for name in subject.classes)
    if len(names) != count or len(set(names)) != count:
        raise SubjectError(
            f"{len(set(names))} distinct class names for a model with {count} classes", "name each class once, in order"
        )
    return names


def _within(name: str, targets: np.ndarray[Any, Any], classes: tuple[str, ...]) -> None:
    outside = np.flatnonzero((targets < 0) | (targets >= len(classes)) | (targets != np.floor(targets)))
    if len(outside):
        raise SubjectError(
            f"{name} target {targets[outside[0]].item()!r} of example {outside[0]} is outside the classes "
            f"0 to {len(classes) - 1}",
            "encode classes as 0, 1, 2, … in the order of the model's outputs",
        )


def _task(subject: Subject, classes: tuple[str, ...]) -> Task:
    if subject.task == "regression":
        return "regression"
    return "binary" if len(classes) == 2 else "multiclass"


def _threshold(subject: Subject, facts: Facts) -> None:
    chosen = subject.threshold
    if chosen is None:
        return
    if facts.task != "binary":
        raise SubjectError(f"a threshold for a {facts.task} task", "leave threshold out: it is for two classes")
    if isinstance(chosen, str):
        if chosen not in ("f1", "balanced_accuracy"):
            raise SubjectError(f"threshold '{chosen}'", "use a number in (0, 1), 'f1' or 'balanced_accuracy'")
        if subject.calibration is None:
            raise SubjectError(f"threshold '{chosen}' without calibration data", "give Subject(calibration=Data(…))")
    elif not isinstance(chosen, numbers.Real) or not 0 < chosen < 1:
        raise SubjectError(f"threshold {chosen}", "use a probability in (0, 1), 'f1' or 'balanced_accuracy'")


def segment_frame(data: Data, n: int, columns: Sequence[str] | None) -> pd.DataFrame:
    """``n`` rows of text: the segment columns of a set of examples; ``None``: all of them.

    Raises:
        SubjectError: a column is missing, or is none that examples can be cut by.
    """
    given = data.segments
    if given is None:
        if columns:
            raise SubjectError(
                f"segments by {', '.join(columns)}, but the data have no segments", "give Data(segments=DataFrame)"
            )
        return pd.DataFrame(index=range(n))
    if not isinstance(given, pd.DataFrame):
        raise SubjectError(f"segments are {type(given).__name__}", "give a DataFrame, one row an example")
    if len(given) != n:
        raise SubjectError(f"segments of {len(given)} rows for {n} examples", "give one row an example")
    chosen = list(given.columns) if columns is None else list(columns)
    for column in chosen:
        if column not in given.columns:
            raise SubjectError(f"no segment column '{column}'", f"the data have: {', '.join(map(str, given.columns))}")
        if isinstance(given[column], pd.DataFrame):
            raise SubjectError(f"several segment columns are called '{column}'", "give each column a name of its own")
    return pd.DataFrame({str(column): _spelled(given[column]) for column in chosen}, index=range(n))


def _spelled(column: pd.Series[Any]) -> list[str]:
    if column.isna().all():
        raise SubjectError(f"segment column '{column.name}' is empty: every value is null", "fill it, or leave it out")
    values = [MISSING if missing else _text(value) for value, missing in zip(column, column.isna(), strict=True)]
    if len(set(values)) > MOST_VALUES:
        raise SubjectError(
            f"segment column '{column.name}' has {len(set(values))} values", "put it into bands, at most 200 values"
        )
    return values


def _text(value: object) -> str:
    """Whole floats without their point: a column of integers that lacks some values holds floats."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(float(value))
    return str(value)


def _counts(segments: pd.DataFrame) -> dict[str, dict[str, int]]:
    counted = {str(column): segments[column].value_counts() for column in segments.columns}
    return {
        column: {value: int(counts[value]) for value in sorted(map(str, counts.index), key=_natural)}
        for column, counts in counted.items()
    }


def _natural(value: str) -> tuple[bool, list[float], str]:
    """Bands by their numbers (``<20k``, ``20-40k``, ``>80k``), names by the alphabet."""
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", value)]
    named = value[:1].isalpha() or not numbers
    return named, [] if named else numbers, value


def chosen_threshold(loaded: Loaded, dense: Floats) -> float | None:
    """The operating point of a binary classifier, from the dense model's ``dense`` outputs on calibration data.

    The candidates are the midpoints between neighbouring scores; the first best is taken.
    """
    from sklearn.metrics import balanced_accuracy_score, f1_score

    from pruneproof.outcomes import Predictions

    subject, facts = loaded.subject, loaded.examples.facts
    if not isinstance(subject.threshold, str):
        return loaded.examples.threshold
    targets = _checked("calibration", cast(Data, subject.calibration), subject).astype(np.int64)
    if len(set(targets.tolist())) < 2:
        raise SubjectError("the calibration set holds one class only", "draw it so that both classes are in it")
    scores = Predictions(dense, facts, None).probabilities[:, 1]
    distinct = np.unique(scores)
    between = (distinct[:-1] + distinct[1:]) / 2
    steps = between[np.unique(np.linspace(0, len(between) - 1, min(len(between), 512)).astype(int))]
    if not len(steps):
        raise SubjectError("the dense model gives every calibration example the same score", "check the model")
    score = f1_score if subject.threshold == "f1" else balanced_accuracy_score
    return float(max(steps, key=lambda step: (score(targets, scores >= step), -abs(step - 0.5))))
