"""What is said to be gone is counted on the network itself."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import networks
import plans
import pytest
import test_matrix
import torch
from conftest import POLICY
from torch import nn

import pruneproof
from pruneproof import counting, digests, profile, structure, surgery
from pruneproof.plan import PrunePlan
from pruneproof.verdicts import Verdict

Tiny = Callable[..., Path]
ROW, IMAGE = networks.batch(12, 6), networks.batch(6, 3, 8, 8)


@pytest.mark.parametrize("granularity", ["element", "channel"])
@pytest.mark.parametrize("make", [networks.mlp, networks.cnn, networks.Residual, networks.depthwise])
def test_claims_are_the_shares_counted_on_the_tensors(make: Callable[[], nn.Module], granularity: str) -> None:
    model = networks.seeded(make).eval()
    x = ROW if make is networks.mlp else IMAGE
    made = plans.planned(model, x, 0.4, granularity=granularity)
    variant = surgery.apply(made, model)

    def left(some: nn.Module, names: set[str] | None = None) -> int:
        return sum(
            int((p != 0).sum()) if granularity == "element" else p.numel()
            for name, p in some.named_parameters()
            if names is None or name in names
        )

    found = counting.claimed(made, model)
    layers = {name for name, p in model.named_parameters() if p.ndim > 1}
    assert found["all_parameters"] == pytest.approx(1 - left(variant) / left(model))
    assert found["layer_weights"] == pytest.approx(1 - left(variant, layers) / left(model, layers))
    touched = made.tensors
    assert found["pruned_tensors"] == pytest.approx(1 - left(variant, touched) / left(model, touched))
    assert plans.checks(made, model, variant, x)["V1a"].passed


def test_a_variant_with_fewer_channels_gone_than_the_plan_claims_is_found() -> None:
    model = networks.seeded(networks.cnn).eval()
    made, less = (plans.planned(model, IMAGE, ratio, granularity="channel") for ratio in (0.5, 0.4))
    assert "V1a" in plans.failed(made, model, surgery.apply(less, model), IMAGE)
    assert "claimed" in plans.checks(made, model, surgery.apply(less, model), IMAGE)["V1a"].detail


def test_a_variant_whose_layer_computes_more_than_its_weight_says_is_found() -> None:
    class Wasteful(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 0 * super().forward(x)

    model = networks.seeded(networks.mlp).eval()
    made = plans.planned(model, ROW, granularity="channel")
    variant = surgery.apply(made, model)
    variant.get_submodule("2").__class__ = Wasteful
    assert plans.failed(made, model, variant, ROW) == {"V1a"}


def test_zeros_that_the_dense_network_had_already_are_no_fault_and_are_not_claimed() -> None:
    model = networks.seeded(networks.mlp)
    with torch.no_grad():
        model.get_parameter("2.weight").view(-1)[:30] = 0
    made = plans.planned(model, ROW, 0.3, criterion="random")
    variant = surgery.apply(made, model)
    assert plans.failed(made, model, variant, ROW) == set()
    assert counting.claimed(made, model)["layer_weights"] == pytest.approx(47 / 158)


@pytest.mark.parametrize("make", [networks.Tied, networks.Reused])
def test_a_shared_tensor_is_claimed_once(make: Callable[[], nn.Module]) -> None:
    model = networks.seeded(make)
    made = plans.planned(model, ROW)
    assert plans.failed(made, model, surgery.apply(made, model), ROW) == set()


def test_a_broken_pattern_is_found() -> None:
    model = networks.seeded(networks.mlp)
    made = plans.planned(model, ROW, granularity="n_of_m", keep_n=1, of_m=2)
    variant = surgery.apply(made, model)
    assert plans.failed(made, model, variant, ROW) == set()
    weight = variant.get_parameter("2.weight")
    with torch.no_grad():
        zero = (weight[0] == 0).nonzero()[0]
        weight[0, zero] = 1e-3
    assert plans.failed(made, model, variant, ROW) >= {"V1b", "V2", "V3"}
    assert plans.checks(made, model, variant, ROW)["V2"].detail == "1 of 79 runs break the pattern"


def test_a_pattern_moved_along_by_one_has_the_right_number_of_zeros_and_is_found() -> None:
    model = networks.seeded(networks.mlp)
    made = plans.planned(model, ROW, granularity="n_of_m", keep_n=1, of_m=2)
    moved = dataclasses.replace(made, masks={name: mask.roll(1, -1) for name, mask in made.masks.items()})
    assert plans.failed(moved, model, surgery.apply(moved, model), ROW) <= {"V2"}
    assert "V2" in plans.failed(moved, model, surgery.apply(moved, model), ROW)


@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_one_too_many_here_and_one_too_few_there_are_found_where_each_layer_has_its_share(
    scope: str,
) -> None:
    model = networks.seeded(networks.mlp)
    made = plans.planned(model, ROW, scope=scope)
    masks = {name: mask.clone() for name, mask in made.masks.items()}
    first, second = masks["0.weight"].view(-1), masks["2.weight"].view(-1)
    first[first.nonzero()[0]], second[(~second).nonzero()[0]] = False, True
    layers = {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}
    wrong = dataclasses.replace(made, masks=masks, layers=layers)
    found = plans.failed(wrong, model, surgery.apply(wrong, model), ROW)
    assert found == ({"V1"} if scope == "layer" else set())


def test_macs_of_layers_add_up_to_those_of_the_network() -> None:
    model = networks.seeded(networks.cnn).eval()
    found = profile.layer_macs(model, IMAGE[:1])
    assert found is not None
    assert sum(found.values()) == profile.macs(model, IMAGE[:1])
    assert found["10"] == 16 * 3


def test_a_variant_whose_macs_can_no_longer_be_counted_is_found() -> None:
    class Single(nn.Linear):
        """Answers batches, and not one example alone."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 1:
                raise RuntimeError("one")
            return super().forward(x)

    model = networks.seeded(networks.mlp).eval()
    made = plans.planned(model, ROW)
    variant = surgery.apply(made, model)
    variant.get_submodule("2").__class__ = Single
    assert plans.failed(made, model, variant, ROW) == {"V1a"}


# V9


def test_a_search_for_channels_that_never_ends_is_stopped_and_named(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(model: nn.Module, inputs: object, timeout_s: float) -> object:
        from pruneproof.errors import GraphTimeout, TaskTimeout
        from pruneproof.isolation import deadline

        try:
            with deadline(timeout_s, "finding out which channels hang together"):
                while True:
                    time.sleep(0.001)
        except TaskTimeout as error:
            raise GraphTimeout(f"self-check V9: {error.cause}", error.remedy) from None

    monkeypatch.setattr(structure.graph, "groups", endless)
    asked = POLICY.replace("ratios = [0.3, 0.97]", 'ratios = [0.3]\ngranularity = "channel"\ngraph_timeout_s = 0.2')
    found = pruneproof.audit(tiny(tmp_path, policy=asked))
    (row,) = (row for row in found.variants if row.kind == "pruned")
    assert row.verdict is Verdict.ERROR
    assert {gate.verdict for gate in found.gates} == {Verdict.ERROR}
    (check,) = row.self_checks
    assert (check.id, check.passed) == ("V9", False)
    assert "took longer than 0.2 s" in check.detail


def test_units_of_a_plan_of_another_network_are_refused() -> None:
    made: PrunePlan = plans.planned(networks.seeded(networks.cnn), IMAGE, granularity="channel")
    from pruneproof.errors import PruningError

    with pytest.raises(PruningError, match="another model"):
        surgery.apply(made, networks.seeded(networks.cnn, seed=2))


# What a plan says of itself


@pytest.mark.parametrize("granularity", ["channel", "head", "block"])
@pytest.mark.parametrize("denominator", ["units", "all_parameters"])
def test_units_that_are_said_to_be_gone_and_are_not_are_found(granularity: str, denominator: str) -> None:
    model, x = networks.seeded(test_matrix.Encoder).eval(), networks.batch(4, 4, 6)
    options = {"granularity": granularity, "denominator": denominator, "scope": "layer"}
    ratio = 0.5 if denominator == "units" else 0.2
    made = plans.planned(model, x, ratio, **options)
    assert plans.failed(made, model, surgery.apply(made, model), x) == set()
    layer = next(name for name, (kept, units) in made.layers.items() if kept < units)
    inside = [entry for entry in made.removals if not entry.tensor.startswith(f"{layer.rpartition('.')[0]}.")]
    less = dataclasses.replace(made, removals=tuple(inside), blocks=made.blocks[1:], settings=())
    assert "V1" in plans.failed(less, model, surgery.shrunk(less, model), x)


def test_units_that_are_gone_and_are_not_said_to_be_are_found() -> None:
    model = networks.seeded(networks.cnn).eval()
    made = plans.planned(model, IMAGE, 0.5, granularity="channel", scope="layer")
    more = plans.planned(model, IMAGE, 0.75, granularity="channel", scope="layer")
    wrong = dataclasses.replace(more, layers=made.layers, removed=made.removed, achieved=made.achieved, ratio=0.5)
    assert "V1" in plans.failed(wrong, model, surgery.apply(wrong, model), IMAGE)


@pytest.mark.parametrize("granularity", ["element", "channel"])
@pytest.mark.parametrize("denominator", ["units", "all_parameters", "layer_weights"])
def test_another_achieved_ratio_than_what_is_counted_is_found(granularity: str, denominator: str) -> None:
    model = networks.seeded(networks.cnn).eval()
    made = plans.planned(model, IMAGE, 0.4, granularity=granularity, denominator=denominator)
    boastful = dataclasses.replace(made, achieved=made.achieved + 0.01)
    assert "V1a" in plans.failed(boastful, model, surgery.apply(made, model), IMAGE)


def test_removing_what_was_zero_already_is_not_pruning() -> None:
    model = networks.seeded(networks.mlp)
    before = plans.pruned(model, ROW, 0.5)
    made = plans.planned(before, ROW, 0.3)
    variant = surgery.apply(made, before)
    assert digests.of_model(variant) == digests.of_model(before)
    assert plans.failed(made, before, variant, ROW) == {"V8"}
    assert "47 of 47 removed weights were zero already" in plans.checks(made, before, variant, ROW)["V8"].detail
    further = plans.planned(before, ROW, 0.6)
    assert plans.failed(further, before, surgery.apply(further, before), ROW) == set()


def test_a_head_that_shares_its_weight_with_the_embedding_is_counted_under_either_name() -> None:
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.inner, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.inner(self.words(x).mean(1))))[:, :3]

    model = networks.seeded(Language)
    x = torch.randint(0, 9, (6, 4), generator=torch.Generator().manual_seed(0))
    for denominator in ("units", "all_parameters"):
        made = plans.planned(model, x, 0.5, denominator=denominator)
        variant = surgery.apply(made, model)
        assert plans.failed(made, model, variant, x) == set()
        assert counting.claimed(made, model)["all_parameters"] == pytest.approx(
            sum(int((p == 0).sum()) for p in variant.parameters()) / sum(p.numel() for p in variant.parameters())
        )


def test_a_network_that_answers_otherwise_each_time_is_told_apart_from_a_wrong_plan() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = networks.mlp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.body(x), training=True)

    model = networks.seeded(Noisy)
    made = plans.planned(model, ROW)
    detail = plans.checks(made, model, surgery.apply(made, model), ROW)["V3"].detail
    assert "does not repeat its own outputs" in detail


def test_a_module_that_reads_its_version_reloads() -> None:
    class Versioned(nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state: object, prefix: str, metadata: dict[str, int], *more: object) -> None:
            if metadata.get("version") != 2:
                raise ValueError("no version")
            super()._load_from_state_dict(state, prefix, metadata, *more)  # type: ignore[misc]

    model = networks.seeded(lambda: nn.Sequential(Versioned(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    made = plans.planned(model, ROW)
    assert plans.failed(made, model, surgery.apply(made, model), ROW) == set()
