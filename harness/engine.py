"""The engine: loads the subject, builds each variant, measures and judges it, each task once.

A task that fails, by the user's code or ours, becomes an ERROR of its variant; the other variants are
still measured.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pruneproof import (
    checking,
    control,
    gates,
    inference,
    loading,
    observing,
    outcomes,
    plan,
    policy,
    replanning,
    selfcheck,
    sensitivity,
    surgery,
    variants,
)
from pruneproof.checking import Loaded
from pruneproof.errors import PruneProofError
from pruneproof.evidence import PLANS, GateRow, MeasurementRow, SelfCheck, SensitivityRow, SubjectRow, VariantRow
from pruneproof.exhibits import Chapter
from pruneproof.hurt import hurt
from pruneproof.isolation import deadline, importing_from, untouched_globals
from pruneproof.measuring import Family, measurement_rows
from pruneproof.observing import Observations
from pruneproof.outcomes import Examples, Predictions
from pruneproof.planners import Planners
from pruneproof.policy import DENSE, PREVIOUS, Policy, VariantSpec
from pruneproof.recipe import words
from pruneproof.replanning import FreshProcess
from pruneproof.store import Store
from pruneproof.suite import Facts, Models
from pruneproof.verdicts import Verdict

Progress = Callable[[str], None]
Failure = Mapping[str, str]
"""``cause`` and ``remedy`` of a task that failed."""


@dataclass(frozen=True)
class Result:
    """What came of one variant, before waivers."""

    row: VariantRow
    measurements: tuple[MeasurementRow, ...]
    gates: tuple[GateRow, ...]


class Engine:
    """One process's part in an audit.

    Args:
        asked: the policy.
        store: shared by all processes of the run.
        progress: told in one line what is being done.
    """

    def __init__(self, asked: Policy, store: Store, progress: Progress = lambda line: None) -> None:
        self.asked = asked
        self.store = store
        self.progress = progress
        self._specs = {spec.name: spec for spec in policy.variants(asked)}
        self._results: dict[str, Result] = {}
        self._fresh = FreshProcess(asked)
        self._replanning: threading.Thread | None = None
        self._observations = Observations(asked, store)

    @cached_property
    def _loaded(self) -> Loaded | Failure:
        self.progress("loading the subject")
        found: Loaded | Failure = self._try("loading the subject", lambda: loading.load(self.asked))
        return found

    @property
    def loaded(self) -> Loaded:
        """The subject.

        Raises:
            PruneProofError: it cannot be loaded.
        """
        if not isinstance(self._loaded, Loaded):
            raise PruneProofError(self._loaded["cause"], self._loaded["remedy"])
        return self._loaded

    @cached_property
    def planners(self) -> Planners:
        """Of the subject.

        Raises:
            PruneProofError: it cannot be loaded.
        """
        return Planners(self.loaded, self.asked)

    @cached_property
    def facts(self) -> Facts | None:
        """What is known of the test set; ``None`` where the subject cannot be loaded."""
        row = self.subject_row()
        if row.error is not None or row.task is None:
            return None
        return checking.facts_of(row.task, tuple(row.classes), row.segments, row.data_sizes)

    @cached_property
    def expansion(self) -> gates.Expansion:
        """The gates of the audit; unexpanded where the subject cannot be loaded."""
        return gates.unexpanded(self.asked) if self.facts is None else gates.expand(self.asked, self.facts)

    def required(self) -> list[tuple[str, str]]:
        """``(variant, gate id)`` of every gate that the policy requires."""
        expansion = self.expansion
        return [(spec.name, gate.id) for spec in self._specs.values() for gate in gates.for_variant(expansion, spec)]

    def subject_row(self) -> SubjectRow:
        """The subject's row of the evidence."""
        table = self.store.once("subject", lambda: self._subject_row().model_dump(mode="json"))
        if "load" not in table:
            return self._unloaded(table["error"])
        dense = self.store.peek("dense") or {}
        return SubjectRow.model_validate(table).model_copy(update={"threshold": dense.get("threshold")})

    def _unloaded(self, failure: Failure) -> SubjectRow:
        return SubjectRow(
            load=self.asked.subject.load,
            task=None,
            classes=[],
            threshold=None,
            segments={},
            model_sha256=None,
            data_sha256={},
            data_sizes={},
            error=_told(failure),
        )

    def _subject_row(self) -> SubjectRow:
        loaded = self._loaded
        if not isinstance(loaded, Loaded):
            return self._unloaded(loaded)
        outcomes.write(self._examples_file, loaded.examples, {})
        facts = loaded.examples.facts
        return SubjectRow(
            load=self.asked.subject.load,
            task=facts.task,
            classes=list(facts.classes),
            threshold=None,
            segments={column: dict(values) for column, values in facts.segments.items()},
            model_sha256=loaded.model_digest,
            data_sha256=loaded.data_digests,
            data_sizes=loaded.data_sizes,
        )

    def comparator_rows(self) -> list[tuple[VariantRow, tuple[MeasurementRow, ...]]]:
        """Dense and, where the policy names one, previous, as far as they were measured."""
        tasks = {name: self.store.peek(name) for name in (DENSE, PREVIOUS)}
        rows = {name: self.store.peek(f"measured {name}") or {} for name in tasks}
        return [_comparator(name, task, rows[name]) for name, task in tasks.items() if task is not None]

    def result(self, name: str) -> Result:
        """What came of variant ``name``, computed now unless some process has."""
        if name not in self._results:
            self._results[name] = self._computed(name)
        return self._results[name]

    def _computed(self, name: str) -> Result:
        spec = self._specs[name]
        # Before this variant's lock is taken: nobody waits while holding one.
        comparators = self._comparators()
        if spec.recipe is not None:
            self._replan()
        self._sensitivity()
        self._built(spec)
        self._observe()
        for comparator, task in comparators.items():
            if "row" in task:
                self._measured(comparator)
        table = self.store.once(f"variant {name}", lambda: self._result(spec))
        if "error" in table and "row" not in table:
            table = self._failed(spec, table["error"])
        return Result(
            VariantRow.model_validate(table["row"]),
            tuple(MeasurementRow.model_validate(entry) for entry in table["measurements"]),
            tuple(GateRow.model_validate(entry) for entry in table["gates"]),
        )

    def model(self, name: str) -> torch.nn.Module:
        """The variant itself, built in this process.

        Raises:
            PruneProofError: it cannot be built.
        """
        if name == DENSE:
            return variants.dense(self.loaded).model
        with self._guarded():
            built = variants.build(self._specs[name], self.planners, self.asked)
        variants.verified(built.row)
        return built.model

    @property
    def threshold(self) -> float | None:
        """Operating point of a binary classifier."""
        found: float | None = self._dense().get("threshold")
        return found

    @cached_property
    def examples(self) -> Examples:
        """The test set, with the threshold."""
        if self.facts is None:
            raise PruneProofError("the subject could not be loaded", "see the evidence's subject")
        return outcomes.read(self._examples_file, self.facts, self.threshold)[0]

    @property
    def _examples_file(self) -> Path:
        return self.store.folder / "examples.parquet"

    @property
    def measured(self) -> bool:
        """Whether anything was measured."""
        return "row" in (self.store.peek("dense") or {})

    def predictions(self, name: str) -> Predictions:
        """What model ``name`` said of the test set; its task must have run."""
        return Predictions(self.store.kept(name), self.examples.facts, self.threshold)

    def _comparators(self) -> dict[str, dict[str, Any]]:
        found = {DENSE: self._dense()}
        source = self.asked.comparators.previous
        if source is not None:
            found[PREVIOUS] = self.store.once("previous", lambda: self._compare(PREVIOUS, source))
        return found

    def _dense(self) -> dict[str, Any]:
        return self.store.once("dense", lambda: self._compare(DENSE, None))

    def _compare(self, name: str, source: str | None) -> dict[str, Any]:
        """Predicts a comparator."""

        def work() -> dict[str, Any]:
            loaded = self.loaded
            built = variants.dense(loaded) if source is None else variants.previous(loaded, self.asked, source)
            self._predict(name, built.model)
            if loaded.examples.facts.task != "regression":
                inference.logits(self.store.kept(name))
            threshold = self._chosen_threshold(built.model) if source is None else self.threshold
            return {"row": _json(built.row), "threshold": threshold}

        if self.facts is not None:
            self.progress(f"{name}: predicting {self.facts.n:,} examples")
        found = self._try(f"measuring {name}", work)
        return {"error": dict(found)} if "cause" in found else dict(found)

    def _measured(self, name: str) -> dict[str, Any]:
        """Measures a comparator."""

        def work() -> list[MeasurementRow]:
            return measurement_rows(self.asked, name, self._family().measure(name).measured)

        def measured() -> dict[str, Any]:
            found = self._try(f"measuring {name}", work)
            return {"rows": [_json(row) for row in found]} if isinstance(found, list) else {"error": dict(found)}

        return self.store.once(f"measured {name}", measured)

    def _chosen_threshold(self, dense: torch.nn.Module) -> float | None:
        loaded = self.loaded
        if not isinstance(loaded.subject.threshold, str) or loaded.subject.calibration is None:
            return loaded.examples.threshold
        subject = loaded.subject
        outputs = inference.forward(dense, loaded.subject.calibration, subject.batch_size)
        return checking.chosen_threshold(loaded, inference.finite(outputs, "dense"))

    def _predict(self, name: str, model: torch.nn.Module) -> None:
        subject = self.loaded.subject
        outputs = inference.finite(inference.forward(model, subject.test, subject.batch_size), name)
        self.store.keep(name, outputs)

    def _built(self, spec: VariantSpec) -> dict[str, Any]:
        """The variant's row, once it is built, checked and its predictions are kept; or its failure."""
        return self.store.once(f"built {spec.name}", lambda: self._build(spec))

    def _build(self, spec: VariantSpec) -> dict[str, Any]:
        for name, task in self._comparators().items():
            if "error" in task:
                return {"error": {**task["error"], "cause": f"{name}: {task['error']['cause']}"}}
        self.progress(f"{spec.name}: building")
        built = self._try(f"building {spec.name}", lambda: variants.build(spec, self.planners, self.asked))
        if not isinstance(built, variants.Built):
            return {"error": dict(built)}
        if built.plan is not None:
            folder = self.store.folder / PLANS
            folder.mkdir(exist_ok=True)
            plan.save(built.plan, folder / spec.name)

        def work() -> dict[str, Any]:
            variants.verified(built.row)
            self._check_width(built)
            self._predict(spec.name, built.model)
            return {}

        self.progress(f"{spec.name}: predicting and measuring")
        found = self._try(f"measuring {spec.name}", work)
        if found:
            return {"row": _json(built.row), "error": dict(found)}
        row = built.row if built.plan is None else self._compared_checks(spec, built.row)
        checked = self._try(f"judging {spec.name}", lambda: variants.verified(row))
        return {"row": _json(row), **({} if checked is None else {"error": dict(checked)})}

    def _result(self, spec: VariantSpec) -> dict[str, Any]:
        task = self._built(spec)
        row = VariantRow.model_validate(task["row"]) if "row" in task else None
        if "error" in task or row is None:
            return self._failed(spec, task["error"], row)
        found = self._try(f"judging {spec.name}", lambda: self._judged(spec, row))
        return self._failed(spec, found, row) if "cause" in found else dict(found)

    def _compared_checks(self, spec: VariantSpec, row: VariantRow) -> VariantRow:
        """The row with the self-checks that concern more than one network: V6, and V10 where it says something."""
        found = [replanning.check(spec.name, row.plan_sha256 or "", self._replanned())]
        if spec.recipe is not None and spec.recipe.criterion != "random":
            self.progress(f"{spec.name}: the random control")
            outputs = self.store.kept(spec.name)
            made = self._try(
                f"the random control of {spec.name}",
                lambda: control.check(spec, self.planners, self.examples, outputs),
            )
            found.append(made if isinstance(made, SelfCheck) else control.failed(made["cause"]))
        return row.model_copy(update={"self_checks": selfcheck.in_order([*row.self_checks, *found])})

    def _check_width(self, built: variants.Built) -> None:
        """An imported model may answer with other classes than the subject's."""
        subject = self.loaded.subject
        first, _ = next(inference.batches(subject.test, 2))
        sample = checking.replace_inputs(subject.test, first)
        want = self.store.kept(DENSE).shape[1]
        have = inference.forward(built.model, sample, 2).shape[1]
        if have != want:
            raise PruneProofError(
                f"it returns {have} outputs an example, the dense model {want}",
                "give a model with the subject's classes",
            )

    def _judged(self, spec: VariantSpec, row: VariantRow) -> dict[str, Any]:
        examples, said = self.examples, self.predictions(spec.name)
        family = self._family(spec.name)
        compared = {name: family.said[name] for name in self._comparators()}
        taken = family.measure(spec.name)
        others = {name: family.measure(name).measured for name in compared}
        measured = taken.measured
        rows = gates.judge(self.asked, self.expansion, spec, measured, others, examples.facts.every, taken.failures)
        shown = [
            found
            if found.verdict is Verdict.PASS or found.suite in self._observations.suites
            else found.model_copy(
                update={"hurt": hurt(found, measured, examples, said, compared[found.comparator or DENSE])}
            )
            for found in rows
        ]
        return {
            "row": _json(row),
            "measurements": [_json(entry) for entry in measurement_rows(self.asked, spec.name, measured)],
            "gates": [_json(entry) for entry in shown],
        }

    def _family(self, *variants: str) -> Family:
        """The models that were predicted: those ``variants``, dense and, where suites look at several, all of them."""
        names = [name for name, task in self._comparators().items() if "row" in task]
        if self._observations.suites:
            names += self._predicted()
        names = list(dict.fromkeys([*names, *variants]))
        said = {name: self.predictions(name) for name in names}
        return Family(self.asked, self.examples, said, self._observations.seen)

    def _predicted(self) -> list[str]:
        """Variants that are built and predicted, in the policy's order."""
        return [name for name in self._specs if "error" not in (self.store.peek(f"built {name}") or {"error": ""})]

    def _observe(self) -> None:
        """Lets each suite that needs the models see all of them, once."""
        if self.facts is None or not self._observations.suites:
            return
        for spec in self._specs.values():
            self._built(spec)
        for name in self._observations.suites:
            self._observations.make(name, lambda name=name: self._models(name), self._try)  # type: ignore[misc]

    def _models(self, suite: str) -> Models:
        """Everything that was built, dense first, then by ratio and name: no result depends on the policy's order."""
        names = [name for name, task in self._comparators().items() if "row" in task]
        specs = [spec for spec in self._specs.values() if "error" not in self._built(spec)]
        names += [spec.name for spec in sorted(specs, key=lambda spec: (spec.ratio or 0.0, spec.name))]
        return Models(
            loaded=self.loaded,
            examples=self.examples,
            models={name: lambda name=name: self._again(name) for name in names},  # type: ignore[misc]
            ratios={name: self._specs[name].ratio if name in self._specs else None for name in names},
            predictions={name: self.predictions(name) for name in names},
            gates=[spec for spec in policy.gate_specs(self.asked) if spec.suite == suite],
            folder=self.asked.folder,
            seed=self.asked.audit.seed,
            progress=self.progress,
        )

    def _again(self, name: str) -> torch.nn.Module:
        """A model that was built before: dense, by its plan, or loaded again."""
        if name == DENSE:
            return variants.dense(self.loaded).model
        if name == PREVIOUS and self.asked.comparators.previous is not None:
            return variants.previous(self.loaded, self.asked, self.asked.comparators.previous).model
        spec = self._specs[name]
        if spec.imported is not None:
            return variants.build(spec, self.planners, self.asked).model
        return surgery.apply(plan.load(self.store.folder / PLANS / name), self.loaded.subject.model)

    def built(self) -> list[str]:
        """Names of the variants that are built and predicted, whether or not they are judged."""
        return [name for name in self._specs if "row" in (self.store.peek(f"built {name}") or {})]

    def interrupt(self) -> None:
        """Nothing more is observed; what was measured until now is judged."""
        self._observations.interrupted = True

    def chapters(self, names: Iterable[str]) -> list[Chapter]:
        """What the suites show of the models ``names``, dense first."""
        if not self._observations.suites or not self.measured:
            return []
        wanted = list(names)
        return observing.chapters(self._family(*wanted), wanted)

    def _replan(self) -> None:
        """Starts the fresh process that makes every plan again, while this one goes on."""
        if self._replanning is None and self.facts is not None:
            self._replanning = threading.Thread(target=self._replanned, daemon=True)
            self._replanning.start()

    def _replanned(self) -> dict[str, str]:
        found: dict[str, str] = self.store.once("fresh process", lambda: dict(self._fresh.digests()))
        return found

    def close(self) -> None:
        """Ends what still runs for this audit."""
        if self._replanning is not None:
            self._fresh.stop()
            self._replanning.join()

    def _sensitivity(self) -> dict[str, Any]:
        """What each layer alone costs, where the policy asks for it."""
        asked = self.asked.sensitivity
        if asked is None or self.facts is None:
            return {"rows": []}
        (recipe,) = (entry for entry in self.asked.prune if entry.name == asked.recipe)

        def work() -> dict[str, Any]:
            self.progress(f"sensitivity of each layer to {recipe.name}")
            rows = self._try(
                "measuring sensitivity", lambda: sensitivity.table(asked, recipe, self.planners, self.threshold)
            )
            return {"rows": [_json(row) for row in rows]} if isinstance(rows, list) else {"error": dict(rows)}

        return self.store.once("sensitivity", work)

    def sensitivity_rows(self) -> tuple[list[SensitivityRow], str | None]:
        """The table as far as it was measured, and why it could not be."""
        table = self.store.peek("sensitivity") or {"rows": []}
        rows = [SensitivityRow.model_validate(entry) for entry in table.get("rows", ())]
        return rows, _told(table["error"]) if "error" in table else None

    def _failed(self, spec: VariantSpec, failure: Failure, row: VariantRow | None = None) -> dict[str, Any]:
        reason = _told(failure)
        base = row or VariantRow(
            name=spec.name,
            kind="imported" if spec.imported else "pruned",
            recipe=_recipe(spec),
            requested_ratio=spec.ratio,
            self_checks=selfcheck.named_in(failure["cause"]),
        )
        candidate = spec.name in policy.candidates(self.asked)
        return {
            "row": _json(base.model_copy(update={"error": reason})),
            "measurements": [],
            "gates": [
                _json(gates.row(gate, spec.name, candidate, Verdict.ERROR, reason))
                for gate in gates.for_variant(self.expansion, spec)
            ],
        }

    def _try(self, what: str, work: Callable[[], Any], seconds: float | None = None) -> Any:
        """What ``work`` gives, or the failure that it ended in."""
        try:
            with self._guarded(), deadline(seconds or self.asked.audit.timeout_s, what):
                return work()
        except PruneProofError as error:
            return {"cause": error.cause, "remedy": error.remedy}
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # sys.exit() or pytest.skip() in a user's model must not end the audit well
            cause = f"{what}: {type(error).__name__}: {error}"
            return {
                "cause": " ".join(cause.split()),
                "remedy": "if your own code runs without it, this is a bug in PruneProof",
            }

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with (
            importing_from(str(self.asked.folder)),
            untouched_globals(self.asked.audit.threads, self.asked.audit.seed),
        ):
            yield


def _comparator(
    name: str, task: Mapping[str, Any], measured: Mapping[str, Any]
) -> tuple[VariantRow, tuple[MeasurementRow, ...]]:
    failure = task.get("error") or measured.get("error")
    if failure is not None:
        kind: Any = name
        return VariantRow(name=name, kind=kind, error=_told(failure), verdict=Verdict.ERROR), ()
    rows = tuple(MeasurementRow.model_validate(entry) for entry in measured.get("rows", ()))
    return VariantRow.model_validate(task["row"]), rows


def _recipe(spec: VariantSpec) -> dict[str, str] | None:
    return None if spec.recipe is None else words(spec.recipe)


def _told(failure: Failure) -> str:
    return f"{failure['cause']} ({failure['remedy']})"


def _json(record: Any) -> dict[str, Any]:
    table: dict[str, Any] = record.model_dump(mode="json")
    return table
