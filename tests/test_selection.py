"""Which units go: against brute force, exact fractions, and torch's own pruning."""

from __future__ import annotations

from fractions import Fraction

import networks
import plans
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune

from pruneproof import selection
from pruneproof.errors import PruningError
from pruneproof.prunable import round_half_up

unhurried = settings(deadline=None)
"""A shared machine may pause in the middle of an example."""

ratios = st.floats(0, 1, exclude_min=True, exclude_max=True)
few_values = st.sampled_from([0.0, -0.0, 0.5, 1.0, 1.5, 100.0])
dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


@st.composite
def layers(draw: st.DrawFn) -> list[torch.Tensor]:
    """Scores of one to four layers, most of them tied."""
    values = draw(st.sampled_from([few_values, st.just(0.25), st.floats(0, 1e4, width=16)]))
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    return [torch.tensor([draw(values) for _ in range(size)], dtype=draw(dtypes)) for size in sizes]


def wanted(n: int, ratio: float) -> int:
    exact = Fraction(str(ratio)) * n + Fraction(1, 2)
    return exact.numerator // exact.denominator


def brute_force(scores: list[torch.Tensor], k: int, floor: int = 0) -> list[list[bool]] | None:
    """Takes the lowest one by one, whichever a layer can still spare; ``None`` when there is none."""
    left = [(value, layer, i) for layer, score in enumerate(scores) for i, value in enumerate(score.tolist())]
    sizes = [len(score) for score in scores]
    gone: set[tuple[int, int]] = set()
    while len(gone) < k:
        free = [entry for entry in left if sizes[entry[1]] > floor]
        if not free:
            return None
        lowest = min(free, key=lambda entry: (entry[0] + 0.0, entry[1], entry[2]))
        left.remove(lowest)
        sizes[lowest[1]] -= 1
        gone.add(lowest[1:])
    return [[(layer, i) in gone for i in range(len(score))] for layer, score in enumerate(scores)]


@given(st.integers(1, 10**9), ratios)
def test_the_number_to_remove_is_rounded_half_up_on_the_decimal_as_written(n: int, ratio: float) -> None:
    assert round_half_up(n, ratio) == wanted(n, ratio)


@pytest.mark.parametrize(
    ("n", "ratio", "k"),
    [(100, 0.29, 29), (1, 0.5, 1), (3, 0.5, 2), (5, 0.1, 1), (15, 0.7, 11), (10**6, 1e-06, 1), (10, 0.04, 0)],
)
def test_halves_go_up_and_binary_fractions_do_not_lose_one(n: int, ratio: float, k: int) -> None:
    assert round_half_up(n, ratio) == k


@unhurried
@given(layers(), ratios)
def test_global_selection_takes_exactly_the_lowest_and_the_earlier_of_equals(
    scores: list[torch.Tensor], ratio: float
) -> None:
    k = wanted(sum(map(len, scores)), ratio)
    if k in (0, sum(map(len, scores))):
        with pytest.raises(PruningError, match="removes nothing" if k == 0 else "leaves nothing"):
            selection.select(scores, ratio, "global")
        return
    gone = selection.select(scores, ratio, "global")
    assert sum(int(lost.sum()) for lost in gone) == k
    assert [lost.tolist() for lost in gone] == brute_force(scores, k)


@unhurried
@given(layers(), ratios)
def test_layer_selection_is_exact_in_each_layer(scores: list[torch.Tensor], ratio: float) -> None:
    counts = [wanted(len(score), ratio) for score in scores]
    if sum(counts) in (0, sum(map(len, scores))):
        with pytest.raises(PruningError, match="leaves nothing" if any(counts) else "removes nothing"):
            selection.select(scores, ratio, "layer")
        return
    gone = selection.select(scores, ratio, "layer")
    expected = [brute_force([score], k) for score, k in zip(scores, counts, strict=True)]
    assert [[lost.tolist()] for lost in gone] == expected


@unhurried
@given(layers(), ratios, st.integers(1, 3))
def test_a_floor_is_kept_in_every_layer_or_the_request_is_refused(
    scores: list[torch.Tensor], ratio: float, floor: int
) -> None:
    k = wanted(sum(map(len, scores)), ratio)
    expected = brute_force(scores, k, floor)
    if k == 0 or expected is None:
        with pytest.raises(PruningError):
            selection.select(scores, ratio, "global", floor)
        return
    gone = selection.select(scores, ratio, "global", floor)
    assert [lost.tolist() for lost in gone] == expected
    assert all(int((~lost).sum()) >= min(floor, len(lost)) for lost in gone)


@unhurried
@given(layers(), ratios)
def test_the_ratio_that_a_refusal_offers_is_accepted(scores: list[torch.Tensor], ratio: float) -> None:
    try:
        selection.select(scores, ratio, "global", 1)
    except PruningError as error:
        if "at most" in error.remedy and float(error.remedy.rsplit(" ", 1)[1]) > 0:
            offered = float(error.remedy.rsplit(" ", 1)[1])
            gone = selection.select(scores, offered, "global", 1)
            assert sum(int(lost.sum()) for lost in gone) == wanted(sum(map(len, scores)), offered)


def test_a_layer_that_cannot_spare_its_share_is_refused_in_layer_scope() -> None:
    with pytest.raises(PruningError, match="1 must stay"):
        selection.select([torch.arange(10.0), torch.ones(1)], 0.5, "layer", 1)


def test_negative_zero_ties_with_zero() -> None:
    gone = selection.select([torch.tensor([0.0, -0.0, 0.0, -0.0])], 0.5, "global")
    assert gone[0].tolist() == [True, True, False, False]


def test_selection_is_the_same_on_every_repetition_and_number_of_threads() -> None:
    scores = [torch.randint(0, 50, (200_003,)).float(), torch.zeros(100_001)]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 1, 4):
            torch.set_num_threads(count)
            found.append(torch.cat(selection.select(scores, 0.37, "global")))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.5, 0.9])
def test_global_magnitude_masks_are_those_of_torch_global_unstructured(ratio: float) -> None:
    made = plans.planned(networks.seeded(networks.cnn), networks.batch(*networks.IMAGE), ratio)
    other = networks.seeded(networks.cnn)
    pairs = [(other.get_submodule(name.rpartition(".")[0]), "weight") for name in made.masks]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=made.removed)
    for (module, _), mask in zip(pairs, made.masks.values(), strict=True):
        assert torch.equal(module.weight_mask.bool(), mask)


@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.5, 0.9])
def test_layer_magnitude_masks_are_those_of_torch_l1_unstructured(ratio: float) -> None:
    made = plans.planned(networks.seeded(networks.cnn), networks.batch(*networks.IMAGE), ratio, scope="layer")
    other = networks.seeded(networks.cnn)
    for name, mask in made.masks.items():
        module = other.get_submodule(name.rpartition(".")[0])
        prune.l1_unstructured(module, "weight", amount=wanted(mask.numel(), ratio))
        assert torch.equal(module.weight_mask.bool(), mask)  # type: ignore[arg-type,operator]


@unhurried
@given(layers(), st.data())
def test_a_number_that_is_spread_over_layers_is_met_exactly_and_in_proportion(
    scores: list[torch.Tensor], data: st.DataObject
) -> None:
    sizes = [len(score) for score in scores]
    k = data.draw(st.integers(0, sum(sizes)))
    counts = selection.apportioned(sizes, k)
    assert sum(counts) == k
    assert all(abs(count - n * k / sum(sizes)) < 1 for count, n in zip(counts, sizes, strict=True))


@unhurried
@given(st.integers(1, 6), st.integers(2, 6), st.data())
def test_in_every_run_of_a_pattern_the_lowest_go(runs: int, of_m: int, data: st.DataObject) -> None:
    keep_n = data.draw(st.integers(1, of_m - 1))
    score = torch.tensor([[data.draw(few_values) for _ in range(runs * of_m)] for _ in range(2)])
    gone = selection.pattern(score, keep_n, of_m)
    for row, lost in zip(score.tolist(), gone.tolist(), strict=True):
        for start in range(0, len(row), of_m):
            part = sorted(range(of_m), key=lambda i: (row[start + i] + 0.0, i))
            assert {i for i in range(of_m) if lost[start + i]} == set(part[: of_m - keep_n])


@unhurried
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), ratios)
def test_a_solved_number_of_steps_comes_closest_to_the_ratio(gains: list[float], ratio: float) -> None:
    total = sum(gains) or 1.0
    reached = [sum(gains[:count]) / total for count in range(len(gains) + 1)]
    if reached[-1] < ratio:
        with pytest.raises(PruningError, match="out of reach"):
            selection.solve(len(gains), reached.__getitem__, ratio)
        return
    found = selection.solve(len(gains), reached.__getitem__, ratio)
    nearest = min(abs(share - ratio) for share in reached[1:])
    assert abs(reached[found] - ratio) == pytest.approx(nearest)


def test_layers_that_share_one_number_lose_their_lowest_at_once() -> None:
    scores = [torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0.1, 0.3, 0.2])]
    assert selection.order_of_removal(scores, "layer", [1, 1], ["w", "w"]) == [[1, 3], [2, 5]]
    assert selection.order_of_removal(scores, "global", [1, 0], ["", ""]) == [[3], [5], [4], [1], [2]]
    assert selection.order_of_removal(scores, "layer", [1, 1], ["", ""]) == [[1], [3], [2], [5]]
