"""Which tensors are weights, and how much of a network is gone."""

from __future__ import annotations

import warnings
from typing import Any

import networks
import plans
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pruneproof import prunable, surgery
from pruneproof.errors import PruningError


class Narrow(nn.Linear):
    """Somebody's subclass."""


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.mine = Narrow(3, 4)
        self.bilinear = nn.Bilinear(2, 3, 4)
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(2, 3, 2), nn.Conv2d(2, 3, 2), nn.Conv3d(2, 3, 2)
        self.back1, self.back2, self.back3 = (
            nn.ConvTranspose1d(2, 3, 2),
            nn.ConvTranspose2d(2, 3, 2),
            nn.ConvTranspose3d(2, 3, 2),
        )
        self.rnn = nn.RNN(2, 3)
        self.lstm = nn.LSTM(2, 4, num_layers=2, bidirectional=True, proj_size=3)
        self.gru = nn.GRU(2, 3, bidirectional=True)
        self.cells = nn.ModuleList([nn.RNNCell(2, 3), nn.LSTMCell(2, 3), nn.GRUCell(2, 3)])
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.apart = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6)
        self.words, self.bag = nn.Embedding(5, 4), nn.EmbeddingBag(5, 4)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.LayerNorm([3, 2]), nn.GroupNorm(1, 3), nn.RMSNorm(4)])
        self.prelu = nn.PReLU(3)


LAYER = {"layer.self_attn.in_proj_weight", "layer.self_attn.out_proj.weight", "layer.linear1.weight"}
EXPECTED = (
    {f"{name}.weight" for name in ("linear", "mine", "bilinear", "conv1", "conv2", "conv3", "back1", "back2", "back3")}
    | {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    | {f"gru.weight_{side}_l0{way}" for side in ("ih", "hh") for way in ("", "_reverse")}
    | {f"lstm.weight_{s}_l{n}{way}" for s in ("ih", "hh", "hr") for n in (0, 1) for way in ("", "_reverse")}
    | {f"cells.{i}.weight_{side}" for i in range(3) for side in ("ih", "hh")}
    | {"attention.in_proj_weight", "attention.out_proj.weight", "apart.out_proj.weight"}
    | {f"apart.{part}_proj_weight" for part in "qkv"}
    | LAYER
    | {"layer.linear2.weight"}
)


def test_every_kind_of_layer_gives_its_weights_and_nothing_else_does() -> None:
    model = Everything()
    assert set(prunable.weights(model)) == EXPECTED
    assert prunable.out_of_reach(model) == ()


def scripted(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(model)


def test_torchscript_layers_are_known_by_their_original_names() -> None:
    plain = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Sequential(nn.Linear(4, 5), nn.Flatten()), networks.Recurrent())
    assert set(prunable.weights(scripted(plain))) == set(prunable.weights(plain))


def test_a_scripted_subclass_that_is_no_longer_known_is_named_as_out_of_reach() -> None:
    model = scripted(nn.Sequential(Narrow(3, 4), nn.Linear(4, 2)))
    assert set(prunable.weights(model)) == {"1.weight"}
    assert prunable.out_of_reach(model) == (("0", "Narrow is no known kind of layer"),)


def test_a_tensor_that_layers_share_appears_once() -> None:
    assert set(prunable.weights(networks.Tied())) == {"enter.weight", "first.weight", "head.weight"}


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_parametrized_layer_is_left_out_and_named(wrap: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    wrap(model[0])
    made = plans.planned(model, networks.batch(2, 6))
    assert set(made.masks) == {"1.weight"}
    assert [layer for layer, _ in made.left_whole] == ["0"]
    assert "parametrized" in made.left_whole[0][1]


def test_a_weight_outside_any_known_layer_is_named() -> None:
    assert prunable.out_of_reach(networks.Bare()) == (("", "Bare is no known kind of layer"),)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_a_recurrent_classifier_loses_recurrent_weights_and_answers_otherwise(
    kind: type[nn.RNNBase], options: dict[str, Any]
) -> None:
    model = networks.seeded(lambda: networks.Recurrent(kind, **options)).eval()
    x = networks.batch(4, 5, 6)
    made = plans.planned(model, x, scope="layer")
    pruned = surgery.apply(made, model)
    for name, parameter in pruned.named_parameters():
        assert int((parameter == 0).sum()) == (0 if "bias" in name else (parameter.numel() + 1) // 2), name
    assert not torch.allclose(pruned(x), model(x))


def test_biases_norms_and_embeddings_stay_bit_for_bit() -> None:
    model = networks.seeded(Everything)
    pruned = surgery.apply(plans.planned(model, networks.batch(*networks.ROW), 0.9), model)
    before = dict(model.named_parameters())
    for name, parameter in pruned.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in EXPECTED), name


def test_frozen_parameters_are_pruned_under_no_grad_too() -> None:
    model = networks.seeded(networks.mlp).requires_grad_(False)
    with torch.no_grad():
        made = plans.planned(model, networks.batch(2, 6))
        pruned = surgery.apply(made, model)
    assert sum(int((p == 0).sum()) for p in pruned.parameters()) == made.removed == 79
    assert not any(p.requires_grad for p in pruned.parameters())


def test_a_model_whose_forward_pass_takes_no_gradients_is_pruned_by_elements() -> None:
    model = networks.seeded(networks.Ungraded)
    assert plans.planned(model, networks.batch(2, 6)).removed == 79


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("granularity", ["element", "channel"])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, granularity: str) -> None:
    model = networks.seeded(networks.mlp)
    with torch.no_grad():
        model.get_parameter("2.weight")[1, 1] = value
    with pytest.raises(PruningError, match=r"^2\S* holds NaN or infinity"):
        plans.planned(model, networks.batch(2, 6), granularity=granularity)


@pytest.mark.parametrize("granularity", ["element", "channel"])
def test_a_model_without_weights_is_refused(granularity: str) -> None:
    model = nn.Sequential(nn.BatchNorm1d(6), nn.ReLU())
    with pytest.raises(PruningError, match=r"no linear|no channels"):
        plans.planned(model, networks.batch(2, 6), granularity=granularity)


class Counted(nn.Module):
    """4·3 layer weights, 4 biases, 5·2 embedded numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.words = nn.Embedding(5, 2)
        nn.init.ones_(self.linear.weight)
        nn.init.ones_(self.linear.bias)
        nn.init.ones_(self.words.weight)


def both(*names: str) -> tuple[set[str], set[str]]:
    """Tensors that have the same names before and after."""
    return set(names), set(names)


def test_sparsity_is_counted_under_three_denominators() -> None:
    dense, variant = Counted(), Counted()
    with torch.no_grad():
        variant.linear.weight[0] = 0
        variant.words.weight[0, 0] = 0
    assert prunable.sparsity(dense, variant, both("linear.weight")) == pytest.approx(
        {"pruned_tensors": 3 / 12, "layer_weights": 3 / 12, "all_parameters": 4 / 26}
    )
    assert prunable.sparsity(dense, variant, both("words.weight"))["pruned_tensors"] == pytest.approx(1 / 10)
    assert set(prunable.sparsity(dense, dense, None).values()) == {0.0}


def test_sparsity_of_a_shrunk_network_counts_what_is_missing() -> None:
    dense = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    shrunk = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2))
    for model in (dense, shrunk):
        for parameter in model.parameters():
            nn.init.ones_(parameter)
    found = prunable.sparsity(dense, shrunk, both("0.weight", "0.bias", "1.weight"))
    assert found == pytest.approx(
        {"pruned_tensors": 1 - 6 / 24, "layer_weights": 1 - 5 / 20, "all_parameters": 1 - 8 / 26}
    )


def test_a_shared_tensor_is_counted_once() -> None:
    dense, variant = networks.seeded(networks.Tied), networks.seeded(networks.Tied)
    with torch.no_grad():
        variant.get_parameter("first.weight").zero_()
    found = prunable.sparsity(dense, variant, both("first.weight"))
    assert found["pruned_tensors"] == 1.0
    assert found["layer_weights"] == pytest.approx(64 / (48 + 64 + 24))


def test_a_layer_that_shares_its_weight_with_an_embedding_is_counted() -> None:
    def tied() -> nn.Module:
        model = nn.ModuleDict({"words": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
        model["head"].weight = model["words"].weight
        return model

    dense = networks.seeded(tied)
    made = plans.planned(dense, networks.batch(*networks.ROW))
    found = prunable.sparsity(dense, surgery.apply(made, dense), (made.tensors, made.tensors))
    assert found == {"pruned_tensors": 0.5, "layer_weights": 0.5, "all_parameters": 0.5}


def test_what_torch_prune_masked_is_counted_though_its_tensors_bear_other_names() -> None:
    dense, variant = networks.seeded(networks.mlp), networks.seeded(networks.mlp)
    layers = [(variant.get_submodule(name), "weight") for name in ("0", "2", "4")]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=79)
    assert prunable.sparsity(dense, variant, None) == pytest.approx(
        {"pruned_tensors": 0.5, "layer_weights": 0.5, "all_parameters": 79 / 179}
    )


def test_a_variant_whose_layers_are_called_otherwise_is_not_taken_for_empty() -> None:
    dense = networks.seeded(networks.mlp)
    wrapped = nn.ModuleDict({"module": networks.seeded(networks.mlp)})
    assert set(prunable.sparsity(dense, wrapped, None).values()) == {0.0}
