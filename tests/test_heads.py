"""Attention layers that lost heads compute what torch's own do when nothing reads those heads."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Attentive, batch, mlp, seeded
from removing import both, removing
from torch import nn

from pruneproof import attention, structure, surgery
from pruneproof.attention import HeadPrunedMultiheadAttention
from pruneproof.errors import PruningError

WIDTH, HEADS, DIM = 12, 4, 3
unhurried = settings(deadline=None, max_examples=60)
"""A shared machine may pause in the middle of an example."""


def layer(**options: Any) -> nn.MultiheadAttention:
    made = seeded(lambda: nn.MultiheadAttention(WIDTH, HEADS, **options)).eval()
    assert isinstance(made, nn.MultiheadAttention)
    if made.in_proj_bias is not None:  # zero as torch makes them
        with torch.no_grad():
            made.in_proj_bias.copy_(batch(3 * WIDTH, seed=7))
            made.out_proj.bias.copy_(batch(WIDTH, seed=8))
    return made


def rows(kept: list[int]) -> torch.Tensor:
    return torch.cat([torch.arange(DIM) + head * DIM for head in kept])


def cut(dense: nn.MultiheadAttention, kept: list[int]) -> nn.MultiheadAttention:
    """A copy with the tensors of the heads ``kept`` alone, cut by hand."""
    small, stay = copy.deepcopy(dense), rows(kept)
    if small.in_proj_weight is not None:
        packed = torch.cat([stay, WIDTH + stay, 2 * WIDTH + stay])
        small.in_proj_weight = nn.Parameter(dense.in_proj_weight.detach()[packed])
    else:
        for name in attention.QKV:
            setattr(small, name, nn.Parameter(getattr(dense, name).detach()[stay]))
    if small.in_proj_bias is not None:
        packed = torch.cat([stay, WIDTH + stay, 2 * WIDTH + stay])
        small.in_proj_bias = nn.Parameter(dense.in_proj_bias.detach()[packed])
    small.out_proj.weight = nn.Parameter(dense.out_proj.weight.detach()[:, stay])
    attention.narrow(small)
    return small


def unread(dense: nn.MultiheadAttention, kept: list[int]) -> nn.MultiheadAttention:
    """A copy of full size, torch's own class, whose output reads the heads ``kept`` alone."""
    wide = copy.deepcopy(dense)
    gone = torch.ones(WIDTH, dtype=torch.bool)
    gone[rows(kept)] = False
    with torch.no_grad():
        wide.out_proj.weight[:, gone] = 0
    return wide


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    one, other = one.detach(), other.detach()
    return one.shape == other.shape and bool((one - other).abs().max() <= 1e-5 * max(1.0, float(other.abs().max())))


@st.composite
def calls(draw: st.DrawFn) -> tuple[dict[str, Any], list[int], tuple[torch.Tensor, ...], dict[str, Any]]:
    """Options of the layer, the heads that stay, query, key and value, and options of the call."""
    kept = sorted(draw(st.sets(st.integers(0, HEADS - 1), min_size=1, max_size=HEADS - 1)))
    options: dict[str, Any] = {"batch_first": draw(st.booleans()), "bias": draw(st.booleans())}
    self_attention = draw(st.booleans())
    kdim, vdim = (WIDTH, WIDTH) if self_attention else draw(st.sampled_from([(WIDTH, WIDTH), (5, 7), (WIDTH, 7)]))
    options |= {"kdim": kdim, "vdim": vdim}
    target = draw(st.integers(1, 4))
    source = target if self_attention else draw(st.integers(1, 4))
    batched, n = draw(st.booleans()), 2

    def part(length: int, width: int, seed: int) -> torch.Tensor:
        whole = batch(n, length, width, seed=seed)
        return whole[0] if not batched else whole if options["batch_first"] else whole.transpose(0, 1)

    query = part(target, WIDTH, 1)
    parts = (query,) * 3 if self_attention else (query, part(source, kdim, 2), part(source, vdim, 3))
    call: dict[str, Any] = {"need_weights": draw(st.booleans()), "average_attn_weights": draw(st.booleans())}
    if draw(st.booleans()):
        padding = torch.zeros((n, source) if batched else (source,), dtype=torch.bool)
        padding[..., 1:] = draw(st.booleans())
        call["key_padding_mask"] = padding
    kind = draw(st.sampled_from(["none", "bool", "float", "per head"]))
    later = torch.ones(target, source, dtype=torch.bool).triu(1)
    if kind == "bool":
        call["attn_mask"] = later
    elif kind == "float":
        call["attn_mask"] = batch(target, source, seed=4)
        if "key_padding_mask" in call:
            call["key_padding_mask"] = torch.zeros_like(call["key_padding_mask"], dtype=torch.float).masked_fill_(
                call["key_padding_mask"], -torch.inf
            )
    elif kind == "per head":
        call["attn_mask"] = "per head"
    return options, kept, parts, call


@unhurried
@given(calls())
def test_fewer_heads_compute_what_torch_computes_when_nothing_reads_the_others(
    case: tuple[dict[str, Any], list[int], tuple[torch.Tensor, ...], dict[str, Any]],
) -> None:
    options, kept, parts, call = case
    dense = layer(**options)
    small_call, wide_call = dict(call), {**call, "average_attn_weights": False}
    if call.get("attn_mask") == "per head":
        n = parts[0].shape[0 if options["batch_first"] else 1] if parts[0].dim() == 3 else 1
        length = [part.shape[-2] if options["batch_first"] or part.dim() == 2 else len(part) for part in parts]
        mask = batch(n, HEADS, length[0], length[1], seed=5)
        wide_call["attn_mask"] = mask.flatten(0, 1)
        small_call["attn_mask"] = mask[:, kept].flatten(0, 1)
        for some in (small_call, wide_call):
            if "key_padding_mask" in some:
                padding = some["key_padding_mask"]
                some["key_padding_mask"] = torch.zeros_like(padding, dtype=torch.float).masked_fill_(padding, -1e9)

    small, weights = cut(dense, kept)(*parts, **small_call)
    wide, all_weights = unread(dense, kept)(*parts, **wide_call)

    assert same(small, wide)
    if call["need_weights"]:
        expected = all_weights[..., kept, :, :]
        assert same(weights, expected.mean(-3) if call["average_attn_weights"] else expected)
    else:
        assert weights is None


def test_gradients_are_those_of_torch_on_what_stays() -> None:
    dense, kept, x = layer(batch_first=True), [1, 3], batch(2, 5, WIDTH)
    small, wide = cut(dense, kept).train(), unread(dense, kept).train()

    for module in (small, wide):
        module(x, x, x, need_weights=False)[0].square().sum().backward()

    stay = rows(kept)
    assert small.out_proj.weight.grad is not None
    assert wide.out_proj.weight.grad is not None
    assert same(small.out_proj.weight.grad, wide.out_proj.weight.grad[:, stay])
    packed = torch.cat([stay, WIDTH + stay, 2 * WIDTH + stay])
    assert same(small.in_proj_weight.grad, wide.in_proj_weight.grad[packed])


def test_dropout_acts_on_the_weights_in_training_and_not_in_eval() -> None:
    small, x = cut(layer(batch_first=True, dropout=0.5), [0, 2]), batch(2, 5, WIDTH)

    plain = small(x, x, x, average_attn_weights=False)[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = small.train()(x, x, x, average_attn_weights=False)[1]

    zero = dropped == 0
    assert 0 < zero.sum() < zero.numel()
    assert same(dropped[~zero], 2 * plain[~zero])  # inverted dropout: 1 / (1 - p)


def test_a_causal_hint_without_a_mask_is_refused_as_torch_does() -> None:
    small, x = cut(layer(), [0]), batch(5, 2, WIDTH)

    with pytest.raises(RuntimeError):
        layer()(x, x, x, is_causal=True)
    with pytest.raises(RuntimeError, match="attn_mask"):
        small(x, x, x, is_causal=True)


def test_masks_of_another_shape_are_refused() -> None:
    small, x = cut(layer(batch_first=True), [0, 1]), batch(2, 5, WIDTH)

    with pytest.raises(RuntimeError, match="attn_mask"):
        small(x, x, x, attn_mask=torch.zeros(2 * HEADS, 5, 5))
    with pytest.raises(RuntimeError, match="key_padding_mask"):
        small(x, x, x, key_padding_mask=torch.zeros(5, 2, dtype=torch.bool))


def test_a_copy_and_a_loaded_state_compute_the_same() -> None:
    small, x = cut(layer(), [0, 3]), batch(5, 2, WIDTH)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)

    copied, other = copy.deepcopy(small), cut(seeded(layer, 4), [1, 2])  # type: ignore[arg-type]
    other.load_state_dict(torch.load(file, weights_only=True))

    assert torch.equal(copied(x, x, x)[0], small(x, x, x)[0])
    assert torch.equal(other(x, x, x)[0], small(x, x, x)[0])


def test_heads_can_be_cut_from_what_was_cut_before() -> None:
    dense, x = layer(), batch(5, 2, WIDTH)
    small = cut(dense, [0, 1, 3])
    found = attention.heads(small)

    again = surgery.apply(removing(small, found, {"": [1]}), small)

    assert found.groups[0].size == 3
    assert same(again(x, x, x)[0], cut(dense, [0, 3])(x, x, x)[0])


def test_half_a_head_cannot_be_cut() -> None:
    dense = layer()
    dense.in_proj_weight = nn.Parameter(dense.in_proj_weight.detach()[: 3 * 4])
    dense.in_proj_bias = nn.Parameter(dense.in_proj_bias.detach()[: 3 * 4])
    dense.out_proj.weight = nn.Parameter(dense.out_proj.weight.detach()[:, :4])

    with pytest.raises(PruningError, match="heads of 3 was left with 12 rows and 4 columns"):
        attention.narrow(dense)


def test_rows_cut_without_the_columns_that_read_them_are_caught() -> None:
    dense = layer(bias=False)
    dense.in_proj_weight = nn.Parameter(dense.in_proj_weight.detach()[: 3 * DIM])

    with pytest.raises(PruningError, match="left with 9 rows and 12 columns"):
        attention.narrow(dense)


def encoder(nested: bool = True, heads: int = HEADS, **options: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = nn.TransformerEncoderLayer(WIDTH, heads, 16, batch_first=True, **options)
        return nn.TransformerEncoder(one, 3, enable_nested_tensor=nested)


def varied(make: Callable[[], nn.Module]) -> nn.Module:
    """The layers of an encoder are copies of one; here each has weights of its own."""
    model, generator = seeded(make), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


PADDED = {
    "src": batch(2, 5, WIDTH),
    "src_key_padding_mask": torch.tensor([[False, False, False, True, True], [False] * 5]),
}


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu", "heads": 6}, {"bias": False}])
@pytest.mark.parametrize(
    "gone",
    [
        {"layers.0.self_attn": [0, 2], "layers.1.self_attn": [1], "layers.2.self_attn": [0, 1]},
        {"layers.0.self_attn": [3]},
        {"layers.2.self_attn": [0, 1]},
    ],
)
@pytest.mark.parametrize("gradients", [True, False])
def test_a_padded_encoder_is_torchs_own_fused_one_with_unread_heads(
    nested: bool, options: dict[str, Any], gone: dict[str, list[int]], gradients: bool
) -> None:
    model = varied(lambda: encoder(nested, **options))
    shrunk, masked = both(removing(model, structure.find(model, PADDED, "head", 60.0), gone), model)

    with torch.set_grad_enabled(gradients):
        assert same(shrunk(**PADDED), masked(**PADDED))  # padded positions too: the fused kernels make them zero
        assert not same(shrunk(**PADDED), model(**PADDED))
    assert type(shrunk.get_submodule(next(iter(gone)))) is HeadPrunedMultiheadAttention


def test_a_causal_encoder_stays_causal() -> None:
    model = varied(encoder)
    found = structure.find(model, PADDED, "head", 60.0)
    shrunk, masked = both(removing(model, found, {"layers.1.self_attn": [0, 1]}), model)
    mask = nn.Transformer.generate_square_subsequent_mask(5)

    later = PADDED["src"].clone()
    later[:, 3:] += 1

    for causal in (True, False):
        given_ = {"mask": mask, "is_causal": causal}
        assert same(shrunk(PADDED["src"], **given_), masked(PADDED["src"], **given_))
        assert same(shrunk(later, **given_)[:, :3], shrunk(PADDED["src"], **given_)[:, :3])


def test_a_decoder_loses_heads_of_its_own_and_of_what_it_looks_back_at() -> None:
    def made() -> nn.Module:
        return nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, HEADS, 16, batch_first=True), 2)

    model = varied(made)
    inputs = {"tgt": batch(2, 4, WIDTH), "memory": batch(2, 6, WIDTH, seed=2)}
    found = structure.find(model, inputs, "head", 60.0)
    plan = removing(model, found, {"layers.0.multihead_attn": [0], "layers.1.self_attn": [1, 2]})
    shrunk, masked = both(plan, model)

    assert len(found.groups) == 4
    assert same(shrunk(**inputs), masked(**inputs))
    assert not same(shrunk(**inputs), model(**inputs))


def test_torchvisions_vit_loses_heads() -> None:
    models = pytest.importorskip("torchvision", reason="the network is torchvision's").models
    model = seeded(
        lambda: models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=3
        )
    ).eval()
    nn.init.normal_(model.heads.head.weight, generator=torch.Generator().manual_seed(1))  # zero as torchvision makes it
    images = batch(2, 3, 32, 32)
    found = structure.find(model, images, "head", 60.0)
    gone = {group.name: [1, 2] for group in found.groups}
    shrunk, masked = both(removing(model, found, gone), model)

    assert [group.size for group in found.groups] == [4, 4]
    assert same(shrunk(images), masked(images))
    assert not same(shrunk(images), model(images))


def test_a_pruned_network_can_be_trained() -> None:
    model, x = seeded(Attentive), batch(4, 5, 6)
    shrunk = surgery.apply(removing(model, structure.find(model, x, "head", 60.0), {"attention": [0]}), model)
    optimizer = torch.optim.SGD(shrunk.parameters(), 0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = shrunk(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


class Own(nn.MultiheadAttention):
    """Somebody's subclass."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), "add_bias_kv"),
        (lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True), "add_zero_attn"),
        (lambda: Own(8, 2), "code of its own"),
        (lambda: nn.MultiheadAttention(8, 1), "only one unit"),
    ],
)
def test_attention_that_is_not_known_is_left_whole(make: Callable[[], nn.Module], reason: str) -> None:
    model = Attentive()
    model.attention = make()  # type: ignore[assignment]

    found = structure.find(model, batch(2, 5, 6), "head", 60.0)

    assert not found.groups
    assert reason in dict(found.whole)["attention"]


def test_attention_that_shares_its_weight_is_left_whole() -> None:
    model = nn.ModuleDict({"one": layer(), "two": layer()})
    model["two"].in_proj_weight = model["one"].in_proj_weight

    found = attention.heads(model)

    assert not found.groups
    assert "one tensor" in dict(found.whole)["one"]


def test_a_network_without_attention_says_so() -> None:
    found = structure.find(mlp(), batch(4, 6), "head", 60.0)

    assert found.whole == (("Sequential", "it has no attention layer that is known"),)


@pytest.mark.parametrize("granularity", ["channel", "head", "block"])
def test_torchscript_is_refused(granularity: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(mlp())

    with pytest.raises(PruningError, match="TorchScript"):
        structure.find(scripted, batch(4, 6), granularity, 60.0)


def test_attention_with_a_mask_for_each_head_is_left_whole() -> None:
    """Fewer heads would need fewer masks, which the network makes itself."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros(len(x) * 4, x.shape[1], x.shape[1])
            return self.head(self.attention(x, x, x, attn_mask=mask)[0].mean(1))

    model = seeded(Masked).eval()
    found = structure.find(model, batch(2, 5, 8), "head", 60)
    assert found.groups == ()
    assert "does not run without some of its" in dict(found.whole)["attention"]


def test_the_depth_of_a_network_whose_adapters_name_layers_by_number_stays() -> None:
    peft = pytest.importorskip("peft", reason="needs the extra 'llm'")
    import transformers_models

    asked = peft.LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1])
    model = peft.get_peft_model(transformers_models.llama(), asked).eval()
    found = structure.find(model, transformers_models.tokens(), "block", 60)
    assert found.groups == ()
    assert "layers_to_transform" in found.whole[0][1]
