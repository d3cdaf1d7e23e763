"""From the subject's domain and the policy's budget to what an attacker may do; what cannot be is refused here."""

from __future__ import annotations

import math

import torch

from pruneproof import domain, inference
from pruneproof.adversarial import entries
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.embedding_ball import EmbeddingBall
from pruneproof.adversarial.entries import Entry, Norm
from pruneproof.adversarial.material import Material
from pruneproof.adversarial.published import Published
from pruneproof.adversarial.rows import RowSpace
from pruneproof.adversarial.sequences import EditSpace
from pruneproof.adversarial.space import Space
from pruneproof.adversarial.stated import validate
from pruneproof.attacks import Attack, Domain
from pruneproof.errors import PolicyError, SubjectError
from pruneproof.subject import Subject


def kind_of(subject: Subject, bounds: tuple[float, float] | None) -> Domain:
    """The kind of the subject's domain.

    Raises:
        SubjectError: it states none, and the policy no bounds.
    """
    if subject.domain is not None and bounds is not None:
        raise PolicyError("both the subject and [suites.adversarial] bounds state a domain", "leave 'bounds' out")
    if isinstance(subject.domain, domain.Table):
        return "table"
    if isinstance(subject.domain, domain.Tokens):
        return "tokens"
    if subject.domain is None and bounds is None:
        raise SubjectError(
            "the subject does not say what inputs it can meet, and attacks need to know",
            "give Subject(domain=pruneproof.Box(low, high)), or [suites.adversarial] bounds = [low, high]",
        )
    return "box"


def space(subject: Subject, norm: Norm, eps: float, bounds: tuple[float, float] | None, material: Material) -> Space:
    """What an attacker may do within ``eps``.

    Raises:
        PruneProofError: the budget is no budget on this domain.
    """
    stated = subject.domain if subject.domain is not None else domain.Box(*(bounds or (-math.inf, math.inf)))
    if isinstance(stated, domain.Table):
        assert norm in ("Linf", "L2", "L1")
        return RowSpace(stated, norm, eps)
    if isinstance(stated, domain.Tokens):
        return EmbeddingBall(stated, norm, eps) if norm in ("Linf", "L2") else EditSpace(stated, eps)
    assert norm != "edits"
    found = Ball(norm, eps, stated.low, stated.high, stated.unit)
    _fits(found, material.sample[0])
    return found


def check(subject: Subject, bounds: tuple[float, float] | None, material: Material) -> None:
    """Whether every test example lies in the stated domain.

    Raises:
        SubjectError: naming the first that does not.
    """
    stated = subject.domain if subject.domain is not None else domain.Box(*(bounds or (-math.inf, math.inf)))
    at = 0
    for inputs, _ in inference.batches(subject.test, max(subject.batch_size, 1024)):
        clean = material.pick(inputs)
        if isinstance(stated, domain.Box):
            _inside(stated, clean, at)
        elif isinstance(stated, domain.Table):
            validate(stated, clean, at)
        else:
            EditSpace(stated, 1).check(clean)
        at += len(clean)


def _inside(box: domain.Box, clean: torch.Tensor, at: int) -> None:
    low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in (box.low, box.high))
    room = 1e-6 * torch.clamp(high - low, max=1e6)
    wide = clean.double()
    outside = ((wide < low - room) | (wide > high + room)).reshape(len(clean), -1).any(dim=1)
    if outside.any():
        row = int(outside.nonzero()[0])
        least, most = float(wide[row].min()), float(wide[row].max())
        raise SubjectError(
            f"test example {at + row} lies outside the stated bounds: its values reach from {least:.6g} to {most:.6g}",
            "state the range of the data as the model gets them: Box(low, high), or [suites.adversarial] bounds",
        )


def _fits(ball: Ball, sample: torch.Tensor) -> None:
    """The budget against the range of the data."""
    low, high, unit = (torch.as_tensor(part, dtype=torch.float64) for part in (ball.low, ball.high, ball.unit))
    try:
        torch.broadcast_to(low, sample.shape), torch.broadcast_to(high, sample.shape)
        torch.broadcast_to(unit, sample.shape)
    except RuntimeError:
        raise SubjectError(
            f"the domain's bounds do not broadcast to one example {tuple(sample.shape)}",
            "give numbers, or tensors that broadcast: (channels, 1, 1) of images",
        ) from None
    widths = torch.broadcast_to((high - low) / unit, sample.shape)
    most = {
        "Linf": float(widths.max()),
        "L2": float(widths.square().sum().sqrt()),
        "L1": float(widths.sum()),
        "L0": float(sample.numel()),
    }[ball.norm]
    if ball.eps > most:
        raise PolicyError(
            f"eps = {ball.eps:g} in {ball.norm} is larger than the range of the data, {most:g}",
            "state eps in the units of the data: of images in [0, 1], 8/255 and not 8",
        )
    if ball.norm == "L0" and ball.eps < 1:
        raise PolicyError(f"eps = {ball.eps:g} in L0 lets nothing change", "give a number of elements from 1")


def refused(
    entry: Entry, attack: Attack, norm: Norm, shape: tuple[int, ...], kind: Domain, subject: Subject, classes: int
) -> None:
    """Raises where the attack cannot run on such inputs.

    Raises:
        PolicyError: with the attacks that can.
    """
    why = _why(attack, norm, shape, classes)
    if subject.criterion is not None and isinstance(attack, Published):
        why = "it knows wrong classes alone, and the subject brings a criterion of its own"
    if why is not None:
        able = [name for name in entries.able() if _able(name, norm, shape, kind, subject, classes)]
        raise PolicyError(
            f"attack '{entry.called}' cannot run on inputs of shape {shape} with {classes} classes: {why}",
            f"use one of {', '.join(able)}",
        )
    if isinstance(attack, Published) and not attack.bounded and entry.norm is None:
        raise PolicyError(
            f"attack '{entry.called}' has no budget of its own, so nothing says in what norm its points count",
            f"add norm = one of {', '.join(sorted(attack.norms))}",
        )


def unfit(entry: Entry, attack: Attack, ground: Space) -> None:
    """Raises where a published attack cannot be presented such a space.

    Raises:
        PolicyError: it knows one range and one budget for all elements alone.
    """
    why = attack.unfit(ground) if isinstance(attack, Published) else None
    if why is not None:
        raise PolicyError(f"attack '{entry.called}' cannot run within these bounds: {why}", "use the audit attack")


def _why(attack: Attack, norm: Norm, shape: tuple[int, ...], classes: int) -> str | None:
    return attack.refuses(shape, classes, norm) if isinstance(attack, Published) else attack.refuses(shape, classes)


def _able(name: str, norm: Norm, shape: tuple[int, ...], kind: Domain, subject: Subject, classes: int) -> bool:
    found = entries.attack(name, kind)
    if subject.criterion is not None and isinstance(found, Published):
        return False
    return kind in found.domains and norm in found.norms and _why(found, norm, shape, classes) is None
