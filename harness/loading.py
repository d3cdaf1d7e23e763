"""From the policy's ``load`` to a subject that later stages can rely on."""

from __future__ import annotations

import importlib
import numbers
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pruneproof import digests, inference, policy
from pruneproof.errors import MeasurementError, PruneProofError, SubjectError
from pruneproof.isolation import importing_from
from pruneproof.outcomes import Examples, Floats
from pruneproof.plan import copied
from pruneproof.policy import Policy
from pruneproof.subject import Data, Subject
from pruneproof.suite import Facts, Task

MISSING = "(missing)"
_FORMS = "give a tensor, a mapping or tuple of tensors, or a Dataset"
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


def load(asked: Policy) -> Loaded:
    """The policy's subject, checked.

    Raises:
        SubjectError: it cannot be imported, raises, or does not fit what the audit needs.
    """
    subject = resolve(asked.subject.load, asked.folder)
    if not isinstance(subject, Subject):
        raise SubjectError(
            f"[subject] load = '{asked.subject.load}' returned {type(subject).__name__}, not a pruneproof.Subject",
            "return pruneproof.Subject(model=…, task=…, test=pruneproof.Data(…))",
        )
    return check(subject, columns=segment_columns(asked))


def segment_columns(asked: Policy) -> tuple[str, ...] | None:
    """Segment columns that the suites need; ``None``: all of the data's."""
    needed: list[str] = []
    for name, entry in asked.suites.items():
        columns = policy.suite(name).columns(entry.options)
        if columns is None:
            return None
        needed.extend(column for column in columns if column not in needed)
    return tuple(needed)


def resolve(reference: str, folder: Path) -> Any:
    """Imports ``module:function`` with ``folder`` first on the path, and calls it.

    Raises:
        SubjectError: the module or the function does not exist, or raised.
    """
    with importing_from(str(folder)):
        return _called(reference, folder)


def _called(reference: str, folder: Path) -> Any:
    name, _, attribute = reference.partition(":")
    try:
        module = _import(name, folder)
    except ModuleNotFoundError as error:
        missing = error.name or name
        remedy = f"the policy's folder comes first on the import path: is there a {missing.split('.')[0]}.py beside it?"
        raise SubjectError(f"load = '{reference}': no module named '{missing}'", remedy) from None
    except (Exception, SystemExit) as error:  # a script without a main guard exits
        raise SubjectError(
            f"load = '{reference}': importing '{name}' raised {type(error).__name__}: {error}", "mend that module"
        ) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SubjectError(f"load = '{reference}': '{name}' has no '{attribute}'", f"define {attribute}() in it")
        found = getattr(found, part)
    if not callable(found):
        raise SubjectError(
            f"load = '{reference}' is {type(found).__name__}, not a function", "name a function without arguments"
        )
    try:
        return found()
    except PruneProofError:
        raise
    except (Exception, SystemExit) as error:
        raise SubjectError(
            f"load = '{reference}' raised {type(error).__name__}: {error}", "make it run by itself in Python first"
        ) from error


def _import(name: str, folder: Path) -> Any:
    """Imports ``name``; what was loaded from elsewhere does not stand in for what lies in ``folder``.

    That holds for ``name`` itself, and for what it imports where an earlier policy's folder had the same name.
    """
    folder = folder.resolve()
    for path in folder.iterdir():
        root = path.stem if path.suffix == ".py" else path.name
        files = _files(root)
        if all(_beside(file, root, folder) for file in files):
            continue
        asked_for = root == name.partition(".")[0] and (path.suffix == ".py" or (path / "__init__.py").exists())
        if asked_for or any(_beside(file, root, earlier) for earlier in _folders for file in files):
            for other in _family(root):
                del sys.modules[other]
    _folders.add(folder)
    importlib.invalidate_caches()
    return importlib.import_module(name)


_folders: set[Path] = set()
"""Folders of the policies that this process loaded."""


def _family(root: str) -> list[str]:
    return [key for key in sys.modules if key.partition(".")[0] == root] if root in sys.modules else []


def _files(root: str) -> list[Path]:
    places = [getattr(sys.modules[name], "__file__", None) for name in _family(root)]
    return [Path(place).resolve() for place in places if place]


def _beside(file: Path, root: str, folder: Path) -> bool:
    return file.parent == folder or file.is_relative_to(folder / root)


def model(source: str, subject: Subject, folder: Path) -> torch.nn.Module:
    """A model that another tool pruned: ``module:function``, or a safetensors file on the subject's architecture.

    Raises:
        SubjectError: it cannot be loaded, or the checkpoint does not fit the architecture.
    """
    if not source.endswith(".safetensors"):
        found = resolve(source, folder)
        if not isinstance(found, torch.nn.Module):
            raise SubjectError(f"load = '{source}' returned {type(found).__name__}", "return a torch.nn.Module")
        return found
    path = folder / source
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SubjectError(f"checkpoint {source}: {error}", "name a readable .safetensors file") from None
    built = copied(subject.model)
    try:
        unmatched = built.load_state_dict(state, strict=False)
    except RuntimeError as error:
        problem = str(error)
    else:
        missing = [name for name in unmatched.missing_keys if not _shared(built, name, state)]
        if not missing and not unmatched.unexpected_keys:
            return built
        problem = f"missing {missing}, unexpected {unmatched.unexpected_keys}"
    raise SubjectError(
        f"checkpoint {source} does not fit the subject's architecture: {textwrap.shorten(problem, 400)}",
        "use load = 'module:function' for a model of another shape",
    )


def _shared(model: torch.nn.Module, name: str, state: Mapping[str, torch.Tensor]) -> bool:
    """Whether ``state`` gives the tensor under another name: a file holds a shared tensor once."""
    tensors = model.state_dict(keep_vars=True)
    return any(tensors[name] is tensors[other] for other in state if other in tensors)


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
    outputs = _probe(subject)
    classes = _classes(subject, outputs, targets)
    for name, found in targets.items():
        if subject.task == "classification":
            _within(name, found, classes)
    segments = _segments(subject.test, len(targets["test"]), columns)
    ids = subject.test.ids if subject.test.ids is not None else range(len(targets["test"]))
    if len(ids) != len(targets["test"]):
        raise SubjectError(f"test has {len(targets['test'])} examples and {len(ids)} ids", "give one id an example")
    facts = Facts(_task(subject, classes), len(targets["test"]), classes, _counts(segments))
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
        data_sizes={name: len(found) for name, found in targets.items()},
    )


def _sets(subject: Subject) -> dict[str, Data]:
    """The subject's data sets by name."""
    sets = {"test": subject.test}
    if subject.calibration is not None:
        sets["calibration"] = subject.calibration
    for name in ("test", "calibration"):
        if name in subject.shifted:
            raise SubjectError(f"a shifted set is called '{name}'", "give it another name")
    sets |= subject.shifted
    for name, data in sets.items():
        if not isinstance(data, Data):
            raise SubjectError(f"{name} is {type(data).__name__}", "give pruneproof.Data(inputs, targets)")
    return sets


def _probe(subject: Subject) -> Floats:
    """The model's outputs for the first examples: shows what it returns."""
    first, _ = next(inference.batches(subject.test, min(4, subject.batch_size)))
    try:
        return inference.forward(subject.model, replace_inputs(subject.test, first), 4)
    except MeasurementError as error:
        raise SubjectError(f"the dense model does not fit its test set: {error.cause}", error.remedy) from error


def replace_inputs(data: Data, inputs: Any) -> Data:
    """``data`` with other inputs and nothing else."""
    return replace(data, inputs=inputs, targets=None, segments=None, ids=None)


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


def _segments(data: Data, n: int, columns: Sequence[str] | None) -> pd.DataFrame:
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
