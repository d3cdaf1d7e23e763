"""What was achieved: counted on the pruned network's tensors, held against the request and the plan's claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

import torch

from pruneproof import counting, profile, prunable, surgery
from pruneproof.choice import floor
from pruneproof.evidence import SelfCheck
from pruneproof.plan import PrunePlan, Removal
from pruneproof.prunable import round_half_up
from pruneproof.subject import Inputs

AS_ASKED = "as much is removed as was requested"


def requested(plan: PrunePlan, dense: torch.nn.Module) -> SelfCheck:
    """V1: as much is removed as was requested, to the unit."""
    counts = [units - kept for kept, units in plan.layers.values()]
    consistent = sum(counts) == plan.removed and sum(units for _, units in plan.layers.values()) == plan.units
    if plan.masks:
        counted = {name: (int(mask.sum()), mask.numel()) for name, mask in plan.masks.items()}
        consistent &= counted == dict(plan.layers)
    elif wrong := _not_as_told(plan, dense):
        return SelfCheck(id="V1", claim=AS_ASKED, passed=False, detail=wrong)
    exact, asked = _exact(plan, dense)
    detail = f"{plan.removed} of {plan.units} units removed, {asked} requested"
    return SelfCheck(id="V1", claim=AS_ASKED, passed=exact and consistent, detail=detail)


def _not_as_told(plan: PrunePlan, dense: torch.nn.Module) -> str:
    """Where the units that a plan says are gone are not the rows and blocks that it removes; empty if they are.

    Every unit of a layer has as many rows in the weights that produce it as any other.
    """
    parents = [path.rpartition(".")[0] for path in plan.blocks]
    made: dict[str, list[Removal]] = {name: [] for name in plan.layers}
    for removal in plan.removals:
        owner = _owner(removal.tensor, plan.layers)
        if owner is not None and removal.role == "produces":
            made[owner].append(removal)
    tensors = surgery.named_tensors(dense)
    for name, (kept, units) in plan.layers.items():
        lost = units - kept
        if plan.granularity == "block":
            wrong = parents.count(name) != lost
        elif not lost:
            wrong = bool(made[name])
        else:
            wrong = not made[name] or not all(_fits(removal, tensors, lost, units) for removal in made[name])
        if wrong:
            return f"{name}: {lost} of {units} units are said to be gone, which is not what the plan removes"
    return ""


def _owner(tensor: str, layers: Iterable[str]) -> str | None:
    """The layer among ``layers`` that ``tensor`` is of."""
    return max((name for name in layers if tensor.startswith(f"{name}." if name else "")), key=len, default=None)


def _fits(removal: Removal, tensors: Mapping[str, torch.Tensor], lost: int, units: int) -> bool:
    rows = len(removal.indices)
    return rows % lost == 0 and rows // lost * units <= tensors[removal.tensor].shape[removal.dim]


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
    share = _share(plan, dense, variant, have, inputs)
    same &= share is None or abs(share - plan.achieved) < 1e-9
    told = ", ".join(f"{part:.4f} of {key.replace('_', ' ')}" for key, part in have.items())
    macs = _macs(plan, dense, variant, inputs)
    said = f"{want}, {plan.achieved:.4f} of {plan.recipe['denominator']}"
    detail = f"{told}{'' if same else f'; claimed {said}'}; {macs[1]}"
    claim = "what is claimed to be gone is gone, under three denominators, and MACs"
    return SelfCheck(id="V1a", claim=claim, passed=same and macs[0], detail=detail)


def _share(
    plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module, gone: Mapping[str, float], inputs: Inputs
) -> float | None:
    """What is gone of what the recipe's denominator names; ``None``: it cannot be counted."""
    denominator = plan.recipe["denominator"]
    if denominator == "units":
        return plan.removed / plan.units
    if denominator == "macs":
        before, now = profile.macs(dense, inputs), profile.macs(variant, inputs)
        return None if not before or now is None else 1 - now / before
    return gone[denominator]


def _gone(plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module) -> dict[str, float]:
    """Shares of elements that are zero where the plan says so, or not there; other zeros do not count."""
    parameters = dict(variant.named_parameters(remove_duplicate=False))
    before = dict(dense.named_parameters(remove_duplicate=False))
    touched = surgery.touched(plan, dense)

    def left(model: torch.nn.Module, some: dict[str, torch.nn.Parameter]) -> int:
        names: dict[int, list[str]] = {}
        for name, tensor in some.items():
            names.setdefault(id(tensor), []).append(name)
        if model is dense:
            return sum(some[found[0]].numel() for found in names.values())
        return sum(some[found[0]].numel() - _zeroed(plan, found, some[found[0]]) for found in names.values())

    def share(names: tuple[set[str], set[str]] | None) -> float:
        old = before if names is None else {n: t for n, t in before.items() if n in names[0]}
        new = parameters if names is None else {n: t for n, t in parameters.items() if n in names[1]}
        total = left(dense, old)
        return 1 - left(variant, new) / total if total else 0.0

    layers = set(prunable.weights(dense)), set(prunable.weights(variant))
    return {"pruned_tensors": share(touched), "layer_weights": share(layers), "all_parameters": share(None)}


def _zeroed(plan: PrunePlan, names: list[str], tensor: torch.Tensor) -> int:
    """Zeros where a mask has them, under whichever of its ``names`` the tensor is masked."""
    mask = next((plan.masks[name] for name in names if name in plan.masks), None)
    fits = mask is not None and mask.shape == tensor.shape
    return int((tensor.detach().cpu()[~mask] == 0).sum()) if fits and mask is not None else 0


def _macs(plan: PrunePlan, dense: torch.nn.Module, variant: torch.nn.Module, inputs: Inputs) -> tuple[bool, str]:
    """Each layer's multiply-accumulates shrink as its weight does; of zeroed weights none is saved."""
    before, now = profile.layer_macs(dense, inputs), profile.layer_macs(variant, inputs)
    if before is None:
        return True, "MACs could not be counted"
    if now is None:
        return False, "MACs of the dense network can be counted, of this one not"
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
    alive = _alive_before(plan, dense)
    detail = f"{gone:.4f} of the pruned tensors is gone"
    if alive < plan.removed:
        detail += f"; {plan.removed - alive} of {plan.removed} removed weights were zero already"
    detail += f"; under their floor: {', '.join(low)}" if low else ""
    claim = "something was pruned, and no layer is under its floor"
    return SelfCheck(id="V8", claim=claim, passed=gone > 0 and alive > 0 and not low, detail=detail)


def _alive_before(plan: PrunePlan, dense: torch.nn.Module) -> int:
    """Of the single weights that go, those that were not zero in the dense network; of units, all of them."""
    if not plan.masks:
        return plan.removed
    tensors = surgery.named_tensors(dense)
    return sum(int(torch.count_nonzero(tensors[name].detach().cpu()[~mask])) for name, mask in plan.masks.items())
