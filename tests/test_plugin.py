"""The pytest plugin: what a team with a CI gate may rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import conftest
import pytest

from pruneproof import evidence as records
from pruneproof.evidence import Evidence

Tiny = Callable[..., Path]
GATES = (
    "accuracy/accuracy:min",
    "accuracy/accuracy:max_drop",
    "segments/excess_accuracy_gap:max[region=north]",
    "segments/excess_accuracy_gap:max[region=south]",
)
RELEASABLE = conftest.POLICY.replace("[0.3, 0.97]", "[0.3]")
SMALL_LIMIT = RELEASABLE.replace("max_drop = 0.05", "max_drop = 0.004")
"""One difference in 400 examples neither shows nor refutes a drop of 0.004."""


@pytest.fixture(scope="module", autouse=True)
def _everything_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """pytester forgets what a run inside this process imported, and torch cannot be imported twice."""
    import pruneproof.testing

    folder = tmp_path_factory.mktemp("warm")
    (folder / "tiny_subject.py").write_text(conftest.SUBJECT.format(n=400))
    (folder / "audit.toml").write_text(conftest.POLICY)
    pruneproof.audit(folder / "audit.toml", out=folder / "out")
    sys.modules.pop("tiny_subject")


def found(pytester: pytest.Pytester, folder: str = "pruneproof-report") -> Evidence:
    return records.read(pytester.path / folder)


def verdicts(evidence: Evidence) -> dict[str, str]:
    return {f"{row.variant} {row.id}": row.verdict for row in evidence.gates}


def test_each_gate_of_each_variant_is_a_test_of_its_own(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path)
    run = pytester.runpytest_inprocess("--collect-only", "-q")
    run.stdout.fnmatch_lines(
        [f"audit.toml::{v}::{g}".replace("[", "[[]") for v in ("mag@0.3", "mag@0.97") for g in GATES]
    )


def test_collect_only_lists_the_gates_without_measuring_or_writing(pytester: pytest.Pytester, tiny: Tiny) -> None:
    raising = conftest.SUBJECT.replace("return self.body(x)", "assert len(x) < 10, 'measured'; return self.body(x)")
    tiny(pytester.path, subject=raising)
    run = pytester.runpytest_inprocess("--collect-only", "-q")
    assert run.ret == pytest.ExitCode.OK
    run.stdout.fnmatch_lines(["8 tests collected*"])
    assert not (pytester.path / "pruneproof-report").exists()


def test_a_run_in_which_every_gate_passes_exits_with_0(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path, policy=RELEASABLE)
    run = pytester.runpytest_inprocess("audit.toml")
    run.assert_outcomes(passed=4)
    assert run.ret == pytest.ExitCode.OK
    run.stdout.fnmatch_lines(["RELEASED: *", "report: *report.html"])


def test_a_failing_gate_says_limit_value_interval_examples_and_how_to_reproduce(
    pytester: pytest.Pytester, tiny: Tiny
) -> None:
    tiny(pytester.path)
    run = pytester.runpytest_inprocess("audit.toml")
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    run.assert_outcomes(passed=6, failed=2)
    run.stdout.fnmatch_lines(
        [
            "mag@0.97  accuracy/accuracy:max_drop: FAIL",
            "*limit*max_drop 0.05 against dense*",
            "*value*0.*to*90 % interval*n = 400",
            "*dense*→*",
            "*hurt most*region=*",
            "*truth*before*now*region=*",
            "*reproduce*pytest audit.toml::mag@0.97::accuracy/accuracy:max_drop --pruneproof-out *",
        ]
    )
    assert "Traceback" not in run.stdout.str()


def test_the_command_that_reproduces_a_gate_runs_it(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path)
    run = pytester.runpytest_inprocess("audit.toml::mag@0.3::segments/excess_accuracy_gap:max[region=north]")
    run.assert_outcomes(passed=1)


def test_terminal_junit_json_and_exit_code_agree(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path)
    run = pytester.runpytest_inprocess("audit.toml", "--junit-xml=junit.xml")
    evidence = found(pytester)
    failing = sum(verdict != "PASS" for verdict in verdicts(evidence).values())
    suite = ET.parse(pytester.path / "junit.xml").getroot()[0]
    assert int(suite.attrib["failures"]) == failing == run.parseoutcomes()["failed"]
    assert int(suite.attrib["tests"]) == len(evidence.gates)
    assert evidence.verdict == "FAIL"


@pytest.mark.parametrize("deselect", [("-k", "accuracy"), ("--deselect", f"audit.toml::mag@0.3::{GATES[2]}")])
def test_deselecting_part_of_an_audit_leaves_gates_not_run_and_an_exit_code(
    pytester: pytest.Pytester, tiny: Tiny, deselect: tuple[str, str]
) -> None:
    tiny(pytester.path, policy=RELEASABLE)
    if deselect[0] == "-k":
        deselect = ("-k", "min")
    run = pytester.runpytest_inprocess("audit.toml", *deselect)
    assert "failed" not in run.parseoutcomes()
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    evidence = found(pytester)
    assert evidence.verdict == "NOT_RUN"
    assert not any(row.released for row in evidence.variants)


def test_a_run_that_asks_for_no_gate_says_so_in_one_line(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path)
    pytester.makepyfile(test_login="def test_login(): pass")
    run = pytester.runpytest_inprocess("-k", "login")
    assert run.ret == pytest.ExitCode.OK
    assert [line for line in run.outlines if "audit.toml" in line and "did not run" in line]
    assert not (pytester.path / "pruneproof-report").exists()


def test_where_the_ini_requires_an_audit_a_run_without_one_fails(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path)
    pytester.makepyfile(test_login="def test_login(): pass")
    assert pytester.runpytest_inprocess("-k", "login", "-o", "pruneproof_require=true").ret == 1
    assert pytester.runpytest_inprocess("test_login.py", "-o", "pruneproof_require=true").ret == 1
    assert pytester.runpytest_inprocess("test_login.py").ret == 0


CHURN = """
    import pytest

    @pytest.mark.pruneproof("audit.toml")
    def test_churn(pruneproof):
        x = pruneproof.test.inputs
        changed = pruneproof.variant.predict(x) != pruneproof.dense.predict(x)
        pruneproof.gate("churn", count=changed.sum(), n=len(x), max=0.05)
"""


def test_gates_that_tests_make_do_not_stand_in_for_a_required_audit(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path, policy=RELEASABLE)
    pytester.makepyfile(test_churn=CHURN)
    run = pytester.runpytest_inprocess("test_churn.py", "-o", "pruneproof_require=true")
    run.assert_outcomes(passed=1)
    assert run.ret == pytest.ExitCode.TESTS_FAILED


def test_stopping_at_the_first_failure_leaves_the_rest_not_run_and_keeps_what_was_measured(
    pytester: pytest.Pytester, tiny: Tiny
) -> None:
    tiny(pytester.path, policy=conftest.POLICY.replace("[0.3, 0.97]", "[0.97, 0.3]"))
    run = pytester.runpytest_inprocess("audit.toml", "-x")
    assert run.ret != 0
    seen = verdicts(found(pytester))
    assert seen["mag@0.97 accuracy/accuracy:min"] == "FAIL"
    assert seen["mag@0.3 accuracy/accuracy:min"] == "NOT_RUN"


def test_a_subject_that_cannot_be_loaded_makes_each_gate_one_error(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path, subject="import no_such_module_{n}\n")
    run = pytester.runpytest_inprocess("audit.toml")
    run.assert_outcomes(failed=6)
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    evidence = found(pytester)
    assert set(verdicts(evidence).values()) == {"ERROR"}
    assert "no_such_module" in (evidence.subject.error or "")
    assert "Traceback" not in run.stdout.str()


def test_a_policy_error_exits_with_4_and_names_the_line(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path, policy=conftest.POLICY.replace("max_drop", "max_dorp"))
    run = pytester.runpytest_inprocess("audit.toml")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stdout.fnmatch_lines(["*audit.toml, line 14: *max_dorp*", "*max_drop*"])
    assert "Traceback" not in run.stdout.str()


def test_an_output_folder_that_cannot_be_written_exits_with_4_before_measuring(
    pytester: pytest.Pytester, tiny: Tiny
) -> None:
    tiny(pytester.path, policy=RELEASABLE)
    pytester.path.joinpath("taken").write_text("a file")
    run = pytester.runpytest_inprocess("audit.toml", "--pruneproof-out", "taken")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stdout.fnmatch_lines(["*taken: cannot write there*"])


def test_a_model_that_answers_nan_is_an_error_never_a_pass(pytester: pytest.Pytester, tiny: Tiny) -> None:
    nan = conftest.SUBJECT.replace(
        "return self.body(x)", "y = self.body(x); return y / (self.body[0].weight != 0).float().mean().gt(0.1)"
    )
    tiny(pytester.path, subject=nan)
    run = pytester.runpytest_inprocess("audit.toml")
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    seen = verdicts(found(pytester))
    assert {seen[f"mag@0.97 {gate}"] for gate in GATES} == {"ERROR"}
    assert {seen[f"mag@0.3 {gate}"] for gate in GATES} == {"PASS"}


def test_variants_that_are_not_up_for_release_are_shown_and_do_not_decide(
    pytester: pytest.Pytester, tiny: Tiny
) -> None:
    tiny(pytester.path, policy=conftest.POLICY.replace("seed = 5", 'seed = 5\nrelease = ["mag@0.3"]'))
    run = pytester.runpytest_inprocess("audit.toml", "-rs", "--junit-xml=junit.xml")
    assert run.ret == pytest.ExitCode.OK
    run.stdout.fnmatch_lines(["*2 explored*"])
    assert int(ET.parse(pytester.path / "junit.xml").getroot()[0].attrib["skipped"]) == 2
    evidence = found(pytester)
    assert evidence.verdict == "PASS"
    assert {row.name: row.verdict for row in evidence.variants if row.kind == "pruned"}["mag@0.97"] == "FAIL"


@pytest.mark.parametrize(("mode", "code", "outcome"), [("fail", 1, "failed"), ("warn", 0, "inconclusive")])
def test_an_inconclusive_gate_blocks_unless_the_policy_says_warn(
    pytester: pytest.Pytester, tiny: Tiny, mode: str, code: int, outcome: str
) -> None:
    tiny(pytester.path, policy=SMALL_LIMIT.replace("seed = 5", f'seed = 5\ninconclusive = "{mode}"'))
    run = pytester.runpytest_inprocess("audit.toml")
    assert run.ret == code
    assert run.parseoutcomes()[outcome] == 1
    evidence = found(pytester)
    assert evidence.verdict == "INCONCLUSIVE"
    assert not any(row.released for row in evidence.variants)
    run.stdout.fnmatch_lines(["INCONCLUSIVE: *Not released."])


WAIVER = """
[[waivers]]
gate = "accuracy/accuracy:max_drop"
variant = "mag@0.3"
observed_max = {limit}
reason = "known"
approved_by = "the release board"
expires = {expires}
"""


@pytest.mark.parametrize(
    ("limit", "expires", "code"), [(0.01, "2999-01-01", 0), (0.001, "2999-01-01", 1), (0.01, "2020-01-01", 1)]
)
def test_a_waiver_covers_a_value_within_its_own_limit_until_it_expires(
    pytester: pytest.Pytester, tiny: Tiny, limit: float, expires: str, code: int
) -> None:
    tiny(pytester.path, policy=SMALL_LIMIT + WAIVER.format(limit=limit, expires=expires))
    run = pytester.runpytest_inprocess("audit.toml")
    assert run.ret == code
    assert (run.parseoutcomes().get("waived", 0) == 1) == (code == 0)


def test_a_gate_made_in_test_code_stands_in_the_evidence(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path, policy=RELEASABLE)
    pytester.makepyfile(CHURN)
    run = pytester.runpytest_inprocess()
    assert run.ret == pytest.ExitCode.OK
    row = next(row for row in found(pytester).gates if row.id == "tests/churn:max")
    assert (row.verdict, row.n, row.variant) == ("PASS", 400, "mag@0.3")


def test_a_gate_made_in_test_code_fails_its_test_with_a_reason(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path)
    pytester.makepyfile(CHURN)
    run = pytester.runpytest_inprocess("-k", "churn")
    run.assert_outcomes(passed=1, failed=1, deselected=8)
    run.stdout.fnmatch_lines(["mag@0.97  tests/churn:max: FAIL", "*reproduce*test_churn*mag@0.97*"])


def test_a_required_gate_that_no_test_made_is_not_run(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path, policy=RELEASABLE + '\n[tests]\nrequired = ["churn"]\n')
    run = pytester.runpytest_inprocess("audit.toml")
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    assert verdicts(found(pytester))["mag@0.3 tests/churn"] == "NOT_RUN"


def test_the_fixture_without_its_marker_says_what_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(pruneproof): pass")
    run = pytester.runpytest_inprocess()
    run.stdout.fnmatch_lines(["*needs @pytest.mark.pruneproof*"])
    assert run.ret == pytest.ExitCode.TESTS_FAILED


def test_several_audits_in_one_run_write_a_folder_each(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path / "a", policy=RELEASABLE)
    tiny(pytester.path / "b", policy=RELEASABLE.replace('name = "tiny"', 'name = "other"'), n=300)
    run = pytester.runpytest_inprocess("a/audit.toml", "b/audit.toml", "--pruneproof-out", "out")
    run.assert_outcomes(passed=8)
    sizes = {name: found(pytester, f"out/{name}").subject.data_sizes["test"] for name in ("tiny", "other")}
    assert sizes == {"tiny": 400, "other": 300}


def test_another_tools_file_of_the_same_name_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("audit.toml").write_text('[advisories]\nignore = ["RUSTSEC-0000-0000"]\n')
    pytester.makepyfile(test_login="def test_login(): pass")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_pyproject_table_is_an_audit_as_well(pytester: pytest.Pytester, tiny: Tiny) -> None:
    path = tiny(pytester.path, policy=RELEASABLE)
    table = RELEASABLE.replace("[[", "[[tool.pruneproof.").replace("\n[", "\n[tool.pruneproof.")
    text = table.replace("[tool.pruneproof.[tool", "[[tool").replace("[tool.pruneproof.[", "[[")
    path.unlink()
    (pytester.path / "pyproject.toml").write_text(text)
    pytester.runpytest_inprocess("pyproject.toml").assert_outcomes(passed=4)


def test_a_run_without_an_audit_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_login.py").write_text("def test_login(): pass\n")
    heavy = ["torch", "numpy", "scipy", "pandas", "pydantic", "matplotlib", "sklearn", "rich", "typer"]
    code = (
        "import sys, pytest; pytest.main(['-q', '-p', 'no:hypothesispytest']); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p pruneproof.plugin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **plugins}
    )
    assert "1 passed" in done.stdout
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_importing_the_package_imports_only_the_standard_library(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import pruneproof; dir(pruneproof); "
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'pruneproof'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


LOGGING = conftest.SUBJECT.replace(
    "return self.body(x)",
    "open('forwards.log', 'a').write(f'{{len(x)}}\\n'); return self.body(x)",
).replace('task="classification",', 'task="classification", batch_size=1000,')


@pytest.mark.slow
def test_with_workers_verdicts_junit_exit_code_and_evidence_are_the_same_and_work_is_done_once(
    pytester: pytest.Pytester, tiny: Tiny
) -> None:
    tiny(pytester.path, subject=LOGGING)
    pytester.makepyfile(CHURN)
    seen = []
    for workers in ((), ("-n", "2")):
        (pytester.path / "forwards.log").write_text("")
        run = pytester.runpytest_subprocess(
            "--junit-xml=junit.xml", "-p", "no:cacheprovider", *workers, "-k", "not churn"
        )
        cases = ET.parse(pytester.path / "junit.xml").getroot()[0]
        outcomes = {(case.attrib["classname"], case.attrib["name"], len(case.findall("failure"))) for case in cases}
        table = json.loads((pytester.path / "pruneproof-report" / "evidence.json").read_text())
        for key in ("audit", "ledger"):
            table.pop(key)
        full = (pytester.path / "forwards.log").read_text().split().count("400")
        seen.append((run.ret, outcomes, table, full))
    alone, shared = seen
    assert alone[0] == shared[0] == pytest.ExitCode.TESTS_FAILED
    assert alone[1] == shared[1]
    assert alone[2] == shared[2]
    # Dense, two variants and the random control of each, once, whichever worker asked.
    assert alone[3] == shared[3] == 5


@pytest.mark.slow
def test_a_worker_that_dies_in_one_variant_leaves_no_pass_there_and_the_other_verdicts_stand(
    pytester: pytest.Pytester, tiny: Tiny
) -> None:
    dying = conftest.SUBJECT.replace(
        "return self.body(x)",
        "import os; (self.body[0].weight != 0).float().mean() < 0.1 and os._exit(7); return self.body(x)",
    )
    tiny(pytester.path, subject=dying)
    run = pytester.runpytest_subprocess("audit.toml", "-n", "2")
    assert run.ret != pytest.ExitCode.OK
    seen = verdicts(found(pytester))
    assert {seen[f"mag@0.3 {gate}"] for gate in GATES} == {"PASS"}
    assert {seen[f"mag@0.97 {gate}"] for gate in GATES} <= {"ERROR", "NOT_RUN"}


@pytest.mark.slow
def test_an_internal_error_of_xdist_does_not_exit_with_0(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path, policy=RELEASABLE)
    pytester.makepyfile(
        test_a="""
        import numpy

        def test_that_fails(record_property):
            record_property("score", numpy.float64(0.5))
            assert False
        """
    )
    run = pytester.runpytest_subprocess("-n", "1")
    run.stdout.fnmatch_lines(["*INTERNALERROR*"])
    assert run.ret == pytest.ExitCode.INTERNAL_ERROR


@pytest.mark.slow
def test_a_policy_error_exits_with_4_with_workers_as_well(pytester: pytest.Pytester, tiny: Tiny) -> None:
    tiny(pytester.path, policy=conftest.POLICY.replace("max_drop", "max_dorp"))
    run = pytester.runpytest_subprocess("audit.toml", "-n", "2")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stdout.fnmatch_lines(["*max_dorp*"])


def test_a_policy_spelled_with_dotted_keys_is_collected_as_well(pytester: pytest.Pytester, tiny: Tiny) -> None:
    dotted = (
        'audit.name = "tiny"\nsubject.load = "tiny_subject:subject"\nsuites.accuracy.gates.accuracy = { min = 0.9 }\n'
    )
    tiny(pytester.path, policy=dotted + '[[ prune ]]\nname = "mag"\nratios = [0.3]\n')
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_skip_in_the_subjects_module_is_an_error_of_every_gate(pytester: pytest.Pytester, tiny: Tiny) -> None:
    skipping = 'import pytest\npytest.importorskip("no_such_library_{n}")\n'
    tiny(pytester.path, policy=RELEASABLE, subject=skipping)
    run = pytester.runpytest_inprocess()
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    assert set(verdicts(found(pytester)).values()) == {"ERROR"}


def test_a_gate_made_in_a_fixture_counts_even_when_its_test_is_expected_to_fail(
    pytester: pytest.Pytester, tiny: Tiny
) -> None:
    tiny(pytester.path, policy=RELEASABLE)
    pytester.makepyfile(
        test_churn="""
        import pytest

        @pytest.fixture
        def churn(pruneproof):
            pruneproof.gate("churn", count=100, n=100, max=0.05)

        @pytest.mark.xfail
        @pytest.mark.pruneproof("audit.toml")
        def test_churn(churn):
            pass
        """
    )
    run = pytester.runpytest_inprocess()
    assert run.ret == pytest.ExitCode.TESTS_FAILED
    assert verdicts(found(pytester))["mag@0.3 tests/churn:max"] == "FAIL"


@pytest.mark.parametrize(
    "arguments", ["count=0.99, n=100, max=0.05", "count=5, n=100, max=5", "value=1, max=float('nan')"]
)
def test_a_gate_that_makes_no_sense_fails_its_test(pytester: pytest.Pytester, tiny: Tiny, arguments: str) -> None:
    tiny(pytester.path, policy=RELEASABLE)
    pytester.makepyfile(
        test_churn=f"""
        import pytest

        @pytest.mark.pruneproof("audit.toml")
        def test_churn(pruneproof):
            pruneproof.gate("churn", {arguments})
        """
    )
    run = pytester.runpytest_inprocess("-k", "churn")
    run.assert_outcomes(failed=1, deselected=4)
    run.stdout.fnmatch_lines(["*ValueError*"])
