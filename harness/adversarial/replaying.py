"""The points that an audit kept, tried again: one forward pass, no attack."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pruneproof import evidence as records
from pruneproof import exporting, observing
from pruneproof.adversarial import charges
from pruneproof.adversarial.material import Material
from pruneproof.adversarial.spaces import kind_of
from pruneproof.adversarial.victim import Victim
from pruneproof.errors import EvidenceError
from pruneproof.subject import Subject

SUITE = "adversarial"


@dataclass(frozen=True)
class Replayed:
    """One attack's points on one variant.

    Args:
        attack: its label.
        points: kept for the variant.
        inside: of them, within the budget.
        fooled: of them, wrong again.
    """

    attack: str
    points: int
    inside: int
    fooled: int


def replay(source: Path, name: str, policy_path: Path | None = None) -> list[Replayed]:
    """Tries the points that fooled variant ``name`` on it again.

    Args:
        source: evidence folder.
        policy_path: where the policy lies now; default: as it was named when the audit ran.

    Raises:
        UsageError: no such variant.
        EvidenceError: subject, plan or model are not those of the evidence, or it keeps no points.
    """
    from pruneproof.suites.adversarial import Options

    with exporting.rebuilt(source, name, policy_path) as (asked, loaded, model):
        folder = source if source.is_dir() else source.parent
        seen = observing.kept(folder, name, SUITE)
        if seen is None or seen.error is not None:
            raise EvidenceError(f"{folder}: it keeps no adversarial points of {name}", "run the audit again")
        options = asked.suites[SUITE].options
        assert isinstance(options, Options)
        subject: Subject = loaded.subject
        material = Material(subject, kind_of(subject, options.bounds), options.attacked)
        ready = charges.charges(subject, options, material, len(loaded.examples.facts.classes))
        threshold = records.read(source).subject.threshold
        found = []
        for place, (charge, record) in enumerate(zip(ready, seen.record["attacks"], strict=True)):
            rows = seen.arrays[f"attack{place}/point_rows"]
            points = torch.from_numpy(np.array(seen.arrays[f"attack{place}/points"]))
            inside = fooled = 0
            for start in range(0, len(rows), options.shard):
                part = slice(start, start + options.shard)
                shard = material.shard(rows[part].tolist())
                victim = Victim(
                    name, model, shard.targets, shard.inputs,
                    logit_threshold=0.0 if threshold is None else float(np.log(threshold) - np.log1p(-threshold)),
                    criterion=subject.criterion, batch=options.batch, draws=record["draws"],
                )  # fmt: skip
                with victim.attacked():
                    (opened,), clean, space = charges.ready(charge, [victim], shard, subject.domain)
                    tried = points[part].to(clean.dtype)
                    inside += int(space.at(record["budgets"][-1]).contains(clean, tried).sum())
                    fooled += int(opened.fooled(tried, torch.arange(len(tried))).sum())
            found.append(Replayed(record["label"], len(rows), inside, fooled))
        return found
