"""Functional similarity under noise, against the published formula written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pruneproof.domain import Box
from pruneproof.outcomes import Predictions
from pruneproof.shift.draws import Draws
from pruneproof.shift.ground import Ground
from pruneproof.shift.similarity import Similarity, by, similarity, uniform
from pruneproof.suite import Facts

N = 40
FACTS = Facts("multiclass", N, ("a", "b", "c"), {})
GENERATOR = np.random.default_rng(3)
WEIGHTS = torch.tensor(GENERATOR.normal(size=(2, 3, 12)), dtype=torch.float32)


def examples(n: int = N) -> torch.Tensor:
    return torch.rand(n, 12, generator=torch.Generator().manual_seed(2)) * 4 - 1


def ground(low: float = -1.0, high: float = 3.0) -> Ground:
    return Ground("signal", (12,), torch.float32, Box(low, high), examples())


def said(logits: torch.Tensor) -> Predictions:
    return Predictions(logits.double().numpy(), FACTS, None)


def linear(inputs: torch.Tensor) -> Sequence[Predictions]:
    """A dense model, itself, and another one; each row by itself, so that batches do not matter to the last bit."""
    first, other = (torch.stack([(weight * row).sum(dim=1) for row in inputs]) for weight in WEIGHTS)
    return said(first), said(first), said(other)


def batched(clean: torch.Tensor, size: int, order: Sequence[int] | None = None) -> Iterator[tuple[list[int], Any]]:
    rows = list(order if order is not None else range(len(clean)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size], clean[rows[start : start + size]]


def run(size: int = 16, levels: Sequence[float] = (0.0, 0.1, 0.5), samples: int = 3) -> tuple[Similarity, ...]:
    return similarity(batched(examples(), size), uniform(ground()), linear, levels, 5, samples)


def test_a_model_is_wholly_like_itself_at_every_level() -> None:
    itself, _ = run()
    assert (itself.matches == 1).all()
    assert (itself.distances == 0).all()


def test_without_noise_similarity_is_that_of_the_clean_answers() -> None:
    _, other = run()
    dense, _, variant = linear(examples())
    assert other.matches[0].tolist() == (dense.labels == variant.labels).tolist()
    wanted = [np.sqrt(np.square(p - q).sum()) for p, q in zip(dense.probabilities, variant.probabilities, strict=True)]
    assert other.distances[0] == pytest.approx(wanted, abs=1e-6)


def test_it_is_the_mean_over_draws_of_the_published_noise() -> None:
    _, other = run(levels=(0.3,), samples=4)
    matches, distances = [], []
    for sample in range(4):
        u = Draws(5, f"functional similarity {sample}", range(N)).uniform(12).double()
        unit = ((examples().double() + 1) / 4 + 2 * 0.3 * (u - 0.5)).clamp(0, 1)
        dense, _, variant = linear((unit * 4 - 1).float())
        matches.append(dense.labels == variant.labels)
        distances.append(np.linalg.norm(dense.probabilities - variant.probabilities, axis=1))
    assert other.matches[0] == pytest.approx(np.mean(matches, axis=0))
    assert other.distances[0] == pytest.approx(np.mean(distances, axis=0), abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.05, 0.4])
def test_uniform_noise_moves_an_element_by_at_most_epsilon_of_the_range_and_stays_in_it(level: float) -> None:
    clean = examples()
    noisy = uniform(ground())(clean, level, Draws(1, "x", range(N)))
    assert noisy.shape == clean.shape
    assert noisy.dtype == clean.dtype
    assert float((noisy - clean).abs().max()) <= level * 4 + 1e-5
    assert float(noisy.min()) >= -1
    assert float(noisy.max()) <= 3
    if level:
        inside = ((clean > -1 + level * 4) & (clean < 3 - level * 4)).nonzero()
        moved = (noisy - clean)[inside[:, 0], inside[:, 1]] / (4 * level)
        assert float(moved.mean()) == pytest.approx(0, abs=0.2)
        assert float(moved.square().mean()) == pytest.approx(1 / 3, abs=0.15)  # of a uniform number in [-1, 1]
    else:
        assert torch.equal(noisy, clean)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([1, 2, 7, 40]), st.permutations(range(N)))
def test_what_an_example_is_shown_depends_on_its_position_not_on_batches_or_their_order(
    size: int, order: list[int]
) -> None:
    _, wanted = run(samples=2)
    _, found = similarity(batched(examples(), size, order), uniform(ground()), linear, wanted.levels, 5, 2)
    assert np.array_equal(found.matches, wanted.matches[:, order])
    assert np.array_equal(found.distances, wanted.distances[:, order])


def test_one_batch_is_asked_about_at_a_time_once_a_draw_and_level() -> None:
    asked = []

    def counting(inputs: torch.Tensor) -> Sequence[Predictions]:
        asked.append(len(inputs))
        return linear(inputs)

    similarity(batched(examples(), 16), uniform(ground()), counting, (0.0, 0.1), 5, 3)
    assert asked == [16] * 6 + [16] * 6 + [8] * 6


def test_every_level_scales_the_same_draw() -> None:
    seen = []

    def watching(inputs: torch.Tensor) -> Sequence[Predictions]:
        seen.append(inputs)
        return linear(inputs)

    wide = Ground("signal", (12,), torch.float32, Box(-100.0, 100.0), examples())  # nothing is cut off
    similarity(batched(examples(), N), uniform(wide), watching, (0.1, 0.2), 5, 2)
    for first, second in (seen[:2], seen[2:]):
        assert torch.allclose((second - examples()) / 2, first - examples(), atol=1e-4)
    assert not torch.allclose(seen[0], seen[2])


def test_any_corruption_can_stand_in_the_place_of_the_noise() -> None:
    class Shift:
        def apply(self, clean: Any, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> Any:
            return clean + severity * draws.normal(12).sign()

    class Options(BaseModel):
        pass

    perturbation: Any = by(Shift(), ground(), Options())  # type: ignore[arg-type]
    seen = []

    def watching(inputs: torch.Tensor) -> Sequence[Predictions]:
        seen.append(inputs)
        return linear(inputs)

    similarity(batched(examples(), N), perturbation, watching, (0.0, 2.0), 5, 1)
    assert torch.equal(seen[0], examples())
    assert torch.allclose((seen[1] - examples()).abs(), torch.full((N, 12), 2.0), atol=1e-5)


def test_means_are_taken_under_example_weights() -> None:
    _, other = run()
    weights = np.arange(N) % 3
    assert other.label_match(1)(weights) == pytest.approx(np.average(other.matches[1], weights=weights))
    assert other.softmax_distance(2)(weights) == pytest.approx(np.average(other.distances[2], weights=weights))
    assert np.isnan(other.label_match(0)(np.zeros(N, dtype=np.int64)))


def test_similarity_of_nothing_is_refused() -> None:
    for size, levels, samples in ((0, (0.1,), 1), (8, (), 1), (8, (0.1,), 0)):
        with pytest.raises(ValueError):
            similarity(batched(examples(size), 8), uniform(ground()), linear, levels, 5, samples)
