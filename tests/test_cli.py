"""The command line, as a person in a terminal meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import conftest
import pytest

from pruneproof import cli

Tiny = Callable[..., Path]


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command line in this process."""

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["pruneproof", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        code = left.value.code
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return call


Run = Callable[..., Said]


def assert_clear(said: Said, code: int, *words: str) -> None:
    """One line of cause, one of what to do, no traceback."""
    assert said.code == code
    lines = said.err.strip().splitlines()
    assert len(lines) == 2, said.err
    assert lines[0].startswith("error: ")
    assert all(word in said.err for word in words), said.err


def test_audit_exits_by_the_verdict_and_writes_the_report(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    path = tiny(tmp_path)
    said = run("audit", str(path), "--out", str(tmp_path / "out"))
    assert said.code == 1
    assert "BLOCKED" in said.out
    assert (tmp_path / "out" / "report.html").exists()
    released = tiny(tmp_path / "b", policy=conftest.POLICY.replace("[0.3, 0.97]", "[0.3]"))
    said = run("audit", str(released), "--out", str(tmp_path / "out2"))
    assert said.code == 0
    assert "RELEASED" in said.out


def test_audit_takes_the_folder_that_holds_the_policy(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    tiny(tmp_path)
    assert run("audit", str(tmp_path), "--out", str(tmp_path / "out")).code == 1


def test_report_renders_every_format_from_the_evidence_alone(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    run("audit", str(tiny(tmp_path)), "--out", str(tmp_path / "out"))
    (tmp_path / "tiny_subject.py").unlink()
    for form, file in (("html", "report.html"), ("markdown", "report.md"), ("junit", "junit.xml")):
        said = run("report", str(tmp_path / "out"), "--format", form, "--out", str(tmp_path / "again"))
        assert said.code == 0
        assert (tmp_path / "again" / file).stat().st_size > 100
    assert (tmp_path / "again" / "report.html").read_bytes() == (tmp_path / "out" / "report.html").read_bytes()
    assert_clear(run("report", str(tmp_path / "out"), "--format", "htlm"), 4, "htlm", "html")


def test_verify_exits_with_0_for_sound_evidence_and_1_for_contradictions(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    run("audit", str(tiny(tmp_path)), "--out", str(tmp_path / "out"))
    assert run("verify", str(tmp_path / "out")).code == 0
    assert run("verify", str(tmp_path / "out"), "--require-release").code == 1
    file = tmp_path / "out" / "evidence.json"
    file.write_text(file.read_text("utf-8").replace('"FAIL"', '"PASS"'), "utf-8")
    said = run("verify", str(tmp_path / "out"))
    assert said.code == 1
    assert "NOT VERIFIED" in said.out


def test_export_of_a_blocked_variant_is_refused(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    run("audit", str(tiny(tmp_path)), "--out", str(tmp_path / "out"))
    out = str(tmp_path / "exported")
    assert_clear(run("export", str(tmp_path / "out"), "mag@0.97", "--out", out), 4, "not released", "FAIL", "--force")
    assert_clear(run("export", str(tmp_path / "out"), "mag@0.4", "--out", out), 4, "mag@0.4", "mag@0.3")
    assert run("export", str(tmp_path / "out"), "mag@0.3", "--out", out).code == 0


def test_init_writes_a_policy_that_parses_and_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    from pruneproof import policy_file

    said = run("init", "--out", str(tmp_path))
    assert said.code == 0
    assert policy_file.read(tmp_path / "audit.toml").audit.name == "my-model"
    assert_clear(run("init", "--out", str(tmp_path)), 4, "is there already")


def test_the_starter_says_what_is_left_to_do_when_it_is_run_as_it_is(run: Run, tmp_path: Path) -> None:
    run("init", "--out", str(tmp_path))
    said = run("audit", str(tmp_path / "audit.toml"), "--out", str(tmp_path / "out"))
    assert said.code == 1
    assert "return your test set here" in said.out
    assert "Traceback" not in said.out + said.err


def test_init_starts_from_the_users_own_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bank.py").write_text("import torch\n\n\ndef net():\n    return torch.nn.Linear(3, 2)\n")
    assert run("init", "--model", "bank:net", "--out", str(tmp_path)).code == 0
    module = (tmp_path / "audited.py").read_text("utf-8")
    data = "    import torch\n    return torch.zeros(5, 3), torch.tensor([0, 1, 0, 1, 0]), None\n"
    start = module.index('    raise NotImplementedError("audited.py: return your test set here")')
    (tmp_path / "audited.py").write_text(module[:start] + data, "utf-8")
    said = run("audit", str(tmp_path / "audit.toml"), "--out", str(tmp_path / "out"))
    assert "accuracy/accuracy:max_drop" in said.out
    assert_clear(run("init", "--model", "bank.net", "--out", str(tmp_path / "x")), 4, "module:function")


@pytest.mark.parametrize("function", ["model", "subject", "test_set", "Zoo.net"])
def test_the_starter_works_whatever_the_users_function_is_called(run: Run, tmp_path: Path, function: str) -> None:
    source = "import torch\n\n\nclass Zoo:\n    net = staticmethod(lambda: torch.nn.Linear(3, 2))\n\n\n"
    if "." not in function:
        source += f"def {function}():\n    return Zoo.net()\n"
    (tmp_path / f"zoo_{function[:3].lower()}.py").write_text(source)
    assert run("init", "--model", f"zoo_{function[:3].lower()}:{function}", "--out", str(tmp_path)).code == 0
    said = run("audit", str(tmp_path / "audit.toml"), "--out", str(tmp_path / "out"))
    assert "return your test set here" in said.out


def test_a_folder_whose_policy_stands_in_pyproject_toml_can_be_audited(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    path = tiny(tmp_path)
    text = conftest.POLICY.replace("[[", "[[tool.pruneproof.").replace("\n[a", "\n[tool.pruneproof.a")
    path.unlink()
    (tmp_path / "pyproject.toml").write_text(text.replace("\n[s", "\n[tool.pruneproof.s"))
    assert "BLOCKED" in run("audit", str(tmp_path), "--out", str(tmp_path / "out")).out


def test_doctor_says_what_this_machine_can_and_cannot_certify(run: Run) -> None:
    said = run("doctor")
    assert said.code == 0
    for word in ("torch", "threads", "timing noise", "can certify", "cannot certify", "extra [llm]"):
        assert word in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("audit", "nowhere.toml"), ("nowhere.toml", "no such file")),
        (("demo", "fruad"), ("fruad", "fraud")),
        (("verify", "nowhere"), ("nowhere", "no such file")),
        (("report", "nowhere"), ("nowhere", "no such file")),
        (("export", "nowhere", "a@0.5"), ("nowhere", "no such file")),
        (("adit",), ("adit",)),
        (("audit",), ("path",)),
        (("audit", "x.toml", "--ouch"), ("--ouch",)),
    ],
)
def test_a_wrong_command_is_two_clear_lines_and_exit_code_4(
    run: Run, arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_clear(run(*arguments), 4, *words)


def test_an_unwritable_output_folder_is_refused_before_anything_is_measured(
    run: Run, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    said = run("audit", str(tiny(tmp_path / "a")), "--out", str(tmp_path / "taken"))
    assert_clear(said, 4, "cannot write there")
    assert "building" not in said.out


def _subject(old: str, new: str) -> str:
    assert old in conftest.SUBJECT
    return conftest.SUBJECT.replace(old, new)


RETURNED = "return inputs, targets, segments"
BAD_SUBJECTS = {
    "a load that does not exist": ("import pandas\nN = {n}\n", "subject"),
    "a load that raises": ("def subject():\n    raise KeyError('weights {n}')\n", "weights 400"),
    "a load that returns the wrong thing": ("def subject():\n    return {n}\n", "not a pruneproof.Subject"),
    "output that does not fit the task": (_subject("self.body(x)", "self.body(x).unsqueeze(0)"), "returned shape"),
    "labels outside the classes": (_subject("> 0).long()", "> 0).long() * 5"), "outside the classes"),
    "NaN in the inputs": (_subject(RETURNED, f"inputs[3, 0] = float('nan'); {RETURNED}"), "example 3"),
    "infinity in the outputs": (_subject("self.body(x)", "self.body(x) / 0"), "NaN or infinity"),
    "a model that leaves the process": (_subject("return self.body(x)", "raise SystemExit(0)"), "SystemExit"),
    "a load that leaves the process": ("import sys\nsys.exit(0 * {n})\n", "SystemExit"),
    "a model that skips": (_subject("return self.body(x)", "import pytest; pytest.skip('later')"), "Skipped"),
    "an empty test set": (_subject(RETURNED, "return inputs[:0], targets[:0], None"), "empty"),
    "a segment column that is missing": (_subject('"region":', '"place":'), "no segment column 'region'"),
    "a segment column that is all null": (
        _subject('["north" if i % 2 else "south"', "[None"),
        "'region' is empty",
    ),
}


@pytest.mark.parametrize("what", BAD_SUBJECTS)
def test_never_a_traceback_and_never_a_pass_for(what: str, run: Run, tiny: Tiny, tmp_path: Path) -> None:
    from pruneproof import evidence

    module, words = BAD_SUBJECTS[what]
    said = run("audit", str(tiny(tmp_path, subject=module)), "--out", str(tmp_path / "out"))
    assert said.code == 1
    assert words in said.out
    assert "Traceback" not in said.out + said.err
    found = evidence.read(tmp_path / "out")
    assert found.verdict == "ERROR"
    assert found.gates
    assert all(row.verdict == "ERROR" for row in found.gates)
    assert not any(row.released for row in found.variants)
    assert (tmp_path / "out" / "report.html").exists()


def test_progress_is_plain_lines_where_there_is_no_terminal(tiny: Tiny, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from pruneproof.cli import main; main()", "audit", str(tiny(tmp_path))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "60"})
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "mag@0.3: predicting and measuring" in done.stdout.splitlines()
