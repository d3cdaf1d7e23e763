"""torchvision's networks: 30 % of all channels go, and what is left computes what the masked network does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import networks
import pytest
import removals
import torch
from removals import answer, relative
from torch import nn

from pruneproof import graph, profile
from pruneproof.errors import PruningError

models = pytest.importorskip("torchvision.models", reason="reads torchvision's networks")


def convnext() -> nn.Module:
    """ConvNeXt as torchvision builds it, narrower."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, 48, 2), CNBlockConfig(48, None, 2)], num_classes=10)


def densenet() -> nn.Module:
    return models.DenseNet(growth_rate=8, block_config=(2, 3, 2), num_init_features=16, num_classes=10)


def resnext() -> nn.Module:
    from torchvision.models.resnet import Bottleneck

    return models.ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10, groups=4, width_per_group=8)


NETWORKS: dict[str, Callable[[], Any]] = {
    "resnet18": lambda: models.resnet18(num_classes=10),
    "resnext": resnext,
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=10),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(num_classes=10),
    "efficientnet_b0": lambda: models.efficientnet_b0(num_classes=10),
    "convnext": convnext,
    "densenet": densenet,
    "squeezenet": lambda: models.squeezenet1_1(num_classes=10),
    "regnet": lambda: models.regnet_y_400mf(num_classes=10),
}
LAST = {
    **dict.fromkeys(("resnet18", "resnext", "regnet"), "fc"),
    **dict.fromkeys(("mobilenet_v2", "efficientnet_b0", "squeezenet"), "classifier.1"),
    "mobilenet_v3_small": "classifier.3",
    "convnext": "classifier.2",
    "densenet": "classifier",
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_three_tenths_of_its_channels_it_computes_what_the_masked_network_does(name: str) -> None:
    """In double precision: with random weights and statistics, float32 rounding adds up over fifty layers."""
    model = networks.seeded(NETWORKS[name]).double().eval()
    x = networks.batch(2, 3, 48, 48).double()
    found = graph.groups(model, x, 60.0)
    assert found.whole == ()
    assert removals.unexplained(found, model) == {LAST[name]}
    shrunk, masked = removals.halves(found, model, removals.drawn(found, 0.3, "global"))
    assert relative(answer(shrunk, x), answer(masked, x)) < 1e-5
    before, now = profile.macs(model, x[:1]), profile.macs(shrunk, x[:1])
    assert before is not None
    assert now is not None
    assert now < 0.95 * before


def test_of_a_vision_transformer_the_hidden_layers_shrink_and_the_stream_is_named() -> None:
    model = networks.seeded(
        lambda: models.VisionTransformer(16, 8, 2, 2, hidden_dim=16, mlp_dim=24, num_classes=10)
    ).eval()
    nn.init.normal_(model.get_parameter("heads.head.weight"))  # zero at first, so that every answer would be the same
    x = networks.batch(2, 3, 16, 16)
    found = graph.groups(model, x, 60.0)
    assert {group.name: group.size for group in found.groups} == {
        f"encoder.layers.encoder_layer_{i}.mlp.0": 24 for i in range(2)
    }
    assert "MultiheadAttention" in dict(found.whole)["conv_proj"]
    shrunk, masked = removals.halves(found, model, removals.drawn(found, 0.3, "global"))
    assert relative(answer(shrunk, x), answer(masked, x)) < 1e-5


def test_a_shuffling_network_is_refused() -> None:
    """Torch-Pruning's graph of it cannot be built."""
    model = networks.seeded(lambda: models.shufflenet_v2_x0_5(num_classes=10)).eval()
    with pytest.raises(PruningError, match="cannot be traced"):
        graph.groups(model, networks.batch(2, 3, 48, 48), 60.0)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet"])
def test_what_goes_with_a_channel_is_what_torch_prunings_own_graph_says(name: str) -> None:
    """An implementation that the groups are not taken from: its ``get_pruning_group``, which ends on these networks."""
    import torch_pruning as tp

    model, x = NETWORKS[name]().eval(), networks.batch(1, 3, 64, 64)
    theirs_graph = tp.DependencyGraph().build_dependency(model, x)
    names = {module: path for path, module in model.named_modules()}
    for group in graph.groups(model, x, 60).groups:
        for unit in {0, group.size // 2, group.size - 1}:
            ours = {
                (entry.tensor.rpartition(".")[0], entry.role == "reads", int(position))
                for entry in group.slices
                for position in entry.positions[entry.units == unit]
            }
            layer = model.get_submodule(group.name)
            own = (f"{group.name}.weight", "produces")
            first = next(entry for entry in group.slices if (entry.tensor, entry.role) == own)
            root = [int(position) for position in first.positions[first.units == unit]]
            theirs = {
                (
                    names[item.dep.target.module],
                    not theirs_graph.is_out_channel_pruning_fn(item.dep.handler),
                    int(position),
                )
                for item in theirs_graph.get_pruning_group(layer, tp.prune_conv_out_channels, root)
                if item.dep.target.module in names
                for position in item.idxs
            }
            assert ours == theirs, f"{group.name}, channel {unit}"
