"""Shared fixtures: a tiny real audit that takes a fraction of a second."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker with all the cores for threads: together they would wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["pytester"]

SUBJECT = """
import pandas as pd
import torch

import pruneproof

N = {n}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

    def forward(self, x):
        return self.body(x)


def model():
    net = Net()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        first, last = net.body[0], net.body[2]
        first.weight[0, 0], first.weight[1, 0] = 2.0, -2.0
        last.weight[1, 0], last.weight[0, 1] = 2.0, 2.0
    return net


def data():
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(N, 6, generator=generator)
    targets = (inputs[:, 0] > 0).long()
    segments = pd.DataFrame({{"region": ["north" if i % 2 else "south" for i in range(N)]}})
    return inputs, targets, segments


def subject():
    inputs, targets, segments = data()
    return pruneproof.Subject(
        model=model(),
        task="classification",
        test=pruneproof.Data(inputs, targets, segments=segments),
        classes=("no", "yes"),
    )
"""

POLICY = """
[audit]
name = "tiny"
seed = 5

[subject]
load = "tiny_subject:subject"

[[prune]]
name = "mag"
ratios = [0.3, 0.97]

[suites.accuracy.gates]
accuracy = { min = 0.9, max_drop = 0.05 }

[suites.segments]
by = ["region"]
[suites.segments.gates]
excess_accuracy_gap = { max = 0.1 }
"""
"""At 0.3 every gate passes; at 0.97 one weight of 64 is left and accuracy falls to a coin's."""


@pytest.fixture
def tiny() -> Callable[..., Path]:
    """``tiny(folder, n=400, policy=..., subject=...)`` writes the tiny audit; gives the policy's path."""

    def write(folder: Path, n: int = 400, policy: str = POLICY, subject: str = SUBJECT) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tiny_subject.py").write_text(subject.format(n=n), "utf-8")
        path = folder / "audit.toml"
        path.write_text(policy, "utf-8")
        return path

    return write
