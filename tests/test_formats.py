"""What other tools save is read as what it is, or refused: never half of it, and never by running it unasked."""

from __future__ import annotations

import copy
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from pruneproof import digests, inference, loading, policy, profile, prunable, registry
from pruneproof.errors import MeasurementError, PruneProofError, SubjectError
from pruneproof.isolation import importing_from
from pruneproof.subject import Data, Subject

TORCH_FILES = ("pt", "pth", "bin")
ran: list[str] = []
"""What payloads of pickles leave behind."""


def subject(model: nn.Module | None = None) -> Subject:
    found = networks.seeded(networks.mlp) if model is None else model
    return Subject(model=found, task="classification", test=Data(networks.batch(4, 6), torch.arange(4) % 3))


def read(path: Path, model: nn.Module | None = None, unpickle: bool = False) -> nn.Module:
    return loading.checkpoint(path.name, subject(model), path.parent, unpickle=unpickle)


def refused(path: Path, model: nn.Module | None = None, unpickle: bool = False) -> SubjectError:
    with pytest.raises(SubjectError) as caught:
        read(path, model, unpickle)
    for line in (caught.value.cause, caught.value.remedy):
        assert line.strip()
        assert "\n" not in line
    assert caught.value.cause.startswith(f"checkpoint {path.name}")
    return caught.value


def outputs(model: nn.Module, inputs: Any, batch_size: int = 64) -> Any:
    return inference.forward(model, Data(inputs), batch_size)


def pruned(make: Callable[[], nn.Module] = networks.mlp) -> nn.Module:
    """Other weights than the subject's, some of them zero."""
    model = networks.seeded(make, seed=1).eval()
    for name in prunable.weights(model):
        with torch.no_grad():
            model.get_parameter(name)[0] = 0
    return model


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return leave_a_trace, ()


def leave_a_trace() -> None:
    ran.append("ran")


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def test_there_is_a_format_for_every_ending_that_the_policy_takes() -> None:
    assert set(registry.names("pruneproof.formats")) == {"bin", "onnx", "pt", "pt2", "pth", "safetensors"}
    assert "torch" not in sys.modules["pruneproof.formats"].__dict__  # policies are read without torch


# state dicts


@pytest.mark.parametrize("make", [networks.mlp, networks.cnn, networks.Tied])
def test_a_safetensors_file_gives_the_network_that_was_saved(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    dense, saved = networks.seeded(make), pruned(make)
    before = digests.of_model(dense)
    (tmp_path / "a.safetensors").write_bytes(profile.serialised(saved))
    assert digests.of_model(read(tmp_path / "a.safetensors", dense)) == digests.of_model(saved)
    assert digests.of_model(dense) == before


@pytest.mark.parametrize("ending", TORCH_FILES)
@pytest.mark.parametrize("make", [networks.mlp, networks.cnn, networks.Tied])
def test_a_state_dict_gives_the_network_that_was_saved(
    make: Callable[[], nn.Module], ending: str, tmp_path: Path
) -> None:
    saved = pruned(make)
    torch.save(saved.state_dict(), tmp_path / f"a.{ending}")
    found = read(tmp_path / f"a.{ending}", networks.seeded(make))
    assert digests.of_model(found) == digests.of_model(saved)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_beside_other_things_of_a_training_script_is_found(key: str, tmp_path: Path) -> None:
    saved = pruned()
    optimizer = torch.optim.Adam(saved.parameters()).state_dict()
    torch.save({key: saved.state_dict(), "epoch": 3, "optimizer": optimizer}, tmp_path / "a.pt")
    assert digests.of_model(read(tmp_path / "a.pt")) == digests.of_model(saved)


def test_two_state_dicts_in_one_file_are_refused_since_nobody_knows_which_is_meant(tmp_path: Path) -> None:
    torch.save({"state_dict": pruned().state_dict(), "model": networks.mlp().state_dict()}, tmp_path / "a.pt")
    assert "under state_dict and under model" in refused(tmp_path / "a.pt").cause


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_the_prefix_of_a_wrapper_falls_away_and_the_pruned_weights_are_there(
    wrap: Callable[[nn.Module], Any], tmp_path: Path
) -> None:
    saved = pruned()
    wrapped = wrap(saved).state_dict()
    assert not any(name in saved.state_dict() for name in wrapped)
    torch.save(wrapped, tmp_path / "a.pt")
    assert digests.of_model(read(tmp_path / "a.pt")) == digests.of_model(saved)


def test_names_that_fit_only_in_part_are_refused_not_skipped(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in pruned().state_dict().items()}
    state["0.weight"] = state.pop("module.0.weight")
    torch.save(state, tmp_path / "a.pt")
    assert "module.0.bias" in refused(tmp_path / "a.pt").cause


@pytest.mark.parametrize("wrapped", [False, True])
def test_masks_of_torch_nn_utils_prune_are_carried_out(wrapped: bool, tmp_path: Path) -> None:
    saved = networks.seeded(networks.cnn, seed=1)
    for name in ("0", "4", "8"):
        prune.l1_unstructured(saved.get_submodule(name), "weight", 0.5)
    torch.save((nn.DataParallel(saved) if wrapped else saved).state_dict(), tmp_path / "a.pt")
    found = read(tmp_path / "a.pt", networks.seeded(networks.cnn))
    for name in ("0", "4", "8"):
        prune.remove(saved.get_submodule(name), "weight")
    want = saved.state_dict()
    assert found.state_dict().keys() == want.keys()
    assert all(torch.equal(tensor, want[name]) for name, tensor in found.state_dict().items())


def test_a_subject_that_is_masked_itself_takes_masks_as_they_are(tmp_path: Path) -> None:
    def masked(seed: int) -> nn.Module:
        model = networks.seeded(networks.mlp, seed)
        prune.l1_unstructured(model.get_submodule("0"), "weight", 0.25 * (seed + 1))
        with torch.no_grad():
            model(networks.batch(1, 6))
        model.get_submodule("0").weight = model.get_submodule("0").weight.detach()
        return model

    saved = masked(1)
    torch.save(saved.state_dict(), tmp_path / "a.pt")
    found = read(tmp_path / "a.pt", masked(0))
    assert np.array_equal(outputs(found, networks.batch(4, 6)), outputs(saved, networks.batch(4, 6)))


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda state: state.pop("0.bias"), "missing ['0.bias']"),
        (lambda state: state.update({"9.weight": torch.zeros(1)}), "unexpected ['9.weight']"),
        (lambda state: state.update({"0.weight": torch.zeros(4, 6)}), "size mismatch for 0.weight"),
        (lambda state: state.update({"0.weight": torch.zeros(8, 6, dtype=torch.int8)}), "0.weight is torch.int8"),
        (lambda state: state.update({"0.weight": torch.zeros(8, 6).double()}), "0.weight is torch.float64"),
        (lambda state: state.update({"0.weight": [1.0]}), "0.weight in it are no tensors"),
        (lambda state: state.update({"0.weight_mask": torch.ones(8, 6)}), "unexpected ['0.weight_mask']"),
        (lambda state: state.clear(), "it is empty"),
    ],
)
def test_what_does_not_fit_is_refused(spoil: Callable[[dict[str, Any]], Any], cause: str, tmp_path: Path) -> None:
    state = dict(networks.mlp().state_dict())
    spoil(state)
    torch.save(state, tmp_path / "a.pt")
    assert cause in refused(tmp_path / "a.pt").cause


def test_half_precision_weights_are_taken_as_they_are(tmp_path: Path) -> None:
    saved = pruned().half()
    save_file(saved.state_dict(), tmp_path / "a.safetensors")
    assert digests.of_model(read(tmp_path / "a.safetensors")) == digests.of_model(saved.float())


def test_two_values_for_one_shared_tensor_are_refused(tmp_path: Path) -> None:
    dense = networks.seeded(networks.Tied)
    state = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    own = dense.state_dict(keep_vars=True)
    first, second = next((a, b) for a in own for b in own if a < b and own[a] is own[b])
    torch.save(state, tmp_path / "same.pt")
    read(tmp_path / "same.pt", dense)
    state[second] = state[second] + 1
    torch.save(state, tmp_path / "other.pt")
    assert f"{first} and {second} are one tensor" in refused(tmp_path / "other.pt", dense).cause


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(st.sampled_from(["module", "_orig_mod", "net", "0", "model"]), max_size=3))
def test_any_prefix_that_all_names_share_falls_away(path: list[str], tmp_path: Path) -> None:
    saved = pruned()
    prefix = "".join(f"{part}." for part in path)
    torch.save({prefix + name: tensor for name, tensor in saved.state_dict().items()}, tmp_path / "a.pt")
    assert digests.of_model(read(tmp_path / "a.pt")) == digests.of_model(saved)


# files that are none


@pytest.mark.parametrize("ending", registry.names("pruneproof.formats"))
@pytest.mark.parametrize("content", [None, b"", b"no model of any kind", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_missing_or_damaged_is_refused(ending: str, content: bytes | None, tmp_path: Path) -> None:
    if ending == "onnx":
        pytest.importorskip("onnxruntime", reason="reads ONNX files")
    path = tmp_path / f"a.{ending}"
    if content is not None:
        path.write_bytes(content)
    with warnings.catch_warnings(action="ignore"):
        error = refused(path, unpickle=ending != "safetensors")
    assert ("no such file" in error.cause) == (content is None)


@pytest.mark.parametrize("ending", TORCH_FILES)
def test_a_file_that_is_cut_short_is_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    torch.save(pruned().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "is damaged" in refused(path).cause


# files that run code


@pytest.mark.parametrize("ending", TORCH_FILES)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused_before_any_of_it_ran(ending: str, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    state = pruned().state_dict()
    torch.save({"state_dict": state, "note": Payload()}, path, _use_new_zipfile_serialization=not legacy)
    error = refused(path)
    assert "would run code of its own" in error.cause
    assert "test_formats.leave_a_trace" in error.cause
    assert "unpickle = true" in error.remedy
    assert ran == []

    found = read(path, unpickle=True)
    assert ran == ["ran"]
    assert digests.of_model(found) == digests.of_model(pruned())


def test_a_safe_file_runs_nothing_even_where_it_might(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(pruned().state_dict(), tmp_path / "a.pt")
    asked: list[Any] = []
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **kw: (asked.append(kw["weights_only"]), real(*a, **kw))[1])
    read(tmp_path / "a.pt", unpickle=True)
    assert asked == [True]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickled_module_is_taken_where_the_policy_says_so(wrapped: bool, tmp_path: Path) -> None:
    saved = nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 3))  # not the subject's architecture
    torch.save({"model": saved, "epoch": 1} if wrapped else saved, tmp_path / "a.pt")
    assert "torch.nn.modules.container.Sequential" in refused(tmp_path / "a.pt").cause
    assert digests.of_model(read(tmp_path / "a.pt", unpickle=True)) == digests.of_model(saved)


def test_classes_of_a_pickled_module_are_found_in_the_policys_folder(tmp_path: Path) -> None:
    (tmp_path / "their_net.py").write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n", "utf-8")
    with importing_from(str(tmp_path)):
        import their_net  # type: ignore[import-not-found]
    torch.save(their_net.Net(6, 3), tmp_path / "a.pt")
    del sys.modules["their_net"]
    try:
        assert type(read(tmp_path / "a.pt", unpickle=True)).__name__ == "Net"
        (tmp_path / "their_net.py").unlink()
        del sys.modules["their_net"]
        assert "ModuleNotFoundError" in refused(tmp_path / "a.pt", unpickle=True).cause
    finally:
        sys.modules.pop("their_net", None)


def test_a_pickle_that_leaves_the_process_is_an_error_of_the_file(tmp_path: Path) -> None:
    class Exit:
        def __reduce__(self) -> tuple[Any, ...]:
            return sys.exit, (0,)

    torch.save(Exit(), tmp_path / "a.pt")
    assert "SystemExit" in refused(tmp_path / "a.pt", unpickle=True).cause


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], "text"])
def test_something_else_than_a_model_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert f"holds {type(content).__name__}" in refused(tmp_path / "a.pt").cause


def test_a_torchscript_archive_needs_unpickle(tmp_path: Path) -> None:
    saved = pruned()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.trace(saved, networks.batch(2, 6)), tmp_path / "a.pt")
        assert "TorchScript" in refused(tmp_path / "a.pt").cause
        found = read(tmp_path / "a.pt", unpickle=True)
    assert np.allclose(outputs(found, networks.batch(4, 6)), outputs(saved, networks.batch(4, 6)), atol=1e-6)


# programs


def exported(path: Path, model: nn.Module, *inputs: torch.Tensor, dynamic: bool = True) -> Path:
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs) if dynamic else None
    with warnings.catch_warnings(action="ignore"):
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(model, inputs, dynamic_shapes=shapes), path)
        else:
            pytest.importorskip("onnxruntime", reason="runs ONNX files")
            pytest.importorskip("onnxscript", reason="torch.onnx.export needs it")
            torch.onnx.export(
                model, inputs, path, dynamic_shapes=shapes, dynamo=True, external_data=False, verbose=False
            )
    return path


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


PROGRAMS = {"mlp": (networks.mlp, (6,)), "cnn": (networks.cnn, (3, 8, 8)), "lstm": (Recurrent, (4, 6))}


@pytest.fixture(
    scope="module", params=[(name, ending) for name in PROGRAMS for ending in ("onnx", "pt2")], ids="-".join
)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``(as read, the torch model, a batch, the subject's model)``."""
    name, ending = request.param
    make, shape = PROGRAMS[name]
    model, x = pruned(make), networks.batch(5, *shape)
    path = exported(tmp_path_factory.mktemp("program") / f"a.{ending}", model, x)
    dense = networks.seeded(make)
    return read(path, dense, unpickle=ending == "pt2"), model, x, dense


def test_a_program_gives_the_outputs_of_the_model_that_it_was_exported_from(program: Any) -> None:
    found, model, x, _ = program
    want = outputs(model, x)
    assert np.allclose(outputs(found, x), want, rtol=1e-5, atol=1e-5)
    assert np.allclose(outputs(found, x, batch_size=2), want, rtol=1e-5, atol=1e-5)  # the last batch is of one
    assert np.array_equal(outputs(found, x), outputs(found, x))


def test_a_programs_sparsity_and_size_are_those_of_its_model(program: Any) -> None:
    found, model, _, dense = program
    folded = isinstance(model, nn.Sequential) and len(model) > 6 and type(found).__name__ == "OnnxProgram"
    real, measured = prunable.sparsity(dense, model, None), prunable.sparsity(dense, found, None)
    assert measured["layer_weights"] == pytest.approx(real["layer_weights"])
    if type(found).__name__ == "ExportedProgram" or isinstance(model, nn.Sequential):
        lost = 16 if folded else 0  # the exporter folds weight and bias of a batch norm of 8 channels away
        assert profile.parameters(found)[0] == profile.parameters(model)[0] - lost
    assert len(profile.serialised(found)) > 0


def test_a_program_can_be_copied_and_the_copy_is_its_own(program: Any) -> None:
    found, _, x, _ = program
    again = copy.deepcopy(found)
    assert np.array_equal(outputs(again, x), outputs(found, x))
    assert digests.of_model(again) == digests.of_model(found)
    assert not any(a is b for a, b in zip(again.parameters(), found.parameters(), strict=True))


def test_the_products_of_a_torch_export_program_are_counted_and_those_of_onnx_cannot_be(program: Any) -> None:
    found, model, x, _ = program
    counted = profile.macs(model, x[:1]) if type(found).__name__ == "ExportedProgram" else 0
    assert profile.macs(found, x[:1]) == counted


def test_a_layer_at_the_root_of_a_program_is_a_layer(tmp_path: Path) -> None:
    dense = networks.seeded(lambda: nn.Linear(6, 3))
    saved = pruned(lambda: nn.Linear(6, 3))
    for ending in ("onnx", "pt2"):
        path = exported(tmp_path / f"a.{ending}", saved, networks.batch(5, 6))
        found = read(path, dense, unpickle=ending == "pt2")
        assert prunable.sparsity(dense, found, None)["layer_weights"] == pytest.approx(1 / 3)


def test_a_program_has_modes_like_any_module(program: Any) -> None:
    found, _, x, _ = program
    found.train()
    trained = outputs(found, x)
    assert found.training
    found.eval()
    assert np.array_equal(outputs(found, x), trained)


def test_two_programs_with_the_same_tensors_are_not_the_same_model(tmp_path: Path) -> None:
    first = pruned()
    second = nn.Sequential(*first)
    second[1] = nn.Tanh()
    x = networks.batch(5, 6)
    found = [read(exported(tmp_path / f"{n}.onnx", model, x)) for n, model in enumerate((first, second))]
    assert digests.of_model(found[0]) != digests.of_model(found[1])


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_program_for_one_batch_size_says_so_for_another(ending: str, tmp_path: Path) -> None:
    path = exported(tmp_path / f"a.{ending}", pruned(), networks.batch(2, 6), dynamic=False)
    found = read(path, unpickle=ending == "pt2")
    assert outputs(found, networks.batch(4, 6), batch_size=2).shape == (4, 3)
    with pytest.raises(MeasurementError) as caught:
        outputs(found, networks.batch(4, 6), batch_size=4)
    assert "dynamic_shapes" in caught.value.remedy
    with pytest.raises(MeasurementError):
        outputs(copy.deepcopy(found), networks.batch(4, 6), batch_size=4)


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(8)])
def test_a_program_that_was_exported_in_training_mode_is_refused(ending: str, layer: nn.Module, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 3)).train()
    path = tmp_path / f"a.{ending}"
    if ending == "pt2":
        exported(path, model, networks.batch(5, 6))
    else:
        path.write_bytes(_training_onnx(layer))
    assert "training mode" in refused(path, unpickle=ending == "pt2").cause


def _training_onnx(layer: nn.Module) -> bytes:
    onnx = pytest.importorskip("onnx", reason="makes ONNX files")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 6]) for n in "xy")
    if isinstance(layer, nn.Dropout):
        held = {"p": np.float32(0.5), "t": np.array(True)}
        node = helper.make_node("Dropout", ["x", "p", "t"], ["y"])
    else:
        held = {name: np.ones(6, np.float32) for name in "sbmv"}
        node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y", "rm", "rv"], training_mode=1)
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph([node], "g", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    return bytes(model.SerializeToString())


def test_a_torch_export_program_is_refused_unread_unless_the_policy_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(tmp_path / "a.pt2", pruned(), networks.batch(5, 6))
    monkeypatch.setattr(torch.export, "load", lambda *a, **kw: ran.append("ran"))
    error = refused(path)
    assert "may run code" in error.cause
    assert "unpickle = true" in error.remedy
    assert ran == []


def test_reading_a_torch_export_program_can_run_code(tmp_path: Path) -> None:
    """Why it is refused: torch unpickles without restraint."""
    path = exported(tmp_path / "a.pt2", networks.seeded(lambda: nn.Linear(6, 3)), networks.batch(5, 6))
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        files = {name: archive.read(name) for name in names}
    (example,) = (name for name in names if "sample_inputs" in name)
    torch.save(Payload(), tmp_path / "payload")
    files[example] = (tmp_path / "payload").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.pt2", "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.writestr(name, files[name])
    refused(tmp_path / "b.pt2")
    assert ran == []
    with warnings.catch_warnings(action="ignore"):
        refused(tmp_path / "b.pt2", unpickle=True)
    assert ran == ["ran"]


class Two(nn.Module):
    """Reads integers and half precision numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(tokens).mean(1)) * scale.float()


def test_inputs_go_to_onnx_by_name_or_position_in_their_own_type(tmp_path: Path) -> None:
    model = networks.seeded(Two).eval()
    tokens = torch.arange(10).reshape(2, 5) % 5
    scale = networks.batch(2, 1).half()
    found = read(exported(tmp_path / "a.onnx", model, tokens, scale), model)
    want = outputs(model, (tokens, scale))
    assert np.allclose(outputs(found, (tokens, scale)), want, atol=1e-5)
    assert np.allclose(outputs(found, {"scale": scale, "tokens": tokens}), want, atol=1e-5)
    for wrong in ({"scale": scale, "words": tokens}, (tokens,), (tokens, scale, scale), {"scale": scale}):
        with pytest.raises(MeasurementError, match="the ONNX graph takes scale, tokens"):
            outputs(found, wrong)
    with pytest.raises(MeasurementError, match="onnxruntime raised"):
        outputs(found, (tokens, scale.float()))
    with pytest.raises(MeasurementError, match="bfloat16"):
        outputs(found, (tokens, scale.bfloat16()))


def test_a_smaller_onnx_network_is_measured_against_the_dense_one(tmp_path: Path) -> None:
    dense = networks.seeded(networks.mlp)  # 6·8 + 8·10 + 10·3 weights
    small = networks.seeded(lambda: nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 3))).eval()
    found = read(exported(tmp_path / "a.onnx", small, networks.batch(5, 6)), dense)
    assert prunable.sparsity(dense, found, None)["layer_weights"] == pytest.approx(1 - 18 / 158)
    assert profile.parameters(found) == (23, 23)


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PruneProofError) as caught:
        read(tmp_path / "a.onnx")
    assert "pruneproof[onnx]" in caught.value.remedy


def test_onnx_weights_in_a_file_beside_it_are_read(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="makes ONNX files")
    from pruneproof.formats import onnx as form

    x = networks.batch(5, 6)
    path = exported(tmp_path / "a.onnx", pruned(), x)
    onnx.save_model(
        onnx.load(path), tmp_path / "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0
    )
    assert form.outside(path) == ()
    assert form.outside(tmp_path / "b.onnx") == ("b.data",)
    found = read(tmp_path / "b.onnx")
    assert np.array_equal(outputs(found, x), outputs(read(path), x))
    (tmp_path / "b.data").unlink()
    assert np.array_equal(outputs(copy.deepcopy(found), x), outputs(found, x))
    refused(tmp_path / "b.onnx")


def test_an_ending_of_no_format_names_those_that_there_are(tmp_path: Path) -> None:
    error = refused(tmp_path / "a.h5")
    assert all(f".{name}" in error.remedy for name in registry.names("pruneproof.formats"))
    with pytest.raises(ValueError, match="ending of a checkpoint"):
        policy.Imported(name="a", checkpoint="a.h5")
