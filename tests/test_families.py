"""Networks of transformers and timm lose MLP width, heads and blocks, and can be saved, loaded and run as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import batch, seeded
from removing import both, removing

from pruneproof import structure, surgery
from pruneproof.errors import PruningError
from pruneproof.units import Found

transformers = pytest.importorskip("transformers", reason="the families are those of transformers")

DECODER = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 0,
}
TOKENS = torch.tensor([[3, 5, 7, 9, 11, 2], [4, 4, 8, 1, 30, 39]])
PADDING = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
CAUSAL = ("llama", "llama-gqa", "mistral", "qwen2", "qwen2-sliding", "qwen3", "gpt2", "bloom")


def llama(**options: Any) -> torch.nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**DECODER, **options}))


def bert(**options: Any) -> torch.nn.Module:
    config = {**DECODER, "num_labels": 3, **options}
    return transformers.BertForSequenceClassification(transformers.BertConfig(**config))


def vit(**options: Any) -> torch.nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=3, **{**sizes, **options})
    return transformers.ViTForImageClassification(config)


def bloom() -> torch.nn.Module:
    config = transformers.BloomConfig(vocab_size=40, hidden_size=32, n_layer=3, n_head=4)
    return transformers.BloomForCausalLM(config)


def gpt2(**options: Any) -> torch.nn.Module:
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=32, n_embd=32, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=None, **options
    )
    return transformers.GPT2LMHeadModel(config)


def mistral() -> torch.nn.Module:
    config = {**DECODER, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8}
    return transformers.MistralForCausalLM(transformers.MistralConfig(**config))


def qwen2(**options: Any) -> torch.nn.Module:
    config = transformers.Qwen2Config(**{**DECODER, "num_key_value_heads": 2, **options})
    return transformers.Qwen2ForCausalLM(config)


def qwen3() -> torch.nn.Module:
    config = {**DECODER, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8}
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**config))


NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "llama": llama,
    "llama-gqa": lambda: llama(num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen2-sliding": lambda: qwen2(use_sliding_window=True, sliding_window=3, max_window_layers=1),
    "qwen3": qwen3,
    "gpt2": gpt2,
    "bloom": bloom,
    "bert": bert,
    "vit": vit,
}
EXPRESSED = [
    *((name, "channel") for name in NETWORKS if name != "bloom"),
    *((name, "head") for name in NETWORKS if name not in ("gpt2", "bloom", "bert")),
    *((name, "block") for name in NETWORKS),
]


def made(name: str) -> torch.nn.Module:
    """With weights large enough that a head or a block makes a difference."""
    model = seeded(NETWORKS[name]).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def inputs_of(name: str) -> dict[str, torch.Tensor]:
    return {"pixel_values": batch(2, 3, 16, 16)} if name == "vit" else {"input_ids": TOKENS, "attention_mask": PADDING}


def logits(model: torch.nn.Module, name: str) -> torch.Tensor:
    with torch.no_grad():
        found = model(**inputs_of(name)).logits
    return found if found.dim() == 2 else found[PADDING.bool()]  # of padding nothing is promised


def found_in(model: torch.nn.Module, name: str, granularity: str) -> Found:
    return structure.find(model, inputs_of(name), granularity, 60.0)


def chosen(found: Found, granularity: str) -> dict[str, list[int]]:
    """Units that lie apart, other ones in each group; of heads half, of blocks the middle one."""
    if granularity == "block":
        return {group.name: [1] for group in found.groups}
    if granularity == "channel":
        return {group.name: [i, 7 + i, 20] for i, group in enumerate(found.groups)}
    return {group.name: [0, 2] if group.size == 4 else [i % group.size] for i, group in enumerate(found.groups)}


def pruned(name: str, granularity: str) -> tuple[torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    """The dense, the shrunk and the masked network."""
    model = made(name)
    found = found_in(model, name, granularity)
    assert found.groups
    return model, *both(removing(model, found, chosen(found, granularity)), model)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * other.abs().max())


@pytest.mark.parametrize(("name", "granularity"), EXPRESSED)
def test_the_shrunk_network_is_the_masked_one(name: str, granularity: str) -> None:
    dense, shrunk, masked = pruned(name, granularity)

    assert close(logits(shrunk, name), logits(masked, name))
    assert not close(logits(shrunk, name), logits(dense, name))
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (shrunk, dense)]
    assert count[0] < count[1]


@pytest.mark.parametrize(("name", "granularity"), EXPRESSED)
def test_a_pruned_network_that_was_saved_and_loaded_gives_the_same_answers(
    name: str, granularity: str, tmp_path: Path
) -> None:
    _, shrunk, _ = pruned(name, granularity)

    shrunk.save_pretrained(tmp_path)
    loaded, told = type(shrunk).from_pretrained(tmp_path, output_loading_info=True)

    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits(loaded.eval(), name), logits(shrunk, name))


@pytest.mark.parametrize(("name", "granularity"), [entry for entry in EXPRESSED if entry[0] in CAUSAL])
def test_a_pruned_network_generates_with_a_cache_what_it_generates_without(name: str, granularity: str) -> None:
    _, shrunk, _ = pruned(name, granularity)

    def tokens(use_cache: bool) -> list[list[int]]:
        options = {"max_new_tokens": 6, "do_sample": False, "use_cache": use_cache}
        return shrunk.generate(**inputs_of(name), **options).tolist()

    assert tokens(True) == tokens(False)
    assert len(tokens(True)[0]) == TOKENS.shape[1] + 6


@pytest.mark.parametrize(("name", "granularity"), EXPRESSED)
def test_a_network_keeps_its_configuration_when_a_copy_of_it_is_pruned(name: str, granularity: str) -> None:
    model = made(name)
    before = model.config.to_dict()
    found = found_in(model, name, granularity)

    both(removing(model, found, chosen(found, granularity)), model)

    assert model.config.to_dict() == before


@pytest.mark.parametrize(
    ("name", "granularity", "expected"),
    [
        ("llama", "channel", {"intermediate_size": 21}),
        ("llama", "head", {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}),
        ("llama-gqa", "head", {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}),
        ("mistral", "head", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}),
        ("qwen2", "head", {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}),
        ("qwen2", "block", {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}),
        (
            "qwen2-sliding",
            "block",
            {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"], "max_window_layers": 1},
        ),
        ("gpt2", "channel", {"n_inner": 125}),
        ("gpt2", "block", {"n_layer": 2}),
        ("bloom", "block", {"n_layer": 2}),
        ("bert", "channel", {"intermediate_size": 21}),
        ("vit", "head", {"num_attention_heads": 2, "head_dim": 8}),
    ],
)
def test_the_configuration_says_what_is_left(name: str, granularity: str, expected: dict[str, Any]) -> None:
    _, shrunk, _ = pruned(name, granularity)

    assert {key: getattr(shrunk.config, key) for key in expected} == expected


def test_a_key_and_value_head_goes_with_all_queries_that_share_it() -> None:
    model = made("llama-gqa")  # 4 queries share 2 keys and values: queries 0 and 1 the first, 2 and 3 the second

    group = found_in(model, "llama-gqa", "head").groups[0]

    rows = {
        entry.tensor.split(".")[-2]: entry.positions[entry.units == 1].tolist()
        for entry in group.slices
        if entry.tensor.endswith("weight")
    }
    assert rows == {
        "q_proj": list(range(16, 32)),
        "k_proj": list(range(8, 16)),
        "v_proj": list(range(8, 16)),
        "o_proj": list(range(16, 32)),
    }


def test_blocks_that_stay_find_their_cache_at_their_new_place() -> None:
    _, shrunk, _ = pruned("llama", "block")

    assert [layer.self_attn.layer_idx for layer in shrunk.model.layers] == [0, 1]


@pytest.mark.parametrize(("name", "attribute"), [("vit", "head_dim"), ("qwen2", "head_dim")])
def test_a_head_width_that_was_forgotten_gives_another_network(name: str, attribute: str, tmp_path: Path) -> None:
    model = made(name)
    found = found_in(model, name, "head")
    plan = removing(model, found, chosen(found, "head"))
    forgetful = replace(plan, settings=tuple(s for s in plan.settings if not s.attribute.endswith(attribute)))

    shrunk = surgery.apply(forgetful, model).eval()
    shrunk.save_pretrained(tmp_path)

    with pytest.raises(RuntimeError):
        type(shrunk).from_pretrained(tmp_path)


def test_a_module_that_keeps_its_old_head_width_is_caught_by_the_masked_network() -> None:
    model = made("vit")
    found = found_in(model, "vit", "head")
    shrunk, masked = both(removing(model, found, chosen(found, "head")), model)

    for layer in shrunk.vit.layers:
        layer.attention.head_dim = 16  # as if two heads of 8 were one of 16

    assert not close(logits(shrunk, "vit"), logits(masked, "vit"))


@pytest.mark.parametrize(
    ("name", "granularity", "layer", "reason"),
    [
        ("gpt2", "head", "transformer.h.0.attn", "GPT2Attention.*config.n_embd // config.n_head"),
        ("bloom", "head", "transformer.h.0.self_attention", "BloomAttention.*config.hidden_size // config.n_head"),
        ("bloom", "channel", "transformer.h.0.mlp", r"BloomMLP is always 4 \* config.hidden_size"),
        ("bert", "head", "bert.encoder.layer.0.attention.self", "BertSelfAttention.*config.num_attention_heads"),
    ],
)
def test_what_a_configuration_cannot_say_is_left_whole_with_that_reason(
    name: str, granularity: str, layer: str, reason: str
) -> None:
    found = found_in(made(name), name, granularity)

    assert not found.groups
    assert len(found.whole) == 3
    with pytest.raises(ValueError, match=reason):
        raise ValueError(dict(found.whole)[layer])


def test_a_number_of_heads_that_the_configuration_refuses_is_refused_at_once() -> None:
    model = made("llama")  # LlamaConfig: hidden_size must be a multiple of the number of heads, 32 is none of 3
    found = found_in(model, "llama", "head")

    with pytest.raises(PruningError, match=r"LlamaConfig refuses num_attention_heads = 3") as raised:
        removing(model, found, {group.name: [1] for group in found.groups})
    assert raised.value.remedy == "use a ratio that leaves 1, 2 of 4 in each layer"


def test_a_gpt2_whose_attention_depends_on_its_place_keeps_its_blocks() -> None:
    model = seeded(lambda: gpt2(scale_attn_by_inverse_layer_idx=True))

    found = found_in(model, "gpt2", "block")

    assert not found.groups
    assert "its place" in dict(found.whole)["transformer.h"]


def test_layers_computed_in_slices_of_their_dense_width_are_left_whole() -> None:
    found = found_in(seeded(lambda: llama(pretraining_tp=2)), "llama", "channel")

    assert not found.groups
    assert "pretraining_tp = 2" in dict(found.whole)["model"]


def test_a_mixture_of_experts_is_left_whole() -> None:
    sizes = {"num_local_experts": 2, "num_experts_per_tok": 1, "num_key_value_heads": 2}
    model = seeded(lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**{**DECODER, **sizes})))

    for granularity in ("channel", "head", "block"):
        found = found_in(model, "llama", granularity)
        assert not found.groups
        assert "mixture of experts" in found.whole[0][1]


def test_a_layer_that_was_replaced_is_left_whole_by_name_and_so_are_those_that_share_its_number() -> None:
    model = made("llama")
    inner = model.model.layers[1].mlp

    class Quantised(torch.nn.Linear):
        pass

    inner.up_proj = Quantised(32, 24, bias=False)
    found = found_in(model, "llama", "channel")

    assert found.groups == ()  # config.intermediate_size would not be true of all of them
    assert "Quantised" in dict(found.whole)["model.layers.1.mlp"]
    assert "model.layers.1.mlp, which stays whole" in dict(found.whole)["model.layers.0.mlp"]


def test_adapters_that_were_not_merged_are_named() -> None:
    peft = pytest.importorskip("peft", reason="adapters are peft's")
    config = peft.LoraConfig(target_modules=["gate_proj"], r=2)
    model = peft.get_peft_model(seeded(llama), config)

    found = found_in(model, "llama", "channel")

    assert not found.groups
    assert "peft" in dict(found.whole)["base_model.model.model.layers.0.mlp"]


class Wrapped(torch.nn.Module):
    """As users write it: returns the logits alone."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(**inputs).logits


@pytest.mark.parametrize("granularity", ["channel", "head", "block"])
def test_a_network_in_a_wrapper_is_found_and_its_configuration_kept_true(granularity: str, tmp_path: Path) -> None:
    model = Wrapped(made("qwen3")).eval()
    found = found_in(model, "qwen3", granularity)

    shrunk, masked = both(removing(model, found, chosen(found, granularity)), model)
    shrunk.inner.save_pretrained(tmp_path)
    loaded = type(shrunk.inner).from_pretrained(tmp_path).eval()

    assert close(logits(shrunk.inner, "qwen3"), logits(masked.inner, "qwen3"))
    assert torch.equal(logits(loaded, "qwen3"), logits(shrunk.inner, "qwen3"))


def test_a_network_inside_another_one_of_transformers_is_left_whole() -> None:
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(bert().config, bert().config)
    model = seeded(lambda: transformers.EncoderDecoderModel(config))

    found = found_in(model, "bert", "channel")

    assert not found.groups
    assert all("encoder-decoder" in reason for _, reason in found.whole)


@pytest.mark.parametrize("name", ["llama", "vit"])
def test_one_number_for_all_layers_is_the_same_for_all_groups(name: str) -> None:
    groups = found_in(made(name), name, "channel").groups

    assert {group.uniform for group in groups} == {"config.intermediate_size"}


def test_finding_the_units_leaves_the_network_and_the_random_state_as_they_were() -> None:
    model = made("vit").train()
    model.vit.layers[1].eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    state = torch.get_rng_state()

    for granularity in ("channel", "head", "block"):
        found_in(model, "vit", granularity)

    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def timm_vit(**options: Any) -> torch.nn.Module:
    timm = pytest.importorskip("timm", reason="the network is timm's")
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 3}
    return seeded(lambda: timm.models.vision_transformer.VisionTransformer(**{**sizes, **options})).eval()


@pytest.mark.parametrize("granularity", ["channel", "head", "block"])
@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "class_token": False, "global_pool": "avg"}])
def test_the_shrunk_timm_vit_is_the_masked_one(granularity: str, options: dict[str, Any]) -> None:
    model, images = timm_vit(**options), batch(2, 3, 16, 16)
    found = structure.find(model, images, granularity, 60.0)

    shrunk, masked = both(removing(model, found, chosen(found, granularity)), model)

    with torch.no_grad():
        assert close(shrunk(images), masked(images))
        assert not close(shrunk(images), model(images))


def test_timm_heads_may_differ_in_number_from_layer_to_layer() -> None:
    model, images = timm_vit(), batch(2, 3, 16, 16)
    found = structure.find(model, images, "head", 60.0)

    shrunk, masked = both(removing(model, found, {"blocks.0.attn": [3], "blocks.2.attn": [0, 1, 2]}), model)

    assert [block.attn.num_heads for block in shrunk.blocks] == [3, 4, 1]
    with torch.no_grad():
        assert close(shrunk(images), masked(images))


def test_blocks_that_are_one_module_are_left_whole() -> None:
    model = made("llama")
    model.model.layers[2] = model.model.layers[0]

    found = found_in(model, "llama", "block")

    assert not found.groups
    assert "2 different blocks" in dict(found.whole)["model.layers"]


def test_gated_timm_attention_loses_its_gate_too() -> None:
    attention = pytest.importorskip("timm", reason="the layer is timm's").layers.attention.Attention
    model = seeded(lambda: attention(32, num_heads=4, qkv_bias=True, gated=True)).eval()
    tokens = batch(2, 5, 32)

    shrunk, masked = both(removing(model, structure.find(model, tokens, "head", 60.0), {"": [0, 2]}), model)

    assert shrunk.gate.weight.shape == (16, 32)
    with torch.no_grad():
        assert close(shrunk(tokens), masked(tokens))
        assert not close(shrunk(tokens), model(tokens))


def test_timm_attention_without_a_rule_is_left_whole_by_name() -> None:
    swin = pytest.importorskip("timm", reason="the network is timm's").models.swin_transformer.SwinTransformer
    model = seeded(lambda: swin(32, 4, embed_dim=8, depths=(2,), num_heads=(2,), window_size=4))

    found = structure.find(model, batch(1, 3, 32, 32), "head", 60.0)

    assert not found.groups
    assert dict(found.whole)["layers.0.blocks.0.attn"] == "there is no rule for timm's WindowAttention"


def test_timm_attention_with_a_norm_over_all_heads_is_left_whole() -> None:
    found = structure.find(timm_vit(scale_attn_norm=True), batch(2, 3, 16, 16), "head", 60.0)

    assert not found.groups
    assert "norm over all heads" in dict(found.whole)["blocks.0.attn"]
