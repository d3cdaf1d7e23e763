"""The marker ``pruneproof("audit.toml")`` and its fixture: a user's own tests on each variant of an audit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pruneproof import gates, inference, policy, policy_file, terminal
from pruneproof.collecting import GateFailed, engine_of, leave, near, reproducing, settle
from pruneproof.errors import UsageError
from pruneproof.estimates import Exact
from pruneproof.evidence import GateRow
from pruneproof.outcomes import Floats, Predictions
from pruneproof.policy import DENSE
from pruneproof.subject import Data, Inputs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from pruneproof.engine import Engine


def parametrise(metafunc: pytest.Metafunc, marker: pytest.Mark) -> None:
    """One run of the test for each variant of the marker's policy."""
    if len(marker.args) != 1 or marker.kwargs:
        raise pytest.Collector.CollectError("@pytest.mark.pruneproof takes one argument, the path of an audit.toml")
    path = _find(str(marker.args[0]), metafunc.config, metafunc.definition.path)
    try:
        names = [spec.name for spec in policy.variants(policy_file.read(near(path)))]
    except UsageError as error:
        leave(metafunc.config, path, {"error": [error.cause, error.remedy]})
        raise pytest.Collector.CollectError(f"{error.cause}\n  {error.remedy}") from None
    metafunc.parametrize("pruneproof", [(path, name) for name in names], indirect=True, ids=names)


def _find(name: str, config: pytest.Config, test: Path) -> Path:
    """The policy: relative to the test's folder, else to pytest's root folder."""
    places = [test.parent / name, config.rootpath / name]
    return next((place.resolve() for place in places if place.exists()), places[0])


@dataclass(frozen=True, eq=False)
class Model:
    """A model of the audit.

    Args:
        name: ``dense`` or a variant's name.
    """

    name: str
    engine: Engine

    @cached_property
    def module(self) -> torch.nn.Module:
        """The ``torch.nn.Module`` itself."""
        return self.engine.model(self.name)

    def outputs(self, inputs: Inputs) -> Floats:
        """Logits ``(n, classes)`` or ``(n, 1)``, in eval mode, without gradients."""
        return inference.forward(self.module, Data(inputs), self.engine.loaded.subject.batch_size)

    def predict(self, inputs: Inputs) -> NDArray[Any]:
        """``(n,)`` class indices at the audit's operating point; numbers for regression."""
        facts = self.engine.examples.facts
        said = Predictions(inference.finite(self.outputs(inputs), self.name), facts, self.engine.threshold)
        return said.values if facts.task == "regression" else said.labels


class Audited:
    """What the fixture ``pruneproof`` gives: a variant, its dense model, and a way to make gates."""

    def __init__(self, item: pytest.Item, path: Path, engine: Engine, name: str) -> None:
        self._item, self._path, self._engine = item, path, engine
        self._made: set[str] = set()
        self.variant = Model(name, engine)
        self.dense = Model(DENSE, engine)

    @property
    def test(self) -> Data:
        """The subject's test set."""
        return self._engine.loaded.subject.test

    def gate(
        self,
        name: str,
        *,
        count: int | None = None,
        n: int | None = None,
        value: float | None = None,
        min: float | None = None,
        max: float | None = None,
    ) -> GateRow:
        """Judges ``count`` of ``n`` by the exact binomial interval, or ``value`` as it is, and records it.

        Ends the test where a candidate's gate does not pass; for a variant that is only explored the result
        is recorded.

        Args:
            name: as in ``[tests] required``; the gate's id is ``tests/<name>:min`` or ``:max``.
            min, max: the limit, one of them.

        Raises:
            GateFailed: it did not pass.
            ValueError: not exactly one limit, not exactly one of ``count``/``n`` and ``value``, or the name is
                taken.
        """
        if (min is None) == (max is None):
            raise ValueError("give exactly one of min and max")
        if (value is None) == (count is None) or (count is None) != (n is None):
            raise ValueError("give either count and n, or value")
        if name in self._made:
            raise ValueError(f"this test made a gate '{name}' already")
        self._made.add(name)
        asked = self._engine.asked
        if count is not None and n is not None and not (_whole(count) and _whole(n) and 0 <= int(count) <= int(n)):
            raise ValueError(f"count {count} and n {n} are not whole numbers with 0 <= count <= n")
        limits = [number for number in (min, max, value) if number is not None]
        if any(isinstance(number, str) or not math.isfinite(float(number)) for number in limits):
            raise ValueError(f"limit and value have to be finite numbers, not {limits}")
        if count is not None and not 0 < limits[0] < 1:
            raise ValueError(f"a limit of {limits[0]} on a share could never fail, or never pass")
        estimate = (
            gates.counted(int(count), int(n)) if count is not None and n is not None else Exact(float(value or 0))
        )
        key, limit = ("min", min) if min is not None else ("max", max)
        assert limit is not None
        row = gates.from_test(
            name,
            self.variant.name,
            self.variant.name in policy.candidates(asked),
            key,
            float(limit),
            estimate,
            int(n or 1),
            asked.audit.confidence,
        )
        (row,), _ = gates.waive([row], [w for w in asked.waivers if w.gate == row.id], self._engine.store.today)
        failed = False
        try:
            settle(self._item, self._path, asked, row)
        except pytest.skip.Exception:
            return row  # recorded; the test goes on
        except GateFailed:
            failed = True
        if failed:
            pytest.fail("\n".join(terminal.explanation(row, reproducing(self._item))), pytrace=False)
        return row


def _whole(number: Any) -> bool:
    return float(number).is_integer()


def audited(request: pytest.FixtureRequest) -> Audited:
    """The fixture's value."""
    if not hasattr(request, "param"):
        pytest.fail("the fixture 'pruneproof' needs @pytest.mark.pruneproof(\"audit.toml\")", pytrace=False)
    path, name = request.param
    engine = engine_of(request.config, path)
    if not isinstance(request.node, pytest.Item):
        pytest.fail("the fixture 'pruneproof' is for tests", pytrace=False)
    engine.result(name)
    return Audited(request.node, path, engine, name)
