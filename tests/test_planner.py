"""From a recipe to a plan: what was asked for is what goes, under the denominator that the policy names."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import networks
import plans
import pytest
import torch
import transformers_models
from torch import nn

from pruneproof import digests, graph, plan, profile, pruning, registry, schedule, surgery
from pruneproof.errors import GraphTimeout, PruningError, SubjectError
from pruneproof.subject import Data, Subject

IMAGE, ROW = networks.batch(6, 3, 8, 8), networks.batch(12, 6)


def total(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def layer_weights(model: nn.Module) -> int:
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, kinds))


def zeros(model: nn.Module) -> int:
    return sum(int((parameter == 0).sum()) for parameter in model.parameters())


# Ratios and denominators


@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.5, 0.83])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("denominator", ["layer_weights", "all_parameters"])
def test_single_weights_meet_the_ratio_of_any_denominator_to_the_element(
    ratio: float, scope: str, denominator: str
) -> None:
    model = networks.seeded(networks.cnn)
    pruned = plans.pruned(model, IMAGE, ratio, scope=scope, denominator=denominator)
    size = total(model) if denominator == "all_parameters" else layer_weights(model)
    assert zeros(pruned) - zeros(model) == int(Fraction(str(ratio)) * size + Fraction(1, 2))


def test_more_weights_than_may_be_pruned_cannot_go_and_the_most_is_offered() -> None:
    model = networks.seeded(networks.mlp)
    with pytest.raises(PruningError, match="may be pruned") as caught:
        plans.planned(model, ROW, 0.95, denominator="all_parameters")
    most = float(caught.value.remedy.rsplit(" ", 1)[1])
    assert plans.planned(model, ROW, most, denominator="all_parameters").removed > 0


def share_gone(denominator: str, dense: nn.Module, pruned: nn.Module, x: torch.Tensor) -> float:
    count: Callable[[nn.Module], int] = {
        "layer_weights": layer_weights,
        "all_parameters": total,
        "macs": lambda model: profile.macs(model, x[:1]) or 0,
    }[denominator]
    return 1 - count(pruned) / count(dense)


@pytest.mark.parametrize("name", ["mlp", "cnn", "Residual", "depthwise"])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("denominator", ["layer_weights", "all_parameters", "macs"])
def test_channels_are_solved_for_on_the_real_count_and_come_within_one_channel(
    name: str, ratio: float, scope: str, denominator: str
) -> None:
    model = networks.seeded(getattr(networks, name)).eval()
    x = ROW if name == "mlp" else IMAGE
    options = {"granularity": "channel", "criterion": "random", "scope": scope, "denominator": denominator}
    made = plans.planned(model, x, ratio, **options)
    found = share_gone(denominator, model, surgery.apply(made, model), x)
    assert made.achieved == pytest.approx(found)
    assert made.resolution is not None
    assert abs(found - ratio) <= made.resolution <= largest_unit(made, denominator, model, x)


def largest_unit(made: plan.PrunePlan, denominator: str, model: nn.Module, x: torch.Tensor) -> float:
    """The most that a single channel can be: the dense network without one channel of each group in turn."""
    groups = graph.groups(model, x[:2], 60).groups
    shares = []
    for group in groups:
        removals = tuple(
            plan.Removal(entry.tensor, entry.dim, entry.role, entry.positions[entry.units == 0])
            for entry in group.slices
        )
        alone = dataclasses.replace(made, removals=removals, settings=())
        shares.append(share_gone(denominator, model, surgery.shrunk(alone, model), x))
    return max(shares) + 1e-9


def test_a_ratio_out_of_reach_is_refused_with_the_most_that_can_go() -> None:
    model = networks.seeded(networks.mlp)
    with pytest.raises(PruningError, match="out of reach") as caught:
        plans.planned(model, ROW, 0.99, granularity="channel", denominator="all_parameters")
    most = float(caught.value.remedy.rsplit(" ", 1)[1])
    assert plans.planned(model, ROW, most, granularity="channel", denominator="all_parameters").achieved >= most - 0.05


@pytest.mark.parametrize("granularity", ["element", "channel"])
def test_a_ratio_so_close_to_one_that_nothing_stays_is_refused(granularity: str) -> None:
    with pytest.raises(PruningError, match=r"leaves nothing|must stay"):
        plans.planned(networks.seeded(networks.mlp), ROW, 0.9999, granularity=granularity)


def test_tied_scores_remove_as_many_as_asked_for_and_no_more() -> None:
    model = networks.mlp()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    assert plans.planned(model, ROW, 0.3).removed == 47  # of 158, half up
    assert plans.planned(model, ROW, 0.3, granularity="channel").removed == 5  # of 18


def test_a_dead_layer_does_not_stop_the_request_from_being_met() -> None:
    """A tool that skips layers that would vanish asks for 40 % and removes 6.7 %."""
    model = networks.seeded(networks.mlp)
    nn.init.zeros_(model.get_parameter("0.weight"))
    made = plans.planned(model, ROW, 0.4, granularity="channel")
    assert made.removed == 7
    assert made.layers["0"][0] == 1


# Floors and excluded layers


@pytest.mark.parametrize("granularity", ["element", "channel"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_no_layer_keeps_less_than_its_floor(granularity: str, scope: str) -> None:
    model = networks.seeded(networks.cnn)
    made = plans.planned(model, IMAGE, 0.6, granularity=granularity, scope=scope, layer_floor=0.35)
    assert all(kept >= 0.35 * units for kept, units in made.layers.values())
    assert "V8" not in plans.failed(made, model, surgery.apply(made, model), IMAGE)


def test_a_layer_under_its_floor_is_found() -> None:
    model = networks.seeded(networks.cnn)
    made = plans.planned(model, IMAGE, 0.9)
    claims_more = dataclasses.replace(made, recipe={**made.recipe, "layer_floor": "0.5"})
    assert plans.failed(claims_more, model, surgery.apply(made, model), IMAGE) == {"V8"}


@pytest.mark.parametrize(("pattern", "stay"), [("8", {"8"}), ("[04]*", {"0", "4"}), ("10.weight", {"10"})])
def test_excluded_layers_stay_whole_and_are_listed(pattern: str, stay: set[str]) -> None:
    model = networks.seeded(networks.cnn)
    made = plans.planned(model, IMAGE, 0.5, exclude=[pattern])
    pruned = surgery.apply(made, model)
    for name, parameter in model.named_parameters():
        if name.split(".")[0] in stay:
            assert torch.equal(pruned.get_parameter(name), parameter)
    assert {layer.split(".")[0] for layer, reason in made.left_whole if "excluded" in reason} == stay


def test_a_channel_that_an_excluded_layer_shares_stays_too() -> None:
    model = networks.seeded(networks.Residual)
    made = plans.planned(model, IMAGE, 0.5, granularity="channel", exclude=["outer"])
    assert set(made.layers) == {"inner"}
    assert dict(made.left_whole) == {"stem": "excluded by the policy", "outer": "excluded by the policy"}


@pytest.mark.parametrize("granularity", ["element", "channel"])
def test_a_pattern_that_excludes_nothing_is_a_mistake(granularity: str) -> None:
    with pytest.raises(PruningError, match="exclude = 'heed' matches no layer"):
        plans.planned(networks.seeded(networks.Residual), IMAGE, granularity=granularity, exclude=["heed"])


def test_a_pattern_may_name_what_stays_whole_anyway() -> None:
    made = plans.planned(networks.seeded(networks.Residual), IMAGE, granularity="channel", exclude=["head"])
    assert set(made.layers) == {"stem", "inner"}
    made = plans.planned(networks.seeded(networks.Residual), IMAGE, granularity="channel", exclude=["norm"])
    assert set(made.layers) == {"stem"}  # what follows a channel goes with it, or stays with it


# N of M


@pytest.mark.parametrize(("keep_n", "of_m"), [(2, 4), (1, 4), (1, 2), (4, 8)])
def test_two_of_four_masks_are_those_of_torchs_own_sparsifier(keep_n: int, of_m: int) -> None:
    sparsity = pytest.importorskip("torch.ao.pruning", reason="this torch has no sparsifier to compare with")
    model = networks.seeded(lambda: nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8)))
    ratio = (of_m - keep_n) / of_m
    made = plans.planned(model, networks.batch(3, 16), ratio, granularity="n_of_m", keep_n=keep_n, of_m=of_m)
    other = networks.seeded(lambda: nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8)))
    sparsifier = sparsity.WeightNormSparsifier(
        sparsity_level=1.0, sparse_block_shape=(1, of_m), zeros_per_block=of_m - keep_n
    )
    sparsifier.prepare(other, [{"tensor_fqn": f"{layer}.weight"} for layer in (0, 2)])
    sparsifier.step()
    for layer in ("0", "2"):
        mask = other.get_submodule(layer).parametrizations.weight[0].mask
        assert torch.equal(mask.bool(), made.masks[f"{layer}.weight"])


def test_a_convolutions_pattern_runs_along_its_input_channels() -> None:
    model = networks.seeded(lambda: nn.Sequential(nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)))
    made = plans.planned(model, networks.batch(2, 8, 8, 8), granularity="n_of_m", keep_n=2, of_m=4)
    kept = made.masks["0.weight"].reshape(4, 2, 4, 3, 3).sum(dim=2)
    assert bool((kept == 2).all())


def test_layers_whose_inputs_are_no_multiple_of_m_stay_whole_with_the_reason() -> None:
    model = networks.seeded(networks.cnn)
    made = plans.planned(model, IMAGE, granularity="n_of_m", keep_n=2, of_m=4)
    assert dict(made.left_whole) == {"0.weight": "its 3 inputs are no multiple of 4"}
    assert set(made.masks) == {"4.weight", "8.weight", "10.weight"}


# Schedules


@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_schedules_are_the_published_curves_and_end_at_the_ratio_itself(steps: int) -> None:
    linear = schedule.ratios(0.7, "linear", steps)
    cubic = schedule.ratios(0.7, "cubic", steps)
    assert linear == pytest.approx([0.7 * t / steps for t in range(1, steps + 1)])
    assert cubic == pytest.approx([0.7 + (0 - 0.7) * (1 - t / steps) ** 3 for t in range(1, steps + 1)])
    assert linear[-1] == cubic[-1] == 0.7
    assert schedule.ratios(0.7, "one_shot", 1) == [0.7]


def sgd(model: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
    """A subject's fine-tuning: momentum and weight decay, which both move weights that are zero."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        rows = torch.randperm(len(ROW), generator=generator)[:8]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ROW[rows]), rows % 3).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["one_shot", "linear", "cubic"])
@pytest.mark.parametrize("granularity", ["element", "channel", "n_of_m"])
def test_training_between_steps_keeps_what_is_gone_gone_and_passes_every_check(kind: str, granularity: str) -> None:
    model = networks.seeded(networks.mlp)
    before = digests.of_model(model)
    options: dict[str, Any] = {"granularity": granularity, "schedule": kind, "fine_tune": True}
    options["steps"] = 1 if kind == "one_shot" or granularity == "n_of_m" else 4
    if granularity == "n_of_m":
        options |= {"keep_n": 1, "of_m": 2, "schedule": "one_shot"}
    subject = plans.subject(model, ROW, fine_tune=sgd)
    made = pruning.Planner(plans.recipe(**options), subject, 3).plan(0.5)
    assert made.revived == 0
    assert digests.of_model(model) == before
    variant = surgery.apply(made.plan, model)
    assert plans.failed(made, model, variant, ROW) == set()
    assert "V5" in plans.checks(made, model, variant, ROW)
    untrained = surgery.apply(dataclasses.replace(made.plan, weights={}), model)
    assert not torch.equal(variant(ROW), untrained(ROW))


def test_steps_remove_what_the_schedule_says_and_what_is_gone_never_comes_back() -> None:
    seen: list[set[int]] = []

    def watch(model: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
        weights = torch.cat([model.get_parameter(f"{i}.weight").flatten() for i in (0, 2, 4)])
        seen.append(set((weights == 0).nonzero()[:, 0].tolist()))
        sgd(model, step=step, steps=steps, generator=generator)

    model = networks.seeded(networks.mlp)
    subject = plans.subject(model, ROW, fine_tune=watch)
    pruning.Planner(plans.recipe(schedule="cubic", steps=4, fine_tune=True), subject, 3).plan(0.6)
    shares = [0.6 * (1 - (1 - t / 4) ** 3) for t in range(1, 5)]
    assert [len(gone) for gone in seen] == [int(158 * share + 0.5) for share in shares]
    assert all(earlier < later for earlier, later in pairwise(seen))


def test_the_same_seed_trains_the_same_network_and_another_seed_another() -> None:
    def weights(seed: int) -> str:
        subject = plans.subject(networks.seeded(networks.mlp), ROW, fine_tune=sgd)
        made = pruning.Planner(plans.recipe(schedule="linear", steps=2, fine_tune=True), subject, seed).plan(0.5)
        return digests.of_model(surgery.apply(made.plan, subject.model))

    state = torch.get_rng_state()
    assert weights(3) == weights(3) != weights(4)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_trained_plan_gives_the_same_network_when_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model = networks.seeded(networks.mlp)
    for granularity in ("element", "channel"):
        recipe = plans.recipe(schedule="linear", steps=2, fine_tune=True, granularity=granularity)
        made = pruning.Planner(recipe, plans.subject(model, ROW, fine_tune=sgd), 3).plan(0.5)
        plan.save(made.plan, tmp_path / granularity)
        again = plan.load(tmp_path / granularity)
        assert plan.digest(again) == plan.digest(made.plan)
        one, two = surgery.apply(made.plan, model), surgery.apply(again, networks.seeded(networks.mlp))
        assert digests.of_model(one) == digests.of_model(two)


APPLYING = """
import sys
import torch
torch.set_num_threads(int(sys.argv[1]))
sys.path.insert(0, sys.argv[2])
import networks
from pruneproof import digests, plan, surgery
print(digests.of_model(surgery.apply(plan.load(sys.argv[3]), networks.seeded(networks.mlp))))
"""


def test_a_plan_is_carried_out_alike_in_another_process_with_another_hash_seed_and_threads(tmp_path: Path) -> None:
    model = networks.seeded(networks.mlp)
    recipe = plans.recipe(fine_tune=True, granularity="channel", criterion="taylor_abs")
    made = pruning.Planner(recipe, plans.subject(model, ROW, fine_tune=sgd), 3).plan(0.5).plan
    plan.save(made, tmp_path / "p")
    for seed, threads in (("1", "1"), ("2", "2")):
        there = subprocess.run(
            [sys.executable, "-c", APPLYING, threads, str(Path(__file__).parent), str(tmp_path / "p")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == digests.of_model(surgery.apply(made, model))


@pytest.mark.parametrize("rewind", ["dense", "initial"])
def test_rewinding_starts_every_training_from_the_weights_that_stay_of_an_earlier_state(rewind: str) -> None:
    model, initial = networks.seeded(networks.mlp), networks.seeded(networks.mlp, seed=9)
    start = model if rewind == "dense" else initial
    starts = []

    def watch(trained: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
        starts.append({name: parameter.detach().clone() for name, parameter in trained.named_parameters()})
        sgd(trained, step=step, steps=steps, generator=generator)

    subject = plans.subject(model, ROW, fine_tune=watch, initial=initial.state_dict())
    recipe = plans.recipe(schedule="linear", steps=3, fine_tune=True, rewind=rewind)
    pruning.Planner(recipe, subject, 3).plan(0.6)
    for found in starts:
        for name, parameter in start.named_parameters():
            stays = found[name] != 0
            assert torch.equal(found[name][stays], parameter[stays])
    assert [sum(int((value == 0).sum()) for value in found.values()) for found in starts] == [32, 63, 95]


# What a recipe needs and does not get


@pytest.mark.parametrize(
    ("options", "subject", "cause"),
    [
        ({"fine_tune": True}, {}, "no fine-tuning function"),
        ({"fine_tune": True, "recovery": {"epochs": 1}}, {}, "no training data"),
        ({"fine_tune": True, "rewind": "initial"}, {"fine_tune": sgd}, "no initial weights"),
        ({"criterion": "wanda"}, {"calibration": None}, "looks at calibration examples"),
    ],
)
def test_a_subject_that_lacks_what_the_recipe_needs_is_told_so(
    options: dict[str, Any], subject: dict[str, Any], cause: str
) -> None:
    recipe = plans.recipe(**options)
    with pytest.raises(SubjectError, match=cause):
        pruning.Planner(recipe, plans.subject(networks.seeded(networks.mlp), ROW, **subject), 0)


@pytest.mark.parametrize(
    ("criterion", "options", "cause"),
    [
        ("wanda", {"granularity": "channel"}, "cannot rank units of granularity 'channel'"),
        ("lamp", {"granularity": "head"}, "cannot rank"),
        ("geometric_median", {}, "cannot rank single weights"),
        ("apoz", {"granularity": "n_of_m", "keep_n": 1, "of_m": 2}, "cannot rank single weights"),
        ("sparsegpt", {"scope": "global"}, "layer by layer"),
        ("sparsegpt", {"granularity": "channel"}, "cannot rank"),
    ],
)
def test_a_criterion_that_cannot_rank_the_units_is_refused(criterion: str, options: dict[str, Any], cause: str) -> None:
    with pytest.raises(PruningError, match=cause):
        plans.planned(networks.seeded(networks.mlp), ROW, criterion=criterion, **options)


def test_calibration_examples_beyond_the_first_samples_are_not_looked_at() -> None:
    model = networks.seeded(networks.mlp)
    data = Data(ROW, torch.arange(12) % 3)
    poisoned = Data(torch.cat([ROW, torch.full((4, 6), 1e3)]), torch.cat([torch.arange(12) % 3, torch.zeros(4)]).long())

    def made(calibration: Data) -> str:
        subject = Subject(model, "classification", test=data, calibration=calibration)
        return plan.digest(pruning.plan(plans.recipe(criterion="taylor_abs", samples=12), 0.5, subject, 0))

    assert made(data) == made(poisoned)
    other = Data(ROW.flip(0), data.targets)
    assert made(data) != made(other)


@pytest.mark.parametrize("criterion", ["taylor_abs", "wanda", "sparsegpt", "fisher"])
def test_planning_with_calibration_data_leaves_the_dense_model_as_it_was(criterion: str) -> None:
    model = networks.seeded(networks.cnn)
    model.get_submodule("1").eval()
    model.get_parameter("4.weight").requires_grad_(False)
    model.get_parameter("0.weight").grad = torch.ones(8, 3, 3, 3)

    def state() -> list[object]:
        return [
            digests.of_model(model),
            [module.training for module in model.modules()],
            [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
            [(name, id(p), p.requires_grad, p._version, p.grad is None) for name, p in model.named_parameters()],
        ]

    before = state()
    plans.planned(model, IMAGE, criterion=criterion, scope="layer")
    assert state() == before


# Nothing happens silently

ALL = registry.names("pruneproof.criteria")


def options_for(criterion: str, granularity: str) -> dict[str, Any]:
    found: dict[str, Any] = {"criterion": criterion, "granularity": granularity}
    found |= {"scope": "layer"} if criterion == "sparsegpt" else {}
    return found | ({"fine_tune": True} if criterion == "movement" else {})


@pytest.mark.parametrize("granularity", ["element", "channel"])
@pytest.mark.parametrize("criterion", ALL)
def test_a_frozen_network_is_pruned_as_a_trainable_one_is(criterion: str, granularity: str) -> None:
    """Torch-Pruning removes nothing from it, without a word."""

    def made(frozen: bool) -> plan.PrunePlan | str:
        model = networks.seeded(networks.cnn).requires_grad_(not frozen)
        try:
            subject = plans.subject(model, IMAGE, fine_tune=thaw)
            return pruning.Planner(plans.recipe(**options_for(criterion, granularity)), subject, 0).plan(0.5).plan
        except PruningError as error:
            return error.cause

    free, frozen = made(False), made(True)
    if isinstance(free, str):
        assert free == frozen
        assert "cannot rank" in free
    else:
        assert isinstance(frozen, plan.PrunePlan)
        assert frozen.removed == free.removed > 0
        if criterion != "movement":
            assert plan.digest(frozen) == plan.digest(free)


def thaw(model: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
    model.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    nn.functional.cross_entropy(model(IMAGE), torch.arange(len(IMAGE)) % 3).backward()
    optimizer.step()


@pytest.mark.parametrize("criterion", ALL)
def test_a_network_whose_forward_takes_no_gradients_is_pruned_or_refused_with_that_reason(criterion: str) -> None:
    model = networks.seeded(networks.Ungraded)
    options = options_for(criterion, "element")
    needs = set(registry.member("pruneproof.criteria", criterion).__dict__.get("NEEDS", ()))
    subject = plans.subject(model, ROW, fine_tune=sgd)
    planner = None
    try:
        planner = pruning.Planner(plans.recipe(**options), subject, 0)
        assert planner.plan(0.5).plan.removed > 0
    except (PruningError, SubjectError) as error:
        cause = error.cause
        reasons = "cannot rank" if planner is None else "no gradient reaches|does not require grad|no movement"
        assert re.search(reasons, cause), cause
        assert planner is None or needs & {"gradients", "example_gradients", "movement"}
    else:
        assert not needs & {"gradients", "example_gradients", "movement"}


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_a_recurrent_layer_loses_single_weights_and_is_named_where_units_go(kind: type[nn.RNNBase]) -> None:
    model, x = networks.seeded(lambda: networks.Recurrent(kind)).eval(), networks.batch(4, 5, 6)
    single = plans.planned(model, x, 0.5, scope="layer")
    assert {"memory.weight_ih_l0", "memory.weight_hh_l0"} <= set(single.masks)
    units = plans.planned(model, x, 0.5, granularity="channel")
    assert dict(units.left_whole)["memory"].startswith(f"{kind.__name__}: every gate")


def test_several_steps_look_at_the_network_as_it_is_pruned_up_to_then() -> None:
    """Gradients of the dense network say something else than those of the half that is left."""
    model = networks.seeded(networks.mlp)
    once = plans.planned(model, ROW, 0.8, criterion="taylor_abs")
    steps = plans.planned(model, ROW, 0.8, criterion="taylor_abs", schedule="linear", steps=4)
    assert once.removed == steps.removed
    assert any(not torch.equal(once.masks[name], steps.masks[name]) for name in once.masks)
    assert plans.failed(steps, model, surgery.apply(steps, model), ROW) == set()
    plain = [plans.planned(model, ROW, 0.8, schedule=kind, steps=n) for kind, n in (("one_shot", 1), ("cubic", 4))]
    assert all(torch.equal(plain[0].masks[name], plain[1].masks[name]) for name in plain[0].masks)


# Networks whose configuration has one number for all layers


def test_one_number_for_all_layers_is_kept_true_or_the_recipe_is_refused() -> None:
    model, x = transformers_models.llama(), transformers_models.tokens()
    made = plans.planned(model, x, granularity="channel", scope="layer")
    assert {kept for kept, _ in made.layers.values()} == {12}
    assert surgery.apply(made, model).config.intermediate_size == 12  # type: ignore[union-attr]
    with pytest.raises(PruningError, match="one number for all layers"):
        plans.planned(model, x, granularity="channel")
    with pytest.raises(PruningError, match="one number for 2 layers of this network, and only 1 of them may be pruned"):
        plans.planned(model, x, granularity="channel", scope="layer", exclude=["*layers.1*"])


@pytest.mark.parametrize("denominator", ["all_parameters", "macs"])
@pytest.mark.parametrize(("granularity", "ratio"), [("channel", 0.2), ("head", 0.18)])
def test_in_such_a_network_a_ratio_of_parameters_takes_alike_from_every_layer(
    granularity: str, ratio: float, denominator: str
) -> None:
    model, x = transformers_models.llama(heads=8, keys=4), transformers_models.tokens()
    made = plans.planned(model, x, ratio, granularity=granularity, scope="layer", denominator=denominator)
    assert len({kept for kept, _ in made.layers.values()}) == 1
    assert made.resolution is not None
    assert abs(made.achieved - ratio) <= made.resolution
    assert plans.failed(made, model, surgery.apply(made, model), x) == set()


def test_a_stage_may_lose_all_of_its_removable_blocks_where_others_stay() -> None:
    models = pytest.importorskip("torchvision.models", reason="reads torchvision's networks")
    model = networks.seeded(lambda: models.resnet18(num_classes=3)).eval()
    x = networks.batch(2, 3, 32, 32)
    made = plans.planned(model, x, 0.75, granularity="block")
    assert made.removed == 4
    assert any(kept == 0 for kept, _ in made.layers.values())
    assert plans.failed(made, model, surgery.apply(made, model), x) == set()


def test_a_network_of_a_family_without_a_rule_keeps_its_width() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'llm'")
    config = transformers.DistilBertConfig(vocab_size=20, dim=16, hidden_dim=24, n_layers=1, n_heads=2, num_labels=3)
    model = transformers.DistilBertForSequenceClassification(config).eval()
    with pytest.raises(PruningError, match="configuration of a network \\(distilbert\\) that there is no rule for"):
        plans.planned(model, transformers_models.tokens(), granularity="channel")
    assert plans.planned(model, transformers_models.tokens()).removed > 0


def test_an_excluded_layer_stays_whole_under_every_name_that_its_weight_has() -> None:
    model = networks.seeded(networks.Tied)
    made = plans.planned(model, ROW, exclude=["second"])
    assert "first.weight" not in made.masks
    assert dict(made.left_whole) == {"first.weight": "excluded by the policy"}
    with pytest.raises(PruningError, match="matches no layer"):
        plans.planned(model, ROW, exclude=["third"])


def test_initial_weights_that_are_no_state_dict_are_refused() -> None:
    subject = plans.subject(networks.seeded(networks.mlp), ROW, fine_tune=sgd, initial=5)
    with pytest.raises(SubjectError, match="no initial weights"):
        pruning.Planner(plans.recipe(fine_tune=True, rewind="initial"), subject, 0)


def test_what_fine_tuning_adds_to_the_network_and_leaves_there_is_refused() -> None:
    def hooked(model: nn.Module, **others: Any) -> None:
        sgd(model, **others)
        model.get_submodule("1").register_forward_hook(lambda *found: None)

    def swapped(model: nn.Module, **others: Any) -> None:
        sgd(model, **others)
        model._modules["1"] = nn.GELU()

    for spoils in (hooked, swapped):
        subject = plans.subject(networks.seeded(networks.mlp), ROW, fine_tune=spoils)
        with pytest.raises(SubjectError, match="changed the network's modules or hooks"):
            pruning.Planner(plans.recipe(fine_tune=True), subject, 0).plan(0.5)


def test_a_search_for_blocks_is_stopped_in_time_as_well() -> None:
    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(networks.Residual() for _ in range(2)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.5)
            return self.blocks[0](x)

    with pytest.raises(GraphTimeout, match=r"self-check V9: finding out which blocks can go took longer than 0\.2 s"):
        plans.planned(networks.seeded(Slow), IMAGE, granularity="block", graph_timeout_s=0.2)


def test_the_layers_around_a_network_of_a_family_are_pruned_with_it() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = transformers_models.bert()
            self.wide, self.out = nn.Linear(3, 40), nn.Linear(40, 3)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.out(torch.relu(self.wide(self.inner(input_ids, attention_mask).logits)))

    model, x = networks.seeded(Around).eval(), transformers_models.tokens()
    made = plans.planned(model, x, granularity="channel", scope="layer")
    assert made.layers["wide"] == (20, 40)
    assert sum("inner" in name for name in made.layers) == 2
    assert plans.failed(made, model, surgery.apply(made, model), x) == set()


def test_networks_that_share_one_configuration_are_left_whole() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'llm'")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.d = transformers.BertModel(config), transformers.BertModel(config)
            self.out = nn.Linear(32, 3)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            both = [tower(input_ids, attention_mask).pooler_output for tower in (self.q, self.d)]
            return self.out(torch.cat(both, 1))

    for granularity in ("channel", "block"):
        with pytest.raises(PruningError, match="its configuration is one object with that of"):
            plans.planned(networks.seeded(Towers).eval(), transformers_models.tokens(), granularity=granularity)


def test_sensitivity_of_layers_that_share_one_number_is_measured_layer_by_layer() -> None:
    model, x = transformers_models.llama(), transformers_models.tokens()
    planner = pruning.Planner(plans.recipe(granularity="channel", scope="layer"), plans.subject(model, x), 0)
    for group in list(planner.units.groups):  # type: ignore[union-attr]
        alone = planner.units.only(group).choose(model, 0.5, None)  # type: ignore[arg-type]
        assert alone.layers == {group.name: (12, 24)}


def test_a_layer_that_cannot_shrink_keeps_all_that_share_its_number() -> None:
    shared, odd = transformers_models.llama(layers=3), transformers_models.llama(layers=3)
    layers = shared.model.layers  # type: ignore[union-attr]
    layers[2].mlp = layers[1].mlp  # type: ignore[index,union-attr]

    class Adapted(nn.Linear):
        pass

    odd.get_submodule("model.layers.1.mlp.down_proj").__class__ = Adapted
    for model, told in (
        (shared, "its layers are also those of"),
        (odd, "one number of the configuration stands for it"),
    ):
        with pytest.raises(PruningError, match=told):
            plans.planned(model, transformers_models.tokens(), granularity="channel", scope="layer")
