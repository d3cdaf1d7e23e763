"""Both attacks on rows of a table, one after the other on each victim."""

from __future__ import annotations

from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.row_ascent import RowAscent
from pruneproof.adversarial.row_search import RowSearch
from pruneproof.adversarial.victim import Victim
from pruneproof.errors import MeasurementError


class RowAudit:
    """Gradients, then search on the survivors.

    Args:
        steps, restarts: of :class:`~pruneproof.adversarial.row_ascent.RowAscent`.
        queries: of :class:`~pruneproof.adversarial.row_search.RowSearch`; 0: no search.
    """

    def __init__(self, arena: Arena, steps: int, restarts: int, queries: int) -> None:
        self.arena, self.steps, self.restarts, self.queries = arena, steps, restarts, queries
        self.search = RowSearch(arena, queries) if queries else None

    def run(self) -> None:
        """Every victim: what fooled others, gradients, search; at the end everything on everybody.

        Raises:
            MeasurementError: there are no gradients, and no search is asked for.
        """
        self.arena.shared(self._fight)

    def _fight(self, victim: Victim) -> None:
        self._climb(victim)
        if self.search is not None:
            self.search.search(victim)

    def _climb(self, victim: Victim) -> None:
        try:
            RowAscent(self.arena, self.steps, self.restarts).climb(victim)
        except MeasurementError as error:
            if self.search is None:
                raise
            with self.arena.stage(f"no gradients: {error.cause}", victim, len(self.arena.rows(victim))):
                pass
