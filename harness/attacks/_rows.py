"""What the attacks on tables have in common."""

from __future__ import annotations

from pruneproof.attacks import Domain


class OnRows:
    """Knows rows ``(columns,)`` of a Table domain, and budgets of their columns' costs."""

    domains: frozenset[Domain] = frozenset({"table"})
    norms = frozenset({"L1", "L2", "Linf"})

    def refuses(self, shape: tuple[int, ...], classes: int) -> str | None:
        """Inputs that are no rows."""
        return None if len(shape) == 1 else f"it changes rows (columns,), not inputs {shape}"
