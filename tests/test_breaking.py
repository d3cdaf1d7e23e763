"""The smallest breaking shift, on models whose accuracy is a known function of severity."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pruneproof.shift.breaking import absolute, breaking, under

N = 400
ONCE = np.ones(N, dtype=np.int64)
RANKS = (np.arange(N) + 0.5) / N
Model = Callable[[float], NDArray[np.bool_]]


def falling(accuracy: Callable[[float], float], asked: list[float] | None = None) -> Model:
    """A model that is right on the first examples, on a share ``accuracy(severity)`` of all."""

    def hits(severity: float) -> NDArray[np.bool_]:
        if asked is not None:
            asked.append(severity)
        return np.asarray(accuracy(severity) > RANKS)

    return hits


@settings(deadline=None, max_examples=80)
@given(st.floats(0.01, 4.99), st.sampled_from([1 / 4, 1 / 16, 1 / 64]))
def test_a_model_that_breaks_at_a_known_severity_is_bracketed_to_the_resolution(edge: float, resolution: float) -> None:
    found = breaking(falling(lambda severity: 0.9 if severity < edge else 0.5), absolute(0.8), resolution)
    assert found.bracket is not None
    low, high = found.bracket
    assert low < edge <= high
    assert high - low <= resolution * (1 + 1e-9)
    assert low <= found.severity(ONCE) <= high
    assert not found.censored


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 0.17))
def test_where_accuracy_falls_in_a_straight_line_the_answer_is_where_the_line_crosses(slope: float) -> None:
    found = breaking(falling(lambda severity: 0.95 - slope * severity), absolute(0.8))
    assert found.severity(ONCE) == pytest.approx(0.15 / slope, abs=2 / N / slope)


def test_a_severity_is_asked_for_once_and_four_halvings_reach_a_sixteenth() -> None:
    asked: list[float] = []
    breaking(falling(lambda severity: 0.9 if severity < 2.3 else 0.5, asked), absolute(0.8))
    assert asked[:6] == [0, 1, 2, 3, 4, 5]
    assert asked[6:] == [2.5, 2.25, 2.375, 2.3125]


def test_every_point_that_was_looked_at_is_kept_in_order() -> None:
    found = breaking(falling(lambda severity: 0.9 if severity < 2.3 else 0.5), absolute(0.8))
    assert [point.severity for point in found.points] == [0, 1, 2, 2.25, 2.3125, 2.375, 2.5, 3, 4, 5]
    assert found.says() == "2.3125"


def test_accuracy_at_the_limit_is_not_under_it() -> None:
    found = breaking(falling(lambda severity: 0.8), absolute(0.8))
    assert found.censored
    reference = RANKS < 0.9
    assert breaking(falling(lambda severity: 0.8), under(reference, 0.1)).censored


def test_what_never_breaks_is_censored_and_says_so() -> None:
    found = breaking(falling(lambda severity: 0.9), absolute(0.8))
    assert found.censored
    assert found.bracket is None
    assert found.severity(ONCE) == 5
    assert found.says().startswith("5+")


def test_what_is_broken_without_any_shift_breaks_at_0() -> None:
    found = breaking(falling(lambda severity: 0.7), absolute(0.8))
    assert found.bracket == (0, 0)
    assert found.severity(ONCE) == 0
    assert not found.censored
    assert found.says() == "0 (broken without shift)"


def test_where_accuracy_recovers_the_first_fall_counts() -> None:
    found = breaking(falling(lambda severity: 0.5 if 1.4 < severity < 2.6 else 0.9), absolute(0.8))
    assert found.bracket is not None
    assert found.bracket[1] == pytest.approx(1.4, abs=1 / 16)


def test_a_drop_is_measured_from_the_reference_on_the_same_resample() -> None:
    reference = RANKS < 0.9
    found = breaking(falling(lambda severity: 0.9 - 0.1 * severity), under(reference, 0.1))
    assert found.severity(ONCE) == pytest.approx(1.0, abs=0.05)
    # Of the harder half the reference gets 0.8 right and the model 0.8 - 0.2 · severity.
    assert found.severity((RANKS > 0.5).astype(np.int64)) == pytest.approx(0.5, abs=0.05)
    easy = np.where(RANKS < 0.4, 2, 0)  # examples that nobody gets wrong before severity 5
    assert found.severity(easy) == 5


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31))
def test_weights_mean_examples_drawn_so_many_times(seed: int) -> None:
    generator = np.random.default_rng(seed)
    edges = generator.uniform(0, 6, N)  # each example is right up to a severity of its own
    found = breaking(lambda severity: severity < edges, absolute(0.6))
    under_weights = np.bincount(generator.integers(N, size=N), minlength=N)
    severities = [point.severity for point in found.points]
    copies = np.repeat(edges, under_weights)
    line = np.linspace(0, 5, 100_001)
    broken = np.interp(line, severities, [np.mean(severity < copies) for severity in severities]) < 0.6
    assert found.severity(under_weights) == pytest.approx(line[np.argmax(broken)], abs=1e-4)


def test_without_any_example_drawn_there_is_no_answer() -> None:
    found = breaking(falling(lambda severity: 0.9 - 0.1 * severity), absolute(0.8))
    assert math.isnan(found.severity(np.zeros(N, dtype=np.int64)))


def test_a_resolution_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="resolution"):
        breaking(falling(lambda severity: 0.5), absolute(0.8), 0.0)
