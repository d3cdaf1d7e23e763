"""The strength checks: each trips on what it is for, and none on an attack that works."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attacked_models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from scipy import stats  # type: ignore[import-untyped]
from torch import nn

from pruneproof.adversarial import case, checks, control_model, strength
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.margin import margin
from pruneproof.adversarial.sequences import EditSpace
from pruneproof.adversarial.space import Space
from pruneproof.adversarial.strength import Check, Observation, chance, judge, observe, stochastic, trials
from pruneproof.adversarial.victim import Loss, Victim
from pruneproof.attacks import Domain
from pruneproof.domain import Column, Criterion, OneHot, Table, Tokens

EPS = attacked_models.PLAIN_EPS["digits"]
unhurried = settings(deadline=None)


# A small attack


def cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(scores, targets, reduction="none")


class Options(BaseModel):
    model_config = ConfigDict(frozen=True)

    steps: int = 10
    restarts: int = 1


@dataclasses.dataclass
class Climb:
    """Projected gradient ascent with a cosine schedule (Madry et al. 2018), broken in whatever way is asked for.

    Args:
        losses: taken in turn, on what stands.
        size: of the first step, in multiples of ε.
        shrunk: the part of the budget that it uses.
        grown: by how much it leaves the ball in the end.
        forgets: proposes nothing.
        wild: with more than that many steps it climbs downhill.
        eps_limit: within more than that it climbs downhill.
        shares: points of others are tried before its own search.
        spares: all but the first victim are climbed in steps of 0.
    """

    losses: tuple[Loss, ...] = (cross_entropy, margin())
    size: float = 1.0
    shrunk: float = 1.0
    grown: float = 1.0
    forgets: bool = False
    wild: int | None = None
    eps_limit: float = math.inf
    shares: bool = True
    spares: bool = False
    name: str = "climb"
    options: type[BaseModel] = Options
    domains: frozenset[Domain] = frozenset({"box", "table"})
    norms: frozenset[str] = frozenset({"Linf", "L2", "L1", "L0"})
    gradients: bool = True

    def refuses(self, shape: tuple[int, ...], classes: int) -> str | None:
        return None

    def run(self, arena: Arena, options: Any) -> None:
        for victim in arena.victims:
            if self.shares:
                arena.replay("replay", [victim])
            for restart in range(options.restarts):
                for number, loss in enumerate(self.losses):
                    self._climb(arena, victim, loss, (restart, number), options.steps)
        arena.replay("closure")

    def _climb(self, arena: Arena, victim: Victim, loss: Loss, key: tuple[int, int], steps: int) -> None:
        space = arena.space
        assert isinstance(space, Ball)
        ball = space.at(space.eps * self.shrunk)
        rows = arena.rows(victim)
        uphill = -1.0 if self.wild is not None and steps > self.wild else 1.0
        uphill = -uphill if space.eps > self.eps_limit else uphill
        with arena.stage(f"climb {key}", victim, len(rows)) as stage:
            clean = arena.clean[rows]
            points = ball.start(arena.clean, arena.generator("start", *key))[rows]
            for step in range(steps):
                if not len(rows):
                    return
                found = victim.gradient(points, rows, loss, arena.aim)
                hit = found.fooled
                if hit.any() and not self.forgets:
                    arena.submit(victim, stage, rows[hit], points[hit])
                size = (
                    (0.0 if self.spares and victim is not arena.victims[0] else self.size)
                    * ball.eps
                    * (1 + math.cos(math.pi * step / steps))
                    / 2
                )
                moved = points + ball.step(uphill * found.value.nan_to_num(0, 0, 0), size)
                points = ball.project(clean, moved)
                left = torch.isin(rows, arena.rows(victim))
                rows, clean, points = rows[left], clean[left], points[left]
            if len(rows) and not self.forgets:
                away = points if self.grown == 1 else clean + (points - clean) * self.grown
                arena.submit(victim, stage, rows, away)


@dataclasses.dataclass
class Idle(Climb):
    """Proposes a random start and stops."""

    name: str = "idle"

    def _climb(self, arena: Arena, victim: Victim, loss: Loss, key: tuple[int, int], steps: int) -> None:
        rows = arena.rows(victim)
        points = arena.space.start(arena.clean, arena.generator("start", *key))[rows]
        with arena.stage("idle", victim, len(rows)) as stage:
            if len(rows):
                arena.submit(victim, stage, rows, points)


# Models


@cache
def dense() -> nn.Module:
    """A plain convolutional network on scikit-learn's digits; a few seconds to train."""
    with tempfile.TemporaryDirectory() as folder:
        return attacked_models.trained("digits", "plain", Path(folder))


class Rounded(nn.Module):
    """Rounds its inputs to ``levels`` (locally constant: every gradient is zero)."""

    def __init__(self, model: nn.Module, levels: int = 16) -> None:
        super().__init__()
        self.model, self.levels = model, levels

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.model(torch.round(points * self.levels) / self.levels)


class Sure(nn.Module):
    """Logits a hundred times as large: the same answers, a saturated softmax."""

    def __init__(self, model: nn.Module, factor: float = 100.0) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.model(points) * self.factor


class Noisy(nn.Module):
    """Adds noise from the global random numbers of torch to its inputs."""

    def __init__(self, model: nn.Module, noise: float = 0.05) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.model(points + self.noise * torch.randn_like(points))


class Constant(nn.Module):
    """Says the same of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.says = nn.Parameter(torch.eye(10)[3])

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.says.expand(len(points), 10) + 0 * points.flatten(1).sum(dim=1, keepdim=True)


class Shattered(nn.Module):
    """Right answers with a backward pass of NaN."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        found = self.model(points)
        return found + torch.sqrt(points * 0).flatten(1).sum(dim=1, keepdim=True)


class Wary(nn.Module):
    """Knows a random start by a corner of the picture, which is black in every digit, and then gives a gradient that
    leads away; half of all starts leave the corner as it is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        rest = torch.ones_like(points)
        rest[:, 0, 0, 0] = 0
        found = self.model(points * rest + (points * (1 - rest)).detach())
        corner = points.detach()[:, 0, 0, 0] > 0
        return torch.where(corner[:, None], 2 * found.detach() - found, found)


class OneLogit(nn.Module):
    """Of ten scores one: whether the digit is above 4."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        found = self.model(points)
        return torch.logsumexp(found[:, 5:], dim=1) - torch.logsumexp(found[:, :5], dim=1)


# Running


def arena_of(
    model: nn.Module,
    n: int = 300,
    space: Space | None = None,
    others: Mapping[str, nn.Module] | None = None,
    **given: Any,
) -> Arena:
    data = attacked_models.digits("digits", n)
    targets = given.pop("targets", data.test_targets)
    clean = given.pop("clean", data.test)
    models = {"dense": model, **(others or {})}
    victims = [Victim(name, one.eval(), targets, batch=100, **given) for name, one in models.items()]
    return Arena(victims, clean, space or Ball("Linf", EPS, 0.0, 1.0), seed=1)


def examined(
    attack: Any, arena: Arena, options: BaseModel | None = None, examples: int = 100, place: int = 0, seed: int = 0
) -> dict[str, Check]:
    """Attacks the arena, and judges what is then observed of one of its victims."""
    own = options or attack.options()
    attack.run(arena, own)
    seen = observe(attack, own, trials(arena), arena, arena.victims[place], seed, examples)
    assert tuple(one.name for one in seen) == strength.NAMES
    return {one.name: judge(one) for one in seen}


def failed(found: Mapping[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.state == "failed"}


def states(found: Mapping[str, Check]) -> dict[str, str]:
    return {name: check.state for name, check in found.items()}


# What holds, and what trips what


def test_a_sound_attack_on_a_plain_network_trips_no_check() -> None:
    found = examined(Climb(), arena_of(dense()))
    assert states(found) == {
        **dict.fromkeys(strength.NAMES, "held"),
        "transfer": "not applicable",  # there is one variant alone
    }


@pytest.mark.slow
def test_a_sound_attack_on_several_variants_trips_no_check_on_any_of_them() -> None:
    others = {"a": attacked_models.pruned(dense(), 0.5), "b": attacked_models.pruned(dense(), 0.8)}
    arena = arena_of(dense(), others=others)
    Climb().run(arena, Options())
    for victim in arena.victims:
        found = {one.name: judge(one) for one in observe(Climb(), Options(), trials(arena), arena, victim, 0)}
        assert states(found) == dict.fromkeys(strength.NAMES, "held")


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("L2", 0.5), ("L1", 2.0), ("L0", 3)])
def test_every_check_says_something_in_the_other_norms(norm: Any, eps: float) -> None:
    found = examined(Climb(), arena_of(dense(), space=Ball(norm, eps, 0.0, 1.0)), Options(steps=20))
    assert {name for name, check in found.items() if check.state == "not applicable"} == {"transfer"}
    assert {"range", "more_eps", "gradients", "loss_rises", "boundary", "outside", "unconfirmed"} <= {
        name for name, check in found.items() if check.state == "held"
    }


TRIPPED: Mapping[str, tuple[Callable[[], nn.Module], Any, set[str]]] = {
    "inputs rounded, so that the network is locally constant": (
        lambda: Rounded(dense()),
        Climb(),
        {"gradients", "gradient_free", "loss_rises"},
    ),
    "saturated logits and cross-entropy alone": (
        lambda: Sure(dense()),
        Climb(losses=(cross_entropy,)),
        {"gradients", "gradient_free", "loss_rises"},
    ),
    "a gradient that is no number": (lambda: Shattered(dense()), Climb(), {"gradients", "gradient_free"}),
    "random answers of which one draw is taken": (lambda: Noisy(dense()), Climb(), {"gradients"}),
    "a detector of the random start": (
        lambda: Wary(dense()),
        Climb(losses=(cross_entropy,)),
        {"more_restarts", "loss_rises"},
    ),
    "an attack that returns its start": (dense, Idle(), {"control", "loss_rises", "gradient_free", "range"}),
    "an attack with steps of 0": (dense, Climb(size=0.0), {"control", "loss_rises", "gradient_free", "range"}),
    "an attack that descends": (dense, Climb(wild=0), {"control", "loss_rises", "gradient_free"}),
    "an attack in a smaller ball": (dense, Climb(shrunk=0.5), {"control", "boundary", "gradient_free"}),
    "an attack that leaves the ball": (dense, Climb(grown=1.5), {"outside"}),
    "an attack that does not keep what it finds": (
        dense,
        Climb(forgets=True),
        {"unconfirmed", "control", "range", "gradient_free"},
    ),
    "an attack that more steps make worse": (dense, Climb(wild=15), {"more_steps"}),
    "an attack that a larger budget makes worse": (dense, Climb(eps_limit=1.5 * EPS), {"more_eps"}),
    "an attack that stops too early": (dense, Climb(size=0.2), {"more_steps", "control"}),
}


@pytest.mark.parametrize("what", TRIPPED)
def test_a_check_fails_on_what_it_is_for(what: str) -> None:
    model, attack, expected = TRIPPED[what]
    options = Options(steps=4) if "too early" in what else None
    eps = 0.15 if "detector" in what else EPS
    found = failed(examined(attack, arena_of(model(), space=Ball("Linf", eps, 0.0, 1.0)), options))
    assert expected <= found
    if len(expected) == 1:
        assert found == expected


def test_points_of_others_that_beat_a_variants_own_are_seen() -> None:
    twin = copy.deepcopy(dense())
    arena = arena_of(dense(), others={"twin": twin})
    found = examined(Climb(shares=False, spares=True), arena, place=1)
    assert found["transfer"].state == "failed"
    found = examined(Climb(shares=False), arena_of(dense(), others={"twin": twin}), place=1)
    assert found["transfer"].state == "held"


def test_saturated_logits_do_no_harm_to_an_attack_that_takes_the_margin_too() -> None:
    found = examined(Climb(), arena_of(Sure(dense())))
    assert not failed(found)
    assert "98 of cross-entropy" in found["gradients"].says or "(9" in found["gradients"].says


def test_random_answers_are_averaged_and_that_is_said() -> None:
    found = examined(Climb(), arena_of(Noisy(dense()), n=150, draws=4), examples=50)
    assert found["gradients"].state == "held"
    assert "averaged over 4 passes" in found["gradients"].says
    assert found["unconfirmed"].state == "not applicable"


def test_a_constant_output_has_no_range_to_fall_through_and_no_gradient() -> None:
    found = examined(Climb(), arena_of(Constant(), n=1000))
    assert found["range"].state == "not applicable"
    assert "no more than by always answering one class" in found["range"].says
    assert found["gradients"].state == "failed"


def test_one_logit_is_enough() -> None:
    targets = (attacked_models.digits("digits", 300).test_targets > 4).long()
    found = examined(Climb(), arena_of(OneLogit(dense()), targets=targets))
    assert not failed(found)
    assert found["range"].state == found["control"].state == "held"


def test_a_criterion_of_the_subjects_own_has_no_chance_level_and_every_other_check() -> None:
    criterion = Criterion(
        loss=lambda output, targets: -output.gather(1, targets[:, None])[:, 0],
        fooled=lambda output, targets: output.argmax(dim=1) != targets,
    )
    found = examined(Climb(losses=(margin(),)), arena_of(dense(), criterion=criterion), Options(steps=20))
    assert {name for name, check in found.items() if check.state == "not applicable"} == {"range", "transfer"}
    assert found["control"].state == found["gradients"].state == found["loss_rises"].state == "held"


def test_few_examples_are_no_evidence() -> None:
    arena = arena_of(dense(), n=6)
    found = examined(Climb(), arena)
    assert not failed(found)
    assert {check.state for name, check in found.items() if name not in ("outside",)} == {"not applicable"}


def test_a_model_that_is_never_right_is_no_ground_for_any_check() -> None:
    wrong = (dense()(attacked_models.digits("digits", 60).test).argmax(dim=1) + 1) % 10
    found = examined(Climb(), arena_of(dense(), n=60, targets=wrong))
    assert not failed(found)


# Attacks as published


def test_attacks_as_published_are_examined_too() -> None:
    from pruneproof.adversarial import published

    attack = published.attack("PGD")
    found = examined(attack, arena_of(dense()), published.options("PGD", {"steps": 20}))
    assert not failed(found)
    assert {name for name, check in found.items() if check.state == "not applicable"} == {"transfer", "unconfirmed"}
    found = examined(attack, arena_of(Sure(dense())), published.options("PGD", {"steps": 20}))
    assert {"gradients", "gradient_free", "loss_rises"} <= failed(found)
    assert "gradients that it took were zero" in found["gradients"].says or "blind" in found["gradients"].says


@pytest.mark.slow
def test_an_attack_that_looks_for_the_nearest_point_need_not_reach_the_boundary() -> None:
    from pruneproof.adversarial import published

    found = examined(
        published.attack("DeepFool"), arena_of(dense(), n=20, space=Ball("L2", 0.5, 0.0, 1.0)), examples=12
    )
    assert found["boundary"].state == found["outside"].state == "not applicable"
    assert "nearest point" in found["boundary"].says


def test_a_search_without_gradients_is_not_asked_for_any() -> None:
    from pruneproof import registry

    attack = registry.member("pruneproof.attacks", "black_box").ATTACK
    found = examined(attack, arena_of(dense(), n=100), attack.options(queries=200), examples=40)
    assert not failed(found)
    without = {"gradient_free", "gradients", "loss_rises", "boundary", "transfer", "unconfirmed"}
    assert {name for name, check in found.items() if check.state == "not applicable"} == without


# Tokens and tables


class Reader(nn.Module):
    """The mean of token vectors, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding = nn.Embedding(40, 8)
            self.head = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(tokens).mean(dim=1))


def test_tokens_are_examined_without_a_range_and_a_boundary() -> None:
    from pruneproof import registry

    model = Reader().eval()
    clean = torch.randint(1, 40, (120, 12), generator=torch.Generator().manual_seed(1))
    space = EditSpace(Tokens(40, embedding=lambda model: model.embedding, frozen=frozenset({0})), 1)
    attack = registry.member("pruneproof.attacks", "token_swap").ATTACK
    arena = arena_of(model, clean=clean, targets=model(clean).argmax(dim=1), space=space)
    found = examined(attack, arena, examples=60)
    assert not failed(found)
    without = {"range", "boundary", "more_steps", "transfer"}
    assert without <= {name for name, check in found.items() if check.state == "not applicable"}
    assert found["control"].state == found["gradients"].state == found["more_eps"].state == "held"


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """A table of whole numbers; the first column stays as it is."""

    eps: float

    def contains(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        whole = (points == points.round()).all(dim=1) & (points[:, 0] == clean[:, 0])
        return whole & (self.distance(clean, points) <= self.eps)

    def distance(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return (points.double() - clean.double()).abs().sum(dim=1)

    def start(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        most = int(self.eps)
        where = torch.randint(1, clean.shape[1], (len(clean), most), generator=generator)
        which = torch.randint(0, 2, where.shape, generator=generator) * 2.0 - 1
        return clean.scatter_add(1, where, which)

    def at(self, eps: float) -> Steps:
        return Steps(eps)

    def describe(self) -> dict[str, Any]:
        return {"norm": "L1", "eps": self.eps}

    def shown(self, clean: torch.Tensor, point: torch.Tensor) -> str:
        return ""


@dataclasses.dataclass
class Greedy(Climb):
    """One whole step after the other, along the steepest column."""

    name: str = "greedy"
    stuck: bool = False

    def _climb(self, arena: Arena, victim: Victim, loss: Loss, key: tuple[int, int], steps: int) -> None:
        rows = arena.rows(victim)
        points = arena.clean[rows]
        with arena.stage("greedy", victim, len(rows)) as stage:
            for _ in range(0 if self.stuck else int(arena.space.describe()["eps"])):
                if not len(rows):
                    return
                slope = victim.gradient(points, rows, loss).value
                slope[:, 0] = 0
                best = slope.abs().argmax(dim=1, keepdim=True)
                points = points.scatter_add(1, best, slope.gather(1, best).sign())
                arena.submit(victim, stage, rows, points)
                left = torch.isin(rows, arena.rows(victim))
                rows, points = rows[left], points[left]


def test_tables_are_examined_without_a_range_and_a_boundary() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)).eval()
    clean = torch.randint(-9, 10, (300, 6), generator=torch.Generator().manual_seed(1)).float()
    targets = model(clean).argmax(dim=1)
    found = examined(Greedy(), arena_of(model, clean=clean, targets=targets, space=Steps(3)))
    assert not failed(found)
    assert {name for name, check in found.items() if check.state == "not applicable"} == {
        *("range", "boundary", "transfer"),
    }
    found = examined(Greedy(stuck=True), arena_of(model, clean=clean, targets=targets, space=Steps(3)))
    assert {"control", "gradient_free"} <= failed(found)


def test_rows_of_a_stated_table_are_examined() -> None:
    from pruneproof import registry
    from pruneproof.adversarial.rows import RowSpace

    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 2)).eval()
    whole = torch.randint(-5, 6, (200, 1), generator=draw).float()
    spelled = nn.functional.one_hot(torch.randint(3, (200,), generator=draw), 3).float()
    clean = torch.cat([torch.randn(200, 2, generator=draw), whole, spelled], dim=1)
    columns = [Column("age", mutable=False), Column("amount", direction="up"), Column("count", kind="integer")]
    names = ("red", "green", "blue")
    table = Table([*columns, *(Column(name) for name in names)], one_hot=[OneHot("colour", names, cost=0.5)])
    attack = registry.member("pruneproof.attacks", "table_gradient").ATTACK
    arena = arena_of(model, clean=clean, targets=model(clean).argmax(dim=1), space=RowSpace(table, "L1", 1.0))
    found = examined(attack, arena, examples=60)
    assert {name for name, check in found.items() if check.state == "not applicable"} == {
        *("range", "boundary", "transfer"),
    }
    assert not failed(found)


def test_moves_of_embedding_vectors_are_examined() -> None:
    from pruneproof import registry

    model = Reader().eval()
    clean = torch.randint(1, 40, (80, 12), generator=torch.Generator().manual_seed(1))
    attack = registry.member("pruneproof.attacks", "embedding").ATTACK
    own = attack.options(steps=10)
    victim = Victim("dense", model, model(clean).argmax(dim=1), batch=40)
    victims, points, space = attack.prepare([victim], clean, Tokens(40), "Linf", 0.2, own)
    found = examined(attack, Arena(victims, points, space, seed=1), own, examples=40)
    assert not failed(found)
    assert found["control"].says == "a linear model has no embedding in which vectors could be moved"
    assert found["gradients"].state == found["loss_rises"].state == found["more_steps"].state == "held"


# The control


def linear(norm: Any, eps: float, seed: int, elements: int = 5) -> tuple[Ball, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    unit = torch.rand(elements, generator=draw, dtype=torch.float64) + 0.5
    clean = torch.rand(3, elements, generator=draw, dtype=torch.float64)
    slope = torch.randn(3, elements, generator=draw, dtype=torch.float64)
    return Ball(norm, eps, 0.0, 1.0, unit), clean, slope


@unhurried
@given(st.integers(0, 10_000), st.floats(0.01, 3.0))
def test_the_point_that_moves_a_linear_model_most_is_the_one_that_linear_programming_finds(
    seed: int, eps: float
) -> None:
    from scipy.optimize import linprog  # type: ignore[import-untyped]

    for norm in ("Linf", "L1"):
        ball, clean, slope = linear(norm, eps, seed)
        found = control_model.edge(ball, clean, slope)
        assert ball.contains(clean, found).all()
        unit = torch.as_tensor(ball.unit).numpy()
        for center, gain, point in zip(clean.numpy(), slope.numpy(), found.numpy(), strict=True):
            # up and down apart, both at least 0; in L1 their sum in units is the budget
            most = np.concatenate([1 - center, center])
            if norm == "Linf":
                most = np.minimum(most, eps * np.concatenate([unit, unit]))
            budget = {} if norm == "Linf" else {"A_ub": [np.concatenate([1 / unit, 1 / unit])], "b_ub": [eps]}
            best = linprog(-np.concatenate([gain, -gain]), bounds=[(0, one) for one in most], **budget)
            assert gain @ (point - center) == pytest.approx(-best.fun, abs=1e-5)


@unhurried
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_the_elements_that_a_sparse_change_moves_are_the_best_of_all_subsets(seed: int, count: int) -> None:
    import itertools

    ball, clean, slope = linear("L0", count, seed)
    found = control_model.edge(ball, clean, slope)
    assert ball.contains(clean, found).all()
    for center, gain, point in zip(clean.numpy(), slope.numpy(), found.numpy(), strict=True):
        gains = np.maximum(gain * (1 - center), -gain * center)
        best = max(sum(gains[list(some)]) for some in itertools.combinations(range(len(gains)), count))
        assert gain @ (point - center) == pytest.approx(best, abs=1e-6)


def test_in_a_euclidean_ball_away_from_the_box_the_most_is_the_norm_times_the_budget() -> None:
    ball = Ball("L2", 0.1, -math.inf, math.inf, 2.0)
    clean, slope = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[3.0, 0.0, -4.0]], dtype=torch.float64)
    assert control_model.edge(ball, clean, slope)[0].tolist() == pytest.approx([0.12, 0.0, -0.16], abs=1e-6)


@pytest.mark.parametrize(("norm", "eps", "dual"), [("Linf", EPS, 1), ("L2", 0.4, 2), ("L1", 1.5, math.inf)])
def test_the_control_is_known_to_break_where_its_margin_is_below_the_dual_norm(
    norm: Any, eps: float, dual: float
) -> None:
    arena = arena_of(dense(), space=Ball(norm, eps, -math.inf, math.inf))
    made = control_model.control(arena, arena.victims[0], arena.space, 10, 100, seed=0)
    (victim,) = made.arena.victims
    assert isinstance(victim.model, control_model.Linear)
    weight, bias = victim.model.weight.detach().double(), victim.model.bias.detach().double()
    scores = made.arena.clean.double().flatten(1) @ weight.t() + bias
    own = scores.argmax(dim=1)
    assert torch.equal(own, victim.targets)
    leads = scores.gather(1, own[:, None]) - scores
    reach = torch.linalg.vector_norm(weight[own][:, None] - weight[None], ord=dual, dim=2)
    needed = (leads / reach).scatter(1, own[:, None], math.inf).amin(dim=1)
    assert torch.equal(made.breakable, needed < control_model.REACH * eps)
    assert torch.equal(made.unbreakable, needed > control_model.BEYOND * eps)
    assert made.breakable.sum() >= 50


def test_the_control_is_attacked_within_the_box_of_the_data() -> None:
    arena = arena_of(dense())
    made = control_model.control(arena, arena.victims[0], arena.space, 10, 100, seed=0)
    Climb().run(made.arena, Options(steps=40))
    fell = ~made.arena.standing[0]
    assert fell[made.breakable].all()
    assert not fell[made.unbreakable].any()


def test_a_space_that_lets_more_through_than_it_says_is_noticed() -> None:
    class Leaky(Ball):
        def contains(self, clean: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(clean), dtype=torch.bool)

    found = examined(Climb(grown=9.0), arena_of(dense(), space=Leaky("Linf", 0.01, 0.0, 1.0)))
    assert found["control"].state == "failed"
    assert "the space is not what it says" in found["control"].says


# The statistics


COUNTS: Mapping[str, tuple[str, dict[str, float]]] = {
    "gradients": ("blind", {"non_finite": 0, "zero": 0, "zero_ce": 0, "random": 0, "draws": 1, "agreement": 1,
                            "taken": 0, "empty": 0}),
    "transfer": ("fell", {"stood": 50}),
    "unconfirmed": ("lost", {}),
    "outside": ("refused", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("n", [10, 30, 100, 1000])
def test_as_many_doubtful_examples_as_are_tolerated_fail_a_check_once_in_a_thousand_audits(name: str, n: int) -> None:
    counted, others = COUNTS[name]
    numbers = {"examples": float(n), "tried": float(n), **others}
    limit = next(k for k in range(n + 1) if judge(Observation(name, {**numbers, counted: float(k)})).state == "failed")
    assert stats.binom.sf(limit - 1, n, checks.TOLERANCE) <= 1 - checks.CONFIDENCE
    assert limit == 1 or stats.binom.sf(limit - 2, n, checks.TOLERANCE) > 1 - checks.CONFIDENCE
    # and what is gross is seen
    assert stats.binom.sf(limit - 1, n, 0.8) > 0.99


@cache
def _alarm(name: str, fell: int, stood: int, raised: int, tested: int, lowered: int) -> bool:
    numbers = {"examples": fell + stood, "fell": fell, "stood": stood, "raised": raised, "tested": tested}
    return judge(Observation(name, {**numbers, "lowered": lowered, "factor": 2.0})).state == "failed"


@pytest.mark.parametrize("name", ["more_steps", "more_restarts", "more_eps"])
@pytest.mark.parametrize(("accuracy", "flips"), [(0.3, 0.03), (0.6, 0.03), (0.6, 0.02), (0.9, 0.03)])
def test_examples_that_change_sides_between_two_random_starts_raise_no_alarm(
    name: str, accuracy: float, flips: float
) -> None:
    draw = np.random.default_rng(0)
    n, again, repetitions = 100, 16, 20_000
    alarms = 0
    stood = draw.binomial(n, accuracy, repetitions)
    # half of the examples that change sides do so in each direction
    raised = draw.binomial(n - stood, np.minimum(1, flips / 2 / (1 - accuracy)))
    turned = draw.binomial(stood, np.minimum(1, flips / 2 / accuracy))
    tested = np.minimum(again, stood)
    lowered = draw.hypergeometric(turned, stood - turned, np.maximum(tested, 1)) * (tested > 0)
    for one in range(repetitions):
        # where the first look is odd, all that stood is attacked again, as the experiment does
        share = lowered[one] / max(1, tested[one]) * stood[one] / n
        odd = raised[one] > case.ODD * n or (name != "more_eps" and share > case.ODD)
        looked = (stood[one], turned[one]) if odd else (tested[one], lowered[one])
        alarms += _alarm(name, *(int(number) for number in (n - stood[one], stood[one], raised[one], *looked)))
    assert alarms / repetitions <= 1 - checks.CONFIDENCE


def test_a_stronger_attack_that_lets_many_go_is_an_alarm_and_one_that_fells_many_more_is_none_for_a_larger_budget() -> (
    None
):
    assert _alarm("more_steps", 40, 60, 20, 60, 0)
    assert _alarm("more_steps", 40, 60, 0, 16, 8)
    assert not _alarm("more_eps", 40, 60, 0, 16, 16)
    assert not _alarm("more_eps", 40, 60, 10, 60, 40)


@pytest.mark.parametrize("name", strength.NAMES)
def test_a_check_that_does_not_apply_says_so_in_its_own_words(name: str) -> None:
    found = judge(Observation(name, {}, "there is nothing to see"))
    assert found == Check(name, "not applicable", "there is nothing to see")


def test_a_number_that_is_missing_is_no_pass() -> None:
    with pytest.raises(KeyError):
        judge(Observation("control", {}))
    with pytest.raises(KeyError):
        judge(Observation("unheard", {}))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_chance_is_the_accuracy_of_the_best_constant_answer(targets: list[int]) -> None:
    best = max(sum(target == answer for target in targets) for answer in range(5)) / len(targets)
    assert chance(torch.tensor(targets), 5) == pytest.approx(best)


def test_chance_of_nothing_is_refused() -> None:
    for targets in (torch.tensor([], dtype=torch.int64), torch.tensor([0, 7])):
        with pytest.raises(ValueError, match="classes from 0 to 4"):
            chance(targets, 5)


def test_a_rare_class_does_not_lift_the_chance_level_to_nearly_everything() -> None:
    targets = (attacked_models.digits("digits", 400).test_targets == 3).long()
    arena = arena_of(_IsThree(dense()), n=400, targets=targets)
    seen = {one.name: one for one in observe(Climb(), Options(), trials(arena), arena, arena.victims[0], 0)}
    assert seen["range"].numbers["chance"] <= 0.6
    assert judge(seen["range"]).state == "held"


class _IsThree(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        found = self.model(points)
        return found[:, 3] - torch.cat([found[:, :3], found[:, 4:]], dim=1).amax(dim=1)


# Random models, and what is left behind


def test_only_a_model_that_draws_random_numbers_is_stochastic() -> None:
    points, rows = attacked_models.digits("digits", 20).test, torch.arange(20)

    class Numpy(nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return dense()(points) + float(np.random.random())

    class Python(nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return dense()(points) + random.random()

    class Rounding(nn.Module):
        """The same up to the order of sums."""

        calls = 0

        def forward(self, points: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return dense()(points) * (1 + 1e-6 * (self.calls % 2))

    class Nothing(nn.Module):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            return dense()(points) * torch.nan

    drops = nn.Sequential(nn.Dropout(0.5), dense())
    drops.train()
    before = torch.random.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    given: dict[Any, bool] = {Noisy(dense()): True, Numpy(): True, Python(): True, Rounding(): False, drops: False}
    given[Nothing()] = False
    for model, expected in given.items():
        victim = Victim("v", model, torch.zeros(20, dtype=torch.int64))
        assert stochastic(victim, points, rows) is expected, type(model).__name__
    assert drops.training
    assert drops[0].training
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tobytes(), random.getstate()) == before[1:]


def test_the_same_seed_observes_the_same_and_leaves_everything_as_it_was() -> None:
    model = Noisy(copy.deepcopy(dense()))
    model.train().zero_grad()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = attacked_models.digits("digits", 80)
    victim = Victim("dense", model, data.test_targets, batch=40, draws=2)
    arena = Arena([victim], data.test, Ball("Linf", EPS, 0.0, 1.0), seed=1)
    with victim.attacked():
        Climb().run(arena, Options())
    kept = arena.standing.clone(), arena.fell_by.clone(), len(arena.stages), len(arena.pool.points)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = observe(Climb(), Options(), trials(arena), arena, victim, 3, examples=30)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert observe(Climb(), Options(), trials(arena), arena, victim, 3, examples=30) == first
    assert all(type(number) is float for one in first for number in one.numbers.values())
    assert all(math.isfinite(number) for one in first for number in one.numbers.values())
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(arena.standing, kept[0])
    assert torch.equal(arena.fell_by, kept[1])
    assert (len(arena.stages), len(arena.pool.points)) == kept[2:]
    assert arena.victims == (victim,)


def test_an_attack_that_raises_in_an_experiment_raises() -> None:
    class Breaks(Climb):
        def run(self, arena: Arena, options: Any) -> None:
            if arena.victims[0].name == control_model.NAME:
                raise RuntimeError("not on this one")
            super().run(arena, options)

    arena = arena_of(dense(), n=60)
    with pytest.raises(RuntimeError, match="not on this one"):
        examined(Breaks(), arena, examples=20)
    assert not arena.victims[0].model.training


def test_every_check_is_explained() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "attack-strength.md"
    text = page.read_text("utf-8")
    headings = [line[4:].strip("`") for line in text.splitlines() if line.startswith("### `")]
    assert tuple(headings) == strength.NAMES
