"""Counterexamples: the smallest changes of real examples on which a variant decides otherwise than the dense model.

Hypothesis proposes which example, which things about it, how far; each proposal is tried at many sizes in one forward
pass of either model. It shrinks what it finds to fewer changes, of an example nearer to a decision boundary; then each
change is brought as near to the clean value as the disagreement lasts. The same seed gives the same counterexamples,
in any process.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruneproof.outcomes import Predictions
from pruneproof.shift.disagreement import Ask, Disagreement, Find, Rivals, sweep
from pruneproof.shift.polishing import Polish

TRIES = 200
MOST = 3
EDITS = 3
"""Things that are changed together, at most."""
DEGREES = 4
"""Shares of how far it can go that one of several changes is tried at, beside the others."""
SHRINKS = 100
"""Further proposals that shrinking may try."""
FAILURES = 10
"""Examples whose counterexample was not confirmed, after which the search stops."""


@dataclass(eq=False)
class Search:
    """What was found, and what was looked at.

    Attributes:
        records: a counterexample each, plain values: ``example`` (its position), ``text``, ``changes`` (``name``,
            ``before``, ``after``), ``clean`` (what both decide without the change), ``dense``, ``variant``, ``size``,
            ``unit``.
        points: the changed example of each, as the models see it.
        started: examples that the search could start from.
        apart: examples that the models decide differently without any change; none of them is a start.
        unrealistic: examples that are outside of the constraints or the observed ranges themselves.
        tried: proposals.
        evaluated: changed examples that both models were asked about.
        unconfirmed: finds that did not stand in a pass of their own: the arithmetic of a batch had decided.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    points: list[torch.Tensor] = field(default_factory=list)
    started: int = 0
    apart: int = 0
    unrealistic: int = 0
    tried: int = 0
    evaluated: int = 0
    unconfirmed: int = 0

    def says(self) -> str:
        """What the search covered, in a line."""
        found = f"{len(self.records)} found" if self.records else "none found"
        apart = f"; {self.apart} are decided differently as they are" if self.apart else ""
        return (
            f"{found}: {self.tried} proposals, {self.evaluated:,} changed inputs, from {self.started} examples{apart}"
        )


def counterexamples(
    rivals: Rivals, seed: int, tries: int = TRIES, most: int = MOST, within: float = math.inf
) -> Search:
    """Looks for up to ``most`` counterexamples, of different examples, with up to ``tries`` proposals for each.

    An example is a start where both models decide it alike. A find counts once both models, asked about the changed
    example alone and within the example's own batch, still decide it differently, and still agree on the clean one.

    Args:
        within: a change that is larger is none.

    Raises:
        Whatever a model or a function of the subject's raises.
    """
    hunt = _Hunt(rivals, within)
    failures = 0
    while len(hunt.search.records) < most and failures < FAILURES and hunt.order:
        found = hunt.find(seed + len(hunt.search.records) + failures, tries)
        if found is None:
            break
        found = hunt.polish(found)
        hunt.order.remove(found.row)
        if hunt.models.confirmed(found):
            hunt.note(found)
        else:
            failures += 1
            hunt.search.unconfirmed += 1
    hunt.search.evaluated = hunt.models.evaluated
    return hunt.search


class _Hunt:
    def __init__(self, rivals: Rivals, within: float) -> None:
        self.within = within
        self.models, self.rivals, self.changes, self.search = Disagreement(rivals), rivals, rivals.changes, Search()
        self.polish = Polish(self.models)
        clean = rivals.changes.clean
        dense, variant = (self._each(ask, clean) for ask in (rivals.dense, rivals.variant))
        agreed = np.concatenate([a.labels == b.labels for a, b in zip(dense, variant, strict=True)])
        margins = [np.concatenate([_margins(one) for one in said]) for said in (dense, variant)]
        realistic = rivals.changes.starts().numpy()
        order = np.argsort(np.minimum(*margins), kind="stable")
        self.order: list[int] = [int(row) for row in order if agreed[row] and realistic[row]]
        self.search.started = len(self.order)
        self.search.apart = int((~agreed).sum())
        self.search.unrealistic = int((~realistic).sum())

    def find(self, seed: int, tries: int) -> Find | None:
        """What Hypothesis finds and shrinks; ``None``: nothing in ``tries`` proposals."""
        from hypothesis import HealthCheck, Phase, Verbosity, settings
        from hypothesis import find as shrunk
        from hypothesis.errors import NoSuchExample

        known: dict[Any, Find | None] = {}
        raised: list[Exception] = []

        def differs(proposal: Any) -> bool:
            if proposal not in known:
                if raised or len(known) >= tries + SHRINKS:
                    return False
                try:
                    known[proposal] = self._tried(proposal)
                except Exception as error:  # kept from Hypothesis, which would look for the smallest cause of it
                    raised.append(error)
                    return False
            return known[proposal] is not None

        quiet = settings(
            max_examples=tries, database=None, deadline=None, derandomize=True, verbosity=Verbosity.quiet,
            phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        )  # fmt: skip

        proposals = _proposals(len(self.order), len(self.changes.settings(self.order[0])), self.changes.most)

        def run() -> Any:
            try:
                return shrunk(proposals, differs, settings=quiet, random=random.Random(seed))
            except NoSuchExample:
                return None

        proposal = _apart(run)
        self.search.tried += len(known)
        if raised:
            raise raised[0]
        return None if proposal is None else known[proposal]

    def _tried(self, proposal: tuple[int, tuple[tuple[int, ...], ...]]) -> Find | None:
        """The smallest change of the sweep along a proposal on which the models differ."""
        which, edits = proposal
        row = self.order[which % len(self.order)]
        settings = self.changes.settings(row)
        free = [thing for thing, count in enumerate(settings) if count >= 0]
        if not free:
            return None
        asked = torch.zeros(len(settings), dtype=torch.float64)
        for thing_bits, down, degree, setting in edits:
            thing = free[thing_bits % len(free)]
            if settings[thing]:
                asked[thing] = 1 + setting % settings[thing]
            else:
                asked[thing] = (degree + 1) / DEGREES * (-1 if down else 1)
        found = self.models.smallest(row, sweep(asked, settings))
        return None if found is None or self._beyond(found) else found

    def _beyond(self, found: Find) -> bool:
        """Whether a change is too large even once it is brought nearer to the clean example."""
        return found.size > self.within and self.polish(found).size > self.within

    def note(self, found: Find) -> None:
        """Adds the record of a confirmed find."""
        before = self.rivals.dense(self.changes.clean[found.row, None].clone())
        dense, variant = (ask(found.point[None].clone()) for ask in (self.rivals.dense, self.rivals.variant))
        kept, now, then = (str(said.spoken()[0]) for said in (before, variant, dense))
        shown = self.changes.shown(found.row, found.asked, found.point)
        self.search.records.append(
            {
                "example": int(self.rivals.positions[found.row]),
                "text": f"{shown}, all else equal: dense {then}, {self.rivals.name} {now}",
                "changes": [one._asdict() for one in self.changes.told(found.row, found.asked, found.point)],
                "clean": kept,
                "dense": then,
                "variant": now,
                "size": found.size,
                "unit": self.changes.unit,
            }
        )
        self.search.points.append(found.point.clone())

    def _each(self, ask: Ask, clean: torch.Tensor) -> list[Predictions]:
        size = self.rivals.batch_size
        return [ask(clean[start : start + size].clone()) for start in range(0, len(clean), size)]


def _apart(run: Callable[[], Any]) -> Any:
    """``run()``; in a thread of its own where a test of Hypothesis is running, which would refuse one inside it."""
    from hypothesis import currently_in_test_context

    if not currently_in_test_context():
        return run()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def _proposals(rows: int, things: int, most: int) -> Any:
    """``(which example, ((thing, down, degree, setting), …))``, smaller as it shrinks.

    All is made of booleans. Hypothesis mixes constants of whatever modules are loaded into numbers, text and bytes, so
    that the same seed would not find the same in a test run and on the command line.

    Args:
        rows, things, most: how many examples, things about one, and settings of a thing there are.
    """
    from hypothesis import strategies as st

    def below(count: int) -> Any:
        digits = st.tuples(*[st.booleans()] * max(count - 1, 0).bit_length())
        return digits.map(lambda drawn: sum(bit << place for place, bit in enumerate(reversed(drawn))))

    edit = st.tuples(below(things), st.booleans(), below(DEGREES), below(most))
    return st.tuples(below(rows), st.lists(edit, min_size=1, max_size=EDITS).map(tuple))


def _margins(said: Predictions) -> NDArray[np.float64]:
    """``(n,)`` how near each answer is to another decision, in probability."""
    if said.facts.task == "binary":
        return np.abs(said.probabilities[:, 1] - (0.5 if said.threshold is None else said.threshold))
    ordered = np.sort(said.probabilities, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])
