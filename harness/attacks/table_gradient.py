"""Gradient ascent on rows of a table, within what a person could change (after CAPGD: Simonetto et al. 2024,
arXiv 2406.00775): every point is repaired to a valid row before it is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from pruneproof.attacks._rows import OnRows
from pruneproof.tables import Record

if TYPE_CHECKING:
    from pruneproof.adversarial.arena import Arena


class Options(Record):
    """How hard to try."""

    steps: int = Field(default=20, ge=1)
    """Gradients a run and example; the length of a step falls by a cosine."""
    restarts: int = Field(default=4, ge=0)
    """Further runs from random valid rows, on what still stands."""


class TableGradient(OnRows):
    """Gradient steps with projection and repair."""

    name = "table_gradient"
    options = Options
    gradients = True

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena.

        Raises:
            SubjectError: a function of the table's raised.
            MeasurementError: the model, the rows or the table's ``derive`` have no gradient.
        """
        from pruneproof.adversarial.row_ascent import RowAscent

        own = Options.model_validate(options.model_dump())
        RowAscent(arena, own.steps, own.restarts).run()


ATTACK = TableGradient()
