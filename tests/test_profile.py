"""Costs against closed forms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import networks
import plans
import pytest
import torch
from safetensors.torch import load
from torch import nn

from pruneproof import profile

TIME, WIDTH, HIDDEN = 4, 5, 7


@pytest.mark.parametrize(
    ("make", "shape", "macs"),
    [
        (lambda: nn.Linear(6, 8), (1, 6), 6 * 8),
        (lambda: nn.Linear(6, 8, bias=False), (1, 3, 6), 3 * 6 * 8),
        (networks.mlp, (1, 6), 6 * 8 + 8 * 10 + 10 * 3),
        (lambda: nn.Conv1d(2, 4, 3, stride=2), (1, 2, 9), 4 * (4 * 2 * 3)),
        (lambda: nn.Conv2d(2, 4, 3), (1, 2, 5, 7), 3 * 5 * (4 * 2 * 9)),
        (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (1, 4, 5, 5), 25 * (4 * 9)),
        (lambda: nn.Conv3d(2, 3, 2), (1, 2, 3, 3, 3), 8 * (3 * 2 * 8)),
        (lambda: nn.ConvTranspose2d(2, 4, 3), (1, 2, 5, 5), 25 * (2 * 4 * 9)),
        (networks.cnn, (1, 3, 8, 8), 64 * (8 * 27) + 16 * (12 * 72) + 48 * 16 + 16 * 3),
    ],
)
def test_macs_of_linear_and_convolutional_layers(
    make: Callable[[], nn.Module], shape: tuple[int, ...], macs: int
) -> None:
    assert profile.macs(make(), torch.zeros(shape)) == macs


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_macs_of_recurrent_layers(kind: type[nn.RNNBase], gates: int) -> None:
    x = torch.zeros(1, TIME, WIDTH)
    one = TIME * gates * HIDDEN * (WIDTH + HIDDEN)
    assert profile.macs(kind(WIDTH, HIDDEN, batch_first=True), x) == one
    both = kind(WIDTH, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
    second = TIME * gates * HIDDEN * (2 * HIDDEN + HIDDEN)
    assert profile.macs(both, x) == 2 * one + 2 * second


@pytest.mark.parametrize("training", [True, False])
def test_macs_of_a_transformer_layer(training: bool) -> None:
    d, ff, t = 8, 16, 5
    layer = nn.TransformerEncoderLayer(d, 2, ff, batch_first=True).train(training)
    projections, products, feed_forward = t * d * 4 * d, 2 * t * t * d, 2 * t * d * ff
    assert profile.macs(layer, torch.zeros(1, t, d)) == projections + products + feed_forward


def test_macs_count_zeros_and_fall_when_channels_go() -> None:
    model, x = networks.seeded(networks.mlp), networks.batch(2, 6)

    def pruned(granularity: str) -> nn.Module:
        return plans.pruned(model, x, granularity=granularity, scope="layer")

    assert profile.macs(pruned("element"), x[:1]) == 158
    assert profile.macs(pruned("channel"), x[:1]) == 6 * 4 + 4 * 5 + 5 * 3


def test_macs_are_the_same_for_torchscript_and_for_mappings() -> None:
    with warnings.catch_warnings(action="ignore"):
        compiled = torch.jit.script(networks.mlp())
    assert profile.macs(compiled, torch.zeros(1, 6)) == 158
    assert profile.macs(nn.Linear(6, 3), {"input": torch.zeros(1, 6)}) == 18


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")


@pytest.mark.parametrize("model", [networks.mlp(), Failing()])
def test_counting_leaves_settings_modes_and_gradients_as_they_were(model: nn.Module) -> None:
    def settings() -> list[Any]:
        return [
            torch.backends.mha.get_fastpath_enabled(),
            torch._C._get_mkldnn_enabled(),
            torch.backends.cudnn.enabled,
            torch.is_grad_enabled(),
            warnings.filters[:],
            [module.training for module in model.modules()],
            [parameter.grad for parameter in model.parameters()],
        ]

    before = settings()
    found = profile.macs(model, torch.zeros(1, 6))
    assert settings() == before
    assert (found is None) == isinstance(model, Failing)


def test_counting_lets_no_warning_out() -> None:
    class Warns(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            warnings.warn("mine", stacklevel=1)
            return x @ x.mT

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert profile.macs(Warns(), torch.zeros(1, 2, 3)) == 12
    assert caught == []


def test_a_fast_path_that_was_off_stays_off() -> None:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        profile.macs(networks.mlp(), torch.zeros(1, 6))
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_parameters_are_counted_once_and_zeros_apart() -> None:
    model = networks.Tied()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
        model.get_parameter("enter.weight")[0] = 0
    total = (48 + 8) + 64 + 8 + 8 + (24 + 3)
    assert profile.parameters(model) == (total, total - 6)


def test_the_file_holds_every_tensor_and_a_shared_one_once() -> None:
    model = networks.Tied()
    found = load(profile.serialised(model))
    assert set(model.state_dict()) - set(found) == {"second.weight"}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.items())
    small, large = len(profile.serialised(nn.Linear(10, 10))), len(profile.serialised(nn.Linear(10, 20)))
    assert 0 <= large - small - 4 * (10 * 10 + 10) < 32


def test_views_and_dtypes_survive_the_file() -> None:
    model = nn.Module()
    model.register_buffer("mask", torch.tensor([True, False]))
    model.register_buffer("wide", torch.arange(6.0).reshape(2, 3).T)
    model.register_buffer("narrow", torch.ones(3, dtype=torch.bfloat16))
    model.register_buffer("none", torch.empty(0))
    model.register_buffer("also_none", torch.empty(0, 2))
    found = load(profile.serialised(model))
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in model.state_dict().items()
    }
    assert torch.equal(found["wide"], model.get_buffer("wide"))
