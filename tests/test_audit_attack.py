"""The audit's attack: what of it a user may rely on, whatever the model."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ascent import CROSS_ENTROPY, MARGIN, Ascent, Climb, cosine, objective, way_left
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.convolutions import FastFirstLayers
from pruneproof.adversarial.pursuit import CHECKED, Leg, Pursuit, tiles
from pruneproof.adversarial.victim import Gradient, Victim
from pruneproof.attacks.audit import ATTACK, Options
from pruneproof.domain import Criterion
from pruneproof.errors import MeasurementError


def network(seed: int, classes: int = 4, elements: int = 10) -> nn.Sequential:
    """A random smooth network, not trained: examples get what it says of them as targets."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(elements, 16), nn.Tanh(), nn.Linear(16, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.8)
    return model.eval()


def examples(model: nn.Module, n: int = 60, elements: int = 10, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.rand(n, elements, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return clean, model(clean).argmax(dim=1)


def attacked(victims: list[Victim], clean: torch.Tensor, space: Any, own: Any = None, **arena: Any) -> Arena:
    found = Arena(victims, clean, space, seed=3, **arena)
    ATTACK.run(found, Options(**(own or {})))
    return found


@pytest.mark.parametrize("strength", ["quick", "standard"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.3), ("L1", 0.6), ("L0", 2.0)])
def test_everything_that_fell_fell_by_a_point_of_the_space_that_the_model_answers_wrongly(
    strength: str, norm: Any, eps: float
) -> None:
    model = network(0)
    clean, targets = examples(model)
    space = Ball(norm, eps, 0.0, 1.0)
    arena = attacked([Victim("dense", model, targets, batch=16)], clean, space, {"strength": strength})
    fallen = (~arena.standing[0]).nonzero().flatten().tolist()
    assert len(fallen) > 10
    for row in fallen:
        point = arena.pool.points[int(arena.fell_by[0, row])][None]
        assert bool(space.contains(clean[[row]], point))
        with torch.no_grad():
            assert int(model(point).argmax()) != int(targets[row])
    assert all(stage.refused == 0 for stage in arena.stages)
    assert all(stage.fell <= stage.tried for stage in arena.stages)


def test_what_stands_is_not_taken_by_any_point_that_took_another_variant() -> None:
    model = network(0)
    clean, targets = examples(model, n=120)
    others = [network(0), network(0)]
    with torch.no_grad():
        for share, other in zip((0.1, 0.3), others, strict=True):
            for parameter in other.parameters():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
                parameter += share * noise
    victims = [Victim(str(place), one, targets, batch=32) for place, one in enumerate([model, *others])]
    arena = attacked(victims, clean, Ball("Linf", 0.08, 0.0, 1.0), {"strength": "quick"})
    taken = 0
    for place, victim in enumerate(victims):
        for row, point in zip(arena.pool.rows, arena.pool.points, strict=True):
            if bool(arena.standing[place, row]):
                taken += 1
                with torch.no_grad():
                    assert int(victim.model(point[None]).argmax()) == int(targets[row])
    assert taken > 10
    assert any(stage.fell for stage in arena.stages if stage.name == "pool")


def test_the_same_seed_gives_the_same_points_however_often_it_runs() -> None:
    model = network(2)
    clean, targets = examples(model)
    runs = [attacked([Victim("dense", model, targets, batch=16)], clean, Ball("Linf", 0.1, 0.0, 1.0)) for _ in range(2)]
    assert torch.equal(runs[0].standing, runs[1].standing)
    assert runs[0].pool.rows == runs[1].pool.rows
    assert all(torch.equal(a, b) for a, b in zip(runs[0].pool.points, runs[1].pool.points, strict=True))


def test_every_variant_starts_an_example_from_the_same_random_point() -> None:
    model = network(0)
    clean, targets = examples(model)
    seen: dict[str, torch.Tensor] = {}

    class Noted(Victim):
        def gradient(self, points: torch.Tensor, rows: torch.Tensor, *rest: Any) -> Gradient:
            for row, point in zip(rows.tolist(), points.clone(), strict=True):
                seen.setdefault(f"{self.name} {row}", point)
            return super().gradient(points, rows, *rest)

    def constant(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return points

    victims = [Noted(name, model, targets, constant, batch=64) for name in ("dense", "pruned")]
    # nobody's point takes the other: an empty ball
    attacked([*victims], clean, Ball("Linf", 1e-6, 0.0, 1.0), {"strength": "quick"})
    assert len(seen) == 120
    assert all(torch.equal(seen[f"dense {row}"], seen[f"pruned {row}"]) for row in range(60))
    assert not torch.equal(seen["dense 0"], clean[0])


def test_the_global_random_state_and_the_model_are_as_they_were() -> None:
    model = network(1).train()
    modes = [module.training for module in model.modules()]
    model[1].eval()
    modes = [module.training for module in model.modules()]
    clean, targets = examples(model)
    before = torch.get_rng_state()
    weights = [parameter.clone() for parameter in model.parameters()]
    attacked([Victim("dense", model, targets, batch=16)], clean, Ball("L2", 0.3, 0.0, 1.0))
    assert torch.equal(before, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(old, new) for old, new in zip(weights, model.parameters(), strict=True))


class Refuses(nn.Module):
    """Raises at the third pass with gradients."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.passes = inner, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.passes += inputs.requires_grad or inputs.grad_fn is not None
        if self.passes > 2:
            raise KeyboardInterrupt
        return self.inner(inputs)


def test_an_interrupted_attack_leaves_the_model_as_it_was() -> None:
    inner = network(1)
    clean, targets = examples(inner)
    model = Refuses(inner).train()
    victim = Victim("dense", model, targets, batch=16)
    with pytest.raises(KeyboardInterrupt):
        attacked([victim], clean, Ball("Linf", 0.1, 0.0, 1.0), {"precision": "bfloat16"})
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert victim.approximate is None


@pytest.mark.parametrize("own", [{"precision": "bfloat16"}, {"channels_last": True}])
def test_gradients_of_a_cheaper_copy_never_make_a_success_that_the_model_itself_does_not_confirm(own: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    clean = torch.rand(80, 2, 6, 6, generator=generator)
    with torch.no_grad():
        targets = model(clean).argmax(dim=1)
    space = Ball("Linf", 0.02, 0.0, 1.0)
    plain = attacked([Victim("dense", model, targets, batch=32)], clean, space)
    cheap = attacked([Victim("dense", model, targets, batch=32)], clean, space, own)
    for row in (~cheap.standing[0]).nonzero().flatten().tolist():
        with torch.no_grad():
            assert int(model(cheap.pool.points[int(cheap.fell_by[0, row])][None]).argmax()) != int(targets[row])
    assert 10 < int((~plain.standing).sum()) < 75
    assert abs(int(plain.standing.sum()) - int(cheap.standing.sum())) <= 2
    assert next(model.parameters()).dtype == torch.float32


def test_an_aimed_attack_counts_no_other_answer_than_the_one_aimed_at() -> None:
    model = network(0)
    clean, targets = examples(model)
    arena = attacked([Victim("dense", model, targets, batch=16)], clean, Ball("Linf", 0.2, 0.0, 1.0), aim=1)
    fallen = [row for row in range(60) if not bool(arena.standing[0, row]) and int(targets[row]) != 1]
    assert len(fallen) > 10
    for row in fallen:
        with torch.no_grad():
            assert int(model(arena.pool.points[int(arena.fell_by[0, row])][None]).argmax()) == 1


def test_a_criterion_of_the_subjects_own_is_all_that_counts() -> None:
    model = nn.Linear(10, 1)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-1, 1, 10)[None])
        model.bias.zero_()
    clean = torch.rand(40, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        targets = model(clean)[:, 0]
    reach = 0.1 * model.weight.detach().abs().sum().item()
    # the output may not move by more than that; away from the box's edge it can move by ``reach``
    criterion = Criterion(
        loss=lambda output, target: (output[:, 0] - target).abs(),
        fooled=lambda output, target: (output[:, 0] - target).abs() > 0.6 * reach,
    )
    victim = Victim("dense", model, targets, criterion=criterion, batch=16)
    arena = attacked([victim], clean, Ball("Linf", 0.1, -1.0, 2.0))
    assert not arena.standing.any()
    # a criterion that nothing within the ball can meet
    never = Criterion(loss=criterion.loss, fooled=lambda output, target: (output[:, 0] - target).abs() > 1.01 * reach)
    assert attacked(
        [Victim("dense", model, targets, criterion=never, batch=16)], clean, Ball("Linf", 0.1, -1.0, 2.0)
    ).standing.all()


class Noisy(nn.Module):
    """Draws random numbers in every pass."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs) + 0.05 * torch.randn(len(inputs), 4)


def test_of_a_model_that_draws_random_numbers_as_many_fall_as_of_the_one_without_but_for_a_few() -> None:
    inner = network(0)
    clean, targets = examples(inner, n=100)
    space = Ball("Linf", 0.1, 0.0, 1.0)
    plain = attacked([Victim("dense", inner, targets, batch=32)], clean, space)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noisy = attacked([Victim("dense", Noisy(inner), targets, batch=32, draws=8)], clean, space)
    assert abs(int(plain.standing.sum()) - int(noisy.standing.sum())) <= 5


def test_steps_grow_with_the_option_and_none_is_longer_than_the_budget() -> None:
    for steps in (1, 7, 100):
        sizes = cosine(steps)
        assert len(sizes) == steps
        assert sizes[0] == 1
        assert all(a > b > 0 for a, b in itertools.pairwise(sizes))
    model = network(0)
    clean, targets = examples(model)
    work = []
    for steps in (20, 40):
        victim = Victim("dense", model, targets, batch=16)
        attacked([victim], clean, Ball("Linf", 1e-6, 0.0, 1.0), {"steps": steps, "strength": "quick"})
        work.append(victim.work.gradients)
    assert work[1] == 2 * work[0]


@given(st.lists(st.floats(-50, -1e-3), min_size=1, max_size=8), st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_what_is_left_of_the_way_does_not_depend_on_the_scale_of_the_scores(leads: list[float], scale: float) -> None:
    led = torch.tensor(leads, dtype=torch.float64)
    clean = led * 2 - 0.1
    found, other = way_left(led, clean), way_left(led * scale, clean * scale)
    # of a lead of -m that was -2m - 0.1 at the clean point m + 0.1 were gained, and m are left
    expected = -led / (0.1 - led)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(other, expected)


@pytest.mark.parametrize(("led", "clean"), [(-1.0, -1.0), (-1.0, -0.5), (-1.0, -1.001), (math.nan, -1.0), (0.5, -1.0)])
def test_nobody_is_out_of_reach_where_gradients_lead_nowhere_or_nothing_is_known(led: float, clean: float) -> None:
    found = way_left(torch.tensor([led], dtype=torch.float64), torch.tensor([clean], dtype=torch.float64))
    assert float(found) == 0


def test_a_saturated_softmax_has_a_gradient_from_the_first_step() -> None:
    scores = torch.tensor([[200.0, 0.0, -5.0]], requires_grad=True)
    targets = torch.tensor([0])
    (flat,) = torch.autograd.grad(functional.cross_entropy(scores, targets), scores)
    assert not flat.any()  # what PGD would follow
    each = objective(torch.tensor([CROSS_ENTROPY]), None)(scores, targets)
    (led,) = torch.autograd.grad(each.sum(), scores)
    assert led.tolist() == [[-1.0, 1.0, 0.0]]


def test_climbs_with_unlike_goals_share_a_batch() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0]] * 3)
    targets = torch.tensor([0, 0, 0])
    each = objective(torch.tensor([CROSS_ENTROPY, MARGIN, 2]), None)(scores, targets)
    expected = [-math.log(math.exp(3) / sum(map(math.exp, (1, 2, 3)))), -1.0, -2.0]
    assert each.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_goals_of_examples_that_fill_up_a_batch_change_nothing() -> None:
    model = network(0)
    clean, targets = examples(model, n=5)
    found = []
    for batch in (5, 8):
        arena = Arena([victim := Victim("dense", model, targets, batch=batch)], clean, Ball("Linf", 0.01, 0, 1), seed=0)
        climb = Climb(torch.arange(5), clean.clone(), torch.tensor([CROSS_ENTROPY, MARGIN, 2, 3, MARGIN]))
        with arena.stage("climb", victim, 5) as stage:
            found.append(Ascent(arena, victim, stage, cosine(4)).run(climb).points)
    torch.testing.assert_close(*found)


def test_an_example_out_of_reach_is_left_alone_but_for_the_checked() -> None:
    model = network(0)
    clean, targets = examples(model, n=200)
    legs = [Leg("first", 2, "entropy", "fresh", last=False), Leg("second", 3, "lead", reach=5.0)]
    tried = {}
    for checked in (0.0, 1.0):
        arena = Arena([Victim("dense", model, targets, batch=32)], clean, Ball("Linf", 0.02, 0.0, 1.0), seed=0)
        Pursuit(arena, legs, checked=checked).run()
        tried[checked] = {stage.name: stage.tried for stage in arena.stages}
    assert tried[0.0]["second"] < tried[1.0]["second"]
    assert CHECKED not in tried[0.0]
    assert tried[1.0][CHECKED] == tried[1.0]["second"] - tried[0.0]["second"] > 20


def test_where_a_checked_example_falls_those_like_it_are_attacked_as_well() -> None:
    model = network(0)
    clean, targets = examples(model, n=300)
    # one step reaches hardly anybody, and who has more than nothing left of the way is given up: that is wrong
    legs = [Leg("first", 1, "entropy", "fresh", last=False), Leg("second", 8, "lead", reach=0.0)]
    fallen = {}
    for checked in (0.0, 0.3, 1.0):
        arena = Arena([Victim("dense", model, targets, batch=32)], clean, Ball("Linf", 0.1, 0.0, 1.0), seed=0)
        Pursuit(arena, legs, checked=checked).run()
        fallen[checked] = int((~arena.standing).sum())
    given_away = fallen[1.0] - fallen[0.0]
    assert given_away > 60
    # a third of them is attacked to the end anyway
    assert fallen[1.0] - fallen[0.3] < 0.1 * given_away


def test_a_climb_that_is_far_behind_ends_early_and_is_finished_where_a_checked_one_fell_that_was_as_far() -> None:
    model = network(0)
    clean, targets = examples(model, n=300)
    fallen, spent, names = {}, {}, {}
    for checked in (0.0, 0.2, 1.0):
        # nobody may be behind, and most are
        legs = [Leg("first", 12, "lead", "fresh", hope=1e-6)]
        victim = Victim("dense", model, targets, batch=32)
        arena = Arena([victim], clean, Ball("Linf", 0.1, 0.0, 1.0), seed=0)
        Pursuit(arena, legs, checked=checked).run()
        fallen[checked], spent[checked] = int((~arena.standing).sum()), victim.work.gradients
        names[checked] = [stage.name for stage in arena.stages]
    assert spent[0.0] < spent[1.0]
    assert fallen[0.0] < fallen[0.2] == fallen[1.0]
    assert "first to the end" in names[0.2]
    assert "first to the end" not in names[0.0] + names[1.0]


def test_the_last_few_climbs_take_their_gradients_in_small_batches_and_successes_are_confirmed_in_whole_ones() -> None:
    model = network(0)
    clean, targets = examples(model, n=70)
    sizes: dict[bool, set[int]] = {True: set(), False: set()}

    def noted(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        sizes[points.requires_grad].add(len(points))
        return points

    attacked([Victim("dense", model, targets, noted, batch=64)], clean, Ball("Linf", 0.05, 0.0, 1.0))
    assert sizes[False] == {64}
    assert sizes[True] <= {8, 16, 24, 32, 40, 48, 56, 64}
    assert len(sizes[True]) > 2


def test_reference_refuses_what_autoattack_does_not_know() -> None:
    model = network(0, classes=3)
    clean, targets = examples(model)
    with pytest.raises(MeasurementError, match="APGDT"):
        attacked([Victim("dense", model, targets)], clean, Ball("Linf", 0.1, 0.0, 1.0), {"strength": "reference"})
    with pytest.raises(MeasurementError, match="Linf and L2"):
        attacked([Victim("dense", model, targets)], clean, Ball("L1", 0.1, 0.0, 1.0), {"strength": "reference"})


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_gradient_of_a_first_layer_is_the_same_by_the_faster_formula(data: st.DataObject) -> None:
    channels, apart = data.draw(st.sampled_from([(1, False), (3, True), (1, True)]))
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = kernel if apart else data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = (0, 0) if apart else data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    layer = (
        nn.Conv2d(channels, 5, kernel, stride, padding, bias=data.draw(st.booleans())).double().requires_grad_(False)
    )
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 100)))
    image = torch.rand(3, channels, 9, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    weights = torch.rand(layer(image).shape, dtype=torch.float64, generator=generator)
    (expected,) = torch.autograd.grad((layer(image) * weights).sum(), image)
    with FastFirstLayers():
        made = layer(image)
        (found,) = torch.autograd.grad((made * weights).sum(), image)
    assert "_Convolution" in type(made.grad_fn).__name__
    torch.testing.assert_close(found, expected)
    assert torch.equal(made, layer(image))


def test_tiles_are_corners_of_the_ball_the_same_for_whoever_asks_and_others_for_every_climb() -> None:
    clean = 0.3 + 0.4 * torch.rand(6, 3, 16, 10, generator=torch.Generator().manual_seed(0))
    arena = Arena([], clean, Ball("Linf", 0.1, 0.0, 1.0), seed=0)
    first, again, other = tiles(arena, 0, 0), tiles(arena, 0, 0), tiles(arena, 0, 1)
    torch.testing.assert_close((first - clean).abs(), torch.full_like(clean, 0.1))
    assert torch.equal(first, again)
    assert 0.3 < (first == other).double().mean() < 0.7
    # of 16 rows in thirds six go together, of 10 columns four
    signs = (first > clean)[:, :, :12, :8].reshape(6, 3, 2, 6, 2, 4)
    assert (signs == signs[:, :, :, :1, :, :1]).all()
