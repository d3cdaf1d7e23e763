"""All attacks of a policy on all variants of an audit: shard by shard, what was observed of each variant."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruneproof import observed
from pruneproof.adversarial import charges, spaces, stopping, strength
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.charges import Charge
from pruneproof.adversarial.earlier import Earlier
from pruneproof.adversarial.material import Material, Shard
from pruneproof.adversarial.nearest import nearest
from pruneproof.adversarial.space import Space
from pruneproof.adversarial.trace import Trace
from pruneproof.adversarial.victim import Victim
from pruneproof.errors import PruneProofError
from pruneproof.observed import Observed
from pruneproof.policy import DENSE
from pruneproof.suite import Models

if TYPE_CHECKING:
    from pruneproof.suites.adversarial import Options

TRANSFERRED = 200
"""Examples on which points of every variant are tried on every other."""
DRAWS = 8
"""Forward passes that one answer of a model is averaged over that draws random numbers."""
SHOTS = 4
"""Examples a variant that the report can show."""


class Campaign:
    """Every attack of the policy, on every variant.

    Args:
        models: of the audit.
        options: of the suite.

    Raises:
        PruneProofError: an attack cannot be carried out on this subject.
    """

    def __init__(self, models: Models, options: Options) -> None:
        self.models = models
        self.options = options
        subject = models.loaded.subject
        self.kind = spaces.kind_of(subject, options.bounds)
        self.material = Material(subject, self.kind, options.attacked)
        self.charges = charges.charges(subject, options, self.material, len(models.examples.facts.classes))
        self.earlier = Earlier(models.folder / options.replay, models) if options.replay else None
        self._broken: dict[str, str] = {}
        self._draws: dict[str, int] = {}

    def run(self) -> dict[str, Observed]:
        """What was observed of each model."""
        with contextlib.ExitStack() as stack:
            built = {name: make() for name, make in self.models.models.items()}
            for victim in (Victim(name, model, torch.empty(0)) for name, model in built.items()):
                stack.enter_context(victim.attacked())
            self._draws = {name: self._preflight(name, model) for name, model in built.items()}
            self._models = {name: model for name, model in built.items() if name not in self._broken}
            traces = [self._attacked(charge) for charge in self.charges]
            goals = [self._aimed(place, goal) for place, goal in enumerate(self.options.goals)]
        found = {name: self._observed(name, traces, goals) for name in self._models}
        return found | {name: observed.failed(reason) for name, reason in self._broken.items()}

    # One model

    def _victim(self, name: str, model: torch.nn.Module, shard: Shard) -> Victim:
        subject, threshold = self.models.loaded.subject, self.models.examples.threshold
        return Victim(
            name,
            model,
            shard.targets,
            inputs=shard.inputs,
            logit_threshold=0.0 if threshold is None else float(np.log(threshold) - np.log1p(-threshold)),
            criterion=subject.criterion,
            batch=self.options.batch,
            draws=self._draws.get(name, 1),
        )

    def _ready(
        self, charge: Charge, names: Iterable[str], shard: Shard
    ) -> tuple[Sequence[Victim], torch.Tensor, Space]:
        victims = [self._victim(name, self._models[name], shard) for name in names]
        return charges.ready(charge, victims, shard, self.models.loaded.subject.domain)

    def _preflight(self, name: str, model: torch.nn.Module) -> int:
        """Whether the model can be attacked at all, on a few examples; how many passes an answer takes."""
        count = min(8, len(self.models.examples.targets))
        shard = self.material.shard(range(count))
        rows = torch.arange(count)
        victim = self._victim(name, model, shard)
        try:
            victim.fooled(shard.clean, rows)
            if any(_needs_gradients(charge) for charge in self.charges) and shard.clean.is_floating_point():
                victim.gradient(shard.clean, rows, _first_score)
            return DRAWS if strength.stochastic(victim, shard.clean, rows) else 1
        except PruneProofError as error:
            self._broken[name] = f"{error.cause} ({error.remedy})"
        except Exception as error:
            self._broken[name] = f"{name} raised {type(error).__name__} under attack: {' '.join(str(error).split())}"
        return 1

    # One entry

    def _attacked(self, charge: Charge) -> dict[str, Trace]:
        """One entry on every model, shard by shard."""
        traces = {name: Trace() for name in self._models}
        left = list(self._models)
        for number, positions in enumerate(self._blocks()):
            self.models.progress(f"{charge.entry.called}: attacking {len(positions)} examples of {', '.join(left)}")
            shard = self.material.shard(positions.tolist())
            arena = self._fought(charge, positions, shard, left, traces)
            if number == 0:
                self._examined(charge, arena, traces)
                self._exchanged(arena, traces)
            if self.options.sequential:
                left = self._undecided(charge, traces, left)
                if not left:
                    break
        return traces

    def _fought(
        self,
        charge: Charge,
        positions: NDArray[np.int64],
        shard: Shard,
        names: Sequence[str],
        traces: Mapping[str, Trace],
    ) -> Arena:
        """One shard through all budgets, the smallest first: what fell within a smaller one fell within the larger.

        Gives the arena of the entry's own budget.
        """
        victims, clean, space = self._ready(charge, names, shard)
        n = len(positions)
        at = {name: np.full(n, -1) for name in names}
        stages = {name: np.full(n, -1) for name in names}
        queries = {name: np.full(n, np.nan) for name in names}
        right = np.ones((len(victims), n), dtype=bool)
        arena: Arena | None = None
        own: Arena | None = None
        for level, budget in enumerate(charge.entry.budgets):
            before = arena
            arena = Arena(
                victims,
                clean,
                space.at(budget),
                self._seed(charge.entry.called, int(positions[0])),
                standing=None if before is None else before.standing,
                pool=None if before is None else before.pool,
            )
            if before is None:
                right = arena.standing.numpy().copy()
            else:
                arena.fell_by = before.fell_by.clone()
            if self.earlier is not None:
                self.earlier.enter(arena, charge.entry.called, positions, None if before is None else before.space)
            charge.attack.run(arena, charge.own)
            own = arena if budget == charge.entry.eps else own
            for index, victim in enumerate(victims):
                trace = traces[victim.name]
                mine = [stage for stage in arena.stages if stage.victim == victim.name]
                trace.cost(mine)
                fell = (arena.fell_at[index] >= 0).numpy()
                at[victim.name][fell] = level
                asked = arena.queries.get(victim.name)
                if asked is not None:
                    queries[victim.name][fell] = asked.double().numpy()[fell]
                for row in np.flatnonzero(fell):
                    stages[victim.name][row] = trace.place(arena.stages[int(arena.fell_at[index, row])].name)
        assert arena is not None
        assert own is not None
        for index, victim in enumerate(victims):
            self._gathered(charge, traces[victim.name], victim, arena, index, positions, right[index], at, stages)
            traces[victim.name].queries += queries[victim.name].tolist()
        return own

    def _gathered(
        self,
        charge: Charge,
        trace: Trace,
        victim: Victim,
        arena: Arena,
        index: int,
        positions: NDArray[np.int64],
        right: NDArray[np.bool_],
        at: Mapping[str, NDArray[np.int64]],
        stages: Mapping[str, NDArray[np.int64]],
    ) -> None:
        """Adds a shard to a variant's trace, with the points that fooled it."""
        numbers = arena.fell_by[index].tolist()
        rows = [row for row, number in enumerate(numbers) if number >= 0 and right[row]]
        distance = np.full(len(positions), np.nan)
        answers = np.full(len(positions), -1)
        if rows:
            points = torch.stack([arena.pool.points[numbers[row]] for row in rows])
            where = torch.tensor(rows)
            distance[rows] = self._distances(charge, victim, arena, where, points)
            answers[rows] = self._answers(victim, points, where)
            trace.points.add(points)
            trace.point_rows += positions[rows].tolist()
        trace.rows += positions.tolist()
        trace.clean += right.tolist()
        trace.budget += at[victim.name].tolist()
        trace.stage += stages[victim.name].tolist()
        trace.distance += distance.tolist()
        trace.answers += answers.tolist()

    def _distances(
        self, charge: Charge, victim: Victim, arena: Arena, rows: torch.Tensor, points: torch.Tensor
    ) -> NDArray[np.float64]:
        """Of each example: the smallest budget that some point of it fools with, as far as it is known."""
        clean = arena.clean[rows]
        if not isinstance(arena.space, Ball):
            return arena.space.distance(clean, points).numpy()
        return nearest(victim, arena.space, rows, clean, points, charge.attack.gradients).numpy()

    @staticmethod
    def _answers(victim: Victim, points: torch.Tensor, rows: torch.Tensor) -> NDArray[np.int64]:
        if victim.criterion is not None:
            return np.full(len(rows), -1)
        return victim.answers(points, rows).numpy()

    # Strength and transfer, on the first shard

    def _examined(self, charge: Charge, arena: Arena, traces: Mapping[str, Trace]) -> None:
        """The strength checks of one entry on every variant."""

        def trial(
            victims: Sequence[Victim], rows: torch.Tensor, space: Space | None = None, seed: int | None = None
        ) -> Arena:
            some = [_narrowed(victim, rows) for victim in victims]
            other = self._seed("trial", charge.entry.called, seed or 0)
            return Arena(some, arena.clean[rows], space or arena.space.at(charge.entry.eps), other)

        for victim in arena.victims:
            self.models.progress(f"{charge.entry.called}: strength checks on {victim.name}")
            trace = traces[victim.name]
            try:
                seen = strength.observe(
                    charge.attack, charge.own, trial, arena, victim,
                    self._seed("strength", charge.entry.called), self.options.strength_examples,
                )  # fmt: skip
            except Exception as error:
                # What fell has fallen; what stands is not trusted.
                trace.unchecked = f"{type(error).__name__}: {' '.join(str(error).split())}"
                continue
            trace.checks = [
                {"name": check.name, "numbers": dict(check.numbers), "not_applicable": check.not_applicable}
                for check in seen
            ]

    def _exchanged(self, arena: Arena, traces: Mapping[str, Trace]) -> None:
        """Every variant's points on every other variant, of examples that both get right."""
        n = min(TRANSFERRED, len(arena.clean))
        first = np.arange(n)
        right = {victim.name: np.array(traces[victim.name].clean[:n]) for victim in arena.victims}
        for source, by in zip(arena.victims, arena.fell_by[:, :n].tolist(), strict=True):
            has = np.array([number >= 0 for number in by]) & right[source.name]
            for victim in arena.victims:
                rows = first[has & right[victim.name]]
                hits = 0
                if len(rows):
                    points = torch.stack([arena.pool.points[by[row]] for row in rows])
                    hits = int(victim.fooled(points, torch.from_numpy(rows)).sum())
                traces[victim.name].transfer[source.name] = [hits, len(rows)]

    # Targeted goals

    def _aimed(self, place: int, goal: Any) -> dict[str, dict[str, Any]]:
        """How often each model can be made to answer ``goal.to`` of an example of ``goal.source``."""
        classes = list(self.models.examples.facts.classes)
        source, aim = classes.index(goal.source), classes.index(goal.to)
        charge = self.charges[0]
        every = np.flatnonzero(self.models.examples.targets == source)
        drawn = np.random.default_rng(self._seed("goal", place)).permutation(len(every))
        chosen = every[drawn[: self.options.most]]
        hits: dict[str, list[bool]] = {name: [] for name in self._models}
        for start in range(0, len(chosen), self.options.shard):
            positions = chosen[start : start + self.options.shard]
            shard = self.material.shard(positions.tolist())
            victims, clean, space = self._ready(charge, self._models, shard)
            arena = Arena(victims, clean, space, self._seed("goal", place, int(positions[0])), aim=aim)
            charge.attack.run(arena, charge.own)
            for index, victim in enumerate(victims):
                hits[victim.name] += (~arena.standing[index]).tolist()
        return {name: {"rows": chosen, "hits": np.array(found, dtype=bool)} for name, found in hits.items()}

    # What is kept

    def _observed(
        self, name: str, traces: Sequence[Mapping[str, Trace]], goals: Sequence[Mapping[str, Any]]
    ) -> Observed:
        arrays: dict[str, NDArray[Any]] = {}
        rows = []
        for place, (charge, of) in enumerate(zip(self.charges, traces, strict=True)):
            trace = of[name]
            arrays |= trace.arrays(f"attack{place}/")
            shots, pictures = self._shots(place, charge, trace, traces[place].get(DENSE))
            arrays |= pictures
            rows.append(
                {
                    "label": charge.entry.called,
                    "attack": charge.entry.name,
                    "own": charge.own.model_dump(mode="json"),
                    "kind": self.kind,
                    "criterion": self.models.loaded.subject.criterion is not None,
                    "norm": charge.norm,
                    "space": charge.space.describe(),
                    "budgets": list(charge.entry.budgets),
                    "eps": charge.entry.eps,
                    "draws": self._draws[name],
                    "batch": self.options.batch,
                    "stages": {stage: trace.stages[stage] for stage in trace.names},
                    "stage_names": trace.names,
                    "checks": trace.checks,
                    "unchecked": trace.unchecked,
                    "transfer": trace.transfer,
                    "shots": shots,
                    "gradients": charge.attack.gradients,
                    "queries": _queries(charge),
                }
            )
        for place, goal in enumerate(goals):
            arrays |= {f"goal{place}/{key}": value for key, value in goal[name].items()}
        return Observed({"attacks": rows, "sequential": self.options.sequential}, arrays)

    def _shots(
        self, place: int, charge: Charge, trace: Trace, dense: Trace | None
    ) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
        """A few examples that fell, with what the report needs to show them; of those that dense withstood first."""
        stood = set() if dense is None else {row for row, at in zip(dense.rows, dense.budget, strict=True) if at < 0}
        level = charge.entry.budgets.index(charge.entry.eps)
        within = {row for row, at in zip(trace.rows, trace.budget, strict=True) if 0 <= at <= level}
        able = [number for number, row in enumerate(trace.point_rows) if row in within]
        chosen = sorted(able, key=lambda number: trace.point_rows[number] not in stood)[:SHOTS]
        if not chosen:
            return [], {}
        rows = [trace.point_rows[number] for number in chosen]
        shard = self.material.shard(rows)
        names = [name for name in (DENSE,) if name in self._models] or list(self._models)[:1]
        (victim,), clean, space = self._ready(charge, names, shard)
        points = np.array(trace.points.array()[chosen])
        given = torch.from_numpy(points).to(clean.dtype)
        said = self._answers(victim, given, torch.arange(len(rows))).tolist()
        distances = space.distance(clean, given).tolist()
        answers = dict(zip(trace.rows, trace.answers, strict=True))
        shots = [
            {
                "row": row,
                "answer": answers[row],
                "dense": said[number] if victim.name == DENSE else None,
                "distance": distances[number],
                "text": space.shown(clean[number], given[number]),
            }
            for number, row in enumerate(rows)
        ]
        pictures = {f"attack{place}/shot_clean": clean.float().numpy(), f"attack{place}/shot_points": points}
        return shots, pictures if self.kind == "box" else {}

    # Order

    def _blocks(self) -> Iterator[NDArray[np.int64]]:
        """The examples in random order: the first of them, on which strength and transfer are looked at, then stand
        for all however the test set is sorted."""
        total = len(self.models.examples.targets)
        n = min(total, self.options.most)
        order = stopping.order(total, self._seed("order"))[:n]
        if self.options.sequential:
            sizes = stopping.blocks(n)
        else:
            sizes = [min(self.options.shard, n - start) for start in range(0, n, self.options.shard)]
        start = 0
        for size in sizes:
            yield np.asarray(order[start : start + size], dtype=np.int64)
            start += size

    def _undecided(self, charge: Charge, traces: Mapping[str, Trace], left: Sequence[str]) -> list[str]:
        """The models whose gates on this entry the examples so far do not decide; dense with them."""
        level = charge.entry.budgets.index(charge.entry.eps)
        stood = {name: _stood(trace, level) for name, trace in traces.items()}
        gates = [gate for gate in self.models.gates if gate.metric.family in ("attack", "budget", "class", "segment")]
        members = len(self.charges) + (len(self.charges) > 1)
        decided = stopping.decided(stood, gates, self.models.ratios, members)
        return [name for name in left if name not in decided]

    def _seed(self, *key: object) -> int:
        digest = hashlib.sha256(repr((self.models.seed, *key)).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


def _needs_gradients(charge: Charge) -> bool:
    """Whether it can do nothing without; attacks that search as well say so in a stage of theirs."""
    return charge.attack.gradients and not getattr(charge.attack, "searches", False)


def _queries(charge: Charge) -> int | None:
    """Scores that an attack without gradients may ask for, an example; ``None`` where it is not counted in them."""
    most = getattr(charge.own, "queries", None)
    if charge.attack.gradients or not isinstance(most, int):
        return None
    return most * int(getattr(charge.own, "restarts", 1))


def _stood(trace: Trace, level: int) -> NDArray[np.bool_]:
    at = np.array(trace.budget)
    return np.array(trace.clean, dtype=bool) & ~((at >= 0) & (at <= level))


def _narrowed(victim: Victim, rows: torch.Tensor) -> Victim:
    """The victim on some of its examples alone."""
    return dataclasses.replace(
        victim,
        targets=victim.targets[rows],
        inputs=lambda points, these: victim.inputs(points, rows[these]),
        work=type(victim.work)(),
    )


def _first_score(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return scores[:, 0]
