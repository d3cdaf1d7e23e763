"""What criteria are shown: against numbers written out by hand, torch's own unfold, and convolutions of ones."""

from __future__ import annotations

import math
from typing import Any

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pruneproof import observations, prunable, signals, surgery
from pruneproof.criteria import batch_norm_scale, fisher, taylor_abs, taylor_squared, taylor_sum, wanda
from pruneproof.errors import PruningError, SubjectError
from pruneproof.signals import Signals
from pruneproof.subject import Data, Subject
from pruneproof.units import Group, Slices

ALL = {"gradients", "example_gradients", "inputs", "readings"}


def targets(n: int) -> torch.Tensor:
    return torch.arange(n) % 3


def collected(
    model: nn.Module, inputs: Any, needs: set[str], groups: tuple[Group, ...] = (), batch_size: int = 3, **data: Any
) -> Signals:
    n = len(inputs) if isinstance(inputs, torch.Tensor) else 4
    names = [] if groups else list(prunable.weights(model))
    examples = Data(inputs, **{"targets": targets(n), **data})
    loss = signals.loss_of(Subject(model, "classification", examples))
    return signals.collect(model, needs, examples, groups, names, loss, batch_size)


def slices(tensor: str, dim: int, role: Any, units: list[int], positions: list[int] | None = None) -> Slices:
    places = list(range(len(units))) if positions is None else positions
    return Slices(tensor, dim, role, torch.tensor(places), torch.tensor(units))


def linear(weight: list[list[float]]) -> nn.Linear:
    values = torch.tensor(weight)
    layer = nn.Linear(values.shape[1], values.shape[0], bias=False)
    layer.weight.data.copy_(values)
    return layer


# f(x) = v · relu(W x), squared error. With x1 = (1, 2): h = (5, 0), f = 5; x2 = (2, 1): h = (4, 1), f = 3.
# Targets 3 and 4: dL/df of each example is 2 (f - y) = 4 and -2.
HAND = Data(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([3.0, 4.0]))
W = [[1.0, 2.0], [1.0, -1.0]]
V = [[1.0, -1.0]]
G1_W, G2_W = [[4.0, 8.0], [0.0, 0.0]], [[-4.0, -2.0], [4.0, 2.0]]  # dL/df · v · 1[h > 0] · x
G1_V, G2_V = [[20.0, 0.0]], [[-8.0, -2.0]]  # dL/df · h
HIDDEN = Group(
    "0",
    2,
    (slices("0.weight", 0, "produces", [0, 1]), slices("2.weight", 1, "reads", [0, 1])),
)


def by_hand(needs: set[str], groups: tuple[Group, ...] = (), batch_size: int = 2) -> tuple[nn.Module, Signals]:
    model = nn.Sequential(linear(W), nn.ReLU(), linear(V))
    loss = signals.loss_of(Subject(model, "regression", HAND))
    names = [] if groups else ["0.weight", "2.weight"]
    return model, signals.collect(model, needs, HAND, groups, names, loss, batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_the_gradient_is_that_of_the_mean_loss_over_all_examples_as_computed_by_hand(batch_size: int) -> None:
    model, found = by_hand({"gradients", "example_gradients"}, batch_size=batch_size)
    assert found.gradients["0.weight"].tolist() == [[0.0, 3.0], [2.0, 1.0]]
    assert found.gradients["2.weight"].tolist() == [[6.0, -1.0]]
    assert found.squared_gradients["0.weight"].tolist() == [[16.0, 34.0], [8.0, 2.0]]
    assert found.squared_gradients["2.weight"].tolist() == [[232.0, 2.0]]
    layer = signals.layer_of("0.weight", model.get_parameter("0.weight"), found, 0)
    assert taylor_abs.elements(layer).tolist() == [[0.0, 6.0], [2.0, 1.0]]
    assert fisher.elements(layer).tolist() == [[8.0, 68.0], [4.0, 1.0]]


def test_taylor_and_fisher_of_units_are_as_computed_by_hand() -> None:
    model, found = by_hand({"gradients", "example_gradients"}, (HIDDEN,))
    units = signals.units_of(HIDDEN, dict(model.named_parameters()), found, 0)
    assert taylor_abs.units(units).tolist() == [6.0, 3.0]
    assert taylor_squared.units(units).tolist() == [36.0, 5.0]
    assert taylor_sum.units(units).tolist() == [6.0, 1.0]
    # Sums of w · g, example by example: 4 + 16 and -4 - 4; 0 and 4 - 2.
    assert found.example_products["0"].tolist() == [[20.0, 0.0], [-8.0, 2.0]]
    assert fisher.units(units).tolist() == [(400 + 64) / 4, 1.0]
    assert units.squared_gradients is not None
    assert units.squared_gradients.tolist() == [[16.0, 34.0], [8.0, 2.0]]


def test_wanda_multiplies_by_the_norm_of_what_each_column_was_given_as_computed_by_hand() -> None:
    model, found = by_hand({"inputs"})
    layers = [signals.layer_of(name, model.get_parameter(name), found, 0) for name in ("0.weight", "2.weight")]
    root = math.sqrt(5)
    assert wanda.elements(layers[0]).tolist() == [pytest.approx([root, 2 * root]), pytest.approx([root, root])]
    assert wanda.elements(layers[1]).tolist() == [pytest.approx([math.sqrt(41), 1.0])]


def test_readings_are_what_the_next_layer_is_given_as_computed_by_hand() -> None:
    _, found = by_hand({"readings"}, (HIDDEN,))
    assert found.zeros["0"].tolist() == [0.0, 0.5]
    assert found.activity["0"].tolist() == [4.5, 0.5]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from([0, 1, "same", "valid"]),
    st.integers(1, 2),
    st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
)
def test_input_norms_of_convolutions_are_those_of_a_convolution_by_ones(
    spatial: int, groups: int, kernel: int, stride: int, padding: Any, dilation: int, mode: str
) -> None:
    stride = 1 if padding == "same" else stride
    kinds = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
    layer = kinds[spatial - 1](4, 8, kernel, stride, padding, dilation, groups, padding_mode=mode)
    x = networks.batch(5, 4, *[6] * spatial)
    found = collected(layer, x, {"inputs"}, batch_size=2).input_norms["weight"]
    assert found.shape == layer.weight.shape
    # Its derivative by a weight is the sum of all that the weight is multiplied with: the layer itself says so.
    wide = type(layer)(4, 8, kernel, stride, padding, dilation, groups, bias=False, padding_mode=mode).double()
    wide(x.double().square()).sum().backward()
    assert wide.weight.grad is not None
    assert torch.allclose(found.double(), wide.weight.grad.sqrt(), rtol=1e-5)


def test_input_norms_and_hessians_are_those_of_torch_unfold() -> None:
    layer = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), groups=2)
    x = networks.batch(5, 4, 7, 8)
    columns = functional.unfold(x, (3, 2), (1, 2), (1, 2), (2, 1)).reshape(5, 2, 12, -1)
    found = collected(layer, x, {"inputs"}).input_norms["weight"]
    norms = columns.square().sum(dim=(0, 3)).sqrt()
    for output in range(6):
        assert torch.allclose(found[output].reshape(-1), norms[output // 3], rtol=1e-5)
    hessian = signals.hessian(nn.Sequential(layer), "0", Data(x), 2)
    products = torch.einsum("ngip,ngjp->gij", columns, columns) / (5 * columns.shape[3])
    assert torch.allclose(hessian, products, rtol=1e-4, atol=1e-6)


def test_a_hessian_of_a_weight_that_is_used_elsewhere_too_is_refused() -> None:
    model, data = networks.seeded(networks.TiedDecoder), Data(networks.batch(*networks.ROW))
    with pytest.raises(PruningError, match="outside of its layer's call"):
        signals.hessian(model, "encode", data, 2)
    assert observations.unseen_inputs(model, ["encode.weight", "head.weight"], data).keys() == {"encode.weight"}


def test_the_hessian_of_a_linear_layer_is_the_mean_over_examples_and_positions() -> None:
    x = networks.batch(4, 5, 6)
    flat = x.reshape(20, 6)
    assert torch.allclose(signals.hessian(nn.Sequential(nn.Linear(6, 2)), "0", Data(x), 3), flat.T @ flat / 20)


def test_a_layer_that_is_called_twice_is_seen_twice() -> None:
    model, x = networks.seeded(networks.Reused), networks.batch(*networks.ROW)
    first = torch.relu(model.enter(x))  # type: ignore[operator]
    second = torch.relu(model.again(first))  # type: ignore[operator]
    expected = (first.square().sum(0) + second.square().sum(0)).sqrt()
    found = collected(model, x, {"inputs"}).input_norms["again.weight"]
    assert all(torch.allclose(row, expected) for row in found)


def test_a_weight_that_two_layers_share_is_seen_in_both() -> None:
    model, x = networks.seeded(networks.Tied), networks.batch(*networks.ROW)
    first = torch.relu(model.enter(x))  # type: ignore[operator]
    second = torch.relu(model.first(first))  # type: ignore[operator]
    expected = (first.square().sum(0) + second.square().sum(0)).sqrt()
    found = collected(model, x, {"inputs"})
    assert not found.unseen
    assert all(torch.allclose(row, expected) for row in found.input_norms["first.weight"])


class Headed(nn.Module):
    """A language model's head, tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.spare = nn.Linear(6, 6)
        self.head = nn.Linear(6, 5)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x).mean(1))


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * 100)


@pytest.mark.parametrize(
    ("make", "shape", "unseen"),
    [
        (networks.Recurrent, (4, 5, 6), {"memory.weight_ih_l0": "LSTM", "memory.weight_hh_l0": "LSTM"}),
        (
            networks.Attentive,
            (4, 5, 6),
            {"attention.in_proj_weight": "MultiheadAttention", "attention.out_proj.weight": "without a call"},
        ),
        (networks.transposed, networks.IMAGE, {"2.weight": "ConvTranspose2d"}),
        (networks.TiedDecoder, networks.ROW, {"encode.weight": "outside of its layer's call, by matmul"}),
        (lambda: nn.Sequential(Scaled(6, 3)), networks.ROW, {"0.weight": "forward of its own"}),
    ],
)
def test_weights_whose_inputs_cannot_be_known_are_named_with_the_reason(
    make: Any, shape: tuple[int, ...], unseen: dict[str, str]
) -> None:
    model = networks.seeded(make)
    found = collected(model, networks.batch(*shape), {"inputs"})
    assert found.unseen.keys() == unseen.keys()
    assert all(reason in found.unseen[name] for name, reason in unseen.items())
    assert found.input_norms.keys() == set(prunable.weights(model)) - unseen.keys()


def test_an_encoder_layer_calls_its_feed_forward_layers_where_torch_would_fuse_them() -> None:
    model, x = networks.seeded(Encoder), networks.batch(4, 5, 8)
    seen = {f"encoder.layers.{layer}.linear{i}.weight" for layer in (0, 1) for i in (1, 2)}
    assert collected(model, x, {"inputs"}).input_norms.keys() == {*seen, "head.weight"}
    hidden = Group("hidden", 12, (slices("encoder.layers.0.linear2.weight", 1, "reads", list(range(12))),))
    assert not collected(model, x, {"readings"}, (hidden,)).unseen


def test_a_weight_shared_with_an_embedding_and_a_layer_that_is_not_reached_are_unseen() -> None:
    model = networks.seeded(Headed)
    examples = Data(torch.tensor([[0, 1], [2, 3]]))
    found = signals.collect(model, {"inputs"}, examples, (), ["head.weight", "spare.weight"], None, 2)
    assert "shared with embed.weight" in found.unseen["head.weight"]
    assert "not called" in found.unseen["spare.weight"]
    assert not found.input_norms


def test_torchscript_is_unseen_and_a_hessian_of_it_refused() -> None:
    scripted = torch.jit.script(networks.seeded(networks.mlp))
    found = collected(scripted, networks.batch(*networks.ROW), {"inputs", "gradients"})
    assert found.unseen.keys() == found.gradients.keys() == {"0.weight", "2.weight", "4.weight"}
    with pytest.raises(PruningError, match="TorchScript"):
        signals.hessian(scripted, "0", Data(networks.batch(*networks.ROW)), 2)


def test_a_linear_layer_stored_transposed_is_known() -> None:
    modeling = pytest.importorskip("transformers.pytorch_utils", reason="transformers' Conv1D")
    model = nn.Sequential(modeling.Conv1D(3, 6))
    x = networks.batch(*networks.ROW)
    found = collected(model, x, {"inputs"}).input_norms["0.weight"]
    assert found.shape == (6, 3)
    assert all(torch.allclose(column, x.square().sum(0).sqrt()) for column in found.T)
    assert torch.allclose(signals.hessian(model, "0", Data(x), 3)[0], x.T @ x / 4)
    group = Group("0", 3, (slices("0.weight", 0, "reads", [0, 0, 1, 1, 2, 2]),))
    activity = collected(model, x, {"readings"}, (group,)).activity["0"]
    assert torch.allclose(activity.float(), x.abs().mean(0).reshape(3, 2).mean(1))


def norms_group(size: int = 8) -> Group:
    return Group(
        "0",
        size,
        (
            slices("0.weight", 0, "produces", list(range(size))),
            slices("1.weight", 0, "follows", list(range(size))),
            slices("1.running_mean", 0, "follows", list(range(size))),
            slices("4.weight", 1, "reads", list(range(size))),
        ),
    )


def test_readings_of_a_convolution_are_averaged_over_examples_and_places() -> None:
    model, x = networks.seeded(networks.cnn), networks.batch(5, 3, 8, 8)
    found = collected(model, x, {"readings"}, (norms_group(),), batch_size=2)
    read = model.eval()[:4](x)  # type: ignore[index]
    assert torch.allclose(found.activity["0"].float(), read.abs().mean((0, 2, 3)), rtol=1e-5)
    assert torch.allclose(found.zeros["0"].float(), (read <= 0).float().mean((0, 2, 3)))


def test_of_a_grouped_convolution_one_position_reads_a_channel_of_every_group() -> None:
    model, x = networks.seeded(networks.grouped), networks.batch(4, 3, 8, 8)
    group = Group("0", 4, (slices("1.weight", 1, "reads", [0, 1, 2, 3]),))
    found = collected(model, x, {"readings"}, (group,))
    means = model[0](x).abs().mean((0, 2, 3))  # type: ignore[index]
    assert torch.allclose(found.activity["0"].float(), (means[:4] + means[4:]) / 2, rtol=1e-5)


def test_readings_are_averaged_over_the_positions_of_a_unit_and_over_readers() -> None:
    model, x = networks.seeded(networks.Auxiliary), networks.batch(*networks.ROW)
    units = [0, 0, 1, 1, 2, 2, 3, 3]
    group = Group("enter", 4, tuple(slices(f"{reader}.weight", 1, "reads", units) for reader in ("head", "other")))
    loss = signals.loss_of(Subject(model, "classification", Data(x)))
    found = signals.collect(model, {"readings"}, Data(x), (group,), (), loss, 4)
    read = torch.relu(model.enter(x)).abs().mean(0).reshape(4, 2).mean(1)  # type: ignore[operator]
    assert torch.allclose(found.activity["enter"].float(), read)


def test_a_group_that_no_layer_is_seen_to_read_is_named() -> None:
    model, x = networks.seeded(networks.Attentive), networks.batch(4, 5, 6)
    read_in_attention = Group("enter", 8, (slices("attention.in_proj_weight", 1, "reads", list(range(8))),))
    heads = Group("attention", 2, (slices("attention.out_proj.weight", 1, "reads", [0] * 4 + [1] * 4),))
    blocks = Group("layers", 1, blocks=("hidden",))
    found = collected(model, x, {"readings"}, (read_in_attention, heads, blocks))
    assert found.unseen.keys() == {"enter", "attention", "layers"}
    assert "MultiheadAttention" in found.unseen["enter"]
    assert "blocks" in found.unseen["layers"]


def reference(model: nn.Module, x: torch.Tensor, rows: slice) -> dict[str, torch.Tensor]:
    """Gradients of the mean loss over ``rows`` in one batch, by ``torch.autograd.grad``."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    output = model.eval()(x[rows])
    torch.backends.mha.set_fastpath_enabled(fast)
    loss = functional.cross_entropy(output, targets(len(x))[rows])
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).mean(1))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (networks.cnn, (5, 3, 8, 8)),
        (networks.Recurrent, (5, 4, 6)),
        (lambda: networks.Recurrent(nn.GRU), (5, 4, 6)),
        (Encoder, (5, 4, 8)),
        (networks.Tied, (5, 6)),
    ],
)
def test_frozen_parameters_get_gradients_all_the_same_in_any_network(make: Any, shape: tuple[int, ...]) -> None:
    model, x = networks.seeded(make), networks.batch(*shape)
    expected = reference(model, x, slice(None))
    alone = [reference(model, x, slice(i, i + 1)) for i in range(5)]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found = collected(model, x, {"gradients", "example_gradients"}, batch_size=2)
    assert not found.unseen
    assert set(found.gradients) == set(found.squared_gradients) == set(prunable.weights(model))
    for name, gradient in found.gradients.items():
        squares = torch.stack([single[name].square() for single in alone]).mean(0)
        assert torch.allclose(gradient, expected[name], rtol=1e-3, atol=1e-7)
        assert torch.allclose(found.squared_gradients[name], squares, rtol=1e-3, atol=1e-9)


def test_a_forward_pass_without_gradients_is_refused_and_a_detached_layer_named() -> None:
    x = networks.batch(*networks.ROW)
    with pytest.raises(PruningError, match="no gradient reaches any weight"):
        collected(networks.seeded(networks.Ungraded), x, {"gradients"})
    with pytest.raises(PruningError, match="no gradient reaches any weight"):
        collected(networks.seeded(networks.Ungraded), x, {"example_gradients"})
    found = collected(networks.seeded(networks.Detached), x, {"gradients", "inputs"})
    assert found.unseen.keys() == {"enter.weight"}
    assert "no gradient" in found.unseen["enter.weight"]


def test_a_network_that_detaches_everything_that_is_scored_is_refused() -> None:
    model = networks.seeded(networks.Detached)
    examples = Data(networks.batch(*networks.ROW), targets(4))
    loss = signals.loss_of(Subject(model, "classification", examples))
    for needs in ({"gradients"}, {"example_gradients"}):
        with pytest.raises(PruningError, match="no gradient"):
            signals.collect(model, needs, examples, (), ["enter.weight"], loss, 2)


def test_a_group_is_unseen_when_no_gradient_reaches_one_of_its_layers() -> None:
    model = networks.seeded(networks.Detached)
    enter = Group("enter", 8, (slices("enter.weight", 0, "produces", list(range(8))),))
    middle = Group("middle", 8, (slices("middle.weight", 0, "produces", list(range(8))),))
    found = collected(model, networks.batch(*networks.ROW), {"gradients"}, (enter, middle))
    assert found.unseen.keys() == {"enter"}


class Checkpointed(nn.Module):
    """One layer in two segments of reentrant checkpointing: its gradient comes in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 6)
        self.layer = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from torch.utils.checkpoint import checkpoint

        x = self.enter(x)
        for _ in range(2):
            x = torch.tanh(checkpoint(self.layer, x, use_reentrant=True))
        return self.head(x)


def test_gradients_that_come_in_parts_are_added_up_and_their_squares_refused() -> None:
    model, x = networks.seeded(Checkpointed), networks.batch(4, 6)
    found = collected(model, x, {"gradients"}, batch_size=4)
    hidden = torch.tanh(model.layer(model.enter(x)))  # type: ignore[operator]
    output = model.head(torch.tanh(model.layer(hidden)))  # type: ignore[operator]
    functional.cross_entropy(output, targets(4)).backward()
    expected = model.layer.weight.grad
    assert torch.allclose(found.gradients["layer.weight"], expected, rtol=1e-4, atol=1e-7)  # type: ignore[arg-type,union-attr]
    with pytest.raises(PruningError, match="several parts"):
        collected(model, x, {"example_gradients"})


class Breaking(nn.Module):
    """Raises at the second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = networks.mlp()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls % 2 == 0:
            raise ValueError("no second time")
        torch.rand(1)
        return self.drop(self.norm(self.inner(x)))


def state(model: nn.Module) -> list[Any]:
    modes = [module.training for module in model.modules()]
    hooks = [(len(module._forward_pre_hooks), len(module._forward_hooks)) for module in model.modules()]
    grads = [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()]
    waiting = [len(getattr(p, "_post_accumulate_grad_hooks", None) or ()) for p in model.parameters()]
    flags = [torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled, torch.is_grad_enabled()]
    values = [tensor.tolist() for tensor in model.state_dict().values()]
    return [modes, hooks, grads, waiting, flags, values, torch.get_rng_state().tolist()]


@pytest.mark.parametrize("needs", [{"gradients"}, {"example_gradients"}, {"inputs"}, {"readings"}])
def test_the_model_is_left_as_it_was_also_when_it_raises_in_the_middle(needs: set[str]) -> None:
    model = networks.seeded(Breaking)
    model.train()
    model.drop.eval()
    model.inner[0].weight.requires_grad_(False)  # type: ignore[index]
    model.inner[2].weight.grad = torch.ones(10, 8)  # type: ignore[index]
    group = Group(
        "inner.0",
        8,
        (slices("inner.0.weight", 0, "produces", list(range(8))), slices("inner.2.weight", 1, "reads", list(range(8)))),
    )
    groups = (group,) if "readings" in needs else ()
    assert torch.backends.mha.get_fastpath_enabled()
    before = state(model)
    with pytest.raises(PruningError, match="ValueError: no second time"):
        collected(model, networks.batch(*networks.ROW), needs, groups, batch_size=2)
    assert state(model) == before
    model.calls = -1_000_000  # goes well at once
    collected(model, networks.batch(1, 6), needs, groups, batch_size=2)
    assert state(model) == before


def test_examples_without_targets_and_losses_that_are_not_finite_are_refused() -> None:
    model, x = networks.seeded(networks.mlp), networks.batch(*networks.ROW)
    with pytest.raises(SubjectError, match="no targets"):
        collected(model, x, {"gradients"}, targets=None)
    with pytest.raises(SubjectError, match="4 examples and 3 targets"):
        collected(model, x, {"gradients"}, targets=targets(3))
    with pytest.raises(PruningError, match="NaN or infinite"):
        collected(model, x * torch.inf, {"gradients"})
    with pytest.raises(PruningError, match=r"0\.weight: its inputs hold NaN"):
        collected(model, x * torch.inf, {"inputs"})
    with pytest.raises(PruningError, match="NaN or infinity"):
        signals.hessian(model, "0", Data(x * torch.nan), 2)
    assert collected(model, x, {"inputs"}, targets=None).input_norms.keys() == {"0.weight", "2.weight", "4.weight"}


class Rooted(nn.Module):
    """Its loss is finite where its gradient is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).abs().sqrt()


@pytest.mark.parametrize("needs", [{"gradients"}, {"example_gradients"}])
def test_gradients_that_are_not_finite_are_refused_by_name(needs: set[str]) -> None:
    with pytest.raises(PruningError, match=r"the gradient of layer\.weight holds NaN"):
        collected(Rooted(), networks.batch(*networks.ROW), needs)


class Pairs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        if i >= len(self.x):
            raise IndexError
        return self.x[i], int(targets(len(self.x))[i])


def test_every_form_of_data_gives_the_same_gradients() -> None:
    model, x = networks.seeded(networks.mlp), networks.batch(*networks.ROW)
    expected = collected(model, x, {"gradients"}).gradients["0.weight"]
    for inputs, labels in [((x,), targets(4)), ({"input": x}, targets(4).tolist()), (Pairs(x), None)]:
        found = collected(model, inputs, {"gradients"}, targets=labels).gradients["0.weight"]
        assert torch.equal(found, expected)


def test_the_default_loss_is_that_of_the_task() -> None:
    logits, labels = networks.batch(4, 3), targets(4)
    subject = Subject(nn.Identity(), "classification", Data(logits))
    assert signals.loss_of(subject)((logits, None), labels) == functional.cross_entropy(logits, labels)
    one, binary = networks.batch(4, 1), torch.tensor([0, 1, 1, 0])
    p = torch.sigmoid(one[:, 0])
    expected = -torch.where(binary == 1, p.log(), (1 - p).log()).mean()
    assert signals.loss_of(subject)(one, binary) == pytest.approx(float(expected))
    regression = Subject(nn.Identity(), "regression", Data(logits))
    assert signals.loss_of(regression)(one, binary) == pytest.approx(float((one[:, 0] - binary).square().mean()))
    own = Subject(nn.Identity(), "regression", Data(logits), loss=lambda output, wanted: output.sum())
    assert signals.loss_of(own)(one, binary) == one.sum()
    with pytest.raises(SubjectError, match="Subject"):
        signals.loss_of(subject)(networks.batch(4, 5, 7), labels)


def test_units_hold_every_coupled_weight_and_leave_out_those_that_are_gone() -> None:
    first, second = torch.arange(8.0).reshape(4, 2), 10 * torch.arange(4.0).reshape(1, 4)
    group = Group("g", 2, (slices("a", 0, "produces", [0, 1, 0, 1]), slices("b", 1, "produces", [1, 1, 0, 0])))
    tensors = {"a": first, "b": second}
    shown = signals.units_of(group, tensors, Signals(movement=tensors), 0)
    assert shown.weights.tolist() == [[0, 1, 4, 5, 20, 30], [2, 3, 6, 7, 0, 10]]
    assert torch.equal(shown.movement, shown.weights)  # type: ignore[arg-type]
    seen = Signals(zeros={"g": torch.tensor([0.1, 0.2])}, example_products={"g": torch.tensor([[1.0, 2.0]])})
    left = signals.units_of(group, tensors, seen, 0, torch.tensor([False, True]))
    assert left.weights.tolist() == [[2, 3, 6, 7, 0, 10]]
    assert left.zeros is not None
    assert left.zeros.tolist() == pytest.approx([0.2])
    assert left.example_products is not None
    assert left.example_products.tolist() == [[2.0]]
    assert left.gradients is None


def test_units_of_unequal_size_are_refused() -> None:
    group = Group("g", 2, (slices("a", 0, "produces", [0, 1, 1]),))
    with pytest.raises(PruningError, match="g: its units have different numbers"):
        signals.units_of(group, {"a": torch.ones(3, 2)}, Signals(), 0)


def test_the_scale_is_that_of_batch_norms_alone_on_average() -> None:
    model = networks.seeded(networks.cnn)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    shown = signals.units_of(norms_group(), tensors, Signals(), 0)
    assert torch.allclose(batch_norm_scale.units(shown).float(), model[1].weight.abs())  # type: ignore[index,operator,arg-type]
    layer_norm = Group("0", 8, norms_group().slices[:2])
    assert signals.units_of(layer_norm, tensors, Signals(), 0).scale is None


def test_generators_depend_on_seed_and_name_alone() -> None:
    weight = torch.ones(3)

    def draw(seed: int, name: str) -> float:
        generator = signals.layer_of(name, weight, Signals(), seed).generator
        return float(torch.rand(1, generator=generator))

    assert draw(0, "a") == draw(0, "a")
    assert len({draw(seed, name) for seed in (0, 1) for name in ("a", "b")}) == 4


def test_a_block_is_one_row_of_its_layers_weights_with_what_was_seen_of_them() -> None:
    model, x = networks.seeded(Encoder), networks.batch(5, 4, 8)
    group = Group("encoder.layers", 2, blocks=("encoder.layers.0", "encoder.layers.1"))
    found = collected(model, x, {"gradients", "example_gradients"}, (group,))
    assert not found.unseen
    names = [name for name in prunable.weights(model) if name.startswith("encoder.layers.1.")]
    expected = reference(model, x, slice(None))
    alone = [reference(model, x, slice(i, i + 1)) for i in range(5)]
    weights = torch.cat([model.get_parameter(name).reshape(-1) for name in names]).detach()
    units = signals.block_units(model, group, 1, found, 0)
    assert units.weights.tolist() == [weights.tolist()]
    assert units.gradients is not None
    assert units.example_products is not None
    assert torch.allclose(units.gradients[0], torch.cat([expected[name].reshape(-1) for name in names]), atol=1e-6)
    products = [sum(float((model.get_parameter(n).detach() * single[n]).sum()) for n in names) for single in alone]
    assert units.example_products[:, 0].tolist() == pytest.approx(products, rel=1e-3, abs=1e-6)


def test_blocks_that_were_left_out_do_not_hide_those_that_stay() -> None:
    model, x = networks.seeded(Encoder), networks.batch(5, 4, 8)
    surgery.bypass(model.encoder.layers[0])  # type: ignore[arg-type,index,union-attr]
    group = Group("encoder.layers", 2, blocks=("encoder.layers.0", "encoder.layers.1"))
    found = collected(model, x, {"gradients", "example_gradients"}, (group,))
    assert not found.unseen
    stays = signals.block_units(model, group, 1, found, 0)
    assert float(fisher.units(stays)) > 0
    gone = signals.block_units(model, group, 0, found, 0)
    for criterion in (fisher, taylor_abs):
        with pytest.raises(PruningError, match=r"encoder\.layers\.0: "):
            criterion.units(gone)


def test_a_block_in_a_network_that_no_gradient_reaches_is_unseen() -> None:
    model = networks.seeded(networks.Detached)
    found = collected(
        model,
        networks.batch(*networks.ROW),
        {"gradients"},
        (Group("g", 1, blocks=("enter",)), Group("h", 1, blocks=("middle",))),
    )
    assert found.unseen.keys() == {"g"}
