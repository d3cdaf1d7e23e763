"""Models that other tools pruned: loaded as what the policy names, measured, and held against what is claimed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune

from pruneproof import digests, imported, inference, policy, profile, prunable
from pruneproof.errors import SubjectError
from pruneproof.evidence import SelfCheck, VariantRow
from pruneproof.policy import Imported, VariantSpec
from pruneproof.subject import Data, Subject

THEIRS = '''
import random
import numpy
import torch
from torch import nn
from torch.nn.utils import prune as masks

GIVEN = []
held = None


def zeroed(model, ratio):
    """Masks of torch.nn.utils.prune, global, made permanent."""
    layers = [(m, "weight") for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    masks.global_unstructured(layers, pruning_method=masks.L1Unstructured, amount=ratio)
    for layer, name in layers:
        masks.remove(layer, name)
    return model


def masked(model, ratio):
    """In place, and the masks stay."""
    GIVEN.append(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            masks.l1_unstructured(module, "weight", ratio)


def shrunk(model, ratio):
    import torch_pruning
    examples = torch.zeros(1, 3, 8, 8)
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    torch_pruning.pruner.MagnitudePruner(
        model, examples, importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=ratio, ignored_layers=[last],
    ).step()
    return model


def all_gone(model, ratio):
    for weight in model.parameters():
        weight.data.zero_()
    return model


def nothing(model, ratio):
    return model


def text(model, ratio):
    return "done"


def broken(model, ratio):
    raise KeyError("amount")


def spoils(model, ratio):
    held[0].weight.data.zero_()
    return model


def spoils_on_load():
    held[0].weight.data.zero_()
    return nn.Linear(6, 3)


def drawn(model, ratio):
    for weight in model.parameters():
        weight.data.normal_()
    model.bonus = nn.Parameter(torch.tensor([random.random(), numpy.random.rand()]))
    return model


def small():
    return nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 3))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    import sys

    (tmp_path / "theirs.py").write_text(THEIRS, "utf-8")
    yield tmp_path
    sys.modules.pop("theirs", None)


def subject(model: nn.Module | None = None, inputs: torch.Tensor | None = None) -> Subject:
    found = networks.seeded(networks.mlp) if model is None else model
    rows = networks.batch(4, 6) if inputs is None else inputs
    return Subject(model=found, task="classification", test=Data(rows, torch.arange(len(rows)) % 3))


def spec(ratio: float | None = None, **entry: Any) -> VariantSpec:
    asked = Imported(name="theirs", **entry, **({"ratios": (ratio,)} if ratio is not None else {}))
    return VariantSpec("theirs" if ratio is None else f"theirs@{ratio}", None, ratio, asked)


def described(asked: VariantSpec, dense: nn.Module, variant: nn.Module, inputs: torch.Tensor) -> VariantRow:
    total, nonzero = profile.parameters(variant)
    row = VariantRow(
        name=asked.name,
        kind="imported",
        sparsity=prunable.sparsity(dense, variant, None),
        parameters=total,
        nonzero_parameters=nonzero,
        macs=profile.macs(variant, inputs),
    )
    return imported.described(asked, row, dense, variant, inputs)


def by_id(row: VariantRow) -> dict[str, SelfCheck]:
    return {check.id: check for check in row.self_checks}


def module(folder: Path) -> Any:
    import sys

    return sys.modules["theirs"]


# loading


@pytest.mark.parametrize("ratio", [0.29, 0.5])
def test_a_prune_function_works_on_a_copy_and_the_dense_model_stays_as_it_was(ratio: float, folder: Path) -> None:
    asked = subject()
    before = digests.of_model(asked.model)
    found = imported.load(spec(ratio, prune="theirs:zeroed"), asked, folder)
    assert digests.of_model(asked.model) == before
    assert found is not asked.model
    gone = 158 - sum(
        int(torch.count_nonzero(found.get_parameter(name))) for name in ("0.weight", "2.weight", "4.weight")
    )
    assert gone == round(158 * ratio)  # torch.nn.utils.prune rounds
    kept = torch.cat([found.get_parameter(f"{n}.weight").flatten() for n in (0, 2, 4)])
    whole = torch.cat([asked.model.get_parameter(f"{n}.weight").flatten() for n in (0, 2, 4)])
    assert whole[kept == 0].abs().max() <= whole[kept != 0].abs().min()


def test_a_prune_function_that_returns_nothing_pruned_the_copy_in_place(folder: Path) -> None:
    asked = subject()
    found = imported.load(spec(0.5, prune="theirs:masked"), asked, folder)
    assert found is module(folder).GIVEN[0]
    assert prunable.sparsity(asked.model, found, None)["layer_weights"] == pytest.approx(0.5, abs=0.01)
    assert not [name for name, _ in asked.model.named_buffers()]  # no masks on the dense model


@pytest.mark.parametrize(
    ("function", "cause"),
    [("text", "returned str"), ("broken", "raised KeyError"), ("absent", "has no 'absent'")],
)
def test_a_prune_function_that_gives_no_model_is_an_error_that_names_it(
    function: str, cause: str, folder: Path
) -> None:
    with pytest.raises(SubjectError) as caught:
        imported.load(spec(0.5, prune=f"theirs:{function}"), subject(), folder)
    assert caught.value.cause.startswith(f"prune = 'theirs:{function}'")
    assert cause in caught.value.cause


@pytest.mark.parametrize("entry", [{"ratio": 0.5, "prune": "theirs:spoils"}, {"load": "theirs:spoils_on_load"}])
def test_a_function_that_changes_the_dense_model_is_caught(entry: dict[str, Any], folder: Path) -> None:
    asked = subject()
    imported.load(spec(load="theirs:small"), asked, folder)
    module(folder).held = asked.model
    with pytest.raises(SubjectError, match="changed the dense model"):
        imported.load(spec(**entry), asked, folder)


def test_a_function_that_draws_gives_the_same_model_whatever_was_drawn_before(folder: Path) -> None:
    wanted = spec(0.5, prune="theirs:drawn")
    first = digests.of_model(imported.load(wanted, subject(), folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        random.seed(7)
        np.random.seed(7)
        states = torch.get_rng_state(), random.getstate()
        assert digests.of_model(imported.load(wanted, subject(), folder)) == first
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]


def test_a_checkpoint_swapped_for_another_is_caught_by_its_digest(folder: Path) -> None:
    path = folder / "a.safetensors"
    save_file(networks.seeded(networks.mlp, seed=1).state_dict(), path)
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = spec(checkpoint="a.safetensors", sha256=right)
    imported.load(wanted, subject(), folder)
    save_file(networks.seeded(networks.mlp, seed=2).state_dict(), path)
    with pytest.raises(SubjectError, match="is not the file that the policy names") as caught:
        imported.load(wanted, subject(), folder)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in caught.value.cause
    path.unlink()
    with pytest.raises(SubjectError, match="No such file"):
        imported.load(wanted, subject(), folder)


def test_a_swapped_checkpoint_does_not_get_to_run_its_code(folder: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (f"open({str(folder / 'trace')!r}, 'w')",)

    torch.save(Payload(), folder / "a.pt")
    with pytest.raises(SubjectError, match="is not the file"):
        imported.load(spec(checkpoint="a.pt", sha256="0" * 64, unpickle=True), subject(), folder)
    assert not (folder / "trace").exists()
    with pytest.raises(SubjectError):
        imported.load(spec(checkpoint="a.pt", unpickle=True), subject(), folder)
    assert (folder / "trace").exists()


def test_a_digest_that_does_not_cover_the_weights_is_refused(folder: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="makes ONNX files")
    pytest.importorskip("onnxruntime", reason="reads ONNX files")
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(np.ones((6, 3), np.float32), "w")
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", k]) for n, k in (("x", 6), ("y", 3)))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    for name, beside in (("one.onnx", False), ("two.onnx", True)):
        onnx.save_model(model, folder / name, save_as_external_data=beside, location="w.data", size_threshold=0)
    digest = {name: digests.of_file(folder / name) for name in ("one.onnx", "two.onnx")}
    imported.load(spec(checkpoint="one.onnx", sha256=digest["one.onnx"]), subject(), folder)
    imported.load(spec(checkpoint="two.onnx"), subject(), folder)
    with pytest.raises(SubjectError, match=r"has weights in w\.data"):
        imported.load(spec(checkpoint="two.onnx", sha256=digest["two.onnx"]), subject(), folder)


# what it is beside what it is said to be


def test_changes_of_shape_are_listed_by_name() -> None:
    dense = networks.seeded(networks.cnn)
    variant = networks.seeded(networks.cnn)
    variant[4] = nn.Conv2d(8, 5, 3, padding=1, bias=False)
    variant[8] = nn.Linear(20, 16)
    variant.extra = nn.Linear(1, 1, bias=False)
    assert imported.shape_changes(dense, dense) == []
    assert imported.shape_changes(dense, variant) == [
        ("4.weight", [12, 8, 3, 3], [5, 8, 3, 3]),
        ("4.bias", [12], None),
        ("8.weight", [16, 48], [16, 20]),
        ("extra.weight", None, [1, 1]),
    ]


def test_masks_and_parametrizations_are_no_changes_of_shape() -> None:
    dense, variant = networks.seeded(networks.mlp), networks.seeded(networks.mlp)
    prune.l1_unstructured(variant.get_submodule("0"), "weight", 0.5)
    parametrizations.weight_norm(variant.get_submodule("2"))
    assert imported.shape_changes(dense, variant) == []


@pytest.mark.parametrize(
    ("claimed", "of", "passed"),
    [
        (0.50, "layer_weights", True),
        (0.505, "layer_weights", True),
        (0.495, "layer_weights", True),
        (0.51, "layer_weights", False),
        (0.30, "layer_weights", False),
        (0.50, "all_parameters", False),
        (0.44, "all_parameters", True),
        (0.50, "macs", False),
    ],
)
def test_a_claimed_ratio_holds_within_half_a_percent_or_the_variant_is_an_error(
    claimed: float, of: str, passed: bool
) -> None:
    dense, variant = networks.seeded(networks.mlp), networks.seeded(networks.mlp)
    gone = 79  # of 158 layer weights, of 179 parameters; zeros save no MACs
    for name in ("0.weight", "2.weight"):
        weight = variant.get_parameter(name).data.view(-1)
        weight[: min(gone, 40)] = 0
        gone -= min(gone, 40)
    row = described(spec(load="x:y", claimed_ratio=claimed, claimed_of=of), dense, variant, networks.batch(1, 6))
    check = by_id(row)["V1"]
    assert (check.passed, check.decides) == (passed, True)
    assert (row.claimed_ratio, row.claimed_of, row.requested_ratio) == (claimed, of, None)
    for number in (repr(claimed), "0.5000 of layer_weights", "0.4413 of all_parameters", "0.0000 of macs"):
        assert number in check.detail


def test_without_a_claim_there_is_nothing_to_hold_it_against() -> None:
    dense = networks.seeded(networks.mlp)
    row = described(spec(load="x:y"), dense, networks.seeded(networks.mlp), networks.batch(1, 6))
    assert set(by_id(row)) == {"V8"}
    assert (row.claimed_ratio, row.claimed_of) == (None, None)


def test_a_claim_about_macs_that_cannot_be_counted_fails(folder: Path) -> None:
    checks = imported.checks(
        spec(load="x:y", claimed_ratio=0.5, claimed_of="macs"),
        {"layer_weights": 0.5, "all_parameters": 0.5},
        100,
        None,
        networks.mlp(),
    )
    assert not checks[0].passed
    assert "macs unknown" in checks[0].detail


def test_the_ratio_of_a_prune_function_is_reported_and_decides_only_where_the_policy_says_of_what(
    folder: Path,
) -> None:
    """Torch-Pruning's half of the channels is about three quarters of the weights: seen, but nobody's fault."""
    pytest.importorskip("torch_pruning", reason="prunes")
    dense, x = networks.seeded(networks.cnn), networks.batch(2, 3, 8, 8)
    asked = spec(0.5, prune="theirs:shrunk")
    found = imported.load(asked, subject(dense, x), folder)
    assert {name: new for name, _, new in imported.shape_changes(dense, found)}["4.weight"] == [6, 4, 3, 3]
    row = described(asked, dense, found, x[:1])
    check = by_id(row)["V1"]
    whole = 3 * 8 * 9 + 8 * 12 * 9 + 48 * 16 + 16 * 3
    left = 3 * 4 * 9 + 4 * 6 * 9 + 24 * 8 + 8 * 3
    assert f"{1 - left / whole:.4f} of layer_weights" in check.detail
    assert (check.passed, check.decides) == (False, False)
    assert (row.requested_ratio, row.claimed_ratio, row.claimed_of) == (0.5, 0.5, None)

    explicit = spec(0.5, prune="theirs:shrunk", claimed_of="layer_weights")
    decided = by_id(described(explicit, dense, found, x[:1]))["V1"]
    assert (decided.passed, decided.decides) == (False, True)


def test_a_tool_that_removes_everything_when_asked_for_a_third_is_seen(folder: Path) -> None:
    asked, dense = spec(0.3, prune="theirs:all_gone"), networks.seeded(networks.mlp)
    found = imported.load(asked, subject(dense), folder)
    check = by_id(described(asked, dense, found, networks.batch(1, 6)))["V1"]
    assert not check.passed
    assert "asked for 0.3" in check.detail
    assert "1.0000 of layer_weights" in check.detail


def test_a_prune_function_that_does_as_asked_passes(folder: Path) -> None:
    asked, dense = spec(0.5, prune="theirs:zeroed"), networks.seeded(networks.mlp)
    row = described(asked, dense, imported.load(asked, subject(dense), folder), networks.batch(1, 6))
    assert {name: (check.passed, check.decides) for name, check in by_id(row).items()} == {
        "V1": (True, False),
        "V8": (True, True),
    }


def test_a_function_that_gives_the_dense_model_back_has_not_pruned_even_if_that_has_zeros(folder: Path) -> None:
    dense = networks.seeded(networks.mlp)
    dense.get_parameter("0.weight").data[0] = 0
    asked = spec(0.5, prune="theirs:nothing")
    found = imported.load(asked, subject(dense), folder)
    check = by_id(described(asked, dense, found, networks.batch(1, 6)))["V8"]
    assert (check.passed, check.decides) == (False, True)
    imported_as_it_is = spec(load="theirs:dense")
    shown = by_id(described(imported_as_it_is, dense, dense, networks.batch(1, 6)))["V8"]
    assert (shown.passed, shown.decides) == (False, False)


def test_products_that_are_computed_outside_torch_are_unknown_not_none() -> None:
    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = networks.seeded(networks.mlp)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.inner.get_parameter("0.weight").detach().numpy()
            return torch.from_numpy(x.numpy() @ weight.T)[:, :3]

    dense = networks.seeded(networks.mlp)
    row = described(spec(load="x:y"), dense, Outside(), networks.batch(1, 6))
    assert row.macs is None
    assert described(spec(load="x:y"), dense, networks.seeded(networks.mlp), networks.batch(1, 6)).macs == 158


def test_each_ratio_of_a_prune_function_is_a_variant_of_its_own() -> None:
    from pruneproof import policy_file

    text = (
        '[audit]\nname = "a"\n[subject]\nload = "a:b"\n[suites.accuracy.gates]\naccuracy = { min = 0.5 }\n'
        '[[variant]]\nname = "tp"\nprune = "theirs:shrunk"\nratios = [0.25, 0.5]\n'
    )
    wanted = policy.variants(policy_file.parse(text))
    assert [(entry.name, entry.ratio) for entry in wanted] == [("tp@0.25", 0.25), ("tp@0.5", 0.5)]


def test_a_checkpoint_gives_the_outputs_of_the_model_that_was_saved(folder: Path) -> None:
    saved = networks.seeded(networks.mlp, seed=1)
    torch.save({"state_dict": nn.DataParallel(saved).state_dict()}, folder / "a.pth")
    found = imported.load(spec(checkpoint="a.pth"), subject(), folder)
    data = replace(subject().test, targets=None)
    assert np.array_equal(inference.forward(found, data, 2), inference.forward(saved, data, 2))
