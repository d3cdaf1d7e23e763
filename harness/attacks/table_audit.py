"""The audit attack on tables: gradients first, then search on what they left standing (the order of CAA: Simonetto et
al. 2024, arXiv 2406.00775). This is what ``audit`` stands for on a Table domain.
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
    """Gradients a run and example."""
    restarts: int = Field(default=4, ge=0)
    """Further runs from random valid rows, on what still stands."""
    queries: int = Field(default=500, ge=0)
    """Scores of the search for each example that stands then; 0: no search."""


class TableAudit(OnRows):
    """Gradients, then search on the survivors, for every victim."""

    name = "table_audit"
    options = Options
    gradients = True
    searches = True
    """It goes on without gradients."""

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena; one without gradients is searched alone, and a stage says why.

        Raises:
            SubjectError: a function of the table's raised.
            MeasurementError: there are no gradients, and no search is asked for.
        """
        from pruneproof.adversarial.row_audit import RowAudit

        own = Options.model_validate(options.model_dump())
        RowAudit(arena, own.steps, own.restarts, own.queries).run()


ATTACK = TableAudit()
