"""Functional similarity under noise: how alike two models answer inputs that are more and more noise.

Liebenwein et al. 2021 (arXiv 2103.03014): the share of noisy inputs on which both say the same class, and the distance
of their softmax outputs ``‖σ(f̂) - σ(f)‖₂``, in the mean over inputs and draws, for ``x + 2ε (u - ½)`` with
``u ~ U(0, 1)``. Here inputs are taken in [0, 1], and what leaves that range is cut off, as a camera or a sensor does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from pruneproof.corruptions import Corruption
from pruneproof.outcomes import Predictions
from pruneproof.shift.draws import Draws
from pruneproof.shift.formulas import Weighted, Weights
from pruneproof.shift.ground import Ground

Perturbation = Callable[[torch.Tensor, float, Draws], torch.Tensor]
"""``perturbation(clean (n, …), level, draws) -> (n, …)``, not changing ``clean``."""
Answers = Callable[[torch.Tensor], Sequence[Predictions]]
"""``answers(inputs (n, …))``: what each model says of the same inputs, the one compared with first."""
Batches = Iterable[tuple[Sequence[int], torch.Tensor]]
"""Positions ``(n,)`` in the data set, and the clean examples ``(n, …)``."""
SAMPLES = 10
"""Draws of noise for each example."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """Of one model to the one that it is compared with.

    Args:
        levels: of the noise.
        matches: ``(levels, n)`` share of the draws on which both say the same class, each in [0, 1].
        distances: ``(levels, n)`` mean over the draws of ``‖σ(f̂) - σ(f)‖₂``, each in [0, √2].
    """

    levels: tuple[float, ...]
    matches: NDArray[np.float64]
    distances: NDArray[np.float64]

    def label_match(self, level: int) -> Weighted:
        """Mean over the examples at the ``level``-th level, as a function of example weights ``(n,)``."""
        return _mean(self.matches[level])

    def softmax_distance(self, level: int) -> Weighted:
        """As :meth:`label_match`, of the distances."""
        return _mean(self.distances[level])


def uniform(ground: Ground) -> Perturbation:
    """Uniform noise of a box's examples: a level of ε moves each element by up to ε of the range, either way."""

    def perturbed(clean: torch.Tensor, level: float, draws: Draws) -> torch.Tensor:
        noise = draws.uniform(*clean.shape[1:])
        unit = ground.to_unit(clean)
        return ground.from_unit(unit + 2 * level * (noise.to(unit.dtype) - 0.5), clean)

    return perturbed


def by(corruption: Corruption, ground: Ground, options: BaseModel) -> Perturbation:
    """Any corruption in the place of uniform noise, its severity in [0, 5] as the level: ``feature_noise`` of tables,
    whose noise is scaled by each column's spread."""

    def perturbed(clean: torch.Tensor, level: float, draws: Draws) -> torch.Tensor:
        return corruption.apply(clean, ground, level, draws, options)

    return perturbed


def similarity(
    batches: Batches,
    perturbation: Perturbation,
    answers: Answers,
    levels: Sequence[float],
    seed: int,
    samples: int = SAMPLES,
) -> tuple[Similarity, ...]:
    """Similarity of every model but the first to the first, on noise that all of them see alike.

    One batch with one draw is held at a time: memory grows with neither levels nor draws, and with the examples only by
    two numbers a level. A draw is the same at every level. What is drawn depends on the seed and the positions alone.

    Args:
        seed: of the audit.
        samples: draws for each example, at least 1.

    Raises:
        ValueError: there is no level, draw, example or other model.
    """
    if samples < 1 or not levels:
        raise ValueError(f"{samples} draws at {len(levels)} levels")
    parts: list[NDArray[np.float64]] = []
    for positions, clean in batches:
        found: NDArray[np.float64] | None = None
        for sample in range(samples):
            draws = Draws(seed, f"functional similarity {sample}", positions)
            for place, level in enumerate(levels):
                noisy = perturbation(clean, level, draws.rewound())
                first, *others = answers(noisy)
                if found is None:
                    found = np.zeros((len(others), 2, len(levels), len(clean)))
                for one, said in enumerate(others):
                    found[one, 0, place] += said.labels == first.labels
                    found[one, 1, place] += np.linalg.norm(said.probabilities - first.probabilities, axis=1)
        if found is not None:
            parts.append(found / samples)
    if not parts or not len(parts[0]):
        raise ValueError("similarity of no examples, or to no model")
    whole = np.concatenate(parts, axis=-1)
    return tuple(Similarity(tuple(levels), one[0], one[1]) for one in whole)


def _mean(each: NDArray[np.float64]) -> Weighted:
    def weighted(weights: Weights) -> float:
        drawn = weights.sum()
        return float((weights @ each) / drawn) if drawn else float("nan")

    return weighted
