"""Token substitutions: proposed by gradients at the embedding, compared by forward passes.

To first order, replacing token ``a`` by ``b`` at a position changes the loss by ``(e_b - e_a) · g``, with ``g`` its
gradient in the vector there (HotFlip: Ebrahimi et al. 2018, arXiv 1712.06751, section 2). A beam of the sequences with
the highest loss is kept, as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from pruneproof.adversarial import embeddings
from pruneproof.adversarial.arena import Arena, Stage
from pruneproof.adversarial.margin import margin
from pruneproof.adversarial.sequences import EditSpace
from pruneproof.adversarial.victim import Victim
from pruneproof.errors import MeasurementError, SubjectError

ELEMENTS = 2**22
"""Numbers in the largest tensors of a search: its memory does not grow with the number of examples."""


class Effort(NamedTuple):
    """How hard to search.

    Args:
        beam: sequences kept an example after each round.
        candidates: substitutions tried by a forward pass, of each sequence in the beam.
        rounds: substitutions one after the other.
        tries: random points of the space tried on what still stands afterwards.
        gradients: substitutions are proposed by gradients; otherwise at random.
    """

    beam: int
    candidates: int
    rounds: int
    tries: int
    gradients: bool


class Beam(NamedTuple):
    """Sequences of which each belongs to an example.

    Args:
        rows: ``(m,)`` ascending; an example may own several.
        points: ``(m, length)``
    """

    rows: torch.Tensor
    points: torch.Tensor

    def at(self, which: torch.Tensor) -> Beam:
        """Some of them, by booleans or positions."""
        return Beam(self.rows[which], self.points[which])


class _Sight(NamedTuple):
    """What gradients of a victim need: it with its embedding opened, and all tokens' vectors ``(size, width)``."""

    victim: Victim
    table: torch.Tensor


class Swaps:
    """The search on all victims of an arena.

    Raises:
        SubjectError: the examples are no tokens of the space, or gradients are asked for and an embedding is not found.
    """

    def __init__(self, arena: Arena, effort: Effort) -> None:
        if not isinstance(arena.space, EditSpace):
            raise SubjectError(
                f"token substitutions need an EditSpace, not {type(arena.space).__name__}",
                "state Subject(domain=Tokens(…)), and a budget in edits",
            )
        arena.space.check(arena.clean)
        self.arena, self.space, self.effort = arena, arena.space, effort
        self.loss = margin(arena.aim)
        self.open = arena.space.replaceable(arena.clean) & attended(arena)
        self.blind: dict[str, str] = {} if effort.gradients else dict.fromkeys(self._names, "not asked for")
        """Victim → why there are no gradients of it."""
        self.sights = {v.name: self._sight(v) for v in arena.victims if v.name not in self.blind}

    def run(self) -> None:
        """Every victim: what fooled others, substitutions, random points; at the end everything on everybody."""
        self.arena.shared(self._fight)

    def _fight(self, victim: Victim) -> None:
        rows = self.arena.rows(victim)
        beam = Beam(rows, self.arena.clean[rows])
        for number in range(1, self.effort.rounds + 1):
            beam = self._round(victim, beam, number)
        self._try(victim)

    @property
    def _names(self) -> list[str]:
        return [victim.name for victim in self.arena.victims]

    def _sight(self, victim: Victim) -> _Sight:
        layer = embeddings.embedding(victim, self.space.tokens)
        vectors = embeddings.table(layer, self.space.tokens.size)
        return _Sight(embeddings.lifted(victim, self.space.tokens), vectors)

    def _round(self, victim: Victim, beam: Beam, number: int) -> Beam:
        """One more substitution in every sequence; the beam of the examples that still stand."""
        dark, kept = beam, list[Kept]()
        if victim.name not in self.blind and len(beam.rows):
            with self.arena.stage(f"swap {number}", victim, _examples(beam)) as stage:
                try:
                    dark, kept = self._by_gradients(victim, stage, beam)
                except MeasurementError as error:
                    self.blind[victim.name] = error.cause
        dark = self._standing(victim, dark)
        if len(dark.rows):
            why = self.blind.get(victim.name, "zero or not finite")
            with self.arena.stage(f"swap {number} without gradients: {why}", victim, _examples(dark)) as stage:
                for part in self._parts(dark):
                    kept.append(self._expand(victim, stage, part, self._noise(part, number)))
        return self._standing(victim, self._best(_joined(kept, beam)))

    def _by_gradients(self, victim: Victim, stage: Stage, beam: Beam) -> tuple[Beam, list[Kept]]:
        """Sequences at which gradients say nothing, and what came of the others."""
        sight, dark, kept = self.sights[victim.name], [], []
        for part in self._parts(beam):
            width = sight.table.shape[1]
            slope = embeddings.gradients(sight.victim, part.points, part.rows, self.loss, width, self.arena.aim)
            flat = slope.flatten(1)
            clear = flat.isfinite().all(dim=1) & (flat != 0).any(dim=1)
            dark.append(part.at(~clear))
            seen, slope = part.at(clear), slope[clear].float()
            rise = slope @ sight.table.T - (slope * sight.table[seen.points]).sum(dim=-1, keepdim=True)
            options = self.space.options(self.arena.clean[seen.rows])
            kept.append(self._expand(victim, stage, seen, rise.gather(2, options.clamp(min=0))))
        return Beam(torch.cat([one.rows for one in dark]), torch.cat([one.points for one in dark])), kept

    def _noise(self, part: Beam, number: int) -> torch.Tensor:
        """``(m, length, most)`` random numbers in the place of gains, the same for every victim."""
        shape, places = (part.points.shape[1], self.space.most), _ranks(part.rows)
        draws = [
            torch.rand(shape, generator=self.arena.generator("token_swap", number, row, place))
            for row, place in zip(part.rows.tolist(), places.tolist(), strict=True)
        ]
        return torch.stack(draws) if draws else torch.zeros(0, *shape)

    def _expand(self, victim: Victim, stage: Stage, part: Beam, gains: torch.Tensor) -> Kept:
        """Tries the substitutions with the largest ``gains (m, length, most)``; what fools is submitted."""
        tried = self._substituted(part, gains)
        values, hits = victim.losses(tried.points, tried.rows, self.loss, self.arena.aim)
        values = values.nan_to_num(nan=float("-inf"))
        order = torch.argsort(values, descending=True, stable=True)
        order = order[torch.argsort(tried.rows[order], stable=True)]
        ranked, values, hits = tried.at(order), values[order], hits[order]
        fooling = ranked.at(hits)
        best = fooling.at(_ranks(fooling.rows) == 0)
        if len(best.rows):
            self.arena.submit(victim, stage, best.rows, best.points)
        first = _ranks(ranked.rows) < self.effort.beam
        return Kept(ranked.at(first), values[first])

    def _substituted(self, part: Beam, gains: torch.Tensor) -> Beam:
        """The sequences after each of their ``candidates`` best substitutions, each sequence once."""
        clean = self.arena.clean[part.rows]
        options = self.space.options(clean)
        edited = part.points != clean
        room = (edited.sum(dim=1, keepdim=True) < self.space.edits) | edited
        able = (options >= 0) & (options != part.points[..., None]) & (room & self.open[part.rows])[..., None]
        which, place = _largest(torch.where(able, gains, float("-inf")), self.effort.candidates)
        points = part.points[which].clone()
        points[torch.arange(len(which)), place // self.space.most] = options.flatten(1)[which, place].to(points.dtype)
        rows = part.rows[which]
        both = _distinct(torch.cat([rows[:, None], points.long()], dim=1))
        return Beam(both[:, 0], both[:, 1:].to(points.dtype))

    def _best(self, kept: Kept) -> Beam:
        """The beam of each example, among all that was tried for it."""
        order = torch.argsort(kept.values, descending=True, stable=True)
        order = order[torch.argsort(kept.beam.rows[order], stable=True)]
        ranked = kept.beam.at(order)
        return ranked.at(_ranks(ranked.rows) < self.effort.beam)

    def _standing(self, victim: Victim, beam: Beam) -> Beam:
        return beam.at(torch.isin(beam.rows, self.arena.rows(victim)))

    def _parts(self, beam: Beam) -> Iterator[Beam]:
        """The beam in parts of whole examples, small enough for the memory."""
        width = max([self.space.most, *(sight.table.shape[1] for sight in self.sights.values())])
        rows = _distinct(beam.rows)
        for some in torch.split(rows, max(1, ELEMENTS // (beam.points.shape[1] * width * self.effort.beam))):
            yield beam.at(torch.isin(beam.rows, some))

    def _try(self, victim: Victim) -> None:
        """Random points, which no gradient leads astray."""
        rows = self.arena.rows(victim)
        if not self.effort.tries or not len(rows):
            return
        with self.arena.stage("random edits", victim, len(rows)) as stage:
            for number in range(self.effort.tries):
                points = self.space.start(self.arena.clean, self.arena.generator("token_swap", "random", number))
                points = torch.where(self.open, points, self.arena.clean)
                rows = self.arena.rows(victim)
                self.arena.submit(victim, stage, rows, points[rows])


class Kept(NamedTuple):
    """The best sequences that were tried, with their losses ``(m,)``."""

    beam: Beam
    values: torch.Tensor


def attended(arena: Arena) -> torch.Tensor:
    """``(n, length)`` booleans: positions that an ``attention_mask`` beside the tokens tells the model to look at."""
    every = torch.arange(len(arena.clean))
    given = arena.victims[0].inputs(arena.clean, every)
    mask = given.get("attention_mask") if isinstance(given, Mapping) else None
    if isinstance(mask, torch.Tensor) and mask.shape == arena.clean.shape[:2]:
        return mask.cpu() != 0
    return torch.ones(arena.clean.shape[:2], dtype=torch.bool)


def _largest(gains: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequence and flat place of ``count`` of each sequence's ``gains (m, length, most)``; ``-inf`` is never taken.

    Half of them are the best of a position each, the others the best of the rest: the order between positions is what
    first-order gains get wrong most.
    """
    _, length, most = gains.shape
    by_position = gains.max(dim=2)
    first = by_position.values.topk(min((count + 1) // 2, length), dim=1)
    places = first.indices * most + by_position.indices.gather(1, first.indices)
    rest = gains.flatten(1).scatter(1, places, float("-inf"))
    second = rest.topk(min(count - places.shape[1], rest.shape[1]), dim=1)
    values, places = torch.cat([first.values, second.values], dim=1), torch.cat([places, second.indices], dim=1)
    which, column = (values > float("-inf")).nonzero(as_tuple=True)
    return which, places[which, column]


def _joined(kept: list[Kept], like: Beam) -> Kept:
    if not kept:
        return Kept(like.at(torch.zeros(len(like.rows), dtype=torch.bool)), torch.zeros(0, dtype=torch.float64))
    beams = [one.beam for one in kept]
    joined = Beam(torch.cat([one.rows for one in beams]), torch.cat([one.points for one in beams]))
    return Kept(joined, torch.cat([one.values for one in kept]))


def _distinct(values: torch.Tensor) -> torch.Tensor:
    """Rows of ``values``, ascending, each once."""
    found: torch.Tensor = torch.unique(values, dim=0)
    return found


def _examples(beam: Beam) -> int:
    return len(_distinct(beam.rows))


def _ranks(rows: torch.Tensor) -> torch.Tensor:
    """For each of ``rows``, ascending, how many of the same stand before it."""
    return torch.arange(len(rows)) - torch.searchsorted(rows, rows)
