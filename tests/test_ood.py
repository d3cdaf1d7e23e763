"""Detectors of the unknown against reference implementations, and the features that they look at."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score, roc_curve

from pruneproof.errors import MeasurementError
from pruneproof.shift import detectors, features

unhurried = settings(deadline=None, max_examples=60)


def table(rows: int, columns: int, a: int, b: int) -> NDArray[np.float64]:
    """Numbers in [-5, 5] with one decimal, the same everywhere."""
    return ((np.arange(rows * columns) * a + b) % 101 / 10.0 - 5).reshape(rows, columns)


# Scores

# Made with pytorch-ood 0.4.0 and torch 2.14.1. EnergyBased, MaxLogit and MaxSoftmax, each built with None:
# predict_logits(table(8, 3, 29, 7)). Mahalanobis(None) and KNN(None, k=5): fit_features(table(60, 4, 37, 5), i % 3),
# predict_features(table(8, 4, 53, 11) * 1.5); Mahalanobis times 2 · 60, since theirs halves the square and does not
# divide the covariance by n.
ENERGY = [
    -1.556428323590595, -4.414213650591288, -3.0142136505912878, -4.554270174651009,
    -3.1542701746510087, -4.656428323590594, -3.2564283235905944, -1.8564283235905947,
]  # fmt: skip
MAX_LOGIT = [-1.5, -4.4, -3.0, -4.5, -3.1, -4.6, -3.2, -1.8]
MSP = [
    -0.9451342258951057, -0.9858868864438479, -0.9858868864438479, -0.9471761689385476,
    -0.9471761689385474, -0.9451342258951057, -0.9451342258951057, -0.9451342258951057,
]  # fmt: skip
MAHALANOBIS = [
    10.427305221557617, 8.441293716430664, 10.95406436920166, 20.01015853881836,
    18.533252716064453, 8.585375785827637, 4.969690322875977, 7.8973283767700195,
]  # fmt: skip
KNN = [
    0.66920815781967, 0.7243086540666179, 0.6666641145839256, 0.6495491051077696,
    0.8950758848025417, 0.6938093967833595, 0.51097049670764, 0.6529578359682866,
]  # fmt: skip


def test_scores_are_those_of_pytorch_ood() -> None:
    logits, known, new = table(8, 3, 29, 7), table(60, 4, 37, 5), table(8, 4, 53, 11) * 1.5
    assert detectors.energy(logits) == pytest.approx(ENERGY, abs=1e-12)
    assert detectors.max_logit(logits) == pytest.approx(MAX_LOGIT, abs=1e-12)
    assert detectors.msp(logits) == pytest.approx(MSP, abs=1e-12)
    # The reference adds 1e-6 to the diagonal and computes in float32.
    assert detectors.Mahalanobis(known, np.arange(60) % 3)(new) == pytest.approx(MAHALANOBIS, rel=1e-5)
    assert detectors.Neighbours(known, 5)(new) == pytest.approx(KNN, abs=1e-7)


@unhurried
@given(st.integers(0, 2**31), st.integers(2, 6), st.sampled_from([1.0, 50.0, 800.0]))
def test_scores_of_answers_are_their_formulas_also_for_large_logits(seed: int, classes: int, scale: float) -> None:
    logits = np.random.default_rng(seed).normal(size=(9, classes)) * scale
    assert detectors.msp(logits) == pytest.approx(-softmax(logits, axis=1).max(axis=1))
    assert detectors.energy(logits, 2.0) == pytest.approx(-2 * logsumexp(logits / 2, axis=1))
    assert detectors.max_logit(logits) == pytest.approx(-logits.max(axis=1))


def test_one_logit_is_as_unknown_as_it_is_near_to_zero_whichever_class_it_speaks_for() -> None:
    outputs = np.array([[-6.0], [6.0], [-0.2], [0.2], [0.0]])
    for score in (detectors.msp, detectors.max_logit, detectors.energy):
        found = score(outputs)
        assert found[0] == pytest.approx(found[1])
        assert found[2] == pytest.approx(found[3])
        assert found[0] < found[2] < found[4]


def test_one_logit_gives_the_msp_of_two_logits_with_that_difference() -> None:
    outputs = np.array([[-1.3], [0.4], [5.0]])
    pair = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    assert detectors.msp(outputs) == pytest.approx(detectors.msp(pair))


@pytest.mark.parametrize("seed", range(4))
def test_mahalanobis_is_the_distance_in_the_space_that_whitens_within_class_scatter(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=200)
    known = generator.normal(size=(200, 4)) @ generator.normal(size=(4, 4)) + labels[:, None]
    new = generator.normal(size=(20, 4)) * 3
    fitted = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True).fit(known, labels)
    # scikit-learn weights class covariances by their priors: the pooled one
    wanted = cdist(new, fitted.means_, "mahalanobis", VI=np.linalg.inv(fitted.covariance_)).min(axis=1) ** 2
    assert detectors.Mahalanobis(known, labels)(new) == pytest.approx(wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_unit_that_pruning_killed_plays_no_part_in_mahalanobis(dtype: Any) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=150)
    known = (generator.normal(size=(150, 3)) + labels[:, None]).astype(dtype)
    new = generator.normal(size=(10, 3)).astype(dtype)
    killed = [np.concatenate([rows, np.zeros((len(rows), 2), dtype)], axis=1) for rows in (known, new)]
    twice = [np.concatenate([rows, rows[:, :1] * 3], axis=1) for rows in (known, new)]
    wanted = detectors.Mahalanobis(known, labels)(new)
    assert detectors.Mahalanobis(killed[0], labels)(killed[1]) == pytest.approx(wanted, rel=1e-4)
    assert detectors.Mahalanobis(twice[0], labels)(twice[1]) == pytest.approx(wanted, rel=1e-3)


@unhurried
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_knn_is_the_kth_smallest_distance_between_directions(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    known, new = generator.normal(size=(30, 5)), generator.normal(size=(7, 5))

    def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    wanted = np.sort(cdist(unit(new), unit(known)), axis=1)[:, k - 1]
    assert detectors.Neighbours(known, k)(new * 7) == pytest.approx(wanted, abs=1e-7)


def test_too_few_calibration_examples_are_refused_with_the_number_that_it_takes() -> None:
    with pytest.raises(MeasurementError, match="more than 7 calibration examples"):
        detectors.Mahalanobis(table(7, 4, 37, 5), np.arange(7) % 3)
    with pytest.raises(MeasurementError, match="50-th nearest"):
        detectors.Neighbours(table(49, 4, 37, 5))


def test_features_and_scores_that_are_not_finite_are_refused() -> None:
    bad = table(60, 4, 37, 5)
    bad[3, 2] = math.inf
    for fit in (lambda: detectors.Mahalanobis(bad, np.arange(60) % 3), lambda: detectors.Neighbours(bad, 3)):
        with pytest.raises(MeasurementError, match="finite"):
            fit()
    for metric in (detectors.auroc, detectors.fpr_at_tpr):
        with pytest.raises(MeasurementError, match="1 of 3 scores"):
            metric(np.array([0.1, math.nan, 0.2]), np.array([True, False, True]))


# AUROC and FPR at 95 % TPR


def openood(scores: NDArray[np.float64], outside: NDArray[np.bool_], drop: bool) -> tuple[float, float]:
    """As OpenOOD 1.5 computes both, from scikit-learn's curve with out-of-distribution as the positive class."""
    fpr, tpr, _ = roc_curve(outside, scores, drop_intermediate=drop)
    return float(roc_auc_score(outside, scores)), float(fpr[np.argmax(tpr >= 0.95)])


@unhurried
@given(st.integers(0, 2**31), st.integers(5, 60), st.booleans())
def test_auroc_and_fpr95_are_openoods_where_scores_do_not_tie(seed: int, n: int, separate: bool) -> None:
    generator = np.random.default_rng(seed)
    outside = np.r_[True, False, generator.random(n) < 0.5]
    scores = generator.normal(size=n + 2) + outside * (3.0 if separate else 0.5)
    ones = np.ones(n + 2, dtype=np.int64)
    wanted = openood(scores, outside, drop=True)
    assert detectors.auroc(scores, outside)(ones) == pytest.approx(wanted[0])
    assert detectors.fpr_at_tpr(scores, outside)(ones) == pytest.approx(wanted[1])


@unhurried
@given(st.integers(0, 2**31), st.integers(5, 60))
def test_ties_are_flagged_together_and_weights_mean_repetitions(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    outside = np.r_[True, False, generator.random(n) < 0.5]
    scores = (generator.normal(size=n + 2) + outside).round(1)
    under = np.r_[1, 1, np.bincount(generator.integers(n, size=n), minlength=n)]
    many, whose = np.repeat(scores, under), np.repeat(outside, under)
    wanted = openood(many, whose, drop=False)
    assert detectors.auroc(scores, outside)(under) == pytest.approx(wanted[0])
    assert detectors.fpr_at_tpr(scores, outside)(under) == pytest.approx(wanted[1])


def test_fpr95_is_that_of_pytorch_ood() -> None:
    # OODMetrics of pytorch-ood 0.4.0
    scores, outside = (np.arange(200) * 61 % 199) / 199.0, np.arange(200) % 3 == 0
    scores[outside] += 0.35
    ones = np.ones(200, dtype=np.int64)
    assert detectors.auroc(scores, outside)(ones) == pytest.approx(0.8035012905397823, abs=1e-6)
    assert detectors.fpr_at_tpr(scores, outside)(ones) == pytest.approx(0.6015037593984962)


def test_out_of_distribution_is_the_positive_class_which_fpr95_depends_on() -> None:
    scores = np.r_[np.linspace(0, 1, 100), np.linspace(0.5, 3, 100)]
    outside = np.arange(200) >= 100
    ones = np.ones(200, dtype=np.int64)
    wanted = np.mean(scores[:100] >= np.sort(scores[100:])[5])  # where 95 of the 100 outside lie at and above
    found = detectors.fpr_at_tpr(scores, outside)(ones)
    assert found == pytest.approx(wanted)
    assert detectors.fpr_at_tpr(-scores, ~outside)(ones) != pytest.approx(found)


def test_detection_with_nothing_on_one_side_is_undefined() -> None:
    scores, outside = np.array([0.1, 0.2, 0.3]), np.array([True, False, True])
    for metric in (detectors.auroc, detectors.fpr_at_tpr):
        assert math.isnan(metric(scores, outside)(np.array([1, 0, 1])))
        assert math.isnan(metric(scores, outside)(np.array([0, 1, 0])))


# Features


class Net(torch.nn.Module):
    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(5, width), torch.nn.ReLU(), torch.nn.Dropout(0.5))
        self.first = torch.nn.Linear(width, 4)
        self.last = torch.nn.Linear(width, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for parameter in self.parameters():
                torch.nn.init.normal_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.body(x)
        return self.last(hidden) + 0 * self.first(hidden).sum() * 0


class Scaled(Net):
    """Its output is not that of a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Squeezed(Net):
    """One logit an example, ``(n,)``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x)).squeeze(1)


def inputs(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(1))


def state(model: torch.nn.Module) -> list[Any]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()]
    return [hooks, [(p.requires_grad, p.grad) for p in model.parameters()], [p.tolist() for p in model.parameters()]]


def taken(model: torch.nn.Module, x: torch.Tensor, layer: str | None = None) -> NDArray[np.float32]:
    with torch.no_grad(), features.tap_of(model, x, layer) as tap:
        model.eval()
        model(x)
        return tap.take()


def test_features_are_what_the_head_turns_into_the_models_output() -> None:
    model, x = Net().eval(), inputs()
    found = taken(model, x)
    assert features.head(model, x) == "last"
    with torch.no_grad():
        again = torch.nn.functional.linear(torch.from_numpy(found), model.last.weight, model.last.bias)
        assert torch.allclose(again, model(x), atol=1e-5)
        assert torch.equal(torch.from_numpy(found), model.body(x))


def test_a_narrower_variant_has_features_of_its_own_width() -> None:
    assert taken(Net(8).eval(), inputs()).shape == (6, 8)
    assert taken(Net(3).eval(), inputs()).shape == (6, 3)


def test_one_logit_without_an_axis_of_its_own_has_a_head_too() -> None:
    assert features.head(Squeezed(classes=1).eval(), inputs()) == "last"


def test_a_model_whose_output_is_no_layers_is_refused_with_what_to_do() -> None:
    for model, cause in ((Scaled(), "not the output of a Linear"), (torch.nn.Flatten(), "calls no Linear")):
        with pytest.raises(MeasurementError, match=cause) as refused:
            features.head(model, inputs())
        assert "name the layer" in refused.value.remedy


def test_a_head_that_does_more_than_its_weight_says_is_refused() -> None:
    model = Net()
    model.last.register_forward_hook(lambda module, given, returned: 3 * returned)
    with pytest.raises(MeasurementError, match="does more than its weight"):
        features.head(model, inputs())


def test_torchscript_is_refused_not_misread() -> None:
    scripted = torch.jit.trace(Net().eval(), inputs())
    with pytest.raises(MeasurementError):
        features.head(scripted, inputs())


def test_a_layer_that_the_policy_names_gives_its_output_flattened() -> None:
    images = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32, 3), torch.nn.Softmax(dim=1)
    ).eval()
    found = taken(model, images, layer="1")
    assert found.shape == (4, 32)
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(found), model[:3](images))


def test_an_unknown_layer_and_one_that_is_not_called_once_are_refused() -> None:
    model = Net()
    with pytest.raises(MeasurementError, match="no layer 'nowhere'"):
        taken(model, inputs(), layer="nowhere")
    shared = torch.nn.Linear(5, 5)
    twice = torch.nn.Sequential(shared, shared)
    with pytest.raises(MeasurementError, match="called 2 times"):
        taken(twice, inputs(), layer="0")


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was_also_when_something_fails(fails: bool) -> None:
    model = Net().train()
    model.body[2].eval()
    model.last.weight.requires_grad_(False)
    before = copy.deepcopy(state(model))
    x = inputs()[:, :4] if fails else inputs()
    with pytest.raises(MeasurementError, match="raised RuntimeError") if fails else contextlib.nullcontext():
        features.head(model, x)
    with pytest.raises(RuntimeError) if fails else contextlib.nullcontext(), features.tapped(model, "last") as tap:
        with torch.no_grad():
            model(x)
        tap.take()
    assert state(model) == before
