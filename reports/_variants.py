"""Variants: what was asked for, what is there, and what was claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pruneproof import wording
from pruneproof.evidence import Evidence, SelfCheck, VariantRow

SHOWN = 12
"""Changed shapes of a table that is shown at once; a longer one is folded up on screen."""
CLAIM = "V1"
"""Self-check of what another tool claims of its model."""


@dataclass(frozen=True)
class Achieved:
    """The share that is gone, and what it is a share of."""

    ratio: float | None
    of: str


@dataclass(frozen=True)
class Claim:
    """An imported model: what was said of it beside what was measured.

    Args:
        claimed: ``None`` where nothing was claimed.
        of: what the measured share is one of.
        claimed_of: what the claimed one is one of; that of a tool's function is only known to the tool.
        measured: the same share, counted on the model's tensors; ``None`` where it could not be.
        check: the self-check that holds one against the other.
        changed: tensor, its shape in the dense network and its own; ``not there`` where it has none.
    """

    variant: VariantRow
    claimed: float | None
    of: str
    claimed_of: str
    measured: float | None
    check: SelfCheck | None
    changed: tuple[tuple[str, str, str], ...]

    @property
    def folded(self) -> bool:
        """Too many changed shapes to stand open on a screen."""
        return len(self.changed) > SHOWN

    @property
    def difference(self) -> str:
        """Measured minus claimed, in percentage points, where both are shares of the same."""
        if self.claimed is None or self.measured is None or self.claimed_of != self.of:
            return "–"
        return f"{100 * (self.measured - self.claimed):+.1f} points"


def achieved(row: VariantRow) -> Achieved:
    """What went from a pruned variant, under the denominator of its recipe; of any other model nothing is known."""
    if row.kind != "pruned" or row.units is None:
        return Achieved(None, "")
    counted, units = wording.counted(row), wording.units(row.recipe)
    gone = f"{wording.count(row.units_removed)} of {wording.count(row.units)} {units}"
    return Achieved(row.achieved_ratio, gone if counted == units else f"of {counted}; {gone}")


def claims(evidence: Evidence) -> list[Claim]:
    """One for each imported model that could be loaded."""
    dense = next((row for row in evidence.variants if row.kind == "dense"), None)
    return [_claim(row, dense) for row in evidence.variants if row.kind == "imported" and row.sparsity]


def _claim(row: VariantRow, dense: VariantRow | None) -> Claim:
    of = row.claimed_of or "layer_weights"
    check = next((check for check in row.self_checks if check.id == CLAIM), None)
    changed = tuple((name, _shape(before), _shape(now)) for name, before, now in row.shape_changes)
    counted = wording.DENOMINATORS.get(of, of)
    meant = counted if check is None or check.decides else "what its tool means"
    return Claim(row, row.claimed_ratio, counted, meant, _measured(row, dense, of), check, changed)


def _measured(row: VariantRow, dense: VariantRow | None, of: str) -> float | None:
    if of != "macs":
        return row.sparsity.get(of)
    if row.macs is None or dense is None or not dense.macs:
        return None
    return 1 - row.macs / dense.macs


def _shape(sizes: Sequence[int] | None) -> str:
    if sizes is None:
        return "not there"
    return " × ".join(f"{size:,}" for size in sizes) or "one number"


def left_whole(evidence: Evidence) -> list[tuple[str, str, list[str]]]:
    """Layer, reason, and the variants in which it was left whole."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in evidence.variants:
        for layer, reason in row.left_whole:
            found.setdefault((layer, reason), []).append(row.name)
    return [(layer, reason, names) for (layer, reason), names in found.items()]


def recipes(evidence: Evidence) -> dict[str, list[tuple[str, str]]]:
    """Recipe → the settings that a reader has to know."""
    return {wording.recipe(row): wording.settings(row.recipe) for row in evidence.variants if row.recipe}
