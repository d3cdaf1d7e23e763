"""The pytest plugin's entry point.

Every pytest run in an environment that has PruneProof installed imports this module, so it imports the
standard library and pytest only; what an audit needs is imported once one is found.

A run's processes (one, or a controller and its xdist workers) share a folder, in which each leaves what
the others need: which audits were asked for, what was measured, which policies were in error. It works
the same without workers, and survives a worker that dies.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pruneproof.toml_source import holds_policy

if TYPE_CHECKING:
    from pruneproof.testing import Audited

RUN = pytest.StashKey[Path]()
MADE = pytest.StashKey[list[tuple[str, str]]]()
"""Item: (policy path, gate row as JSON)."""
STATUS = pytest.StashKey[str]()
"""Item: a word in place of "skipped"."""

POLICY_NAME = "audit.toml"
LETTERS = {"inconclusive": "I", "waived": "W", "explored": "e"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pruneproof", "audits of pruned networks")
    group.addoption(
        "--pruneproof-out", metavar="DIR", default="pruneproof-report", help="folder for evidence and reports"
    )
    parser.addini("pruneproof_require", "fail a run that asks for no audit", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "pruneproof(policy): run the test on each variant of the audit; gives the fixture 'pruneproof'"
    )
    if not is_worker(config):
        config.pluginmanager.register(Controller(config), "pruneproof-controller")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist: tells a worker the shared folder."""
    node.workerinput["pruneproof_run"] = str(run_folder(node.config))


def run_folder(config: pytest.Config) -> Path:
    """The run's shared folder, created when first asked for."""
    if RUN not in config.stash:
        given = getattr(config, "workerinput", {}).get("pruneproof_run")
        config.stash[RUN] = Path(given or tempfile.mkdtemp(prefix="pruneproof-"))
    return config.stash[RUN]


def is_worker(config: pytest.Config) -> bool:
    """Whether this process only runs tests for a controller."""
    return hasattr(config, "workerinput")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name not in (POLICY_NAME, "pyproject.toml"):  # asked for every file of every project
        return None
    named = file_path in {Path(str(argument).split("::")[0]).resolve() for argument in parent.config.args}
    ours = _looks_like_policy if file_path.name == POLICY_NAME else holds_policy
    if named or ours(file_path):
        from pruneproof.collecting import AuditFile

        return AuditFile.from_parent(parent, path=file_path)
    return None


def _looks_like_policy(path: Path) -> bool:
    """Other tools have files of this name. One that was not named is left alone only when it parses as theirs."""
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return True
    return not table or bool(set(table) & {"audit", "subject", "suites", "prune", "variant"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("pruneproof")
    if marker is not None and "pruneproof" in metafunc.fixturenames:
        from pruneproof.testing import parametrise

        parametrise(metafunc, marker)


@pytest.fixture
def pruneproof(request: pytest.FixtureRequest) -> Audited:
    """A variant of an audit and its dense model, for a test marked ``pruneproof("audit.toml")``."""
    from pruneproof.testing import audited

    return audited(request)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leaves word of how many items of each audit are left after deselection."""
    if RUN in session.config.stash:
        from pruneproof.collecting import leave_word

        leave_word(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attaches gate rows as one JSON string: xdist exits 0 when a failing report carries anything richer."""
    report = yield
    if item.stash.get(MADE, []):
        report.pruneproof = json.dumps(item.stash[MADE])  # type: ignore[attr-defined]
        item.stash[MADE] = []  # a fixture may make more in its set-up or teardown
    if report.skipped and STATUS in item.stash:
        report.pruneproof_status = item.stash[STATUS]  # type: ignore[attr-defined]
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    status = getattr(report, "pruneproof_status", None)
    return (status, LETTERS[status], status.upper()) if status and report.skipped else None


class Controller:
    """The process that pytest was started in: hears every report, and has the last word on the exit code."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.rows: dict[str, list[str]] = {}
        """Policy path → gate rows as JSON."""
        self.summary: list[str] = []
        self.broken = False
        self.audited = False
        """Whether an audit ran, in part at least."""

    def pytest_internalerror(self) -> None:
        self.broken = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for path, row in json.loads(getattr(report, "pruneproof", "[]")):
            self.rows.setdefault(path, []).append(row)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        config = self.config
        if config.option.collectonly:
            self._clean()
            return
        asked = RUN in config.stash and any(config.stash[RUN].glob("*/word.json"))
        required = config.getini("pruneproof_require")
        if asked:
            from pruneproof.collecting import conclude

            conclude(self, session)
        elif required:
            self.summary.append("pruneproof: no audit ran, and pruneproof_require is set: name an audit.toml")
        if required and not self.audited:
            worsen(session, pytest.ExitCode.TESTS_FAILED)
        if asked and self.broken:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        self._clean()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.summary:
            terminalreporter.write_line(line)

    def _clean(self) -> None:
        if RUN in self.config.stash:
            from pruneproof.collecting import close

            close(self.config)
            shutil.rmtree(self.config.stash[RUN], ignore_errors=True)


def worsen(session: pytest.Session, code: pytest.ExitCode) -> None:
    """Sets the exit code, where nothing worse is set."""
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = code
