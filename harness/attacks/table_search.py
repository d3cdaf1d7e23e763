"""Search on rows of a table by the model's scores alone, within what a person could change: for models without
gradients, and for what gradients do not see (a remainder, a threshold, a category). Evolution with repair of every row
as in MoEvA2 (Simonetto et al. 2022, arXiv 2112.01156); where the valid rows are few, all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from pruneproof.attacks._rows import OnRows
from pruneproof.tables import Record

if TYPE_CHECKING:
    from pruneproof.adversarial.arena import Arena


class Options(Record):
    """How hard to search."""

    queries: int = Field(default=500, ge=1)
    """Scores asked for, of each example that stands. An example with no more valid rows than that is searched
    exhaustively."""


class TableSearch(OnRows):
    """Gradient-free search over valid rows."""

    name = "table_search"
    options = Options
    gradients = False

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena.

        Raises:
            SubjectError: a function of the table's raised.
        """
        from pruneproof.adversarial.row_search import RowSearch

        RowSearch(arena, Options.model_validate(options.model_dump()).queries).run()


ATTACK = TableSearch()
