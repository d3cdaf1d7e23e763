"""Which units go: against brute force, exact fractions, and torch's own pruning."""

from __future__ import annotations

from fractions import Fraction

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune

from pruneproof import pruning
from pruneproof.errors import PruningError
from pruneproof.policy import Prune
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
    if k == 0:
        with pytest.raises(PruningError, match="removes nothing"):
            pruning.select(scores, ratio, "global")
        return
    gone = pruning.select(scores, ratio, "global")
    assert sum(int(lost.sum()) for lost in gone) == k
    assert [lost.tolist() for lost in gone] == brute_force(scores, k)


@unhurried
@given(layers(), ratios)
def test_layer_selection_is_exact_in_each_layer(scores: list[torch.Tensor], ratio: float) -> None:
    counts = [wanted(len(score), ratio) for score in scores]
    if not any(counts):
        with pytest.raises(PruningError, match="removes nothing"):
            pruning.select(scores, ratio, "layer")
        return
    gone = pruning.select(scores, ratio, "layer")
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
            pruning.select(scores, ratio, "global", floor)
        return
    gone = pruning.select(scores, ratio, "global", floor)
    assert [lost.tolist() for lost in gone] == expected
    assert all(int((~lost).sum()) >= min(floor, len(lost)) for lost in gone)


@unhurried
@given(layers(), ratios)
def test_the_ratio_that_a_refusal_offers_is_accepted(scores: list[torch.Tensor], ratio: float) -> None:
    try:
        pruning.select(scores, ratio, "global", 1)
    except PruningError as error:
        if "at most" in error.remedy and float(error.remedy.rsplit(" ", 1)[1]) > 0:
            offered = float(error.remedy.rsplit(" ", 1)[1])
            gone = pruning.select(scores, offered, "global", 1)
            assert sum(int(lost.sum()) for lost in gone) == wanted(sum(map(len, scores)), offered)


def test_a_layer_that_cannot_spare_its_share_is_refused_in_layer_scope() -> None:
    with pytest.raises(PruningError, match="1 must stay"):
        pruning.select([torch.arange(10.0), torch.ones(1)], 0.5, "layer", 1)


def test_negative_zero_ties_with_zero() -> None:
    gone = pruning.select([torch.tensor([0.0, -0.0, 0.0, -0.0])], 0.5, "global")
    assert gone[0].tolist() == [True, True, False, False]


def test_selection_is_the_same_on_every_repetition_and_number_of_threads() -> None:
    scores = [torch.randint(0, 50, (200_003,)).float(), torch.zeros(100_001)]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 1, 4):
            torch.set_num_threads(count)
            found.append(torch.cat(pruning.select(scores, 0.37, "global")))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])


def recipe(**options: str) -> Prune:
    return Prune.model_validate({"name": "r", "ratios": [0.5], **options})


@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.5, 0.9])
def test_global_magnitude_masks_are_those_of_torch_global_unstructured(ratio: float) -> None:
    made = pruning.plan(recipe(), ratio, networks.seeded(networks.cnn), networks.batch(*networks.IMAGE), 0)
    other = networks.seeded(networks.cnn)
    pairs = [(other.get_submodule(name.rpartition(".")[0]), "weight") for name in made.masks]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=made.removed)
    for (module, _), mask in zip(pairs, made.masks.values(), strict=True):
        assert torch.equal(module.weight_mask.bool(), mask)


@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.5, 0.9])
def test_layer_magnitude_masks_are_those_of_torch_l1_unstructured(ratio: float) -> None:
    made = pruning.plan(recipe(scope="layer"), ratio, networks.seeded(networks.cnn), networks.batch(*networks.IMAGE), 0)
    other = networks.seeded(networks.cnn)
    for name, mask in made.masks.items():
        module = other.get_submodule(name.rpartition(".")[0])
        prune.l1_unstructured(module, "weight", amount=wanted(mask.numel(), ratio))
        assert torch.equal(module.weight_mask.bool(), mask)  # type: ignore[arg-type,operator]


def test_a_channel_scores_the_root_mean_square_of_all_weights_that_produce_it() -> None:
    from pruneproof.criteria import magnitude

    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, -1.0]])
    assert magnitude.channels(rows).tolist() == pytest.approx([12.5**0.5, 0.0, 1.0])
    assert magnitude.elements(torch.tensor([-2.0, 1.0])).tolist() == [2.0, 1.0]
