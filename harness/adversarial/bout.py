"""One attack class of torchattacks against one variant, in private: what it may touch, and what it leaves behind."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import BaseModel

from pruneproof import inference
from pruneproof.adversarial import signatures
from pruneproof.adversarial.arena import Arena, Stage
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.presented import Chart, Presented, rows_matter
from pruneproof.adversarial.published import budget
from pruneproof.adversarial.victim import Victim
from pruneproof.errors import MeasurementError, PruneProofError
from pruneproof.isolation import untouched_globals

SINGLE = frozenset({"FAB", "AutoAttack", "TIFGSM", "EADL1", "EADEN", "PIFGSM", "PIFGSMPP"})
"""Break on float64 (found by running them). They run in float32; the arena confirms in the model's own precision."""
LIFTED = frozenset({"CW", "EADL1", "EADEN", "UPGD"})
"""Multiply logits by one-hot labels and take the maximum, so that a right logit below 0 has no gradient: of a
one-logit model nothing would move, without a warning."""
MEMORY = 2**27
"""Numbers that a class may hold at once where it multiplies the batch: half a gigabyte of float32."""


class Bout:
    """One attack class against one victim.

    Args:
        name: of the class.
        options: its own parameters, as :func:`~pruneproof.adversarial.published.options` checked them.
        arena: whose space is a :class:`~pruneproof.adversarial.ball.Ball` that fits the class.
        victim: inside :meth:`~pruneproof.adversarial.victim.Victim.attacked`.

    Raises:
        MeasurementError: the subject has a criterion of its own: these classes know wrong classes alone.
    """

    def __init__(self, name: str, options: BaseModel, arena: Arena, victim: Victim) -> None:
        if victim.criterion is not None or not isinstance(arena.space, Ball):
            raise MeasurementError(
                f"{name} is run on classifiers with inputs in a box, and {victim.name} is none",
                "use the audit attack, which knows the subject's own criterion and space",
            )
        self.name, self.options, self.arena, self.victim = name, options, arena, victim
        self.ball = arena.space
        wide = arena.clean.dtype == torch.float64 and name not in SINGLE
        self.chart = Chart(
            self.ball,
            tuple(arena.clean.shape[1:]),
            torch.float64 if wide else torch.float32,
            inference.device_of(victim.model),
        )

    def fight(self, stage: Stage, rows: torch.Tensor) -> None:
        """Attacks ``rows`` in batches and submits what comes of it.

        Raises:
            MeasurementError: the class or the model raised; labels are no classes of the model.
        """
        with _private(seed=0), torch.no_grad():
            one = self.arena.clean[rows[:1]].clone()
            self.victim.work.forwards += 1
            classes = self.victim.scores(one, rows[:1]).shape[1]
            alone = rows_matter(self.victim, one) or getattr(self.options, "update_each_iteration", False)
        size = 1 if alone else self._batch(classes)
        for number, part in enumerate(torch.split(rows, size)):
            key = self.arena.generator("torchattacks", self.name, number)
            seed = int(torch.randint(2**31 - 1, (1,), generator=key))
            points = self._points(part, classes, seed)
            self.arena.submit(self.victim, stage, part, points)

    def _batch(self, classes: int) -> int:
        """As many examples as the victim takes, or fewer where the class holds several numbers for each of theirs."""
        elements = max(1, math.prod(self.chart.shape))
        if self.name == "SPSA":
            copies = int(getattr(self.options, "max_batch_size", 1))
            return max(1, min(self.victim.batch, MEMORY // (elements * copies)))
        if self.name in ("FAB", "AutoAttack"):
            return max(1, min(self.victim.batch, MEMORY // (elements * classes)))
        return self.victim.batch

    def _points(self, rows: torch.Tensor, classes: int, seed: int) -> torch.Tensor:
        """What the class makes of ``rows``, in the units of the data."""
        with _private(seed):
            clean = self.arena.clean[rows].clone()
            labels = self._labels(rows, classes)
            before = self.chart.images(clean)
            model = Presented(self.victim, self.chart, clean[:1], row=int(rows[0]), lifted=self.name in LIFTED)
            try:
                after = self._attack(model, classes, seed)(before.clone(), labels)
            except PruneProofError:
                raise
            except Exception as error:
                raise MeasurementError(
                    f"{self.name} raised {type(error).__name__} on {self.victim.name}: {error}",
                    "change its parameters, or use another attack: audit runs on every model that PruneProof measures",
                ) from error
            finally:
                model.release()
            return self.chart.returned(clean, before, after)

    def _labels(self, rows: torch.Tensor, classes: int) -> torch.Tensor:
        """``(n,)`` int64: float labels would make APGD, Square and FAB move nothing, without a warning."""
        given = self.victim.targets[rows]
        labels = given.reshape(len(rows)).long()
        if bool((labels != given.reshape(len(rows))).any()) or int(labels.min()) < 0 or int(labels.max()) >= classes:
            raise MeasurementError(
                f"{self.victim.name} has {classes} classes, and some targets are none of 0 to {classes - 1}",
                "give class indices as targets",
            )
        return labels.to(self.chart.device)

    def _attack(self, model: Presented, classes: int, seed: int) -> Any:
        import torchattacks

        made = getattr(torchattacks, self.name)(model, **self._arguments(classes, seed))
        aim = self.arena.aim
        if aim is not None:
            made.set_mode_targeted_by_function(lambda images, labels: torch.full_like(labels, aim), quiet=True)
        elif self.name == "JSMA":  # its own way without a target is the next of ten classes
            made.set_mode_targeted_by_function(lambda images, labels: (labels + 1) % classes, quiet=True)
        return made

    def _arguments(self, classes: int, seed: int) -> dict[str, Any]:
        known, given = signatures.parameters(self.name), self.options.model_fields_set
        wide = self.ball.evenness()
        found = {key: getattr(self.options, key) for key in given}
        for key in found:
            if _length(self.name, key):
                found[key] /= self._even(wide, key)
        limit = budget(self.name)
        if limit is not None:
            found[limit] = self.ball.eps / self._even(wide, limit)
            if "alpha" in known and "alpha" not in given:
                found["alpha"] = known["alpha"] * found[limit] / known[limit]
        if "norm" in known:
            found["norm"] = self.ball.norm
        if "seed" in known:
            found["seed"] = seed
        if "n_classes" in known and "n_classes" not in given:
            found["n_classes"] = min(known["n_classes"], classes)
        return found

    def _even(self, wide: float | None, key: str) -> float:
        if wide is None:
            raise MeasurementError(
                f"{self.name}: {key} is one length for all elements, and the box is not equally many units wide",
                f"leave {key} out, or give Box(unit=…) in proportion to high - low",
            )
        return wide


def _length(name: str, key: str) -> bool:
    """Whether a parameter is a length, given in the unit of ``eps``; Jitter's ``std`` is one of outputs."""
    return key in ("alpha", "delta", "noise_sd", "theta") or (name, key) == ("GN", "std")


@contextlib.contextmanager
def _private(seed: int) -> Iterator[None]:
    """Gradients on, random numbers and what is printed of no concern to anybody; all as before afterwards."""
    with (
        untouched_globals(torch.get_num_threads(), seed),
        torch.inference_mode(False),
        torch.enable_grad(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.float32)  # many make their temporaries in it
        yield
