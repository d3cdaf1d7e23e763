"""Audits as pytest items: one a gate × variant; and what a run with an audit in it comes to."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pruneproof import gates, policy, policy_file, terminal
from pruneproof.errors import PruneProofError, UsageError
from pruneproof.evidence import Evidence, GateRow
from pruneproof.plugin import MADE, STATUS, is_worker, run_folder, worsen
from pruneproof.policy import Policy
from pruneproof.verdicts import Verdict, exit_code, releases

if TYPE_CHECKING:
    from pruneproof.engine import Engine
    from pruneproof.plugin import Controller

ENGINES = pytest.StashKey[dict[Path, "Engine"]]()
WORD = "word.json"


class GateFailed(Exception):
    """A gate of a candidate did not pass."""

    def __init__(self, row: GateRow) -> None:
        super().__init__(row.reason)
        self.row = row


def store_folder(config: pytest.Config, path: Path) -> Path:
    """The audit's own folder in the run's shared one."""
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return run_folder(config) / key


def near(path: Path) -> Path:
    """``path`` as a person in the current folder would name it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def engine_of(config: pytest.Config, path: Path) -> Engine:
    """This process's engine for the policy at ``path``.

    Raises:
        PolicyError: the policy cannot be carried out.
    """
    from pruneproof.engine import Engine
    from pruneproof.store import Store

    engines = config.stash.setdefault(ENGINES, {})
    if path not in engines:
        asked = policy_file.read(near(path))
        engines[path] = Engine(asked, Store(store_folder(config, path)), _progress(config))
        config.add_cleanup(engines[path].close)
    return engines[path]


def close(config: pytest.Config) -> None:
    """Ends what still runs for the audits of this process."""
    for engine in config.stash.get(ENGINES, {}).values():
        engine.close()


def _progress(config: pytest.Config) -> Any:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")

    def say(line: str) -> None:
        if reporter is None or is_worker(config) or config.option.verbose < 0:
            return
        if capture is None:
            reporter.write_line(f"pruneproof: {line}")
            return
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"pruneproof: {line}")

    return say


class AuditFile(pytest.File):
    """An ``audit.toml``."""

    def collect(self) -> Iterator[pytest.Collector]:
        from pruneproof.auditing import could_write

        try:
            asked = policy_file.read(near(self.path))
            could_write(Path(self.config.getoption("pruneproof_out")))
            engine = engine_of(self.config, self.path)
            required = engine.required()
        except UsageError as error:
            leave(self.config, self.path, {"error": [error.cause, error.remedy]})
            raise
        if not (store_folder(self.config, self.path) / WORD).exists():
            leave(self.config, self.path, {"items": 0})
        problem = engine.subject_row().error
        if problem is not None:
            self.warn(pytest.PytestCollectionWarning(f"the gates are not expanded: {problem}"))
        for variant in policy.variants(asked):
            names = [gate for name, gate in required if name == variant.name]
            yield VariantCollector.from_parent(self, name=variant.name, gates=names)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, PruneProofError):
            return f"{excinfo.value.cause}\n  {excinfo.value.remedy}"
        return super().repr_failure(excinfo)


class VariantCollector(pytest.Collector):
    """A variant of the audit."""

    def __init__(self, *, gates: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gates = gates

    def collect(self) -> Iterator[pytest.Item]:
        for gate in self.gates:
            yield GateItem.from_parent(self, name=gate)


class GateItem(pytest.Item):
    """One gate of one variant."""

    def runtest(self) -> None:
        variant = self.parent
        assert variant is not None
        engine = engine_of(self.config, self.path)
        result = engine.result(variant.name)
        rows, _ = gates.waive(result.gates, engine.asked.waivers, engine.store.today)
        row = next(row for row in rows if row.id == self.name)
        settle(self, self.path, engine.asked, row)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, GateFailed):
            reproduce = reproducing(self)
            return "\n".join(terminal.explanation(excinfo.value.row, reproduce))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        variant = self.parent
        return self.path, None, f"{variant.name if variant else ''} {self.name}"


def reproducing(item: pytest.Item) -> str:
    """The command that runs ``item`` alone, without overwriting the evidence of the whole audit."""
    return f"pytest {shlex.quote(item.nodeid)} --pruneproof-out reproduced"


def settle(item: pytest.Item, path: Path, asked: Policy, row: GateRow) -> None:
    """Ends an item as its gate's verdict demands, and leaves the row for its report.

    Raises:
        GateFailed: a candidate's gate that does not let it be released.
    """
    item.stash.setdefault(MADE, []).append((str(path.resolve()), row.model_dump_json()))
    item.user_properties.append(("verdict", str(row.verdict)))
    if row.verdict is Verdict.PASS:
        return
    word = None
    if not row.candidate:
        word = "explored"
    elif row.verdict is Verdict.WAIVED:
        word = "waived"
    elif row.verdict is Verdict.INCONCLUSIVE and asked.audit.inconclusive == "warn":
        word = "inconclusive"
    if word is None:
        raise GateFailed(row)
    item.stash[STATUS] = word
    pytest.skip(f"{word}: {row.verdict}: {row.reason}")


def leave(config: pytest.Config, path: Path, word: dict[str, Any]) -> None:
    """Leaves word of an audit for the process that ends the run."""
    folder = store_folder(config, path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WORD).write_text(json.dumps({"path": str(path.resolve()), **word}), "utf-8")


def leave_word(session: pytest.Session) -> None:
    """For each audit that was collected: how many of its items are left."""
    left: dict[Path, int] = {}
    for item in session.items:
        if isinstance(item, GateItem):
            left[item.path] = left.get(item.path, 0) + 1
    for path, items in left.items():
        leave(session.config, path, {"items": items})


def conclude(controller: Controller, session: pytest.Session) -> None:
    """Writes each audit's evidence and reports; worsens the exit code where it is not released."""
    config = controller.config
    words = [json.loads(file.read_text("utf-8")) for file in sorted(run_folder(config).glob(f"*/{WORD}"))]
    several = sum(word.get("items", 0) > 0 for word in words) > 1
    names: set[str] = set()
    for word in words:
        path = Path(word["path"])
        shown = _shown(config, path)
        if "error" in word:
            cause, remedy = word["error"]
            controller.summary += [f"pruneproof: {cause}", f"  {remedy}"]
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif not word["items"] and not _ran(controller, path):
            controller.summary.append(f"pruneproof: {shown} did not run: none of its gates was asked for")
        else:
            controller.audited = True
            try:
                _conclude_one(controller, session, path, several, names)
            except PruneProofError as error:
                controller.summary += [f"pruneproof: {shown}: {error.cause}", f"  {error.remedy}"]
                worsen(session, pytest.ExitCode.INTERNAL_ERROR)
            except Exception as error:
                controller.summary.append(f"pruneproof: {shown}: internal error: {type(error).__name__}: {error}")
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


def _ran(controller: Controller, path: Path) -> bool:
    """Whether some of the audit's own gates were reported, whatever word was left."""
    rows = controller.rows.get(str(path), [])
    return any(json.loads(row)["suite"] != "tests" for row in rows)


def _shown(config: pytest.Config, path: Path) -> Path:
    return path.relative_to(config.rootpath) if path.is_relative_to(config.rootpath) else path


def _conclude_one(controller: Controller, session: pytest.Session, path: Path, several: bool, names: set[str]) -> None:
    from pruneproof.auditing import assemble, discard, writable, write

    config = controller.config
    engine = engine_of(config, path)
    engine.progress = lambda line: None
    out = Path(config.getoption("pruneproof_out"))
    name = engine.asked.audit.name
    if name in names:  # two audits of one name: neither may overwrite the other's evidence
        name = f"{name}-{engine.asked.sha256[:8]}"
    names.add(name)
    folder = writable(out / name if several else out)
    discard(folder)
    rows = [GateRow.model_validate_json(row) for row in controller.rows.get(str(path), [])]
    ran = [(row.variant, row.id) for row in rows if row.suite != "tests"]
    found = assemble(engine, ran, [row for row in rows if row.suite == "tests"])
    found = write(engine, found, folder)
    controller.summary += closing(found, folder)
    if exit_code(found.verdict, found.policy.inconclusive):
        worsen(session, pytest.ExitCode.TESTS_FAILED)


def closing(found: Evidence, folder: Path) -> list[str]:
    """The gate matrix and the verdict, for the terminal."""
    lines = ["", f"pruneproof: {found.audit.name}", *terminal.text_matrix(found)]
    left_out = [row for row in found.gates if row.candidate and row.verdict is Verdict.NOT_RUN]
    if left_out:
        lines.append(f"not run: {len(left_out)} of the gates that the policy requires, {_some(left_out)}")
    if not releases(found.verdict) and found.subject.error:
        lines.append(f"error: {found.subject.error}")
    return [*lines, *terminal.findings(found), terminal.headline(found), f"report: {folder / 'report.html'}"]


def _some(rows: Iterable[GateRow]) -> str:
    names = [f"{row.variant} {row.id}" for row in rows]
    return f"first {names[0]}" if len(names) > 1 else names[0]
