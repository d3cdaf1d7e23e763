"""Residual blocks are found wherever networks keep them in a row, and nothing else is taken for one."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from networks import batch, cnn, seeded
from removing import both, removing
from torch import nn

from pruneproof import structure
from pruneproof.units import Found

IMAGES = batch(2, 3, 32, 32)


def found_in(model: nn.Module, inputs: object = IMAGES) -> Found:
    return structure.find(model, inputs, "block", 60.0)  # type: ignore[arg-type]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * other.abs().max())


def torchvision(name: str) -> nn.Module:
    models = pytest.importorskip("torchvision", reason="the networks are torchvision's").models
    if name == "vit":
        return models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=5
        )
    if name == "convnext":
        from torchvision.models.convnext import CNBlockConfig

        stages = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, 24, 3), CNBlockConfig(24, None, 1)]
        return models.ConvNeXt(stages, layer_scale=1.0, num_classes=5)
    if name == "swin":
        return models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [2, 2], num_classes=5)
    return getattr(models, name)(num_classes=5)


SIZES = {
    # He et al. 2015, table 1: 2, 2, 2, 2 blocks; the first of each stage but the first has a projection.
    "resnet18": {"layer1": 2, "layer2": 1, "layer3": 1, "layer4": 1},
    # Sandler et al. 2018, table 2: n = 1, 2, 3, 4, 3, 3, 1; the first of each sequence changes width or resolution.
    "mobilenet_v2": {"features": 0 + 1 + 2 + 3 + 2 + 2 + 0},
    # Howard et al. 2019, table 2: blocks of stride 1 with equal widths.
    "mobilenet_v3_small": {"features": 6},
    # Tan and Le 2019, table 1: L = 1, 2, 2, 3, 3, 4, 1.
    "efficientnet_b0": {"features.2": 1, "features.3": 1, "features.4": 2, "features.5": 2, "features.6": 3},
    "convnext": {"features.1": 2, "features.3": 3, "features.5": 1},
    "vit": {"encoder.layers": 3},
    "swin": {"features.1": 2, "features.3": 2},
}


@pytest.mark.parametrize("name", SIZES)
def test_the_blocks_of_torchvisions_networks_are_those_of_the_papers(name: str) -> None:
    model = seeded(lambda: torchvision(name)).eval()
    if name == "vit":
        nn.init.normal_(model.heads.head.weight, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]
    found = found_in(model)

    assert {group.name: group.size for group in found.groups} == SIZES[name]

    shrunk, masked = both(removing(model, found, {group.name: [group.size - 1] for group in found.groups}), model)
    with torch.no_grad():
        assert close(shrunk(IMAGES), masked(IMAGES))
        assert not close(shrunk(IMAGES), model(IMAGES))


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_keeps_count_of_its_layers(norm_first: bool) -> None:
    def made() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first), 4
            )

    model = seeded(made).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():  # the layers are copies of one
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    inputs = {"src": batch(2, 5, 8), "src_key_padding_mask": torch.tensor([[False] * 4 + [True], [False] * 5])}
    found = found_in(model, inputs)
    plan = removing(model, found, {"layers": [0, 2]})
    shrunk, masked = both(plan, model)

    assert plan.blocks == ("layers.0", "layers.2")
    assert shrunk.num_layers == len(shrunk.layers) == 2  # type: ignore[arg-type]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert close(shrunk(**inputs), masked(**inputs))


class Part(nn.Module):
    """A block by what ``combine`` makes of its input and of what its layer makes of that."""

    def __init__(self, combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], width: int = 6) -> None:
        super().__init__()
        self.combine = combine
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.combine(x, self.inner(x))


def row(combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> nn.Module:
    return seeded(lambda: nn.Sequential(Part(combine), Part(combine), nn.Linear(6, 3)))


@pytest.mark.parametrize(
    "combine",
    [
        lambda x, y: x + y,
        lambda x, y: torch.relu(x + 0.5 * y),
        lambda x, y: nn.functional.layer_norm(x + y, (6,)),
        lambda x, y: y.add_(x),
        lambda x, y: x - y,
        lambda x, y: 0.1 * y + x.clone(),
    ],
    ids=["pre-norm", "activation after", "post-norm", "in place", "difference", "scaled"],
)
def test_a_block_that_adds_to_its_input_is_found(combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    found = found_in(row(combine), batch(4, 6))

    assert [(group.name, group.blocks) for group in found.groups] == [("", ("0", "1"))]


@pytest.mark.parametrize(
    "combine",
    [
        lambda x, y: y,
        lambda x, y: x * torch.sigmoid(y),
        lambda x, y: y + 1,
        lambda x, y: y + x.detach(),
        lambda x, y: y - x,
        lambda x, y: y + x @ torch.ones(6, 6),
    ],
    ids=["plain", "gate", "constant", "detached", "negative", "mixed"],
)
def test_a_block_that_does_not_is_left_whole(combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    found = found_in(row(combine), batch(4, 6))

    assert not found.groups
    assert found.whole == tuple((name, "its output is not its input plus something") for name in ("0", "1"))


def test_a_block_that_works_on_its_input_itself_is_left_whole() -> None:
    found = found_in(row(lambda x, y: x.add_(y)), batch(4, 6))

    assert not found.groups
    assert "in place" in dict(found.whole)["0"]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Part(lambda x, y: x + y) for _ in range(3))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.parts[1](self.parts[0](self.parts[0](x))))


def test_a_block_called_twice_or_never_is_left_whole() -> None:
    class Sound(Twice):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for part in self.parts:
                x = part(x)
            return self.head(x)

    found = found_in(seeded(Twice), batch(4, 6))

    assert dict(found.whole)["parts.0"] == "it is called 2 times"
    assert "takes no part" in dict(found.whole)["parts.2"]
    assert [group.size for group in found_in(seeded(Sound), batch(4, 6)).groups] == [3]


class ByPlace(nn.Module):
    """Scales each block by its place: without the first block the others move up."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Part(lambda x, y: x + y) for _ in range(3))
        self.scales = nn.ParameterList(torch.tensor(float(3 + i)) for i in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part, scale in zip(self.parts, self.scales, strict=False):
            x = part(x * scale)
        return x


class ByNumber(ByPlace):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index in range(3):
            x = self.parts[index](x)
        return x


@pytest.mark.parametrize(
    ("make", "reason"), [(ByPlace, "computes something else"), (ByNumber, "does not run: IndexError")]
)
def test_blocks_that_a_network_counts_are_left_whole(make: Callable[[], nn.Module], reason: str) -> None:
    found = found_in(seeded(make), batch(4, 6))

    assert not found.groups
    assert all(reason in dict(found.whole)[f"parts.{index}"] for index in range(3))


def test_a_block_that_changes_shape_or_type_is_left_whole() -> None:
    class Wide(Part):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    class Doubled(Part):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).double()

    def made() -> nn.Module:
        return nn.Sequential(Doubled(lambda x, y: x + y), Wide(lambda x, y: y, 4).double(), nn.Linear(4, 3).double())

    found = found_in(seeded(made), batch(4, 6))

    assert dict(found.whole) == {
        "0": "it changes the type of what it is given",
        "1": "it changes the shape of what it is given",
    }


def test_a_stage_of_blocks_is_not_itself_a_block() -> None:
    timm = pytest.importorskip("timm", reason="the network is timm's")
    model = seeded(lambda: timm.models.ConvNeXt(depths=(2, 1, 1, 2), dims=(8, 8, 16, 16), num_classes=3)).eval()

    found = found_in(model)

    assert {group.name: group.size for group in found.groups} == {
        f"stages.{stage}.blocks": depth for stage, depth in enumerate((2, 1, 1, 2))
    }


def test_a_network_without_blocks_says_so() -> None:
    found = found_in(seeded(cnn), batch(2, 3, 8, 8))

    assert found.whole == (("Sequential", "it has no residual blocks in a Sequential or ModuleList"),)


def test_a_network_of_transformers_without_a_rule_is_left_whole() -> None:
    transformers = pytest.importorskip("transformers", reason="the network is transformers'")
    config = transformers.DistilBertConfig(vocab_size=20, dim=16, hidden_dim=32, n_layers=3, n_heads=2)
    model = seeded(lambda: transformers.DistilBertModel(config))

    found = found_in(model, {"input_ids": torch.ones(2, 4, dtype=torch.int64)})

    assert found.whole == (
        ("DistilBertModel", "its sizes stand in the configuration of a network (distilbert) that there is no rule for"),
    )


def test_looking_leaves_the_network_and_the_random_state_as_they_were() -> None:
    def made() -> nn.Module:
        return nn.Sequential(
            Part(lambda x, y: nn.functional.dropout(x + y, 0.5, training=True)), nn.BatchNorm1d(6), Part(torch.add)
        )

    model = seeded(made).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()

    found_in(model, batch(4, 6))

    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
