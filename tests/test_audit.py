"""An audit from policy to evidence, and whether the evidence can be trusted afterwards."""

from __future__ import annotations

import copy
import importlib.resources
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conftest
import jsonschema
import numpy as np
import pytest
import torch

import pruneproof
from pruneproof import digests, evidence, exporting, plan, verifying
from pruneproof.errors import EvidenceError, UsageError

Tiny = Callable[..., Path]
UNSTABLE = ("audit", "ledger")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the tiny audit wrote; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "tiny_subject.py").write_text(conftest.SUBJECT.format(n=400), "utf-8")
    (folder / "audit.toml").write_text(conftest.POLICY, "utf-8")
    pruneproof.audit(folder / "audit.toml", out=folder / "out")
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(written, tmp_path / "copy")
    return tmp_path / "copy"


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "out" / evidence.FILE
    table = json.loads(file.read_text("utf-8"))
    edit(table)
    file.write_text(json.dumps(table), "utf-8")


def test_evidence_is_valid_under_the_published_json_schema(written: Path) -> None:
    schema = json.loads(importlib.resources.files("pruneproof").joinpath("evidence.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((written / "out" / evidence.FILE).read_text("utf-8")), schema)


def test_the_published_json_schema_is_that_of_the_records() -> None:
    published = importlib.resources.files("pruneproof").joinpath("evidence.schema.json").read_text("utf-8")
    assert json.loads(published) == evidence.schema()


def test_a_second_run_gives_the_same_evidence_but_for_times_and_ids(copied: Path) -> None:
    before = json.loads((copied / "out" / evidence.FILE).read_text("utf-8"))
    outcomes = (copied / "out" / evidence.OUTCOMES).read_bytes()
    pruneproof.audit(copied / "audit.toml", out=copied / "out")
    after = json.loads((copied / "out" / evidence.FILE).read_text("utf-8"))
    before["policy"]["path"] = after["policy"]["path"]
    for table in (before, after):
        for key in UNSTABLE:
            table.pop(key)
    assert before == after
    assert (copied / "out" / evidence.OUTCOMES).read_bytes() == outcomes


def test_earlier_runs_on_the_same_model_and_data_stand_in_the_ledger_failures_included(copied: Path) -> None:
    first = evidence.read(copied / "out")
    pruneproof.audit(copied / "audit.toml", out=copied / "out")
    second = evidence.read(copied / "out")
    assert [(row.id, row.verdict) for row in second.ledger] == [(first.audit.id, "FAIL")]


def test_the_achieved_sparsity_is_that_of_the_tensors_under_three_denominators(written: Path) -> None:
    row = next(row for row in evidence.read(written / "out").variants if row.name == "mag@0.97")
    # weights 6·8 + 8·2 = 64, of which round-half-up(62.08) = 62 go; with biases 8 + 2 there are 74 parameters
    assert (row.units_removed, row.units) == (62, 64)
    assert row.sparsity == pytest.approx(
        {"pruned_tensors": 62 / 64, "layer_weights": 62 / 64, "all_parameters": 62 / 74}
    )


def test_a_variant_that_is_released_has_only_passing_gates(written: Path) -> None:
    found = evidence.read(written / "out")
    for row in found.variants:
        verdicts = {gate.verdict for gate in found.gates if gate.variant == row.name}
        assert row.released == (verdicts == {"PASS"})


def test_the_users_process_is_left_as_it_was(copied: Path) -> None:
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy(), torch.get_num_threads())
    pruneproof.audit(copied / "audit.toml")
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()
    assert states[3] == torch.get_num_threads()
    assert torch.is_grad_enabled()


def test_untouched_evidence_is_verified(written: Path) -> None:
    assert verifying.verify(written / "out", written / "audit.toml") == []
    assert verifying.verify(written / "out" / evidence.FILE) == []


def _set_gate(index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["gates"][index].update(values)


def _release_everything(table: dict[str, Any]) -> None:
    for gate in table["gates"]:
        gate["verdict"] = "PASS"
    for row in table["variants"]:
        row["verdict"], row["released"] = "PASS", row["candidate"]
    table["verdict"] = "PASS"


def _loosen(table: dict[str, Any]) -> None:
    table["policy"]["text"] = table["policy"]["text"].replace("max_drop = 0.05", "max_drop = 0.9")


def _explore(table: dict[str, Any]) -> None:
    table["policy"]["candidates"] = ["mag@0.3"]
    for gate in table["gates"]:
        gate["candidate"] = gate["variant"] == "mag@0.3"
    table["verdict"] = "PASS"


def _drop_failing(table: dict[str, Any]) -> None:
    table["gates"] = [gate for gate in table["gates"] if gate["verdict"] == "PASS"]
    table["verdict"] = "PASS"


def _better_number(table: dict[str, Any]) -> None:
    row = next(r for r in table["measurements"] if r["variant"] == "mag@0.97" and r["metric"] == "accuracy")
    row["value"] = 0.99


TAMPERINGS = {
    "a verdict": _set_gate(4, verdict="PASS"),
    "a value": _set_gate(0, value=1.0),
    "an interval": _set_gate(0, interval=[0.999, 1.0]),
    "a limit": _set_gate(4, limit={"key": "min", "value": 0.1}),
    "every verdict": _release_everything,
    "the policy's limit": _loosen,
    "who is up for release": _explore,
    "which gates there are": _drop_failing,
    "a measurement": _better_number,
    "a variant's verdict": lambda table: table["variants"][2].update(verdict="PASS", released=True),
    "the verdict": lambda table: table.update(verdict="PASS"),
    "an example count": _set_gate(0, n=10**6),
    "a reason": _set_gate(4, reason="all fine"),
    "a gate, by adding it once more": lambda table: table["gates"].append({**table["gates"][4], "verdict": "PASS"}),
    "the limitations": lambda table: table.update(limitations=[]),
    "a self-check": lambda table: table["variants"][1]["self_checks"][0].update(passed=False),
    "the self-checks": lambda table: table["variants"][1].update(self_checks=[]),
    "which model it was": lambda table: table["subject"].update(model_sha256="0" * 64),
    "a measurement's interval": lambda table: table["measurements"][0].update(interval=[0.99, 1.0]),
    "what becomes of inconclusive gates": lambda table: table["policy"].update(inconclusive="warn"),
    "a variant into a comparator": lambda table: table["variants"][2].update(kind="dense"),
    "which outcomes there were": lambda table: table.update(digests={}),
    "a segment's size": lambda table: table["subject"]["segments"]["region"].update(north=399, south=1),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_verify_finds_evidence_in_which_someone_changed(what: str, copied: Path) -> None:
    change(copied, TAMPERINGS[what])
    assert verifying.verify(copied / "out") != []


STATES = {
    "a subject that cannot be loaded": (conftest.POLICY, "import no_such_module_{n}\n"),
    "a variant that answers NaN": (
        conftest.POLICY,
        conftest.SUBJECT.replace("self.body(x)", "self.body(x) / (self.body[0].weight != 0).float().mean().gt(0.1)"),
    ),
    "a required gate that no test made": (conftest.POLICY + '\n[tests]\nrequired = ["churn"]\n', conftest.SUBJECT),
    "bootstrapped gates": (
        conftest.POLICY.replace("accuracy = {", "auroc = { min = 0.6 }\nece = { max_rise = 0.2 }\naccuracy = {"),
        conftest.SUBJECT,
    ),
    "a waiver": (
        conftest.POLICY
        + '\n[[waivers]]\ngate = "accuracy/accuracy:max_drop"\nvariant = "mag@0.97"\nobserved_max = 0.6\n'
        + 'reason = "known"\napproved_by = "the board"\nexpires = 2999-01-01\n',
        conftest.SUBJECT,
    ),
}


@pytest.mark.parametrize("what", STATES)
def test_evidence_is_verified_whatever_it_came_to(what: str, tiny: Tiny, tmp_path: Path) -> None:
    policy, subject = STATES[what]
    pruneproof.audit(tiny(tmp_path, policy=policy, subject=subject), out=tmp_path / "out")
    assert verifying.verify(tmp_path / "out") == []


def test_verify_finds_changed_outcomes_even_when_their_digest_was_changed_with_them(copied: Path) -> None:
    import pyarrow.parquet as pq

    file = copied / "out" / evidence.OUTCOMES
    table = pq.read_table(file)
    swapped = table.set_column(table.column_names.index("mag@0.97/outputs"), "mag@0.97/outputs", table["dense/outputs"])
    pq.write_table(swapped, file)
    assert any("digest differs" in problem for problem in verifying.verify(copied / "out"))
    change(copied, lambda found: found["digests"].update({evidence.OUTCOMES: digests.of_file(file)}))
    assert any("accuracy" in problem for problem in verifying.verify(copied / "out"))


def test_verify_finds_a_changed_plan_and_missing_files(copied: Path) -> None:
    stem = copied / "out" / evidence.PLANS / "mag@0.3"
    stored = plan.load(stem)
    name = next(iter(stored.masks))
    masks = {**stored.masks, name: torch.ones_like(stored.masks[name])}
    plan.save(plan.PrunePlan(**{**stored.__dict__, "masks": masks}), stem)
    (copied / "out" / evidence.OUTCOMES).unlink()
    problems = verifying.verify(copied / "out")
    assert any("plan of mag@0.3" in problem for problem in problems)
    assert any("outcomes.parquet is missing" in problem for problem in problems)


def test_verify_against_another_policy_says_so(copied: Path) -> None:
    other = copied / "other.toml"
    other.write_text(conftest.POLICY.replace("min = 0.9", "min = 0.8"), "utf-8")
    assert any("is another policy" in problem for problem in verifying.verify(copied / "out", other))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "else"}', "\x00"])
def test_damaged_evidence_is_one_clear_error(content: str, tmp_path: Path) -> None:
    (tmp_path / evidence.FILE).write_text(content)
    with pytest.raises(EvidenceError):
        evidence.read(tmp_path)


def test_export_writes_the_audited_model_and_its_plan(copied: Path) -> None:
    from safetensors.torch import load_file

    done = exporting.export(copied / "out", "mag@0.3", copied / "exported", copied / "audit.toml")
    row = next(row for row in evidence.read(copied / "out").variants if row.name == "mag@0.3")
    assert done.model_sha256 == row.model_sha256
    weights = load_file(copied / "exported" / "mag@0.3.safetensors")
    zeros = sum(int((weights[name] == 0).sum()) for name in ("body.0.weight", "body.2.weight"))
    assert zeros == row.units_removed
    assert plan.digest(plan.load(copied / "exported" / "mag@0.3.plan")) == row.plan_sha256


def test_export_refuses_a_variant_that_is_not_released_unless_forced(copied: Path) -> None:
    with pytest.raises(UsageError, match="not released"):
        exporting.export(copied / "out", "mag@0.97", copied / "exported", copied / "audit.toml")
    exporting.export(copied / "out", "mag@0.97", copied / "exported", copied / "audit.toml", force=True)
    assert (copied / "exported" / "mag@0.97.safetensors").exists()


def test_export_refuses_when_the_subject_is_no_longer_the_one_that_was_audited(copied: Path) -> None:
    module = copied / "tiny_subject.py"
    module.write_text(module.read_text("utf-8").replace("manual_seed(3)", "manual_seed(4)"), "utf-8")
    with pytest.raises(EvidenceError, match="not the one that was audited"):
        exporting.export(copied / "out", "mag@0.3", copied / "exported", copied / "audit.toml")


def test_a_variant_that_fails_to_build_is_an_error_and_the_others_are_still_measured(
    tiny: Tiny, tmp_path: Path
) -> None:
    policy = conftest.POLICY + '\n[[variant]]\nname = "theirs"\nload = "tiny_subject:theirs"\n'
    broken = conftest.SUBJECT + "\n\ndef theirs():\n    raise RuntimeError('lost')\n"
    found = pruneproof.audit(tiny(tmp_path, policy=policy, subject=broken))
    states = {row.name: row.verdict for row in found.variants}
    assert states["theirs"] == "ERROR"
    assert states["mag@0.3"] == "PASS"
    assert all("lost" in gate.reason for gate in found.gates if gate.variant == "theirs")


def test_a_model_that_another_tool_pruned_is_measured_against_dense(tiny: Tiny, tmp_path: Path) -> None:
    policy = conftest.POLICY + '\n[[variant]]\nname = "theirs"\nload = "tiny_subject:theirs"\n'
    theirs = conftest.SUBJECT + (
        "\n\ndef theirs():\n    net = model()\n    with torch.no_grad():\n"
        "        net.body[0].weight[2:] = 0\n    return net\n"
    )
    found = pruneproof.audit(tiny(tmp_path, policy=policy, subject=theirs))
    row = next(row for row in found.variants if row.name == "theirs")
    assert row.kind == "imported"
    assert row.sparsity["layer_weights"] == pytest.approx(36 / 64)
    assert row.verdict == "PASS"


def test_a_gate_against_the_previous_model_compares_with_that_one(tiny: Tiny, tmp_path: Path) -> None:
    policy = conftest.POLICY.replace("max_drop = 0.05", 'max_drop = 0.05, comparator = "previous"')
    policy += '\n[comparators]\nprevious = "tiny_subject:worse"\n'
    worse = conftest.SUBJECT + (
        "\n\ndef worse():\n    net = model()\n    with torch.no_grad():\n"
        "        net.body[2].weight.zero_()\n    return net\n"
    )
    found = pruneproof.audit(tiny(tmp_path, policy=policy, subject=worse))
    row = next(r for r in found.gates if r.id == "accuracy/accuracy:max_drop" and r.variant == "mag@0.97")
    assert row.comparator == "previous"
    assert row.comparator_value == pytest.approx(0.5, abs=0.06)


def test_a_task_that_outlasts_the_policys_time_out_is_an_error(tiny: Tiny, tmp_path: Path) -> None:
    policy = conftest.POLICY.replace("seed = 5", "seed = 5\ntimeout_s = 3.0")
    sleeping = "import time; (self.body[0].weight != 0).float().mean() < 0.1 and time.sleep(60); return self.body(x)"
    slow = conftest.SUBJECT.replace("return self.body(x)", sleeping)
    found = pruneproof.audit(tiny(tmp_path, policy=policy, subject=slow))
    states = {row.name: row for row in found.variants}
    assert states["mag@0.97"].verdict == "ERROR"
    assert "longer than 3 s" in (states["mag@0.97"].error or "")
    assert states["mag@0.3"].verdict == "PASS"


def test_channel_variants_are_smaller_and_pass_their_self_checks(tiny: Tiny, tmp_path: Path) -> None:
    policy = conftest.POLICY.replace('name = "mag"', 'name = "mag"\ngranularity = "channel"').replace("0.97", "0.5")
    found = pruneproof.audit(tiny(tmp_path, policy=policy))
    rows = {row.name: row for row in found.variants}
    half = rows["mag@0.5"]
    # 4 of 8 hidden units stay: 6·4 + 4 + 4·2 + 2 parameters, 6·4 + 4·2 multiply-accumulates
    assert (half.parameters, half.macs) == (38, 32)
    assert {check.id for check in half.self_checks} >= {"V1", "V3", "V4", "V7", "V8"}
    assert all(check.passed for check in half.self_checks)
    assert (half.bytes or 0) < (rows["dense"].bytes or 0)


def test_the_dense_model_is_never_changed(tiny: Tiny, tmp_path: Path) -> None:
    from pruneproof import policy_file
    from pruneproof.engine import Engine
    from pruneproof.store import Store

    engine = Engine(policy_file.read(tiny(tmp_path)), Store(tmp_path / "store"))
    model = engine.loaded.subject.model
    model.train()
    model.body[1].eval()
    model.body[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    engine.result("mag@0.97")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
    assert not model.body[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_an_interrupted_audit_keeps_what_it_has_measured_and_releases_nothing(tiny: Tiny, tmp_path: Path) -> None:
    stopping = conftest.SUBJECT.replace(
        "return self.body(x)",
        "if (self.body[0].weight != 0).float().mean() < 0.1: raise KeyboardInterrupt\n        return self.body(x)",
    )
    with pytest.raises(KeyboardInterrupt):
        pruneproof.audit(tiny(tmp_path, subject=stopping), out=tmp_path / "out")
    found = evidence.read(tmp_path / "out")
    states = {row.name: row.verdict for row in found.variants}
    assert (states["mag@0.3"], states["mag@0.97"], found.verdict) == ("PASS", "NOT_RUN", "NOT_RUN")


def test_segments_that_were_joined_are_listed_among_the_limitations(tiny: Tiny, tmp_path: Path) -> None:
    few = conftest.SUBJECT.replace('"north" if i % 2', '"east" if i < 20 else "west" if i < 45 else "north" if i % 2')
    policy = conftest.POLICY.replace('by = ["region"]', 'by = ["region"]\nmin_n = 30\nsmall = "pool"')
    found = pruneproof.audit(tiny(tmp_path, policy=policy, subject=few))
    assert "region=other: stands for segments under 30 examples: east (20), west (25)" in found.limitations
    sizes = {row.segment["region"]: row.n for row in found.gates if row.segment and row.variant == "mag@0.3"}
    assert sizes["other"] == 45
    assert sum(sizes.values()) == 400


def test_a_model_that_counts_its_calls_is_still_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    counting = (
        conftest.SUBJECT.replace("return self.body(x)", "self.body[0].bias.data += 1e-3; return self.body(x)")
        .replace("model=model()", "model=KEPT")
        .replace("def data():", "KEPT = model()\n\n\ndef data():")
    )
    folder = tmp_path / "counting"
    path = tiny(folder, subject=counting)
    pruneproof.audit(path)
    import sys

    kept = sys.modules["tiny_subject"].KEPT
    assert Path(sys.modules["tiny_subject"].__file__ or "").parent == folder
    assert torch.equal(kept.body[0].bias, sys.modules["tiny_subject"].model().body[0].bias)


def test_export_does_not_trust_a_flag_that_contradicts_the_gates(copied: Path) -> None:
    change(copied, lambda table: table["variants"][2].update(released=True))
    with pytest.raises(EvidenceError, match="contradicts itself"):
        exporting.export(copied / "out", "mag@0.97", copied / "exported", copied / "audit.toml")


def test_evidence_of_an_earlier_run_does_not_stand_for_one_that_did_not_end(copied: Path) -> None:
    module = copied / "tiny_subject.py"
    stopping = module.read_text("utf-8").replace("return self.body(x)", "raise KeyboardInterrupt")
    module.write_text(stopping, "utf-8")
    with pytest.raises(KeyboardInterrupt):
        pruneproof.audit(copied / "audit.toml", out=copied / "out")
    assert not (copied / "out" / evidence.FILE).exists()
    assert not (copied / "out" / "report.html").exists()


def test_a_dense_model_that_the_subjects_code_changes_on_the_way_is_an_error(tiny: Tiny, tmp_path: Path) -> None:
    policy = conftest.POLICY + '\n[comparators]\nprevious = "tiny_subject:worse"\n'
    cached = conftest.SUBJECT.replace("model=model()", "model=KEPT").replace(
        "def data():", "KEPT = model()\n\n\ndef data():"
    )
    cached += "\n\ndef worse():\n    KEPT.body[0].weight.data[:4] = 0\n    return KEPT\n"
    found = pruneproof.audit(tiny(tmp_path, policy=policy, subject=cached))
    assert {row.verdict for row in found.gates} == {"ERROR"}
    assert "changed since it was loaded" in found.gates[0].reason
