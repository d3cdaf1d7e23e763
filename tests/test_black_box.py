"""The attack without gradients: against closed forms, torchattacks' Square, and models that hide their gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attacked_models import EPS, PLAIN_EPS, digits, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from pruneproof.adversarial import random_search
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball, Norm
from pruneproof.adversarial.draws import Draws
from pruneproof.adversarial.moves import moves
from pruneproof.adversarial.squares import AREA, shrunk
from pruneproof.adversarial.victim import Victim
from pruneproof.attacks.black_box import ATTACK, Options
from pruneproof.domain import Criterion

unhurried = settings(deadline=None, max_examples=40)
NORMS: list[Norm] = ["Linf", "L2", "L1", "L0"]


def attacked(victims: list[Victim], clean: torch.Tensor, ball: Ball, seed: int = 0, **keys: Any) -> Arena:
    own = {key: keys.pop(key) for key in ("queries", "restarts") if key in keys}
    arena = Arena(victims, clean, ball, seed, **keys)
    ATTACK.run(arena, Options(**own))
    return arena


def linear(weight: torch.Tensor, bias: float = 0.0) -> nn.Linear:
    """Two classes, of which the second is ``weight · x + bias`` ahead."""
    model = nn.Linear(len(weight), 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        model.bias.copy_(torch.tensor([0.0, bias]))
    return model


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A plainly trained network, 120 digits."""
    found = digits("digits")
    model = trained("digits", "plain", tmp_path_factory.mktemp("models"))
    model.zero_grad(set_to_none=True)
    return model, found.test[:120], found.test_targets[:120]


# Closed forms


def reach(norm: Norm, eps: float, weight: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """How far a change within the budget can lower ``weight · x``, by the greedy solution of each norm.

    ``low`` and ``high`` ``(n, d)`` are how far each element can go down and up.
    """
    room = torch.where(weight > 0, -low, high)
    if norm == "Linf":
        return (weight.abs() * room.clamp_max(eps)).sum(dim=1)
    if norm == "L0":
        return (weight.abs() * room).sort(dim=1, descending=True).values[:, : int(eps)].sum(dim=1)
    order = weight.abs().argsort(descending=True)
    room, steep = room[:, order], weight.abs()[order]
    left = (eps - (room.cumsum(dim=1) - room)).clamp_min(0)
    return (steep * torch.minimum(room, left)).sum(dim=1)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.15), ("L1", 0.7), ("L0", 1.0)])
def test_a_linear_model_falls_where_it_can_and_nowhere_else(norm: Norm, eps: float) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, generator=generator)
    clean = torch.rand(300, 6, generator=generator)
    score = clean @ weight - float((clean @ weight).median())
    bias = -float((clean @ weight).median())
    targets = (score >= 0).long()
    signed = torch.where(targets == 1, 1.0, -1.0)
    lost = torch.stack(
        [reach(norm, eps, sign * weight, -row[None], 1 - row[None])[0] for sign, row in zip(signed, clean, strict=True)]
    )
    arena = attacked([Victim("dense", linear(weight, bias), targets)], clean, Ball(norm, eps, 0.0, 1.0), queries=600)
    fell = ~arena.standing[0]
    spare = lost - score.abs()
    assert not fell[spare < -1e-5].any()
    # The search ends at the best corner or at one beside it.
    assert fell[spare > 0.03].all()
    assert 50 < int(fell.sum()) < 290


def test_in_l2_a_linear_model_falls_up_to_a_little_less_than_can_be_reached() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, generator=generator)
    clean = torch.randn(300, 6, generator=generator)
    targets = (clean @ weight >= 0).long()
    distance = (clean @ weight).abs() / weight.norm()
    ball = Ball("L2", 0.8, -math.inf, math.inf)
    fell = ~attacked([Victim("dense", linear(weight), targets)], clean, ball, queries=600).standing[0]
    assert not fell[distance > 0.8 + 1e-5].any()
    assert fell[distance < 0.8 * 0.9].all()


@pytest.mark.parametrize("norm", NORMS)
def test_budgets_are_in_the_units_of_the_box(norm: Norm) -> None:
    # The same data twice, once in grey levels up to 255 with a unit of 255 and an offset, once in shares.
    generator = torch.Generator().manual_seed(3)
    clean = torch.rand(60, 5, generator=generator, dtype=torch.float64)
    weight = torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0])
    bias = -float((clean @ weight.double()).median())
    targets = (clean @ weight.double() + bias >= 0).long()
    eps = {"Linf": 0.2, "L2": 0.4, "L1": 0.5, "L0": 2.0}[norm]
    plain = linear(weight, bias).double()
    scaled = nn.Sequential(Shifted(10.0, 255.0), linear(weight, bias).double())
    one = attacked([Victim("dense", plain, targets)], clean, Ball(norm, eps, 0.0, 1.0), queries=100)
    two_ball = Ball(norm, eps, 10.0, 265.0, 255.0)
    two = attacked([Victim("dense", scaled, targets)], clean * 255 + 10, two_ball, queries=100)
    assert torch.equal(one.standing, two.standing)
    alike = one.queries["dense"].nan_to_num(-1) == two.queries["dense"].nan_to_num(-1)
    assert alike.float().mean() > 0.9  # moves between equally good points may differ by rounding


class Shifted(nn.Module):
    def __init__(self, low: float, width: float) -> None:
        super().__init__()
        self.low, self.width = low, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.low) / self.width


# The moves


@st.composite
def balls(draw: st.DrawFn) -> tuple[Ball, torch.Tensor]:
    shape = draw(st.sampled_from([(1,), (5,), (3, 7), (6, 6), (3, 9, 9), (2, 5, 3), (2, 3, 4, 5), (1, 28, 2)]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    low = draw(st.sampled_from([0.0, -2.5, -math.inf]))
    high = draw(st.sampled_from([1.0, 7.0, math.inf]))
    norm = draw(st.sampled_from(NORMS))
    eps = draw(st.floats(1, 9)) if norm == "L0" else draw(st.floats(0.01, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    clean = torch.rand(4, *shape, generator=generator).to(dtype)
    unit = draw(st.sampled_from([1.0, 0.3])) * torch.ones(shape)
    return Ball(norm, eps, low, high, unit), clean


@unhurried
@given(balls(), st.integers(0, 10**6))
def test_every_move_stays_in_the_ball_whatever_shape_norm_range_and_type(
    made: tuple[Ball, torch.Tensor], seed: int
) -> None:
    ball, clean = made
    ways = moves(ball, clean)
    rows = torch.arange(len(clean))
    draws = Draws(torch.Generator().manual_seed(seed), len(clean), rows)
    state = ways.first(draws)
    for step in range(12):
        points = ways.points(state, rows)
        assert points.shape == clean.shape
        assert points.dtype == clean.dtype
        assert ball.contains(clean, points).all()
        state = ways.next(state, draws, step / 12)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.1), ("L2", 0.8), ("L1", 3.3), ("L0", 7.0)])
@pytest.mark.parametrize("level", [0.5, 0.0])
def test_moves_spend_the_whole_budget(norm: Norm, eps: float, level: float) -> None:
    clean = torch.full((8, 2, 9, 9), level, dtype=torch.float64)
    ball = Ball(norm, eps, 0.0, 1.0)
    ways, rows = moves(ball, clean), torch.arange(8)
    draws = Draws(torch.Generator().manual_seed(0), 8, rows)
    state = ways.first(draws)
    for step in range(30):
        spent = ball.distance(clean, ways.points(state, rows))
        if level == 0.5 or norm != "L2":  # at the edge of the box half of an L2 move is lost
            assert spent.tolist() == pytest.approx([eps] * 8, rel=1e-3)
        state = ways.next(state, draws, step / 30)


def test_a_move_in_linf_always_changes_something() -> None:
    clean = torch.full((50, 1, 6, 6), 0.5)
    ways, rows = moves(Ball("Linf", 0.1, 0.0, 1.0), clean), torch.arange(50)
    draws = Draws(torch.Generator().manual_seed(0), 50, rows)
    state = ways.first(draws)
    for step in range(40):
        after = ways.next(state, draws, step / 40)
        assert (after[0] != state[0]).flatten(1).any(dim=1).all()
        state = after


@pytest.mark.parametrize("norm", NORMS)
def test_what_an_example_draws_does_not_depend_on_who_else_stands(norm: Norm) -> None:
    clean = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ways = moves(Ball(norm, 2.0, 0.0, 1.0), clean)
    found = []
    for rows in (torch.arange(10), torch.tensor([2, 3, 7])):
        draws = Draws(torch.Generator().manual_seed(5), 10, rows)
        state = ways.first(draws)
        for step in range(5):
            state = ways.next(state, draws, step / 5)
        found.append(ways.points(state, rows))
    assert torch.equal(found[0][[2, 3, 7]], found[1])


def test_squares_shrink_as_those_of_torchattacks() -> None:
    import torchattacks

    theirs = torchattacks.Square(nn.Linear(2, 2), n_queries=700, p_init=AREA)
    for query in range(700):
        assert AREA * shrunk(query / 700) == pytest.approx(theirs.p_selection(query))


@pytest.mark.parametrize("side", [1, 3, 5, 9])
def test_heaps_in_l2_are_those_of_torchattacks(side: int) -> None:
    import torchattacks

    from pruneproof.adversarial.squares import _halves

    theirs = torchattacks.Square(nn.Linear(2, 2))
    theirs.device = torch.device("cpu")
    with torch.random.fork_rng():
        heap = theirs.eta(side)
    ours = _halves(side, side).float()
    assert any(torch.allclose(sign * one, heap, atol=1e-6) for one in (ours, ours.T) for sign in (1, -1))


# Strength


@pytest.mark.parametrize(("norm", "eps", "queries"), [("Linf", PLAIN_EPS["digits"], 150), ("L2", 0.7, 150)])
def test_it_is_at_least_as_strong_as_torchattacks_square_at_as_many_queries(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor], norm: Norm, eps: float, queries: int
) -> None:
    import torchattacks

    model, images, targets = small
    with torch.random.fork_rng():
        theirs = torchattacks.Square(model, norm=norm, eps=eps, n_queries=queries - 1)(images, targets)
    right = model(images).argmax(dim=1) == targets
    stands = right & (model(theirs).argmax(dim=1) == targets)
    ours = attacked([Victim("dense", model, targets)], images, Ball(norm, eps, 0.0, 1.0), queries=queries).standing[0]
    lost, gained = int((ours & ~stands).sum()), int((~ours & stands).sum())
    # Paired noise: of b + c examples that differ by chance, b - c has a standard deviation of (b + c) ** 0.5.
    assert lost - gained <= 2 * (lost + gained) ** 0.5
    assert 0.1 < ours.float().mean() < right.float().mean() - 0.1


def test_one_changed_pixel_is_found_as_well_as_by_trying_them_all(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    model, images, targets = small[0], small[1][:15], small[2][:15]
    falls = []
    for image, target in zip(images, targets, strict=True):
        tried = image.repeat(128, 1, 1, 1).flatten(1)
        tried[torch.arange(64), torch.arange(64)] = 0.0
        tried[torch.arange(64) + 64, torch.arange(64)] = 1.0
        falls.append(bool((model(tried.reshape(128, 1, 8, 8)).argmax(dim=1) != target).any()))
    victim = Victim("dense", model, targets)
    found = ~attacked([victim], images, Ball("L0", 1, 0.0, 1.0), queries=800).standing[0]
    assert found.tolist() == falls
    assert any(falls)
    assert not all(falls)


def test_more_queries_and_more_restarts_only_make_it_stronger(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    model, images, targets = small
    ball = Ball("Linf", PLAIN_EPS["digits"], 0.0, 1.0)
    few = attacked([Victim("dense", model, targets)], images, ball, queries=20)
    many = attacked([Victim("dense", model, targets)], images, ball, queries=20, restarts=5)
    assert not (many.standing & ~few.standing).any()
    assert many.standing.sum() < few.standing.sum()
    spent = many.queries["dense"]
    assert spent[~few.standing[0]].nan_to_num(-1).equal(few.queries["dense"][~few.standing[0]].nan_to_num(-1))
    assert float(spent[few.standing[0] & ~many.standing[0]].min()) > 20
    assert float(spent.nan_to_num(0).max()) <= 100


class Rounding(nn.Module):
    """Gradients of zero everywhere, and none at all through what follows."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.model((x * 16).round() / 16)
        return scores.detach() * 100


def test_a_model_that_hides_its_gradients_hides_nothing(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    model, images, targets = small
    ball = Ball("Linf", 2 / 16, 0.0, 1.0)  # whole steps of the rounding
    open_one = attacked([Victim("dense", model, targets)], images, ball, queries=200)
    hidden = attacked([Victim("dense", Rounding(model), targets)], images, ball, queries=200)
    assert abs(float(open_one.standing.float().mean() - hidden.standing.float().mean())) < 0.1


# What a victim can be


def test_a_model_of_one_logit_is_attacked_at_its_threshold() -> None:
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    clean = torch.full((20, 4), 0.5)
    clean[10:] = 0.25
    targets = torch.tensor([1] * 10 + [0] * 10)  # logits 2 and 1 on either side of 1.5
    fell = ~attacked(
        [Victim("dense", model, targets, logit_threshold=1.5)], clean, Ball("Linf", 0.2, 0.0, 1.0), queries=200
    ).standing[0]
    assert fell.all()
    stands = attacked(
        [Victim("dense", model, targets, logit_threshold=1.5)], clean, Ball("Linf", 0.1, 0.0, 1.0), queries=200
    ).standing[0]
    assert stands.all()


def test_a_criterion_of_the_subjects_own_decides_what_hurts() -> None:
    criterion = Criterion(
        loss=lambda output, targets: (output - targets).abs(),
        fooled=lambda output, targets: (output - targets).abs() > 0.5,
    )
    victim = Victim("dense", Summed(), torch.full((12,), 2.0), criterion=criterion)
    clean = torch.full((12, 4), 0.5)
    assert not attacked([victim], clean, Ball("Linf", 0.15, 0.0, 1.0), queries=300).standing.any()
    assert attacked([victim], clean, Ball("Linf", 0.1, 0.0, 1.0), queries=300).standing.all()


class Summed(nn.Module):
    """A number an example, without gradients."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach().sum(dim=1)


def test_with_an_aim_only_that_answer_counts_and_the_search_is_for_it() -> None:
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(40, generator=generator)
    model = nn.Linear(40, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.zeros(40), way, -way]))
        model.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))
    clean = torch.zeros(20, 40)
    victim = Victim("dense", model, torch.zeros(20, dtype=torch.int64))
    # The sum of |way| is how far a score rises per unit of eps; random corners get about a fifth of it.
    enough = 1.3 / float(way.abs().sum())
    near = attacked([victim], clean, Ball("Linf", enough / 1.4, -1.0, 1.0), queries=200, aim=2)
    far = attacked([victim], clean, Ball("Linf", enough, -1.0, 1.0), queries=200, aim=2)
    assert near.standing.all()
    assert not far.standing.any()
    assert (model(torch.stack(far.pool.points)).argmax(dim=1) == 2).all()


def test_scores_that_are_no_numbers_never_count_and_do_not_end_the_search() -> None:
    class Holes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = x.sum(dim=1)
            broken = torch.where(x[:, 0] > 0.5, torch.nan, total)  # nearly half of all corners
            return torch.stack([broken, 4 - broken], dim=1)

    clean = torch.full((20, 6), 0.4)  # 2.4 against 1.6
    victim = Victim("dense", Holes(), torch.zeros(20, dtype=torch.int64))
    arena = attacked([victim], clean, Ball("Linf", 0.15, 0.0, 1.0), queries=200)
    assert not arena.standing.any()
    assert (torch.stack(arena.pool.points)[:, 0] <= 0.5).all()


# Queries


class Counting(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        scores: torch.Tensor = self.model(x)
        return scores


@pytest.mark.parametrize("row", range(6))
def test_queries_are_counted_as_the_model_sees_them(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor], row: int
) -> None:
    model = Counting(small[0])
    victim = Victim("dense", model, small[2][[row]], batch=1)
    arena = attacked([victim], small[1][[row]], Ball("Linf", EPS["digits"], 0.0, 1.0), queries=300)
    spent = float(arena.queries["dense"][0])
    if arena.standing[0, 0]:
        assert math.isnan(spent)
        assert model.calls == 1 + 300
    elif not math.isnan(spent):  # the clean pass before, the confirmation after
        assert model.calls == 1 + spent + 1
    (stage,) = [stage for stage in arena.stages if stage.name != "clean"]
    assert stage.forwards == model.calls - 1


def test_only_examples_that_stand_are_asked_about(small: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, images, targets = small
    standing = torch.zeros(1, 120, dtype=torch.bool)
    standing[0, [3, 50]] = True
    arena = attacked(
        [Victim("dense", model, targets)], images, Ball("Linf", EPS["digits"], 0.0, 1.0), queries=30, standing=standing
    )
    assert not arena.queries["dense"][~standing[0]].isfinite().any()
    assert arena.stages[0].tried == 2


def test_nothing_is_asked_when_nobody_stands(small: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, images, targets = small
    nobody = torch.zeros(1, 120, dtype=torch.bool)
    arena = attacked([Victim("dense", model, targets)], images, Ball("L2", 1.0, 0.0, 1.0), standing=nobody)
    assert arena.stages == []
    assert arena.queries["dense"].isnan().all()


@pytest.mark.parametrize("norm", NORMS)
def test_victims_are_asked_the_same_questions_and_share_no_points(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor], norm: Norm
) -> None:
    model, images, targets = small[0], small[1][:40], small[2][:40]
    eps = {"Linf": PLAIN_EPS["digits"], "L2": 0.7, "L1": 1.5, "L0": 2.0}[norm]
    zero = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    twins = [Victim("dense", model, targets), Victim("p@0.5", model, targets)]
    same = attacked(twins, images, Ball(norm, eps, 0.0, 1.0), seed=4, queries=60)
    alone = attacked([Victim("p@0.5", model, targets)], images, Ball(norm, eps, 0.0, 1.0), seed=4, queries=60)
    pair = [Victim("dense", zero, targets), Victim("p@0.5", model, targets)]
    together = attacked(pair, images, Ball(norm, eps, 0.0, 1.0), seed=4, queries=60)
    assert torch.equal(same.queries["dense"].nan_to_num(-1), same.queries["p@0.5"].nan_to_num(-1))
    assert torch.equal(alone.standing[0], together.standing[1])
    assert torch.equal(alone.queries["p@0.5"].nan_to_num(-1), together.queries["p@0.5"].nan_to_num(-1))
    assert alone.standing.any()
    assert not alone.standing.all()


def test_examples_that_do_not_fit_together_are_searched_in_groups_of_a_batch(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, targets = small
    ball = Ball("Linf", PLAIN_EPS["digits"], 0.0, 1.0)
    monkeypatch.setattr(random_search, "ELEMENTS", 1)
    victims = [Victim(name, model, targets, batch=50) for name in ("dense", "p@0.5")]
    arena = attacked(victims, images, ball, queries=60)
    assert [stage.victim for stage in arena.stages[2:]] == ["dense", "p@0.5"] * 3
    right = int((model(images).argmax(dim=1) == targets).sum())
    assert sum(stage.tried for stage in arena.stages if stage.name != "clean" and stage.victim == "dense") == right
    assert torch.equal(arena.standing[0], arena.standing[1])
    spent = arena.queries["dense"]
    assert [bool(spent[start : start + 50].isfinite().any()) for start in (0, 50, 100)] == [True] * 3


def test_points_that_fooled_are_in_the_pool_for_others(small: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, images, targets = small
    arena = attacked([Victim("dense", model, targets)], images, Ball("Linf", EPS["digits"], 0.0, 1.0), queries=100)
    fell = arena.queries["dense"].isfinite()
    assert sorted(arena.pool.rows) == fell.nonzero().flatten().tolist()
    points = torch.stack(arena.pool.points)
    assert (model(points).argmax(dim=1) != targets[arena.pool.rows]).all()
    assert arena.space.contains(images[arena.pool.rows], points).all()


def test_a_point_that_is_not_confirmed_does_not_count_and_is_moved_on(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    class Boasting(Victim):
        """Its scores say that it fell, its answers do not."""

        def losses(self, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
            found, hit = super().losses(*given)
            return found, torch.ones_like(hit)

    model, images, targets = small
    arena = attacked([Boasting("dense", model, targets)], images, Ball("Linf", 1e-4, 0.0, 1.0), queries=120)
    assert arena.standing[0].equal(model(images).argmax(dim=1) == targets)
    assert arena.queries["dense"].isnan().all()
    stage = arena.stages[-1]
    # All of the queries are asked, each followed by a confirmation, as nobody else is searching meanwhile.
    assert stage.forwards == stage.tried * (120 + 120)


# What is left alone, what is refused


def test_random_state_default_type_and_model_are_left_alone_and_do_not_matter(
    small: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    model, images, targets = small

    def run() -> Arena:
        victim = Victim("dense", model, targets)
        with victim.attacked():
            return attacked([victim], images, Ball("L2", 0.5, 0.0, 1.0), queries=30)

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    first = run()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.set_default_dtype(torch.float64)
    try:
        second = run()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(first.standing, second.standing)


@pytest.mark.parametrize("keys", [{"queries": 0}, {"restarts": 0}, {"queries": 2.5}, {"steps": 3}])
def test_impossible_options_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options(**keys)


def test_it_attacks_any_shape_that_has_elements() -> None:
    assert ATTACK.refuses((3, 32, 32), 10) is None
    assert ATTACK.refuses((7,), 2) is None
    assert "no elements" in str(ATTACK.refuses((3, 0, 4), 10))
    assert not ATTACK.gradients


def test_the_file_is_read_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, pruneproof.attacks.black_box; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
