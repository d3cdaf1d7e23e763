"""Which channels hang together: without them a network computes what the masked one does, or it is refused."""

from __future__ import annotations

import copy
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import networks
import pytest
import removals
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from removals import answer, relative
from torch import nn
from torch.nn.utils import prune

from pruneproof import graph, profile
from pruneproof.errors import GraphTimeout, PruningError
from pruneproof.units import Found

IMAGE, ROW = networks.IMAGE, networks.ROW
SEQUENCE = (2, 4, 6)

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
    "squeeze and excitation": (networks.Gated, IMAGE),
    "grouped": (networks.grouped, IMAGE),
    "grouped with batch norm": (networks.resnext, IMAGE),
    "grouped after grouped": (networks.grouped_chain, IMAGE),
    "grouped transposed": (networks.grouped_transposed, IMAGE),
    "grouped after concat": (networks.joined_grouped, IMAGE),
    "group norm": (networks.group_normed, IMAGE),
    "group norm of single channels": (lambda: networks.group_normed(8), IMAGE),
    "group norm of all channels": (lambda: networks.group_normed(1), IMAGE),
    "group norm after concat": (networks.joined_group_norm, IMAGE),
    "instance norm": (networks.instance_normed, IMAGE),
    "instance norm with weights": (lambda: networks.instance_normed(affine=True), IMAGE),
    "instance norm with statistics": (lambda: networks.instance_normed(affine=True, track_running_stats=True), IMAGE),
    "layer norm": (lambda: networks.normed_by(lambda: nn.LayerNorm(8)), ROW),
    "layer norm without bias": (lambda: networks.normed_by(lambda: nn.LayerNorm(8, bias=False)), ROW),
    "rms norm": (lambda: networks.normed_by(lambda: nn.RMSNorm(8)), ROW),
    "residual stream with layer norm": (networks.LayerNormed, ROW),
    "convnext block": (networks.Scaled, IMAGE),
    "class token and positions": (networks.Positioned, SEQUENCE),
    "embedding": (networks.Embedded, ROW),
    "gated unit": (networks.Chunked, ROW),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are tiny
    yield
    torch.set_num_threads(threads)


def case(name: str) -> tuple[nn.Module, torch.Tensor]:
    make, shape = SHRINKABLE[name]
    model = networks.seeded(make).eval()
    for module in model.modules():
        if (
            isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.InstanceNorm2d | nn.RMSNorm)
            and module.weight is not None
        ):
            nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(3))
            if getattr(module, "bias", None) is not None:
                nn.init.normal_(module.bias, generator=torch.Generator().manual_seed(4))
    return model, networks.batch(*shape)


def groups(model: nn.Module, inputs: Any) -> Found:
    return graph.groups(model, inputs, 60.0)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", SHRINKABLE)
@pytest.mark.parametrize(("ratio", "scope"), [(0.3, "global"), (0.5, "layer"), (0.6, "global")])
def test_the_shrunk_network_computes_what_the_masked_one_does(name: str, ratio: float, scope: str) -> None:
    model, x = case(name)
    found = groups(model, x)
    assert found.whole == ()
    shrunk, masked = removals.halves(found, model, removals.drawn(found, ratio, scope))
    have, want, before = answer(shrunk, x), answer(masked, x), answer(model, x)
    assert relative(have, want) < 1e-5
    assert relative(have, before) > 1e-3
    assert parameters(shrunk) < parameters(model)
    assert 0 < (profile.macs(shrunk, x[:1]) or 0) < (profile.macs(model, x[:1]) or 0)


@pytest.mark.parametrize("name", SHRINKABLE)
def test_every_layer_is_in_a_group_or_left_whole_with_a_reason_but_for_the_last(name: str) -> None:
    model, x = case(name)
    last = {"two outputs": {"head", "other"}}
    named = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert removals.unexplained(groups(model, x), model) == last.get(name, {named[-1]})


@pytest.mark.parametrize("name", SHRINKABLE)
def test_every_single_unit_can_go_by_itself(name: str) -> None:
    model, x = case(name)
    found = groups(model, x)
    for group in found.groups:
        for unit in {0, group.size // 2, group.size - 1}:
            shrunk, masked = removals.halves(found, model, {group.name: [unit]})
            assert relative(answer(shrunk, x), answer(masked, x)) < 1e-5


@pytest.mark.parametrize("name", SHRINKABLE)
def test_a_shrunk_network_trains_and_copies(name: str) -> None:
    model, x = case(name)
    found = groups(model, x)
    shrunk, _ = removals.halves(found, model, removals.drawn(found))
    twin = copy.deepcopy(shrunk)
    assert torch.equal(answer(twin, x), answer(shrunk, x))
    optimizer = torch.optim.SGD(shrunk.train().parameters(), 0.1)
    output = shrunk(x)
    output = output[0] if isinstance(output, tuple) else output
    nn.functional.cross_entropy(output, torch.arange(len(x)) % 3).backward()
    optimizer.step()
    assert any(not torch.equal(q, p) for q, p in zip(twin.parameters(), shrunk.parameters(), strict=True))


@pytest.mark.parametrize("name", SHRINKABLE)
def test_layers_record_their_new_sizes(name: str) -> None:
    model, x = case(name)
    found = groups(model, x)
    shrunk, _ = removals.halves(found, model, removals.drawn(found))
    for module in shrunk.modules():
        if isinstance(module, nn.Linear):
            assert tuple(module.weight.shape) == (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            assert tuple(module.weight.shape[:2]) == (module.in_channels, module.out_channels // module.groups)
        elif isinstance(module, nn.modules.conv._ConvNd):
            assert tuple(module.weight.shape[:2]) == (module.out_channels, module.in_channels // module.groups)
        elif isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            assert len(module.running_mean) == module.num_features
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            assert tuple(module.normalized_shape) == tuple(module.weight.shape)
        elif isinstance(module, nn.GroupNorm):
            assert len(module.weight) == module.num_channels
        elif isinstance(module, nn.PReLU):
            assert len(module.weight) == module.num_parameters
        elif isinstance(module, nn.Embedding):
            assert tuple(module.weight.shape) == (module.num_embeddings, module.embedding_dim)


def test_what_goes_from_an_mlp_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([[5.0, 5.0], [1.0, 1.0], [3.0, 3.0]]))
        model.get_parameter("0.bias").copy_(torch.tensor([10.0, 20.0, 30.0]))
        model.get_parameter("2.weight").copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    shrunk, _ = removals.halves(groups(model, torch.ones(2, 2)), model, {"0": [1]})
    assert shrunk.get_parameter("0.weight").tolist() == [[5.0, 5.0], [3.0, 3.0]]
    assert shrunk.get_parameter("0.bias").tolist() == [10.0, 30.0]
    assert shrunk.get_parameter("2.weight").tolist() == [[1.0, 3.0], [4.0, 6.0]]
    assert torch.equal(shrunk.get_parameter("2.bias"), model.get_parameter("2.bias"))


def test_a_flattened_channel_takes_all_of_its_positions_along() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Flatten(), nn.Linear(3 * 4, 2))
    shrunk, _ = removals.halves(groups(model, torch.ones(2, 1, 2, 2)), model, {"0": [1]})
    kept = model.get_parameter("2.weight")[:, [0, 1, 2, 3, 8, 9, 10, 11]]
    assert torch.equal(shrunk.get_parameter("2.weight"), kept)


def test_of_a_grouped_convolution_one_channel_of_each_group_goes_at_once() -> None:
    """Eight channels in two groups of four: unit 1 is channels 1 and 5, and column 1 of the weights that read them."""
    model, x = case("grouped with batch norm")
    found = groups(model, x)
    assert [(group.name, group.size) for group in found.groups] == [("0", 4), ("3", 4), ("6", 6)]
    shrunk, _ = removals.halves(found, model, {"0": [1], "3": [2]})
    assert torch.equal(shrunk.get_parameter("0.weight"), model.get_parameter("0.weight")[[0, 2, 3, 4, 6, 7]])
    want = model.get_parameter("3.weight")[[0, 1, 3, 4, 5, 7]][:, [0, 2, 3]]
    assert torch.equal(shrunk.get_parameter("3.weight"), want)
    assert shrunk.get_submodule("3").groups == 2
    assert torch.equal(shrunk.get_parameter("6.weight"), model.get_parameter("6.weight")[:, [0, 1, 3, 4, 5, 7]])


def test_channels_of_concatenated_layers_that_a_grouped_layer_reads_are_one_group() -> None:
    """Three groups of four: unit 0 is channel 0 of the left branch with channels 0 and 4 of the right one."""
    model, x = case("grouped after concat")
    found = groups(model, x)
    assert [(group.name, group.size) for group in found.groups] == [("left", 4), ("after", 4)]
    held = {entry.tensor: entry.positions[entry.units == 0].tolist() for entry in found.groups[0].slices}
    assert held["left.weight"] == [0]
    assert held["right.weight"] == [0, 4]
    assert held["after.weight"] == [0]


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
        # 4 of 8 channels, two a group, on both sides of a grouped 3×3
        ("grouped with batch norm", 4 * 3 + 2 * 4 + 4 * 2 * 9 + 2 * 4 + (3 * 4 + 3) + (3 * 3 + 3)),
        ("embedding", (6 * 4 + 4) + 4 * 4 + (4 * 2 + 2) + (2 * 3 + 3)),
        ("class token and positions", (6 * 4 + 4) + 4 + 5 * 4 + (4 * 4 + 4) + (4 * 3 + 3)),
    ],
)
def test_half_of_each_layer_leaves_the_number_of_parameters_counted_by_hand(name: str, count: int) -> None:
    model, x = case(name)
    found = groups(model, x)
    shrunk, _ = removals.halves(found, model, removals.drawn(found, 0.5, "layer"))
    assert parameters(shrunk) == count


@pytest.mark.parametrize(
    ("make", "shape", "layer", "reason"),
    [
        (networks.Attentive, SEQUENCE, "enter", r"attention \(MultiheadAttention\)"),
        (networks.Attentive, SEQUENCE, "attention.out_proj", "MultiheadAttention"),
        (networks.Recurrent, SEQUENCE, "enter", r"memory \(LSTM\)"),
        (lambda: networks.Recurrent(nn.GRU), SEQUENCE, "enter", r"memory \(GRU\)"),
        (networks.Detached, ROW, "enter", "takes no part in the forward pass"),
        (networks.depthwise_multiplied, IMAGE, "0", "1, a depthwise convolution from 4 to 12 channels"),
        (networks.depthwise_multiplied, IMAGE, "1", "depthwise convolution from 4 to 12 channels"),
        (lambda: networks.Embedded(max_norm=1.0), ROW, "enter", r"category \(Embedding\), which rescales"),
        (lambda: networks.normed_by(lambda: nn.LayerNorm(8, elementwise_affine=False)), ROW, "0", "no weight"),
        (lambda: networks.normed_by(lambda: networks.DoublingLayerNorm(8)), ROW, "0", "forward pass is its own"),
        (lambda: networks.Joined(lambda: nn.LayerNorm((12, 8, 8))), IMAGE, "left", "over several dimensions"),
        (lambda: networks.Joined(lambda: nn.GroupNorm(3, 12), 5, 7), IMAGE, "right", "different numbers of channels"),
        (networks.PlusInput, IMAGE, "conv", "without some of its channels"),
        (networks.Shuffled, IMAGE, "conv", "without some of its channels"),
        (networks.HardCodedView, IMAGE, "conv", "does not run without some of its channels"),
        (networks.HalvedView, (4, 3, 8, 8), "conv", "without some of its channels"),
        (networks.ChannelMean, ROW, "enter", "does not compute what it does with them masked"),
    ],
)
def test_what_cannot_lose_channels_is_left_whole_with_its_reason(
    make: Callable[[], nn.Module], shape: tuple[int, ...], layer: str, reason: str
) -> None:
    model, x = networks.seeded(make).eval(), networks.batch(*shape)
    found = groups(model, x)
    whole = dict(found.whole)
    assert len(whole) == len(found.whole)
    assert re.search(reason, whole[layer])
    assert layer not in {group.name for group in found.groups}
    if found.groups:
        shrunk, masked = removals.halves(found, model, removals.drawn(found))
        assert shrunk.get_parameter(f"{layer}.weight").shape[0] == model.get_parameter(f"{layer}.weight").shape[0]
        assert relative(answer(shrunk, x), answer(masked, x)) < 1e-5


def test_a_depthwise_layer_on_the_inputs_is_named_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 3))
    found = groups(model, networks.batch(*IMAGE))
    assert [name for name, _ in found.whole] == ["0"]
    assert [group.name for group in found.groups] == ["1"]


def test_every_layer_coupled_to_one_that_cannot_be_pruned_is_named() -> None:
    class Coupled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(6, 8)
            self.norm, self.head = networks.DoublingLayerNorm(8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.one(x) + self.two(x)))

    found = groups(Coupled(), networks.batch(*ROW))
    assert found.groups == ()
    assert [layer for layer, _ in found.whole] == ["one", "two"]


def test_the_last_layer_stays_whole_without_a_word() -> None:
    found = groups(networks.mlp(), networks.batch(*ROW))
    assert [(group.name, group.size) for group in found.groups] == [("0", 8), ("2", 10)]
    assert found.whole == ()


def test_features_that_are_returned_stay_whole() -> None:
    model, x = networks.Features(), networks.batch(*ROW)
    found = groups(model, x)
    assert [group.name for group in found.groups] == ["enter"]
    shrunk, _ = removals.halves(found, model, {"enter": [0, 3]})
    assert [tuple(part.shape) for part in shrunk(x)] == [(4, 3), (4, 7)]


@pytest.mark.parametrize(
    ("make", "layer", "reason"),
    [
        (networks.Tied, "first", "first.weight and second.weight are one tensor"),
        (networks.TiedDecoder, "encode", "its channels reach head.weight"),
        (networks.Ungraded, "inner.0", "takes no part in the forward pass"),
        (networks.Bare, "enter", r"weight \(Parameter\), which MmBackward0 uses"),
    ],
)
def test_a_network_without_anything_to_shrink_says_why(make: Callable[[], nn.Module], layer: str, reason: str) -> None:
    found = groups(networks.seeded(make), networks.batch(*ROW))
    assert found.groups == ()
    assert re.search(reason, dict(found.whole)[layer])


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Linear(6, 3)),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))),
    ],
)
def test_a_network_of_one_layer_has_no_groups_and_says_why(make: Callable[[], nn.Module]) -> None:
    assert groups(make(), networks.batch(*ROW)) == Found((), (("0", "its channels are the network's output"),))


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: prune.l1_unstructured(nn.Linear(6, 3), "weight", 2), "cannot be copied"),
        (lambda: nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3)), "cannot be traced"),
    ],
)
def test_a_network_that_cannot_be_traced_is_refused(make: Callable[[], nn.Module], cause: str) -> None:
    with pytest.raises(PruningError, match=cause):
        groups(make(), networks.batch(*ROW))


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings(action="ignore"):
        model = torch.jit.script(networks.mlp())
    with pytest.raises(PruningError, match="TorchScript"):
        groups(model, networks.batch(*ROW))


def test_a_parametrized_layer_is_left_whole_and_the_others_shrink() -> None:
    model = networks.seeded(networks.mlp)
    nn.utils.parametrizations.weight_norm(model.get_submodule("0"))
    found = groups(model, networks.batch(*ROW))
    assert found.whole == (("0", "0.weight is computed from other tensors, not stored"),)
    assert [group.name for group in found.groups] == ["2"]


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
    assert sum(group.size for group in groups(Two(), inputs).groups) == 18
    assert sum(group.size for group in groups(Two(), left).groups) == 18


def test_tracing_takes_a_batch_of_two_as_one_argument() -> None:
    """With the batch spread over the arguments this model would run too, on another path."""

    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.other = networks.mlp(), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            return self.body(x) if y is None else self.other(x)

    assert sum(group.size for group in groups(Optional(), networks.batch(2, 6)).groups) == 18


def test_a_path_that_depends_on_the_values_is_followed_on_the_values() -> None:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = networks.mlp(), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(x) if float(x.abs().sum()) > 0 else self.other(x)

    assert sum(group.size for group in groups(Chooses(), networks.batch(2, 6)).groups) == 18


def test_frozen_networks_are_shrunk_and_stay_frozen() -> None:
    model = networks.seeded(networks.cnn).requires_grad_(False)
    found = groups(model, networks.batch(*IMAGE))
    shrunk, _ = removals.halves(found, model, removals.drawn(found))
    assert not any(parameter.requires_grad for parameter in shrunk.parameters())
    assert isinstance(shrunk.get_parameter("0.weight"), nn.Parameter)


@pytest.mark.parametrize("name", ["cnn", "convnext block", "class token and positions"])
def test_the_users_model_and_the_global_random_state_are_left_as_they_were(name: str) -> None:
    model, x = case(name)
    model.train()
    parameter = next(model.parameters())
    parameter.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    groups(model, x)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not parameter.requires_grad
    assert all(p.grad is None and not p._backward_hooks for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())


def test_the_same_groups_are_found_every_time() -> None:
    model, x = case("convnext block")
    first, second = groups(model, x), groups(model, x)
    assert [group.name for group in first.groups] == [group.name for group in second.groups]
    for one, other in zip(first.groups, second.groups, strict=True):
        for a, b in zip(one.slices, other.slices, strict=True):
            assert (a.tensor, a.dim, a.role) == (b.tensor, b.dim, b.role)
            assert torch.equal(a.positions, b.positions)
            assert torch.equal(a.units, b.units)


class Endless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while True:
            x = x + 0
        return self.layer(x)


@pytest.mark.parametrize("place", ["main thread", "another thread"])
def test_a_search_that_never_ends_is_stopped(place: str) -> None:
    caught: list[GraphTimeout] = []

    def search() -> None:
        with pytest.raises(GraphTimeout) as info:
            graph.groups(Endless(), networks.batch(*ROW), 0.5)
        caught.append(info.value)

    start = time.monotonic()
    if place == "main thread":
        search()
    else:
        thread = threading.Thread(target=search)
        thread.start()
        thread.join()
    assert time.monotonic() - start < 5
    assert caught[0].cause == "self-check V9: the dependency graph of the network took longer than 0.5 s"
    assert isinstance(caught[0], PruningError)


def test_a_gated_units_value_goes_with_its_gate() -> None:
    model, x = case("gated unit")
    (group,) = groups(model, x).groups
    held = {(entry.tensor, entry.dim): entry.positions[entry.units == 2].tolist() for entry in group.slices}
    assert group.size == 6
    assert held == {("both.weight", 0): [2, 8], ("both.bias", 0): [2, 8], ("head.weight", 1): [2]}


def test_a_llama_of_one_layer_ends_at_once() -> None:
    """``get_pruning_group`` of Torch-Pruning 1.6.1 never ends on it: its lists of positions grow without bound."""
    transformers = pytest.importorskip("transformers", reason="needs the llm extra")
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        model = transformers.LlamaForCausalLM(config).eval()
    x = {"input_ids": torch.arange(8).reshape(1, 8)}
    found = graph.groups(model, x, 30.0)
    assert removals.unexplained(found, model) <= {"lm_head"}
    shrunk, masked = removals.halves(found, model, removals.drawn(found))
    with torch.no_grad():
        assert relative(shrunk(**x).logits, masked(**x).logits) < 1e-5


STEPS = st.lists(
    st.tuples(
        st.sampled_from(networks.Spelled.KINDS),
        st.integers(0, 6),
        st.integers(0, 6),
        st.sampled_from([4, 6, 8]),
        st.sampled_from([1, 1, 2, 4]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(steps=STEPS, seed=st.integers(0, 3), ratio=st.sampled_from([0.2, 0.5, 0.7]))
def test_of_any_network_the_shrunk_one_computes_what_the_masked_one_does(
    steps: list[tuple[str, int, int, int, int]], seed: int, ratio: float
) -> None:
    model = networks.seeded(lambda: networks.Spelled(steps), seed).double().eval()
    x = networks.batch(2, 3, 4, 4).double()
    found = groups(model, x)
    assert removals.unexplained(found, model) <= {"head"}
    generator = torch.Generator().manual_seed(seed)
    lost = {
        group.name: torch.randperm(group.size, generator=generator)[: int(group.size * ratio)].tolist()
        for group in found.groups
    }
    if any(lost.values()):
        shrunk, masked = removals.halves(found, model, lost)
        assert torch.allclose(answer(shrunk, x), answer(masked, x), rtol=1e-9, atol=1e-9)
