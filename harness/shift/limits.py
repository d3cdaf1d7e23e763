"""The ground that corruptions may not leave: what the subject's domain says of every input."""

from __future__ import annotations

import torch

from pruneproof import domain, inference
from pruneproof.corruptions import _table_sheet
from pruneproof.errors import MeasurementError, SubjectError
from pruneproof.shift.ground import Ground
from pruneproof.shift.material import Material

ROOM = 1e-6
"""Share of a box's range that clean examples may be outside it by rounding."""


def check(material: Material) -> None:
    """Whether the test examples lie in the domain that the subject states.

    Raises:
        SubjectError: naming the first that does not; or the domain contradicts itself.
    """
    stated, at = material.stated, 0
    if isinstance(stated, domain.Tokens):
        from pruneproof.adversarial.sequences import check_tokens

        check_tokens(stated)
    for inputs, _ in inference.batches(material.subject.test, max(material.subject.batch_size, 1024)):
        clean = material.pick(inputs)
        if isinstance(stated, domain.Table):
            _rows(stated, clean, at, material.ground.missing)
        elif isinstance(stated, domain.Tokens):
            _tokens(stated, clean, at)
        else:
            _boxed(material.ground, clean, at)
        at += len(clean)


def hold(label: str, clean: torch.Tensor, found: torch.Tensor, ground: Ground) -> None:
    """Refuses what a corruption must not do to an example.

    Raises:
        MeasurementError: some number is not finite, or outside the domain; the message says what.
    """
    if found.is_floating_point():
        bad = found.isinf() if ground.missing else ~found.isfinite()
        if bool(bad.any()):
            raise MeasurementError(
                f"corruption '{label}' returned {'infinity' if ground.missing else 'NaN or infinity'} for "
                f"{int(bad.reshape(len(bad), -1).any(dim=1).sum())} of {len(found)} examples",
                "a corruption has to give inputs that the subject can meet; mend it",
            )
    problem = _problem(clean, found, ground)
    if problem is not None:
        raise MeasurementError(
            f"corruption '{label}' leaves the subject's domain: {problem}",
            "a corruption has to give inputs that the subject can meet; mend it",
        )


def _problem(clean: torch.Tensor, found: torch.Tensor, ground: Ground) -> str | None:
    stated = ground.domain
    if isinstance(stated, domain.Tokens):
        outside = (found < 0) | (found >= stated.size)
        return f"token {int(found[outside][0])} of a vocabulary of {stated.size}" if bool(outside.any()) else None
    if isinstance(stated, domain.Table):
        return _table_sheet.of(ground).broken(clean, found)
    wide, was = found.double(), clean.double()
    # Clean examples may be outside by rounding; what was not moved further out is none of the corruption's business.
    outside = ((wide < ground.low) & (wide < was)) | ((wide > ground.high) & (wide > was))
    return f"{float(wide[outside][0]):g} is outside its bounds" if bool(outside.any()) else None


def _rows(table: domain.Table, clean: torch.Tensor, at: int, missing: bool) -> None:
    from pruneproof.adversarial.stated import validate

    whole = clean[~clean.isnan().any(dim=1)] if missing and clean.ndim == 2 and clean.is_floating_point() else clean
    validate(table, whole, at)


def _tokens(tokens: domain.Tokens, clean: torch.Tensor, at: int) -> None:
    if clean.ndim != 2 or clean.is_floating_point() or clean.dtype == torch.bool:
        raise SubjectError(
            f"the domain is Tokens, the inputs are {clean.dtype} of shape {tuple(clean.shape)}",
            "give integer tokens (n, length), or state the domain that the inputs have",
        )
    outside = (clean < 0) | (clean >= tokens.size)
    if bool(outside.any()):
        row, position = outside.nonzero()[0].tolist()
        raise SubjectError(
            f"token {int(clean[row, position])} of test example {at + row} is outside the vocabulary of {tokens.size}",
            "give Tokens(size=…) the number of tokens, or correct the inputs",
        )


def _boxed(ground: Ground, clean: torch.Tensor, at: int) -> None:
    room = ROOM * (ground.high - ground.low)
    wide = clean.double()
    outside = ((wide < ground.low - room) | (wide > ground.high + room)).reshape(len(clean), -1).any(dim=1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise SubjectError(
            f"test example {at + row} spans {float(wide[row].min()):g} to {float(wide[row].max()):g}, outside the "
            "bounds that the domain states",
            "state the range of the data as the model gets them",
        )
