"""Self-checks pass on what a plan really gives and catch planted faults."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import networks
import plans
import pytest
import torch
from torch import nn

from pruneproof import digests, selfcheck, surgery, variants
from pruneproof.errors import PruningError
from pruneproof.evidence import SelfCheck, VariantRow
from pruneproof.plan import PrunePlan, Removal
from pruneproof.subject import Data

GRANULARITIES = ("element", "channel")
ROW = networks.batch(*networks.ROW)


def planned(model: nn.Module, granularity: str, ratio: float = 0.5, scope: str = "global") -> PrunePlan:
    return plans.planned(model, ROW, ratio, granularity=granularity, scope=scope)


def checked(made: PrunePlan, dense: nn.Module, variant: nn.Module) -> dict[str, SelfCheck]:
    return plans.checks(made, dense, variant, ROW)


def failed(made: PrunePlan, dense: nn.Module, variant: nn.Module) -> set[str]:
    return plans.failed(made, dense, variant, ROW)


def dense() -> nn.Module:
    return networks.seeded(networks.mlp).eval()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_an_honest_variant_passes_in_every_precision(granularity: str, scope: str, dtype: torch.dtype) -> None:
    model = networks.seeded(
        lambda: nn.Sequential(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 3))
    )
    model = model.to(dtype)
    x = networks.batch(16, 6).to(dtype)
    made = plans.planned(model, x, 0.3, granularity=granularity, scope=scope)
    found = plans.checks(made, model, surgery.apply(made, model), x)
    assert [check.detail for check in found.values() if not check.passed] == []


class Coarse(nn.Linear):
    """Adds up pairwise in its own precision, so that the result depends on how many columns there are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        products = x[:, None] * self.weight
        while products.shape[-1] > 1:
            half = products.shape[-1] // 2
            summed = products[..., :half] + products[..., half : 2 * half]
            products = torch.cat([summed, products[..., 2 * half :]], -1)
        return products[..., 0] + self.bias


def test_rounding_in_half_precision_is_no_fault() -> None:
    model = networks.seeded(lambda: nn.Sequential(nn.Linear(6, 301), nn.ReLU(), Coarse(301, 3))).bfloat16()
    sample = Data(networks.batch(16, 6).bfloat16())
    tensors = {"0.weight": 0, "0.bias": 0, "2.weight": 1}
    gone = torch.arange(0, 301, 3)
    roles = {"0.weight": "produces", "0.bias": "follows", "2.weight": "reads"}
    made = PrunePlan(
        recipe={"granularity": "channel", "scope": "global"},
        ratio=101 / 301,
        seed=0,
        model=digests.of_model(model),
        removed=101,
        units=301,
        achieved=101 / 301,
        masks={},
        removals=tuple(Removal(name, dim, roles[name], gone) for name, dim in tensors.items()),  # type: ignore[arg-type]
    )
    variant = surgery.apply(made, model)
    assert not selfcheck._same(surgery.masked(made, model), variant, [sample])[0]
    assert selfcheck._masked_is_variant(made, model, variant, sample, 0).passed


def test_one_weight_that_came_back_is_found() -> None:
    model = dense()
    made = planned(model, "element")
    variant = surgery.apply(made, model)
    name, mask = next(iter(made.masks.items()))
    with torch.no_grad():
        variant.get_parameter(name)[tuple((~mask).nonzero()[0])] = 1e-3
    assert failed(made, model, variant) >= {"V1b", "V3"}
    assert checked(made, model, variant)["V1b"].detail == f"1 of {made.removed} are not zero"


def test_one_weight_too_many_is_found() -> None:
    model = dense()
    made = planned(model, "element")
    variant = surgery.apply(made, model)
    name, mask = next(iter(made.masks.items()))
    with torch.no_grad():
        variant.get_parameter(name)[tuple(mask.nonzero()[0])] = 0
    assert "V3" in failed(made, model, variant)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("stays", [True, False])
def test_a_mask_that_is_off_by_one_is_found(scope: str, stays: bool) -> None:
    model = dense()
    made = planned(model, "element", scope=scope)
    masks = {name: mask.clone() for name, mask in made.masks.items()}
    mask = masks["2.weight"]
    mask[tuple((mask != stays).nonzero()[0])] = stays
    wrong = dataclasses.replace(made, masks=masks)
    assert "V1" in failed(wrong, model, surgery.apply(wrong, model))
    claims_more = dataclasses.replace(made, removed=made.removed + 1)
    assert failed(claims_more, model, surgery.apply(claims_more, model)) == {"V1", "V1a"}
    adjusted = dataclasses.replace(wrong, removed=sum(int((~mask).sum()) for mask in masks.values()))
    assert "V1" in failed(adjusted, model, surgery.apply(adjusted, model))


def test_a_consumer_that_lost_another_channel_than_its_producer_is_found() -> None:
    model = dense()
    made = planned(model, "channel")
    wrong = tuple(
        dataclasses.replace(removal, indices=_shifted(removal.indices, 10)) if removal.tensor == "4.weight" else removal
        for removal in made.removals
    )
    variant = surgery.apply(dataclasses.replace(made, removals=wrong), model)
    assert failed(made, model, variant) == {"V3"}


def _shifted(indices: torch.Tensor, size: int) -> torch.Tensor:
    kept = next(i for i in range(size) if i not in indices.tolist())
    return torch.cat([indices[1:], torch.tensor([kept])]).sort().values


def test_a_layer_that_was_not_shrunk_along_is_found() -> None:
    model = dense()
    made = planned(model, "channel")
    partial = tuple(removal for removal in made.removals if removal.tensor != "4.weight")
    variant = surgery.apply(dataclasses.replace(made, removals=partial), model)
    assert failed(made, model, variant) >= {"V3", "V4"}


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_weights_of_another_training_are_found(granularity: str) -> None:
    model, other = dense(), networks.seeded(networks.mlp, seed=1)
    made = planned(model, granularity)
    swapped = surgery.apply(dataclasses.replace(made, model=digests.of_model(other)), other)
    variant = surgery.apply(made, model)
    variant.load_state_dict(swapped.state_dict())
    assert failed(made, model, variant) == {"V3"}


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_dense_model_under_another_name_is_found(granularity: str) -> None:
    model = dense()
    assert failed(planned(model, granularity), model, copy.deepcopy(model)) >= {"V3", "V8"}


def test_a_variant_that_answers_nan_where_the_masked_network_does_not_is_found() -> None:
    class Poisoned(nn.Module):
        def __init__(self, inner: nn.Module, on_real: bool) -> None:
            super().__init__()
            self.inner, self.on_real = inner, on_real

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            real = torch.equal(x, networks.batch(*networks.ROW))
            return self.inner(x) * (float("nan") if real == self.on_real else 1.0)

    model = dense()
    made = planned(model, "channel")
    for on_real in (True, False):
        found = selfcheck._same(
            surgery.masked(made, model),
            Poisoned(surgery.apply(made, model), on_real),
            [Data(networks.batch(*networks.ROW)), Data(networks.batch(*networks.ROW, seed=9))],
        )
        assert not found[0]


def test_a_sample_of_one_number_gives_random_inputs_that_are_finite() -> None:
    made = selfcheck._random_like(Data(torch.tensor([[3.0]])), 0)
    assert torch.isfinite(made.inputs).all()


@pytest.mark.parametrize("form", [lambda x: {"a": x}, lambda x: (x, x), lambda x: x])
def test_random_inputs_have_the_form_of_the_real_ones(form: Callable[[torch.Tensor], object]) -> None:
    drawn = selfcheck._random_like(Data(form(torch.arange(12.0).reshape(4, 3))), 0).inputs
    parts = [drawn] if isinstance(drawn, torch.Tensor) else list(drawn.values() if isinstance(drawn, dict) else drawn)
    assert {part.shape for part in parts} == {(4, 3)}
    again = selfcheck._random_like(Data(form(torch.arange(12.0).reshape(4, 3))), 0).inputs
    assert str(again) == str(drawn)


def test_random_inputs_for_integers_are_real_values() -> None:
    drawn = selfcheck._random_like(Data(torch.tensor([[1, 7], [2, 9]])), 0).inputs
    assert sorted(drawn.flatten().tolist()) == [1, 2, 7, 9]


class Buffered(nn.Module):
    """Holds a buffer that its state dict leaves out, and state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = networks.mlp()
        self.register_buffer("scale", torch.full((6,), 2.0), persistent=False)

    def get_extra_state(self) -> dict[str, str]:
        return {"version": "1"}

    def set_extra_state(self, state: object) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x * self.scale)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_state_outside_the_state_dict_is_no_fault(granularity: str) -> None:
    model = networks.seeded(Buffered)
    made = planned(model, granularity)
    assert failed(made, model, surgery.apply(made, model)) == set()


def test_a_variant_that_does_not_come_back_from_its_file_is_found() -> None:
    class Forgetful(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def state_dict(self, *args: object, **options: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {name: tensor * 0 for name, tensor in super().state_dict().items()}

    check = selfcheck._reloads(Forgetful(dense()), Data(networks.batch(*networks.ROW)))
    assert not check.passed


def test_a_failed_check_stops_the_variant_with_its_name() -> None:
    checks = [
        SelfCheck(id="V1", claim="much", passed=True, detail="yes"),
        SelfCheck(id="V3", claim="the same", passed=False, detail="1 apart"),
    ]
    variants.verified(VariantRow(name="a", kind="pruned", self_checks=checks[:1]))
    with pytest.raises(PruningError, match="self-check V3 failed: the same: 1 apart"):
        variants.verified(VariantRow(name="a", kind="pruned", self_checks=checks))
