"""Self-checks: whether a variant is the network that its plan claims.

No pruning tool verifies this for its users. Each check is a named result in the evidence; one that
fails turns the variant to ERROR.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load

from pruneproof import inference, profile, prunable
from pruneproof.errors import MeasurementError
from pruneproof.evidence import SelfCheck
from pruneproof.outcomes import Floats
from pruneproof.plan import PrunePlan, masked
from pruneproof.subject import Data, Inputs

TOLERANCE = 1e-5
"""Largest relative difference between the masked network's outputs and the variant's, in float32."""


_NARROW = (torch.float16, torch.bfloat16)


def checks(
    plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module, sample: Data, seed: int
) -> list[SelfCheck]:
    """All checks of a pruned variant.

    Args:
        sample: a few real examples, one batch.
        seed: of the random examples.
    """
    found = [_claimed(plan), _changed(plan, dense, variant), _output(dense, variant, sample)]
    if not plan.removals:
        found.append(_zeros_stay(plan, variant))
    return [*found, _masked_is_variant(plan, dense, variant, sample, seed), _reloads(variant, sample)]


def _claimed(plan: PrunePlan) -> SelfCheck:
    """Per layer the numbers round by themselves; how the channels of a plan are spread over layers it does not say."""
    each_layer = plan.recipe["scope"] == "layer"
    sizes = [mask.numel() for mask in plan.masks.values()] if each_layer and plan.masks else [plan.units]
    asked = sum(prunable.round_half_up(size, plan.ratio) for size in sizes)
    removed = sum(int((~mask).sum()) for mask in plan.masks.values()) if plan.masks else plan.removed
    exact = removed == plan.removed and (removed == asked or (each_layer and not plan.masks))
    detail = f"{removed} of {plan.units} units removed, {asked} requested"
    return SelfCheck(id="V1", claim="as much is removed as was requested", passed=exact, detail=detail)


def _zeros_stay(plan: PrunePlan, variant: torch.nn.Module) -> SelfCheck:
    parameters = dict(variant.named_parameters(remove_duplicate=False))
    alive = sum(int(torch.count_nonzero(parameters[name].cpu()[~mask])) for name, mask in plan.masks.items())
    claim = "every weight that the plan removes is zero"
    return SelfCheck(id="V1b", claim=claim, passed=alive == 0, detail=f"{alive} of {plan.removed} are not zero")


def _changed(plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module) -> SelfCheck:
    gone = prunable.sparsity(dense, variant, plan.tensors)["pruned_tensors"]
    detail = f"{gone:.4f} of the pruned tensors is gone"
    return SelfCheck(id="V8", claim="something was pruned", passed=gone > 0, detail=detail)


def _output(dense: torch.nn.Module, variant: torch.nn.Module, sample: Data) -> SelfCheck:
    before, now = _outputs(dense, sample), _outputs(variant, sample)
    same = isinstance(before, np.ndarray) and isinstance(now, np.ndarray) and before.shape == now.shape
    shown = [str(found.shape) if isinstance(found, np.ndarray) else found for found in (before, now)]
    return SelfCheck(id="V4", claim="output shape and classes are unchanged", passed=same, detail=" → ".join(shown))


def _masked_is_variant(
    plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module, sample: Data, seed: int
) -> SelfCheck:
    claim = "it computes what the dense network does with the removed weights masked, on real and on random inputs"
    full = masked(plan, dense)
    inputs = [sample, _random_like(sample, seed)]
    passed, detail = _same(full, variant, inputs)
    if not passed and any(parameter.dtype in _NARROW for parameter in full.parameters()):
        widened = [replace(entry, inputs=_each(entry.inputs, _wide)) for entry in inputs]
        passed, detail = _same(copy.deepcopy(full).float(), copy.deepcopy(variant).float(), widened)
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
    again = copy.deepcopy(variant)
    with torch.no_grad():
        for tensor in again.state_dict().values():
            if isinstance(tensor, torch.Tensor):
                tensor.zero_()
    problems = again.load_state_dict(load(profile.serialised(variant)), strict=False)
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

    return replace(sample, inputs=_each(sample.inputs, noise))


def _each(inputs: Inputs, change: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
    if isinstance(inputs, dict):
        return {name: change(part) for name, part in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(change(part) for part in inputs)
    return change(inputs)
