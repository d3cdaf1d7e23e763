"""An audit from beginning to end: policy in, evidence and reports out."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pruneproof import digests, environment, gates, outcomes, policy, policy_file, registry, reporting
from pruneproof import evidence as records
from pruneproof.engine import Engine, Progress
from pruneproof.errors import UsageError
from pruneproof.evidence import Evidence, GateRow, LedgerRow, MeasurementRow, VariantRow
from pruneproof.gates import Expansion
from pruneproof.policy import Policy
from pruneproof.store import Store, now
from pruneproof.suite import ObservingSuite
from pruneproof.verdicts import Verdict, releases, worst

LEDGER = "ledger.jsonl"
CONCERNS = {
    "accuracy": "accuracy on the test set",
    "segments": "consistency over segments",
    "shift": "distribution shift",
    "adversarial": "adversarial inputs",
    "latency": "latency",
}
"""What a suite of each name is about, for the list of what was not tested."""


def audit(path: str | Path, *, out: str | Path | None = None, progress: Progress = lambda line: None) -> Evidence:
    """Runs the audit that the policy ``path`` asks for, in this process.

    Args:
        path: an ``audit.toml``, or a ``pyproject.toml`` with ``[tool.pruneproof]``.
        out: folder for evidence and reports; ``None``: nothing is written.
        progress: told in one line what is being done.

    An interrupted audit writes what it has measured; the gates of the other variants are NOT_RUN.

    Raises:
        PolicyError: the policy cannot be carried out; nothing was measured.
        UsageError: ``out`` cannot be written; nothing was measured.
    """
    asked = policy_file.read(path)
    folder = writable(Path(out).absolute()) if out is not None else None
    if folder is not None:
        discard(folder)
    shared = Path(tempfile.mkdtemp(prefix="pruneproof-"))
    engine = Engine(asked, Store(shared), progress)
    try:
        done: list[str] = []
        try:
            for spec in policy.variants(asked):
                engine.result(spec.name)
                done.append(spec.name)
        except KeyboardInterrupt:
            engine.interrupt()
            done += [name for name in engine.built() if name not in done]
            if folder is not None and done:
                ran = [key for key in engine.required() if key[0] in done]
                write(engine, assemble(engine, ran), folder)
            raise
        found = assemble(engine)
        if folder is not None:
            progress("writing the report")
            found = write(engine, found, folder)
        return found
    finally:
        engine.close()
        shutil.rmtree(shared, ignore_errors=True)


def discard(folder: Path) -> None:
    """Takes away the evidence and report of an earlier run, so that they never stand for one that did not end."""
    for name in (records.FILE, "report.html"):
        (folder / name).unlink(missing_ok=True)


def could_write(folder: Path) -> None:
    """Checks, without creating anything, that :func:`writable` would succeed.

    Raises:
        UsageError: ``folder`` or its nearest existing parent is a file, or not writable.
    """
    place = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: cannot write there", "name another folder for the report")


def writable(folder: Path) -> Path:
    """``folder``, created, in which files can be written.

    Raises:
        UsageError: it is a file, or not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = f"{folder}: cannot write there: {error.strerror}"
        raise UsageError(why, "name another folder for the report") from None
    return folder


def assemble(
    engine: Engine, ran: Iterable[tuple[str, str]] | None = None, from_tests: Iterable[GateRow] = ()
) -> Evidence:
    """The evidence of what the engine's store holds; nothing is measured anew for a gate that did not run.

    Args:
        ran: ``(variant, gate id)`` of the gates that were asked for; ``None``: all. The policy's other gates
            are NOT_RUN.
        from_tests: rows of gates that test code made.
    """
    asked, store = engine.asked, engine.store
    wanted = None if ran is None else set(ran)
    required = engine.required()
    asked_of = {variant for variant, gate in required if wanted is not None and (variant, gate) in wanted}
    # First: computing a variant measures the comparators, too.
    specs = [spec for spec in policy.variants(asked) if wanted is None or spec.name in asked_of]
    results = {spec.name: engine.result(spec.name) for spec in specs}
    rows: list[GateRow] = []
    variants: list[VariantRow] = []
    measurements: list[MeasurementRow] = []
    for row, measured in engine.comparator_rows():
        variants.append(row)
        measurements += measured
    for spec in policy.variants(asked):
        if spec.name in results:
            result = results[spec.name]
            variants.append(result.row)
            measurements += result.measurements
            rows += [_run(row, wanted) for row in result.gates]
        else:
            row, missing = not_run(engine.expansion, asked, spec)
            variants.append(row)
            rows += missing
    rows += test_rows(asked, from_tests)
    rows, waivers = gates.waive(rows, asked.waivers, store.today)
    variants = [judged(row, rows, asked) for row in variants]
    subject = engine.subject_row()
    sensitivity, unmeasured = engine.sensitivity_rows()
    chapters = engine.chapters(row.name for row in variants if row.error is None)
    return Evidence(
        audit=records.AuditRow(
            name=asked.audit.name, id=store.id, seed=asked.audit.seed, started=store.started, finished=now()
        ),
        policy=records.PolicyRow(
            path=str(asked.path),
            sha256=asked.sha256,
            text=asked.text,
            candidates=list(policy.candidates(asked)),
            inconclusive=asked.audit.inconclusive,
        ),
        subject=subject,
        environment=environment.row(asked.folder, asked.audit.threads),
        variants=variants,
        measurements=measurements,
        sensitivity=sensitivity,
        sensitivity_error=unmeasured,
        chapters=chapters,
        gates=rows,
        waivers=waivers,
        ledger=[],
        limitations=limitations(asked, rows, variants, measurements, unmeasured),
        digests={},
        verdict=overall(rows),
    )


def _run(row: GateRow, wanted: set[tuple[str, str]] | None) -> GateRow:
    if wanted is None or (row.variant, row.id) in wanted:
        return row
    return row.model_copy(update={"verdict": Verdict.NOT_RUN, "reason": "this gate was left out of the run"})


def not_run(expansion: Expansion, asked: Policy, spec: policy.VariantSpec) -> tuple[VariantRow, list[GateRow]]:
    """A variant that nothing was asked of, and its gates."""
    candidate = spec.name in policy.candidates(asked)
    reason = "this variant was left out of the run"
    row = VariantRow(
        name=spec.name, kind="imported" if spec.imported else "pruned", requested_ratio=spec.ratio, error=reason
    )
    return row, [
        gates.row(gate, spec.name, candidate, Verdict.NOT_RUN, reason) for gate in gates.for_variant(expansion, spec)
    ]


def test_rows(asked: Policy, made: Iterable[GateRow]) -> list[GateRow]:
    """Rows of gates that test code made, and a NOT_RUN for each that the policy requires and nobody made."""
    rows = list(_worst_of_each(made))
    have = {(row.variant, row.metric) for row in rows}
    for variant in policy.candidates(asked):
        for name in asked.tests.required:
            if (variant, name) not in have:
                rows.append(_missing(name, variant, asked.audit.confidence))
    order = [spec.name for spec in policy.variants(asked)]
    return sorted(rows, key=lambda row: (order.index(row.variant), row.id))


def _worst_of_each(made: Iterable[GateRow]) -> Iterable[GateRow]:
    """One row a gate: several tests may have made it, the worst counts."""
    found: dict[tuple[str, str], GateRow] = {}
    for row in made:
        before = found.get((row.variant, row.id))
        if before is None or worst((row.verdict, before.verdict)) is row.verdict:
            found[row.variant, row.id] = row
    return found.values()


test_rows.__test__ = False  # type: ignore[attr-defined]


def _missing(name: str, variant: str, confidence: float) -> GateRow:
    return GateRow(
        id=f"tests/{name}",
        variant=variant,
        suite="tests",
        metric=name,
        segment=None,
        limit=records.LimitRow(key="required", value=1.0),
        comparator=None,
        value=None,
        variant_value=None,
        comparator_value=None,
        interval=None,
        confidence=confidence,
        n=0,
        method="",
        basis="none",
        verdict=Verdict.NOT_RUN,
        reason="[tests] required names it, and no test made it",
    )


def judged(row: VariantRow, rows: Iterable[GateRow], asked: Policy) -> VariantRow:
    """``row`` with its verdict: the worst of its gates."""
    if row.kind in ("dense", "previous"):
        return row
    own = [gate.verdict for gate in rows if gate.variant == row.name]
    verdict = worst([*own, Verdict.ERROR] if row.error and Verdict.NOT_RUN not in own else own)
    candidate = row.name in policy.candidates(asked)
    return row.model_copy(
        update={"verdict": verdict, "candidate": candidate, "released": candidate and releases(verdict)}
    )


def overall(rows: Iterable[GateRow]) -> Verdict:
    """The worst over the variants up for release."""
    return worst(row.verdict for row in rows if row.candidate)


SIZE_METRICS = ("accuracy", "mae")
"""Measured on every example of a segment, so that their n is its size."""


def _says_something(row: MeasurementRow) -> bool:
    """Whether the row is the first to say something of the data, the same for every variant."""
    first = row.variant == policy.DENSE and row.metric in SIZE_METRICS
    return first and bool(row.note) and row.value is not None


def _segment(row: MeasurementRow) -> str:
    return ", ".join(f"{column}={value}" for column, value in (row.segment or {}).items())


def limitations(
    asked: Policy,
    rows: Iterable[GateRow],
    variants: Iterable[VariantRow],
    measurements: Iterable[MeasurementRow],
    sensitivity_error: str | None = None,
) -> list[str]:
    """What was not tested, or could not be decided: nobody should have to look for what is missing."""
    known = dict.fromkeys((*CONCERNS, *registry.names("pruneproof.suites")))
    found = [f"not tested: {CONCERNS.get(name, name)}" for name in known if name not in asked.suites]
    found += [f"{_segment(row)}: {row.note}" for row in measurements if _says_something(row)]
    undecided = sum(row.verdict is Verdict.INCONCLUSIVE for row in rows)
    if undecided:
        found.append(f"{undecided} gates are inconclusive: neither shown to hold nor shown to fail")
    small = sorted({f"{_segment(row)} ({row.n})" for row in measurements if row.small and row.metric in SIZE_METRICS})
    if small:
        found.append(f"segments too small for a verdict: {', '.join(small)}")
    for name, entry in asked.suites.items():
        suite = policy.suite(name)
        if isinstance(suite, ObservingSuite):
            gates_of = [spec for spec in policy.gate_specs(asked) if spec.suite == name]
            found += suite.cautions(entry.options, gates_of)
    if sensitivity_error is not None:
        found.append(f"sensitivity could not be measured: {sensitivity_error}")
    for variant in variants:
        if variant.left_whole:
            layers = "; ".join(f"{layer}: {reason}" for layer, reason in variant.left_whole)
            found.append(f"{variant.name}: layers left whole: {layers}")
        if variant.kind == "pruned" and (variant.recipe or {}).get("granularity") in ("element", "n_of_m"):
            found.append(f"{variant.name}: weights are zeroed, not removed; zeros alone make nothing smaller or faster")
    return found


def write(engine: Engine, found: Evidence, folder: Path) -> Evidence:
    """Writes outcomes, plans, ledger, evidence and reports into ``folder``; returns the evidence as written."""
    file_digests = {}
    if engine.measured:
        names = [row.name for row in found.variants if row.error is None]
        said = {name: engine.predictions(name) for name in names}
        outcomes.write(folder / records.OUTCOMES, engine.examples, said)
        file_digests[records.OUTCOMES] = digests.of_file(folder / records.OUTCOMES)
    _copy(engine.store.folder / records.PLANS, folder / records.PLANS)
    _copy(engine.store.folder / records.OBSERVED, folder / records.OBSERVED)
    for file in sorted((folder / records.OBSERVED).rglob("*.npz")):
        file_digests[file.relative_to(folder).as_posix()] = digests.of_file(file)
    final = found.model_copy(update={"digests": file_digests, "ledger": _ledger(folder, found)})
    (folder / records.FILE).write_text(records.dumps(final), "utf-8")
    reporting.render(final, "html", folder)
    return final


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, target)


def _ledger(folder: Path, found: Evidence) -> list[LedgerRow]:
    """Earlier audits of the same model and data that wrote here, failures included; this one is added to the file."""
    path = folder / LEDGER
    key = [found.subject.model_sha256, found.subject.data_sha256.get("test")]
    earlier = []
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                entry = json.loads(line)
                if entry.pop("subject") == key:
                    earlier.append(LedgerRow.model_validate(entry))
            except (ValueError, KeyError, AttributeError):
                continue  # a damaged line says nothing
    own = LedgerRow(
        id=found.audit.id, started=found.audit.started, policy_sha256=found.policy.sha256, verdict=found.verdict
    )
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**own.model_dump(mode="json"), "subject": key}, sort_keys=True) + "\n")
    return earlier
