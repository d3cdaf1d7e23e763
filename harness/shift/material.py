"""The subject's examples as corruptions need them, and what cannot be measured on them, refused beforehand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from pruneproof import domain, inference
from pruneproof.corruptions import Kind, Named, Resampling
from pruneproof.errors import MeasurementError, PolicyError, PruneProofError, SubjectError
from pruneproof.shift import entries, naming, windows
from pruneproof.shift.entries import Entry
from pruneproof.shift.ground import Ground
from pruneproof.subject import Data, Subject

if TYPE_CHECKING:
    from pathlib import Path

    from pruneproof.checking import Loaded
    from pruneproof.suites.shift import Options

MOST_REFERENCE = 10_000
"""Clean examples that spreads and quantiles are taken from."""


@dataclass(frozen=True, eq=False)
class Ready:
    """A corruption of the policy, ready to be applied.

    Args:
        severities: at which it is measured.
    """

    label: str
    found: Named
    options: BaseModel
    severities: tuple[int, ...]


class Material:
    """The inputs of a subject that are corrupted.

    Args:
        subject: checked.
        options: of the suite.
        classes: names of the classes.

    Raises:
        PruneProofError: it cannot be said which inputs, or what they may be.
    """

    def __init__(self, subject: Subject, options: Options, classes: tuple[str, ...] = ()) -> None:
        self.subject = subject
        self.stated = _stated(subject, options.bounds)
        first, _ = next(inference.batches(subject.test, 1))
        self.key = _key(first, options.corrupted, isinstance(self.stated, domain.Tokens))
        one = self.pick(first)
        kind = _kind(self.stated, one)
        self.ground = Ground(
            kind=kind,
            shape=tuple(one.shape[1:]),
            dtype=one.dtype,
            domain=self.stated,
            reference=self._reference(),
            test=self._whole() if kind == "table" else None,
            missing=subject.allow_missing,
            classes=classes,
        )

    def pick(self, inputs: Any) -> torch.Tensor:
        """The input that is corrupted, of one batch, on the CPU."""
        found: torch.Tensor = inputs if self.key is None else inputs[self.key]
        return found.detach().cpu()

    def put(self, inputs: Any, corrupted: torch.Tensor) -> Any:
        """The batch with ``corrupted`` in the place of what :meth:`pick` gives; copies, as models may change them."""
        if self.key is None:
            return corrupted.clone()
        whole = inference.each(inputs, lambda part: part.detach().clone())
        if isinstance(whole, Mapping):
            return {**whole, self.key: corrupted.clone()}
        return tuple(corrupted.clone() if place == self.key else part for place, part in enumerate(whole))

    def batches(self, rows: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """``(rows, inputs)`` of the test set, ``size`` examples at a time."""
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            yield some, taken(self.subject.test, some)

    def ready(self, entry: Entry, severities: tuple[int, ...], folder: Path | None = None) -> Ready:
        """A corruption, its parameters checked against these inputs.

        Args:
            folder: that a corruption of the user's own is imported from.

        Raises:
            PruneProofError: it cannot be loaded, or does not know them.
        """
        found = entries.named(entry.name) if entry.load is None or folder is None else _loaded(entry, folder)
        try:
            own = entries.options(found, entry.own)
        except ValueError as error:
            raise PolicyError(f"corruption '{entry.called}': {entries.said(error)}", "correct its parameters") from None
        if self.ground.kind not in found.kinds:
            able = [name for name in entries.names() if self.ground.kind in entries.named(name).kinds]
            raise PolicyError(
                f"corruption '{entry.called}' does not know inputs of kind '{self.ground.kind}'",
                f"use {', '.join(able)}",
            )
        reason = found.refuses(self.ground, own)
        if reason is not None:
            raise PolicyError(f"corruption '{entry.called}': {reason}", "leave it out, or state what it needs")
        return Ready(entry.called, found, own, severities)

    def _reference(self) -> torch.Tensor:
        data = self.subject.calibration or self.subject.test
        parts: list[torch.Tensor] = []
        n = 0
        for inputs, _ in inference.batches(data, max(self.subject.batch_size, 256)):
            part = self.pick(inputs)
            if parts and part.shape[1:] != parts[0].shape[1:]:
                raise SubjectError(
                    f"examples have shapes {tuple(parts[0].shape[1:])} and {tuple(part.shape[1:])}",
                    "corruptions need examples of one shape: pad or crop them",
                )
            parts.append(part)
            n += len(part)
            if n >= MOST_REFERENCE:
                break
        return torch.cat(parts)[:MOST_REFERENCE].clone()

    def _whole(self) -> torch.Tensor:
        size = max(self.subject.batch_size, 1024)
        return torch.cat([self.pick(inputs) for inputs, _ in inference.batches(self.subject.test, size)])


def check(loaded: Loaded, options: Options) -> None:
    """Refuses what cannot be measured on a subject.

    Raises:
        PruneProofError: with what can.
    """
    subject, facts = loaded.subject, loaded.examples.facts
    if options.by_time is not None:
        when = windows.times(subject.test, options.by_time)
        for name, inside in windows.cut(when, options.windows):
            if not inside.any():
                raise PolicyError(
                    f"window '{name}' holds no test example: they are from {when.min()} to {when.max()}",
                    'name a time in which there are some; "" for a window that starts or ends with the data',
                )
        if options.period is not None:
            windows.periods(when, options.period)
    tilted = [naming.sampled(one.called, level) for one in options.samplings for level in options.severities_of(one)]
    shifts = [
        *facts.shifted, *naming.parts(options.windows), *tilted, *(entry.called for entry in options.corruptions),
    ]  # fmt: skip
    for name in (*shifts, naming.NOMINAL, naming.CORRUPTED):
        if shifts.count(name) > (name not in (naming.NOMINAL, naming.CORRUPTED)):
            raise PolicyError(f"several shifts are called '{name}'", "give one of them another name or label")
    for name in facts.shifted:
        groups(subject.shifted[name], facts.shifted[name], options, name)
    if facts.foreign and {"mahalanobis", "knn"} & set(options.detectors):
        _features(loaded, options)
    needs_inputs = options.corruptions or options.noise or options.counterexamples
    if not (needs_inputs or facts.shifted or facts.foreign or options.by_time):
        raise PolicyError(
            "[suites.shift] has nothing to measure: the subject has no shifted and no foreign set",
            "name corruptions = […], windows of time, or give Subject(shifted={…})",
        )
    if needs_inputs:
        _inputs(loaded, options)


def _inputs(loaded: Loaded, options: Options) -> None:
    from pruneproof.shift import limits

    material = Material(loaded.subject, options, loaded.examples.facts.classes)
    limits.check(material)
    for entry in options.corruptions:
        if entry.load is None:
            material.ready(entry, options.severities_of(entry))
    facts = loaded.examples.facts
    if facts.task == "regression" and (options.breaking or options.noise or options.counterexamples):
        raise PolicyError(
            "'breaking', 'noise' and 'counterexamples' compare classes, and this is a regression", "leave them out"
        )
    if options.counterexamples is not None and material.key is not None:
        raise PolicyError(
            "'counterexamples' are looked for where a model has one input, and this one has several", "leave them out"
        )
    if options.noise and material.ground.kind not in ("image", "signal"):
        raise PolicyError(
            f"'noise' is uniform in the range of the inputs, which those of kind '{material.ground.kind}' do not have",
            "use the corruption feature_noise for tables, or leave it out",
        )


def _features(loaded: Loaded, options: Options) -> None:
    from pruneproof.shift import features

    if loaded.subject.calibration is None:
        raise SubjectError(
            "detectors 'mahalanobis' and 'knn' learn what is usual from calibration examples, and there are none",
            "give Subject(calibration=Data(…)), or leave these detectors out",
        )
    first, _ = next(inference.batches(loaded.subject.test, 4))
    with features.tap_of(loaded.subject.model, first, options.layer) as tap:
        inference.forward(loaded.subject.model, Data(first), 4)
        tap.take()


def groups(data: Data, n: int, options: Options, name: str) -> NDArray[np.str_]:
    """``(n,)`` the group of each example: its combination of the columns ``by``.

    Raises:
        SubjectError: the set has no such column.
    """
    if not options.by:
        return np.full(n, "", dtype=np.str_)
    from pruneproof.checking import segment_frame

    try:
        frame = segment_frame(data, n, options.by)
    except SubjectError as error:
        raise SubjectError(f"the shifted set '{name}': {error.cause}", error.remedy) from None
    return np.array([" · ".join(row) for row in frame.itertuples(index=False)], dtype=np.str_)


def taken(data: Data, rows: NDArray[np.int64]) -> Any:
    """The inputs of some examples; copies."""
    if isinstance(data.inputs, torch.Tensor | Mapping | tuple | list):
        index = torch.as_tensor(rows, dtype=torch.int64)
        return inference.each(data.inputs, lambda part: part[index].detach().clone())
    some = Data(torch.utils.data.Subset(data.inputs, rows.tolist()))
    return next(inference.batches(some, len(rows)))[0]


def _loaded(entry: Entry, folder: Path) -> Named:
    from pruneproof.loading import resolve

    assert entry.load is not None
    found = resolve(entry.load, folder, key="corruptions load")
    if not entries.is_corruption(found):
        raise PolicyError(
            f"corruption '{entry.called}': '{entry.load}' returned {type(found).__name__}, which is no corruption",
            "return an object with name, kinds, options, refuses, parameters, and apply or kept",
        )
    if isinstance(found, Resampling):
        raise PolicyError(
            f"corruption '{entry.called}': '{entry.load}' returned a resampling", "load corruptions that change inputs"
        )
    return found  # type: ignore[no-any-return]


def _stated(subject: Subject, bounds: tuple[float, float] | None) -> domain.Box | domain.Table | domain.Tokens:
    if subject.domain is not None and bounds is not None:
        raise PolicyError("both the subject and [suites.shift] bounds state a domain", "leave 'bounds' out")
    if subject.domain is not None:
        return subject.domain
    if bounds is None:
        raise SubjectError(
            "the subject does not say what inputs it can meet, and corruptions need to know",
            "give Subject(domain=pruneproof.Box(low, high)), a Table or Tokens, or [suites.shift] bounds = [low, high]",
        )
    return domain.Box(*bounds)


def _key(inputs: Any, corrupted: str | None, tokens: bool) -> str | int | None:
    if isinstance(inputs, torch.Tensor):
        if corrupted is not None:
            raise SubjectError(f"no input '{corrupted}': the subject has one input", "leave out 'corrupted'")
        return None
    named: dict[str | int, Any] = dict(inputs) if isinstance(inputs, Mapping) else dict(enumerate(inputs))
    able = [key for key, part in named.items() if isinstance(part, torch.Tensor)]
    if corrupted is not None:
        for key in able:
            if str(key) == corrupted:
                return key
        raise SubjectError(f"no input '{corrupted}'", f"name one of {', '.join(map(str, able))}")
    if tokens and "input_ids" in able:
        return "input_ids"
    fit = [key for key in able if named[key].is_floating_point() != tokens]
    if len(fit) != 1:
        raise SubjectError(
            f"{len(fit)} of the subject's inputs ({', '.join(map(str, named))}) could be corrupted",
            "name one: [suites.shift] corrupted = …",
        )
    return fit[0]


def _kind(stated: domain.Box | domain.Table | domain.Tokens, one: torch.Tensor) -> Kind:
    if isinstance(stated, domain.Tokens):
        return "tokens"
    if isinstance(stated, domain.Table):
        return "table"
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in (stated.low, stated.high))
    try:
        torch.broadcast_to(low, one.shape[1:])
        torch.broadcast_to(high, one.shape[1:])
    except RuntimeError:
        raise SubjectError(
            f"bounds of shapes {tuple(low.shape)} and {tuple(high.shape)} for examples of shape {tuple(one.shape[1:])}",
            "give numbers, or tensors that broadcast to one example: (channels, 1, 1) for bounds channel by channel",
        ) from None
    if not (torch.isfinite(low).all() and torch.isfinite(high).all() and (low < high).all()):
        raise SubjectError(
            "the bounds of the domain are not finite, or the wrong way round", "state the range of the data"
        )
    if one.ndim == 4:
        return "image"
    if one.ndim in (2, 3):
        return "signal"
    raise SubjectError(
        f"one example has shape {tuple(one.shape[1:])}: neither an image (channels, height, width) nor a signal "
        "(samples,) or (channels, samples)",
        "corruptions know these, tables and tokens",
    )


def sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most ``most`` of ``n`` test examples, ascending; a random sample where there are more."""
    if n <= most:
        return np.arange(n, dtype=np.int64)
    drawn = np.random.default_rng([seed, 0x5417]).permutation(n)[:most]
    return np.sort(drawn).astype(np.int64)


def told(label: str, error: Exception) -> str:
    """Why a corruption has no numbers, in one line."""
    if isinstance(error, PruneProofError):
        return f"{error.cause} ({error.remedy})"
    return f"corruption '{label}' raised {type(error).__name__}: {error}"


def sound(label: str, clean: torch.Tensor, found: Any, ground: Ground) -> torch.Tensor:
    """What a corruption returned, of the form, and in the domain, of what it was given.

    Raises:
        MeasurementError: it is not.
    """
    from pruneproof.shift import limits

    if not isinstance(found, torch.Tensor) or found.shape != clean.shape or found.dtype != clean.dtype:
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise MeasurementError(
            f"corruption '{label}' returned {what} for {clean.dtype} {tuple(clean.shape)}",
            "return a tensor of the shape and dtype of the clean one",
        )
    limits.hold(label, clean, found, ground)
    return found.detach().clone()  # a corruption may write into the same memory again


def plain(label: str, parameters: Mapping[str, Any]) -> dict[str, float | int | str]:
    """What a severity comes to, as plain values.

    Raises:
        MeasurementError: some of it is none.
    """
    found: dict[str, float | int | str] = {}
    for name, value in parameters.items():
        one = value.item() if hasattr(value, "item") else value  # a number of numpy's or torch's
        if not isinstance(one, int | float | str) or (isinstance(one, float) and not np.isfinite(one)):
            raise MeasurementError(
                f"corruption '{label}' says '{name}' is {one!r}", "give finite numbers or texts as parameters"
            )
        found[str(name)] = one
    return found


def first(rows: NDArray[np.int64], bad: torch.Tensor) -> int:
    """Position in the test set of the first example that is ``bad``."""
    return int(next(itertools.compress(rows.tolist(), bad.tolist())))
