"""The suites that need the models themselves: each sees all of them once; what it saw is kept in the run's store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pruneproof import observed, policy
from pruneproof.evidence import OBSERVED
from pruneproof.exhibits import Chapter
from pruneproof.measuring import Family
from pruneproof.observed import Observed
from pruneproof.policy import Policy
from pruneproof.store import Store
from pruneproof.suite import Models, ObservingSuite

Attempt = Callable[[str, Callable[[], Any], float], Any]
"""``attempt(what, work, seconds)``: what ``work`` gives, or ``{"cause": …, "remedy": …}`` where it failed."""


def suites(asked: Policy) -> dict[str, ObservingSuite]:
    """The policy's suites that need the models."""
    found = {name: policy.suite(name) for name in asked.suites}
    return {name: suite for name, suite in found.items() if isinstance(suite, ObservingSuite)}


class Observations:
    """What the policy's suites saw of every model.

    Args:
        asked: the policy.
        store: shared by all processes of the run.
    """

    def __init__(self, asked: Policy, store: Store) -> None:
        self.asked = asked
        self.store = store
        self.suites = suites(asked)
        self.interrupted = False

    def make(self, name: str, models: Callable[[], Models], attempt: Attempt) -> None:
        """Lets suite ``name`` see the models, unless some process has; whatever fails is kept as its error."""
        self.store.once(f"observed {name}", lambda: self._made(name, models, attempt))

    def _made(self, name: str, models: Callable[[], Models], attempt: Attempt) -> dict[str, Any]:
        suite, options, given = self.suites[name], self.asked.suites[name].options, models()
        seconds = self.asked.audit.timeout_s * suite.tasks(options) * len(given.models)
        made: dict[str, Any] = {
            "cause": f"the audit was interrupted before {name} was measured",
            "remedy": "run it again",
        }
        if not self.interrupted:
            made = attempt(f"observing {name}", lambda: dict(suite.observe(given, options)), seconds)
        if "cause" in made:
            reason = observed.failed(f"{made['cause']} ({made['remedy']})")
            made = dict.fromkeys(given.models, reason)
        for variant, seen in made.items():
            observed.write(self._file(name, variant), seen)
        return {"models": sorted(made)}

    def seen(self, variant: str, suite: str) -> Observed | None:
        """What ``suite`` saw of ``variant``; ``None``: nothing."""
        task = self.store.peek(f"observed {suite}") or {}
        return observed.read(self._file(suite, variant)) if variant in task.get("models", ()) else None

    def _file(self, suite: str, variant: str) -> Path:
        return self.store.folder / OBSERVED / suite / f"{variant}.npz"


def kept(folder: Path, variant: str, suite: str) -> Observed | None:
    """What ``suite`` saw of ``variant``, from an evidence folder; ``None``: nothing.

    Raises:
        EvidenceError: the file is damaged.
    """
    path = folder / OBSERVED / suite / f"{variant}.npz"
    return observed.read(path) if path.exists() else None


def chapters(family: Family, names: Iterable[str]) -> list[Chapter]:
    """What the suites show of the models ``names``, dense first."""
    wanted = list(names)
    found = []
    for suite, observing in suites(family.asked).items():
        every = [family.context(name, suite) for name in wanted]
        contexts = [given for given in every if given.observed is not None]
        if contexts:
            found.append(observing.chapter(contexts, family.asked.suites[suite].options))
    return found
