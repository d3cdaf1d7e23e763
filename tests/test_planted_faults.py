"""Faults that pruning tools are known for, planted one by one: nothing but the check that is named catches them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networks
import plans
import pytest
import torch
import transformers_models
from conftest import POLICY, SUBJECT
from safetensors.torch import save_file
from torch import nn

import pruneproof
from pruneproof import digests, surgery
from pruneproof.evidence import Evidence, VariantRow
from pruneproof.plan import PrunePlan, Removal
from pruneproof.units import Setting
from pruneproof.verdicts import Verdict

Tiny = Callable[..., Path]
ROW = networks.batch(12, 6)


def row(found: Evidence, name: str) -> VariantRow:
    (only,) = (entry for entry in found.variants if entry.name == name)
    return only


def test_a_mask_that_is_off_by_one() -> None:
    model = networks.seeded(networks.mlp)
    made = plans.planned(model, ROW)
    masks = {name: mask.clone() for name, mask in made.masks.items()}
    masks["2.weight"].view(-1)[masks["2.weight"].view(-1).nonzero()[0]] = False
    wrong = dataclasses.replace(made, masks=masks)
    assert plans.failed(wrong, model, surgery.apply(wrong, model), ROW) == {"V1"}


def test_a_channel_that_is_gone_from_its_producer_and_not_from_its_consumer() -> None:
    """Another channel is gone from the consumer, so that all shapes fit."""
    model = networks.seeded(networks.mlp)
    made = plans.planned(model, ROW, granularity="channel", scope="layer")
    removals = [
        dataclasses.replace(entry, indices=other(entry.indices, 10)) if entry.tensor == "4.weight" else entry
        for entry in made.removals
    ]
    variant = surgery.apply(dataclasses.replace(made, removals=tuple(removals)), model)
    assert variant(ROW).shape == (12, 3)
    assert plans.failed(made, model, variant, ROW) == {"V3"}


def other(indices: torch.Tensor, size: int) -> torch.Tensor:
    kept = next(i for i in range(size) if i not in indices.tolist())
    return torch.cat([indices[1:], torch.tensor([kept])]).sort().values


@pytest.mark.parametrize("make", [transformers_models.llama, transformers_models.vit])
def test_half_of_every_heads_width_gone_with_head_dim_as_it_was(make: Callable[[], nn.Module]) -> None:
    """As dependency graphs prune attention: it runs, has the right shape, and computes something else."""
    model = make()
    inputs: Any = (
        {"pixel_values": networks.batch(6, 3, 8, 8)} if "ViT" in type(model).__name__ else transformers_models.tokens()
    )
    removals = tuple(half_of_each_head(model))
    made = PrunePlan(
        recipe={**plans.planned(networks.seeded(networks.mlp), ROW, granularity="channel").recipe, "scope": "layer"},
        ratio=0.5, seed=0, model=digests.of_model(model), removed=8, units=16, achieved=0.5, layers={"heads": (8, 16)},
        removals=removals,
    )  # fmt: skip
    variant = surgery.apply(made, model)
    assert variant(**inputs).logits.shape == model(**inputs).logits.shape
    assert "V3" in plans.failed(made, model, variant, inputs)


def plan_model(model: nn.Module) -> str:
    from pruneproof import digests

    return digests.of_model(model)


def half_of_each_head(model: nn.Module) -> Iterator[Removal]:
    for name, module in model.named_modules():
        if not hasattr(module, "q_proj"):
            continue
        width = int(module.head_dim)  # type: ignore[arg-type]
        for part in ("q_proj", "k_proj", "v_proj"):
            rows = torch.arange(len(module.get_submodule(part).weight))  # type: ignore[arg-type]
            gone = rows[rows % width >= width // 2]
            yield Removal(f"{name}.{part}.weight", 0, "produces", gone)
            if module.get_submodule(part).bias is not None:
                yield Removal(f"{name}.{part}.bias", 0, "follows", gone)
        columns = torch.arange(module.o_proj.weight.shape[1])  # type: ignore[union-attr,index]
        yield Removal(f"{name}.o_proj.weight", 1, "reads", columns[columns % width >= width // 2])


def test_a_number_of_heads_that_was_not_updated() -> None:
    """The attention would cut its projections into heads of another width."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.qkv, self.out = 4, nn.Linear(8, 24), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(*parts)
            return self.out(mixed.transpose(1, 2).flatten(2).mean(1))

    model, x = networks.seeded(Heads), networks.batch(4, 5, 8)
    rows = torch.cat([torch.arange(4) + 8 * part for part in range(3)])
    made = dataclasses.replace(
        plans.planned(networks.seeded(networks.mlp), ROW, granularity="channel"),
        model=digests.of_model(model), removed=2, units=4, layers={"qkv": (2, 4)},
        removals=(
            Removal("qkv.weight", 0, "produces", rows),
            Removal("qkv.bias", 0, "follows", rows),
            Removal("out.weight", 1, "reads", torch.arange(4)),
        ),
        settings=(Setting("", "heads", 2),),
    )  # fmt: skip
    assert "V3" not in plans.failed(made, model, surgery.apply(made, model), x)
    wrong = dataclasses.replace(made, settings=())
    assert "V3" in plans.failed(wrong, model, surgery.apply(wrong, model), x)


REVIVING = (
    SUBJECT.replace(
        "        classes=",
        "        fine_tune=tune,\n        classes=",
    )
    + """

def tune(model, *, step, steps, generator):
    inputs, targets, _ = data()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    torch.nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    for parameter in model.parameters():  # an optimizer of one's own, which nobody sees step
        parameter.data.sub_(0.01 * parameter.grad)
"""
)
TUNED = POLICY.replace('name = "mag"\n', 'name = "mag"\nfine_tune = true\n')


def test_an_optimizer_that_revives_pruned_weights(tiny: Tiny, tmp_path: Path) -> None:
    found = pruneproof.audit(tiny(tmp_path, policy=TUNED, subject=REVIVING))
    assert found.verdict is Verdict.ERROR
    only = row(found, "mag@0.3")
    assert {check.id for check in only.self_checks if check.decides and not check.passed} == {"V5"}
    assert "self-check V5 failed: what was gone stayed gone" in (only.error or "")


def test_the_same_training_by_torchs_optimizer_alone_is_released(tiny: Tiny, tmp_path: Path) -> None:
    honest = REVIVING.replace("        parameter.data.sub_(0.01 * parameter.grad)\n", "        pass\n")
    found = pruneproof.audit(tiny(tmp_path, policy=TUNED, subject=honest))
    assert row(found, "mag@0.3").verdict is Verdict.PASS
    assert row(found, "mag@0.3").error is None


IMPORTED = POLICY.replace(
    '[[prune]]\nname = "mag"\nratios = [0.3, 0.97]', '[[variant]]\nname = "theirs"\ncheckpoint = "t.safetensors"\nMORE'
)


def test_a_checkpoint_that_was_swapped_for_another(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny(tmp_path)
    from pruneproof import loading, policy_file

    state = loading.load(policy_file.read(path)).subject.model.state_dict()
    file = tmp_path / "t.safetensors"
    save_file(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    named = f'sha256 = "{digest}"'
    released = pruneproof.audit(tiny(tmp_path, policy=IMPORTED.replace("MORE", named)))
    assert released.verdict is Verdict.PASS
    save_file({name: tensor * 1.01 for name, tensor in state.items()}, file)
    swapped = pruneproof.audit(tiny(tmp_path, policy=IMPORTED.replace("MORE", named)))
    assert swapped.verdict is Verdict.ERROR
    assert "is not the file that the policy names" in (row(swapped, "theirs").error or "")
    unnoticed = pruneproof.audit(tiny(tmp_path, policy=IMPORTED.replace("MORE", "")))
    assert unnoticed.verdict is Verdict.PASS


@pytest.mark.parametrize("granularity", ["element", "channel"])
def test_weights_of_another_training_in_the_right_pattern(granularity: str) -> None:
    model, another = networks.seeded(networks.mlp), networks.seeded(networks.mlp, seed=1)
    made = plans.planned(model, ROW, granularity=granularity)
    variant = surgery.shrunk(made, another)
    assert plans.failed(made, model, variant, ROW) == {"V3"}


def test_a_tool_that_removes_far_more_than_it_was_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    """Asked for 30 % with tied scores, a tool removed 97 %: its claim is held against what is there."""
    theirs = (
        SUBJECT
        + """

def theirs(model, ratio):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[parameter.abs() <= 0.02] = 0
"""
    )
    asked = POLICY.replace(
        '[[prune]]\nname = "mag"\nratios = [0.3, 0.97]',
        '[[variant]]\nname = "theirs"\nprune = "tiny_subject:theirs"\nratios = [0.3]\nclaimed_of = "layer_weights"',
    )
    found = pruneproof.audit(tiny(tmp_path, policy=asked, subject=theirs))
    assert row(found, "theirs@0.3").verdict is Verdict.ERROR
    assert "self-check V1 failed" in (row(found, "theirs@0.3").error or "")
