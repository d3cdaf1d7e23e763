"""The subject's examples as an attack needs them: the input that is attacked, what goes with it, the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pruneproof import inference
from pruneproof.attacks import Domain
from pruneproof.errors import SubjectError
from pruneproof.subject import Data, Subject


@dataclass(frozen=True, eq=False)
class Shard:
    """Some examples.

    Args:
        clean: ``(n, …)`` the input that is attacked.
        targets: ``(n, …)``.
        inputs: ``inputs(points, rows)`` → what the model is called with: the points in the place of the clean input.
    """

    clean: torch.Tensor
    targets: torch.Tensor
    inputs: Callable[[torch.Tensor, torch.Tensor], Any]


class Material:
    """The subject's test examples.

    Args:
        subject: checked.
        attacked: the key (of a mapping) or position (of a tuple) of the input that is attacked; ``None``: the only one
            that can be.

    Raises:
        SubjectError: there is no such input, or several.
    """

    def __init__(self, subject: Subject, kind: Domain, attacked: str | None = None) -> None:
        self.data = subject.test
        self.kind = kind
        self.classes = subject.criterion is None and subject.task == "classification"
        first, _ = next(inference.batches(self.data, 1))
        self.key = self._key(first, attacked)
        self.sample = self.pick(first)
        """The attacked input of the first example, ``(1, …)``."""

    def shard(self, rows: Sequence[int]) -> Shard:
        """The examples at ``rows``, positions in the test set."""
        inputs, yielded = _taken(self.data, rows)
        targets = _targets(self.data.targets, rows) if self.data.targets is not None else yielded
        found = torch.as_tensor(targets)
        if self.classes:
            found = found.reshape(len(rows)).long()
        return Shard(self.pick(inputs).detach().clone(), found, self._together(inputs))

    def _together(self, inputs: Any) -> Callable[[torch.Tensor, torch.Tensor], Any]:
        key = self.key
        if isinstance(inputs, Mapping):
            return lambda points, rows: {name: points if name == key else part[rows] for name, part in inputs.items()}
        if isinstance(inputs, tuple | list):
            return lambda points, rows: tuple(
                points if place == key else part[rows] for place, part in enumerate(inputs)
            )
        return lambda points, rows: points

    def pick(self, inputs: Any) -> torch.Tensor:
        """The input that is attacked, of one batch."""
        found: torch.Tensor = inputs if self.key is None else inputs[self.key]
        return found

    def _key(self, inputs: Any, attacked: str | None) -> str | int | None:
        if isinstance(inputs, torch.Tensor):
            if attacked is not None:
                raise SubjectError(f"no input '{attacked}': the subject has one input", "leave out 'attacked'")
            self._kind_of(inputs, "the input")
            return None
        named: dict[str | int, Any] = dict(inputs) if isinstance(inputs, Mapping) else dict(enumerate(inputs))
        able = {key: part for key, part in named.items() if isinstance(part, torch.Tensor) and self._able(part)}
        if attacked is not None:
            for key, part in named.items():
                if str(key) == attacked:
                    self._kind_of(part, f"input '{attacked}'")
                    return key
            raise SubjectError(f"no input '{attacked}'", f"name one of {', '.join(map(str, named))}")
        if self.kind == "tokens" and "input_ids" in able:
            return "input_ids"
        if len(able) != 1:
            raise SubjectError(
                f"{len(able)} of the subject's inputs ({', '.join(map(str, named))}) could be attacked",
                "name one: [suites.adversarial] attacked = …",
            )
        return next(iter(able))

    def _able(self, part: torch.Tensor) -> bool:
        return part.is_floating_point() if self.kind != "tokens" else not part.is_floating_point()

    def _kind_of(self, part: Any, what: str) -> None:
        if not isinstance(part, torch.Tensor) or not self._able(part):
            kind = str(part.dtype) if isinstance(part, torch.Tensor) else type(part).__name__
            wanted = "integer tokens" if self.kind == "tokens" else "floating point numbers"
            raise SubjectError(
                f"{what} is {kind}, and a {self.kind} domain is attacked in {wanted}",
                "give Subject(domain=Tokens(…)) for tokens, Box or Table for numbers",
            )


def _taken(data: Data, rows: Sequence[int]) -> tuple[Any, Any]:
    if isinstance(data.inputs, torch.Tensor | Mapping | tuple | list):
        index = torch.as_tensor(rows, dtype=torch.int64)
        return inference.each(data.inputs, lambda part: part[index].detach().clone()), None
    items = Data(torch.utils.data.Subset(data.inputs, list(rows)))
    return next(inference.batches(items, len(rows)))


def _targets(targets: Any, rows: Sequence[int]) -> Any:
    if isinstance(targets, torch.Tensor):
        return targets[torch.as_tensor(rows, dtype=torch.int64)]
    import numpy as np

    return torch.from_numpy(np.asarray(targets)[list(rows)])
