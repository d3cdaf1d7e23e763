"""Plans for small networks, without an audit around them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pruneproof import inference, pruning, selfcheck, surgery
from pruneproof.evidence import SelfCheck
from pruneproof.plan import PrunePlan
from pruneproof.pruning import Made
from pruneproof.recipe import Prune
from pruneproof.subject import Data, Inputs, Subject

LISTS = ("ratios", "exclude")


def recipe(**options: Any) -> Prune:
    """A recipe of default settings but for ``options``."""
    return Prune.model_validate({"name": "r", "ratios": [0.5], **options})


def subject(model: nn.Module, inputs: Inputs, **options: Any) -> Subject:
    """A subject of three classes with ``inputs`` as its test set, and as its calibration set."""
    size = len(inference.tensors(inputs)[0])
    data = Data(inputs, torch.arange(size) % 3)
    return Subject(model=model, task="classification", test=data, **{"calibration": data, **options})


def made(model: nn.Module, inputs: Inputs, ratio: float = 0.5, seed: int = 0, **options: Any) -> Made:
    """What a recipe with ``options`` makes of ``model``."""
    return pruning.Planner(recipe(**{"ratios": [ratio], **options}), subject(model, inputs), seed).plan(ratio)


def planned(model: nn.Module, inputs: Inputs, ratio: float = 0.5, seed: int = 0, **options: Any) -> PrunePlan:
    """Its plan."""
    return made(model, inputs, ratio, seed, **options).plan


def checks(found: Made | PrunePlan, dense: nn.Module, variant: nn.Module, inputs: Inputs) -> dict[str, SelfCheck]:
    """The self-checks of ``variant`` by id."""
    whole = found if isinstance(found, Made) else Made(found, None)
    return {check.id: check for check in selfcheck.checks(whole, dense, variant, Data(inputs), 0)}


def failed(found: Made | PrunePlan, dense: nn.Module, variant: nn.Module, inputs: Inputs) -> set[str]:
    """Ids of the self-checks that ``variant`` fails."""
    return {name for name, check in checks(found, dense, variant, inputs).items() if not check.passed}


def pruned(model: nn.Module, inputs: Inputs, ratio: float = 0.5, **options: Any) -> nn.Module:
    """The pruned network."""
    return surgery.apply(planned(model, inputs, ratio, **options), model)
