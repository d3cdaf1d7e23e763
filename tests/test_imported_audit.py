"""Models that other tools pruned, from the policy to the exported file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import POLICY
from safetensors.torch import load_file, save_file

import pruneproof
from pruneproof import exporting, inference, loading, policy_file, verifying
from pruneproof.errors import UsageError
from pruneproof.evidence import Evidence, VariantRow
from pruneproof.subject import Data
from pruneproof.verdicts import Verdict

Tiny = Callable[..., Path]


def imported(entry: str) -> str:
    """The tiny policy with one imported variant in place of its recipe."""
    return POLICY.replace('[[prune]]\nname = "mag"\nratios = [0.3, 0.97]', f'[[variant]]\nname = "theirs"\n{entry}')


def theirs(found: Evidence) -> VariantRow:
    (row,) = (row for row in found.variants if row.kind == "imported")
    return row


def half_zeroed(path: Path) -> torch.nn.Module:
    """The tiny model with the smaller half of its weights at zero, in order."""
    model = loading.load(policy_file.read(path)).subject.model
    for name in ("body.0.weight", "body.2.weight"):
        weight = model.get_parameter(name)
        with torch.no_grad():
            weight.view(-1)[weight.abs().flatten().argsort(stable=True)[: weight.numel() // 2]] = 0
    return model.eval()


def test_what_another_tool_claims_stands_beside_what_is_there(tiny: Tiny, tmp_path: Path) -> None:
    model = half_zeroed(tiny(tmp_path))
    torch.save(model.state_dict(), tmp_path / "t.pt")
    honest = pruneproof.audit(tiny(tmp_path, policy=imported('checkpoint = "t.pt"\nclaimed_ratio = 0.5')))
    row = theirs(honest)
    assert (row.claimed_ratio, row.claimed_of, row.sparsity["layer_weights"]) == (0.5, "layer_weights", 0.5)
    assert row.verdict is Verdict.PASS
    boastful = pruneproof.audit(tiny(tmp_path, policy=imported('checkpoint = "t.pt"\nclaimed_ratio = 0.7')))
    assert theirs(boastful).verdict is Verdict.ERROR
    assert "self-check V1 failed" in (theirs(boastful).error or "")
    assert "correct the claim" in (theirs(boastful).error or "")


def test_two_policies_that_claim_different_things_have_different_digests() -> None:
    texts = [imported(f'prune = "a:b"\nratios = [0.5]{more}') for more in ("", '\nclaimed_of = "layer_weights"')]
    digests = {policy_file.parse(text).sha256 for text in texts}
    assert len(digests) == 2


def test_an_onnx_graph_is_audited_verified_and_exported_as_the_file_that_it_is(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    pytest.importorskip("onnxscript", reason="torch exports ONNX with it")
    model = half_zeroed(tiny(tmp_path))
    with warnings.catch_warnings(action="ignore"):
        example = torch.zeros(2, 6)
        torch.onnx.export(
            model, (example,), tmp_path / "t.onnx", dynamo=True, external_data=False, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )  # fmt: skip
    asked = imported('checkpoint = "t.onnx"\nclaimed_ratio = 0.5\nclaimed_of = "layer_weights"')
    found = pruneproof.audit(tiny(tmp_path, policy=asked), out=tmp_path / "out")
    assert theirs(found).verdict is Verdict.PASS
    assert verifying.verify(tmp_path / "out") == []
    written = exporting.export(tmp_path / "out", "theirs", tmp_path / "ship")
    assert [file.name for file in written.files] == ["theirs.onnx"]
    assert written.files[0].read_bytes() == (tmp_path / "t.onnx").read_bytes()


def test_a_prune_function_makes_a_variant_a_ratio_and_up_to_leaves_out_the_higher_ones(
    tiny: Tiny, tmp_path: Path
) -> None:
    from conftest import SUBJECT

    code = SUBJECT + (
        "\n\ndef theirs(model, ratio):\n"
        "    weight = model.body[0].weight\n"
        "    with torch.no_grad():\n"
        "        weight.view(-1)[weight.abs().flatten().argsort()[: round(ratio * weight.numel())]] = 0\n"
    )
    asked = imported('prune = "tiny_subject:theirs"\nratios = [0.25, 0.9]')
    asked = asked.replace("max_drop = 0.05", "max_drop = 0.05, up_to = 0.5")
    found = pruneproof.audit(tiny(tmp_path, policy=asked, subject=code), out=tmp_path / "out")
    assert [row.name for row in found.variants] == ["dense", "theirs@0.25", "theirs@0.9"]
    gated = {(row.variant, row.id) for row in found.gates}
    assert ("theirs@0.25", "accuracy/accuracy:max_drop") in gated
    assert ("theirs@0.9", "accuracy/accuracy:max_drop") not in gated
    assert verifying.verify(tmp_path / "out") == []
    exported = exporting.export(tmp_path / "out", "theirs@0.25", tmp_path / "ship", force=True)
    state = load_file(exported.files[0])
    model = loading.load(policy_file.read(tmp_path / "audit.toml")).subject.model
    model.load_state_dict(state)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert inference.forward(model, Data(x), 4).shape == (4, 2)
    assert int((state["body.0.weight"] == 0).sum()) == 12


def test_a_trained_and_shrunk_variant_is_exported_with_what_training_changed(tiny: Tiny, tmp_path: Path) -> None:
    from conftest import SUBJECT

    from pruneproof import digests, plan, surgery

    trained = SUBJECT.replace(
        "        classes=", "        train=pruneproof.Data(inputs[:200], targets[:200]),\n        classes="
    )
    asked = POLICY.replace(
        "ratios = [0.3, 0.97]",
        'ratios = [0.3]\ngranularity = "channel"\nfine_tune = true\nrecovery = { epochs = 1, learning_rate = 0.01 }',
    )
    found = pruneproof.audit(tiny(tmp_path, policy=asked, subject=trained), out=tmp_path / "out")
    (row,) = (row for row in found.variants if row.kind == "pruned")
    assert row.error is None
    written = exporting.export(tmp_path / "out", "mag@0.3", tmp_path / "ship", force=True)
    assert written.model_sha256 == row.model_sha256
    dense = loading.load(policy_file.read(tmp_path / "audit.toml")).subject.model
    again = surgery.apply(plan.load(tmp_path / "ship" / "mag@0.3.plan"), dense)
    assert digests.of_model(again) == row.model_sha256
    assert {name: tensor.tolist() for name, tensor in again.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in load_file(tmp_path / "ship" / "mag@0.3.safetensors").items()
    }
    assert verifying.verify(tmp_path / "out") == []


def test_exports_of_two_graphs_with_tensors_beside_them_do_not_meet(tiny: Tiny, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    pytest.importorskip("onnxscript", reason="torch exports ONNX with it")
    import onnx

    dense = loading.load(policy_file.read(tiny(tmp_path))).subject.model.eval()
    asked = POLICY.replace('[[prune]]\nname = "mag"\nratios = [0.3, 0.97]', "")
    for name, model in (("mild", half_zeroed(tmp_path / "audit.toml")), ("none", dense)):
        (tmp_path / name).mkdir()
        with warnings.catch_warnings(action="ignore"):
            torch.onnx.export(
                model, (torch.zeros(2, 6),), tmp_path / "plain.onnx", dynamo=True, external_data=False, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("n")},),
            )  # fmt: skip
        onnx.save_model(
            onnx.load(tmp_path / "plain.onnx"), tmp_path / name / "model.onnx", save_as_external_data=True,
            location="model.data", size_threshold=0,
        )  # fmt: skip
        asked += f'\n[[variant]]\nname = "{name}"\ncheckpoint = "{name}/model.onnx"\n'
    pruneproof.audit(tiny(tmp_path, policy=asked), out=tmp_path / "out")
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    for name in ("mild", "none"):
        exporting.export(tmp_path / "out", name, tmp_path / "ship", force=True)
    for name, model in (("mild", half_zeroed(tmp_path / "audit.toml")), ("none", dense)):
        session = onnxruntime.InferenceSession(tmp_path / "ship" / f"{name}.onnx")
        (said,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert torch.allclose(torch.from_numpy(said), model(x), atol=1e-5)


def test_an_export_never_replaces_a_checkpoint_of_the_policy(tiny: Tiny, tmp_path: Path) -> None:
    save_file(half_zeroed(tiny(tmp_path)).state_dict(), tmp_path / "theirs.safetensors")
    before = (tmp_path / "theirs.safetensors").read_bytes()
    pruneproof.audit(tiny(tmp_path, policy=imported('checkpoint = "theirs.safetensors"')), out=tmp_path / "out")
    with pytest.raises(UsageError, match="is a checkpoint of the policy"):
        exporting.export(tmp_path / "out", "theirs", tmp_path, force=True)
    assert (tmp_path / "theirs.safetensors").read_bytes() == before
