"""What is said to be gone is counted on the network itself."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import networks
import plans
import pytest
import torch
from conftest import POLICY
from torch import nn

import pruneproof
from pruneproof import counting, profile, structure, surgery
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
