"""Resampling: how often kinds of examples occur, and what it must not touch."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pruneproof import registry
from pruneproof.corruptions import EVERY, Resampling
from pruneproof.domain import Box, Column, Table
from pruneproof.errors import SubjectError
from pruneproof.shift.draws import Draws
from pruneproof.shift.ground import Ground

N = 8000
X = torch.arange(N, dtype=torch.float64)[:, None] / N
"""Uniform in [0, 1)."""
BANDS = pd.DataFrame({"band": ["low", "low", "low", ">80k"] * (N // 4)})
TARGETS = (torch.arange(N) % 10 == 0).long()
TABLE = Table([Column("x"), Column("y")])


def member(name: str) -> Resampling:
    found: Resampling = registry.member("pruneproof.corruptions", name).CORRUPTION
    return found


def kept(
    name: str,
    severity: float,
    x: torch.Tensor = X,
    targets: torch.Tensor = TARGETS,
    segments: pd.DataFrame = BANDS,
    seed: int = 0,
    **keys: Any,
) -> torch.Tensor:
    one = member(name)
    rows = x.repeat(1, 2)
    ground = Ground("table", (2,), x.dtype, TABLE, rows, rows)
    options = one.options(**keys)
    assert one.refuses(ground, options) is None
    draws = Draws(seed, name, range(len(x)))
    found = one.kept(rows, targets, segments, ground, severity, draws, options)
    assert found.shape == (len(x),)
    assert found.dtype == torch.bool
    return found


@pytest.mark.parametrize(("severity", "t"), [(1, 0.5), (3, 2.0), (4.5, 4.0), (5, 5.0)])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_tilted_uniform_column_has_the_mean_and_the_share_of_the_truncated_exponential(
    severity: float, t: float, direction: str
) -> None:
    found = kept("covariate_tilt", severity, column="x", direction=direction)
    mean = 1 / (1 - math.exp(-t)) - 1 / t
    share = (1 - math.exp(-t)) / t
    wanted = mean if direction == "up" else 1 - mean
    assert float(X[found].mean()) == pytest.approx(wanted, abs=0.015)
    assert float(found.double().mean()) == pytest.approx(share, abs=0.015)


def test_the_tilt_goes_by_ranks_so_the_columns_scale_does_not_matter() -> None:
    assert torch.equal(
        kept("covariate_tilt", 3, column="x"), kept("covariate_tilt", 3, x=(9 * X).exp() - 4, column="x")
    )


def test_values_that_tie_have_the_same_chance_and_a_missing_one_that_of_the_median() -> None:
    x = torch.cat([torch.zeros(N // 2), torch.ones(N // 2)]).double()[:, None]
    found = kept("covariate_tilt", 5, x=x, column="y")
    # Ranks 1/4 and 3/4.
    assert float(found[: N // 2].double().mean()) == pytest.approx(math.exp(-5 * 0.75), abs=0.01)
    assert float(found[N // 2 :].double().mean()) == pytest.approx(math.exp(-5 * 0.25), abs=0.02)
    missing = kept("covariate_tilt", 5, x=torch.full_like(x, math.nan), column="y")
    assert float(missing.double().mean()) == pytest.approx(math.exp(-2.5), abs=0.015)


@pytest.mark.parametrize(("direction", "odds"), [("up", 3.0), ("down", 1 / 3)])
def test_the_odds_of_a_segment_are_multiplied_and_one_kind_is_kept_whole(direction: str, odds: float) -> None:
    found = kept("covariate_tilt", 3, segment="band", value=">80k", direction=direction)
    inside = torch.tensor((BANDS["band"] == ">80k").to_numpy())
    prior = 0.25 * odds / (0.25 * odds + 0.75)
    assert float(inside[found].double().mean()) == pytest.approx(prior, abs=0.015)
    assert bool(found[inside if odds > 1 else ~inside].all())


@pytest.mark.parametrize(("severity", "factor"), [(1, 1.5), (2.5, 2.5), (5, 10.0)])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_label_shift_gives_the_reweighted_prior(severity: float, factor: float, direction: str) -> None:
    odds = factor if direction == "up" else 1 / factor
    found = kept("label_shift", severity, direction=direction)
    prior = 0.1 * odds / (0.1 * odds + 0.9)
    assert float(TARGETS[found].double().mean()) == pytest.approx(prior, abs=0.02)


def test_label_shift_changes_nothing_within_a_class() -> None:
    found = kept("label_shift", 5)
    for target in (0, 1):
        mine = X[(target == TARGETS) & found]
        assert float(mine.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / len(mine)))


def test_any_of_several_classes_can_be_named_and_must_be() -> None:
    classes = torch.arange(N) % 4
    found = kept("label_shift", 4, targets=classes, target=2)
    assert float((classes[found] == 2).double().mean()) == pytest.approx(5 / 8, abs=0.02)
    with pytest.raises(SubjectError, match="more than two classes"):
        kept("label_shift", 4, targets=classes)
    with pytest.raises(SubjectError, match="no test example is of class 7"):
        kept("label_shift", 4, targets=classes, target=7)
    with pytest.raises(SubjectError, match="targets are no classes"):
        kept("label_shift", 4, targets=X[:, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.01, 1.0, 3.3, 5.0]))
def test_severity_0_keeps_all_and_what_is_kept_at_a_severity_was_kept_at_every_lower_one(
    seed: int, severity: float
) -> None:
    few: dict[str, Any] = {"x": X[:100], "targets": TARGETS[:100], "segments": BANDS[:100], "seed": seed}
    for name, keys in (
        ("covariate_tilt", {"column": "x"}),
        ("covariate_tilt", {"column": "x", "direction": "down"}),
        ("covariate_tilt", {"segment": "band", "value": "low"}),
        ("label_shift", {"target": 0}),
    ):
        assert bool(kept(name, 0.0, **few, **keys).all())
        harder, softer = kept(name, severity, **few, **keys), kept(name, severity / 2, **few, **keys)
        assert bool((~harder | softer).all())


def test_unknown_columns_segments_and_values_are_refused_with_the_nearest() -> None:
    tilt = member("covariate_tilt")
    ground = Ground("table", (2,), X.dtype, TABLE, X.repeat(1, 2))
    assert "known: x, y" in str(tilt.refuses(ground, tilt.options(column="amount")))
    image = Ground("image", (1, 2, 2), torch.float32, Box(0, 1), torch.zeros(1, 1, 2, 2))
    assert "only a table has columns" in str(tilt.refuses(image, tilt.options(column="x")))
    with pytest.raises(SubjectError, match="did you mean 'band'"):
        kept("covariate_tilt", 1, segment="bands", value="low")
    with pytest.raises(SubjectError, match="did you mean '>80k'"):
        kept("covariate_tilt", 1, segment="band", value="80k")
    label = member("label_shift")
    assert "no class 'fraud'" in str(label.refuses(ground, label.options(target="fraud")))


@pytest.mark.parametrize("keys", [{}, {"column": "x", "segment": "band"}, {"segment": "band"}, {"value": "low"}])
def test_what_gets_more_frequent_is_a_column_or_a_segments_value(keys: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="'segment' and 'value'"):
        member("covariate_tilt").options(**keys)


def test_resampling_is_for_any_kind_of_input_and_needs_the_inputs_of_tables_alone() -> None:
    for name in ("covariate_tilt", "label_shift"):
        assert member(name).kinds == EVERY
    tilt, image = member("covariate_tilt"), Ground("image", (1, 2, 2), X.dtype, Box(0, 1), torch.zeros(1, 1, 2, 2))
    options = tilt.options(segment="band", value="low")
    assert bool(tilt.kept(None, TARGETS, BANDS, image, 5, Draws(0, "t", range(N)), options).any())
