"""Every criterion × granularity × scope on eight kinds of networks: it works and passes its self-checks, or it is
refused for a reason that stands here. Nothing else happens, and nothing happens silently."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import networks
import plans
import pytest
import torch
import transformers_models
from torch import nn

from pruneproof import profile, pruning, registry, surgery
from pruneproof.errors import PruningError
from pruneproof.subject import Inputs

pytestmark = pytest.mark.slow

CRITERIA = registry.names("pruneproof.criteria")
SINGLE = ("element", "n_of_m")
SCOPES = {
    "element": ("global", "layer", "row"),
    "n_of_m": ("global",),
    "channel": ("global", "layer"),
    "head": ("global", "layer"),
    "block": ("global",),
}
ROWS, IMAGES, SERIES = networks.batch(6, 6), networks.batch(6, 3, 8, 8), networks.batch(6, 4, 6)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        layer = nn.TransformerEncoderLayer(8, 4, 12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.enter(x)).mean(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "mlp": (networks.mlp, lambda: ROWS),
    "residual": (networks.Residual, lambda: IMAGES),
    "depthwise": (networks.depthwise, lambda: IMAGES),
    "lstm": (networks.Recurrent, lambda: SERIES),
    "encoder": (Encoder, lambda: SERIES),
    "llama": (transformers_models.llama, transformers_models.tokens),
    "bert": (transformers_models.bert, transformers_models.tokens),
    "vit": (transformers_models.vit, lambda: {"pixel_values": IMAGES}),
}
UNITS_ONLY = {"apoz", "batch_norm_scale", "geometric_median", "l1_norm", "l2_norm", "mean_activation"}
SINGLE_ONLY = {"lamp", "sparsegpt", "wanda"}
NOT_OF_BLOCKS = {"apoz", "batch_norm_scale", "geometric_median", "mean_activation"}
ATTENDING = {"encoder", "llama", "vit"}
"""With heads that can go; no configuration of BERT says that some are gone."""
STACKED = {"encoder", "llama", "bert", "vit"}
NORMALISED = {"residual", "depthwise"}
"""With batch norm."""


def refusal(network: str, criterion: str, granularity: str, scope: str) -> str | None:
    """Why this combination is refused; ``None``: it works."""
    cannot = f"criterion '{criterion}' cannot rank"
    if granularity in SINGLE:
        if criterion in UNITS_ONLY:
            return cannot
        return "layer by layer" if criterion == "sparsegpt" and granularity == "element" and scope != "layer" else None
    if criterion in SINGLE_ONLY or (criterion in NOT_OF_BLOCKS and granularity == "block"):
        return cannot
    if criterion == "batch_norm_scale" and granularity == "head":
        return cannot
    if granularity == "head" and network not in ATTENDING:
        return (
            "no heads can be removed: .*BertSelfAttention takes the width of a head to be"
            if network == "bert"
            else "no heads can be removed"
        )
    if granularity == "block":
        return None if network in STACKED else "no blocks can be removed"
    if network in {"llama", "bert", "vit"} and scope == "global":
        return "is one number for all layers"
    if criterion == "batch_norm_scale" and network not in NORMALISED:
        return "no batch norm"
    if criterion in {"apoz", "mean_activation"} and granularity == "head" and network == "encoder":
        return "sees none of the units"
    return None


def combinations() -> Iterator[tuple[str, str, str, str]]:
    for network, criterion, granularity in itertools.product(NETWORKS, CRITERIA, SCOPES):
        for scope in SCOPES[granularity]:
            yield network, criterion, granularity, scope


def fine_tune(inputs: Inputs) -> Callable[..., None]:
    def train(model: nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
        from pruneproof import inference

        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        output = inference.output_tensor(inference.call(model, inputs))
        nn.functional.cross_entropy(output, torch.arange(len(output)) % 3).backward()
        optimizer.step()

    return train


@pytest.mark.parametrize(("network", "criterion", "granularity", "scope"), combinations())
def test_it_works_and_passes_its_self_checks_or_is_refused_with_the_reason(
    network: str, criterion: str, granularity: str, scope: str
) -> None:
    make, batch = NETWORKS[network]
    model, inputs = networks.seeded(make).eval(), batch()
    options: dict[str, Any] = {"granularity": granularity, "criterion": criterion, "scope": scope}
    options |= {"keep_n": 1, "of_m": 2} if granularity == "n_of_m" else {}
    options |= {"fine_tune": True} if criterion == "movement" else {}
    subject = plans.subject(model, inputs, fine_tune=fine_tune(inputs))
    reason = refusal(network, criterion, granularity, scope)
    if reason is not None:
        with pytest.raises(PruningError, match=re.compile(reason, re.S)):
            pruning.Planner(plans.recipe(**options), subject, 0).plan(0.5)
        return
    made = pruning.Planner(plans.recipe(**options), subject, 0).plan(0.5)
    variant = surgery.apply(made.plan, model)
    broken = {
        name: check.detail for name, check in plans.checks(made, model, variant, inputs).items() if not check.passed
    }
    assert broken == {}
    before, now = profile.parameters(model), profile.parameters(variant)
    assert now[1] < before[1]
    assert (now[0] < before[0]) == (granularity not in SINGLE)
