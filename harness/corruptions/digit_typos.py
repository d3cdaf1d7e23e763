"""Slips in typing a number: one digit wrong, or two neighbours in each other's place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from pruneproof.corruptions import Parameters, _levels, _table

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

SHARE = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Of the cells."""
DIGITS = 15
"""Whole numbers of more decimal digits than float64 holds exactly stay."""


class Options(_table.Options):
    """Which slip."""

    slip: Literal["digit", "transposition", "either"] = "either"
    """``"either"``: each as often."""


class DigitTypos(_table.OnTables):
    """One decimal digit of ``x / step`` is replaced by another, or changes places with its right neighbour, in integer
    columns. A transposition of equal digits, or of a single one, changes nothing."""

    name = "digit_typos"
    options: type[BaseModel] = Options

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``share`` of cells."""
        return {"share": _levels.at(SHARE, severity)}

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """No integers."""
        return None if bool((_steps(edit) > 0).any()) else "no column that it may change is of kind 'integer'"

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        import torch

        assert isinstance(options, Options)
        count = edit.values.shape[1]
        hit, where, kind = (draws.uniform(count) for _ in range(3))
        other = draws.integers(9, count) + 1
        steps = _steps(edit).clamp(min=1e-300)
        whole = (edit.values / steps).round()
        known = (_steps(edit) > 0) & (whole.abs() < 10**DIGITS)
        number = torch.where(known, whole.abs(), 0.0).long()
        powers = 10 ** torch.arange(DIGITS + 1)
        digits = (number[..., None] >= powers).sum(dim=-1).clamp(min=1)
        transposed = {"digit": 0.0, "transposition": 1.0, "either": 0.5}[options.slip] > kind
        wrong = torch.where(
            transposed, _transposed(number, digits, where, powers), _replaced(number, digits, where, other, powers)
        )
        edit.write(wrong.double() * whole.sign() * steps, known & (hit < _levels.at(SHARE, severity)))


def _steps(edit: Edit) -> torch.Tensor:
    return edit.sheet.layout.steps[edit.numbers]


def _replaced(
    number: torch.Tensor, digits: torch.Tensor, where: torch.Tensor, other: torch.Tensor, powers: torch.Tensor
) -> torch.Tensor:
    """Whole numbers with the digit at ``where`` in [0, 1) of their length raised by ``other``, 1 to 9, modulo 10."""
    power = powers[(where.double() * digits).long().clamp_(max=DIGITS)]
    digit = number // power % 10
    return number + ((digit + other) % 10 - digit) * power


def _transposed(number: torch.Tensor, digits: torch.Tensor, where: torch.Tensor, powers: torch.Tensor) -> torch.Tensor:
    """Whole numbers with two neighbouring digits in each other's place; those of one digit stay."""
    power = powers[(where.double() * (digits - 1)).long().clamp_(min=0, max=DIGITS - 1)]
    right, left = number // power % 10, number // (power * 10) % 10
    moved = number + (left - right) * power + (right - left) * power * 10
    return moved.where(digits > 1, number)


CORRUPTION = DigitTypos()
