"""A plan is plain data: the same wherever it is made, and carried out on copies only."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import networks
import plans
import pytest
import torch
from torch import nn

from pruneproof import digests, plan, surgery
from pruneproof.errors import EvidenceError, PruningError
from pruneproof.plan import PrunePlan, Removal
from pruneproof.units import Setting

GRANULARITIES = ("element", "channel")


def planned(model: nn.Module, granularity: str, ratio: float = 0.5, scope: str = "global") -> PrunePlan:
    return plans.planned(model, networks.batch(*networks.IMAGE), ratio, 7, granularity=granularity, scope=scope)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_saved_plan_is_read_back_as_it_was(granularity: str, tmp_path: Path) -> None:
    model = networks.seeded(networks.cnn)
    made = planned(model, granularity)
    plan.save(made, tmp_path / "l1@0.5")
    assert {path.name for path in tmp_path.iterdir()} == {"l1@0.5.safetensors", "l1@0.5.json"}
    again = plan.load(tmp_path / "l1@0.5")
    assert plan.digest(again) == plan.digest(made)
    assert (again.ratio, again.seed, again.removed, again.units) == (0.5, 7, made.removed, made.units)
    one, two = surgery.apply(made, model), surgery.apply(again, networks.seeded(networks.cnn))
    assert digests.of_model(one) == digests.of_model(two) != digests.of_model(model)


def test_reading_a_plan_unpickles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan.save(planned(networks.seeded(networks.cnn), "element"), tmp_path / "p")
    monkeypatch.setattr("pickle.Unpickler", None)
    monkeypatch.setattr("pickle.loads", None)
    monkeypatch.setattr("torch.load", None)
    plan.load(tmp_path / "p")


@pytest.mark.parametrize(
    "damage",
    [
        lambda stem: Path(f"{stem}.json").unlink(),
        lambda stem: Path(f"{stem}.safetensors").unlink(),
        lambda stem: Path(f"{stem}.json").write_text("{"),
        lambda stem: Path(f"{stem}.json").write_text("[]"),
        lambda stem: Path(f"{stem}.json").write_bytes(b"\xff"),
        lambda stem: Path(f"{stem}.safetensors").write_bytes(b"not this"),
        lambda stem: _changed(stem, "schema", "pruneproof-plan/99"),
        lambda stem: _changed(stem, "removals", [{"tensor": "0.weight", "dim": 0, "role": "reads"}]),
        lambda stem: _changed(stem, "settings", [{"module": "0"}]),
        lambda stem: _changed(stem, "ratio", 0.4),
        lambda stem: _changed(stem, "achieved", float("nan")),
        lambda stem: (
            plan.save(planned(networks.seeded(networks.cnn), "element", 0.3), Path(f"{stem}-other"))
            or Path(f"{stem}.safetensors").write_bytes(Path(f"{stem}-other.safetensors").read_bytes())
        ),
        lambda stem: _changed(stem, "layers", [1]),
    ],
)
def test_a_damaged_plan_is_an_error_that_names_it(damage: object, tmp_path: Path) -> None:
    plan.save(planned(networks.seeded(networks.cnn), "element"), tmp_path / "p")
    damage(tmp_path / "p")  # type: ignore[operator]
    with pytest.raises(EvidenceError, match="p"):
        plan.load(tmp_path / "p")


def _changed(stem: Path, key: str, value: object) -> None:
    path = Path(f"{stem}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_part_of_a_plan_counts_in_its_digest(granularity: str) -> None:
    made = planned(networks.seeded(networks.cnn), granularity)
    others = [
        dataclasses.replace(made, **change)
        for change in (
            {"ratio": 0.4},
            {"seed": 8},
            {"model": "another"},
            {"removed": made.removed - 1},
            {"recipe": {**made.recipe, "scope": "layer"}},
            {"left_whole": (("x", "y"),)},
            {"achieved": 0.1},
            {"resolution": 0.1},
            {"calibration": "another"},
            {"layers": {}},
            {"blocks": ("4",)},
            {"settings": (Setting("", "x", 1),)},
            {"weights": {"0.weight": torch.ones(2)}},
            {"masks": {name: ~mask for name, mask in made.masks.items()}} if made.masks else {"removals": ()},
        )
    ]
    found = {plan.digest(other) for other in (made, *others)}
    assert len(found) == 15


PLANNING = """
import sys
import torch
torch.set_num_threads(int(sys.argv[1]))
sys.path.insert(0, sys.argv[2])
import test_plan, networks
from pruneproof import plan
for granularity in test_plan.GRANULARITIES:
    print(plan.digest(test_plan.planned(networks.seeded(networks.cnn), granularity, 0.37)))
"""


def test_a_fresh_process_makes_the_same_plan_whatever_its_hash_seed_and_threads() -> None:
    here = [plan.digest(planned(networks.seeded(networks.cnn), granularity, 0.37)) for granularity in GRANULARITIES]
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    threads = "2" if torch.get_num_threads() == 1 else "1"
    there = subprocess.run(
        [sys.executable, "-c", PLANNING, threads, str(Path(__file__).parent)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == here


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("training", [True, False])
def test_planning_and_pruning_leave_the_dense_model_as_it_was(granularity: str, training: bool) -> None:
    model = networks.seeded(networks.cnn)
    model.train(training)
    model.get_submodule("1").train(not training)
    model.get_parameter("4.weight").requires_grad_(False)
    model.get_parameter("0.weight").grad = torch.ones(8, 3, 3, 3)
    model.get_submodule("8").register_forward_hook(lambda *found: None)

    def state() -> list[object]:
        return [
            digests.of_model(model),
            [module.training for module in model.modules()],
            [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
            [(name, id(p), p.requires_grad, p._version) for name, p in model.named_parameters()],
            [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
            [(name, id(buffer), buffer._version) for name, buffer in model.named_buffers()],
        ]

    before = state()
    made = planned(model, granularity)
    surgery.apply(made, model)
    surgery.masked(made, model)
    assert state() == before


def test_a_plan_for_another_model_is_refused() -> None:
    made = planned(networks.seeded(networks.cnn), "element")
    with pytest.raises(PruningError, match="another model"):
        surgery.apply(made, networks.seeded(networks.cnn, seed=1))


@pytest.mark.parametrize(
    "change",
    [
        {"masks": {"nowhere.weight": torch.ones(3, dtype=torch.bool)}},
        {"masks": {"0.weight": torch.ones(3, dtype=torch.bool)}},
        {"removals": (Removal("0.weight", 0, "produces", torch.tensor([8])),)},
        {"removals": (Removal("nowhere.weight", 0, "produces", torch.tensor([0])),)},
    ],
)
def test_a_plan_that_names_what_the_model_does_not_have_is_refused(change: dict[str, object]) -> None:
    model = networks.seeded(networks.cnn)
    with pytest.raises(PruningError, match=r"nowhere\.weight|0\.weight"):
        surgery.apply(dataclasses.replace(planned(model, "element"), **change), model)


def test_masking_channels_zeroes_what_reads_them_and_nothing_else() -> None:
    model = networks.seeded(networks.cnn)
    made = planned(model, "channel", scope="layer")
    full = dict(surgery.masked(made, model).named_parameters())
    readers = {removal.tensor: removal for removal in made.removals if removal.role == "reads"}
    assert set(readers) == {"4.weight", "8.weight", "10.weight"}
    for name, parameter in model.named_parameters():
        if name not in readers:
            assert torch.equal(full[name], parameter)
        else:
            columns = full[name].transpose(0, 1).flatten(1).abs().sum(1)
            assert (columns == 0).nonzero()[:, 0].tolist() == readers[name].indices.tolist()


def test_weights_go_in_shared_tensors_under_every_name() -> None:
    model = networks.seeded(networks.Tied)
    pruned = plans.pruned(model, networks.batch(*networks.ROW))
    assert pruned.get_parameter("first.weight") is pruned.get_parameter("second.weight")
    assert int((pruned.get_parameter("second.weight") == 0).sum()) > 0
