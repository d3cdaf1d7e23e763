"""The six verdicts and how they combine: the worst decides."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """What a gate, a variant or an audit comes to."""

    ERROR = "ERROR"
    FAIL = "FAIL"
    NOT_RUN = "NOT_RUN"
    INCONCLUSIVE = "INCONCLUSIVE"
    WAIVED = "WAIVED"
    PASS = "PASS"


WORST_FIRST = tuple(Verdict)
RELEASING = frozenset({Verdict.PASS, Verdict.WAIVED})
WAIVABLE = frozenset({Verdict.FAIL, Verdict.INCONCLUSIVE})
GLYPHS = {
    Verdict.ERROR: "!",
    Verdict.FAIL: "✗",
    Verdict.NOT_RUN: "–",
    Verdict.INCONCLUSIVE: "?",
    Verdict.WAIVED: "w",
    Verdict.PASS: "✓",
}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """ERROR > FAIL > NOT_RUN > INCONCLUSIVE > WAIVED > PASS; of none at all NOT_RUN, never PASS."""
    found = set(verdicts)
    return next((verdict for verdict in WORST_FIRST if verdict in found), Verdict.NOT_RUN)


def releases(verdict: Verdict) -> bool:
    """Only PASS and WAIVED release."""
    return verdict in RELEASING


def exit_code(verdict: Verdict, inconclusive: str) -> int:
    """0 released, else 1; INCONCLUSIVE is 0 where the policy says ``inconclusive = "warn"``."""
    if verdict is Verdict.INCONCLUSIVE and inconclusive == "warn":
        return 0
    return 0 if releases(verdict) else 1
