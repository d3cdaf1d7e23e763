"""What was achieved: counted on the pruned network's tensors, held against the request and the plan's claim."""

from __future__ import annotations

from fractions import Fraction

import torch

from pruneproof import counting, profile, prunable, surgery
from pruneproof.choice import floor
from pruneproof.evidence import SelfCheck
from pruneproof.plan import PrunePlan
from pruneproof.prunable import round_half_up
from pruneproof.subject import Inputs


def requested(plan: PrunePlan, dense: torch.nn.Module) -> SelfCheck:
    """V1: as much is removed as was requested, to the unit."""
    counts = [units - kept for kept, units in plan.layers.values()]
    consistent = sum(counts) == plan.removed and sum(units for _, units in plan.layers.values()) == plan.units
    if plan.masks:
        counted = {name: (int(mask.sum()), mask.numel()) for name, mask in plan.masks.items()}
        consistent &= counted == dict(plan.layers)
    exact, asked = _exact(plan, dense)
    detail = f"{plan.removed} of {plan.units} units removed, {asked} requested"
    return SelfCheck(id="V1", claim="as much is removed as was requested", passed=exact and consistent, detail=detail)


def _exact(plan: PrunePlan, dense: torch.nn.Module) -> tuple[bool, str]:
    recipe, ratio = plan.recipe, plan.ratio
    if plan.granularity == "n_of_m":
        asked = plan.units - plan.units * int(recipe["keep_n"]) // int(recipe["of_m"])
        return plan.removed == asked, str(asked)
    if recipe["denominator"] != "units":
        return _of_elements(plan, dense)
    if recipe["scope"] == "row":
        asked = sum(_in_rows(name, mask, dense, ratio) for name, mask in plan.masks.items())
        return plan.removed == asked, str(asked)
    if recipe["scope"] == "layer":
        each = [(units - kept, round_half_up(units, ratio)) for kept, units in plan.layers.values()]
        return all(gone == want for gone, want in each), str(sum(want for _, want in each))
    asked = round_half_up(plan.units, ratio)
    return plan.removed == asked, str(asked)


def _in_rows(name: str, mask: torch.Tensor, dense: torch.nn.Module, ratio: float) -> int:
    rows = mask.shape[0 if prunable.reduction_dim(dense, name) else 1]
    return rows * round_half_up(mask.numel() // rows, ratio)


def _of_elements(plan: PrunePlan, dense: torch.nn.Module) -> tuple[bool, str]:
    denominator = plan.recipe["denominator"]
    told = f"{plan.ratio!r} of {denominator} (achieved {plan.achieved:.4f})"
    if plan.masks:
        return plan.removed == round_half_up(counting.Shapes(dense).total(denominator), plan.ratio), told
    return plan.resolution is not None and abs(plan.achieved - plan.ratio) <= plan.resolution, told


def claimed(plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module, inputs: Inputs) -> SelfCheck:
    """V1a: what the plan claims to be gone, under three denominators, and MACs, is what is gone.

    The claim is counted on the dense network's shapes and the plan; the real figure on the variant's tensors and
    on a forward pass of it.
    """
    want, have = counting.claimed(plan, dense), _gone(plan, dense, variant)
    same = all(abs(want[key] - share) < 1e-12 for key, share in have.items())
    told = ", ".join(f"{share:.4f} of {key.replace('_', ' ')}" for key, share in have.items())
    macs = _macs(plan, dense, variant, inputs)
    detail = f"{told}{'' if same else f'; claimed {want}'}; {macs[1]}"
    claim = "what is claimed to be gone is gone, under three denominators, and MACs"
    return SelfCheck(id="V1a", claim=claim, passed=same and macs[0], detail=detail)


def _gone(plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module) -> dict[str, float]:
    """Shares of elements that are zero where the plan says so, or not there; other zeros do not count."""
    parameters = dict(variant.named_parameters(remove_duplicate=False))
    before = dict(dense.named_parameters(remove_duplicate=False))
    touched = surgery.touched(plan, dense)

    def left(model: torch.nn.Module, some: dict[str, torch.nn.Parameter]) -> int:
        distinct = {id(tensor): (name, tensor) for name, tensor in reversed(some.items())}
        if model is dense:
            return sum(tensor.numel() for _, tensor in distinct.values())
        return sum(tensor.numel() - _zeroed(plan, name, tensor) for name, tensor in distinct.values())

    def share(names: tuple[set[str], set[str]] | None) -> float:
        old = before if names is None else {n: t for n, t in before.items() if n in names[0]}
        new = parameters if names is None else {n: t for n, t in parameters.items() if n in names[1]}
        total = left(dense, old)
        return 1 - left(variant, new) / total if total else 0.0

    layers = set(prunable.weights(dense)), set(prunable.weights(variant))
    return {"pruned_tensors": share(touched), "layer_weights": share(layers), "all_parameters": share(None)}


def _zeroed(plan: PrunePlan, name: str, tensor: torch.Tensor) -> int:
    mask = plan.masks.get(name)
    return 0 if mask is None else int((tensor.detach().cpu()[~mask] == 0).sum())


def _macs(plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module, inputs: Inputs) -> tuple[bool, str]:
    """Each layer's multiply-accumulates shrink as its weight does; of zeroed weights none is saved."""
    before, now = profile.layer_macs(dense, inputs), profile.layer_macs(variant, inputs)
    if before is None or now is None:
        return True, "MACs could not be counted"
    names = surgery.renamed(dense, plan.blocks)
    old, new = surgery.named_tensors(dense), surgery.named_tensors(variant)
    want = have = 0
    for layer, count in before.items():
        weight = f"{layer}.weight".lstrip(".")
        if weight in names and weight in old:
            shrunk = names[weight]
            want += int(Fraction(count * new[shrunk].numel(), old[weight].numel())) if shrunk in new else 0
            have += now.get(shrunk.removesuffix(".weight"), 0)
    told = f"{have:,} MACs in linear and convolutional layers of {sum(before.values()):,}"
    return want == have, told if want == have else f"{told}; {want:,} claimed"


def zeros(plan: PrunePlan, variant: torch.nn.Module) -> SelfCheck:
    """V1b: every single weight that the plan removes is zero."""
    parameters = dict(variant.named_parameters(remove_duplicate=False))
    alive = sum(int(torch.count_nonzero(parameters[name].cpu()[~mask])) for name, mask in plan.masks.items())
    claim = "every weight that the plan removes is zero"
    return SelfCheck(id="V1b", claim=claim, passed=alive == 0, detail=f"{alive} of {plan.removed} are not zero")


def pattern(plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module) -> SelfCheck:
    """V2: in every run of ``of_m`` weights along a layer's inputs at most ``keep_n`` are not zero."""
    keep_n, of_m = int(plan.recipe["keep_n"]), int(plan.recipe["of_m"])
    parameters = dict(variant.named_parameters(remove_duplicate=False))
    runs = broken = 0
    for name in plan.masks:
        last = parameters[name].detach().movedim(prunable.reduction_dim(dense, name), -1)
        counts = torch.count_nonzero(last.reshape(-1, of_m), dim=1)
        runs, broken = runs + len(counts), broken + int((counts > keep_n).sum())
    claim = f"at most {keep_n} of {of_m} neighbouring weights are not zero"
    return SelfCheck(id="V2", claim=claim, passed=broken == 0, detail=f"{broken} of {runs} runs break the pattern")


def something(plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module) -> SelfCheck:
    """V8: something was pruned, and no layer lies under its floor."""
    gone = prunable.sparsity(dense, variant, surgery.touched(plan, dense))["pruned_tensors"]
    share = float(plan.recipe.get("layer_floor", "0"))
    least = 1 if plan.granularity in ("channel", "head") else 0
    low = [layer for layer, (kept, units) in plan.layers.items() if kept < floor(units, share, least)]
    low = [] if plan.granularity == "n_of_m" else low
    detail = f"{gone:.4f} of the pruned tensors is gone"
    detail += f"; under their floor: {', '.join(low)}" if low else ""
    claim = "something was pruned, and no layer is under its floor"
    return SelfCheck(id="V8", claim=claim, passed=gone > 0 and not low, detail=detail)
