"""The policy's attacks, each checked against the subject and ready to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel

from pruneproof import domain
from pruneproof.adversarial import entries, spaces
from pruneproof.adversarial.entries import Entry
from pruneproof.adversarial.material import Material, Shard
from pruneproof.adversarial.space import Space
from pruneproof.adversarial.victim import Victim
from pruneproof.attacks import Attack
from pruneproof.errors import PolicyError, SubjectError
from pruneproof.subject import Subject
from pruneproof.tables import offer

if TYPE_CHECKING:
    from pruneproof.checking import Loaded
    from pruneproof.suites.adversarial import Options


@dataclass(frozen=True, eq=False)
class Charge:
    """One entry of the policy, ready to run.

    Args:
        entry: of the policy.
        attack: it names.
        own: the attack's own parameters.
        norm: that the budget is measured in.
        space: what the attacker may do within ``entry.eps``.
    """

    entry: Entry
    attack: Attack
    own: BaseModel
    norm: entries.Norm
    space: Space


def ready(
    charge: Charge, victims: Sequence[Victim], shard: Shard, tokens: Any
) -> tuple[Sequence[Victim], torch.Tensor, Space]:
    """Victims, clean examples and space of the arena in which ``charge`` runs.

    They are those of the shard, but for an attack that moves something else than the input (embeddings).
    """
    prepare = getattr(charge.attack, "prepare", None)
    if prepare is None or not isinstance(tokens, domain.Tokens):
        return victims, shard.clean, charge.space
    opened: tuple[Sequence[Victim], torch.Tensor, Space] = prepare(
        victims, shard.clean, tokens, charge.norm, charge.entry.eps, charge.own
    )
    return opened


def charges(subject: Any, options: Options, material: Material, classes: int) -> list[Charge]:
    """Every entry of the policy, checked against the subject.

    Raises:
        PruneProofError: one that cannot be carried out; the message names those that can.
    """
    kind = material.kind
    found: list[Charge] = []
    shape = tuple(material.sample.shape[1:])
    for entry in options.attacks:
        attack = entries.attack(entry.name, kind)
        norm = entries.norm_of(entry, kind)
        spaces.refused(entry, attack, norm, shape, kind, subject, classes)
        space = spaces.space(subject, norm, entry.eps, options.bounds, material)
        spaces.space(subject, norm, entry.budgets[-1], options.bounds, material)  # refuses budgets beyond the range
        spaces.unfit(entry, attack, space)
        if options.goals and not getattr(attack, "aims", True) and not found:
            raise PolicyError(
                f"attack '{entry.called}' cannot be sent after one class, and goals are tried with the first attack",
                "put another attack first, or leave the goals out",
            )
        found.append(Charge(entry, attack, entries.own(entry, kind), norm, space))
    return found


def check(loaded: Loaded, options: Options) -> None:
    """Refuses, before anything is measured, what cannot be attacked as asked.

    Raises:
        PruneProofError: an attack, budget, goal or input that the subject does not allow.
    """
    subject, facts = loaded.subject, loaded.examples.facts
    kind = spaces.kind_of(subject, options.bounds)
    if facts.task == "regression" and subject.criterion is None:
        raise SubjectError(
            "the task is regression, and nothing says which output is wrong", "give Subject(criterion=Criterion(…))"
        )
    material = Material(subject, kind, options.attacked)
    ready = charges(subject, options, material, len(facts.classes))
    for charge in ready:
        if getattr(charge.own, "strength", None) == "reference":
            _reference(charge, subject, options, material, facts.classes)
    spaces.check(subject, options.bounds, material)
    for goal in options.goals:
        for name in (goal.source, goal.to):
            if name not in facts.classes:
                raise PolicyError(f"goal '{goal.called}': no class '{name}'", offer(name, facts.classes))
        if subject.criterion is not None:
            raise PolicyError("goals are about classes, and the subject brings a criterion", "leave the goals out")


def _reference(charge: Charge, subject: Subject, options: Options, material: Material, classes: Sequence[str]) -> None:
    """AutoAttack's stages as published know less than the audit attack."""
    from pruneproof.adversarial import reference

    why = reference.unfit(charge.space, tuple(material.sample.shape[1:]), len(classes), subject.criterion is not None)
    if why is None and options.goals and options.attacks[0].called == charge.entry.called:
        why = "AutoAttack aims at no class in particular, and goals are tried with the first attack"
    if why is not None:
        raise PolicyError(
            f"attack '{charge.entry.called}': strength = \"reference\" cannot be carried out: {why}",
            'use strength = "standard", with more restarts',
        )
