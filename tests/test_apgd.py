"""Auto-PGD of our own: the published algorithm, step for step, with less work for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchattacks
from torch import nn

from pruneproof.adversarial import apgd, reference
from pruneproof.adversarial.apgd import UNTARGETED, AutoPGD, Climbs, checkpoints
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.victim import Gradient, Victim
from pruneproof.attacks.audit import ATTACK, Options

EPS = 0.1


def network(seed: int = 0, classes: int = 6) -> nn.Sequential:
    """Smooth, not trained: examples get what it says of them as targets."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model.eval()


def examples(model: nn.Module, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return clean, model(clean).argmax(dim=1)


class Watched(Victim):
    """Keeps the points that gradients were taken at."""

    def gradient(self, points: torch.Tensor, *rest: Any) -> Gradient:
        vars(self).setdefault("seen", []).append(points.clone())
        return super().gradient(points, *rest)


def noise(clean: torch.Tensor, seed: int, norm: str, eps: float) -> torch.Tensor:
    """The random start of torchattacks."""
    torch.manual_seed(seed)
    if norm == "Linf":
        drawn = 2 * torch.rand(clean.shape) - 1
        return (clean + eps * drawn / drawn.flatten(1).abs().amax(dim=1)[:, None, None, None]).clamp(0, 1)
    drawn = torch.randn(clean.shape)
    return (clean + eps * drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1)


def test_checkpoints_are_those_of_the_publication() -> None:
    # p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06) from 0 and 0.22: section 3.2 of the paper
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == []
    assert all(0 < mark < 10 for mark in checkpoints(10))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.01), ("L2", 0.05)])
def test_every_step_is_that_of_torchattacks(norm: Any, eps: float, targeted: bool) -> None:
    """At budgets so small that nobody falls; single examples part where a loss ties with the one before."""
    model = network()
    clean, targets = examples(model, 60)
    with torch.no_grad():
        scores = model(clean)
    goals = scores.topk(2, dim=1).indices[:, 1] if targeted else torch.full((60,), UNTARGETED)
    safe = scores.topk(2, dim=1).values.diff(dim=1).squeeze(1) < -0.8
    clean, targets, goals = clean[safe], targets[safe], goals[safe]
    made: Any = (torchattacks.APGDT if targeted else torchattacks.APGD)(model, norm=norm, eps=eps, steps=100)
    made.target_class = 2
    theirs: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(
        lambda _, inputs: theirs.append(inputs[0].detach().clone()) if inputs[0].requires_grad else None
    )
    with torch.random.fork_rng():
        starts = noise(clean, 3, norm, eps)
        torch.manual_seed(3)
        made.attack_single_run(clean, targets)
    hook.remove()
    n = len(clean)
    victim = Watched("dense", model, targets, batch=n)
    arena = Arena([victim], clean, Ball(norm, eps, 0.0, 1.0), seed=0)
    with victim.attacked(), arena.stage("APGD", victim, n) as stage:
        AutoPGD(arena, victim, stage, 100).run(Climbs(torch.arange(n), starts, goals), torch.ones(n, dtype=torch.bool))
    ours = torch.stack(vars(victim)["seen"])
    assert n > 20
    assert bool(arena.standing.all())
    apart = (ours - torch.stack(theirs)[: len(ours)]).abs().flatten(2).amax(dim=(0, 2))
    assert len(ours) == 101
    assert float((apart < 1e-3 * eps).double().mean()) > 0.85


def test_who_falls_leaves_and_who_waits_takes_the_place() -> None:
    model = network()
    clean, targets = examples(model, 50)
    spent, fallen = [], []
    for batch in (4, 64):
        victim = Victim("dense", model, targets, batch=batch)
        arena = Arena([victim], clean, Ball("Linf", EPS, 0.0, 1.0), seed=0)
        with victim.attacked(), arena.stage("APGD", victim, 50) as stage:
            climbs = Climbs(torch.arange(50).repeat(2), clean.repeat(2, 1, 1, 1), torch.full((100,), UNTARGETED))
            AutoPGD(arena, victim, stage, 20).run(climbs, torch.zeros(50, dtype=torch.bool))
        spent.append(stage.gradients)
        fallen.append((~arena.standing[0]).tolist())
        assert int(climbs.won.sum()) == stage.fell == sum(fallen[-1])
        # both climbs of an example are the same one: of those that fell the second was not needed
        assert climbs.rows[climbs.won].unique().numel() == stage.fell
    assert fallen[0] == fallen[1]
    assert sum(fallen[0]) > 10
    assert spent[0] < spent[1]  # with few seats the second climb of an example mostly never began


def test_where_a_patient_one_falls_that_was_far_behind_the_others_climbs_are_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apgd, "HOPE", 0.0)  # everybody is too far behind at the first checkpoint
    monkeypatch.setattr(apgd, "FIRST", 0.05)  # and hardly anybody gets there before it
    model = network()
    clean, targets = examples(model, 200)
    fell: dict[float, int] = {}
    names: dict[float, set[str]] = {}
    for share in (0.0, 0.2, 1.0):
        victim = Victim("dense", model, targets, batch=50)
        arena = Arena([victim], clean, Ball("Linf", 0.02, 0.0, 1.0), seed=0)
        patient = torch.arange(200) < share * 200
        left = torch.full((200,), torch.inf, dtype=torch.float64)
        climbs = Climbs(torch.arange(200), clean, torch.full((200,), UNTARGETED))
        with victim.attacked():
            reference._climb(arena, victim, "APGD", 40, climbs, patient, left)
        fell[share], names[share] = int((~arena.standing).sum()), {stage.name for stage in arena.stages}
    assert fell[0.0] < fell[0.2] == fell[1.0]
    assert "APGD to the end" in names[0.2]
    assert "APGD to the end" not in names[0.0] | names[1.0]


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("L2", 0.3)])
def test_reference_goes_through_autoattacks_stages_and_its_points_are_in_the_ball(norm: Any, eps: float) -> None:
    model, other = network(), network()
    with torch.no_grad():
        other[0].weight += 0.02
    clean, targets = examples(model, 40)
    victims = [Victim(name, one, targets, batch=16) for name, one in (("dense", model), ("pruned", other))]
    space = Ball(norm, eps, 0.0, 1.0)
    arena = Arena(victims, clean, space, seed=0)
    before = torch.get_rng_state()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(reference, "QUERIES", 50)
    with monkey.context():
        ATTACK.run(arena, Options(strength="reference", steps=2))
    monkey.undo()
    assert torch.equal(before, torch.get_rng_state())
    assert {"APGD", "APGDT", "Square", "FAB"} <= {stage.name for stage in arena.stages}
    assert 5 < int((~arena.standing[0]).sum()) < 40
    for place, victim in enumerate(victims):
        for row in (arena.fell_by[place] >= 0).nonzero().flatten().tolist():
            point = arena.pool.points[int(arena.fell_by[place, row])][None]
            assert bool(space.contains(clean[[row]], point))
            with torch.no_grad():
                assert int(victim.model(point).argmax()) != int(targets[row])
