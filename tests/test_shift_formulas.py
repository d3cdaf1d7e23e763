"""Published numbers under shift, against their authors' formulas on tables made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from builders import examples, predictions, random_multiclass, weights
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LinearRegression

from pruneproof import metrics
from pruneproof.shift import calibration, formulas
from pruneproof.shift.formulas import Errors

unhurried = settings(deadline=None, max_examples=60)
N = 1000
ONCE = np.ones(N, dtype=np.int64)


def cells(*rates: float, n: int = N) -> Errors:
    """One model's errors at these rates, a cell each: the first examples are wrong."""
    return Errors(np.stack([np.arange(n) < round(rate * n) for rate in rates]))


def drawn(seed: int, count: int, n: int, rate: float = 0.4) -> Errors:
    return Errors(np.random.default_rng(seed).random((count, n)) < rate)


def repeated(errors: Errors, weights: NDArray[np.int64]) -> Errors:
    """What weights mean: each example as often as it was drawn."""
    counted = None if errors.counted is None else np.repeat(errors.counted, weights, axis=1)
    return Errors(np.repeat(errors.wrong, weights, axis=1), counted)


# Corruption error

VARIANT = [[0.2, 0.3, 0.4, 0.5, 0.6], [0.1, 0.1, 0.2, 0.2, 0.4]]
DENSE = [[0.1, 0.2, 0.2, 0.3, 0.2], [0.1, 0.2, 0.3, 0.5, 0.9]]


def test_ce_is_the_sum_of_errors_over_severities_divided_by_the_dense_models() -> None:
    # 2.0 / 1.0 and 1.0 / 2.0, by hand
    assert formulas.corruption_error(cells(*VARIANT[0]), cells(*DENSE[0]))(ONCE) == pytest.approx(2.0)
    assert formulas.corruption_error(cells(*VARIANT[1]), cells(*DENSE[1]))(ONCE) == pytest.approx(0.5)


def test_mce_is_the_mean_of_ces_not_the_ratio_of_mean_errors() -> None:
    found = formulas.mce([cells(*one) for one in VARIANT], [cells(*one) for one in DENSE])(ONCE)
    assert found == pytest.approx((2.0 + 0.5) / 2)  # the ratio of the sums would be 1


def test_mce_is_what_robustbench_computes_with_the_dense_model_for_alexnet() -> None:
    accuracy, reference = 1 - np.array(VARIANT), 1 - np.array(DENSE)
    theirs = np.mean((1 - accuracy).mean(axis=1) / (1 - reference).mean(axis=1))
    ours = formulas.mce([cells(*one) for one in VARIANT], [cells(*one) for one in DENSE])(ONCE)
    assert ours == pytest.approx(theirs)


def test_relative_ce_sets_how_much_worse_the_variant_gets_against_how_much_worse_dense_gets() -> None:
    # Σ (E - E_clean): (2.0 - 5·0.15) / (1.0 - 5·0.1), by hand
    found = formulas.relative_ce(cells(*VARIANT[0]), cells(*DENSE[0]), cells(0.15), cells(0.1))
    assert found(ONCE) == pytest.approx(1.25 / 0.5)


def test_relative_mce_is_the_mean_of_relative_ces() -> None:
    variant, dense = ([cells(*one) for one in table] for table in (VARIANT, DENSE))
    # 1.25 / 0.5 and (1.0 - 0.75) / (2.0 - 0.5), by hand
    assert formulas.relative_mce(variant, dense, cells(0.15), cells(0.1))(ONCE) == pytest.approx((2.5 + 1 / 6) / 2)


def test_the_dense_model_has_a_ce_and_a_relative_ce_of_1() -> None:
    one, clean = cells(*DENSE[0]), cells(0.1)
    assert formulas.corruption_error(one, one)(ONCE) == 1
    assert formulas.relative_ce(one, one, clean, clean)(ONCE) == 1


def test_a_dense_model_without_errors_leaves_ce_undefined_and_says_so() -> None:
    none = cells(0.0, 0.0)
    assert math.isnan(formulas.corruption_error(cells(0.1, 0.2), none)(ONCE))
    assert math.isnan(formulas.mce([cells(0.1, 0.2), cells(0.2, 0.2)], [cells(0.1, 0.2), none])(ONCE))
    assert "no error" in str(formulas.corruption_error_undefined(none, ONCE))
    assert formulas.corruption_error_undefined(cells(0.1), ONCE) is None


@pytest.mark.parametrize("rates", [(0.1, 0.1, 0.1), (0.05, 0.1, 0.1)])
def test_a_corruption_that_does_not_hurt_dense_leaves_relative_ce_undefined_and_says_so(rates: Sequence[float]) -> None:
    dense = cells(*rates)
    assert math.isnan(formulas.relative_ce(cells(0.3, 0.3, 0.3), dense, cells(0.1), cells(0.1))(ONCE))
    assert "does not make the dense model worse" in str(formulas.relative_ce_undefined(dense, cells(0.1), ONCE))
    assert formulas.relative_ce_undefined(cells(0.2), cells(0.1), ONCE) is None


# Excess error


def test_excess_error_is_what_the_shift_costs_the_variant_beyond_what_it_costs_dense() -> None:
    # (0.40 - 0.12) - (0.25 - 0.10), by hand; the cells' mean is 0.4 and 0.25
    found = formulas.excess_error(cells(0.3, 0.5), cells(0.2, 0.3), cells(0.12), cells(0.1))(ONCE)
    assert found == pytest.approx(0.13)


@unhurried
@given(st.integers(0, 2**31), st.integers(1, 7), st.booleans())
def test_a_corruption_that_changes_nothing_has_an_excess_error_of_exactly_0(seed: int, count: int, part: bool) -> None:
    n = 61
    clean = [drawn(seed + model, 1, n) for model in range(2)]
    counted = np.ones((count, n), dtype=np.bool_) if part else None
    same = [Errors(np.repeat(one.wrong, count, axis=0), counted) for one in clean]
    under = weights(np.random.default_rng(seed), n)
    assert formulas.excess_error(*same, *clean)(under) == 0
    assert formulas.effective_robustness(*same, *clean)(under) == 0


@unhurried
@given(st.integers(0, 2**31))
def test_the_dense_model_has_no_excess_error_and_no_effective_robustness_under_any_shift(seed: int) -> None:
    shifted, clean, under = drawn(seed, 3, 47), drawn(seed + 1, 1, 47), weights(np.random.default_rng(seed), 47)
    assert formulas.excess_error(shifted, shifted, clean, clean)(under) == 0
    assert formulas.effective_robustness(shifted, shifted, clean, clean)(under) == 0


@unhurried
@given(st.integers(0, 2**31))
def test_the_slope_is_that_of_a_regression_without_intercept(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ratios, values = generator.uniform(0.05, 0.99, 6), generator.normal(size=6)
    ours = formulas.excess_slope(list(ratios), [lambda _, value=value: float(value) for value in values])(ONCE)
    theirs = LinearRegression(fit_intercept=False).fit(ratios[:, None], values).coef_[0]
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("ratios", [[], [0.0], [0.5, 1.5]])
def test_a_slope_needs_ratios_above_0(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="ratios"):
        formulas.excess_slope(ratios, [lambda _: 0.0] * len(ratios))


# Prune potential


def published(ratios: Sequence[float], errors: Sequence[float], dense: float, delta: float) -> float:
    """``1 - min({1} ∪ {s : e(s) <= e_dense + δ})`` over keep ratios s, as the paper writes it, in whole thousandths."""
    whole = [round(1e3 * value) for value in errors]
    keep = [1 - ratio for ratio, e in zip(ratios, whole, strict=True) if e <= round(1e3 * dense) + round(1e3 * delta)]
    return 1 - min([1.0, *keep])


RATIOS = [0.3, 0.5, 0.7, 0.9]
THOUSANDTHS = st.lists(st.integers(80, 140), min_size=4, max_size=4).map(lambda whole: [e / 1000 for e in whole])


@unhurried
@given(THOUSANDTHS, st.integers(80, 120), st.permutations(range(4)))
def test_prune_potential_is_the_published_formula(errors: list[float], dense: int, order: list[int]) -> None:
    wanted = published(RATIOS, errors, dense / 1000, 0.005)
    ours = formulas.prune_potential([RATIOS[i] for i in order], [errors[i] for i in order], dense / 1000)
    assert ours == pytest.approx(wanted)


def test_the_published_potential_looks_past_a_failure_and_the_unbroken_one_does_not() -> None:
    errors = [0.10, 0.12, 0.10, 0.30]
    assert formulas.prune_potential(RATIOS, errors, 0.1) == 0.7
    assert formulas.unbroken_potential(RATIOS, errors, 0.1) == 0.3


@unhurried
@given(THOUSANDTHS)
def test_the_unbroken_potential_is_found_by_walking_up_until_the_first_failure(errors: list[float]) -> None:
    walked = 0.0
    for ratio, error in zip(RATIOS, errors, strict=True):
        if round(error * 1000) > 105:
            break
        walked = ratio
    assert formulas.unbroken_potential(RATIOS[::-1], errors[::-1], 0.1) == walked


@pytest.mark.parametrize("dense", [k / 1000 for k in range(0, 995, 5)])
def test_an_error_exactly_delta_above_dense_qualifies_whatever_floats_make_of_the_sum(dense: float) -> None:
    assert formulas.prune_potential([0.5], [round(dense * 1000 + 5) / 1000], dense) == 0.5
    assert formulas.prune_potential([0.5], [round(dense * 1000 + 6) / 1000], dense) == 0.0


def test_where_nothing_qualifies_or_was_measured_the_potential_is_0_and_without_a_dense_error_undefined() -> None:
    for formula in (formulas.prune_potential, formulas.unbroken_potential):
        assert formula(RATIOS, [0.9] * 4, 0.1) == 0
        assert formula(RATIOS, [math.nan] * 4, 0.1) == 0
        assert formula([], [], 0.1) == 0
        assert math.isnan(formula(RATIOS, [0.1] * 4, math.nan))


def test_a_potential_under_weights_is_that_of_the_drawn_examples() -> None:
    variants = [cells(0.100), cells(0.106)]
    found = formulas.potential(formulas.prune_potential, [0.5, 0.8], variants, cells(0.1))
    assert found(ONCE) == 0.5  # 0.106 > 0.105
    without = ONCE.copy()
    without[100:106] = 0  # where the second variant alone is wrong
    assert found(without) == 0.8


# Effective robustness


def test_effective_robustness_is_measured_from_a_line_of_slope_1_in_log_odds() -> None:
    variant, dense, variant_clean, dense_clean = cells(0.40), cells(0.25), cells(0.15), cells(0.10)
    line = expit(logit(0.85) + logit(0.75) - logit(0.90))
    found = formulas.effective_robustness(variant, dense, variant_clean, dense_clean)(ONCE)
    assert found == pytest.approx(0.60 - line, abs=1e-12)


@pytest.mark.parametrize(("shifted", "clean"), [(0.0, 0.1), (1.0, 0.1), (0.2, 0.0), (0.2, 1.0)])
def test_accuracies_of_0_and_1_are_taken_as_half_an_example_off(shifted: float, clean: float) -> None:
    def inside(accuracy: float) -> float:
        return float(np.clip(accuracy, 0.5 / N, 1 - 0.5 / N))

    line = expit(logit(0.85) + logit(inside(1 - shifted)) - logit(inside(1 - clean)))
    found = formulas.effective_robustness(cells(0.4), cells(shifted), cells(0.15), cells(clean))(ONCE)
    assert found == pytest.approx(0.6 - line, abs=1e-12)


# Weights, and cells that hold some of the examples


def every(variant: Errors, dense: Errors, variant_clean: Errors, dense_clean: Errors) -> dict[str, Any]:
    four = (variant, dense, variant_clean, dense_clean)
    return {
        "ce": formulas.corruption_error(variant, dense),
        "relative": formulas.relative_ce(*four),
        "excess": formulas.excess_error(*four),
        "robustness": formulas.effective_robustness(*four),
        "potential": formulas.potential(formulas.prune_potential, [0.5], [variant], dense),
    }


@unhurried
@given(st.integers(0, 2**31), st.booleans())
def test_integer_weights_mean_examples_drawn_so_many_times(seed: int, part: bool) -> None:
    generator, n = np.random.default_rng(seed), 53
    counted = generator.random((4, n)) < 0.7 if part else None
    four = [Errors(drawn(seed + k, 4, n, 0.3 + 0.1 * k).wrong, counted) for k in (1, 0)]
    four += [drawn(seed + k, 1, n, 0.2) for k in (2, 3)]
    under = np.bincount(generator.integers(n, size=n), minlength=n)
    once = np.ones(int(under.sum()), dtype=np.int64)
    ours, wanted = every(*four), every(*(repeated(one, under) for one in four))
    for name, weighted in ours.items():
        assert weighted(under) == pytest.approx(wanted[name](once), nan_ok=True, abs=1e-12), name


@unhurried
@given(st.integers(0, 2**31))
def test_a_cell_that_holds_some_examples_has_the_error_rate_of_those(seed: int) -> None:
    generator = np.random.default_rng(seed)
    wrong, counted = generator.random((3, 40)) < 0.5, generator.random((3, 40)) < 0.6
    assume(counted.any(axis=1).all())
    rates = [wrong[k][counted[k]].mean() for k in range(3)]
    ones = np.ones(40, dtype=np.int64)
    assert Errors(wrong, counted).total(ones) == pytest.approx(sum(rates))
    assert Errors(wrong, counted).rate(ones) == pytest.approx(np.mean(rates))


def test_a_cell_without_examples_makes_every_number_undefined() -> None:
    hollow = Errors(np.ones((2, 5)), np.array([[True] * 5, [False] * 5]))
    clean, ones = Errors(np.zeros((1, 5))), np.ones(5, dtype=np.int64)
    for name, weighted in every(hollow, hollow, clean, clean).items():
        assert math.isnan(weighted(ones)), name
    assert "no examples" in str(formulas.corruption_error_undefined(hollow, ones))
    assert "no examples" in str(formulas.relative_ce_undefined(hollow, clean, ones))


def test_models_seen_on_different_cells_are_not_compared() -> None:
    for compared in (formulas.corruption_error, formulas.mce):
        with pytest.raises(ValueError):
            compared(cells(0.1, 0.2), cells(0.1)) if compared is formulas.corruption_error else compared([], [])


# Calibration


@pytest.mark.parametrize("seed", range(5))
def test_ece_and_brier_from_what_is_kept_are_those_of_the_whole_answers(seed: int) -> None:
    on, said, under = random_multiclass(seed)
    confidence = said.probabilities.max(axis=1)
    right = said.probabilities.argmax(axis=1) == on.targets
    losses = calibration.brier_losses(said.probabilities, on.targets)
    rows = np.arange(on.facts.n)
    for name, ours in (("ece", calibration.ece(confidence, right)), ("brier", calibration.brier(losses))):
        theirs: Any = metrics.on_rows(name, on, said, said, rows)
        assert ours(np.ones_like(under)) == pytest.approx(theirs.value, abs=1e-12)
        assert ours(under) == pytest.approx(theirs.weighted(under), abs=1e-12)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_it() -> None:
    # Two bins: {0.4 right, 0.5 wrong} | {}, so |0.6 - 0.5| / 2, by hand
    found = calibration.ece(np.array([0.4, 0.5]), np.array([True, False]), bins=2)
    assert found(np.array([1, 1])) == pytest.approx(0.05)


@pytest.mark.parametrize("seed", range(5))
def test_adaptive_ece_has_the_bins_of_scikit_learns_quantile_strategy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    confidence = generator.permutation(np.linspace(0.34, 0.99, 300))  # distinct, in 15 bins of 20
    right = generator.random(300) < confidence**2
    true, said = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    found = calibration.adaptive_ece(confidence, right)(np.ones(300, dtype=np.int64))
    assert found == pytest.approx(np.abs(true - said).mean(), abs=1e-12)


def by_rank(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int) -> float:
    """Each example as 15 fifteenths, sorted; ties take their group's mean accuracy: equal bins of them by counting."""
    means = {value: right[confidence == value].mean() for value in np.unique(confidence)}
    order = np.repeat(np.sort(confidence), bins)
    gaps = np.array([means[value] - value for value in order]).reshape(bins, -1)
    return float(np.abs(gaps.mean(axis=1)).mean())


@unhurried
@given(st.integers(0, 2**31), st.integers(1, 2))
def test_adaptive_ece_shares_ties_between_bins_and_means_weights_as_repetitions(seed: int, digits: int) -> None:
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.2, 1, 37).round(digits)
    right = generator.random(37) < 0.6
    under = np.bincount(generator.integers(37, size=37), minlength=37)
    ours = calibration.adaptive_ece(confidence, right, 5)
    assert ours(np.ones(37, dtype=np.int64)) == pytest.approx(by_rank(confidence, right, 5), abs=1e-12)
    again = by_rank(np.repeat(confidence, under), np.repeat(right, under), 5)
    assert ours(under) == pytest.approx(again, abs=1e-12)
    shuffled = generator.permutation(37)
    mixed = calibration.adaptive_ece(confidence[shuffled], right[shuffled], 5)
    assert mixed(under[shuffled]) == pytest.approx(ours(under), abs=1e-12)


@unhurried
@given(arrays(np.bool_, 30))
def test_a_model_that_is_as_often_right_as_it_is_sure_is_calibrated(right: NDArray[np.bool_]) -> None:
    sure = np.full(30, right.mean())
    ones = np.ones(30, dtype=np.int64)
    assert calibration.adaptive_ece(sure, right)(ones) == pytest.approx(0, abs=1e-12)
    assert calibration.ece(sure, right)(ones) == pytest.approx(0, abs=1e-12)


def test_calibration_of_no_example_is_undefined() -> None:
    none = np.zeros(3, dtype=np.int64)
    confidence, right = np.array([0.5, 0.6, 0.7]), np.array([True, False, True])
    for weighted in (calibration.ece(confidence, right), calibration.adaptive_ece(confidence, right)):
        assert math.isnan(weighted(none))
    assert math.isnan(calibration.brier(confidence)(none))


def test_brier_losses_of_two_classes_are_the_squared_error_of_the_positive_one() -> None:
    on = examples([1, 0, 1])
    said = predictions([2.0, -1.0, 0.3], on)
    wanted = (expit(np.float32([2.0, -1.0, 0.3]).astype(float)) - on.targets) ** 2
    assert calibration.brier_losses(said.probabilities, on.targets) == pytest.approx(wanted)
