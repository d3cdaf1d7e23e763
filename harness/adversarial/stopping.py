"""When an attack may stop: examples come in random order, in growing blocks, until they decide the gates.

A verdict on them rests on bounds that hold whenever one stops (:mod:`pruneproof.betting`). They need examples in an
order that has nothing to do with their outcomes, and outcomes of one example that do not depend on other examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pruneproof.estimates import Change, Estimate, Rows, Sequential, change
from pruneproof.policy import DENSE, PREVIOUS, GateSpec, VariantSpec, applies

Stood = NDArray[np.bool_]
"""``(n,)``: whether a model still stands at each example, in the order attacked."""
FIRST = 50
"""Examples in the first block: the clearest failures need no more."""
METRIC = "robust_accuracy"


def order(n: int, seed: int) -> Rows:
    """All of ``n`` examples in random order, ``(n,)`` positions; ``seed`` is 0 or above."""
    return np.random.default_rng(seed).permutation(n).astype(np.int64)


def blocks(n: int, first: int = FIRST) -> list[int]:
    """Sizes of the blocks in which ``n`` examples are attacked: each doubles what there is.

    ``first``, ``first``, ``2 first``, ``4 first``, … and the rest. So no sample is more than twice the one that would
    have decided.

    Raises:
        ValueError: ``n`` is negative, or ``first`` is under 1.
    """
    if n < 0 or first < 1:
        raise ValueError(f"n must be at least 0 and first at least 1, not {n} and {first}")
    totals = [0]
    while totals[-1] < n:
        totals.append(min(n, max(first, 2 * totals[-1])))
    return [after - before for before, after in pairwise(totals)]


def decided(
    stood: Mapping[str, Stood], gates: Sequence[GateSpec], ratios: Mapping[str, float | None], members: int = 1
) -> frozenset[str]:
    """The models whose attack can stop: further examples are not needed for any of their gates.

    A variant is decided when each gate on it is a PASS or a FAIL on the examples so far. The dense model, the previous
    one and variants that nothing gates are attacked as long as a gated variant is undecided: comparisons need them on
    the same examples, curves on as many. Without any gated variant nothing is ever decided, and all examples are used.

    Args:
        stood: of one attack, each model by name; a comparator has at least the examples of the variants that are not
            decided yet.
        gates: of the suite. One on another metric than ``robust_accuracy`` is not decided here, so whatever it gates
            goes on to the last example; leave out those that may remain undecided.
        ratios: of the variants, by name.
        members: how many attacks the gates' families have. A FAIL counts here when it outlasts the correction for all
            of them, whatever the others show (Bonferroni's, which Holm's never falls short of).
    """
    if members < 1:
        raise ValueError(f"a family has at least 1 member, not {members}")
    variants = [name for name in stood if name not in (DENSE, PREVIOUS)]
    asked = {name: [gate for gate in gates if _applies(gate, name, ratios)] for name in variants}
    gated = [name for name in variants if asked[name]]
    done = {name for name in gated if all(_decides(gate, name, stood, members) for gate in asked[name])}
    return frozenset(stood) if gated and len(done) == len(gated) else frozenset(done)


def _applies(gate: GateSpec, name: str, ratios: Mapping[str, float | None]) -> bool:
    return applies(gate, VariantSpec(name, None, ratios.get(name), None))


def _decides(gate: GateSpec, name: str, stood: Mapping[str, Stood], members: int) -> bool:
    """Whether the examples so far make the gate a PASS or a FAIL."""
    own, other = stood[name], stood.get(gate.comparator or name)
    if gate.metric.name != METRIC or not len(own) or other is None or len(other) < len(own):
        return False
    claim: Estimate = _sequential(own)
    if gate.comparator is not None:
        claim = change(claim, _sequential(other), cast(Change, gate.key), len(own))
    bounds = claim.bounds(gate.confidence)
    strict = claim.bounds(1 - (1 - gate.confidence) / members)
    if gate.key == "min":
        return bounds.lower >= gate.limit or strict.upper < gate.limit
    return bounds.upper <= gate.limit or strict.lower > gate.limit


def _sequential(stood: Stood) -> Sequential:
    return Sequential(np.arange(len(stood)), np.asarray(stood, dtype=bool))
