"""Channels go physically: the smaller network computes what the masked one does, or it is refused."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import networks
import pytest
import torch
from safetensors.torch import load
from torch import nn
from torch.nn.utils import prune

from pruneproof import plan, profile, pruning, selfcheck, structure
from pruneproof.errors import PruningError
from pruneproof.plan import PrunePlan
from pruneproof.policy import Prune
from pruneproof.subject import Data, Inputs

IMAGE, ROW = networks.IMAGE, networks.ROW

SHRINKABLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (networks.mlp, ROW),
    "cnn": (networks.cnn, IMAGE),
    "cnn without bias": (lambda: networks.cnn(bias=False), IMAGE),
    "residual": (networks.Residual, IMAGE),
    "depthwise": (networks.depthwise, IMAGE),
    "transposed": (networks.transposed, IMAGE),
    "depthwise transposed": (networks.depthwise_transposed, IMAGE),
    "concat": (networks.Concat, IMAGE),
    "prelu": (networks.prelu, IMAGE),
    "batch norm without weights": (networks.statistics_only, IMAGE),
    "conv1d": (networks.conv1d, (2, 3, 8)),
    "conv3d": (networks.conv3d, (2, 3, 4, 4, 4)),
    "reused layer": (networks.Reused, ROW),
    "two outputs": (networks.Auxiliary, ROW),
}


def recipe(**options: str) -> Prune:
    return Prune.model_validate({"name": "r", "ratios": [0.5], "granularity": "channel", **options})


def planned(model: nn.Module, inputs: Inputs, ratio: float = 0.5, **options: str) -> PrunePlan:
    return pruning.plan(recipe(**options), ratio, model, inputs, 0)


def case(name: str) -> tuple[nn.Module, torch.Tensor]:
    make, shape = SHRINKABLE[name]
    return networks.seeded(make).eval(), networks.batch(*shape)


def answer(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found = model(x)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", SHRINKABLE)
@pytest.mark.parametrize(("ratio", "scope"), [(0.3, "global"), (0.5, "layer"), (0.6, "global")])
def test_the_shrunk_network_computes_what_the_masked_one_does(name: str, ratio: float, scope: str) -> None:
    model, x = case(name)
    made = planned(model, x, ratio, scope=scope)
    assert made.left_whole == ()
    shrunk, full = plan.apply(made, model), plan.masked(made, model)
    with torch.no_grad():
        want, have = answer(full, x), answer(shrunk, x)
        assert have.shape == answer(model, x).shape
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(have, answer(model, x), rtol=1e-3, atol=1e-3)
    assert all(check.passed for check in selfcheck.checks(made, model, shrunk, Data(x), 0))
    assert profile.parameters(shrunk)[0] < profile.parameters(model)[0]
    before, now = profile.macs(model, x[:1]), profile.macs(shrunk, x[:1])
    assert before is not None
    assert now is not None
    assert 0 < now < before


@pytest.mark.parametrize("name", SHRINKABLE)
def test_a_shrunk_network_trains_reloads_and_copies(name: str) -> None:
    model, x = case(name)
    shrunk = plan.apply(planned(model, x), model).eval()
    twin = copy.deepcopy(shrunk)
    assert torch.equal(answer(twin, x), answer(shrunk, x))
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    twin.load_state_dict(load(profile.serialised(shrunk)))
    assert torch.equal(answer(twin, x), answer(shrunk, x))
    optimizer = torch.optim.SGD(shrunk.train().parameters(), 0.1)
    nn.functional.cross_entropy(answer(shrunk, x), torch.arange(len(x)) % 3).backward()
    optimizer.step()
    trained = [p for q, p in zip(twin.parameters(), shrunk.parameters(), strict=True) if not torch.equal(q, p)]
    assert trained


def test_what_goes_from_an_mlp_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([[5.0, 5.0], [1.0, 1.0], [3.0, 3.0]]))
        model.get_parameter("0.bias").copy_(torch.tensor([10.0, 20.0, 30.0]))
        model.get_parameter("2.weight").copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    shrunk = plan.apply(planned(model, torch.ones(2, 2), 0.34), model)
    assert shrunk.get_parameter("0.weight").tolist() == [[5.0, 5.0], [3.0, 3.0]]
    assert shrunk.get_parameter("0.bias").tolist() == [10.0, 30.0]
    assert shrunk.get_parameter("2.weight").tolist() == [[1.0, 3.0], [4.0, 6.0]]
    assert torch.equal(shrunk.get_parameter("2.bias"), model.get_parameter("2.bias"))
    assert profile.parameters(shrunk)[0] == 2 * 2 + 2 + 2 * 2 + 2


def test_a_flattened_channel_takes_all_of_its_positions_along() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(3 * 4, 2))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([3.0, 1.0, 2.0]).reshape(3, 1, 1, 1))
    shrunk = plan.apply(planned(model, torch.ones(2, 1, 2, 2), 0.34), model)
    assert torch.equal(shrunk.get_parameter("2.weight"), model.get_parameter("2.weight")[:, [0, 1, 2, 3, 8, 9, 10, 11]])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # one 4-of-8 and one 6-of-12 convolution, 8 of 16 neurons, batch norm: layer scope, half of each
        ("cnn", (4 * 27 + 4) + 2 * 4 + (6 * 4 * 9 + 6) + (8 * 24 + 8) + (3 * 8 + 3)),
        # the two convolutions that are added lose the same four channels
        ("residual", (4 * 27 + 4) + (3 * 4 * 9) + 2 * 3 + (4 * 3 * 9 + 4) + (3 * 4 + 3)),
        # what follows a 1×1 convolution one by one goes with it
        ("depthwise", 4 * 3 + 2 * 4 + 4 * 9 + 2 * 4 + (3 * 4 + 3) + (3 * 3 + 3)),
        ("transposed", (3 * 27 + 3) + (3 * 4 * 4 + 4) + 2 * 4 + (2 * 4 + 2) + (3 * 2 + 3)),
        ("depthwise transposed", (3 * 3 + 3) + (3 * 4 + 3) + (2 * 3 + 2) + (3 * 2 + 3)),
        ("concat", (2 * 27 + 2) + (2 * 2 * 9 + 2) + (2 * 4 * 9 + 2) + 2 * 6 + (3 * 6 + 3)),
        ("prelu", (4 * 27 + 4) + 4 + (3 * 4 * 9 + 3) + 1 + (3 * 3 * 16 + 3)),
    ],
)
def test_half_of_each_layer_leaves_the_number_of_parameters_counted_by_hand(name: str, count: int) -> None:
    model, x = case(name)
    assert profile.parameters(plan.apply(planned(model, x, 0.5, scope="layer"), model))[0] == count


@pytest.mark.parametrize("name", SHRINKABLE)
def test_layers_record_their_new_sizes(name: str) -> None:
    model, x = case(name)
    shrunk = plan.apply(planned(model, x, 0.5, scope="layer"), model)
    for module in shrunk.modules():
        if isinstance(module, nn.Linear):
            assert tuple(module.weight.shape) == (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            assert tuple(module.weight.shape[:2]) == (module.in_channels, module.out_channels // module.groups)
        elif isinstance(module, nn.modules.conv._ConvNd):
            assert tuple(module.weight.shape[:2]) == (module.out_channels, module.in_channels // module.groups)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert len(module.running_mean) == module.num_features
        elif isinstance(module, nn.PReLU):
            assert len(module.weight) == module.num_parameters


@pytest.mark.parametrize(
    ("make", "shape", "layer", "reason"),
    [
        (networks.grouped, IMAGE, "0", "pass through 1, a grouped convolution"),
        (networks.LayerNormed, ROW, "enter", r"norm \(LayerNorm\)"),
        (networks.LayerNormed, ROW, "down", r"norm \(LayerNorm\)"),
        (networks.Attentive, (2, 4, 6), "enter", r"attention \(MultiheadAttention\)"),
        (networks.Attentive, (2, 4, 6), "attention.out_proj", "MultiheadAttention"),
        (networks.Recurrent, (2, 4, 6), "enter", r"memory \(LSTM\)"),
        (networks.Detached, ROW, "enter", "takes no part in the forward pass"),
    ],
)
def test_what_cannot_be_pruned_is_left_whole_with_its_reason(
    make: Callable[[], nn.Module], shape: tuple[int, ...], layer: str, reason: str
) -> None:
    model, x = networks.seeded(make).eval(), networks.batch(*shape)
    groups, whole = structure.groups(model, x)
    found = dict(whole)
    assert len(found) == len(whole)
    assert layer in found
    assert re.search(reason, found[layer])
    assert layer not in {group.name for group in groups}
    made = planned(model, x)
    shrunk = plan.apply(made, model)
    assert made.left_whole == tuple(whole)
    assert shrunk.get_parameter(f"{layer}.weight").shape[0] == model.get_parameter(f"{layer}.weight").shape[0]
    assert all(check.passed for check in selfcheck.checks(made, model, shrunk, Data(x), 0))


def test_every_layer_coupled_to_one_that_cannot_be_pruned_is_named() -> None:
    class Coupled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(6, 8)
            self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.one(x) + self.two(x)))

    groups, whole = structure.groups(Coupled(), networks.batch(*ROW))
    assert groups == []
    assert [layer for layer, _ in whole] == ["one", "two"]


def test_the_last_layer_stays_whole_without_a_word() -> None:
    groups, whole = structure.groups(networks.mlp(), networks.batch(*ROW))
    assert [(group.name, group.size) for group in groups] == [("0", 8), ("2", 10)]
    assert whole == []


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (networks.Tied, "first.weight and second.weight are one tensor"),
        (networks.TiedDecoder, "encode: its channels reach head.weight"),
        (networks.Ungraded, "takes no part in the forward pass"),
        (networks.Bare, r"enter: its channels pass through Parameter"),
        (lambda: nn.Sequential(nn.Linear(6, 3)), "no such layers"),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))), "no such layers"),
        (lambda: prune.l1_unstructured(nn.Linear(6, 3), "weight", 2), "cannot be copied"),
        (lambda: nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3)), "cannot be traced"),
    ],
)
def test_a_network_without_anything_to_shrink_is_refused(make: Callable[[], nn.Module], cause: str) -> None:
    with pytest.raises(PruningError, match=cause):
        planned(networks.seeded(make), networks.batch(*ROW))


def test_a_parametrized_layer_is_left_whole_and_the_others_shrink() -> None:
    model = networks.seeded(networks.mlp)
    nn.utils.parametrizations.weight_norm(model.get_submodule("0"))
    made = planned(model, networks.batch(*ROW))
    assert made.left_whole == (("0", "0.weight is computed from other tensors, not stored"),)
    assert {removal.tensor for removal in made.removals} == {"2.weight", "2.bias", "4.weight"}


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings(action="ignore"):
        model = torch.jit.script(networks.mlp())
    with pytest.raises(PruningError, match="TorchScript"):
        planned(model, networks.batch(*ROW))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (networks.HardCodedView, IMAGE),
        (networks.HalvedView, (4, 3, 8, 8)),
        (networks.Chunked, ROW),
        (networks.ChannelMean, ROW),
    ],
)
def test_a_network_that_counts_its_own_channels_never_passes_silently(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model, x = networks.seeded(make).eval(), networks.batch(*shape)
    try:
        made = planned(model, x)
    except PruningError:
        return
    found = selfcheck.checks(made, model, plan.apply(made, model), Data(x), 0)
    assert "V3" in {check.id for check in found if not check.passed}


@pytest.mark.parametrize("form", ["mapping", "tuple"])
def test_networks_with_several_inputs_are_traced(form: str) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = networks.mlp()

        def forward(self, left: torch.Tensor, right: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
            return {"logits": self.body(left if right is None else left + right)}

    left, right = networks.batch(2, 6), networks.batch(2, 6, seed=2)
    inputs: Any = {"left": left, "right": right} if form == "mapping" else (left, right)
    assert planned(Two(), inputs).units == 18
    assert planned(Two(), left).units == 18


def test_tracing_takes_a_batch_of_two_as_one_argument() -> None:
    """With the batch spread over the arguments this model would run too, on another path."""

    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.other = networks.mlp(), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            return self.body(x) if y is None else self.other(x)

    assert planned(Optional(), networks.batch(2, 6)).units == 18


def test_frozen_networks_are_shrunk_and_stay_frozen() -> None:
    model = networks.seeded(networks.cnn).requires_grad_(False)
    shrunk = plan.apply(planned(model, networks.batch(*IMAGE)), model)
    assert not any(parameter.requires_grad for parameter in shrunk.parameters())
    assert isinstance(shrunk.get_parameter("0.weight"), nn.Parameter)


def test_every_layer_keeps_a_unit_and_more_than_that_is_refused() -> None:
    model, x = case("mlp")
    shrunk = plan.apply(planned(model, x, 16 / 18), model)
    assert [shrunk.get_parameter(f"{i}.weight").shape[0] for i in (0, 2)] == [1, 1]
    with pytest.raises(PruningError, match=r"asks for 17 of 18 units, but 1 must stay in each of 2 layers"):
        planned(model, x, 0.95)
