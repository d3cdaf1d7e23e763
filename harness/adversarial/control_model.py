"""The control: a linear model without any defence, of which it is known which examples an attacker can break.

An attack has to break those, as the unit tests of Zimmermann et al. 2022 (arXiv 2206.13991) demand of a model with a
planted adversarial example. Within a ball and a box the points that move a linear model most are known exactly; within
other spaces what random points break is known to break.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pruneproof import inference
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.sequences import EditSpace
from pruneproof.adversarial.space import Space
from pruneproof.adversarial.victim import Victim, lead
from pruneproof.domain import Criterion

REACH = 0.9
"""Share of the budget within which an example has to be breakable to be asked for: attacks come near, no nearer."""
EASY = 0.45
"""Share of the budget within which it had better not be, or any random point would do."""
BEYOND = 1.01
"""Share of the budget within which an example must not be breakable to count as one that cannot be broken."""
FAR = 1e6
"""Length of the way along which a linear function is followed to the edge of a ball, in multiples of its size."""
SCATTERED = 32
"""Random points an example where the points that matter are not known exactly."""
LEAST = 32
"""Examples that the control is fitted to at least, however large they are."""
RIVALS = 12
"""Other classes that a point is moved to; with more of them nothing is said to be unbreakable."""
ELEMENTS = 2**24
"""Numbers in the largest tensors: the memory does not grow with the examples."""
NAME = "control"


class Linear(torch.nn.Module):
    """Scores ``(n, classes)``: linear in the elements of ``(n, …)``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        rows = points.reshape(len(points), math.prod(points.shape[1:]))
        return torch.nn.functional.linear(rows.to(self.weight.dtype), self.weight, self.bias)


class Bag(torch.nn.Module):
    """Scores ``(n, classes)``: the mean over the tokens ``(n, length)`` of what each says."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        classes, size = weight.shape
        self.embedding = torch.nn.Embedding(size, classes, _weight=weight.t().contiguous())
        self.bias = torch.nn.Parameter(bias)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.embedding(points).mean(dim=1) + self.bias)


@dataclass(frozen=True, eq=False)
class Control:
    """A control, ready to be attacked.

    Args:
        arena: the examples chosen, of which the control gets every one right.
        breakable: ``(n,)`` booleans: some allowed point breaks it.
        unbreakable: ``(n,)`` booleans: no allowed point does.
    """

    arena: Arena
    breakable: torch.Tensor
    unbreakable: torch.Tensor


def control(arena: Arena, victim: Victim, space: Space, classes: int, examples: int, seed: int) -> Control:
    """A control on examples of ``arena``, within ``space``, with as many classes as ``victim`` has.

    It is fitted by ridge regression in closed form, and its own answers are the truth, so that every example is right
    without an attack and its margin is a plain number. Of the examples those are taken that break within
    :data:`REACH` of the budget, the harder ones first, and some that do not break at all, ``examples`` in all.
    """
    generator = arena.generator("control", seed)
    most = min(2 * examples, max(LEAST, ELEMENTS // max(1, math.prod(arena.clean.shape[1:]))))
    pool = torch.randperm(len(arena.clean), generator=generator)[:most].sort().values
    opened, clean = _opened(space), arena.clean[pool]
    model = _fitted(clean, _labels(victim, pool, classes, generator), opened, classes, generator)
    made = Victim(
        NAME,
        model.to(inference.device_of(victim.model)).eval(),
        torch.zeros(len(pool), dtype=torch.int64),
        batch=min(victim.batch, max(1, examples)),
    )
    made.targets = made.answers(clean, torch.arange(len(pool)))
    broken = _Broken(made, clean, arena.aim, generator)
    breaks = broken.within(_within(opened, REACH))
    easy = broken.within(_within(opened, EASY)) & breaks
    safe = torch.zeros_like(breaks)
    if isinstance(opened, Ball) and arena.aim is None and classes <= RIVALS + 1:
        safe = ~broken.within(_within(opened, BEYOND))
    rows = _chosen(breaks, easy, safe, examples, generator)
    made.targets = made.targets[rows]
    if victim.criterion is not None:
        made.criterion = Criterion(loss=_margin, fooled=_wrong)
    return Control(Arena([made], clean[rows], opened, seed, aim=arena.aim), breaks[rows], safe[rows])


def _opened(space: Space) -> Space:
    """The same space without references to the layers of another model."""
    if isinstance(space, EditSpace):
        return EditSpace(dataclasses.replace(space.tokens, embedding=None), space.edits)
    return space


def _within(space: Space, share: float) -> Space:
    """The space with a share of its budget; of whole numbers of changes rounded, and at least one."""
    eps = float(space.describe()["eps"])
    if isinstance(space, EditSpace) or (isinstance(space, Ball) and space.norm == "L0"):
        return space.at(max(1.0, math.floor(share * eps) if share < 1 else math.floor(eps)))
    return space.at(share * eps)


def _fitted(
    clean: torch.Tensor, labels: torch.Tensor, space: Space, classes: int, generator: torch.Generator
) -> torch.nn.Module:
    """Ridge regression on ``labels``, of targets that ask for margins of very different width.

    With fewer examples than elements every margin asked for is met; so some examples break within a small part of the
    budget, and others withstand it. Solved in the examples (``X^T (X X^T + λ)^-1 Y``), whose number is small.
    """
    features, scale, center = _features(clean.cpu(), space)
    width = torch.logspace(-2, 0, 64, dtype=torch.float64)[torch.randint(64, (len(clean),), generator=generator)]
    wanted = (torch.nn.functional.one_hot(labels, classes).double() - 1 / classes) * width[:, None]
    kernel = features @ features.t()
    ridge = (1e-6 * kernel.diagonal().mean()).clamp_min(1e-12) * torch.eye(len(clean), dtype=torch.float64)
    raw = (features.t() @ torch.linalg.solve(kernel + ridge, wanted)).t()
    # scaled so that the margins are those of logits
    weight = raw * scale * 10 / (features @ raw.t()).abs().amax().clamp_min(1e-12)
    bias = -weight @ center
    if isinstance(space, EditSpace):
        return Bag(weight.float(), bias.float())
    dtype = torch.float64 if clean.dtype == torch.float64 else torch.float32
    return Linear(weight.to(dtype), bias.to(dtype))


def _features(clean: torch.Tensor, space: Space) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(m, elements)`` of ``(x - centre) · scale``, and scale and centre by element."""
    if isinstance(space, EditSpace):
        share = torch.full(clean.shape, 1 / clean.shape[1], dtype=torch.float64)
        counts = torch.zeros(len(clean), space.tokens.size, dtype=torch.float64).scatter_add(1, clean.long(), share)
        center = counts.mean(dim=0)
        return counts - center, torch.ones_like(center), center
    rows = clean.double().reshape(len(clean), math.prod(clean.shape[1:]))
    center = rows.mean(dim=0)
    if isinstance(space, Ball):
        unit = torch.as_tensor(space.unit, dtype=torch.float64).cpu().expand(clean.shape[1:]).reshape(-1)
        scale = 1 / unit
    else:
        spread = rows.std(dim=0)
        scale = torch.where(spread > 0, 1 / spread.clamp_min(1e-300), 0.0)
    return (rows - center) * scale, scale, center


def _labels(victim: Victim, rows: torch.Tensor, classes: int, generator: torch.Generator) -> torch.Tensor:
    """The examples' own classes; where they have none, random ones."""
    given = victim.targets[rows].cpu()
    if victim.criterion is None and given.ndim == 1:
        return given.long().clamp(0, classes - 1)
    return torch.randint(classes, (len(rows),), generator=generator)


@dataclass(frozen=True, eq=False)
class _Broken:
    """Which of ``clean`` some point breaks that is known to lie in a space."""

    made: Victim
    clean: torch.Tensor
    aim: int | None
    generator: torch.Generator

    def within(self, space: Space) -> torch.Tensor:
        """``(n,)`` booleans; a point counts when it lies in the space and the model itself is fooled by it."""
        every = torch.arange(len(self.clean))
        found = torch.zeros(len(self.clean), dtype=torch.bool)
        for points in self._points(space):
            found |= self.made.fooled(points, every, self.aim) & space.contains(self.clean, points).cpu()
        return found & ~self.made.fooled(self.clean, every, self.aim)

    def _points(self, space: Space) -> Iterator[torch.Tensor]:
        """Of a ball the very best for each of the nearest other classes, otherwise random ones."""
        if not (isinstance(space, Ball) and isinstance(self.made.model, Linear)):
            for _ in range(SCATTERED):
                yield space.start(self.clean, self.generator)
            return
        weight = self.made.model.weight.detach().double().cpu()
        own = self.made.targets
        for other in self._rivals():
            yield edge(space, self.clean, weight[other] - weight[own])

    def _rivals(self) -> Iterator[torch.Tensor]:
        """Classes ``(n,)`` to move to: the one aimed at, or those with the highest scores."""
        if self.aim is not None:
            yield torch.full_like(self.made.targets, self.aim)
            return
        with torch.no_grad():
            scores = self.made.model(self.clean.to(inference.device_of(self.made.model))).cpu()
        scores[torch.arange(len(scores)), self.made.targets] = -torch.inf
        yield from scores.argsort(dim=1, descending=True)[:, : min(RIVALS, scores.shape[1] - 1)].unbind(dim=1)


def edge(ball: Ball, clean: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """The point of the space at which the linear function with gradient ``slope (n, elements)`` is largest.

    The projection of a point far along the gradient: as that moves away, what is nearest to it maximises the function
    (the support point of a convex set). Of L0, which is not convex, it is the same: the largest gains are kept.
    """
    unit = torch.as_tensor(ball.unit, dtype=torch.float64, device=clean.device)
    way = slope.to(clean.device).reshape(clean.shape) * unit.square()
    size = (way / unit).abs().reshape(len(clean), -1).amax(dim=1).clamp_min(1e-300)
    length = FAR * max(1.0, ball.eps) / size.reshape(-1, *[1] * (clean.ndim - 1))
    return ball.project(clean, clean.double() + way * length)


def _chosen(
    breaks: torch.Tensor, easy: torch.Tensor, safe: torch.Tensor, examples: int, generator: torch.Generator
) -> torch.Tensor:
    """Rows, ascending: mostly hard ones that break, easy ones where those are few, some that cannot break."""
    order = torch.randperm(len(breaks), generator=generator)
    hard = [row for row in order.tolist() if breaks[row] and not easy[row]]
    rest = [row for row in order.tolist() if easy[row]]
    sound = [row for row in order.tolist() if safe[row]]
    most = max(1, examples * 4 // 5)
    return torch.tensor(sorted([*hard, *rest][:most] + sound[: examples - most]), dtype=torch.int64)


def _margin(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """``(n,)``; no softmax that saturates."""
    return lead(output, targets.to(output.device))


def _wrong(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return output.argmax(dim=1) != targets.to(output.device)
