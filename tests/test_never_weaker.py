"""The audit attack against torchattacks' PGD-100 and AutoAttack, on real digits: it never reports more robustness.

Robust accuracy is an upper bound, so an attack that is weaker than what everybody uses makes a fragile model look safe.
What may differ is noise: two runs of the same attack from other random starts disagree on 2 to 3 % of the examples, in
both directions. Beyond paired noise means that the exact McNemar test on the examples that just one of them fooled
rejects, at 1 %, that neither is stronger.
"""

from __future__ import annotations

from typing import Any

import attacked_models as networks
import pytest
import torch
from scipy import stats

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.victim import Victim
from pruneproof.attacks.audit import ATTACK, Options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETUPS: list[tuple[networks.Pixels, networks.Training, float]] = [
    ("digits", "adversarial", 0.15),
    ("digits", "plain", 0.08),
    ("mnist", "adversarial", 0.25),
    ("mnist", "plain", 0.05),
]
"""Budgets at which between a quarter and four fifths stand; 0.25 is beyond what the training was against."""
EXAMPLES = 100
ALPHA = 0.01
ADVERSARIAL = [setup for setup in SETUPS if setup[1] == "adversarial"]
"""AutoAttack takes minutes, and says most where gradients do not lead straight across the boundary."""


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: f"{setup[0]}-{setup[1]}")
def setup(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.nn.Module], torch.Tensor, torch.Tensor, float]:
    pixels, training, eps = request.param
    folder = tmp_path_factory.mktemp("models")
    data = networks.digits(pixels, EXAMPLES)
    return networks.variants(networks.trained(pixels, training, folder)), data.test, data.test_targets, eps


def ours(setup: Any, strength: str, names: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Variant → ``(n,)`` booleans of who stands."""
    models, clean, targets, eps = setup
    victims = [Victim(name, model, targets, batch=128) for name, model in models.items() if not names or name in names]
    arena = Arena(victims, clean, Ball("Linf", eps, 0.0, 1.0), seed=0)
    ATTACK.run(arena, Options.model_validate({"strength": strength}))
    return {victim.name: stood for victim, stood in zip(victims, arena.standing, strict=True)}


def theirs(setup: Any, name: str, attack: Any) -> torch.Tensor:
    """``(n,)`` booleans of who stands under an attack of torchattacks."""
    models, clean, targets, _ = setup
    model = models[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        points = attack(model)(clean, targets).detach()
    with torch.no_grad():
        right = model(clean).argmax(dim=1) == targets
        return right & (model(points).argmax(dim=1) == targets)


def weaker(own: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether ours leaves more standing than chance explains: McNemar, exact, one-sided."""
    only_other, only_own = int((own & ~other).sum()), int((other & ~own).sum())
    n = only_other + only_own
    return n > 0 and float(stats.binomtest(only_other, n, alternative="greater").pvalue) < ALPHA


def pgd(eps: float) -> Any:
    import torchattacks

    return lambda model: torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=100)


def autoattack(eps: float) -> Any:
    import torchattacks

    return lambda model: torchattacks.AutoAttack(model, eps=eps, seed=0)


def autoattack_100(eps: float) -> Any:
    """As published: torchattacks' own class runs ten steps of each."""
    import torchattacks

    def made(model: torch.nn.Module) -> Any:
        return torchattacks.MultiAttack(
            [
                torchattacks.APGD(model, eps=eps, seed=0, loss="ce", steps=100),
                torchattacks.APGDT(model, eps=eps, seed=0, n_classes=10, steps=100),
                torchattacks.FAB(model, eps=eps, seed=0, multi_targeted=True, n_classes=10, steps=100),
                torchattacks.Square(model, eps=eps, seed=0),
            ]
        )

    return made


@pytest.mark.parametrize("strength", ["quick", "standard"])
def test_no_variant_stands_more_often_than_under_pgd_of_100_steps(setup: Any, strength: str) -> None:
    for name, stood in ours(setup, strength).items():
        assert not weaker(stood, theirs(setup, name, pgd(setup[3]))), name


@pytest.mark.parametrize("setup", ADVERSARIAL, ids=lambda setup: f"{setup[0]}-{setup[1]}", indirect=True)
def test_no_variant_stands_more_often_than_under_autoattack_as_it_comes(setup: Any) -> None:
    for name, stood in ours(setup, "standard").items():
        assert not weaker(stood, theirs(setup, name, autoattack(setup[3]))), name


@pytest.mark.parametrize("name", ["dense", "magnitude@0.9"])
@pytest.mark.parametrize("setup", ADVERSARIAL, ids=lambda setup: f"{setup[0]}-{setup[1]}", indirect=True)
def test_standard_is_near_autoattack_of_100_steps_and_reference_equals_it(setup: Any, name: str) -> None:
    other = theirs(setup, name, autoattack_100(setup[3]))
    stood = ours(setup, "standard")[name]
    # 1.5 and 0.3 points of the published comparison, on few examples: one more each way
    assert int(stood.sum()) - int(other.sum()) <= 0.015 * EXAMPLES + 1
    reference = ours(setup, "reference", ("dense", name))[name]
    assert int(reference.sum()) - int(other.sum()) <= 0.003 * EXAMPLES + 1
