"""A small subject with shifted sets, times and regions, corruptions of a user's own, and audits of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pruneproof
from pruneproof.evidence import Evidence, GateRow, MeasurementRow

SUBJECT = '''
"""Two classes, told apart by a weighted sum of four numbers."""

import numpy as np
import pandas as pd
import torch

import pruneproof

N = 400


class Net(torch.nn.Module):
    """Logits -z and z of a weighted sum, added up column by column: the same bits in any batch."""

    def __init__(self, *weights, bias=0.0):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(weights))
        self.bias = torch.nn.Parameter(torch.tensor(float(bias)))

    def forward(self, x):
        z = self.bias.expand(len(x))
        for place, weight in enumerate(self.weights):
            z = z + weight * x[:, place]
        return torch.stack([-z, z], dim=1)


class Fails(Net):
    """Answers NaN to the first example of the later set, and to nothing else."""

    def forward(self, x):
        found = super().forward(x)
        where = (x == LATER.inputs[0].to(x.dtype)).all(dim=1)
        return torch.where(where[:, None], float("nan"), found)


class FailsOn(Net):
    """Answers NaN where the first number is at the end of its range: only corrupted examples are there."""

    def forward(self, x):
        found = super().forward(x)
        return torch.where((x[:, 0] >= 4.0)[:, None], float("nan"), found)


class Coin(torch.nn.Module):
    """Answers that have nothing to do with the targets."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        z = self.scale * torch.sign(torch.sin(1e4 * x[:, 3]))
        return torch.stack([-z, z], dim=1)


def data(n, seed, move=0.0):
    generator = torch.Generator().manual_seed(seed)
    inputs = (torch.randn(n, 4, generator=generator) + move).clamp(-3.9, 3.9)
    targets = (2 * inputs[:, 0] + inputs[:, 1] + torch.randn(n, generator=generator) > 0).long()
    segments = pd.DataFrame(
        {
            "region": np.where(inputs[:, 3] > 0, "north", "south"),
            "size": np.where(inputs[:, 2] > 0.5, "big", "small"),
            "when": pd.date_range("2026-01-01", periods=n, freq="6h").astype(str),
        }
    )
    return pruneproof.Data(inputs, targets, segments=segments)


LATER = data(200, 2, move=0.5)


def dense():
    return Net(2.0, 1.0, 0.2, 0.0)


def weaker():
    return Net(2.0, 0.0, 0.2, 0.6)


def coin():
    return Coin()


def constant():
    return Net(0.0, 0.0, 0.0, 0.0, bias=-1.0)


def opposite():
    """Decides every example otherwise than dense."""
    found = dense()
    with torch.no_grad():
        last = list(found.parameters())[-2:]
        for parameter in last:
            parameter.mul_(-1)
    return found


def fails():
    return Fails(2.0, 1.0, 0.2, 0.0)


def fails_on():
    return FailsOn(2.0, 1.0, 0.2, 0.0)


def subject(**changes):
    given = dict(
        model=dense(),
        task="classification",
        test=data(N, 1),
        shifted={"later": LATER},
        classes=("no", "yes"),
        domain=pruneproof.Box(-4.0, 4.0),
        batch_size=64,
    )
    return pruneproof.Subject(**(given | changes))
'''
"""Module ``shifted``."""

CORRUPTIONS = '''
"""Corruptions of a user's own: right ones and wrong ones."""

import torch
from pydantic import BaseModel


class Nothing(BaseModel):
    """No parameters."""


class Own:
    kinds = frozenset({"signal", "image"})
    options = Nothing

    def __init__(self, name, change):
        self.name, self.change = name, change

    def refuses(self, ground, options):
        return None

    def parameters(self, ground, severity, options):
        return {"amount": 0.5 * severity}

    def apply(self, clean, ground, severity, draws, options):
        return self.change(clean, severity, draws)


def identity():
    return Own("identity", lambda clean, severity, draws: clean)


def noise():
    def change(clean, severity, draws):
        return (clean + 0.5 * severity * draws.normal(*clean.shape[1:])).clamp(-4, 4)

    return Own("noise", change)


def rolled():
    return Own("rolled", lambda clean, severity, draws: clean.roll(1, dims=0))


def shuffled():
    generator = torch.Generator().manual_seed(0)

    def change(clean, severity, draws):
        return clean[torch.randperm(len(clean), generator=generator)]

    return Own("shuffled", change)


def standardised():
    return Own("standardised", lambda clean, severity, draws: (clean - clean.mean(dim=0)).clamp(-4, 4))


def global_noise():
    return Own("global_noise", lambda clean, severity, draws: (clean + torch.randn(clean.shape)).clamp(-4, 4))


def nan():
    return Own("nan", lambda clean, severity, draws: torch.full_like(clean, float("nan")))


def shape():
    return Own("shape", lambda clean, severity, draws: clean[:, :2])


def dtype():
    return Own("dtype", lambda clean, severity, draws: clean.double())


def outside():
    return Own("outside", lambda clean, severity, draws: clean + 100)


def raises():
    def change(clean, severity, draws):
        raise RuntimeError("no such sensor")

    return Own("raises", change)


def whole_only():
    table = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)

    def change(clean, severity, draws):
        if severity not in (0, 1, 2, 3, 4, 5):
            raise KeyError(severity)
        return (clean - table[int(severity)]).clamp(-4, 4)

    return Own("whole_only", change)


def to_the_end():
    return Own("to_the_end", lambda clean, severity, draws: torch.full_like(clean, 4.0))


def moved():
    return Own("moved", lambda clean, severity, draws: (clean - 0.4 * severity).clamp(-4, 4))


def reused():
    buffer = {}

    def change(clean, severity, draws):
        kept = buffer.setdefault("b", torch.zeros(10_000, clean.shape[1]))[: len(clean)]
        kept.copy_((clean - 0.4 * severity).clamp(-4, 4))
        return kept

    return Own("reused", change)


def numpy_parameters():
    import numpy as np

    found = Own("numpy_parameters", lambda clean, severity, draws: (clean - 0.4 * severity).clamp(-4, 4))
    found.parameters = lambda ground, severity, options: {"amount": np.float32(0.5 * severity)}
    return found


def none():
    return object()
'''
"""Module ``shifting``."""

HEAD = """
[audit]
name = "shifted"
seed = 7
resamples = 500
[subject]
load = "shifted:{load}"
"""


def write(
    folder: Path,
    suites: str,
    variants: tuple[str, ...] = ("weaker",),
    load: str = "subject",
    further: str = "",
    audit: str = "",
) -> Path:
    """Writes the modules and a policy; ``further``: text at the end of module ``shifted``; gives the policy's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shifted.py").write_text(SUBJECT + further, "utf-8")
    (folder / "shifting.py").write_text(CORRUPTIONS, "utf-8")
    entries = "".join(f'[[variant]]\nname = "{name}"\nload = "shifted:{name}"\n' for name in variants)
    head = HEAD.format(load=load).replace("resamples = 500\n", f"resamples = 500\n{audit}\n")
    (folder / "audit.toml").write_text(f"{head}{entries}{suites}", "utf-8")
    return folder / "audit.toml"


def audited(folder: Path, suites: str, **changes: object) -> Evidence:
    """An audit of :func:`write`, its evidence in ``folder / "out"``."""
    return pruneproof.audit(write(folder, suites, **changes), out=folder / "out")  # type: ignore[arg-type]


def row(found: Evidence, variant: str, metric: str, segment: dict[str, str] | None = None) -> MeasurementRow:
    """One measurement of the shift suite."""
    (only,) = (
        one
        for one in found.measurements
        if (one.variant, one.suite, one.metric, one.segment) == (variant, "shift", metric, segment)
    )
    return only


def value(found: Evidence, variant: str, metric: str, segment: dict[str, str] | None = None) -> float:
    """Its value, which there is."""
    made = row(found, variant, metric, segment).value
    assert made is not None
    return made


def gate(found: Evidence, variant: str, name: str) -> GateRow:
    """One gate of the shift suite."""
    (only,) = (one for one in found.gates if one.variant == variant and one.id == f"shift/{name}")
    return only


def module(folder: Path) -> ModuleType:
    """Module ``shifted`` as the audit had it, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"shifted_of_{folder.name}", folder / "shifted.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
