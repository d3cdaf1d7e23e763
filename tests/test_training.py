"""While a subject trains between two steps of a schedule, what was pruned stays pruned, and all else is as it was."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import batch, cnn, mlp, seeded
from torch import nn
from torch.nn import functional
from torch.optim import optimizer as torch_optimizer

from pruneproof import isolation, training
from pruneproof.errors import PruneProofError, PruningError, SubjectError

Masks = dict[str, torch.Tensor]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "lbfgs-wolfe": lambda p: torch.optim.LBFGS(p, max_iter=3, line_search_fn="strong_wolfe"),
}


def masked(model: nn.Module, share: float = 0.5) -> Masks:
    """Random masks of every weight matrix, carried out."""
    generator = torch.Generator().manual_seed(4)
    masks = {n: torch.rand(p.shape, generator=generator) > share for n, p in model.named_parameters() if p.ndim > 1}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return masks


def loss_of(model: nn.Module) -> torch.Tensor:
    loss: torch.Tensor = functional.cross_entropy(model(batch(8, 6)), torch.arange(8) % 3)
    return loss


def stepper(make: Callable[[Any], torch.optim.Optimizer], after: Callable[[nn.Module], None], n: int = 4) -> Any:
    def fine_tune(model: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
        optimizer = make(model.parameters())

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss

        for _ in range(n):
            optimizer.step(closure)
            after(model)

    return fine_tune


def sgd(model: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
    stepper(OPTIMIZERS["sgd"], lambda model: None)(model, step=step, steps=steps, generator=generator)


def alive(model: nn.Module, masks: Masks) -> int:
    return sum(int((model.get_parameter(name)[~mask] != 0).sum()) for name, mask in masks.items())


def train(model: nn.Module, masks: Masks, fine_tune: Any, **options: Any) -> training.Trained:
    return training.train(model, masks, fine_tune, **{"step": 1, "steps": 2, "seed": 3, **options})


def hooks() -> tuple[int, int]:
    return len(torch_optimizer._global_optimizer_pre_hooks), len(torch_optimizer._global_optimizer_post_hooks)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_are_zero_after_every_step_of_every_optimizer(name: str) -> None:
    model = seeded(mlp)
    masks = masked(model)
    seen: list[int] = []
    found = train(model, masks, stepper(OPTIMIZERS[name], lambda model: seen.append(alive(model, masks))))
    assert seen == [0, 0, 0, 0]
    assert found.revived == 0
    assert alive(model, masks) == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_optimizers_revive_pruned_weights_when_nothing_holds_them(name: str) -> None:
    model = seeded(mlp)
    masks = masked(model)
    fine_tune = stepper(OPTIMIZERS[name], lambda model: None)
    fine_tune(model, step=1, steps=1, generator=torch.Generator())
    assert alive(model, masks) > 0


def test_masks_hold_for_parameters_and_optimizers_that_replace_the_first_ones() -> None:
    model = seeded(mlp)
    masks = masked(model)

    def fine_tune(model: nn.Module, **_: Any) -> None:
        model[0].weight = nn.Parameter(model[0].weight.detach().clone())
        stepper(OPTIMIZERS["adam"], lambda model: None)(model, step=1, steps=1, generator=None)
        assert alive(model, masks) == 0

    assert train(model, masks, fine_tune).revived == 0


def test_optimizers_of_other_models_are_not_touched() -> None:
    model, other, alone = seeded(mlp), seeded(mlp, 1), seeded(mlp, 1)
    for network in (other, alone):
        masked(network)
    masks = masked(model)
    fine_tune = stepper(OPTIMIZERS["sgd"], lambda model: None)
    fine_tune(alone, step=1, steps=1, generator=torch.Generator())
    with training.held(model, masks, movement=True) as keeper:
        loss_of(model).backward()
        with torch.no_grad():
            model[0].weight.fill_(1)
        fine_tune(other, step=1, steps=1, generator=torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), alone.parameters(), strict=True))
    assert not any(moved.any() for moved in keeper.movement.values())
    assert bool((model[0].weight == 1).all())


def test_an_update_that_bypasses_the_optimizer_is_counted_weight_by_weight() -> None:
    model = seeded(mlp)
    masks = masked(model)

    def revives(model: nn.Module, **_: Any) -> None:
        sgd(model, step=1, steps=1, generator=torch.Generator())
        with torch.no_grad():
            for name in ("0.weight", "2.weight"):
                gone = (~masks[name]).nonzero()[:3]
                model.get_parameter(name)[gone[:, 0], gone[:, 1]] = 0.5

    assert train(model, masks, revives).revived == 6
    assert alive(model, masks) == 0


def test_movement_is_minus_the_sum_of_weight_times_gradient_over_two_steps_of_sgd() -> None:
    """By hand for y = wx, L = y²/2, so ∂L/∂w = wx²: w₁ = w₀(1 − ηx²), movement −x²(w₀² + w₁²)."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    x, rate = 3.0, 0.05

    def fine_tune(model: nn.Module, **_: Any) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for _ in range(2):
            optimizer.zero_grad()
            (model(torch.tensor([[x]])) ** 2 / 2).sum().backward()
            optimizer.step()

    found = train(model, {}, fine_tune, movement=True)
    w0, w1 = 2.0, 2.0 * (1 - rate * x**2)
    assert found.movement["weight"].item() == pytest.approx(-(x**2) * (w0**2 + w1**2), rel=1e-6)


@pytest.mark.parametrize("spelled", ["none", "positional", "keyword"])
def test_movement_is_the_same_when_the_gradients_come_from_a_closure(spelled: str) -> None:
    model = seeded(mlp)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients = dict(zip(start, torch.autograd.grad(loss_of(model), list(model.parameters())), strict=True))

    def fine_tune(model: nn.Module, **_: Any) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss

        if spelled == "none":
            closure()
            optimizer.step()
        else:
            optimizer.step(
                *([closure] if spelled == "positional" else []),
                **({} if spelled == "positional" else {"closure": closure}),
            )

    found = train(model, {}, fine_tune, movement=True).movement
    for name, weight in start.items():
        torch.testing.assert_close(found[name], -(weight * gradients[name]))


def test_movement_counts_one_evaluation_a_step_where_a_line_search_makes_several() -> None:
    model = seeded(mlp)
    expected = [
        -(p.detach() * g)
        for p, g in zip(model.parameters(), torch.autograd.grad(loss_of(model), list(model.parameters())), strict=True)
    ]
    found = train(model, {}, stepper(OPTIMIZERS["lbfgs"], lambda model: None, n=1), movement=True).movement
    for moved, by_hand in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(moved, by_hand)


def test_movement_without_an_optimizer_step_is_refused() -> None:
    def by_hand(model: nn.Module, **_: Any) -> None:
        with torch.no_grad():
            model[0].weight.add_(1)

    with pytest.raises(PruningError, match="no movement"):
        train(seeded(mlp), {}, by_hand, movement=True)


def everything(model: nn.Module) -> list[Any]:
    python, numpy = random.getstate(), np.random.get_state()
    modes = [module.training for module in model.modules()]
    gradients = [parameter.grad for parameter in model.parameters()]
    asked = [parameter.requires_grad for parameter in model.parameters()]
    state = [
        python,
        str(numpy),
        torch.random.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    ]
    return [*state, hooks(), modes, gradients, asked]


@pytest.mark.parametrize("raises", [None, ValueError("no"), SystemExit(3), KeyboardInterrupt(), isolation.Interrupt()])
def test_hooks_modes_gradients_and_global_state_are_as_before_whatever_the_function_does(
    raises: BaseException | None,
) -> None:
    model = seeded(mlp).eval()
    model[2].weight.requires_grad_(False)
    before = everything(model)

    def fine_tune(model: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
        assert all(module.training for module in model.modules())
        sgd(model, step=step, steps=steps, generator=generator)
        random.random(), np.random.rand(), torch.rand(1)
        model[2].weight.requires_grad_(True)
        torch.set_grad_enabled(False)
        if raises is not None:
            raise raises

    kinds = (SubjectError,) if isinstance(raises, Exception | SystemExit) else (type(raises),)
    with torch.no_grad():
        outer = [*before]
        outer[3] = False
        if raises is None:
            train(model, {}, fine_tune)
        else:
            with pytest.raises(kinds):
                train(model, {}, fine_tune)
        assert everything(model) == outer


def test_an_error_of_the_function_is_told_with_its_kind_its_words_and_the_step() -> None:
    def fine_tune(model: nn.Module, **_: Any) -> None:
        raise ValueError("the loader is empty")

    with pytest.raises(SubjectError, match="ValueError at step 1 of 2: the loader is empty"):
        train(seeded(mlp), {}, fine_tune)


def test_an_error_on_purpose_is_passed_on_as_it_is() -> None:
    def fine_tune(model: nn.Module, **_: Any) -> None:
        raise PruningError("cause", "remedy")

    with pytest.raises(PruningError, match="cause"):
        train(seeded(mlp), {}, fine_tune)


def test_the_generator_and_the_global_draws_depend_on_seed_and_step_alone() -> None:
    def draws(seed: int, step: int) -> list[float]:
        found: list[float] = []

        def fine_tune(model: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
            found.extend(
                [torch.rand(1, generator=generator).item(), torch.rand(1).item(), random.random(), np.random.rand()]
            )
            sgd(model, step=step, steps=steps, generator=generator)

        train(seeded(mlp), {}, fine_tune, seed=seed, step=step)
        return found

    assert draws(0, 1) == draws(0, 1)
    assert all(a != b for a, b in zip(draws(0, 1), draws(0, 2), strict=True))
    assert all(a != b for a, b in zip(draws(0, 1), draws(1, 1), strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_after_training_is_named(value: float) -> None:
    def fine_tune(model: nn.Module, **_: Any) -> None:
        with torch.no_grad():
            model[2].weight[0, 0] = value

    with pytest.raises(PruningError, match=r"2\.weight holds NaN or infinity"):
        train(seeded(mlp), {}, fine_tune)


def test_a_statistic_that_is_no_number_after_training_is_named_but_an_infinity_that_was_there_is_let_be() -> None:
    model = seeded(cnn)
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    def fine_tune(model: nn.Module, *, overflow: bool = False, **_: Any) -> None:
        with torch.no_grad():
            model[0].weight.mul_(0.9)
            if overflow:
                model[1].running_var.fill_(float("inf"))

    train(model, {}, fine_tune)
    with pytest.raises(PruningError, match=r"1\.running_var"):
        train(model, {}, lambda model, **given: fine_tune(model, overflow=True, **given))


def does_nothing(model: nn.Module) -> None:
    pass


def only_statistics(model: nn.Module) -> None:
    model(batch(2, 3, 8, 8))


def trains_a_copy(model: nn.Module) -> None:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.add_(1)


@pytest.mark.parametrize("idle", [does_nothing, only_statistics, trains_a_copy])
def test_a_function_that_changes_no_parameter_is_refused(idle: Callable[[nn.Module], None]) -> None:
    with pytest.raises(PruningError, match="trained nothing"):
        train(seeded(cnn), {}, lambda model, **_: idle(model))


def other_shape(model: Any) -> None:
    model[0].weight = nn.Parameter(torch.zeros(7, 6))


def other_dtype(model: Any) -> None:
    model.double()


def removed(model: Any) -> None:
    model[0].bias = None


def added(model: Any) -> None:
    model.adapter = nn.Linear(2, 2)


def untied(model: Any) -> None:
    model[2].bias = nn.Parameter(model[2].bias.detach().clone())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_shape, "changed 0.weight"),
        (other_dtype, "changed 0.weight"),
        (removed, "removed 0.bias"),
        (added, "added adapter.bias"),
        (untied, "2.bias shares"),
    ],
)
def test_a_function_that_changes_which_tensors_there_are_is_refused(change: Callable[[Any], None], told: str) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].bias = model[0].bias
    with pytest.raises(SubjectError, match=told):
        train(model, {}, lambda model, **_: change(model))


def test_a_mask_of_a_tensor_that_the_model_has_not_is_refused_and_leaves_no_hook() -> None:
    before = hooks()
    with pytest.raises(PruningError, match=r"5\.weight"):
        train(seeded(mlp), {"5.weight": torch.ones(2, 2, dtype=torch.bool)}, sgd)
    assert hooks() == before


def test_rewinding_gives_the_first_values_where_weights_stay_and_zero_elsewhere() -> None:
    model = seeded(cnn)
    first = {name: tensor.clone() for name, tensor in seeded(cnn, 5).state_dict().items()}
    parameters = list(model.parameters())
    masks = masked(model)
    training.rewind(model, first, masks)
    for name, tensor in model.state_dict().items():
        kept = masks.get(name, torch.ones(tensor.shape, dtype=torch.bool))
        assert torch.equal(tensor, torch.where(kept, first[name], torch.zeros_like(tensor)))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values: values.pop("1.running_mean"), r"1\.running_mean is missing"),
        (lambda values: values.update(extra=torch.zeros(1)), "has no extra"),
        (lambda values: values.update({"0.bias": torch.zeros(3)}), r"0\.bias is \(3,\), not \(8,\)"),
        (lambda values: values.update({"0.bias": 3}), r"0\.bias is int"),
    ],
)
def test_values_that_do_not_fit_are_no_rewinding_and_change_nothing(change: Callable[[Any], Any], told: str) -> None:
    model = seeded(cnn)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    values = {name: tensor + 1 for name, tensor in before.items()}
    change(values)
    with pytest.raises(SubjectError, match=told):
        training.rewind(model, values, {})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_name_of_a_shared_weight_is_enough_to_rewind() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    values = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    del values["1.weight"]
    training.rewind(model, values, {})
    assert bool((model[1].weight == 1).all())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0.05, 0.95), name=st.sampled_from(sorted(OPTIMIZERS)))
def test_whatever_the_mask_pruned_weights_stay_zero_and_the_others_train(seed: int, share: float, name: str) -> None:
    model = seeded(mlp, seed)
    masks = masked(model, share)
    before = model[4].weight.detach().clone()
    found = train(model, masks, stepper(OPTIMIZERS[name], lambda model: None, n=2))
    assert found.revived == 0
    assert alive(model, masks) == 0
    assert not torch.equal(before, model[4].weight) or not masks["4.weight"].any()


def test_every_error_has_a_cause_and_a_remedy() -> None:
    with pytest.raises(PruneProofError) as caught:
        train(seeded(mlp), {}, lambda model, **_: None)
    assert caught.value.cause
    assert caught.value.remedy
