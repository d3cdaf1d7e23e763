"""Self-checks: whether a variant is the network that its plan claims.

No pruning tool verifies this for its users. Each check is a named result in the evidence; one that
fails turns the variant to ERROR. V6 (a fresh process makes the same plan) and V10 (the random control) concern
more than one network: see :mod:`pruneproof.replanning` and :mod:`pruneproof.control`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load

from pruneproof import achieved, inference, profile, surgery
from pruneproof.errors import MeasurementError
from pruneproof.evidence import SelfCheck
from pruneproof.outcomes import Floats
from pruneproof.plan import PrunePlan
from pruneproof.pruning import Made
from pruneproof.recipe import Prune
from pruneproof.subject import Data
from pruneproof.surgery import copied

IN_TIME = "what hangs together was found in time"
TOLERANCE = 1e-5
"""Largest relative difference between the masked network's outputs and the variant's, in float32."""


_NARROW = (torch.float16, torch.bfloat16)


def checks(made: Made, dense: torch.nn.Module, variant: torch.nn.Module, sample: Data, seed: int) -> list[SelfCheck]:
    """All checks of a pruned variant by itself.

    Args:
        sample: a few real examples, one batch.
        seed: of the random examples.
    """
    plan = made.plan
    found = [
        achieved.requested(plan, dense),
        achieved.claimed(plan, dense, variant, inference.cut(sample.inputs, slice(0, 1))),
        achieved.something(plan, dense, variant),
        _output(dense, variant, sample),
    ]
    if plan.masks:
        found.append(achieved.zeros(plan, variant))
    if plan.granularity == "n_of_m":
        found.append(achieved.pattern(plan, dense, variant))
    if made.revived is not None:
        found.append(_masks_held(made.revived))
    found += [_masked_is_variant(plan, dense, variant, sample, seed), _reloads(variant, sample)]
    if plan.granularity in ("channel", "head", "block"):
        found.append(_in_time(plan))
    return in_order(found)


def in_order(found: Iterable[SelfCheck]) -> list[SelfCheck]:
    """By their numbers: V1, V1a, …, V10."""
    return sorted(found, key=lambda check: (int(check.id.strip("Vab")), check.id))


def expected(recipe: Prune) -> dict[str, bool]:
    """The self-checks that a variant of ``recipe`` has to have, and whether each decides."""
    single = recipe.granularity in ("element", "n_of_m")
    found = ["V1", "V1a", "V3", "V4", "V6", "V7", "V8"]
    found += ["V1b"] if single else ["V9"]
    found += ["V2"] if recipe.granularity == "n_of_m" else []
    found += ["V5"] if recipe.fine_tune else []
    return dict.fromkeys(found, True) | ({} if recipe.criterion == "random" else {"V10": False})


def named_in(cause: str) -> list[SelfCheck]:
    """The self-check that stopped a plan before there was a variant, where ``cause`` begins with its name."""
    match = re.match(r"self-check (V9): (.*)", cause)
    return [] if match is None else [SelfCheck(id=match[1], claim=IN_TIME, passed=False, detail=match[2])]


def _in_time(plan: PrunePlan) -> SelfCheck:
    limit = f"{float(plan.recipe['graph_timeout_s']):g} s"
    return SelfCheck(id="V9", claim=IN_TIME, passed=True, detail=f"within {limit}")


def _masks_held(revived: int) -> SelfCheck:
    claim = "what was gone stayed gone while the network was trained"
    return SelfCheck(id="V5", claim=claim, passed=revived == 0, detail=f"{revived} weights came back")


def _output(dense: torch.nn.Module, variant: torch.nn.Module, sample: Data) -> SelfCheck:
    before, now = _outputs(dense, sample), _outputs(variant, sample)
    same = isinstance(before, np.ndarray) and isinstance(now, np.ndarray) and before.shape == now.shape
    shown = [str(found.shape) if isinstance(found, np.ndarray) else found for found in (before, now)]
    return SelfCheck(id="V4", claim="output shape and classes are unchanged", passed=same, detail=" → ".join(shown))


def _masked_is_variant(
    plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module, sample: Data, seed: int
) -> SelfCheck:
    claim = "it computes what the dense network does with the removed weights masked, on real and on random inputs"
    full = surgery.masked(plan, dense)
    inputs = [sample, _random_like(sample, seed)]
    passed, detail = _same(full, variant, inputs)
    if not passed and any(parameter.dtype in _NARROW for parameter in full.parameters()):
        widened = [replace(entry, inputs=inference.each(entry.inputs, _wide)) for entry in inputs]
        passed, detail = _same(copied(full).float(), copied(variant).float(), widened)
    if not passed and not _same(full, full, inputs)[0]:
        detail += "; the dense network does not repeat its own outputs in eval mode"
    return SelfCheck(id="V3", claim=claim, passed=passed, detail=detail)


def _same(full: torch.nn.Module, variant: torch.nn.Module, inputs: list[Data]) -> tuple[bool, str]:
    worst = 0.0
    for entry in inputs:
        want, have = _outputs(full, entry), _outputs(variant, entry)
        if isinstance(want, str) or isinstance(have, str) or want.shape != have.shape:
            return False, f"masked: {_told(want)}; variant: {_told(have)}"
        scale = float(np.max(np.abs(want), where=np.isfinite(want), initial=0)) or 1.0
        equal = (want == have) | (np.isnan(want) & np.isnan(have))
        with np.errstate(invalid="ignore"):
            differences = np.where(equal, 0, np.abs(want - have))
        worst = float(np.maximum(worst, differences.max() / scale))  # NaN where only one of them is
    return worst <= TOLERANCE, f"largest relative difference {worst:.1e}, tolerance {TOLERANCE:.0e}"


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in _NARROW else tensor


def _told(found: Floats | str) -> str:
    return found if isinstance(found, str) else f"shape {found.shape}"


def _reloads(variant: torch.nn.Module, sample: Data) -> SelfCheck:
    claim = "saved and loaded, it gives the same outputs"
    again = copied(variant)
    with torch.no_grad():
        for tensor in again.state_dict().values():
            if isinstance(tensor, torch.Tensor):
                tensor.zero_()
    problems = again.load_state_dict(profile.versioned(load(profile.serialised(variant)), again), strict=False)
    want, have = _outputs(variant, sample), _outputs(again, sample)
    same = isinstance(want, np.ndarray) and isinstance(have, np.ndarray) and np.array_equal(want, have)
    detail = "bit for bit" if same else f"outputs differ ({problems})"
    return SelfCheck(id="V7", claim=claim, passed=same, detail=detail)


def _outputs(model: torch.nn.Module, sample: Data) -> Floats | str:
    try:
        return inference.forward(model, sample, 64)
    except MeasurementError as error:
        return error.cause


def _random_like(sample: Data, seed: int) -> Data:
    """Inputs of the same form: noise of the same spread for floats, the same examples shuffled for integers."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():
            plain = torch.nan_to_num(tensor)
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor.device, tensor.dtype)
            return plain.mean() + drawn * (plain.std(correction=0) + 1e-3)
        return tensor[torch.randperm(len(tensor), generator=generator)]

    return replace(sample, inputs=inference.each(sample.inputs, noise))
