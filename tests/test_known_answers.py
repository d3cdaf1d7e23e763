"""Attacks on models whose robust accuracy is known: from a formula, or by construction.

Each test is run through every attack below that knows the norm: torchattacks' classes, and the audit's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from pruneproof.adversarial import entries
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.victim import Victim

AUDIT = [name for name in (entries.AUDIT,) if name in entries.names()]
INFINITY = ["PGD", *AUDIT]
ROUNDING = 1e-5
"""Examples nearer than this to the edge may fall either way, in float32."""


def stood(
    name: str,
    model: nn.Module,
    clean: torch.Tensor,
    targets: torch.Tensor,
    space: Ball,
    own: dict[str, Any] | None = None,
    **victim: Any,
) -> torch.Tensor:
    """``(n,)`` booleans: who is left standing."""
    arena = Arena([Victim("dense", model, targets, **victim)], clean, space, seed=1)
    entries.attack(name, "box").run(arena, entries.options(name, own or {}, "box"))
    return arena.standing[0]


class Linear(nn.Module):
    """``Wx + b``, of one logit or of several."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.flatten(1) @ self.weight.T + self.bias


def weakest(drop: torch.Tensor, room: torch.Tensor, norm: str, eps: float) -> float:
    """By how much a sum ``drop · step`` can fall, of steps of at most ``room`` each and ``eps`` in all.

    Linf: every element goes as far as it may. L1: a fractional knapsack, the dearest elements first. L2: a step is
    ``min(t · drop, room)``, with the ``t`` that spends ``eps`` (found by bisection). L0: the dearest ``eps`` elements.
    """
    gain, space = drop.abs().double().numpy(), room.double().numpy()
    if norm == "Linf":
        return float((gain * np.minimum(space, eps)).sum())
    if norm == "L0":
        return float(np.sort(gain * space)[::-1][: math.floor(eps)].sum())
    if norm == "L1":
        total, left = 0.0, eps
        for place in np.argsort(-gain):
            taken = min(left, space[place])
            total, left = total + gain[place] * taken, left - taken
        return float(total)
    if math.sqrt((space**2).sum()) <= eps:
        return float((gain * space).sum())
    spent = optimize.brentq(lambda t: (np.minimum(t * gain, space) ** 2).sum() - eps**2, 0, 1e9, xtol=1e-12)
    return float((gain * np.minimum(spent * gain, space)).sum())


def margins(model: Linear, clean: torch.Tensor, targets: torch.Tensor, space: Ball) -> torch.Tensor:
    """``(n,)`` how far the right class stays ahead of every other at the worst point; below 0: it can fall."""
    weight, bias = model.weight.detach().double(), model.bias.detach().double()
    if len(weight) == 1:
        weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
    low, high = torch.as_tensor(space.low).double(), torch.as_tensor(space.high).double()
    found = []
    for row, target in zip(clean.flatten(1).double(), targets.tolist(), strict=True):
        ahead = []
        for other in set(range(len(weight))) - {target}:
            lead = weight[target] - weight[other]
            room = torch.where(lead > 0, row - low, high - row)
            now = float(lead @ row + bias[target] - bias[other])
            ahead.append(now - weakest(lead, room, space.norm, space.eps))
        found.append(min(ahead))
    return torch.tensor(found)


def linear(classes: int, elements: int = 12, n: int = 120, seed: int = 0) -> tuple[Linear, torch.Tensor, torch.Tensor]:
    """A random model, examples (some elements on the edge of the box) and the model's own answers."""
    generator = torch.Generator().manual_seed(seed)
    model = Linear(torch.randn(classes, elements, generator=generator), 0.1 * torch.randn(classes, generator=generator))
    clean = (1.4 * torch.rand(n, elements, generator=generator) - 0.2).clamp(0, 1)
    with torch.no_grad():
        # the decision in the middle of the examples: both classes of one logit occur
        model.bias -= model(clean).mean(dim=0)
        scores = model(clean)
    return model, clean, (scores[:, 0] >= 0).long() if classes == 1 else scores.argmax(dim=1)


CERTAIN: list[tuple[str, str, dict[str, Any]]] = [
    ("PGD", "Linf", {"steps": 20}),
    ("BIM", "Linf", {"steps": 20}),
    ("APGD", "Linf", {"steps": 30}),
    ("FAB", "Linf", {"steps": 30}),
    ("PGDL2", "L2", {"steps": 300, "alpha": 0.02}),
    *[(name, norm, {}) for name in AUDIT for norm in ("Linf", "L2", "L1")],
]
SLACK = {"PGDL2": 2e-3, "FAB": 0.1}
"""FAB goes 5 % beyond the nearest border, PGDL2's last steps are as long as its first."""
EPS = {"Linf": 0.1, "L2": 0.35, "L1": 0.8, "L0": 1.0}


@pytest.mark.parametrize(("name", "norm", "own"), CERTAIN)
@pytest.mark.parametrize("classes", [1, 2])
def test_of_a_linear_classifier_just_those_fall_that_the_formula_says(
    name: str, norm: Any, own: dict[str, Any], classes: int
) -> None:
    for seed in range(3):
        model, clean, targets = linear(classes, seed=seed)
        space = Ball(norm, EPS[norm], 0.0, 1.0)
        expected = margins(model, clean, targets, space)
        clear = expected.abs() > SLACK.get(name, ROUNDING)
        found = stood(name, model, clean, targets, space, own)
        assert 10 < (expected > 0).sum() < 110
        assert clear.sum() > 95
        assert torch.equal(found[clear], (expected > 0)[clear])


@pytest.mark.parametrize("name", INFINITY)
def test_of_many_classes_none_falls_that_the_formula_holds_and_hardly_one_stands_that_it_does_not(name: str) -> None:
    model, clean, targets = linear(5, seed=3)
    space = Ball("Linf", 0.05, 0.0, 1.0)
    expected = margins(model, clean, targets, space) > 0
    found = stood(name, model, clean, targets, space, {"steps": 40} if name == "PGD" else {})
    assert not (expected & ~found).any()  # what stands by the formula was not reported fallen
    # cross-entropy alone may go after the wrong one of two others; the audit's attack goes after each of them
    assert (found & ~expected).sum() <= (0 if name in AUDIT else 5)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1", "L0"])
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("unit", [1.0, 0.25])
def test_the_extreme_point_of_a_ball_is_where_a_linear_classifier_falls_by_the_formula(
    norm: Any, classes: int, unit: float
) -> None:
    for seed in range(3):
        model, clean, targets = linear(classes, seed=seed)
        eps = {**EPS, "L0": 2.0}[norm]
        space = Ball(norm, eps if norm == "L0" else eps / unit, 0.0, 1.0, unit)
        expected = margins(model, clean, targets, Ball(norm, eps, 0.0, 1.0))
        weight = model.weight.detach()
        rise = weight[0] if classes == 1 else weight[1] - weight[0]
        gradient = torch.where(targets[:, None] == 1, -rise, rise)
        points = space.extreme(clean, gradient)
        assert space.contains(clean, points).all()
        clear = expected.abs() > ROUNDING
        fell = Victim("dense", model, targets).fooled(points, torch.arange(len(clean)))
        assert clear.sum() > 115
        assert torch.equal(fell[clear], (expected < 0)[clear])


@pytest.mark.parametrize("name", AUDIT)
def test_in_l0_none_falls_that_the_formula_holds_and_most_fall_that_it_does_not(name: str) -> None:
    model, clean, targets = linear(2, seed=4)
    space = Ball("L0", 2.0, 0.0, 1.0)
    expected = margins(model, clean, targets, space) > 0
    found = stood(name, model, clean, targets, space)
    assert not (expected & ~found).any()
    assert (found & ~expected).sum() <= 6


@pytest.mark.parametrize("name", INFINITY)
def test_the_formula_holds_in_other_units(name: str) -> None:
    """Features of 0 to 16, whose budget is stated in quarters."""
    model, clean, targets = linear(1, seed=5)
    wide = Linear(model.weight.detach() / 16, model.bias.detach())
    space = Ball("Linf", 4 * 0.1 * 16, 0.0, 16.0, 0.25)
    expected = margins(model, clean, targets, Ball("Linf", 0.1, 0.0, 1.0))
    clear = expected.abs() > ROUNDING
    found = stood(name, wide, clean * 16, targets, space, {"steps": 20} if name == "PGD" else {})
    assert torch.equal(found[clear], (expected > 0)[clear])


@pytest.mark.parametrize("name", INFINITY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_formula_holds_in_other_precisions(name: str, dtype: torch.dtype) -> None:
    model, clean, targets = linear(1, seed=6)
    model, clean = model.to(dtype), clean.to(dtype)
    with torch.no_grad():
        targets = (model(clean)[:, 0] >= 0).long()
    space = Ball("Linf", 0.125, 0.0, 1.0)
    expected = margins(model, clean, targets, space)
    clear = expected.abs() > (1e-6 if dtype == torch.float64 else 0.1)
    found = stood(name, model, clean, targets, space, {"steps": 20} if name == "PGD" else {})
    assert torch.equal(found[clear], (expected > 0)[clear])


class Steps(nn.Module):
    """Locally constant: rounds its inputs to ``levels``, so that gradients are zero almost everywhere."""

    def __init__(self, body: nn.Module, levels: int) -> None:
        super().__init__()
        self.body, self.levels = body, levels

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.body((inputs * self.levels).round() / self.levels)


@pytest.mark.parametrize("name", INFINITY)
def test_a_locally_constant_network_hides_its_gradients_and_no_success_is_made_up(name: str) -> None:
    """Its truth is known: rounding to 4 levels, an element moves by whole levels, those within eps of a border.

    An attack may miss what falls (it sees no gradient; the suite's checks say so), and must not claim what cannot.
    """
    body, clean, targets = linear(1, seed=7)
    model = Steps(body, 4)
    with torch.no_grad():
        targets = (model(clean)[:, 0] >= 0).long()
    eps = 0.1
    weight = body.weight.detach()[0].double()
    ends = []
    for way in (1, -1):  # as far towards a lower and a higher logit as each element can be moved over borders
        moved = clean.double() - way * eps * weight.sign()
        ends.append((moved.clamp(0, 1) * 4).round() / 4 @ weight + body.bias.detach().double())
    falls = torch.where(targets == 1, ends[0] < 0, ends[1] >= 0)
    near = torch.minimum(ends[0].abs(), ends[1].abs()) < 1e-4
    found = stood(name, model, clean, targets, Ball("Linf", eps, 0.0, 1.0))
    assert falls.sum() > 10
    assert (found | falls | near).all()  # nothing fell that cannot


def test_square_sees_through_a_locally_constant_network() -> None:
    """The gradient-free attack is what finds a hidden gradient out."""
    body, clean, _ = linear(1, seed=7)
    model = Steps(body, 4)
    with torch.no_grad():
        targets = (model(clean)[:, 0] >= 0).long()
    space = Ball("Linf", 0.1, 0.0, 1.0)
    blind = stood("BIM", model, clean, targets, space, {"steps": 50})
    assert blind.all()
    assert not stood("Square", model, clean, targets, space, {"n_queries": 300}).all()


class Noisy(nn.Module):
    """Adds noise of the global generator to its logit, also in evaluation mode."""

    def __init__(self, body: nn.Module, scale: float) -> None:
        super().__init__()
        self.body, self.scale = body, scale

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(inputs)
        return logits + self.scale * torch.randn(len(logits), 1)


@pytest.mark.parametrize("name", INFINITY)
def test_of_a_network_with_a_stochastic_layer_the_averaged_answer_is_judged(name: str) -> None:
    body, clean, targets = linear(1, seed=8)
    space = Ball("Linf", 0.1, 0.0, 1.0)
    expected = margins(body, clean, targets, space)
    sure = expected.abs() > 0.2  # four standard deviations of the mean of 64 draws of noise 0.4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = stood(
            name, Noisy(body, 0.4), clean, targets, space, {"steps": 20} if name == "PGD" else {}, draws=64,
        )  # fmt: skip
    assert sure.sum() > 80
    assert torch.equal(found[sure], (expected > 0)[sure])


@pytest.mark.parametrize("name", ["FAB", *AUDIT])
def test_saturated_logits_do_not_make_a_network_look_robust(name: str) -> None:
    """Multiplied by 10 000, softmax is exactly 0 or 1 and the gradient of cross-entropy 0; the truth is the same."""
    model, clean, targets = linear(2, seed=9)
    space = Ball("Linf", 0.1, 0.0, 1.0)
    expected = margins(model, clean, targets, space)
    clear = expected.abs() > 1e-4
    hot = Linear(1e4 * model.weight.detach(), 1e4 * model.bias.detach())
    found = stood(name, hot, clean, targets, space, {"steps": 30} if name == "FAB" else {})
    assert torch.equal(found[clear], (expected > 0)[clear])


def test_saturated_logits_fool_cross_entropy() -> None:
    """Why the test above needs another loss: torchattacks' PGD reports almost everything as robust."""
    model, clean, targets = linear(2, seed=9)
    space = Ball("Linf", 0.1, 0.0, 1.0)
    hot = Linear(1e4 * model.weight.detach(), 1e4 * model.bias.detach())
    cold = stood("PGD", model, clean, targets, space, {"steps": 20})
    assert stood("PGD", hot, clean, targets, space, {"steps": 20}).sum() > cold.sum() + 20


class Trapdoor(nn.Module):
    """A detector of random starts: its gradient leads home from everywhere but a slab that few starts lie in.

    It answers class 1 beyond 0.9 of ``eps`` along the first element's axis. From a start in which the second element
    is below ``share`` of its range, the loss rises that way; from all others it falls.
    """

    def __init__(self, eps: float, share: float) -> None:
        super().__init__()
        self.eps, self.border = eps, eps * (2 * share - 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        along, across = inputs[:, 0] - 0.5, inputs[:, 1] - 0.5
        opened = (across < self.border).to(inputs.dtype)
        slope = along.detach() + (2 * opened - 1) * (along - along.detach())
        second = (slope - 0.9 * self.eps) / self.eps
        return torch.stack([torch.zeros_like(second), second], dim=1)


def test_restarts_find_what_one_random_start_does_not() -> None:
    eps, share, n = 0.2, 0.25, 400
    model, clean = Trapdoor(eps, share), torch.full((400, 2), 0.5)
    targets, space = torch.zeros(n, dtype=torch.int64), Ball("Linf", eps, 0.0, 1.0)
    # one start in the slab, or one that happens to lie beyond the border already: 1 - 0.75 · 0.95
    hit = 1 - (1 - share) * 0.95
    for restarts in (1, 8):
        standing = torch.ones(n, dtype=torch.bool)
        arena = Arena([Victim("dense", model, targets)], clean, space, seed=2)
        for _ in range(restarts):
            # PGD has no restarts of its own: every run is on those that are left, and draws anew
            arena.seed += 1
            entries.attack("PGD", "box").run(arena, entries.options("PGD", {"steps": 20}, "box"))
        standing = arena.standing[0]
        # a start elsewhere is led to the far edge and never comes back
        expected = n * (1 - hit) ** restarts
        assert abs(int(standing.sum()) - expected) < 4 * math.sqrt(n * 0.25)


@pytest.mark.parametrize("name", AUDIT)
def test_restarts_of_the_audit_find_more(name: str) -> None:
    model, clean = Trapdoor(0.2, 0.25), torch.full((200, 2), 0.5)
    targets, space = torch.zeros(200, dtype=torch.int64), Ball("Linf", 0.2, 0.0, 1.0)
    record = entries.attack(name, "box").options
    if "restarts" not in record.model_fields:
        pytest.fail("the audit attack has no restarts")
    few = stood(name, model, clean, targets, space, {"restarts": 1}).sum()
    many = stood(name, model, clean, targets, space, {"restarts": 10}).sum()
    assert many <= few
    assert many <= 20


class Constant(nn.Module):
    """The same answer to everything: as robust as it is useless."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(1, 0, classes))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(inputs), -1) + 0 * inputs.flatten(1).sum(dim=1, keepdim=True)


@pytest.mark.parametrize(
    "name", ["FGSM", "PGD", "APGD", "FAB", "Square", "MIFGSM", "SPSA", "PGDL2", "CW", "DeepFool", "JSMA", *AUDIT]
)
@pytest.mark.parametrize("classes", [2, 10])
def test_a_model_that_is_robust_by_a_constant_output_stays_as_accurate_as_it_is(name: str, classes: int) -> None:
    clean = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    targets = torch.arange(12) % classes
    norm: Any = "Linf" if "Linf" in entries.attack(name, "box").norms else "L2"
    own = {"Square": {"n_queries": 20}, "JSMA": {"gamma": 0.05}}.get(name, {})
    found = stood(name, Constant(classes), clean, targets, Ball(norm, 1.0, 0.0, 1.0), own)
    assert torch.equal(found, targets == 0)
