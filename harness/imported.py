"""Models that other tools pruned: loaded, and what was claimed of them held against what they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from pruneproof import digests, loading, policy, profile, prunable, registry, surgery
from pruneproof.errors import SubjectError
from pruneproof.evidence import SelfCheck, VariantRow
from pruneproof.isolation import untouched_globals
from pruneproof.policy import Imported, VariantSpec
from pruneproof.subject import Inputs, Subject

TOLERANCE = 0.005
"""Between a claimed ratio and the real one: tools and people state ratios in whole percent."""
_ROUNDING = 1e-9
"""0.305 - 0.3 is more than 0.005 in floating point."""
_DENOMINATORS = ("layer_weights", "all_parameters", "macs")

Change = tuple[str, list[int] | None, list[int] | None]
"""A tensor's name, its shape in the dense model and in the variant; ``None``: it is not there."""


def load(spec: VariantSpec, subject: Subject, folder: Path) -> torch.nn.Module:
    """The model that ``spec`` names: what ``load`` or ``prune`` returned, or the checkpoint's.

    Code of the user's finds the global random generators seeded by the variant's name, so that it gives the same model
    in whatever order variants are built; they are left as they were.

    Args:
        folder: the policy's; first on the import path, and what a checkpoint is relative to.

    Raises:
        SubjectError: it cannot be loaded, is no module, is another file than ``sha256`` says, or making it changed the
            dense model.
        PruneProofError: what reads a checkpoint is not installed.
    """
    entry = spec.imported
    assert entry is not None
    before = digests.of_model(subject.model)
    with untouched_globals(torch.get_num_threads(), digests.of_text(spec.name)):
        found = _made(spec, entry, subject, folder)
    if digests.of_model(subject.model) != before:
        raise SubjectError(
            f"{_source(entry)} changed the dense model",
            "work on the model that the function was given, or on one of its own, not on the subject's",
        )
    return found


def described(
    spec: VariantSpec, row: VariantRow, dense: torch.nn.Module, variant: torch.nn.Module, inputs: Inputs
) -> VariantRow:
    """``row`` with the claim, the changes of shape and the self-checks.

    Args:
        row: with what was measured of ``variant``: sparsity and MACs.
        inputs: a batch of one example.
    """
    dense_macs = profile.macs(surgery.copied(dense), inputs)
    macs = row.macs if row.macs or not dense_macs else None  # computed outside torch, where nothing can be counted
    ratio, of = claim(spec)
    return row.model_copy(
        update={
            "requested_ratio": spec.ratio,
            "claimed_ratio": ratio,
            "claimed_of": of,
            "macs": macs,
            "shape_changes": shape_changes(dense, variant),
            "self_checks": checks(spec, row.sparsity, dense_macs, macs, dense),
        }
    )


def shape_changes(dense: torch.nn.Module, variant: torch.nn.Module) -> list[Change]:
    """Parameters and buffers that are not in both models in the same shape: the dense model's in order, then new ones.

    A tensor that ``torch.nn.utils.prune`` masks or a parametrization makes goes by the name of what it stands for.
    """
    before, after = _shapes(dense), _shapes(variant)
    names = [*before, *(name for name in after if name not in before)]
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def checks(
    spec: VariantSpec, sparsity: Mapping[str, float], dense_macs: int | None, macs: int | None, dense: torch.nn.Module
) -> list[SelfCheck]:
    """V1, where something is claimed, and V8.

    ``claimed_ratio`` decides: a model that is not what its maker says is an ERROR. The ratio that ``prune`` was given
    is held against the nearest denominator and only reported, because every tool means something else by it (half of
    the channels is three quarters of the weights) - unless the policy names ``claimed_of`` with it.

    Args:
        sparsity: of the variant, by :func:`pruneproof.prunable.sparsity`.
        dense_macs: of the dense model for one example; ``None``: they could not be counted.
        macs: of the variant.
    """
    gone = {name: sparsity[name] for name in _DENOMINATORS if name in sparsity}
    if dense_macs and macs is not None:
        gone["macs"] = 1 - macs / dense_macs
    ratio, of = claim(spec)
    found = [] if ratio is None else [_as_claimed(ratio, of, gone)]
    changed = _something_gone(gone, prunable.sparsity(dense, dense, None))
    # A function that was asked to prune and did not has failed; a checkpoint may be there for comparison.
    asked = spec.imported is not None and spec.imported.prune is not None
    return [*found, changed.model_copy(update={"decides": asked})]


def _as_claimed(claim: float, of: str | None, gone: Mapping[str, float]) -> SelfCheck:
    near = [name for name, real in gone.items() if abs(real - claim) <= TOLERANCE + _ROUNDING]
    words = ", ".join(f"{gone[name]:.4f} of {name}" if name in gone else f"{name} unknown" for name in _DENOMINATORS)
    if of is None:
        told = f"it was asked for {claim!r} of what its tool means; gone: {words}"
        claimed = "what is gone is the requested share of some denominator"
    else:
        told = f"claimed: {claim!r} of {of}; gone: {words}"
        claimed = "what is gone is what is claimed to be gone"
    return SelfCheck(
        id="V1", claim=claimed, passed=bool(near) if of is None else of in near, detail=told, decides=of is not None
    )


def _something_gone(gone: Mapping[str, float], of_dense: Mapping[str, float]) -> SelfCheck:
    more = {name: share - of_dense.get(name, 0.0) for name, share in gone.items()}
    best = max(more, key=lambda name: more[name])
    passed = more[best] > 0
    detail = f"{more[best]:.4f} of {best} more than of the dense model" if passed else "no more than of the dense model"
    return SelfCheck(id="V8", claim="something was pruned", passed=passed, detail=f"gone: {detail}", decides=False)


def _made(spec: VariantSpec, entry: Imported, subject: Subject, folder: Path) -> torch.nn.Module:
    if entry.load is not None:
        return loading.model(entry.load, subject, folder)
    if entry.checkpoint is not None:
        if entry.sha256 is not None:
            _is_the_file(entry.checkpoint, entry.sha256, folder)
        return loading.checkpoint(entry.checkpoint, subject, folder, unpickle=entry.unpickle)
    assert entry.prune is not None
    given = surgery.copied(subject.model)
    found = loading.resolve(entry.prune, folder, given, spec.ratio, key="prune")
    if found is None:  # pruned in place
        return given
    if not isinstance(found, torch.nn.Module):
        raise SubjectError(
            f"{_source(entry)} returned {type(found).__name__}", "return the pruned torch.nn.Module, or prune in place"
        )
    return found


def _is_the_file(checkpoint: str, sha256: str, folder: Path) -> None:
    path = folder / checkpoint
    try:
        real = digests.of_file(path)
    except OSError as error:
        raise SubjectError(f"checkpoint {checkpoint}: {error.strerror}", "name a readable file") from None
    if real != sha256:
        raise SubjectError(
            f"checkpoint {checkpoint} is not the file that the policy names: its SHA-256 is {real}",
            "get the right file; if this one is right, put its digest into the policy",
        )
    outside = getattr(registry.member("pruneproof.formats", policy.suffix(checkpoint)), "outside", None)
    others = outside(path) if outside is not None else ()
    if others:
        raise SubjectError(
            f"checkpoint {checkpoint} has weights in {', '.join(others)}, which its sha256 does not cover",
            "save it as one file (torch.onnx.export(…, external_data=False))",
        )


def claim(spec: VariantSpec) -> tuple[float | None, str | None]:
    """The ratio that is claimed, and of what; ``None``: nothing is, or it is of what the tool means by a ratio."""
    ratio = _claim(spec)
    return ratio, None if ratio is None else _claimed_of(spec)


def decides(spec: VariantSpec) -> dict[str, bool]:
    """The self-checks of an imported variant, and whether each decides."""
    assert spec.imported is not None
    ratio, of = claim(spec)
    return {**({} if ratio is None else {"V1": of is not None}), "V8": spec.imported.prune is not None}


def _claim(spec: VariantSpec) -> float | None:
    assert spec.imported is not None
    return spec.imported.claimed_ratio if spec.imported.prune is None else spec.ratio


def _claimed_of(spec: VariantSpec) -> str | None:
    """The denominator of the claim; ``None``: the tool's own."""
    entry = spec.imported
    assert entry is not None
    return entry.claimed_of or (None if entry.prune is not None else _DENOMINATORS[0])


def _source(entry: Imported) -> str:
    for key in ("load", "prune", "checkpoint"):
        if getattr(entry, key) is not None:
            return f"{key} = '{getattr(entry, key)}'"
    raise AssertionError(entry)


def _shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    shown = prunable.tensors_of(model)
    masks = {f"{name}_mask" for name in shown}
    buffers = model.named_buffers(remove_duplicate=False)
    own = {name: buffer for name, buffer in buffers if name not in masks and "parametrizations" not in name.split(".")}
    return {name: list(tensor.shape) for name, tensor in {**shown, **own}.items()}
