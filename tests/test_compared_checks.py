"""Self-checks that concern more than one network: the fresh process (V6), the random control (V10); and sensitivity."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import POLICY, SUBJECT

import pruneproof
from pruneproof import policy_file, replanning, verifying
from pruneproof.evidence import Evidence, SelfCheck
from pruneproof.verdicts import Verdict

Tiny = Callable[..., Path]
RANDOM = POLICY.replace('name = "mag"\n', 'name = "mag"\ncriterion = "random"\n')
CALIBRATED = SUBJECT.replace(
    "        classes=",
    "        calibration=pruneproof.Data(-inputs[:100], (inputs[:100, 0] < 0).long()),\n        classes=",
)


def check(found: Evidence, variant: str, name: str) -> SelfCheck:
    (row,) = (row for row in found.variants if row.name == variant)
    (only,) = (entry for entry in row.self_checks if entry.id == name)
    return only


# V6


def test_a_fresh_process_makes_every_plan_of_an_audit_again(tiny: Tiny, tmp_path: Path) -> None:
    found = pruneproof.audit(tiny(tmp_path))
    for name in ("mag@0.3", "mag@0.97"):
        assert check(found, name, "V6").passed


def test_a_model_that_differs_from_process_to_process_is_an_error(tiny: Tiny, tmp_path: Path) -> None:
    """A hash of a text is another one in every process."""
    hashed = SUBJECT.replace("    return net\n", "        last.bias += 1e-6 * (hash('pruned') % 97)\n    return net\n")
    found = pruneproof.audit(tiny(tmp_path, subject=hashed))
    assert found.verdict is Verdict.ERROR
    failed = check(found, "mag@0.3", "V6")
    assert not failed.passed
    assert failed.detail.startswith("here ")
    (row,) = (row for row in found.variants if row.name == "mag@0.3")
    assert "self-check V6 failed: a fresh process makes the same plan" in (row.error or "")


def test_a_fresh_process_that_dies_is_an_error_that_says_how(tiny: Tiny, tmp_path: Path) -> None:
    once = (
        "import os, pathlib\n"
        "if os.environ.get('PYTHONHASHSEED') and pathlib.Path(__file__).with_name('second').exists():\n"
        "    os._exit(7)\n"
        "pathlib.Path(__file__).with_name('second').touch()\n"
    )
    found = pruneproof.audit(tiny(tmp_path, subject=once + SUBJECT))
    assert found.verdict is Verdict.ERROR
    assert "ended with exit code 7" in check(found, "mag@0.3", "V6").detail


def test_a_fresh_process_that_hangs_is_ended(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny(tmp_path, policy=POLICY.replace("seed = 5", "seed = 5\ntimeout_s = 0.1"))
    found = replanning.FreshProcess(policy_file.read(path)).digests()
    assert "took longer than" in found[""]
    assert not replanning.check("mag@0.3", "0" * 64, found).passed


def test_a_subject_that_the_fresh_process_cannot_load_says_why(tiny: Tiny, tmp_path: Path) -> None:
    once = (
        "import os, pathlib\n"
        "if pathlib.Path(__file__).with_name('second').exists():\n"
        "    raise SystemExit('only once')\n"
        "pathlib.Path(__file__).with_name('second').touch()\n"
    )
    found = pruneproof.audit(tiny(tmp_path, subject=once + SUBJECT))
    assert "only once" in check(found, "mag@0.3", "V6").detail
    (row,) = (row for row in found.variants if row.name == "mag@0.3")
    assert "seeded generators" in (row.error or "")


def test_what_a_subject_starts_and_leaves_running_holds_nothing_up(tiny: Tiny, tmp_path: Path) -> None:
    starts = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(25)'])\n"
    begun = time.monotonic()
    found = replanning.FreshProcess(policy_file.read(tiny(tmp_path, subject=starts + SUBJECT))).digests()
    assert set(found) == {"mag@0.3", "mag@0.97"}
    assert time.monotonic() - begun < 24


def test_a_recipe_that_hangs_costs_the_others_nothing(tiny: Tiny, tmp_path: Path) -> None:
    hangs = SUBJECT.replace("        classes=", "        fine_tune=forever,\n        classes=") + (
        "\n\ndef forever(model, **others):\n    while True:\n        pass\n"
    )
    asked = POLICY.replace("seed = 5", "seed = 5\ntimeout_s = 4") + (
        '\n[[prune]]\nname = "slow"\nratios = [0.5]\nfine_tune = true\n'
    )
    found = pruneproof.audit(tiny(tmp_path, policy=asked, subject=hangs))
    rows = {row.name: row for row in found.variants}
    assert rows["mag@0.3"].verdict is Verdict.PASS
    assert "took longer than 4 s" in (rows["slow@0.5"].error or "")


def test_a_plan_that_the_fresh_process_could_not_make_says_why(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny(tmp_path, policy=POLICY.replace("ratios = [0.3, 0.97]", "ratios = [0.001]"))
    found = replanning.FreshProcess(policy_file.read(path)).digests()
    assert found == {"mag@0.001": "ratio 0.001 of 64 units removes nothing"}
    assert "removes nothing" in replanning.check("mag@0.001", "0" * 64, found).detail


# V10


def test_the_random_control_stands_beside_every_variant_and_decides_nothing(tiny: Tiny, tmp_path: Path) -> None:
    found = pruneproof.audit(tiny(tmp_path))
    control = check(found, "mag@0.3", "V10")
    assert not control.decides
    own, other = (float(word.rstrip(",")) for word in control.detail.split() if word[0].isdigit())
    (accuracy,) = (
        row.value
        for row in found.measurements
        if (row.variant, row.suite, row.metric) == ("mag@0.3", "accuracy", "accuracy")
    )
    assert own == pytest.approx(accuracy, abs=5e-5)
    assert control.passed == (own > other)


def test_the_control_is_what_the_same_recipe_with_random_scores_gives(tiny: Tiny, tmp_path: Path) -> None:
    control = check(pruneproof.audit(tiny(tmp_path / "a")), "mag@0.3", "V10")
    drawn = pruneproof.audit(tiny(tmp_path / "b", policy=RANDOM))
    (accuracy,) = (
        row.value
        for row in drawn.measurements
        if (row.variant, row.suite, row.metric) == ("mag@0.3", "accuracy", "accuracy")
    )
    assert f"random control {accuracy:.4f}" in control.detail
    (row,) = (row for row in drawn.variants if row.name == "mag@0.3")
    assert "V10" not in {entry.id for entry in row.self_checks}


def test_a_variant_that_does_no_better_than_its_control_is_judged_by_its_gates_all_the_same(
    tiny: Tiny, tmp_path: Path
) -> None:
    found = pruneproof.audit(tiny(tmp_path), out=tmp_path / "out")
    broken = json.loads((tmp_path / "out" / "evidence.json").read_text("utf-8"))
    for row in broken["variants"]:
        for entry in row["self_checks"]:
            entry["passed"] = entry["passed"] and entry["decides"]
    (tmp_path / "out" / "evidence.json").write_text(json.dumps(broken), "utf-8")
    assert verifying.verify(tmp_path / "out") == []
    assert found.verdict is not Verdict.ERROR


# Sensitivity


def test_sensitivity_is_the_accuracy_on_calibration_data_of_each_layer_pruned_alone(tiny: Tiny, tmp_path: Path) -> None:
    asked = POLICY + '\n[sensitivity]\nrecipe = "mag"\nratios = [0.25, 0.75]\n'
    found = pruneproof.audit(tiny(tmp_path, policy=asked, subject=CALIBRATED), out=tmp_path / "out")
    assert found.sensitivity_error is None
    rows = {(row.layer, row.ratio): row for row in found.sensitivity}
    layers = ("body.0.weight", "body.2.weight")
    assert set(rows) == {(None, None), *((layer, ratio) for layer in layers for ratio in (0.25, 0.75))}
    assert {row.n for row in found.sensitivity} == {100}
    for layer in layers:
        assert by_hand(tmp_path, layer, 0.75) == rows[layer, 0.75].value
    assert by_hand(tmp_path, layers[0], 0.0) == rows[None, None].value
    assert verifying.verify(tmp_path / "out") == []


def by_hand(folder: Path, layer: str, ratio: float) -> float:
    """Accuracy on the calibration examples with the smallest weights of one layer at zero."""
    import torch

    from pruneproof import loading, policy_file

    subject = loading.load(policy_file.read(folder / "audit.toml")).subject
    weight = subject.model.get_parameter(layer)
    order = weight.detach().abs().flatten().argsort(stable=True)
    with torch.no_grad():
        weight.view(-1)[order[: round(ratio * weight.numel())]] = 0
        assert subject.calibration is not None
        said = subject.model(subject.calibration.inputs).argmax(1)
    return float((said == subject.calibration.targets).double().mean())


def test_sensitivity_without_calibration_data_is_a_limitation_and_costs_no_verdict(tiny: Tiny, tmp_path: Path) -> None:
    asked = POLICY + '\n[sensitivity]\nrecipe = "mag"\n'
    found = pruneproof.audit(tiny(tmp_path, policy=asked))
    plain = pruneproof.audit(tiny(tmp_path / "plain"))
    assert found.sensitivity == []
    assert "the subject has none" in (found.sensitivity_error or "")
    assert any(line.startswith("sensitivity could not be measured") for line in found.limitations)
    assert found.verdict is plain.verdict


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row["self_checks"].pop(0),
        lambda row: row["self_checks"].clear(),
        lambda row: row["self_checks"][0].update(decides=False),
        lambda row: row["self_checks"].append(dict(row["self_checks"][0])),
        lambda row: row.update(claimed_ratio=0.9, claimed_of="macs"),
        lambda row: row["recipe"].update(criterion="random"),
    ],
)
def test_checks_and_claims_that_were_altered_are_found(
    tiny: Tiny, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    pruneproof.audit(tiny(tmp_path), out=tmp_path / "out")
    file = tmp_path / "out" / "evidence.json"
    table = json.loads(file.read_text("utf-8"))
    change(next(row for row in table["variants"] if row["name"] == "mag@0.3"))
    file.write_text(json.dumps(table), "utf-8")
    assert verifying.verify(tmp_path / "out")


def test_a_table_of_sensitivity_that_was_altered_is_found(tiny: Tiny, tmp_path: Path) -> None:
    asked = POLICY + '\n[sensitivity]\nrecipe = "mag"\nratios = [0.25]\n'
    pruneproof.audit(tiny(tmp_path, policy=asked, subject=CALIBRATED), out=tmp_path / "out")
    file = tmp_path / "out" / "evidence.json"
    whole = file.read_text("utf-8")
    for change in (lambda rows: rows.clear(), lambda rows: rows[1].update(ratio=0.3)):
        table = json.loads(whole)
        change(table["sensitivity"])
        file.write_text(json.dumps(table), "utf-8")
        assert verifying.verify(tmp_path / "out") == ["the table of sensitivity is not that which the policy asks for"]
