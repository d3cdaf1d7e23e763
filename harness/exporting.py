"""Writing the released model, and refusing one that is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from pruneproof import (
    auditing,
    digests,
    imported,
    loading,
    plan,
    policy,
    policy_file,
    profile,
    registry,
    surgery,
    verifying,
)
from pruneproof import evidence as records
from pruneproof.checking import Loaded
from pruneproof.errors import EvidenceError, UsageError
from pruneproof.evidence import Evidence, VariantRow
from pruneproof.isolation import importing_from, untouched_globals
from pruneproof.policy import Policy
from pruneproof.subject import Subject

PROGRAMS = ("onnx", "pt2")
"""Checkpoints that hold more than tensors."""


@dataclass(frozen=True)
class Exported:
    """Files that were written, and the model's digest."""

    files: tuple[Path, ...]
    model_sha256: str


def export(source: Path, name: str, out: Path, policy_path: Path | None = None, force: bool = False) -> Exported:
    """Writes ``<name>.safetensors`` and, for a model that was pruned here, its plan; a program is copied as it is.

    The subject is loaded anew, the plan applied, and the result's digest held against the evidence.

    Args:
        source: evidence folder.
        policy_path: where the policy lies now; default: as it was named when the audit ran.
        force: export a variant that is not released as well.

    Raises:
        UsageError: no such variant, not released, or ``out`` cannot be written.
        EvidenceError: policy, subject, plan or result are not those of the evidence.
        SubjectError: the subject cannot be loaded.
    """
    row = _row(records.read(source), name, force)
    folder = source if source.is_dir() else source.parent
    with rebuilt(source, name, policy_path) as (asked, loaded, model):
        auditing.writable(out)
        files = [_written(out, name, model, asked, loaded.subject)]
        if row.plan_sha256 is not None:
            plan.save(plan.load(folder / records.PLANS / name), out / f"{name}.plan")
            files += [out / f"{name}.plan.safetensors", out / f"{name}.plan.json"]
    return Exported(tuple(files), row.model_sha256 or "")


@contextlib.contextmanager
def rebuilt(
    source: Path, name: str, policy_path: Path | None = None
) -> Iterator[tuple[Policy, Loaded, torch.nn.Module]]:
    """The policy, the subject loaded anew, and the audited model ``name``, its digest held against the evidence.

    Args:
        source: evidence folder.
        name: ``"dense"``, or a variant.
        policy_path: where the policy lies now; default: as it was named when the audit ran.

    Raises:
        EvidenceError: policy, subject, plan or result are not those of the evidence.
        UsageError: there is no such model in it.
        SubjectError: the subject cannot be loaded.
    """
    found = records.read(source)
    problems = verifying.verify(source)
    if problems:
        raise EvidenceError(f"the evidence contradicts itself: {problems[0]}", "run the audit again")
    rows = {row.name: row for row in found.variants if row.kind != "previous"}
    if name not in rows:
        raise UsageError(f"no variant '{name}' in the evidence", f"it has: {', '.join(rows)}")
    row = rows[name]
    asked = policy_file.read(policy_path or _recorded(found, source))
    if asked.sha256 != found.policy.sha256:
        raise EvidenceError(f"{asked.path} is not the policy of this evidence", "name the right one with --policy")
    folder = source if source.is_dir() else source.parent
    with importing_from(str(asked.folder)), untouched_globals(asked.audit.threads, asked.audit.seed):
        loaded = loading.load(asked)
        if loaded.model_digest != found.subject.model_sha256:
            raise EvidenceError("the subject's model is not the one that was audited", "run the audit again")
        if row.kind == "dense":
            model = surgery.copied(loaded.subject.model)
        elif row.plan_sha256 is not None:
            stored = plan.load(folder / records.PLANS / name)
            if plan.digest(stored) != row.plan_sha256:
                raise EvidenceError(f"the plan of {name} was changed after the audit", "run the audit again")
            model = surgery.apply(stored, loaded.subject.model)
        else:
            (spec,) = (entry for entry in policy.variants(asked) if entry.name == name)
            model = imported.load(spec, loaded.subject, asked.folder)
        if digests.of_model(model) != row.model_sha256:
            raise EvidenceError(f"{name} is not the model that was audited: its digest differs", "run the audit again")
        yield asked, loaded, model


def _written(out: Path, name: str, model: torch.nn.Module, asked: Policy, subject: Subject) -> Path:
    """The model's file: its tensors; of a variant that is a whole program, the program in one file.

    What was written is read again and held against ``model``.
    """
    (spec,) = (entry for entry in policy.variants(asked) if entry.name == name)
    checkpoint = None if spec.imported is None else spec.imported.checkpoint
    program = checkpoint is not None and policy.suffix(checkpoint) in PROGRAMS
    target = out / f"{name}.{policy.suffix(checkpoint or '') if program else 'safetensors'}"
    sources = {(asked.folder / entry.checkpoint).resolve() for entry in asked.imported if entry.checkpoint}
    if target.resolve() in sources:
        raise UsageError(f"{target} is a checkpoint of the policy", "export to another folder with --out")
    if checkpoint is None or not program:
        target.write_bytes(profile.serialised(model))
        return target
    form = registry.member("pruneproof.formats", policy.suffix(checkpoint))
    form.copy(asked.folder / checkpoint, target)
    if digests.of_model(form.load(target, subject, unpickle=True)) != digests.of_model(model):
        target.unlink()
        raise EvidenceError(f"{name} as it was written is not the audited model", "export it again")
    return target


def _row(found: Evidence, name: str, force: bool) -> VariantRow:
    rows = {row.name: row for row in found.variants if row.kind in ("pruned", "imported")}
    if name not in rows:
        raise UsageError(f"no variant '{name}' in the evidence", f"it has: {', '.join(rows)}")
    row = rows[name]
    if row.model_sha256 is None or row.error is not None:
        raise UsageError(f"{name} could not be built or measured: {row.error}", "export another variant")
    if not row.released and not force:
        why = f"its verdict is {row.verdict}" if row.candidate else "it was not up for release"
        raise UsageError(f"{name} is not released: {why}", "export a released variant, or say --force")
    return row


def _recorded(found: Evidence, source: Path) -> Path:
    path = Path(found.policy.path)
    if not path.exists():
        raise UsageError(f"the policy is no longer at {path}", "say where it lies with --policy")
    return path
