"""Entries of ``[suites.shift]``: which corruption with which of its own parameters, and which shift breaks what."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pruneproof import registry
from pruneproof.corruptions import SEVERITIES, Corruption, Named, Resampling
from pruneproof.tables import Name, Record, Reference, Text, offer

CORRUPTIONS = "pruneproof.corruptions"
Severity = Annotated[int, Field(ge=SEVERITIES[0], le=SEVERITIES[-1])]
Severities = Annotated[tuple[Severity, ...], Field(strict=False, min_length=1)]


class Entry(BaseModel):
    """``{ name = "gaussian_noise", severities = [1, 3, 5], … }``; further keys are the corruption's own."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str
    label: Name | None = None
    """What gates call it; default: its name."""
    severities: Severities | None = None
    """Default: the suite's."""
    load: Reference | None = None
    """``module:function``, called without arguments, returns a corruption of the user's own: an object that keeps the
    contract of ``pruneproof.corruptions.Corruption``."""

    @model_validator(mode="after")
    def _known(self) -> Entry:
        if self.severities is not None and list(self.severities) != sorted(set(self.severities)):
            raise ValueError("expected distinct severities, ascending")
        if self.load is None:
            problem = _problem(self.name, self.own)
            if problem:
                raise ValueError(problem)
        return self

    @property
    def called(self) -> str:
        """Its label."""
        return self.label or self.name

    @property
    def own(self) -> dict[str, Any]:
        """The corruption's own parameters."""
        return dict(self.model_extra or {})


def _named(value: Any) -> Any:
    """``"fog"`` as ``{ name = "fog" }``."""
    return {"name": value} if isinstance(value, str) else value


Entries = Annotated[
    tuple[Annotated[Entry, BeforeValidator(_named)], ...],
    Field(strict=False),
]


class Breaking(Record):
    """``{ corruption = "gaussian_noise", max_drop = 0.05 }``: the severity from which a limit on accuracy is broken."""

    corruption: Text
    """The label of an entry of ``corruptions``."""
    min_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_drop: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Below the dense model's accuracy on the clean test set."""

    @model_validator(mode="after")
    def _one_limit(self) -> Breaking:
        if (self.min_accuracy is None) == (self.max_drop is None):
            raise ValueError("expected exactly one of 'min_accuracy' and 'max_drop'")
        return self


def names() -> tuple[str, ...]:
    """Every corruption that a policy can name."""
    return registry.names(CORRUPTIONS)


def named(name: str) -> Named:
    """The corruption, or resampling, called ``name``.

    Raises:
        KeyError: there is none.
    """
    found: Named = registry.member(CORRUPTIONS, name).CORRUPTION
    return found


def options(found: Named, own: dict[str, Any]) -> BaseModel:
    """The corruption's own parameters, checked against what it takes.

    Raises:
        ValueError: an unknown parameter, the nearest one named, or an impossible value.
    """
    for key in own:
        if key not in found.options.model_fields:
            known = (*found.options.model_fields, "severities", "label", "load")
            raise ValueError(f"{found.name} takes no '{key}' ({offer(key, known)})")
    return found.options.model_validate(own)


def resamples(entry: Entry) -> bool:
    """Whether it is one of ours that leaves every example as it is."""
    return entry.load is None and _resamples(entry.name)


@cache
def _resamples(name: str) -> bool:
    return isinstance(named(name), Resampling)


def is_corruption(found: object) -> bool:
    """Whether an object keeps the contract of a corruption, or of a resampling."""
    return isinstance(found, Corruption | Resampling)


def said(error: ValueError) -> str:
    """One line; of pydantic's errors the first."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def _problem(name: str, own: dict[str, Any]) -> str | None:
    if name not in names():
        return f"expected a known corruption ({offer(name, names())}), or 'load' for one of your own"
    try:
        options(named(name), own)
    except ValueError as error:
        return said(error)
    return None
