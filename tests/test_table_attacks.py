"""Attacks on rows of a table: against closed forms, against every valid row, and on the embedded subjects."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_oracle import Case, cases, problems
from torch import nn

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.rows import RowSpace
from pruneproof.adversarial.stated import validate
from pruneproof.adversarial.victim import Victim
from pruneproof.attacks import table_audit, table_gradient, table_search
from pruneproof.domain import Column, Criterion, OneHot, Sum, Table
from pruneproof.errors import MeasurementError, SubjectError
from pruneproof.subject import Subject

ATTACKS = (table_gradient, table_search, table_audit)


def linear(weights: Any, bias: float = 0.0) -> nn.Linear:
    """One logit: ``weights · row + bias``."""
    model = nn.Linear(len(weights), 1)
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(weights)[None])
        model.bias.fill_(bias)
    return model


class Scores(nn.Module):
    """A model that is a function, for those without parameters or gradients."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.function(rows)


def attacked(
    attack: ModuleType,
    models: dict[str, nn.Module],
    clean: torch.Tensor,
    space: RowSpace,
    targets: torch.Tensor | None = None,
    seed: int = 0,
    **options: Any,
) -> Arena:
    """The arena after the attack; without ``targets`` the first model's own answers are right."""
    for model in models.values():
        model.eval()
    if targets is None:
        targets = Victim("", next(iter(models.values())), torch.zeros(len(clean))).answers(
            clean, torch.arange(len(clean))
        )
    victims = [Victim(name, model, targets, batch=256) for name, model in models.items()]
    arena = Arena(victims, clean, space, seed)
    attack.ATTACK.run(arena, attack.ATTACK.options(**options))
    return arena


def only_valid(arena: Arena, table: Table) -> None:
    """Every point that counts is a valid row within the budget, by a plain account of it."""
    space = arena.space
    assert isinstance(space, RowSpace)
    case = Case(table, arena.clean, space.norm, space.eps)
    for row, point in zip(arena.pool.rows, arena.pool.points, strict=True):
        assert problems(case, arena.clean[row], point) == []


# Closed forms


def knapsack(change: np.ndarray, costs: np.ndarray, low: np.ndarray, high: np.ndarray, eps: float, norm: str) -> float:
    """How far a linear function can be raised: of L1 the best value for money first, of Linf each as far as it goes."""
    room = np.where(change > 0, high, -low)
    gain = np.abs(change)
    if norm == "Linf":
        return float((gain * np.minimum(room, eps / costs)).sum())
    total, rest = 0.0, eps
    for place in np.argsort(-gain / costs):
        bought = min(room[place], rest / costs[place])
        total, rest = total + gain[place] * bought, rest - bought * costs[place]
    return total


@pytest.mark.parametrize("attack", [table_gradient, table_audit])
@pytest.mark.parametrize("norm", ["L1", "Linf"])
@pytest.mark.parametrize("seed", range(4))
def test_of_a_linear_model_every_example_falls_that_can_fall_and_no_other(
    attack: ModuleType, norm: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    d, n, eps = 6, 300, {"L1": 1.0, "Linf": 0.3}[norm]
    costs = rng.uniform(0.3, 3, d)
    ways = ["any", "up", "down", "any", "any", "any"]
    mutable = [True, True, True, True, True, False]
    clean = rng.uniform(-1, 1, (n, d))
    weights = rng.normal(size=d)
    columns = [Column(f"x{i}", "real", mutable[i], -1, 1, ways[i], float(costs[i])) for i in range(d)]  # type: ignore[arg-type]
    rows = torch.from_numpy(clean)
    arena = attacked(attack, {"m": linear(weights).double()}, rows, RowSpace(Table(columns), norm, eps))
    logits = clean @ weights
    stands = []
    for row, logit in zip(clean, logits, strict=True):
        low, high = -1 - row, 1 - row
        for place, (way, free) in enumerate(zip(ways, mutable, strict=True)):
            low[place] = 0 if way == "up" or not free else low[place]
            high[place] = 0 if way == "down" or not free else high[place]
        most = knapsack(-np.sign(logit) * weights, costs, low, high, eps, norm)
        assert abs(most - abs(logit)) > 1e-6
        stands.append(most < abs(logit))
    assert 0.2 < np.mean(stands) < 0.95
    assert arena.standing[0].tolist() == stands
    only_valid(arena, Table(columns))


@pytest.mark.parametrize("seed", range(3))
def test_of_a_linear_model_in_l2_the_dual_norm_says_who_falls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs, weights, clean = rng.uniform(0.3, 3, 5), rng.normal(size=5), rng.normal(size=(300, 5))
    table = Table([Column(f"x{i}", cost=float(costs[i])) for i in range(5)])
    arena = attacked(
        table_gradient, {"m": linear(weights).double()}, torch.from_numpy(clean), RowSpace(table, "L2", 0.4)
    )
    most = 0.4 * np.linalg.norm(weights / costs)
    assert arena.standing[0].tolist() == (np.abs(clean @ weights) > most).tolist()
    only_valid(arena, table)


def test_gradients_go_through_derived_columns_and_totals_to_what_can_be_changed() -> None:
    # The model sees log x and the total alone; at most 2 can be added to x, or 1 to either part.
    table = Table(
        [
            Column("x", low=0.1),
            Column("log x", "derived"),
            Column("a", cost=2.0),
            Column("b", cost=4.0),
            Column("all", cost=0.0),
        ],
        sums=[Sum(("a", "b"), "all")],
        derive=lambda rows, clean: torch.cat([rows[:, :1], rows[:, :1].log(), rows[:, 2:]], dim=1),
    )
    rng = np.random.default_rng(0)
    x, a, b = rng.uniform(0.5, 5, (3, 200))
    clean = torch.from_numpy(np.stack([x, np.log(x), a, b, a + b], axis=1))
    model = linear([0.0, 1.0, 0.0, 0.0, 0.3], bias=-4.5).double()
    arena = attacked(table_gradient, {"m": model}, clean, RowSpace(table, "Linf", 2.0), torch.zeros(200), steps=30)
    # Linf: x may rise by 2, a by 1, b by 1/2.
    best = np.log(x + 2) + 0.3 * (a + 1 + b + 0.5) - 4.5
    assert 0.05 < np.mean(best < 0) < 0.95
    assert arena.standing[0].tolist() == (best < 0).tolist()
    only_valid(arena, table)


@pytest.mark.parametrize("norm", ["L1", "L2", "Linf"])
def test_gradients_choose_categories_and_groups_as_trying_all_of_them_does(norm: str) -> None:
    table = Table(
        [
            Column("c", "category", values=(0.0, 1.0, 2.0), cost=1.0),
            *map(Column, ("g0", "g1", "g2")),
            Column("fixed", mutable=False),
        ],
        [OneHot("g", ("g0", "g1", "g2"), cost=1.5)],
    )
    rng = np.random.default_rng(1)
    codes, which = rng.integers(3, size=200), rng.integers(3, size=200)
    clean = torch.from_numpy(np.column_stack([codes, np.eye(3)[which], rng.uniform(-3, 3, 200)]))
    weights = np.array([0.7, -1.0, 0.4, 1.2, 1.0])
    eps = 2.0
    arena = attacked(table_gradient, {"m": linear(weights).double()}, clean, RowSpace(table, norm, eps))
    stands = []
    for row, code, group in zip(clean.numpy(), codes, which, strict=True):
        answers = set()
        for c, g in itertools.product(range(3), range(3)):
            spent = np.array([1.0 * (c != code), 1.5 * (g != group)])
            if np.linalg.norm(spent, {"L1": 1, "L2": 2, "Linf": np.inf}[norm]) <= eps:
                answers.add(bool(np.concatenate([[c], np.eye(3)[g], row[4:]]) @ weights >= 0))
        stands.append(len(answers) == 1)
    assert arena.standing[0].tolist() == stands


# Against every valid row


def tiny(rng: np.random.Generator) -> tuple[Table, torch.Tensor, list[range | tuple[float, ...]]]:
    table = Table(
        [
            Column("k", "integer", low=-2, high=3, cost=0.5),
            Column("j", "integer", low=0, high=2, direction="up"),
            Column("c", "category", values=(0.0, 1.0, 4.0), cost=1.5),
            Column("a", "integer", low=0, high=3),
            Column("b", "integer", low=0, high=3),
            Column("ab", "integer", mutable=False),
        ],
        sums=[Sum(("a", "b"), "ab")],
        valid=lambda rows, clean: rows[:, 0] + rows[:, 1] <= 4,
    )
    clean = np.stack(
        [rng.integers(-2, 3, 40), rng.integers(0, 3, 40), rng.choice([0, 1, 4], 40), *rng.integers(0, 4, (2, 40))],
        axis=1,
    )
    clean = np.column_stack([clean, clean[:, 3] + clean[:, 4]])
    grid: list[range | tuple[float, ...]] = [range(-2, 4), range(3), (0.0, 1.0, 4.0), range(4), range(4)]
    return table, torch.from_numpy(clean.astype(np.float32)), grid


@pytest.mark.parametrize("norm", ["L1", "L2", "Linf"])
@pytest.mark.parametrize("attack", [table_search, table_audit])
def test_with_enough_queries_the_search_finds_what_trying_every_valid_row_finds(attack: ModuleType, norm: str) -> None:
    table, clean, grid = tiny(np.random.default_rng(0))
    validate(table, clean)
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    space = RowSpace(table, norm, 2.0)
    arena = attacked(attack, {"m": model}, clean, space, queries=2000)
    stands = []
    for row in clean:
        case = Case(table, clean, norm, 2.0)
        every = torch.tensor([[*values, float(row[5])] for values in itertools.product(*grid)])
        valid = [p for p in every if problems(case, row, p) == [] and p[0] + p[1] <= 4]
        assert len(valid) > 1
        with torch.no_grad():
            stands.append(len(set(model(torch.stack(valid)).argmax(dim=1).tolist())) == 1)
    assert 0 < np.mean(stands) < 1
    assert arena.standing[0].tolist() == stands


def test_evolution_finds_most_of_what_there_is_with_a_tenth_of_the_rows() -> None:
    rng = np.random.default_rng(3)
    table = Table([Column(f"k{i}", "integer", low=0, high=9) for i in range(4)])
    clean = torch.from_numpy(rng.integers(0, 10, (30, 4)).astype(np.float32))
    # A needle: wrong only where two remainders meet, no slope leads there.
    model = Scores(
        lambda rows: ((rows[:, 0] * 3 + rows[:, 1]) % 7 == 6).float() + ((rows[:, 2] - rows[:, 3]) % 5 == 4) - 1.5
    )
    space, targets = RowSpace(table, "L1", 8.0), torch.zeros(30)
    few = attacked(table_search, {"m": model}, clean, space, targets, queries=500)
    every = attacked(table_search, {"m": model}, clean, space, targets, queries=20_000)
    assert "every valid row" in {stage.name for stage in every.stages if stage.fell}
    assert int(every.standing.sum()) <= int(few.standing.sum()) <= int(every.standing.sum()) + 3


def test_a_search_asks_no_more_than_its_queries_and_says_after_how_many_each_fell() -> None:
    table = Table([Column(f"x{i}", low=-2, high=2) for i in range(5)])
    clean = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    model = linear([1.0, -1.0, 0.5, 0.2, 0.0])
    arena = attacked(table_search, {"m": model}, clean, RowSpace(table, "L1", 0.5), queries=100)
    asked = arena.queries["m"]
    fell = ~arena.standing[0]
    assert 0 < int(fell.sum()) < 60
    assert torch.equal(asked.isfinite(), fell)
    assert float(asked[fell].min()) >= 1
    assert float(asked[fell].max()) <= 100
    search = next(stage for stage in arena.stages if stage.name == "search")
    assert search.forwards <= 60 * 100 + int(fell.sum())  # each success is confirmed once


def test_a_search_of_what_does_not_fall_asks_exactly_its_queries() -> None:
    table = Table([Column("x", low=-2, high=2), Column("y")])
    never = Scores(lambda rows: 0 * rows[:, 0] - 1)
    arena = attacked(table_search, {"m": never}, torch.zeros(7, 2), RowSpace(table, "L1", 0.5), queries=61)
    assert [stage.forwards for stage in arena.stages if stage.name == "search"] == [7 * 61]


def test_each_setting_of_a_choice_is_tried_before_anything_is_left_to_chance() -> None:
    codes = tuple(float(code) for code in range(12))
    table = Table([Column("x"), Column("c", "category", values=codes)])
    model = Scores(lambda rows: (rows[:, 1] == 11).float() - 0.5)
    arena = attacked(table_search, {"m": model}, torch.zeros(9, 2), RowSpace(table, "L1", 1.0), queries=14)
    assert not bool(arena.standing.any())


# What holds whatever the table


@settings(max_examples=40, deadline=None)
@given(cases(rows=6), st.integers(0, 1000))
def test_no_attack_submits_an_invalid_row(case: Case, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    width = case.clean.shape[1]
    model = linear(torch.randn(width, generator=generator).tolist()).to(case.clean.dtype)
    validate(case.table, case.clean)
    for attack in ATTACKS:
        options = {
            key: value
            for key, value in (("steps", 4), ("restarts", 1), ("queries", 60))
            if key in attack.Options.model_fields
        }
        space = RowSpace(case.table, case.norm, case.eps)
        arena = attacked(attack, {"m": model}, case.clean, space, **options)
        assert sum(stage.refused for stage in arena.stages) == 0
        for row, point in zip(arena.pool.rows, arena.pool.points, strict=True):
            assert problems(case, case.clean[row], point) == []


def noisy() -> tuple[Table, torch.Tensor, dict[str, nn.Module]]:
    table = Table([*(Column(f"x{i}") for i in range(4)), Column("c", "category", values=(0.0, 1.0, 2.0), cost=0.4)])
    generator = torch.Generator().manual_seed(7)
    clean = torch.cat([torch.randn(80, 4, generator=generator), torch.randint(3, (80, 1), generator=generator)], dim=1)
    models: dict[str, nn.Module] = {}
    for name in ("dense", "pruned"):
        model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        models[name] = model
    models["pruned"].load_state_dict(models["dense"].state_dict())
    with torch.no_grad():
        models["pruned"][0].weight[models["pruned"][0].weight.abs() < 0.6] = 0  # type: ignore[index,union-attr,operator]
    return table, clean, models


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_same_seed_gives_the_same_points(attack: ModuleType) -> None:
    table, clean, models = noisy()
    space = RowSpace(table, "L1", 0.6)
    first, second = (attacked(attack, models, clean, space, seed=5) for _ in range(2))
    assert torch.equal(first.standing, second.standing)
    assert 0 < int(first.standing.sum()) < first.standing.numel()
    assert all(map(torch.equal, first.pool.points, second.pool.points))


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_together_a_variant_never_stands_where_it_fell_alone(attack: ModuleType) -> None:
    table, clean, models = noisy()
    space = RowSpace(table, "L1", 0.6)
    targets = torch.arange(80) % 3
    together = attacked(attack, models, clean, space, targets)
    alone = attacked(attack, {"dense": models["dense"]}, clean, space, targets)
    assert bool((together.standing[0] <= alone.standing[0]).all())


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_only_a_later_variant_shows_the_way_to_fools_the_earlier_one_too(attack: ModuleType) -> None:
    table = Table([Column(f"x{i}", low=-1, high=1) for i in range(4)])

    def slope(rows: torch.Tensor) -> torch.Tensor:
        return 0.15 - (rows - torch.tensor([0.7, -0.6, 0.5, 0.65])).abs().sum(dim=1)

    def cliff(rows: torch.Tensor) -> torch.Tensor:  # wrong at the same rows, and flat
        return slope(rows).sign() + 0 * rows.sum(dim=1)

    models: dict[str, nn.Module] = {"dense": Scores(cliff), "pruned": Scores(slope)}
    clean, targets = torch.zeros(20, 4), torch.zeros(20)
    arena = attacked(attack, models, clean, RowSpace(table, "Linf", 1.0), targets)
    assert int((~arena.standing[1]).sum()) >= 5
    assert torch.equal(arena.standing[0], arena.standing[1])
    assert {arena.stages[stage].name for stage in arena.fell_at[0].tolist() if stage >= 0} == {"closure"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_model_and_random_state_are_as_they_were_after_an_attack_and_after_one_that_raises(attack: ModuleType) -> None:
    table, clean, models = noisy()
    model = models["dense"].train()
    model[0].eval()  # type: ignore[index,operator]
    model[0].weight.requires_grad_(False)  # type: ignore[index,union-attr,operator]
    before = [part.clone() for part in model.state_dict().values()]
    modes = [part.training for part in model.modules()]
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    victim = Victim("m", model, torch.zeros(len(clean)))

    def last(rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    broken = Table(table.columns, valid=last)
    for space, fails in ((RowSpace(table, "L1", 0.6), False), (RowSpace(broken, "L1", 0.6), True)):
        arena = Arena([victim], clean, space, 0, standing=torch.ones(1, len(clean), dtype=torch.bool))
        if fails:
            with pytest.raises(SubjectError, match="raised ValueError: no"):
                attack.ATTACK.run(arena, attack.ATTACK.options())
        else:
            attack.ATTACK.run(arena, attack.ATTACK.options())
        assert [part.training for part in model.modules()] == modes
        assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(map(torch.equal, before, model.state_dict().values()))
        assert torch.equal(states[0], torch.get_rng_state())
        assert np.array_equal(states[1], np.random.get_state()[1])  # type: ignore[index]


def test_one_class_can_be_aimed_at() -> None:
    table, clean, models = noisy()
    targets = Victim("", models["dense"].eval(), torch.zeros(80)).answers(clean, torch.arange(80))
    victim = Victim("dense", models["dense"], targets)
    arena = Arena([victim], clean, RowSpace(table, "L1", 0.6), 0, aim=2)
    table_audit.ATTACK.run(arena, table_audit.Options())
    found = torch.stack(arena.pool.points)
    with torch.no_grad():
        assert set(models["dense"](found).argmax(dim=1).tolist()) == {2}


def test_a_criterion_of_the_subjects_own_is_attacked_too() -> None:
    table = Table([Column("x"), Column("y", mutable=False)])
    clean = torch.linspace(-3, 3, 50)[:, None].repeat(1, 2)
    model = linear([1.0, 0.0])
    hurt = Criterion(loss=lambda out, targets: out[:, 0], fooled=lambda out, targets: out[:, 0] > 2)
    for attack in ATTACKS:
        victim = Victim("m", model, torch.zeros(50), criterion=hurt)
        arena = Arena([victim], clean, RowSpace(table, "L1", 1.0), 0)
        attack.ATTACK.run(arena, attack.ATTACK.options())
        assert arena.standing[0].tolist() == (clean[:, 0] + 1 <= 2).tolist()


# Models without gradients


def steps(rows: torch.Tensor) -> torch.Tensor:
    """A model as of trees: constant almost everywhere."""
    return (rows[:, 0].detach() > 0.5).float() + (rows[:, 1].detach() > 0.5).float() - 1.5


STEPPED = Table([Column("x", low=0, high=1), Column("y", low=0, high=1)])


def test_a_model_without_gradients_is_searched_and_the_audit_says_why() -> None:
    clean = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.from_numpy((clean > 0.5).all(dim=1).numpy().astype(np.int64))
    space = RowSpace(STEPPED, "L1", 0.2)
    # With 0.2 to spend: down, if one of both comes below; up, if both come above.
    short = (0.5 - clean).clamp(min=0).sum(dim=1)
    stands = torch.where(targets == 1, (clean - 0.5).amin(dim=1) > 0.2, short > 0.2)
    with pytest.raises(MeasurementError, match="backward pass raised"):
        attacked(table_gradient, {"m": Scores(steps)}, clean, space, targets)
    for attack in (table_search, table_audit):
        arena = attacked(attack, {"m": Scores(steps)}, clean, space, targets, queries=1000)
        assert int((arena.standing[0] != stands).sum()) == 0
    assert any(stage.name.startswith("no gradients: m: its backward pass raised") for stage in arena.stages)
    with pytest.raises(MeasurementError):
        attacked(table_audit, {"m": Scores(steps)}, clean, space, targets, queries=0)


def test_rows_of_integers_are_searched_and_have_no_gradients() -> None:
    table = Table([Column("k", "integer", low=0, high=9), Column("c", "category", values=(0.0, 1.0, 2.0))])
    clean = torch.stack([torch.arange(10), torch.arange(10) % 3], dim=1)
    embedding = nn.Embedding.from_pretrained(torch.arange(10.0)[:, None])
    model = Scores(lambda rows: embedding(rows[:, 0])[:, 0] + rows[:, 1] - 6.5)
    validate(table, clean)
    space = RowSpace(table, "L1", 2.0)
    with pytest.raises(MeasurementError, match="have no gradient"):
        attacked(table_gradient, {"m": model}, clean, space)
    arena = attacked(table_search, {"m": model}, clean, space)
    # Two units of k, or one of k and a change of c by up to 2.
    total = (clean[:, 0] + clean[:, 1]).double()
    room_up = torch.maximum((9 - clean[:, 0]).clamp(max=2), (9 - clean[:, 0]).clamp(max=1) + 2 - clean[:, 1])
    room_down = torch.maximum(clean[:, 0].clamp(max=2), clean[:, 0].clamp(max=1) + clean[:, 1])
    stands = torch.where(total > 6.5, total - room_down > 6.5, total + room_up < 6.5)
    assert arena.standing[0].tolist() == stands.tolist()


def test_derived_columns_without_a_gradient_are_refused_by_the_gradient_attack() -> None:
    table = Table(
        [Column("x"), Column("sign", "derived")],
        derive=lambda rows, clean: torch.stack([rows[:, 0], rows[:, 0].sign()], dim=1).detach(),
    )
    clean = torch.tensor([[1.0, 1.0], [-2.0, -1.0]])
    with pytest.raises(MeasurementError, match="without a gradient in the others"):
        attacked(table_gradient, {"m": linear([0.0, 1.0])}, clean, RowSpace(table, "L1", 1.5))
    arena = attacked(table_search, {"m": linear([0.0, 1.0])}, clean, RowSpace(table, "L1", 1.5))
    assert arena.standing[0].tolist() == [False, True]


# The embedded subjects


def embedded(name: str, first: int) -> tuple[Subject, torch.Tensor, torch.Tensor]:
    subject = importlib.import_module(f"pruneproof.fixtures.{name}").subject()
    return subject, subject.test.inputs[:first], torch.as_tensor(subject.test.targets)[:first]


@pytest.mark.parametrize("name", ["fraud", "credit"])
def test_all_rows_of_an_embedded_subject_keep_its_domain(name: str) -> None:
    subject = importlib.import_module(f"pruneproof.fixtures.{name}").subject()
    for data in (subject.test, subject.calibration):
        validate(subject.domain, data.inputs)


def test_frauds_that_pass_are_the_features_of_payments_that_somebody_could_make() -> None:
    from pruneproof.fixtures.fraud import features

    subject, clean, targets = embedded("fraud", 150)
    space = RowSpace(subject.domain, "L1", 4.0)  # type: ignore[arg-type]
    arena = attacked(table_audit, {"dense": subject.model}, clean, space, targets)
    assert len(arena.pool.rows) >= 10
    split = features.read()
    encoder = features.Encoder.fit(split.train)
    payments = split.test.iloc[:150]
    kinds = set()
    for row, point in zip(arena.pool.rows, arena.pool.points, strict=True):
        before, after = (subject.domain.decode(one) for one in (clean[row], point))  # type: ignore[union-attr]
        changed = payments.iloc[[row]].copy()
        assert int(before["amount"].replace(" ", "")) == changed["amount"].iloc[0]
        changed["amount"] = int(after["amount"].replace(" ", ""))
        changed["channel"], changed["provider"] = after["channel"], after["provider"]
        if before["country"] != after["country"]:
            rare = after["country"].startswith("a rare one")
            changed["country"] = "unseen" if rare else after["country"]
        torch.testing.assert_close(encoder.encode(changed)[0], point, rtol=1e-5, atol=1e-6)
        spent = abs(changed["amount"].iloc[0] - payments["amount"].iloc[row]) / 1000
        spent += 1.0 * (before["channel"] != after["channel"]) + 3.0 * (before["provider"] != after["provider"])
        spent += 2.0 * (before["country"] != after["country"])
        assert spent <= 4.0 + 1e-6
        assert before["time"] == after["time"]
        shown = space.shown(clean[row], point)
        assert "→" in shown
        kinds |= {part.split()[0] for part in shown.split("; ")}
    assert {"amount", "channel", "country"} <= kinds


def test_loans_that_pass_are_the_features_of_applications_that_somebody_could_make() -> None:
    from pruneproof.fixtures.credit import features

    subject, clean, targets = embedded("credit", 200)
    space = RowSpace(subject.domain, "L1", 0.3)  # type: ignore[arg-type]
    arena = attacked(table_audit, {"dense": subject.model}, clean, space, targets)
    assert len(arena.pool.rows) >= 10
    split = features.read()
    for row, point in zip(arena.pool.rows, arena.pool.points, strict=True):
        changed = split.test.iloc[[row]].astype({"Time": float, "Expenses": float, "Amount": float, "Price": float})
        for name, place in (("Expenses", 0), ("Amount", 4), ("Price", 5)):
            changed[name] = math.expm1(float(point[place]))
        changed["Time"] = float(point[7])
        assert float(point[7]) % 1 == 0
        assert changed["Amount"].iloc[0] <= changed["Price"].iloc[0] * (1 + 1e-6)
        encoded = features.encode(pd.DataFrame(changed), split.train)[0]
        torch.testing.assert_close(encoded, point, rtol=1e-3, atol=1e-3)
        assert "→" in space.shown(clean[row], point)


@pytest.mark.slow
def test_on_the_fraud_model_the_audit_comes_within_two_percent_of_trying_every_valid_row() -> None:
    subject, clean, targets = embedded("fraud", 100)
    space = RowSpace(subject.domain, "L1", 3.0)  # type: ignore[arg-type]
    usual = attacked(table_audit, {"dense": subject.model}, clean, space, targets)
    every = attacked(table_search, {"dense": subject.model}, clean, space, targets, queries=60_000)
    assert {stage.name for stage in every.stages if stage.tried} == {"clean", "every valid row"}
    assert bool((usual.standing >= every.standing).all())
    assert int(usual.standing.sum()) - int(every.standing.sum()) <= 2
