"""When an attack stops: the order of the examples, the blocks, and who is decided after them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pruneproof import gates
from pruneproof.adversarial.stopping import blocks, decided, order
from pruneproof.betting import mean_bounds
from pruneproof.estimates import Sequential
from pruneproof.policy import GateSpec
from pruneproof.suite import CLASSIFICATION, Metric
from pruneproof.verdicts import Verdict

ROBUST = Metric("robust_accuracy", True, CLASSIFICATION, "class")
RATIOS = {"p@0.3": 0.3, "p@0.9": 0.9}


def gate(key: str, limit: float, up_to: float | None = None, metric: Metric = ROBUST) -> GateSpec:
    comparator = None if key == "min" else "dense"
    return GateSpec("adversarial", metric, key, limit, comparator, up_to, None, 0.95)


def stood(share: float, n: int = 100) -> NDArray[np.bool_]:
    """An even mixture."""
    return np.arange(1, n + 1) * share // 1 > np.arange(n) * share // 1


# Order and blocks


@given(st.integers(0, 300), st.integers(0, 2**63 - 1))
def test_the_order_holds_every_example_once_and_is_the_same_for_the_same_seed(n: int, seed: int) -> None:
    found = order(n, seed)
    assert sorted(found) == list(range(n))
    assert list(found) == list(order(n, seed))


def test_another_seed_is_another_order_and_early_places_are_anybodys() -> None:
    first = np.array([order(20, seed)[0] for seed in range(2000)])
    # Of 2 000 draws of one of 20 each is expected 100 times, give or take 10.
    assert (abs(np.bincount(first, minlength=20) - 100) < 45).all()


def test_blocks_double_what_there_is() -> None:
    assert blocks(1000) == [50, 50, 100, 200, 400, 200]
    assert blocks(1600) == [50, 50, 100, 200, 400, 800]
    assert blocks(30) == [30]
    assert blocks(0) == []
    assert blocks(10, first=4) == [4, 4, 2]


@given(st.integers(0, 10**6), st.integers(1, 500))
def test_blocks_are_all_examples_and_none_is_empty(n: int, first: int) -> None:
    found = blocks(n, first)
    assert sum(found) == n
    assert all(size > 0 for size in found)


def test_blocks_of_nothing_are_refused() -> None:
    for n, first in ((-1, 50), (10, 0)):
        with pytest.raises(ValueError, match="at least"):
            blocks(n, first)


# Who is decided


def test_a_clear_failure_is_decided_while_the_dense_model_goes_on_for_the_other() -> None:
    found = {"dense": stood(0.6), "p@0.3": stood(0.58), "p@0.9": stood(0.05)}
    assert decided(found, [gate("max_drop", 0.05)], RATIOS) == {"p@0.9"}
    assert decided(found, [gate("min", 0.5)], RATIOS) == {"p@0.9"}


def test_a_clear_pass_is_decided() -> None:
    found = {"dense": stood(0.6), "p@0.3": stood(0.99), "p@0.9": stood(0.5)}
    assert decided(found, [gate("min", 0.5)], RATIOS) == {"p@0.3"}
    same = {"dense": stood(0.6, 400), "p@0.3": stood(0.6, 400), "p@0.9": np.roll(stood(0.6, 400), 1)}
    assert decided(same, [gate("max_drop", 0.05)], RATIOS) == {"p@0.3"}


def test_everybody_stops_once_every_variant_is_decided() -> None:
    found = {"dense": stood(0.6), "previous": stood(0.6), "p@0.3": stood(0.01), "p@0.9": stood(0.05)}
    assert decided(found, [gate("max_drop", 0.05)], RATIOS) == set(found)


def test_all_gates_of_a_variant_have_to_be_decided() -> None:
    found = {"dense": stood(0.6), "p@0.3": stood(0.58), "p@0.9": stood(0.2)}
    both = [gate("min", 0.5), gate("min", 0.25)]
    assert decided(found, both[:1], RATIOS) == {"p@0.9"}
    assert decided(found, both, RATIOS) == set()


def test_a_variant_that_nothing_gates_goes_on_with_the_others() -> None:
    found = {"dense": stood(0.6), "p@0.3": stood(0.52), "p@0.9": stood(0.05)}
    assert decided(found, [gate("min", 0.5, up_to=0.5)], RATIOS) == set()
    assert decided(found | {"p@0.3": stood(0.0)}, [gate("min", 0.5, up_to=0.5)], RATIOS) == set(found)


def test_without_gates_nothing_is_ever_decided() -> None:
    assert decided({"dense": stood(0.6), "p@0.9": stood(0.0)}, [], RATIOS) == set()


def test_a_gate_that_these_outcomes_do_not_decide_keeps_its_variants_going() -> None:
    other = Metric("attack_success_rate", False, CLASSIFICATION, "class")
    found = {"dense": stood(0.6), "p@0.3": stood(0.0), "p@0.9": stood(0.0)}
    assert decided(found, [gate("min", 0.5), gate("min", 0.5, up_to=0.5, metric=other)], RATIOS) == {"p@0.9"}


def test_no_examples_and_a_missing_comparator_decide_nothing() -> None:
    nothing = {"dense": stood(0.6, 0), "p@0.9": stood(0.0, 0)}
    assert decided(nothing, [gate("min", 0.5), gate("max_drop", 0.1)], RATIOS) == set()
    assert decided({"p@0.9": stood(0.0)}, [gate("max_drop", 0.1)], RATIOS) == set()
    behind = {"dense": stood(1.0, 50), "p@0.9": stood(0.0)}
    assert decided(behind, [gate("max_drop", 0.1)], RATIOS) == set()


def test_the_comparator_may_have_gone_on_for_longer() -> None:
    found = {"dense": stood(0.6, 400), "p@0.3": stood(0.58, 400), "p@0.9": stood(0.05, 50)}
    assert "p@0.9" in decided(found, [gate("max_drop", 0.05)], RATIOS)


def test_a_failure_outlasts_the_correction_for_all_attacks_of_its_family() -> None:
    hits = next(
        stood(share, 50) for share in np.arange(0.5, 0.0, -0.01) if mean_bounds(stood(share, 50), 0.95).upper < 0.5
    )
    found = {"dense": stood(1.0, 50), "p@0.9": hits}
    assert decided(found, [gate("min", 0.5)], RATIOS) == set(found)
    assert decided(found, [gate("min", 0.5)], RATIOS, members=20) == set()
    with pytest.raises(ValueError, match="at least 1"):
        decided(found, [gate("min", 0.5)], RATIOS, members=0)


@pytest.mark.parametrize("share", [0.3, 0.45, 0.5, 0.55, 0.6, 0.8])
def test_what_is_decided_is_what_the_gate_then_says(share: float) -> None:
    hits = np.random.default_rng(int(share * 100)).random(200) < share
    row = gates.from_test("robust_accuracy", "p@0.9", True, "min", 0.5, Sequential(np.arange(200), hits), 200, 0.95)
    clear = "p@0.9" in decided({"dense": stood(1.0, 200), "p@0.9": hits}, [gate("min", 0.5)], RATIOS)
    assert clear == (row.verdict in (Verdict.PASS, Verdict.FAIL))


def test_stopping_after_the_block_that_decides_is_wrong_no_more_often_than_stated() -> None:
    """At the limit itself every decision is wrong: at most one in 20 a side, with room for chance."""
    generator = np.random.default_rng(6)
    wrong = 0
    for _ in range(150):
        dense, variant = generator.random(400) < 0.8, generator.random(400) < 0.7
        for n in np.cumsum(blocks(400)):
            found = {"dense": dense[:n], "p@0.9": variant[:n]}
            if decided(found, [gate("max_drop", 0.1)], RATIOS):
                wrong += 1
                break
    assert wrong <= 150 * 0.1 + 2 * (150 * 0.1 * 0.9) ** 0.5
