"""Label shift by resampling: a class becomes more frequent, and within each class nothing changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from pruneproof.corruptions import EVERY, Kind, Parameters, _levels
from pruneproof.errors import SubjectError
from pruneproof.tables import Record, Text, offer

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

FACTOR = (1.5, 2.0, 3.0, 5.0, 10.0)
"""By which the odds of the class are multiplied."""


class Options(Record):
    """Which class."""

    target: int | Text | None = None
    """Its index or, where the ground knows the classes, its name. Default: the positive one of two."""
    direction: Literal["up", "down"] = "up"
    """``"down"``: the odds are divided."""


class LabelShift:
    """``q(x | y) = p(x | y)``, and the odds of one class are multiplied: of the prior ``p`` it becomes
    ``f p / (1 - p + f p)`` (Saerens et al. 2002; Lipton et al. 2018, arXiv 1802.03916)."""

    name = "label_shift"
    kinds: frozenset[Kind] = EVERY
    options: type[BaseModel] = Options

    def refuses(self, ground: Ground, options: BaseModel) -> str | None:
        """A class that there is not. Without the classes' names that shows when it is resampled."""
        assert isinstance(options, Options)
        if isinstance(options.target, str) and options.target not in _classes(ground):
            return f"there is no class '{options.target}' ({offer(options.target, _classes(ground))})"
        return None

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """``odds_factor`` of the class."""
        assert isinstance(options, Options)
        factor = _levels.at(FACTOR, severity, none=1.0)
        return {"odds_factor": factor if options.direction == "up" else 1 / factor}

    def kept(
        self,
        inputs: torch.Tensor | None,
        targets: torch.Tensor,
        segments: pd.DataFrame,
        ground: Ground,
        severity: float,
        draws: Draws,
        options: BaseModel,
    ) -> torch.Tensor:
        """``(n,)`` booleans.

        Raises:
            SubjectError: targets that are no classes, or no example of the class.
        """
        from pruneproof.corruptions import _rejection

        assert isinstance(options, Options)
        member = targets == _index(targets, ground, options)
        if not bool(member.any()):
            raise SubjectError(
                f"label_shift: no test example is of class {options.target!r}",
                "name a class of the test set: target = …",
            )
        return _rejection.favoured(member, float(self.parameters(ground, severity, options)["odds_factor"]), draws)


def _classes(ground: Ground) -> tuple[str, ...]:
    return ground.classes


def _index(targets: torch.Tensor, ground: Ground, options: Options) -> int:
    if targets.ndim != 1 or bool((targets != targets.round()).any()):
        raise SubjectError(
            "label_shift: the targets are no classes", "leave label_shift out: it is defined for classification"
        )
    if isinstance(options.target, str):
        return _classes(ground).index(options.target)
    if options.target is not None:
        return options.target
    if len(targets) and int(targets.max()) > 1:
        raise SubjectError("label_shift: there are more than two classes", "say which: target = …")
    return 1


CORRUPTION = LabelShift()
