"""The embedded audits: each tells its story, and anyone can train its model again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pruneproof
from pruneproof import evidence, fixtures, verifying
from pruneproof.evidence import Evidence, GateRow

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fraud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fraud")
    pruneproof.audit(fixtures.path("fraud") / "audit.toml", out=folder)
    return folder


@pytest.fixture(scope="module")
def credit() -> Evidence:
    return pruneproof.audit(fixtures.path("credit") / "audit.toml")


@pytest.fixture(scope="module")
def digits() -> Evidence:
    return pruneproof.audit(fixtures.path("digits") / "audit.toml")


def states(found: Evidence) -> dict[str, str]:
    return {row.name: row.verdict for row in found.variants if row.kind == "pruned"}


def blocking(found: Evidence, variant: str) -> list[GateRow]:
    return [row for row in found.gates if row.variant == variant and row.verdict != "PASS"]


def test_of_the_fraud_model_30_and_50_percent_are_released_and_70_and_90_blocked(fraud: Path) -> None:
    found = evidence.read(fraud)
    assert states(found) == {
        "global-magnitude@0.3": "PASS",
        "global-magnitude@0.5": "PASS",
        "global-magnitude@0.7": "FAIL",
        "global-magnitude@0.9": "FAIL",
    }


def test_at_70_percent_one_amount_band_breaks_while_overall_accuracy_still_passes(fraud: Path) -> None:
    found = evidence.read(fraud)
    rows = {row.id: row for row in found.gates if row.variant == "global-magnitude@0.7"}
    assert rows["accuracy/accuracy:max_drop"].verdict == "PASS"
    segments = [row for row in blocking(found, "global-magnitude@0.7") if row.suite == "segments"]
    assert [row.segment for row in segments] == [{"band": ">80k"}]
    assert segments[0].verdict == "FAIL"


def test_its_recall_rises_as_it_breaks_so_that_only_false_positives_show_it(fraud: Path) -> None:
    found = evidence.read(fraud)
    recall = {
        row.variant: row.value
        for row in found.measurements
        if (row.suite, row.metric, row.segment) == ("accuracy", "recall", {"class": "fraud"})
    }
    assert (recall["global-magnitude@0.9"] or 0) > (recall["dense"] or 0)
    rows = {row.id: row for row in found.gates if row.variant == "global-magnitude@0.7"}
    assert rows["accuracy/fpr:max_rise"].verdict == "FAIL"


def test_provider_and_channel_the_negative_controls_are_flagged_at_no_ratio(fraud: Path) -> None:
    controls = [row for row in evidence.read(fraud).gates if set(row.segment or {}) & {"provider", "channel"}]
    assert len(controls) >= 4 * 6
    assert {row.verdict for row in controls} == {"PASS"}


def test_the_demos_evidence_is_verified(fraud: Path) -> None:
    assert verifying.verify(fraud, fixtures.path("fraud") / "audit.toml") == []


def test_a_second_run_of_the_demo_gives_the_same_evidence_but_for_times_and_ids(fraud: Path, tmp_path: Path) -> None:
    pruneproof.audit(fixtures.path("fraud") / "audit.toml", out=tmp_path)
    tables = [json.loads((folder / evidence.FILE).read_text("utf-8")) for folder in (fraud, tmp_path)]
    for table in tables:
        del table["audit"], table["ledger"]
    assert tables[0] == tables[1]
    files = [(folder / evidence.OUTCOMES).read_bytes() for folder in (fraud, tmp_path)]
    assert files[0] == files[1]


def test_of_the_credit_model_some_ratio_is_released_and_a_higher_one_blocked(credit: Evidence) -> None:
    found = states(credit)
    assert found["global-magnitude@0.3"] == "PASS"
    assert found["global-magnitude@0.9"] == "FAIL"


def test_of_the_digits_network_some_ratio_is_released_and_a_higher_one_blocked(digits: Evidence) -> None:
    found = states(digits)
    for recipe in ("weights", "channels"):
        verdicts = [verdict for name, verdict in found.items() if name.startswith(f"{recipe}@")]
        assert verdicts[0] == "PASS"
        assert verdicts[-1] == "FAIL"


def test_channels_that_are_removed_make_the_digits_network_smaller(digits: Evidence) -> None:
    rows = {row.name: row for row in digits.variants}
    dense = rows["dense"]
    for row in digits.variants:
        if row.name.startswith("channels@"):
            assert (row.parameters or 0) < (dense.parameters or 0)
            assert (row.macs or 0) < (dense.macs or 0)
            assert (row.bytes or 0) < (dense.bytes or 0)
            assert all(check.passed for check in row.self_checks if check.decides)


@pytest.mark.parametrize("name", fixtures.names())
def test_no_embedded_audit_gates_anything_that_depends_on_the_clock(name: str) -> None:
    from pruneproof import policy_file

    assert set(policy_file.read(fixtures.path(name) / "audit.toml").suites) <= {
        "accuracy",
        "segments",
        "adversarial",
        "shift",
    }


@pytest.mark.parametrize("name", fixtures.names())
def test_training_again_gives_the_same_file_and_the_shipped_weights_up_to_a_machines_rounding(
    name: str, tmp_path: Path
) -> None:
    files = [tmp_path / f"{attempt}.safetensors" for attempt in "12"]
    for attempt, file in enumerate(files):
        command = [sys.executable, "-m", f"pruneproof.fixtures.{name}.train", "--out", str(file)]
        environment = {**os.environ, "PYTHONHASHSEED": str(attempt)}
        subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, env=environment)
    assert files[0].read_bytes() == files[1].read_bytes()
    shipped, again = load_file(fixtures.path(name) / "model.safetensors"), load_file(files[0])
    assert set(shipped) == set(again)
    for key, tensor in shipped.items():
        assert torch.allclose(tensor.double(), again[key].double(), atol=0.05, rtol=0.05), key
